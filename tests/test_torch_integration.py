"""The modules of kinkcheck.nn under the transformations that PyTorch offers."""

import copy
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.utils.checkpoint import checkpoint

import kinkcheck.nn as knn
from kinkcheck.kernels import AdaptiveWindows, SlidingWindows, Windows, library


def network() -> nn.Module:
    """Every operation, with a selection that is not PyTorch's own."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        knn.ReLU(selection="branch:0.5"),
        knn.MaxPool2d(3, 2, 1, selection="hybrid:10"),
        knn.NormPool2d(2, selection="branch:1"),
        knn.ReLU(inplace=True, selection="last"),
        knn.AdaptiveMaxPool2d(3, selection="random:3"),
        knn.CompoundMaxPool2d(10, 2),
    )


@pytest.fixture
def images() -> Tensor:
    """Few values, so that live ties abound."""
    return torch.randint(0, 3, (2, 3, 32, 32), generator=torch.Generator().manual_seed(1)).float()


def weight_gradient(model: nn.Module, images: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    (gradient,) = torch.autograd.grad(run(images).square().sum(), model[0].weight)
    return gradient


in_one_graph = pytest.mark.skipif(
    torch.__version__ < "2.11", reason="modules are compiled from PyTorch 2.11 on"
)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@in_one_graph
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_in_one_graph(images: Tensor, backend: str, dynamic: bool) -> None:
    model = network()
    compiled = torch.compile(model, fullgraph=True, backend=backend, dynamic=dynamic)
    eager = weight_gradient(model, images, model)
    # inductor fuses and reorders sums; the other two run the same kernels.
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if backend == "inductor" else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(weight_gradient(model, images, compiled), eager, **tolerance)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=in_one_graph)])
def test_exported(images: Tensor, strict: bool) -> None:
    model = network()
    exported = torch.export.export(copy.deepcopy(model), (images,), strict=strict)
    assert torch.equal(exported.module()(images), model(images))


def test_functional_gradient_and_vmap(images: Tensor) -> None:
    model = network()
    parameters = dict(model.named_parameters())
    eager = weight_gradient(model, images, model)

    def loss(parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        return functional_call(model, parameters, (images,)).square().sum()

    assert torch.equal(grad(loss)(parameters, images)["0.weight"], eager)
    # random:3 draws by position, and vmap folds its dimension into the channels.
    model[5].select("native")
    by_sample = vmap(grad(loss), in_dims=(None, 0))(parameters, images.unsqueeze(1))
    for index, image in enumerate(images):
        alone = grad(loss)(parameters, image.unsqueeze(0))["0.weight"]
        torch.testing.assert_close(by_sample["0.weight"][index], alone, rtol=1e-5, atol=1e-5)


def test_forward_mode_is_the_adjoint_of_the_backward_pass(images: Tensor) -> None:
    model = network().double()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(2)
    tangents = {
        name: torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for name, p in parameters.items()
    }
    output, tangent = jvp(
        lambda p: functional_call(model, p, (images.double(),)), (parameters,), (tangents,)
    )
    cotangent = torch.randn(output.shape, generator=generator, dtype=output.dtype)
    gradients = torch.autograd.grad(
        model(images.double()), list(model.parameters()), grad_outputs=cotangent
    )
    forward = (tangent * cotangent).sum()
    backward = sum((g * t).sum() for g, t in zip(gradients, tangents.values(), strict=True))
    torch.testing.assert_close(forward, backward, rtol=1e-12, atol=0)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(images: Tensor, reentrant: bool) -> None:
    model = network()
    eager = weight_gradient(model, images, model)
    output = checkpoint(model, images.requires_grad_(), use_reentrant=reentrant)
    output.square().sum().backward()
    assert torch.equal(model[0].weight.grad, eager)


def test_autocast(images: Tensor) -> None:
    model = network()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images)
    assert output.dtype == torch.bfloat16
    assert weight_gradient(model, images, lambda _: output).dtype == torch.float32


@pytest.mark.parametrize(
    "windows",
    [
        SlidingWindows((3, 2), (2, 2), (1, 0), (1, 2), ceil_mode=True),
        SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False),
        AdaptiveWindows((3, None)),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_pass_opcheck(windows: Windows, dtype: torch.dtype) -> None:
    size = (2, 3, 8, 8)[: 2 + windows.dimensions]
    input = torch.randint(0, 3, size).to(dtype)
    value = library.max_pool(input, windows)
    numbers = library._numbers(windows)
    operators = torch.ops.kinkcheck
    torch.library.opcheck(operators.max_pool.default, (input, numbers))
    linear = (input, numbers, "hybrid:10")
    torch.library.opcheck(operators.max_pool_vjp.default, (value, *linear))
    torch.library.opcheck(operators.max_pool_jvp.default, (input, *linear))


@pytest.mark.slow
def test_distributed_data_parallel(tmp_path: Path) -> None:
    worker = Path(__file__).with_name("ddp_worker.py")
    processes = [subprocess.Popen([sys.executable, worker, str(rank), tmp_path]) for rank in (0, 1)]
    for process in processes:
        process.wait(timeout=120)
    first, second = (torch.load(tmp_path / f"gradient{rank}.pt") for rank in (0, 1))
    names = runpy.run_path(str(worker))
    model, images = names["network"](), names["images"]()
    alone = sum(weight_gradient(model, images[i : i + 1], model) for i in (0, 1)) / 2
    assert torch.equal(first, second)
    torch.testing.assert_close(first, alone, rtol=1e-5, atol=1e-5)
