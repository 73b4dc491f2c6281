"""Sums of absolute values: each entry has a kink at 0, whatever the others are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kinkcheck.kernels import Ties, count_equal
from kinkcheck.ops.ball import Norm
from kinkcheck.ops.branches import Active, Branches, Rivals, may_ask
from kinkcheck.ops.picks import Contest
from kinkcheck.ops.sides import ActiveSides
from kinkcheck.selection import Selection


@dataclass(frozen=True)
class Sums(Branches):
    """Outputs that are sums of absolute values, as the 1-norm.

    Native is 0 at a kink, so that a selection adds its slope to it.

    Attributes:
        inputs: the tensors that hold the entries.
        contest: which of them make which output.

    >>> from kinkcheck.ops.picks import Along
    >>> x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    >>> Sums((x,), Along.of(x, 1)).active(x.abs().sum(1)).tied()
    tensor([ True, False])
    """

    inputs: tuple[Tensor, ...]
    contest: Contest

    def windows(self, value: Tensor) -> int:
        """All entries."""
        return self._entries().numel()

    def where_tied(self, value: Tensor) -> ActiveSums | None:
        """The sides; None where it could be asked and no entry is 0."""
        if not may_ask(value):
            return self.active(value)
        with torch.no_grad():
            pieces = self.contest.pieces(*(each.detach() for each in self.inputs))
            zeros = any(count_equal(piece, (0.0,))[0] for piece in pieces)
        return self.active(value) if zeros else None

    def active(self, value: Tensor) -> ActiveSums:
        """The sides that meet in each entry."""
        at_zero = self._entries() == 0
        return ActiveSums(self.contest, ActiveSides(at_zero, ((True, -1.0, 1.0),)))

    def alone(self, value: Tensor) -> Norm:
        """The signs of the entries, 0 at 0."""
        return Norm(tuple(each.detach() for each in self.inputs), self.contest, 1.0)

    def _entries(self) -> Tensor:
        with torch.no_grad():
            return self.contest.entries(*(each.detach() for each in self.inputs))


@dataclass(frozen=True)
class ActiveSums(Active):
    """The sides that meet in entries that are 0.

    Attributes:
        contest: which entries make which output.
        sides: of each entry.
    """

    additive: ClassVar[bool] = True

    contest: Contest
    sides: ActiveSides

    def tied(self) -> Tensor:
        """Outputs with an entry that is 0."""
        return self.contest.total(self.sides.on) > 0

    def ties(self, value: Tensor, inputs: tuple[Tensor, ...]) -> Ties:
        """Entries, and those that are 0."""
        at_zero = torch.count_nonzero(self.sides.on)
        return Ties(self.sides.on.numel(), at_zero, at_zero)

    def persists(self, lifted: Branches, value: Tensor) -> Tensor:
        """Outputs of which all entries that are 0 are 0 in the lift."""
        there = lifted.active(value)
        assert isinstance(there, ActiveSums)
        lost = self.sides.on & ~there.sides.on
        return self.contest.total(lost) == 0

    def weights(self, selection: Selection) -> list[Tensor | float]:
        """The slope at 0."""
        return self.sides.weights(selection)

    def along(self, tangents: tuple[Tensor, ...]) -> list[Tensor | float]:
        """The slope on the side that the tangent of each entry points to."""
        return self.sides.along((self.contest.entries(*tangents),))

    def rivals(self, tangents: tuple[Tensor, ...]) -> Rivals:
        """Either sign of each entry, which is decided for itself."""
        at_zero = self.sides.on
        of = self.contest.numbers(self.tied())[at_zero]
        moved = self.contest.entries(*tangents)[at_zero]
        entry = torch.arange(len(of), device=of.device)
        return Rivals.joined(
            [Rivals.deciding(of, sign * moved, Rivals.ORDERED, entry) for sign in (-1, 1)]
        )

    def pull(self, weights: list[Tensor | float], gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of each output for its entries that are 0."""
        return self.contest.back(self.sides.push(weights, (self.contest.spread(gradient),)))

    def push(self, weights: list[Tensor | float], tangents: tuple[Tensor, ...]) -> Tensor:
        """The tangents of the entries that are 0, weighed."""
        return self.contest.total(self.sides.push(weights, (self.contest.entries(*tangents),)))
