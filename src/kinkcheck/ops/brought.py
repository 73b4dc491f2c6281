"""Extremes of the entries of a tensor and of those that indices bring to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinkcheck.ops.branches import Active, Branches, may_ask
from kinkcheck.ops.gathered import Gathered
from kinkcheck.ops.picks import ActivePicks, Picks, Wins


@dataclass(frozen=True)
class Brought(Branches):
    """Each output is an entry of a tensor, or of a source whose entries are brought to it.

    Attributes:
        input: the tensor.
        source: what is brought; PyTorch reads as much of it as there are indices.
        dim: the dimension in which indices say where to.
        index: where each entry of the source goes.
        wins: which active entry stays active along a tangent.
        include_self: whether the tensor's own entries compete where others do.

    >>> x, index = torch.zeros(2), torch.tensor([0, 0, 1])
    >>> brought = Brought(x, torch.tensor([1.0, 1.0, 2.0]), 0, index, "largest", True)
    >>> brought.active(torch.tensor([1.0, 2.0])).tied()
    tensor([ True, False])
    """

    input: Tensor
    source: Tensor
    dim: int
    index: Tensor
    wins: Wins
    include_self: bool

    @property
    def inputs(self) -> tuple[Tensor, ...]:  # type: ignore[override]
        """The tensor and the source."""
        return (self.input, self.source)

    def active(self, value: Tensor) -> ActivePicks:
        """The entries that attain the outputs."""
        count, shapes = self.input.numel(), (tuple(self.input.shape), tuple(self.source.shape))
        numbers = torch.arange(count, device=self.input.device)
        to = self._at(numbers.reshape(shapes[0]))
        of = torch.full_like(self.source, count, dtype=torch.int64)
        of[self._read] = to
        own, ignored = numbers, None
        if not self.include_self:
            # PyTorch shares the gradient with an entry that it left out, and then drops that share.
            own = own.index_fill(0, to.flatten(), count)
            untouched = (own < count).reshape(shapes[0])
            ignored = self.input.detach().masked_fill(untouched, torch.nan)
        contest = Gathered(torch.cat([own, of.flatten()]), shapes, shapes[0])
        return Picks(self.inputs, contest, self.wins, ignored).active(value)

    def where_tied(self, value: Tensor) -> Active | None:
        """The same; None where it could be asked and nothing is tied."""
        if not may_ask(value):
            return self.active(value)
        # Every output has an entry that attains it, but for NaN.
        value = value.detach()
        arrived = torch.count_nonzero(self._at(value) == self.source.detach()[self._read])
        own = torch.count_nonzero(self.input.detach() == value)
        as_many = int(arrived + own) == value.numel()
        return None if as_many and not bool(value.isnan().any()) else self.active(value)

    @property
    def _read(self) -> tuple[slice, ...]:
        """What is read of the source."""
        return tuple(slice(size) for size in self.index.shape)

    def _at(self, output: Tensor) -> Tensor:
        """What the outputs have, for each entry that is brought to them."""
        near = list(self._read)
        if near:
            near[self.dim] = slice(None)
        return output[tuple(near)].gather(self.dim, self.index)
