"""Declared operations over the rationals: native is PyTorch's, minimal has least norm."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kinkcheck.nn as knn
from kinkcheck import exact, record
from kinkcheck.selection import parse
from strategies import filled

pytest.importorskip("flint")

Function = Callable[[Tensor], Tensor]

CALLS: dict[str, Function] = {
    "hardtanh": F.hardtanh,
    "narrow": lambda h: F.hardtanh(h, 0.0, 0.5),
    "in place": lambda h: F.hardtanh(2 * h, -1.0, 2.0, True),
    "relu6": F.relu6,
    "leaky_relu": lambda h: F.leaky_relu(h, 0.25),
    "abs": torch.abs,
    "method": lambda h: h.abs(),
    "amax": lambda h: h.amax(1),
    "amax kept": lambda h: h.amax((0, 1), keepdim=True),
    "amin": lambda h: h.amin(0),
    "maximum": lambda h: torch.maximum(h, -h),
    "broadcast": lambda h: torch.minimum(h, h.amax(1, keepdim=True)),
    "relu6 module": nn.ReLU6(),
    "module": nn.Hardtanh(0.0, 1.0),
    "selected": knn.LeakyReLU(0.5, selection="minimal"),
}
CHOICES = ("native", "minimal", "hybrid:2", "hybrid:-0.5", "first", "last", "random:3", "uniform:3")


class Program(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4, bias=False)
        self.linear.weight.data.copy_(filled((4, 3), (-0.5, 0.0, 0.5, 1.0), torch.float32, 1))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x))


@pytest.mark.parametrize("name", CALLS)
def test_values_ties_and_gradients_are_those_of_float64_where_it_does_not_round(name: str) -> None:
    model, x = Program(CALLS[name]).double(), filled((5, 3), (-1.0, 0.0, 1.0), torch.float64, 2)
    point = exact.evaluate(model, x)
    with record(model) as tape:
        output = model(x)
        loss = output.sum()
    assert torch.equal(point.output.to_float64(), output)
    assert list(point.ties.values()) == [site.tied for site in tape.sites]
    assert sum(point.ties.values()) > 0
    plain = torch.autograd.grad(model(x).sum(), model.linear.weight)[0]
    own = point.gradient(torch.ones_like(output), parse("native"))["linear.weight"]
    if name != "selected":
        assert torch.allclose(own.to_float64(), plain, rtol=0, atol=1e-12)
    for text in CHOICES:
        if not all(site.row.has(parse(text)) for site in tape.sites):
            continue
        found = point.gradient(torch.ones_like(output), parse(text))["linear.weight"]
        gradient = tape.gradient(loss, choose=text)["linear.weight"]
        assert torch.allclose(found.to_float64(), gradient, rtol=0, atol=1e-12)


def test_weights_are_exact() -> None:
    point = exact.evaluate(nn.Sequential(Program(lambda h: h.amax(1))), torch.zeros(1, 3))
    # All four entries tie at 0, and all have the derivative 0 there: look at the weights instead.
    assert list(point.ties.values()) == [1]

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, 3))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.weight).amax(1)

    point = exact.evaluate(Rows(), torch.ones(1, 3))
    shares = {
        text: point.gradient(torch.ones(1), parse(text))["weight"].fractions()
        for text in ("minimal", "hybrid:0.5", "last")
    }
    third = Fraction(1, 3)
    # Native shares evenly here: https://docs.pytorch.org/docs/stable/generated/torch.amax.html
    assert shares == {"minimal": [third] * 3, "hybrid:0.5": [third] * 3, "last": [0, 0, 1]}
