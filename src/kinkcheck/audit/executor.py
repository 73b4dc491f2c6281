"""Who measures the points of a grid: this process, or others."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol

from kinkcheck.arithmetic.precision import Precision, require_precisions
from kinkcheck.audit.points import Grid, Place
from kinkcheck.measure.records import Found


class Executor(Protocol):
    """Measures points, in any order and as many at a time as it likes."""

    def require(self, precisions: Sequence[Precision], device: str) -> None:
        """Check that points can be measured.

        Raises:
            InputError: the device is not there, or does not have a precision.
        """

    def measure(self, grid: Grid, places: Sequence[Place]) -> Generator[Found]:
        """What is found at places, in their order.

        Raises:
            InputError: the network fails on a batch, or cannot be judged.
        """


class Inline:
    """Measures one point after the other in this process.

    >>> from kinkcheck.arithmetic.precision import PRECISIONS
    >>> Inline().require([PRECISIONS["float16"], PRECISIONS["float64"]], "cpu")
    """

    def require(self, precisions: Sequence[Precision], device: str) -> None:
        """See :meth:`Executor.require`."""
        require_precisions(precisions, device)

    def measure(self, grid: Grid, places: Sequence[Place]) -> Generator[Found]:
        """See :meth:`Executor.measure`."""
        for _, found in grid.measure(places):
            yield found
