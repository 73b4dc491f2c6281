"""Operations of which each output is an entry: at a tie several entries attain it.

Which entries compete for which output is a :class:`Contest`. All that a selection does follows
from it, whatever the operation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Literal

import torch
from torch import Tensor

from kinkcheck.kernels import Ties, Windows, count_attained, random_rank
from kinkcheck.ops.branches import Active, Alone, Branches, Rivals, may_ask, times
from kinkcheck.selection import Random, Selection, ranked, weight

Wins = Literal["largest", "smallest", "clamped"] | int
"""Which of the active entries stays active along a tangent: by its tangent, or by its place in the
ascending order of tangents. Of ``clamped`` the entries are a number, its least and its largest
value."""


class Contest(ABC):
    """Which entries compete for which output: a dataclass of tensors and plain values.

    Entries are laid out in one tensor of any shape. Among those of one output the first one is the
    one that PyTorch scans first.
    """

    @abstractmethod
    def entries(self, *inputs: Tensor) -> Tensor:
        """Lay entries out; linear in the inputs."""

    def pieces(self, *inputs: Tensor) -> Iterable[Tensor]:
        """All entries, in the order of the outputs; some at a time where that saves memory."""
        return (self.entries(*inputs),)

    @abstractmethod
    def back(self, entries: Tensor) -> tuple[Tensor, ...]:
        """The adjoint of :meth:`entries`."""

    @abstractmethod
    def spread(self, output: Tensor) -> Tensor:
        """Give each entry what the output has that it competes for."""

    @abstractmethod
    def total(self, entries: Tensor) -> Tensor:
        """The sum over the entries that compete for each output: the adjoint of :meth:`spread`.

        Of bools it is their number.
        """

    def apart(self, value: Tensor, *inputs: Tensor) -> bool:
        """Whether it is plain that one entry alone attains each output, given these."""
        return False

    def filled(self) -> bool:
        """Whether entries compete for every output."""
        return True

    def kept(self) -> bool:
        """Whether PyTorch's derivative keeps the inputs and the outputs, and guards them."""
        return False

    def ranks(self, chosen: Tensor) -> Tensor:
        """How many chosen entries come before each, among those of its output.

        Counted along the last dimension, where the entries of an output mostly lie.

        Args:
            chosen: a bool for each entry.
        """
        return chosen.to(torch.int64).cumsum(-1) - chosen.to(torch.int64)

    @abstractmethod
    def best(self, entries: Tensor, largest: bool) -> Tensor:
        """The largest or smallest entry for each output."""

    def numbers(self, output: Tensor) -> Tensor:
        """The number of the output that each entry competes for, given what the output is like."""
        numbers = torch.arange(output.numel(), device=output.device)
        return self.spread(numbers.reshape(output.shape))


