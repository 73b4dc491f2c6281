"""Integers that begin to move: what a limit of gradients is found with.

A network at parameters that begin to move along a direction is carried out as it is at rest, with
such numbers in place of integers. They are ordered by where they are and then by where they move
to, so that every maximum and every kink takes the branch that stays active.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import total_ordering
from typing import Any


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Moving:
    """at + along · t, to the first order in a positive t below any other number.

    It mixes with integers of any kind, which are at rest.

    >>> Moving(2, -1) < 2 < Moving(2, 1)
    True
    >>> 3 * Moving(2, -1) * Moving(1, 1)
    Moving(at=6, along=3)
    """

    at: Any
    along: Any

    def __add__(self, other: Any) -> Moving:
        at, along = _parts(other)
        return Moving(self.at + at, self.along + along)

    __radd__ = __add__

    def __neg__(self) -> Moving:
        return Moving(-self.at, -self.along)

    def __sub__(self, other: Any) -> Moving:
        return self.__add__(-other)

    def __rsub__(self, other: Any) -> Moving:
        return (-self).__add__(other)

    def __mul__(self, other: Any) -> Moving:
        at, along = _parts(other)
        return Moving(self.at * at, self.at * along + self.along * at)

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return (self.at, self.along) == _parts(other)

    def __lt__(self, other: Any) -> bool:
        return (self.at, self.along) < _parts(other)

    __hash__ = None  # type: ignore[assignment]


def _parts(number: Any) -> tuple[Any, Any]:
    return (number.at, number.along) if isinstance(number, Moving) else (number, 0)
