"""Sorted entries: a selection pairs the outputs of a tied group with its entries, all at once.

All is done in the order of the sorted entries along the last dimension. There, those that are equal
lie side by side; the outputs that have their value are the first of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kinkcheck.kernels import Ties, count_attained, random_rank
from kinkcheck.ops.branches import LISTED, Active, Branches, Rivals, may_ask, times
from kinkcheck.selection import First, Hybrid, Last, Minimal, Native, Random, Selection, weight


@dataclass(frozen=True)
class Sorted(Branches):
    """The entries along a dimension in order, or the first of them.

    ``first`` gives the outputs of a tied group its entries in their order, ``last`` in the reverse
    one, ``random`` in any; ``minimal`` gives each output an equal share of all.

    Attributes:
        input: the tensor that is sorted.
        dim: the dimension.
        descending: whether the largest comes first.

    >>> x = torch.tensor([2.0, 1.0, 2.0])
    >>> Sorted(x, 0, True).active(x.sort(descending=True).values).tied()
    tensor([ True,  True, False])
    """

    input: Tensor
    dim: int
    descending: bool

    @property
    def inputs(self) -> tuple[Tensor, ...]:  # type: ignore[override]
        """The one input."""
        return (self.input,)

    def where_tied(self, value: Tensor) -> ActiveSorted | None:
        """The groups; None where it could be asked and no two entries are equal to an output."""
        return None if may_ask(value) and self._apart(value.detach()) else self.active(value)

    def _apart(self, value: Tensor) -> bool:
        entries, outputs = to_last(self.input.detach(), self.dim), to_last(value, self.dim)
        if not value.numel():
            return True
        before, behind = outputs[..., :-1], outputs[..., 1:]
        strictly = before > behind if self.descending else before < behind
        if not bool(strictly.all()):
            return False
        if entries.shape == outputs.shape:
            return True
        last = outputs[..., -1].flatten()
        attained = count_attained(entries.reshape(len(last), -1, 1), last.unsqueeze(1))
        return attained == len(last) and not bool(last.isnan().any())

    def active(self, value: Tensor) -> ActiveSorted:
        """The groups of equal entries."""
        entries = to_last(self.input.detach(), self.dim)
        order = entries.argsort(dim=-1, descending=self.descending, stable=True)
        outputs = to_last(value.detach(), self.dim)
        places = outputs.argsort(dim=-1, descending=self.descending, stable=True)
        in_order = entries.gather(-1, order)
        changes = in_order[..., 1:] != in_order[..., :-1]
        group = torch.nn.functional.pad(changes.to(torch.int64).cumsum(-1), (1, 0))
        return ActiveSorted(order, places, group, self.dim, self.descending, self.input.dim())


@dataclass(frozen=True)
class ActiveSorted(Active):
    """Groups of equal entries.

    Attributes:
        order: the entry at each place of the order.
        places: the output at each of the first places.
        group: the number of the group at each place.
        dim, descending: as in :class:`Sorted`.
        dimensions: how many the input has.
    """

    order: Tensor
    places: Tensor
    group: Tensor
    dim: int
    descending: bool
    dimensions: int

    def tied(self) -> Tensor:
        """Outputs with the value of several entries."""
        tied = self._outputs() > 1
        return self._as_output(torch.empty_like(tied).scatter(-1, self.places, tied))

    def ties(self, value: Tensor, inputs: tuple[Tensor, ...]) -> Ties:
        """Outputs with the value of several entries, and those of them that are 0."""
        tied = self.tied()
        at_zero = torch.count_nonzero(tied & (value.detach() == 0))
        return Ties(tied.numel(), torch.count_nonzero(tied), at_zero)

    def persists(self, lifted: Branches, value: Tensor) -> Tensor:
        """Outputs whose groups have one value in the lift."""
        (input,) = lifted.inputs
        above = to_last(input.detach(), self.dim).gather(-1, self.order)
        most = torch.full_like(above, -torch.inf).scatter_reduce(-1, self.group, above, "amax")
        least = torch.full_like(above, torch.inf).scatter_reduce(-1, self.group, above, "amin")
        same = (most == least).gather(-1, self.group)[..., : self.places.shape[-1]]
        return self._as_output(torch.empty_like(same).scatter(-1, self.places, same))

    def weights(self, selection: Selection) -> tuple[Any, ...]:
        """The entry that each output is paired with, its weight, and that of an equal share."""
        place = torch.arange(self.order.shape[-1], device=self.order.device).expand_as(self.order)
        start, size = self._starts(), self._sizes()
        match selection:
            case First():
                return place, 1.0, 0.0
            case Last():
                return start + (size - 1 - (place - start)), 1.0, 0.0
            case Random(seed):
                drawn = random_rank(torch.full_like(place, 2**31 - 1), seed)
                return self._within_groups(drawn, descending=False), 1.0, 0.0
            case Native() | Minimal() | Hybrid():
                return place, 0.0, float(weight(selection, 0, 2, 1.0, None))
        weight(selection, 0, 2, 1.0, None)
        raise AssertionError

    def along(self, tangents: tuple[Tensor, ...]) -> tuple[Any, ...]:
        """The entries of each group in the order of their tangents."""
        moved = to_last(tangents[0], self.dim).gather(-1, self.order)
        return self._within_groups(moved, self.descending), 1.0, 0.0

    def rivals(self, tangents: tuple[Tensor, ...]) -> Rivals:
        """The tangents of the group of each output; of very many the least and the greatest."""
        moved = to_last(tangents[0], self.dim).gather(-1, self.order)
        count = self.places.shape[-1]
        if moved.numel() * count <= LISTED:
            compete = self.group[..., :count, None] == self.group[..., None, :]
            compete &= (self._outputs() > 1)[..., None]
            number = self._number().gather(-1, self.places)
            return Rivals.listed(number, compete, moved, Rivals.ORDERED)
        ends = []
        for reduce, away in (("amin", torch.inf), ("amax", -torch.inf)):
            end = torch.full_like(moved, away).scatter_reduce(-1, self.group, moved, reduce)
            placed = end.gather(-1, self.group)[..., :count]
            ends.append(self._as_output(torch.empty_like(placed).scatter(-1, self.places, placed)))
        return Rivals.ends(self.tied(), *ends)

    def pull(self, weights: tuple[Any, ...], gradient: Tensor) -> tuple[Tensor | None, ...]:
        """What each entry has of the outputs that it is paired with."""
        partner, paired, shared = weights
        given = to_last(gradient, self.dim).gather(-1, self.places)
        given = torch.where(self._outputs() > 1, given, 0)
        given = torch.nn.functional.pad(given, (0, self.order.shape[-1] - given.shape[-1]))
        found = torch.zeros_like(given)
        if paired:
            found = found.scatter_add(-1, partner, given)
        if shared:
            found = found + self._shared(shared, given)
        entries = torch.zeros_like(found).scatter(-1, self.order, found)
        return (from_last(entries, self.dim, self.dimensions),)

    def push(self, weights: tuple[Any, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        """The tangent of the entry that each output is paired with."""
        partner, paired, shared = weights
        moved = to_last(tangents[0], self.dim).gather(-1, self.order)
        found = moved.gather(-1, partner) if paired else torch.zeros_like(moved)
        if shared:
            found = found + self._shared(shared, moved)
        found = found[..., : self.places.shape[-1]]
        return self._as_output(torch.empty_like(found).scatter(-1, self.places, found))

    def _shared(self, shared: float, given: Tensor) -> Tensor:
        """The mean of each group, which is its own adjoint."""
        sums = torch.zeros_like(given).scatter_add(-1, self.group, given).gather(-1, self.group)
        return times(shared / self._sizes().to(torch.float64), sums)

    def _sizes(self) -> Tensor:
        """How many entries the group at each place has."""
        ones = torch.ones_like(self.group)
        return torch.zeros_like(ones).scatter_add(-1, self.group, ones).gather(-1, self.group)

    def _starts(self) -> Tensor:
        """The first place of the group at each place."""
        ones = torch.ones_like(self.group)
        counts = torch.zeros_like(ones).scatter_add(-1, self.group, ones)
        return (counts.cumsum(-1) - counts).gather(-1, self.group)

    def _outputs(self) -> Tensor:
        """The sizes of groups at the places of outputs."""
        return self._sizes()[..., : self.places.shape[-1]]

    def _within_groups(self, keys: Tensor, descending: bool) -> Tensor:
        """The places sorted by keys, but for the groups, which stay where they are."""
        by_key = keys.argsort(dim=-1, descending=descending, stable=True)
        by_group = self.group.gather(-1, by_key).argsort(dim=-1, stable=True)
        return by_key.gather(-1, by_group)

    def _number(self) -> Tensor:
        """The number of each output, in row-major order."""
        like = self._as_output(self.places)
        number = torch.arange(like.numel(), device=like.device).reshape(like.shape)
        return to_last(number, self.dim)

    def _as_output(self, tensor: Tensor) -> Tensor:
        return from_last(tensor, self.dim, self.dimensions)


def to_last(tensor: Tensor, dim: int) -> Tensor:
    """With a dimension behind all others; of a single number, with one.

    >>> to_last(torch.zeros(2, 3), 0).shape, to_last(torch.tensor(0.0), 0).shape
    (torch.Size([3, 2]), torch.Size([1]))
    """
    return tensor.movedim(dim, -1) if tensor.dim() else tensor.reshape(1)


def from_last(tensor: Tensor, dim: int, dimensions: int) -> Tensor:
    """The inverse of :func:`to_last`, for a tensor that had some number of dimensions.

    >>> from_last(torch.zeros(3, 2), 0, 2).shape
    torch.Size([2, 3])
    """
    return tensor.movedim(-1, dim) if dimensions else tensor.reshape(())