@dataclass(frozen=True)
class Picks(Branches):
    """Outputs that are entries of the inputs.

    Attributes:
        inputs: the tensors that hold the entries.
        contest: which of them compete for which output.
        wins: which active entry stays active along a tangent; a number is a place in the
            ascending order of all entries.
        ignored: one value an output that does not compete, but which PyTorch gives a part of the
            gradient where it equals the output; NaN where there is none.
        given: entries that are numbers, of which nothing is a derivative: where one is active the
            element of least norm is 0. A bool for each entry; None if all are differentiated.

    >>> x = torch.tensor([[1.0, 3.0, 3.0]])
    >>> picks = Picks((x,), Along.of(x, 1))
    >>> picks.active(x.amax(1)).tied()
    tensor([True])
    """

    inputs: tuple[Tensor, ...]
    contest: Contest
    wins: Wins | Tensor = "largest"
    ignored: Tensor | None = None
    given: Tensor | None = None

    @property
    def form(self) -> str:
        """Whether all entries compete, those along a dimension, or those of two tensors."""
        if isinstance(self.contest, Along):
            return "along a dimension" if self.contest.over else "of all entries"
        return "of two tensors" if isinstance(self.contest, Between) else ""

    def active(self, value: Tensor) -> ActivePicks:
        """The entries that attain the outputs."""
        with torch.no_grad():
            entries = self.contest.entries(*(each.detach() for each in self.inputs))
            attains = entries == self.contest.spread(value.detach())
            if self.wins == "clamped":
                number, least, _ = entries.unbind(-1)
                larger = torch.stack([number >= least, least >= number], -1)
                # The smaller of these two is hidden, even where it equals the largest value.
                attains = attains & torch.nn.functional.pad(larger, (0, 1), value=True)
            lost = None if self.ignored is None else self.ignored == value.detach()
            wins = self.wins
            if not isinstance(wins, str):
                # Among those that are active: behind all that are smaller.
                wins = wins - self.contest.total(entries < self.contest.spread(value.detach()))
        return ActivePicks(self.contest, attains, wins, lost, self.given)

    def alone(self, value: Tensor) -> Alone:
        """The entry that attains each output."""
        if self.contest.kept():
            return Sought(self.contest, tuple(x.detach() for x in self.inputs), value.detach())
        return Entry(self.contest, self.active(value).attains)

    def where_tied(self, value: Tensor) -> Active | None:
        """The same; None where it could be asked and nothing is tied."""
        if not may_ask(value):
            return self.active(value)
        if self.contest.apart(value.detach(), *(each.detach() for each in self.inputs)):
            return None
        active = self.active(value)
        if self.ignored is not None or not self.contest.filled():
            return active if active.any_tied() else None
        # Every output has an entry that attains it, but for NaN.
        as_many = int(torch.count_nonzero(active.attains)) == value.numel()
        return None if as_many and not bool(value.isnan().any()) else active


@dataclass(frozen=True)
class Entry(Alone):
    """The entry that attains each output."""

    contest: Contest
    attains: Tensor

    def push(self, tangents: tuple[Tensor, ...]) -> Tensor:
        """Its tangent."""
        return self.contest.total(torch.where(self.attains, self.contest.entries(*tangents), 0))


@dataclass(frozen=True)
class Sought(Alone):
    """The entry that attains each output, not looked for before it is needed."""

    contest: Contest
    inputs: tuple[Tensor, ...]
    value: Tensor

    def push(self, tangents: tuple[Tensor, ...]) -> Tensor:
        """Its tangent."""
        attains = self.contest.entries(*self.inputs) == self.contest.spread(self.value)
        return Entry(self.contest, attains).push(tangents)


