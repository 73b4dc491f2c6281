"""Contests made of others: of differences, and of entries with both signs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kinkcheck.kernels import count_attained
from kinkcheck.ops.picks import Along, Contest

_IN_CACHE = 2**18
"""How many numbers mostly stay in a cache."""


@dataclass(frozen=True)
class _Made(Contest):
    """A contest whose entries are made of those of another along dimensions.

    Attributes:
        of: the other.
    """

    of: Along

    def spread(self, output: Tensor) -> Tensor:
        """As the other."""
        return self.of.spread(output)

    def total(self, entries: Tensor) -> Tensor:
        """As the other."""
        return self.of.total(entries)

    def ranks(self, chosen: Tensor) -> Tensor:
        """As the other."""
        return self.of.ranks(chosen)

    def best(self, entries: Tensor, largest: bool) -> Tensor:
        """As the other."""
        return self.of.best(entries, largest)


@dataclass(frozen=True)
class Apart(_Made):
    """Entries of the difference of two inputs.

    Attributes:
        sizes: of the inputs.
        views: as what they are seen, and then broadcast.

    >>> contest = Apart(Along((2, 3), (1,)), ((2, 3), (3,)), ((2, 3), (3,)))
    >>> contest.entries(torch.ones(2, 3), torch.arange(3.0))[0]
    tensor([ 1.,  0., -1.])
    """

    sizes: tuple[tuple[int, ...], tuple[int, ...]]
    views: tuple[tuple[int, ...], tuple[int, ...]]

    def entries(self, *inputs: Tensor) -> Tensor:
        """The first input minus the second."""
        left, right = self._viewed(*inputs)
        return self.of.entries(left - right)

    def pieces(self, *inputs: Tensor) -> Iterable[Tensor]:
        """Of all pairs of rows, those of some rows of the first input at a time."""
        left, right = self._viewed(*inputs)
        if self.of.over != (-1,) or left.dim() != 3:
            return (self.of.entries(left - right),)
        return (some - right for some in left.split(1 + _IN_CACHE // max(right.numel(), 1)))

    def _viewed(self, *inputs: Tensor) -> Iterator[Tensor]:
        return (x.reshape(view) for x, view in zip(inputs, self.views, strict=True))

    def back(self, entries: Tensor) -> tuple[Tensor, ...]:
        """Summed where an input was broadcast."""
        (difference,) = self.of.back(entries)
        return (
            difference.sum_to_size(self.views[0]).reshape(self.sizes[0]),
            -difference.sum_to_size(self.views[1]).reshape(self.sizes[1]),
        )


@dataclass(frozen=True)
class Pairs(_Made):
    """Entries of the differences of all pairs of rows of one input.

    Attributes:
        rows: how many there are.

    >>> contest = Pairs(Along((3, 1), (1,)), 3)
    >>> contest.entries(torch.tensor([[1.0], [2.0], [4.0]])).flatten()
    tensor([-1., -3., -2.])
    """

    rows: int

    def entries(self, *inputs: Tensor) -> Tensor:
        """The earlier row of each pair minus the later one."""
        (input,) = inputs
        first, second = self._pairs(input.device)
        return self.of.entries(input.index_select(0, first) - input.index_select(0, second))

    def back(self, entries: Tensor) -> tuple[Tensor, ...]:
        """Each row has the sum over its pairs."""
        (difference,) = self.of.back(entries)
        first, second = self._pairs(entries.device)
        start = difference.new_zeros(self.rows, *difference.shape[1:])
        return (start.index_add(0, first, difference).index_add(0, second, -difference),)

    def _pairs(self, device: torch.device) -> tuple[Tensor, Tensor]:
        first, second = torch.triu_indices(self.rows, self.rows, 1, device=device)
        return first, second


@dataclass(frozen=True)
class Centred(_Made):
    """Entries less their mean, to a scale: their 2-norm is a standard deviation.

    Attributes:
        scale: what they are multiplied with.

    >>> Centred(Along((3,), ()), 0.5).entries(torch.tensor([1.0, 2.0, 3.0]))
    tensor([-0.5000,  0.0000,  0.5000])
    """

    scale: float

    def entries(self, *inputs: Tensor) -> Tensor:
        """Centred and scaled."""
        return self._centred(self.of.entries(*inputs))

    def back(self, entries: Tensor) -> tuple[Tensor, ...]:
        """Centred and scaled once more: this is its own adjoint."""
        return self.of.back(self._centred(entries))

    def _centred(self, entries: Tensor) -> Tensor:
        return (entries - entries.mean(-1, keepdim=True)) * self.scale


@dataclass(frozen=True)
class Both(Contest):
    """The entries of another contest and their negatives, of which the absolute value is the max.

    Attributes:
        of: the other, which has one dimension for the entries of each output.

    >>> Both(Along((2,), ())).entries(torch.tensor([3.0, 0.0]))
    tensor([ 3., -3.,  0., -0.])
    """

    of: Contest

    def entries(self, *inputs: Tensor) -> Tensor:
        """Each entry and its negative."""
        entries = self.of.entries(*inputs)
        return torch.stack([entries, -entries], -1).flatten(-2)

    def back(self, entries: Tensor) -> tuple[Tensor, ...]:
        """What the entry has minus what its negative has."""
        entry, negative = entries.unflatten(-1, (-1, 2)).unbind(-1)
        return self.of.back(entry - negative)

    def apart(self, value: Tensor, *inputs: Tensor) -> bool:
        """Whether none is 0, and as many attain one as there are; NaN attains none."""
        if not value.numel() or not bool((value > 0).all()):
            return False
        values, attained = value.reshape(-1, 1), 0
        for piece in self.of.pieces(*inputs):
            entries = piece.abs().reshape(-1, piece.shape[-1], 1)
            some, values = values[: len(entries)], values[len(entries) :]
            attained += count_attained(entries, some)
        return attained == value.numel()

    def kept(self) -> bool:
        """Those of the distances, and of the norms."""
        return True

    def spread(self, output: Tensor) -> Tensor:
        """Twice as many."""
        return self.of.spread(output).repeat_interleave(2, -1)

    def total(self, entries: Tensor) -> Tensor:
        """As the other."""
        return self.of.total(entries)

    def ranks(self, chosen: Tensor) -> Tensor:
        """As the other."""
        return self.of.ranks(chosen)

    def best(self, entries: Tensor, largest: bool) -> Tensor:
        """As the other."""
        return self.of.best(entries, largest)
