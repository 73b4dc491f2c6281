"""Every shape of branches in one graph of ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kinkcheck import ops
from kinkcheck.selection import parse
from strategies import filled

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # the compiler's own
    pytest.mark.skipif(
        torch.__version__ < "2.11", reason="modules are compiled from PyTorch 2.11 on"
    ),
]

INDEX = torch.tensor([[0, 0, 1, 2], [1, 1, 0, 0]])

SHAPES: dict[str, tuple[Callable[..., Tensor], Callable[[Tensor], tuple[object, ...]]]] = {
    "Sides": (F.hardtanh, lambda x: (x,)),
    "Sides by tensors": (F.prelu, lambda x: (x, torch.tensor([0.5]))),
    "Sums": (torch.norm, lambda x: (x, 1, 0)),
    "Along": (torch.amax, lambda x: (x, 1)),
    "Along, a place": (torch.kthvalue, lambda x: (x, 2)),
    "Between": (torch.maximum, lambda x: (x, x.flip(0))),
    "Between, clamped": (torch.clamp, lambda x: (x, x.flip(0), x.flip(1))),
    "Windowed": (F.max_pool2d, lambda x: (x[None], 2, 1)),
    "Windowed norm": (F.lp_pool2d, lambda x: (x[None], 2.0, 2)),
    "Gathered": (
        torch.scatter_reduce,
        lambda x: (x[0], 0, INDEX[:, : x.shape[2]], x[1, :2], "amax"),
    ),
    "Sorted": (torch.sort, lambda x: (x, 0)),
    "Running": (torch.cummax, lambda x: (x, 0)),
    "Ball": (torch.linalg.vector_norm, lambda x: (x, 2, 0)),
    "Both": (torch.norm, lambda x: (x, torch.inf, 0)),
    "Apart": (torch.cdist, lambda x: (x[0], x[1])),
    "Pairs": (F.pdist, lambda x: (x[0],)),
    "Centred": (torch.std, lambda x: (x, 0)),
}


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def under(name: str, selection: str) -> Callable[[Tensor], Tensor]:
    function, arguments = SHAPES[name]
    chosen = parse(selection)

    def call(x: Tensor) -> Tensor:
        operation = ops.operation(function, arguments(x * 1), {})
        assert operation is not None
        found = ops.call(operation, chosen)
        value: Tensor = found if isinstance(found, Tensor) else found[0]
        return value

    return call


def some() -> Tensor:
    x = filled((3, 4, 4), (-1.0, 0.0, 1.0), torch.float32, 0)
    x[:, 0] = 0
    return x


def value_and_gradient(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    x = some().requires_grad_()
    value = function(x)
    (gradient,) = torch.autograd.grad(value.square().sum() + value.sum(), x)
    return value, gradient


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_compiled_in_one_graph(name: str) -> None:
    for selection in ("native", "minimal"):
        function = under(name, selection)
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        for one, other in zip(*map(value_and_gradient, (function, compiled)), strict=True):
            assert torch.equal(one, other)


def test_shapes_are_compiled_together_to_machine_code() -> None:
    calls = [under(name, "minimal") for name in ("Sides", "Between", "Sorted", "Ball")]

    def function(x: Tensor) -> Tensor:
        return torch.stack([call(x).sum() for call in calls])

    compiled = torch.compile(function, fullgraph=True, backend="inductor")
    for one, other in zip(*map(value_and_gradient, (function, compiled)), strict=True):
        torch.testing.assert_close(one, other)
