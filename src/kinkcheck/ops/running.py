"""Running maxima: the output at each place is the largest entry up to there.

Places whose output is one value lie side by side: a run. In it, an entry competes for its own place
and for those behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from kinkcheck.kernels import Ties, count_attained, random_rank
from kinkcheck.ops.branches import LISTED, Active, Branches, Rivals, may_ask, times
from kinkcheck.ops.sorting import from_last, to_last
from kinkcheck.selection import First, Hybrid, Last, Minimal, Native, Random, Selection, weight


@dataclass(frozen=True)
class Running(Branches):
    """The largest, or smallest, of the entries up to each place along a dimension.

    Attributes:
        input: the entries.
        dim: the dimension.
        largest: whether the largest is the output.

    >>> x = torch.tensor([1.0, 3.0, 2.0, 3.0])
    >>> Running(x, 0, True).active(x.cummax(0).values).tied()
    tensor([False, False, False,  True])
    """

    input: Tensor
    dim: int
    largest: bool

    @property
    def inputs(self) -> tuple[Tensor, ...]:  # type: ignore[override]
        """The one input."""
        return (self.input,)

    def where_tied(self, value: Tensor) -> ActiveRunning | None:
        """The same; None where it could be asked and no entry is the output of the place before."""
        return None if may_ask(value) and self._apart(value.detach()) else self.active(value)

    def _apart(self, value: Tensor) -> bool:
        if not value.dim() or not value.numel():
            return True
        dim, input = self.dim % value.dim(), self.input.detach()
        inner = prod(value.shape[dim + 1 :])
        entries, outputs = input.reshape(-1)[inner:], value.reshape(-1)[:-inner]
        equal = count_attained(entries.reshape(1, 1, -1), outputs.reshape(1, -1))
        # So far the first places were compared with the last ones of what lies before them.
        first, last = (
            each.select(dim, place).reshape(-1, inner) for each, place in ((input, 0), (value, -1))
        )
        return equal == int(torch.count_nonzero(first[1:] == last[:-1]))

    def active(self, value: Tensor) -> ActiveRunning:
        """The entries that attain the output at their own place, and the runs."""
        entries, outputs = (to_last(each.detach(), self.dim) for each in (self.input, value))
        changes = outputs[..., 1:] != outputs[..., :-1]
        run = torch.nn.functional.pad(changes.to(torch.int64).cumsum(-1), (1, 0))
        return ActiveRunning(entries == outputs, run, self.dim, self.largest, self.input.dim())


@dataclass(frozen=True)
class ActiveRunning(Active):
    """The entries that attain outputs.

    Attributes:
        attains: those that attain the output at their own place.
        run: the number of the run at each place.
        dim, largest: as in :class:`Running`.
        dimensions: how many the input has.
    """

    attains: Tensor
    run: Tensor
    dim: int
    largest: bool
    dimensions: int

    def tied(self) -> Tensor:
        """Outputs that several entries attain."""
        return self._shaped(self._sizes() > 1)

    def ties(self, value: Tensor, inputs: tuple[Tensor, ...]) -> Ties:
        """Outputs that several entries attain, and those of them that are 0."""
        tied = self.tied()
        at_zero = torch.count_nonzero(tied & (value.detach() == 0))
        return Ties(tied.numel(), torch.count_nonzero(tied), at_zero)

    def persists(self, lifted: Branches, value: Tensor) -> Tensor:
        """Outputs whose active entries have one value in the lift."""
        above = to_last(lifted.inputs[0].detach(), self.dim)
        most = self._gathered(torch.where(self.attains, above, -torch.inf), torch.maximum)
        least = self._gathered(torch.where(self.attains, above, torch.inf), torch.minimum)
        return self._shaped(most == least)

    def weights(self, selection: Selection) -> tuple[Any, ...]:
        """The place of the entry that each output takes, and the weight of an equal share."""
        size = self._sizes()
        match selection:
            case First():
                return self._nth(torch.zeros_like(size)), 0.0
            case Last():
                return self._nth(size - 1), 0.0
            case Random(seed):
                return self._nth(random_rank(size.clamp(min=1), seed)), 0.0
            case Native() | Minimal() | Hybrid():
                return None, float(weight(selection, 0, 2, 1.0, None))
        weight(selection, 0, 2, 1.0, None)
        raise AssertionError

    def along(self, tangents: tuple[Tensor, ...]) -> tuple[Any, ...]:
        """The place of the entry whose tangent is the greatest so far, or the least."""
        moved = to_last(tangents[0], self.dim)
        extreme, away = (torch.maximum, -torch.inf) if self.largest else (torch.minimum, torch.inf)
        best = self._gathered(torch.where(self.attains, moved, away), extreme)
        place = torch.arange(moved.shape[-1], device=moved.device).expand_as(moved)
        # The last place where the best so far is met anew.
        anew = self.attains & (moved == best)
        return self._gathered(torch.where(anew, place, 0), torch.maximum), 0.0

    def rivals(self, tangents: tuple[Tensor, ...]) -> Rivals:
        """The tangents of the entries that attain each output; of very many the extreme ones."""
        moved = to_last(tangents[0], self.dim)
        length = moved.shape[-1]
        if moved.numel() * length <= LISTED:
            place = torch.arange(length, device=moved.device)
            compete = (self.run[..., :, None] == self.run[..., None, :]) & self.attains[
                ..., None, :
            ]
            compete &= (place <= place[:, None]) & (self._sizes() > 1)[..., None]
            tied = self.tied()
            number = to_last(
                torch.arange(tied.numel(), device=moved.device).view(tied.shape), self.dim
            )
            wins = Rivals.LARGEST if self.largest else Rivals.SMALLEST
            return Rivals.listed(number, compete, moved, wins)
        least = self._gathered(torch.where(self.attains, moved, torch.inf), torch.minimum)
        most = self._gathered(torch.where(self.attains, moved, -torch.inf), torch.maximum)
        return Rivals.ends(self.tied(), self._shaped(least), self._shaped(most))

    def pull(self, weights: tuple[Any, ...], gradient: Tensor) -> tuple[Tensor | None, ...]:
        """What each entry has of the outputs that take it."""
        taken, share = weights
        given = to_last(gradient, self.dim)
        given = torch.where(self._sizes() > 1, given, 0)
        if taken is not None:
            return (self._shaped(torch.zeros_like(given).scatter_add(-1, taken, given)),)
        parts = times(share / self._sizes().clamp(min=1).to(torch.float64), given)
        behind = self._gathered(parts, torch.add, backwards=True)
        return (self._shaped(torch.where(self.attains, behind, 0)),)

    def push(self, weights: tuple[Any, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        """The tangent of the entry that each output takes."""
        taken, share = weights
        moved = to_last(tangents[0], self.dim)
        if taken is not None:
            return self._shaped(moved.gather(-1, taken))
        sums = self._gathered(torch.where(self.attains, moved, 0), torch.add)
        return self._shaped(times(share / self._sizes().clamp(min=1).to(torch.float64), sums))

    def _sizes(self) -> Tensor:
        """How many entries attain the output at each place."""
        return self._gathered(self.attains.to(torch.int64), torch.add)

    def _nth(self, rank: Tensor) -> Tensor:
        """The place of the entry with a rank among those of the run at each place."""
        in_order = (~self.attains).to(torch.int64).argsort(dim=-1, stable=True)
        before = self.attains.to(torch.int64).cumsum(-1) - self._sizes()
        return in_order.gather(-1, (before + rank).clamp(0, rank.shape[-1] - 1))

    def _gathered(
        self, values: Tensor, join: Callable[[Tensor, Tensor], Tensor], backwards: bool = False
    ) -> Tensor:
        """What the values of a run come to up to each place, by doubling; or from each place on."""
        found, step, length = values, 1, values.shape[-1]
        while step < length:
            near, far = (slice(None, -step), slice(step, None))
            at, other = (near, far) if backwards else (far, near)
            same = self.run[..., near] == self.run[..., far]
            joined = torch.where(same, join(found[..., at], found[..., other]), found[..., at])
            kept = found[..., length - step :] if backwards else found[..., :step]
            found = torch.cat([joined, kept] if backwards else [kept, joined], -1)
            step *= 2
        return found

    def _shaped(self, tensor: Tensor) -> Tensor:
        return from_last(tensor, self.dim, self.dimensions)
