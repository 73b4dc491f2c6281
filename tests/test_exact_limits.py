"""Limits over the rationals: the exact gradient at a point moved a little along the direction."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kinkcheck.nn as knn
from kinkcheck import exact, record
from kinkcheck.errors import InputError
from kinkcheck.tape.directions import direction
from strategies import filled
from test_exact_rows import CALLS, Program

pytest.importorskip("flint")

SEEDS = range(4)


def moved(model: nn.Module, seed: int, size: float) -> nn.Module:
    """A copy in float64 at parameters moved along the direction of a seed, without rounding."""
    other = deepcopy(model).double()
    along = direction(list(model.parameters()), seed)
    for here, there, drawn in zip(model.parameters(), other.parameters(), along, strict=True):
        there.data.add_(size * drawn.double())
        assert torch.equal((there.detach() - here.double()) / size, drawn.double())
    return other


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CALLS)
def test_a_limit_is_the_gradient_beside_the_point(name: str, seed: int) -> None:
    model, x = Program(CALLS[name]), filled((5, 3), (-1.0, 0.0, 1.0), torch.float32, 2)
    point = exact.evaluate(model, x)
    ones = torch.ones(point.output.shape)
    # Piecewise linear, so that the gradient beside the point is that of all points nearer to it.
    beside = exact.evaluate(moved(model, seed, 2.0**-14), x)
    found, expected = (
        each.gradient(ones, choice)["linear.weight"].fractions()
        for each, choice in ((point, f"limit:{seed}"), (beside, "native"))
    )
    assert found == expected


class OneNumber(nn.Module):
    """A function of one parameter, at 0."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.t = nn.Parameter(torch.zeros(1))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.t * x)


TENTH = Fraction(float(torch.tensor(0.1)))
KNOWN: dict[str, tuple[Callable[[Tensor], Tensor], tuple[Fraction | int, Fraction | int]]] = {
    "identity": (lambda t: F.relu(t) - F.relu(-t), (1, 1)),
    "zero": (lambda t: torch.maximum(t, 2 * t) - torch.maximum(2 * t, t), (0, 0)),
    "leaky": (lambda t: F.relu(t) - 0.1 * F.relu(-t), (TENTH, 1)),
    "clamped": (lambda t: t.clamp(min=0) + 0.1 * t.clamp(max=0), (TENTH, 1)),
    "nested": (lambda t: F.relu(F.relu(t) + F.relu(-t)), (-1, 1)),
    "product": (lambda t: (t.abs() + 3) * (t + 1), (2, 4)),
    "detached": (lambda t: torch.maximum(t.detach(), t), (0, 1)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_one_number_has_the_derivative_of_a_side(name: str) -> None:
    function, sides = KNOWN[name]
    point = exact.evaluate(OneNumber(function), torch.ones(1))
    seen = set()
    for seed in range(6):
        right = bool(direction([torch.zeros(1)], seed)[0] > 0)
        (found,) = point.gradient(torch.ones(1), f"limit:{seed}")["t"].fractions()
        assert found == sides[right]
        seen.add(right)
    assert seen == {False, True}


class Network(nn.Module):
    """Layers of many kinds, of a grid on which much ties."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1, groups=1)
        self.norm = nn.BatchNorm2d(4).eval()
        self.pool = knn.MaxPool2d(2, selection="minimal")
        self.second = nn.Conv2d(4, 2, 1, groups=2)
        self.mean = nn.AvgPool2d(2)
        self.last = nn.Linear(2, 3)
        for number, each in enumerate(self.parameters()):
            each.data = filled(tuple(each.shape), (-0.5, 0.0, 0.5), torch.float32, number + 11)

    def forward(self, x: Tensor) -> Tensor:
        h = self.pool(F.relu(self.norm(self.first(x))))
        return self.last(torch.flatten(self.mean(F.relu(self.second(h))), 1)).abs()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_limit_is_that_of_a_tape_and_near_the_gradient_beside_the_point(seed: int) -> None:
    model, x = Network().double(), filled((2, 1, 4, 4), (0.0, 0.0, 1.0), torch.float64, 9)
    point = exact.evaluate(model, x)
    assert all(point.ties.values())
    with record(model) as tape:
        loss = model(x).sum()
    ones = torch.ones(point.output.shape)
    found = point.gradient(ones, f"limit:{seed}")
    recorded = tape.gradient(loss, choose=f"limit:{seed}")
    assert point.difference(ones, f"limit:{seed}").l1 > 0
    for parameter, d in zip(
        model.parameters(), direction(list(model.parameters()), seed), strict=True
    ):
        parameter.data.add_(1e-7 * d)
    # The point keeps its numbers.
    again = point.gradient(ones, f"limit:{seed}")
    beside = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    for (name, each), near in zip(found.items(), beside, strict=True):
        assert each.fractions() == again[name].fractions()
        torch.testing.assert_close(each.to_float64(), recorded[name], rtol=0, atol=1e-12)
        torch.testing.assert_close(each.to_float64(), near, rtol=0, atol=1e-5)


def test_a_limit_is_compared_with_another_selection() -> None:
    point = exact.evaluate(OneNumber(lambda t: F.relu(t) - F.relu(-t)), torch.ones(1))
    assert point.difference(torch.ones(1), "limit:0").l1 == 1
    assert point.difference(torch.ones(1), "limit:0", "limit:1").l1 == 0


def test_a_limit_at_some_sites_alone_is_refused() -> None:
    point = exact.evaluate(
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.MaxPool1d(2)), torch.ones(1, 4)
    )
    message = "exact: limit:0 is that of a whole program, but other sites have branch:0.5"
    with pytest.raises(InputError, match=f"^{message}$"):
        point.difference(torch.ones(1, 2), "branch:0.5", "limit:0")
