"""Tangents through convolutions and batch norm against PyTorch's own forward mode."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.autograd.forward_ad as fwd
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import record
from kinkcheck.tape.adjoints import short
from kinkcheck.tape.directions import direction
from kinkcheck.tape.graph import nodes
from kinkcheck.tape.tangents import edge_of, trace

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv1d": lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2),
    "conv2d": lambda: nn.Conv2d(4, 6, 3, padding="same"),
    "conv2d without a bias": lambda: nn.Conv2d(4, 6, (1, 3), bias=False),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2, padding_mode="circular", padding=1),
    "conv3d": lambda: nn.Conv3d(4, 2, 2),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2),
    "batch norm": lambda: nn.BatchNorm2d(4),
    "batch norm in evaluation mode": lambda: nn.BatchNorm2d(4).eval(),
    "batch norm without parameters": lambda: nn.BatchNorm2d(4, affine=False),
    "batch norm without statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False).eval(),
    "batch norm of vectors": lambda: nn.BatchNorm1d(4),
    "only the bias": lambda: nn.Conv2d(4, 6, 3).requires_grad_(False),
}


def input_of(name: str, layer: nn.Module) -> Tensor:
    sizes = {"conv1d": (9,), "conv3d": (3, 4, 3), "batch norm of vectors": ()}.get(name, (5, 6))
    return torch.randn(3, 4, *sizes)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("frozen", ["nothing", "input", "weight"])
@pytest.mark.parametrize("name", LAYERS)
def test_tangents_are_those_of_forward_mode(name: str, frozen: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]().to(dtype)
    if isinstance(bias := getattr(layer, "bias", None), Tensor):
        bias.data.normal_()
        bias.requires_grad_()
    x = input_of(name, layer).to(dtype).requires_grad_(frozen != "input")
    if frozen == "weight" and isinstance(weight := getattr(layer, "weight", None), Tensor):
        weight.requires_grad_(False)
    moving = [each for each in (x, *layer.parameters()) if each.requires_grad]
    if not moving:
        pytest.skip("nothing moves")
    along = direction(moving, 1)
    state = {name: each.clone() for name, each in layer.state_dict().items()}

    y = layer(x)
    loss = y.square().sum()
    plain = torch.autograd.grad(loss, moving, retain_graph=True)
    found = trace(loss, moving, [along], [edge_of(y)], [edge_of(y)], bare=True)  # type: ignore[list-item]
    assert all(torch.equal(a, b) for a, b in zip(found.gradients, plain, strict=True))  # type: ignore[arg-type]

    layer.load_state_dict(state)
    with fwd.dual_level():
        of = {id(each): fwd.make_dual(each, t) for each, t in zip(moving, along, strict=True)}
        own = {name: of.get(id(each), each) for name, each in layer.named_parameters()}
        moved = torch.func.functional_call(layer, own, (of.get(id(x), x),))
        right = fwd.unpack_dual(moved).tangent
    (tangent,) = found.moved[0].values()
    size = float(right.detach().abs().max())
    assert float((tangent - right.detach()).abs().max()) <= 100 * torch.finfo(dtype).eps * size


def test_a_gradient_penalty_keeps_its_second_derivatives() -> None:
    """The program itself differentiates twice: tangents against those of another program."""
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3).double()
    x = torch.randn(1, 2, 5, 5).double().requires_grad_()

    def penalty() -> Tensor:
        (inner,) = torch.autograd.grad(layer(x).tanh().sum(), x, create_graph=True)
        return inner.square().sum()

    loss = penalty()
    moving = list(layer.parameters())
    along = direction(moving, 0)
    (tangent,) = trace(loss, moving, [along], [edge_of(loss)], bare=True).moved[0].values()  # type: ignore[list-item]
    right = sum(
        (g * d).sum() for g, d in zip(torch.autograd.grad(penalty(), moving), along, strict=True)
    )
    assert torch.allclose(tangent, torch.as_tensor(right), rtol=1e-12)


def test_a_pass_of_a_program_with_hooks_is_not_shortened() -> None:
    """A hook that scales a gradient scales the tangents that PyTorch carries too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU()).double()
    x = torch.ones(1, 1, 3, 3).double()
    with record(model) as tape:
        inner = model[0](x)
        handle = inner.grad_fn.register_hook(
            lambda returned, _: tuple(3 * g if g is not None else g for g in returned)
        )
        loss = model[1](inner).sum()
    parameters = list(model.parameters())
    along = direction(parameters, 0)
    edges = [edge_of(inner)]
    found = tape.trace(loss, [along], edges)  # type: ignore[arg-type]
    own = trace(loss, parameters, [along], edges)  # type: ignore[arg-type]
    (a,), (b,) = (each.moved[0].values() for each in (found, own))
    assert torch.equal(a, b)
    handle.remove()


def test_the_hooks_are_gone_afterwards() -> None:
    x = torch.rand(1, 1, 4, requires_grad=True)
    weight = torch.rand(1, 1, 2, requires_grad=True)
    y = F.conv1d(x, weight)
    with short(nodes(y.grad_fn)):
        pass
    (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert gradient.grad_fn is not None
    assert gradient.grad_fn.name() == "ConvolutionBackwardBackward0"
