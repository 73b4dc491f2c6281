"""Extremes of the entries of a tensor and of those that indices bring to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinkcheck.kernels import count_attained, count_gathered
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
        contest = Gathered(torch.cat([own, of.flatten()]), shapes, shapes[0], self.input.dim())
        return Picks(self.inputs, contest, self.wins, ignored).active(value)

    def where_tied(self, value: Tensor) -> Active | None:
        """The same; None where it could be asked and nothing is tied."""
        if not may_ask(value):
            return self.active(value)
        # Every output has an entry that attains it, but for NaN.
        found = value.detach()
        own = count_attained(self.input.detach().reshape(1, 1, -1), found.reshape(1, -1))
        as_many = own + self._arrived(found) == value.numel()
        return None if as_many and not bool(found.isnan().any()) else self.active(value)

    def _arrived(self, value: Tensor) -> int:
        """How many entries of the source are equal to what they are brought to."""
        source, index = self.source.detach(), self.index
        # Expanded from one dimension, as that of index_reduce, it moves whole rows.
        rows = self.dim == 0 and index.shape == source.shape and not any(index.stride()[1:])
        if rows and value.dim() and source.numel() and value.numel():
            entries, values = (each.reshape(len(each), -1) for each in (source, value))
            return count_gathered(entries, values, index.reshape(len(index), -1)[:, 0])
        return int(torch.count_nonzero(self._at(value) == source[self._read]))

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
