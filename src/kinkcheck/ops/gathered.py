"""Contests whose entries are gathered by indices."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from kinkcheck.ops.picks import Contest


@dataclass(frozen=True)
class Gathered(Contest):
    """Entries in any order, each of which names its output.

    Attributes:
        of: the output that each entry competes for, by its number in row-major order; one more
            than the last stands for none.
        shapes: of the inputs, whose elements in row-major order are the entries.
        output: the shape of the output.
        at: the element of the inputs that each entry is, if it is not the one of the same number.
        gaps: whether there may be outputs that no entry competes for.

    >>> contest = Gathered(torch.tensor([1, 0, 1]), ((3,),), (2,))
    >>> contest.best(contest.entries(torch.tensor([1.0, 2.0, 3.0])), largest=True)
    tensor([2., 3.])
    >>> contest.ranks(torch.tensor([True, True, True]))
    tensor([0, 0, 1])
    """

    of: Tensor
    shapes: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    at: Tensor | None = None
    gaps: bool = False

    def entries(self, *inputs: Tensor) -> Tensor:
        """One after the other."""
        flat = torch.cat([each.flatten() for each in inputs])
        return flat if self.at is None else flat.index_select(0, self.at)

    def back(self, entries: Tensor) -> tuple[Tensor, ...]:
        """Each element has the sum of what its entries have."""
        sizes = [prod(shape) for shape in self.shapes]
        if self.at is not None:
            entries = entries.new_zeros(sum(sizes)).index_add(0, self.at, entries)
        parts = entries.split(sizes)
        return tuple(part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True))

    def spread(self, output: Tensor) -> Tensor:
        """What the outputs have, gathered; 0 where an entry competes for none."""
        flat = output.flatten()
        return torch.cat([flat, flat.new_zeros(1)]).index_select(0, self.of)

    def total(self, entries: Tensor) -> Tensor:
        """The sum, scattered."""
        added = entries.to(torch.int64) if entries.dtype == torch.bool else entries
        return self._output(self._zeros(added).index_add(0, self.of, added))

    def filled(self) -> bool:
        """Unless there are gaps."""
        return not self.gaps

    def ranks(self, chosen: Tensor) -> Tensor:
        """Counted once the entries of each output lie together, in their order."""
        order = self.of.argsort(stable=True)
        before = chosen.to(torch.int64)[order].cumsum(0) - chosen.to(torch.int64)[order]
        counts = self._zeros(order).index_add(0, self.of, torch.ones_like(order))
        starts = (counts.cumsum(0) - counts)[self.of[order]]
        return torch.empty_like(before).scatter(0, order, before - before[starts])

    def best(self, entries: Tensor, largest: bool) -> Tensor:
        """The extreme, scattered."""
        reduce, away = ("amax", -torch.inf) if largest else ("amin", torch.inf)
        start = self._zeros(entries) + away
        return self._output(start.scatter_reduce(0, self.of, entries, reduce))

    def _zeros(self, entries: Tensor) -> Tensor:
        return entries.new_zeros(prod(self.output) + 1)

    def _output(self, flat: Tensor) -> Tensor:
        return flat[:-1].reshape(self.output)
