"""Jumps are counted: how many elements meet one, and how many lie exactly on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kinkcheck
from kinkcheck import record

VALUES = [-2.0, -1.0, -0.5, 0.0, -0.0, 0.5, 1.0, 1.5, 2.0]

# The program and where it jumps, from the definition of the operation.
JUMPS: list[tuple[Callable[[Tensor], Tensor], Callable[[float], bool]]] = [
    (torch.round, lambda x: x % 1 == 0.5),
    (torch.floor, lambda x: x % 1 == 0),
    (torch.ceil, lambda x: x % 1 == 0),
    (torch.trunc, lambda x: x % 1 == 0 and x != 0),
    (torch.frac, lambda x: x % 1 == 0 and x != 0),
    (torch.sign, lambda x: x == 0),
    (lambda h: torch.div(h, 2, rounding_mode="floor"), lambda x: x % 2 == 0),
    (lambda h: h % 2, lambda x: x % 2 == 0),
    (lambda h: F.hardshrink(h, 0.5), lambda x: abs(x) == 0.5),
    (lambda h: F.threshold(h, 1.0, 3.0), lambda x: x == 1),
    (lambda h: torch.where(h > 0, h, 0 * h), lambda x: x == 0),
    (lambda h: h * (h >= 1), lambda x: x == 1),
    (lambda h: h * (h > 0).float(), lambda x: x == 0),
    (lambda h: h * ~(h < 0.5), lambda x: x == 0.5),
    (lambda h: h.masked_fill(h < -1, 0.0), lambda x: x == -1),
    (lambda h: h * h.detach().clone().ge_(0.5), lambda x: x == 0.5),
    (lambda h: h.clone().gt_(0.5), lambda x: x == 0.5),
]


@pytest.mark.parametrize(("program", "jumps"), JUMPS)
def test_elements_on_a_jump_are_counted(
    program: Callable[[Tensor], Tensor], jumps: Callable[[float], bool]
) -> None:
    h = torch.tensor(VALUES, requires_grad=True)
    with record() as tape:
        loss = (program(h) + h).sum()
    (met,) = tape.unseen_behind(loss, h)
    assert (met.elements, met.on_jump) == (len(VALUES), sum(map(jumps, VALUES)))


def test_what_is_no_jump_is_not_counted() -> None:
    h = torch.ones(2, requires_grad=True)
    with record() as tape:
        loss = h.sqrt().sum()
    (met,) = tape.unseen_behind(loss, h)
    assert (met.elements, met.on_jump) == (None, None)


def test_an_audit_sums_over_points() -> None:
    class Hand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            h = x * self.weight
            return torch.where(h > 0, h, 0 * h)

    batches = [
        (torch.tensor([[0.0, 1.0, -1.0]]), torch.tensor([1])),
        (torch.zeros(2, 3), torch.tensor([1, 2])),
    ]
    report = kinkcheck.audit(Hand(), batches)
    (met,) = report.unseen
    assert (met.calls, met.elements, met.on_jump) == (2, 9, 7)
