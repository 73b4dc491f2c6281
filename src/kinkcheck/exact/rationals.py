"""Tensors of rational numbers: arrays of integers over one common denominator.

Every floating-point number is an integer times a power of two, so that a tensor of them is such an
array. Sums and products stay exact; integers only grow. Products of matrices are FLINT's
(``fmpz_mat``, https://flintlib.org), everything else is numpy on its integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import lcm, prod
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinkcheck.errors import InputError
from kinkcheck.exact.moving import Moving
from kinkcheck.extras import require

Integers: TypeAlias = NDArray[Any]
"""Of dtype object: integers of Python or of FLINT, or such that move, all of which mix."""


@dataclass(frozen=True, eq=False)
class Rationals:
    """A tensor of rational numbers.

    Attributes:
        numerators: the integers, in the shape of the tensor.
        denominator: of all of them; positive, and not reduced.

    >>> x = from_floats(torch.tensor([0.75, -2.0]))
    >>> (x + x).fractions()
    [Fraction(3, 2), Fraction(-4, 1)]
    """

    numerators: Integers
    denominator: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each dimension."""
        return self.numerators.shape

    @property
    def T(self) -> Rationals:  # noqa: N802 - numpy's name
        """With the last two dimensions exchanged."""
        return Rationals(np.swapaxes(self.numerators, -1, -2), self.denominator)

    def reshape(self, *shape: int) -> Rationals:
        """The same numbers in another shape."""
        return Rationals(self.numerators.reshape(shape), self.denominator)

    def moved(self, *axes: int) -> Rationals:
        """With its dimensions in another order."""
        return Rationals(self.numerators.transpose(axes), self.denominator)

    def __add__(self, other: Rationals) -> Rationals:
        common = lcm(self.denominator, other.denominator)
        return Rationals(self._over(common) + other._over(common), common)

    def __neg__(self) -> Rationals:
        return Rationals(-self.numerators, self.denominator)

    def __sub__(self, other: Rationals) -> Rationals:
        return self + -other

    def __mul__(self, other: Rationals) -> Rationals:
        return Rationals(self.numerators * other.numerators, self.denominator * other.denominator)

    def __matmul__(self, other: Rationals) -> Rationals:
        """The product of two matrices, or of two stacks of as many matrices."""
        if self._moves() or other._moves():
            left, right = self.at_rest(), other.at_rest()
            return (left @ right).moving(left @ other._along() + self._along() @ right)
        (*stack, rows, _), columns = self.shape, other.shape[-1]
        products = np.empty((prod(stack), rows * columns), dtype=object)
        pairs = zip(_matrices(self), _matrices(other), strict=True)
        for product, (left, right) in zip(products, pairs, strict=True):
            product[:] = (left * right).entries()
        return Rationals(
            products.reshape(*stack, rows, columns), self.denominator * other.denominator
        )

    def moving(self, along: Rationals) -> Rationals:
        """The same numbers as they begin to move (see :mod:`kinkcheck.exact.moving`).

        >>> x = from_floats(torch.tensor([1.0])).moving(from_floats(torch.tensor([0.5])))
        >>> (x * x).numerators.tolist()  # over 4
        [Moving(at=4, along=4)]
        """
        common = lcm(self.denominator, along.denominator)
        return Rationals(_each(Moving, self._over(common), along._over(common)), common)

    def at_rest(self) -> Rationals:
        """The same numbers where they are, whether they move or not."""
        return Rationals(_each(_at, self.numerators), self.denominator)

    def _along(self) -> Rationals:
        """Where they move to."""
        return Rationals(_each(_speed, self.numerators), self.denominator)

    def _moves(self) -> bool:
        return Moving in set(map(type, self.numerators.flat))

    def sum(self, *axes: int) -> Rationals:
        """The sum over some dimensions."""
        return Rationals(np.asarray(self.numerators.sum(axis=axes), object), self.denominator)

    def l1(self) -> Fraction:
        """The sum of absolute values.

        >>> from_floats(torch.tensor([0.5, -0.25])).l1()
        Fraction(3, 4)
        """
        return Fraction(int(np.abs(self.numerators).sum()), self.denominator)

    def fractions(self) -> list[Fraction]:
        """The numbers in row-major order."""
        return [Fraction(int(n), self.denominator) for n in self.numerators.flat]

    def to_float64(self) -> Tensor:
        """The numbers, each rounded once to float64; ±∞ beyond its range.

        >>> from_floats(torch.tensor([[0.5]])).to_float64()
        tensor([[0.5000]], dtype=torch.float64)
        """
        rounded = [_rounded(int(n), self.denominator) for n in self.numerators.flat]
        return torch.tensor(rounded, dtype=torch.float64).reshape(self.shape)

    def _over(self, denominator: int) -> Integers:
        if denominator == self.denominator:
            return self.numerators
        return self.numerators * (denominator // self.denominator)


def from_floats(tensor: Tensor, name: str = "tensor") -> Rationals:
    """A tensor of floating-point numbers of any type, as it is.

    Args:
        tensor: any shape, on any device.
        name: what a complaint calls it.

    Raises:
        InputError: it does not hold floating-point numbers, or one of them is not finite.

    >>> from_floats(torch.tensor([1.5, 2.0**-149])).denominator == 2**149
    True
    """
    if not tensor.is_floating_point():
        raise InputError(f"{name}: must hold floating-point numbers, not {tensor.dtype}")
    if not tensor.isfinite().all():
        raise InputError(f"{name}: a number is not finite, so that nothing is exact")
    values = tensor.detach().cpu().double().numpy()
    significands, exponents = np.frexp(values)
    integers = np.ldexp(significands, 53).astype(np.int64)
    # Without trailing zero bits, so that a tensor on a coarse grid has small integers.
    twos = np.frexp((integers & -integers).astype(np.float64))[1] - 1
    nonzero = integers != 0
    integers = np.where(nonzero, integers >> np.maximum(twos, 0), 0)
    exponents = exponents.astype(np.int64) - 53 + twos
    least = int(exponents[nonzero].min(initial=0))
    numerators = _integers(integers.ravel())
    shifts = np.where(nonzero, exponents - least, 0).ravel()
    for shift in np.unique(shifts[shifts > 0]):
        at = shifts == shift
        numerators[at] = numerators[at] * (_flint().fmpz(1) << int(shift))
    return Rationals(numerators.reshape(values.shape), 2**-least)


def rational(number: Fraction) -> Rationals:
    """One number, of no dimension.

    >>> rational(Fraction(1, 3)).shape
    ()
    """
    return Rationals(np.array(number.numerator, dtype=object), number.denominator)


def _each(function: Callable[..., Any], *given: Integers) -> Integers:
    return np.asarray(np.frompyfunc(function, len(given), 1)(*given), dtype=object)


def _at(number: Any) -> Any:
    return number.at if isinstance(number, Moving) else number


def _speed(number: Any) -> Any:
    return number.along if isinstance(number, Moving) else 0


def _integers(values: NDArray[np.int64]) -> Integers:
    integers = np.empty(values.size, dtype=object)
    integers[:] = _flint().fmpz_mat(1, values.size, values.tolist()).entries()
    return integers


def _matrices(stack: Rationals) -> list[Any]:
    """The matrices of a stack as FLINT's."""
    rows, columns = stack.shape[-2:]
    flat = stack.numerators.reshape(-1, rows * columns)
    return [_flint().fmpz_mat(rows, columns, matrix.tolist()) for matrix in flat]


def _rounded(numerator: int, denominator: int) -> float:
    try:
        return numerator / denominator  # correctly rounded
    except OverflowError:
        return float("inf") if numerator > 0 else float("-inf")


@cache
def _flint() -> ModuleType:
    return require("flint", extra="exact")
