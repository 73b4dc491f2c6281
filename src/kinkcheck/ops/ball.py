"""Norms: at 0 every element of a ball is a derivative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kinkcheck.kernels import Ties, count_equal
from kinkcheck.ops.branches import Active, Alone, Branches, Rivals, may_ask, times
from kinkcheck.ops.picks import Contest
from kinkcheck.selection import Selection, weight


@dataclass(frozen=True)
class Ball(Branches):
    """Norms of entries, whose Clarke subdifferential at 0 is the unit ball of the dual norm.

    Its least element is the centre 0. ``branch:α`` is the vector α·(1, ..., 1).

    Attributes:
        inputs: the tensors that hold the entries.
        contest: which of them make which output.
        power: of the norm, above 1.

    >>> from kinkcheck.ops.picks import Along
    >>> x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    >>> Ball((x,), Along.of(x, 1), 2.0).active(x.norm(dim=1)).tied()
    tensor([ True, False])
    """

    inputs: tuple[Tensor, ...]
    contest: Contest
    power: float

    def where_tied(self, value: Tensor) -> ActiveBall | None:
        """The ball; None where it could be asked and no output is 0."""
        if may_ask(value) and not count_equal(value.detach(), (0.0,))[0]:
            return None
        return self.active(value)

    def active(self, value: Tensor) -> ActiveBall:
        """The ball at each output that is 0."""
        return ActiveBall(self.contest, value.detach() == 0, self.power)

    def alone(self, value: Tensor) -> Norm:
        """The gradient of the norm."""
        return Norm(tuple(each.detach() for each in self.inputs), self.contest, self.power)


@dataclass(frozen=True)
class Norm(Alone):
    """The gradient of norms of entries, for a power from 1 on; 0 for those that are 0."""

    native: ClassVar[bool] = True

    inputs: tuple[Tensor, ...]
    contest: Contest
    power: float

    def push(self, tangents: tuple[Tensor, ...]) -> Tensor:
        """The tangents of the entries, weighed."""
        slope = _slope(self.contest, self.contest.entries(*self.inputs), self.power)
        return self.contest.total(times(slope, self.contest.entries(*tangents)))


@dataclass(frozen=True)
class ActiveBall(Active):
    """The unit ball where a norm is 0."""

    contest: Contest
    zero: Tensor
    power: float

    def tied(self) -> Tensor:
        """Outputs that are 0."""
        return self.zero

    def ties(self, value: Tensor, inputs: tuple[Tensor, ...]) -> Ties:
        """Outputs that are 0, and those whose entries all are: powers may underflow."""
        entries = self.contest.entries(*(each.detach() for each in inputs))
        others = self.contest.total(entries.nan_to_num(nan=0.0) != 0)
        zeros = torch.count_nonzero(others == 0)
        return Ties(self.zero.numel(), torch.count_nonzero(self.zero), zeros)

    def persists(self, lifted: Branches, value: Tensor) -> Tensor:
        """Outputs that are 0 in the lift."""
        return value.detach() == 0

    def native(self, tangent: Tensor) -> Tensor:
        """0 at the centre, as PyTorch's backward pass has it; its forward mode has NaN there."""
        return torch.where(self.zero, 0, tangent)

    def weights(self, selection: Selection) -> float:
        """α, the same for all entries."""
        return float(weight(selection, 1, 2, 0.0, None))

    def along(self, tangents: tuple[Tensor, ...]) -> Tensor:
        """The gradient of the norm at the tangent."""
        moved = self.contest.entries(*tangents).nan_to_num(nan=0.0)
        slope = _slope(self.contest, moved, self.power)
        return torch.where(self.contest.spread(self.zero), slope, 0)

    def rivals(self, tangents: tuple[Tensor, ...]) -> Rivals:
        """Either sign of the largest: the ball is the hull of more branches than can be listed."""
        moved = self.contest.entries(*tangents).nan_to_num(nan=0.0)
        most = self.contest.best(moved.abs(), largest=True)
        return Rivals.ends(self.zero, -most, most)

    def pull(self, weights: float | Tensor, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of each output for its entries."""
        if not isinstance(weights, Tensor) and weights == 0:
            return ()
        at_zero = torch.where(self.zero, gradient, 0)
        return self.contest.back(times(weights, self.contest.spread(at_zero)))

    def push(self, weights: float | Tensor, tangents: tuple[Tensor, ...]) -> Tensor:
        """The tangents of the entries, weighed."""
        return self.contest.total(times(weights, self.contest.entries(*tangents)))


def _slope(contest: Contest, entries: Tensor, power: float) -> Tensor:
    """The gradient of the norm of entries; 0 where they all are."""
    most = contest.spread(contest.best(entries.abs(), largest=True))
    scaled = entries / torch.where(most == 0, 1, most)
    norm = contest.spread(contest.total(scaled.abs() ** power)) ** (1 / power)
    return scaled.sgn() * (scaled.abs() / torch.where(norm == 0, 1, norm)) ** (power - 1)