@dataclass(frozen=True)
class ActivePicks(Active):
    """The entries that attain the outputs.

    Attributes:
        contest: which entries compete for which output.
        attains: the active ones.
        wins: which of them stays active along a tangent.
        lost: outputs of whose gradient PyTorch loses a part, so that one entry is a choice too.
        given: as in :class:`Picks`.
    """

    contest: Contest
    attains: Tensor
    wins: Wins | Tensor
    lost: Tensor | None = None
    given: Tensor | None = None

    def _size(self) -> Tensor:
        """How many entries attain each output."""
        return self.contest.total(self.attains)

    def tied(self) -> Tensor:
        """Outputs that several entries attain, or of whose gradient PyTorch loses a part."""
        several = self._size() > 1
        return several if self.lost is None else several | self.lost

    def ties(self, value: Tensor, inputs: tuple[Tensor, ...]) -> Ties:
        """Tied outputs, and those of them that are 0."""
        tied = self.tied()
        at_zero = torch.count_nonzero(tied & (value.detach() == 0))
        return Ties(tied.numel(), torch.count_nonzero(tied), at_zero)

    def persists(self, lifted: Branches, value: Tensor) -> Tensor:
        """Outputs whose active entries have one value in the lift."""
        contest = self.contest
        entries = contest.entries(*(each.detach() for each in lifted.inputs))
        largest = contest.best(torch.where(self.attains, entries, -torch.inf), largest=True)
        smallest = contest.best(torch.where(self.attains, entries, torch.inf), largest=False)
        return largest == smallest

    def weights(self, selection: Selection) -> Tensor:
        """The weight of each entry."""
        size = self._size()
        drawn = None
        if isinstance(selection, Random):
            drawn = self.contest.spread(random_rank(size, selection.seed))
        sizes = self.contest.spread(size).clamp(min=1)
        ranks = self.contest.ranks(self.attains) if ranked(selection) else None
        least = 1 / sizes.to(torch.float64)
        if self.given is not None:
            held = self.attains & self.given
            least = torch.where(self.contest.spread(self.contest.total(held) > 0), held, least)
        found = weight(selection, ranks, sizes, least, drawn)
        return torch.where(self.attains & self.contest.spread(self.tied()), found, 0.0)

    def along(self, tangents: tuple[Tensor, ...]) -> Tensor:
        """Weight 1 for the first of the entries that win a tie."""
        contest, moved = self.contest, self.contest.entries(*tangents)
        tied = contest.spread(self.tied())
        if self.wins == "clamped":
            least, most = (
                torch.where(self.attains, moved, away).unbind(-1)
                for away in (-torch.inf, torch.inf)
            )
            raised = torch.maximum(least[0], least[1])
            raised = torch.where(raised == -torch.inf, torch.inf, raised)
            best = torch.minimum(raised, most[2])
        elif isinstance(self.wins, str):
            largest = self.wins == "largest"
            away = -torch.inf if largest else torch.inf
            best = contest.best(torch.where(self.attains, moved, away), largest)
        else:
            best = self._in_order(moved)
        wins = self.attains & tied & (moved == contest.spread(best))
        return (wins & (contest.ranks(wins) == 0)).to(torch.float64)

    def _in_order(self, moved: Tensor) -> Tensor:
        """The tangent that has its place in the ascending order of the active ones."""
        contest = self.contest
        in_order = torch.where(self.attains, moved, torch.inf).sort(-1).values
        place = torch.as_tensor(self.wins, device=moved.device).expand(self.tied().shape)
        number = torch.arange(moved.shape[-1], device=moved.device)
        here = number == contest.spread(place.clamp(min=0))
        return contest.total(torch.where(here, in_order, 0))

    def rivals(self, tangents: tuple[Tensor, ...]) -> Rivals:
        """The tangents of the active entries."""
        tied = self.tied()
        compete = self.attains & self.contest.spread(tied)
        of = self.contest.numbers(tied)[compete]
        wins = {"largest": Rivals.LARGEST, "smallest": Rivals.SMALLEST, "clamped": Rivals.ORDERED}
        decides = wins[self.wins] if isinstance(self.wins, str) else Rivals.ORDERED
        return Rivals.deciding(of, self.contest.entries(*tangents)[compete], decides)

    def pull(self, weights: Tensor, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of each output for its entries."""
        return self.contest.back(times(weights, self.contest.spread(gradient)))

    def push(self, weights: Tensor, tangents: tuple[Tensor, ...]) -> Tensor:
        """The tangents of the entries, weighed."""
        return self.contest.total(times(weights, self.contest.entries(*tangents)))


@dataclass(frozen=True)
class Along(Contest):
    """Entries along dimensions of one input.

    Attributes:
        sizes: of the input.
        over: those that the output has lost; none stand for all.
        keepdim: whether the output keeps them with one entry.
    """

    sizes: tuple[int, ...]
    over: tuple[int, ...]
    keepdim: bool = False

    @classmethod
    def of(cls, input: Tensor, dim: int | Sequence[int] | None, keepdim: bool = False) -> Along:
        """Along what PyTorch calls ``dim``."""
        over = (dim,) if isinstance(dim, int) else tuple(dim or ())
        return cls(tuple(input.shape), over if input.dim() else (), keepdim)

    def entries(self, *inputs: Tensor) -> Tensor:
        """Outputs first, then the entries of each in row-major order."""
        (input,) = inputs
        return input.permute(self._order()).reshape(*self._kept(), self.count())

    def back(self, entries: Tensor) -> tuple[Tensor, ...]:
        """The layout of the input."""
        order = self._order()
        shaped = entries.reshape([self.sizes[d] for d in order])
        return (shaped.permute([order.index(d) for d in range(len(order))]),)

    def apart(self, value: Tensor, *inputs: Tensor) -> bool:
        """Whether as many attain an output as there are; NaN attains none."""
        over = self._over()
        if not over or not value.numel() or over != tuple(range(over[0], over[-1] + 1)):
            return False
        outer, inner = prod(self.sizes[: over[0]]), prod(self.sizes[over[-1] + 1 :])
        entries = inputs[0].reshape(outer, self.count(), inner)
        attained = count_attained(entries, value.reshape(outer, inner))
        return attained == value.numel() and not bool(value.isnan().any())

    def spread(self, output: Tensor) -> Tensor:
        """One more dimension."""
        return output.reshape(*self._kept(), 1).expand(*self._kept(), self.count())

    def total(self, entries: Tensor) -> Tensor:
        """The sum along that dimension."""
        return self._output(entries.sum(-1))

    def best(self, entries: Tensor, largest: bool) -> Tensor:
        """The extreme along that dimension; infinite where there is no entry."""
        if not entries.shape[-1]:
            return self._output(
                entries.new_full(self._kept(), -torch.inf if largest else torch.inf)
            )
        return self._output(entries.amax(-1) if largest else entries.amin(-1))

    def _over(self) -> tuple[int, ...]:
        count = len(self.sizes)
        return tuple(sorted(d % count for d in self.over)) if self.over else tuple(range(count))

    def _order(self) -> list[int]:
        over = self._over()
        return [*(d for d in range(len(self.sizes)) if d not in over), *over]

    def _kept(self) -> list[int]:
        over = self._over()
        return [size for d, size in enumerate(self.sizes) if d not in over]

    def count(self) -> int:
        """How many entries there are for each output."""
        return prod([self.sizes[d] for d in self._over()])

    def _output(self, reduced: Tensor) -> Tensor:
        if not self.keepdim:
            return reduced
        over = self._over()
        return reduced.reshape([1 if d in over else size for d, size in enumerate(self.sizes)])


@dataclass(frozen=True)
class Between(Contest):
    """Entries at the same place of several inputs, which broadcast.

    Attributes:
        shapes: of the inputs.
        output: the shape of the output.
    """

    shapes: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]

    @classmethod
    def of(cls, *inputs: Tensor) -> Between:
        """Of the inputs themselves."""
        shapes = tuple(tuple(each.shape) for each in inputs)
        return cls(shapes, tuple(torch.broadcast_shapes(*shapes)))

    def entries(self, *inputs: Tensor) -> Tensor:
        """The inputs, one behind the other."""
        common = inputs[0].dtype
        for each in inputs[1:]:
            common = torch.promote_types(common, each.dtype)
        return torch.stack([each.to(common).expand(self.output) for each in inputs], -1)

    def back(self, entries: Tensor) -> tuple[Tensor, ...]:
        """Each input has what it gave, summed where it was broadcast."""
        return tuple(
            part.sum_to_size(shape)
            for part, shape in zip(entries.unbind(-1), self.shapes, strict=True)
        )

    def apart(self, value: Tensor, *inputs: Tensor) -> bool:
        """Whether two inputs are equal nowhere."""
        if len(inputs) != 2:
            return False
        one, other = inputs
        if one.shape != other.shape or one.dtype != other.dtype:
            return not bool(torch.eq(one, other).any())
        return not count_attained(one.reshape(1, 1, -1), other.reshape(1, -1))

    def spread(self, output: Tensor) -> Tensor:
        """One more dimension."""
        return output.unsqueeze(-1).expand(*self.output, len(self.shapes))

    def total(self, entries: Tensor) -> Tensor:
        """The sum along that dimension."""
        return entries.sum(-1)

    def best(self, entries: Tensor, largest: bool) -> Tensor:
        """The extreme along that dimension."""
        return entries.amax(-1) if largest else entries.amin(-1)


def competing(*given: float | Tensor) -> tuple[Tensor, ...]:
    """Numbers and tensors as tensors that compete, integers in the type of the others.

    >>> competing(torch.zeros(1, dtype=torch.float64), torch.tensor([2]), 1)
    (tensor([0.], dtype=torch.float64), tensor([2.], dtype=torch.float64), tensor(1., dtype=...))
    """
    tensors = [each for each in given if isinstance(each, Tensor)]
    common = tensors[0].dtype
    for each in tensors[1:]:
        common = torch.promote_types(common, each.dtype)
    return tuple(
        each
        if isinstance(each, Tensor) and each.is_floating_point()
        else torch.as_tensor(each, dtype=common)
        for each in given
    )


@dataclass(frozen=True)
class Windowed(Contest):
    """Entries of the windows of a pooling.

    Attributes:
        windows: the windows.
        plane: the sizes of the dimensions that are pooled.
    """

    windows: Windows
    plane: tuple[int, ...]

    @classmethod
    def of(cls, windows: Windows, input: Tensor) -> Windowed:
        """Of a pooling of a tensor."""
        return cls(windows, tuple(input.shape[-windows.dimensions :]))

    def entries(self, *inputs: Tensor) -> Tensor:
        """Windows, then the entries of each; NaN in the padding, which is never active."""
        (input,) = inputs
        at, _ = self._places(input.device)
        flat = input.flatten(-len(self.plane))
        gathered = flat.index_select(-1, at.clamp(min=0).flatten()).unflatten(-1, at.shape)
        return torch.where(at < 0, torch.nan, gathered)

    def listed(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The entries of chosen outputs alone: the numbers of the output of each, and of itself.

        Args:
            chosen: a bool for each output.
        """
        at, output = self._places(chosen.device)
        (number,) = chosen.flatten().nonzero(as_tuple=True)
        places = at[number % prod(output)]
        lines = number // prod(output) * prod(self.plane)
        inside = places >= 0
        return number[:, None].expand_as(places)[inside], (lines[:, None] + places)[inside]

    def back(self, entries: Tensor) -> tuple[Tensor, ...]:
        """Each position has the sum of what its entries have."""
        at, _ = self._places(entries.device)
        flat = torch.zeros_like(entries[..., 0, :1]).expand(*entries.shape[:-2], prod(self.plane))
        inside = torch.where(at < 0, 0, entries).flatten(-2)
        added = flat.index_add(-1, at.clamp(min=0).flatten(), inside)
        return (added.unflatten(-1, self.plane),)

    def spread(self, output: Tensor) -> Tensor:
        """One more dimension."""
        at, _ = self._places(output.device)
        flat = output.flatten(-len(self.plane)).unsqueeze(-1)
        return flat.expand(*flat.shape[:-1], at.shape[1])

    def total(self, entries: Tensor) -> Tensor:
        """The sum over places."""
        return self._output(entries.sum(-1))

    def best(self, entries: Tensor, largest: bool) -> Tensor:
        """The extreme over places."""
        return self._output(entries.amax(-1) if largest else entries.amin(-1))

    def _output(self, reduced: Tensor) -> Tensor:
        return reduced.reshape(*reduced.shape[:-1], *self._places(reduced.device)[1])

    def _places(self, device: torch.device) -> tuple[Tensor, tuple[int, ...]]:
        find = _places if torch.compiler.is_compiling() else _places_once
        return find(self.windows, self.plane, device)


def _places(
    windows: Windows, plane: tuple[int, ...], device: torch.device
) -> tuple[Tensor, tuple[int, ...]]:
    """Where the entries of each window lie in its plane, −1 in the padding; and the outputs."""
    output = windows.torch_max_pool(torch.empty(1, *plane, device="meta")).shape[1:]
    positions = torch.arange(prod(plane), device=device).reshape(plane)
    places = []
    for of, at in windows.entries(torch.Size(plane), output):
        place = torch.full(output, -1, device=device)
        place[of] = positions[at]
        places.append(place.flatten())
    return torch.stack(places, -1), tuple(output)


_places_once = lru_cache(maxsize=256)(_places)
