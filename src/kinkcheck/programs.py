"""Programs that compute one function and differ in their derivative at a tie.

:func:`max1` and :func:`max2` compute the maximum of four numbers, :func:`max_of_relus` does so from
two ReLUs. At a tie they differ, and each is right: a maximum has a kink there. A difference of two
such programs at t·x is the zero function of t over the reals, with derivative 0. What AD returns
for it is

* wrong where the tied entries of x differ: the two programs do so over the reals (a *bifurcation*);
* off by rounding alone where the contributions of the tied entries cancel exactly over the reals
  but round differently (a *compensation*).

Source: Boustany 2024, introduction and published code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

ReLU = Callable[[Tensor], Tensor]


def max1(x: Tensor) -> Tensor:
    """The maximum by a loop with ``>``: AD follows the first largest entry.

    >>> x = torch.ones(2, requires_grad=True)
    >>> torch.autograd.grad(max1(x), x)[0]
    tensor([1., 0.])
    """
    largest = x[0]
    for entry in x[1:]:
        if entry > largest:
            largest = entry
    return largest


def max2(x: Tensor) -> Tensor:
    """The maximum by ``torch.max``: AD weighs all largest entries equally.

    >>> x = torch.ones(2, requires_grad=True)
    >>> torch.autograd.grad(max2(x), x)[0]
    tensor([0.5000, 0.5000])
    """
    return torch.max(x)


def relu1(x: Tensor) -> Tensor:
    """ReLU as PyTorch has it: derivative 0 at 0.

    >>> x = torch.zeros(1, requires_grad=True)
    >>> torch.autograd.grad(relu1(x), x)[0]
    tensor([0.])
    """
    return torch.relu(x)


def relu2(x: Tensor) -> Tensor:
    """ReLU by ``torch.where(x >= 0, x, 0)``: the same function, derivative 1 at 0.

    >>> x = torch.zeros(1, requires_grad=True)
    >>> torch.autograd.grad(relu2(x), x)[0]
    tensor([1.])
    """
    return torch.where(x >= 0, x, torch.zeros_like(x))


def max_of_relus(x: Tensor, relu: ReLU) -> Tensor:
    """The maximum of four numbers as a tree of (a + b)/2 + relu((a − b)/2) + relu1((b − a)/2).

    At a tie AD weighs both equally with relu1, and follows the first with relu2.

    >>> x = torch.ones(4, requires_grad=True)
    >>> [torch.autograd.grad(max_of_relus(x, relu), x)[0].tolist() for relu in (relu1, relu2)]
    [[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]]
    """

    def of_two(a: Tensor, b: Tensor) -> Tensor:
        return (a + b) / 2 + relu((a - b) / 2) + relu1((b - a) / 2)

    return of_two(of_two(x[0], x[1]), of_two(x[2], x[3]))


def zero(t: Tensor, x: Tensor) -> Tensor:
    """max1(t·x) − max2(t·x), which is 0 for every t.

    Args:
        t: a number, shape () or (1,).
        x: four numbers.

    >>> t = torch.zeros((), requires_grad=True)
    >>> torch.autograd.grad(zero(t, torch.tensor([1.0, 2.0, 3.0, 4.0])), t)[0]
    tensor(-1.5000)
    """
    products = t * x
    return max1(products) - max2(products)


def zero_of_relus(t: Tensor, x: Tensor) -> Tensor:
    """The maximum of t·x built from relu1 minus the one built from relu2, 0 for every t.

    >>> t = torch.zeros((), requires_grad=True)
    >>> torch.autograd.grad(zero_of_relus(t, torch.tensor([1.0, 2.0, 3.0, 4.0])), t)[0]
    tensor(1.5000)
    """
    products = t * x
    return max_of_relus(products, relu1) - max_of_relus(products, relu2)


PROGRAMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "max1": lambda t, x: max1(t * x),
    "max2": lambda t, x: max2(t * x),
    "zero": zero,
    "zero ReLUs": zero_of_relus,
}
"""The programs that ``kinkcheck demo`` compares, as functions of t and x."""

ENTRIES: tuple[tuple[float, ...], ...] = ((1.0, 2.0, 3.0, 4.0), (1.4,) * 4, (1.14,) * 4)
"""The x of the published tables: distinct entries, and equal ones that no float has exactly."""

PLACES: tuple[float, ...] = (0.0, 0.1, 1.0, -1e-4, -6.0)
"""The t of the published tables."""


@dataclass(frozen=True)
class Evaluation:
    """A program at one t and x, in one precision.

    Attributes:
        program: a key of :data:`PROGRAMS`.
        value: the value that it returned.
        derivative: the derivative with respect to t that AD returned.
        exact: what the same rules of AD return at the same floating-point t and x without rounding.
    """

    program: str
    value: float
    derivative: float
    exact: Fraction


def evaluate(t: float, x: Sequence[float], dtype: torch.dtype) -> list[Evaluation]:
    """All of :data:`PROGRAMS` at one point in one precision.

    Args:
        t: where to differentiate; rounded to ``dtype``.
        x: four entries; rounded to ``dtype``.
        dtype: float16, bfloat16, float32 or float64.

    >>> [(e.program, e.derivative) for e in evaluate(0.0, (1.0, 2.0, 3.0, 4.0), torch.float32)]
    [('max1', 1.0), ('max2', 2.5), ('zero', -1.5), ('zero ReLUs', 1.5)]
    """
    entries = torch.tensor(x, dtype=dtype)
    exact = _exact_derivatives(
        Fraction(torch.tensor(t, dtype=dtype).item()), [Fraction(e) for e in entries.tolist()]
    )
    evaluations = []
    for name, program in PROGRAMS.items():
        at = torch.tensor(t, dtype=dtype, requires_grad=True)
        value = program(at, entries)
        (derivative,) = torch.autograd.grad(value, at)
        evaluations.append(Evaluation(name, value.item(), derivative.item(), exact[name]))
    return evaluations


def slopes(program: Callable[[Tensor, Tensor], Tensor], x: Sequence[float]) -> tuple[float, float]:
    """How fast a program of :data:`PROGRAMS` grows with t, just below t = 0 and just above it.

    They are piecewise linear, with no kink but 0 near it: a quotient has the slope.

    >>> slopes(PROGRAMS["max1"], (1.0, 2.0, 3.0, 4.0)), slopes(zero, (1.0, 2.0, 3.0, 4.0))
    ((1.0, 4.0), (0.0, 0.0))
    """
    entries = torch.tensor(x, dtype=torch.float64)
    at = [program(torch.tensor(t, dtype=torch.float64), entries).item() for t in (-0.125, 0, 0.125)]
    return (at[1] - at[0]) / 0.125, (at[2] - at[1]) / 0.125


def _exact_derivatives(t: Fraction, x: list[Fraction]) -> dict[str, Fraction]:
    largest = max(t * entry for entry in x)
    tied = [entry for entry in x if t * entry == largest]
    first, mean = tied[0], sum(tied, Fraction(0)) / len(tied)

    def of_tree(at_a_tie: Callable[[Fraction, Fraction], Fraction]) -> Fraction:
        def of_two(a: Fraction, b: Fraction) -> Fraction:
            return at_a_tie(a, b) if t * a == t * b else max(a, b, key=lambda entry: t * entry)

        return of_two(of_two(x[0], x[1]), of_two(x[2], x[3]))

    relu1_tree, relu2_tree = of_tree(lambda a, b: (a + b) / 2), of_tree(lambda a, _: a)
    return {
        "max1": first,
        "max2": mean,
        "zero": first - mean,
        "zero ReLUs": relu1_tree - relu2_tree,
    }
