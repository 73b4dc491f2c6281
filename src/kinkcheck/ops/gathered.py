"""Contests whose entries are gathered by indices."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from kinkcheck.kernels import count_gathered
from kinkcheck.ops.picks import Contest


@dataclass(frozen=True)
class Gathered(Contest):
    """Rows of entries in any order, each of which names the row of outputs that it competes for.

    Attributes:
        of: that row, by its number in row-major order; one more than the last stands for none.
        shapes: of the inputs, whose rows in row-major order are those of the entries.
        output: the shape of the output.
        lead: how many dimensions of all of them come before those of a row.
        at: the row of the inputs that each row is, if it is not the one of the same number.
        gaps: whether there may be outputs that no entry competes for.

    >>> contest = Gathered(torch.tensor([1, 0, 1]), ((3,),), (2,), 1)
    >>> contest.best(contest.entries(torch.tensor([1.0, 2.0, 3.0])), largest=True)
    tensor([2., 3.])
    >>> contest.ranks(torch.tensor([[True], [True], [True]])).flatten()
    tensor([0, 0, 1])
    """

    of: Tensor
    shapes: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    lead: int
    at: Tensor | None = None
    gaps: bool = False

    def entries(self, *inputs: Tensor) -> Tensor:
        """One row after the other."""
        rows = self._all(*inputs)
        return rows if self.at is None else rows.index_select(0, self.at)

    def back(self, entries: Tensor) -> tuple[Tensor, ...]:
        """Each row has the sum of what its entries have."""
        sizes = [prod(shape[: self.lead]) for shape in self.shapes]
        if self.at is not None:
            start = entries.new_zeros(sum(sizes), entries.shape[1])
            entries = start.index_add(0, self.at, entries)
        parts = entries.split(sizes)
        return tuple(part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True))

    def apart(self, value: Tensor, *inputs: Tensor) -> bool:
        """Whether as many attain an output as there are; NaN attains none."""
        values, competed = self._rows(value), prod(self.output[: self.lead])
        if self.gaps:
            named = torch.zeros(competed + 1, dtype=torch.bool, device=value.device)
            competed = int(torch.count_nonzero(named.index_fill(0, self.of, True)[:-1]))
        attained = count_gathered(self._all(*inputs), values, self.of, self.at)
        return attained == competed * values.shape[1] and not bool(value.isnan().any())

    def spread(self, output: Tensor) -> Tensor:
        """What the outputs have, gathered; 0 where a row competes for none."""
        rows = self._rows(output)
        return torch.cat([rows, rows.new_zeros(1, rows.shape[1])]).index_select(0, self.of)

    def total(self, entries: Tensor) -> Tensor:
        """The sum, scattered."""
        added = entries.to(torch.int64) if entries.dtype == torch.bool else entries
        return self._output(self._zeros(added).index_add(0, self.of, added))

    def filled(self) -> bool:
        """Unless there are gaps."""
        return not self.gaps

    def kept(self) -> bool:
        """That of segments does; that of bags knows which rows it took."""
        return self.at is None

    def ranks(self, chosen: Tensor) -> Tensor:
        """Counted once the rows of each output lie together, in their order."""
        order = self.of.argsort(stable=True)
        in_order = chosen.to(torch.int64)[order]
        before = in_order.cumsum(0) - in_order
        counts = order.new_zeros(prod(self.output[: self.lead]) + 1)
        counts = counts.index_add(0, self.of, torch.ones_like(order))
        starts = (counts.cumsum(0) - counts)[self.of[order]]
        return torch.empty_like(before).index_copy(0, order, before - before[starts])

    def best(self, entries: Tensor, largest: bool) -> Tensor:
        """The extreme, scattered."""
        reduce, away = ("amax", -torch.inf) if largest else ("amin", torch.inf)
        start, of = self._zeros(entries) + away, self.of.unsqueeze(1).expand_as(entries)
        return self._output(start.scatter_reduce(0, of, entries, reduce))

    def _all(self, *inputs: Tensor) -> Tensor:
        rows = [self._rows(each) for each in inputs]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def _rows(self, tensor: Tensor) -> Tensor:
        shape = tensor.shape
        return tensor.reshape(prod(shape[: self.lead]), prod(shape[self.lead :]))

    def _zeros(self, entries: Tensor) -> Tensor:
        return entries.new_zeros(prod(self.output[: self.lead]) + 1, entries.shape[1])

    def _output(self, rows: Tensor) -> Tensor:
        return rows[:-1].reshape(self.output)
