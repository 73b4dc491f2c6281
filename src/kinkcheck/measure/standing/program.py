"""A recorded program, of which kinks, tangents and limits are asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinkcheck.errors import InputError
from kinkcheck.measure.forward import Chooser, Forward, Kinks
from kinkcheck.measure.standing.tables import NOISE, Floats, Numbers, Table, margin
from kinkcheck.measure.variation import LEAST
from kinkcheck.ops.branches import Rivals
from kinkcheck.selection import Branch, First, Minimal, Mix, Random, Selection
from kinkcheck.tape import Site, Tape
from kinkcheck.tape.directions import Directions, direction
from kinkcheck.tape.tangents import Edge
from kinkcheck.tape.tape import Choose

DIRECTIONS = 32
"""How many directions can be followed in any program."""

_OTHER = 2**16
"""The number of a direction that no other one has a part of."""

_UNEVEN = (
    Branch(0.381966), Mix(((0.618034, First()), (0.381966, Minimal()))), Random(0), Minimal(),
)  # fmt: skip
"""Of these choices the first that an operation has is like no other one."""

_RHO = 1e-2
"""How far parameters are moved along a direction to see more than derivatives."""


@dataclass(frozen=True)
class LiveTies:
    """Live ties at one site.

    Attributes:
        kinks: the site.
        outputs: the tied outputs, by their numbers in row-major order.
        scale: the largest tangent at each.
    """

    kinks: Kinks
    outputs: Tensor
    scale: Tensor

    def those(self, chosen: Tensor) -> LiveTies:
        """Some of them."""
        return LiveTies(self.kinks, self.outputs[chosen], self.scale[chosen])


@dataclass(frozen=True)
class Census:
    """The live ties of a point.

    Attributes:
        apart: those whose active branches have several derivatives: kinks of the loss.
        same: those whose active branches have one: flat ties.
        rows: how many derivatives of differences between branches there are at kinks, at most.
        scale: how large gradients are where nothing in them cancels.
    """

    apart: list[LiveTies] = field(default_factory=list)
    same: list[LiveTies] = field(default_factory=list)
    rows: int = 0
    scale: float = 0.0

    @property
    def kinks(self) -> int:
        """How many ties are kinks of the loss."""
        return sum(each.outputs.numel() for each in self.apart)

    @property
    def flat(self) -> int:
        """How many are not."""
        return sum(each.outputs.numel() for each in self.same)

    @property
    def ties(self) -> int:
        """How many there are."""
        return self.kinks + self.flat

    @cached_property
    def listed(self) -> Listed:
        """What competes at the ties."""
        of, contest, wins, kept = [], [], [], []
        start = contests = 0
        for ties in (*self.apart, *self.same):
            number = torch.full((ties.kinks.value.numel(),), -1)
            end = start + ties.outputs.numel()
            number[ties.outputs.cpu()] = torch.arange(start, end)
            start = end
            rivals = _rivals(ties.kinks, _moved(ties.kinks, {}))
            numbers = number[rivals.of.cpu()]
            kept.append(numbers >= 0)
            of.append(numbers[kept[-1]])
            wins.append(rivals.wins.cpu()[kept[-1]])
            # No two sites and no two kinds of ties of a site have a contest in common.
            contest.append(rivals.contest.cpu()[kept[-1]] + contests)
            contests += int(rivals.contest.max()) + 1
        scales = [ties.scale.double().cpu() for ties in (*self.apart, *self.same)]
        return Listed(_joined(of), _joined(contest), _joined(wins), _joined(scales), kept)


@dataclass(frozen=True)
class Listed:
    """What competes at the ties of a census, whatever the tangents are.

    Attributes:
        of, contest, wins, scale: as in :class:`Table`.
        kept: for each of the live ties what competes there of all that does at their site.
    """

    of: Numbers
    contest: Numbers
    wins: Numbers
    scale: Floats
    kept: list[Tensor]


@dataclass(frozen=True)
class Limit:
    """A limit of gradients.

    Attributes:
        coefficients: of the drawn directions that the direction is the sum of.
        margin: by how much it decides each kink.
        gradient: the limit, in one vector.
        table: the tangents along the directions asked for, through the branches that stay active.
        unforeseen: the ties that are kinks there though the census has them flat.
        pulls: of the direction, where it was pulled back from kinks (:meth:`Program.pulled`).
    """

    coefficients: list[float]
    margin: float
    gradient: Tensor
    table: Table
    unforeseen: NDArray[np.bool_]
    pulls: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Told:
    """What is told of ties, each by its number in the output of a site.

    Attributes:
        alike: those that get a gradient and whose branches move alike, bit for bit.
        apart: those whose branches do not, live or not.
    """

    alike: list[tuple[Kinks, Tensor]]
    apart: list[tuple[Kinks, Tensor]]

    @classmethod
    def of(cls, census: Census) -> Told:
        """What a census in the lift tells."""
        alike, apart = (
            [(each.kinks, each.outputs) for each in ties] for ties in (census.same, census.apart)
        )
        return cls(alike, apart)

    def samples(self, count: int) -> Tensor | None:
        """The samples, of so many, that hold ties whose branches do not move alike.

        None if the outputs of some site are not those of one sample after the other.
        """
        held = []
        for kinks, outputs in self.apart:
            if not kinks.value.dim() or len(kinks.value) != count:
                return None
            held.append(outputs // kinks.value[0].numel())
        return torch.unique(torch.cat(held)).cpu() if held else torch.zeros(0, dtype=torch.int64)

    def alike_beside(self, samples: Tensor, count: int) -> int:
        """How many ties of the other samples get a gradient; they move alike."""
        beside = 0
        for kinks, outputs in self.alike:
            of = (outputs // max(1, kinks.value.numel() // count)).cpu()
            beside += int(torch.isin(of, samples, invert=True).sum())
        return beside


class Program:
    """A recorded program at a point.

    Args:
        forward: the forward pass; in float64, or what is rounding there is not told from truth.
        seed: of the first direction.
        again: carries the program out once more, with the parameters where they are; its sites keep
            their inputs (it is not lean).

    Raises:
        InputError: there are ties of which it cannot be seen whether a gradient arrives.

    Attributes:
        passes: how many times tangents have been carried through the program.

    >>> from torch import nn
    >>> model = nn.PReLU(1).double()
    >>> forward = Forward(model, lambda: model(-torch.ones(1).double()).abs().sum())
    >>> Program(forward).census().kinks
    0
    """

    def __init__(
        self, forward: Forward, seed: int = 0, again: Callable[[], Forward] | None = None
    ) -> None:
        self.seed = seed
        self.forward = forward
        self._again = again
        self.passes = 0
        self._tensors = [p for p in forward.model.parameters() if p.requires_grad]
        self._units = [1.0] * len(self._tensors)
        self._directions = Directions(self._tensors, seed)
        self._kinks = [k for k in forward.kinks if k.site.tied and k.edge is not None]
        for kinks in self._kinks:
            if kinks.site.in_view:
                raise InputError(
                    f"{kinks.site.operation} is carried out in place on a view, where what arrives "
                    "is not seen"
                )
        self._sources = list(dict.fromkeys(e for k in self._kinks for e in k.sources if e))
        self._outputs = list(dict.fromkeys(map(_output, self._kinks)))
        self._edges = list(dict.fromkeys([*self._sources, *self._outputs]))

    @property
    def size(self) -> int:
        """How many numbers a gradient has."""
        return sum(tensor.numel() for tensor in self._tensors)

    def reseeded(self, seed: int) -> Program:
        """The same program with other directions."""
        return Program(self.forward, seed, self._again)

    def census(self) -> Census:
        """The live ties, and which of them are kinks of the loss.

        A tie is live if a gradient arrives when every tie passes on some of what it gets to all its
        branches, and nothing cancels. Its branches have one derivative if they have one tangent
        along a direction drawn at random: so for all but a null set of directions. What is chosen
        at the ties before it is a convex combination of branches: where all of them are flat, it
        does not matter which.
        """
        if not self._kinks:
            return Census()
        traced = self.forward.trace(
            _some_of_all, self._drawn([0]), self._sources, self._outputs, uncancelled=True
        )
        norms = [0.0 if each is None else float(_real(each).norm()) for each in traced.gradients]
        norm = math.hypot(*norms)
        self._units = [max(each, LEAST * max(norms)) or 1.0 for each in norms]
        found = Census(scale=float(self.vector(dict(enumerate(traced.gradients))).norm()))
        rows = 0
        for kinks in self._kinks:
            arrived = traced.arrived.get(_output(kinks))
            if arrived is None or not bool(arrived.any()):
                continue
            tangents = _moved(kinks, traced.moved[0])
            rivals = _rivals_once(kinks, tangents)
            largest = max((float(each.abs().max()) for each in tangents if each.numel()), default=0)
            of, gap, own = _gaps(rivals)
            arrives = arrived.flatten()[of].abs().double()
            live = arrives > 0
            # What is equal in comparison with the rest of the site is, if the loss cannot tell.
            harmless = (gap <= NOISE * largest) & (arrives * gap <= NOISE * norm)
            same = (gap <= NOISE * own) | harmless
            ties = LiveTies(kinks, of, torch.where(harmless, largest, own))
            for part, chosen in ((found.apart, live & ~same), (found.same, live & same)):
                if bool(chosen.any()):
                    part.append(ties.those(chosen))
            contests = rivals.contest[torch.isin(rivals.of, of[live & ~same])]
            rows += contests.numel() - len(set(contests.tolist()))
        return replace(found, rows=rows)

    def told(self, choose: Chooser | Choose) -> Told | None:
        """Which ties have branches that all move alike along a direction, bit for bit.

        Branches that a rounded tangent does not tell apart are carried out by the same operations
        on the same numbers, but for one chance in as many as the type has numbers of one size.

        Args:
            choose: what is chosen; where all branches move alike it does not matter.

        Returns:
            None where tangents do not reach a tie that a gradient reaches.
        """
        told = Told([], [])
        if not self._kinks:
            return told
        self.passes += 1
        waiting = {kinks: set(filter(None, kinks.sources)) for kinks in self._kinks}
        passing: dict[Edge, Tensor] = {}
        found: dict[Kinks, tuple[Tensor, Tensor]] = {}

        def look() -> None:
            """Look at sites as soon as all that they are given has passed, and let go of that."""
            for kinks in [each for each, given in waiting.items() if given <= passing.keys()]:
                del waiting[kinks]
                of, gap, _ = _gaps(_rivals_once(kinks, _moved(kinks, passing)))
                found[kinks] = of[gap == 0], of[gap != 0]
            for passed in passing.keys() - set().union(*waiting.values()):
                del passing[passed]

        def note(edge: Edge, tangent: Tensor) -> None:
            passing[edge] = tangent
            look()

        along = direction(self._tensors, self.seed, self.forward.loss.dtype)
        traced = self.forward.trace(choose, [along], self._sources, self._outputs, note=note)
        look()  # also at what is given nothing that moves
        for kinks in self._kinks:
            arrived = traced.arrived.get(_output(kinks))
            if arrived is None:
                continue
            if kinks not in found:
                return None
            alike, apart = found[kinks]
            told.alike.append((kinks, alike[arrived.flatten()[alike] != 0]))
            if apart.numel():
                told.apart.append((kinks, apart))
        return told

    def rows(self, census: Census, choose: Chooser | Choose, count: int) -> Table:
        """Tangents at kinks along the first directions, under what is chosen."""
        self.passes += count
        traced = self.forward.trace(choose, self._drawn(range(count)), self._edges)
        return _table(replace(census, same=[]), traced.moved)

    def rows_along(self, census: Census, choose: Chooser | Choose, along: list[Tensor]) -> Table:
        """Tangents at kinks along a direction, under what is chosen."""
        self.passes += 1
        traced = self.forward.trace(choose, [along], self._edges)
        return _table(replace(census, same=[]), traced.moved)

    def pulled(
        self, census: Census, choose: Chooser | Choose, pulls: Sequence[float] | Floats
    ) -> list[Tensor]:
        """The direction along which branches at kinks gain most, taken together.

        It is the gradient of the sum of the outputs through all branches, each times its pull. To
        pull at one branch and as much in the other way at another is to move along the row by which
        they differ.

        Args:
            census: the live ties.
            choose: what is chosen.
            pulls: at each branch of the kinks, in the order of the rows.
        """
        self.passes += 1
        given, start = torch.as_tensor(pulls, dtype=torch.float64), 0
        cotangents: dict[Edge, Tensor] = {}
        for ties, kept in zip(census.apart, census.listed.kept, strict=False):
            end = start + int(kept.sum())
            kinks = ties.kinks
            # Linear in tangents, but for 0 times an infinite slope.
            tangents = tuple(torch.ones_like(each).requires_grad_() for each in _moved(kinks, {}))
            with torch.enable_grad():
                through = kinks.operation.rivals(kinks.value, tangents).tangent
                gain = (through[kept.to(through.device)] * given[start:end].to(through)).sum()
            start = end
            found = torch.autograd.grad(gain, tangents, allow_unused=True)
            for edge, each in zip(kinks.sources, found, strict=True):
                if edge is not None and each is not None:
                    cotangents[edge] = cotangents[edge] + each if edge in cotangents else each
        return self.forward.pull(cotangents, choose)

    def limit(
        self,
        census: Census,
        coefficients: Sequence[float],
        count: int = 0,
        along: list[Tensor] | None = None,
    ) -> Limit:
        """The limit of gradients along a direction.

        Args:
            census: the live ties.
            coefficients: of the drawn directions that it is the sum of.
            count: how many directions to follow through the branches that it decides for.
            along: the direction, if it is no such sum.
        """
        self.passes += count + 2
        along = self._sum(coefficients) if along is None else along
        # One that has nothing to do with it tells which branches are one function in this cell.
        followed = self._drawn([*range(count), _OTHER])
        deciding, found = self.forward.limit(along, self._edges, followed)
        table = _table(census, found.moved)
        least, apart = margin(table, _table(census, deciding.moved).tangents[:, 0])
        apart[: census.kinks] = False
        return Limit(
            [float(c) for c in coefficients],
            least,
            self.vector(dict(enumerate(found.gradients))),
            replace(table, tangents=table.tangents[:, :count], outputs=table.outputs[:, :count]),
            apart,
        )

    def foreseen(self, census: Census, limit: Limit) -> Census:
        """The census with the kinks that a limit has shown."""
        apart, same, start = list(census.apart), [], census.kinks
        for each in census.same:
            end = start + each.outputs.numel()
            shown = torch.from_numpy(limit.unforeseen[start:end]).to(each.outputs.device)
            start = end
            if bool(shown.any()):
                apart.append(each.those(shown))
            if not bool(shown.all()):
                same.append(each.those(~shown))
        branches = limit.table.of[limit.unforeseen[limit.table.of]]
        rows = census.rows + len(branches) - len(np.unique(branches))
        return replace(census, apart=apart, same=same, rows=rows)

    def beyond(self, census: Census, points: Floats) -> Floats | None:
        """How ties move between this point and others: of the output through each branch.

        Unlike a tangent it is exact, as far as branches are linear functions of the inputs of their
        operation.

        Args:
            census: the ties.
            points: the coefficients of the direction to each.

        Returns:
            Branches × points, in units of how far the points are away; None where the program
            cannot be carried out there, or calls other operations.
        """
        if self._again is None:
            return None
        # An input may be a parameter, which is about to be moved.
        here = [_copied(kinks.operation.inputs) for kinks in self.forward.kinks]
        found = []
        for coefficients in points:
            with self._moved(self._sum(coefficients.tolist())):
                there = self._again().kinks
                if list(map(_key, there)) != list(map(_key, self.forward.kinks)):
                    return None
                by = {
                    kinks: _between(before, after.operation.inputs)
                    for kinks, before, after in zip(self.forward.kinks, here, there, strict=True)
                }
            found.append(_through(census, by.__getitem__))
        return np.stack(found, 1)

    @contextmanager
    def _moved(self, along: list[Tensor]) -> Iterator[None]:
        """A context in which the parameters are moved; they are put back as they were."""
        # Through .data autograd does not see that tensors which it has saved are written to.
        kept = [tensor.data.clone() for tensor in self._tensors]
        try:
            for tensor, direction in zip(self._tensors, along, strict=True):
                tensor.data.add_(direction, alpha=_RHO)
            yield
        finally:
            for tensor, before in zip(self._tensors, kept, strict=True):
                tensor.data.copy_(before)

    def derivative(self) -> Tensor:
        """The gradient in one vector, if all branches at each tie have one derivative."""
        return self.vector(self.forward.gradient("minimal"))

    def otherwise(self) -> Tensor:
        """The same, if that is so: under another choice."""
        return self.vector(self.forward.gradient(another))

    def coefficients(self, vector: Tensor, count: int) -> Floats:
        """Those of the sum of the first directions that is nearest to a vector."""
        drawn = [self.vector(dict(enumerate(each))) for each in self._drawn(range(count))]
        found: Floats = torch.linalg.lstsq(torch.stack(drawn, 1), vector[:, None]).solution.numpy()
        return found[:, 0]

    def vector(self, gradient: Mapping[Any, Tensor | None]) -> Tensor:
        """A gradient in one vector of float64.

        Once the census has been taken, each tensor is in units of how large its gradient is where
        nothing cancels: a large one hides nothing of a small one.
        """
        return torch.cat(
            [
                _real(torch.zeros_like(tensor) if each is None else each) / unit
                for each, tensor, unit in zip(
                    gradient.values(), self._tensors, self._units, strict=True
                )
            ]
        )

    def _drawn(self, numbers: Sequence[int]) -> Iterator[list[Tensor]]:
        for number in numbers:
            yield self._directions[number]

    def _sum(self, coefficients: Sequence[float]) -> list[Tensor]:
        return self._directions.sum(coefficients)


def _real(gradient: Tensor) -> Tensor:
    dense = gradient.to_dense() if gradient.is_sparse else gradient
    return (torch.view_as_real(dense) if dense.is_complex() else dense).double().flatten()


def _key(kinks: Kinks) -> tuple[str, str, int]:
    return kinks.site.layer, kinks.site.operation, kinks.site.call


def _output(kinks: Kinks) -> Edge:
    assert kinks.edge is not None
    return kinks.edge.node, kinks.edge.output_nr


def _some_of_all(tape: Tape) -> dict[Site, Selection]:
    """A convex combination of all active branches at each site."""
    return {
        site: Branch(0.381966) if Branch in site.row.accepted else Minimal() for site in tape.sites
    }


def another(tape: Tape) -> dict[Site, Selection]:
    """A choice at each site that is no other one's: uneven weights on two branches, if it has them.

    >>> from kinkcheck import record
    >>> with record() as tape:
    ...     _ = torch.relu(torch.zeros(1)), torch.zeros(2).max(0)
    >>> [str(choice) for choice in another(tape).values()]
    ['branch:0.381966', 'mix:0.618034*first,0.381966*minimal']
    """
    return {site: next(filter(site.row.has, _UNEVEN)) for site in tape.sites}


Tangents = tuple[Tensor, ...]


def _moved(kinks: Kinks, moved: dict[Edge, Tensor]) -> Tangents:
    """The tangents of the inputs of a site."""
    known = [None if edge is None else moved.get(edge) for edge in kinks.sources]
    found = tuple(each for each in known if each is not None)
    if len(found) == len(known):
        return found
    return tuple(
        torch.zeros_like(each) if tangent is None else tangent
        for each, tangent in zip(kinks.operation.inputs, known, strict=True)
    )


def _copied(inputs: Tangents) -> Tangents:
    return tuple(each.detach().clone() for each in inputs)


def _between(here: Tangents, there: Tangents) -> Tangents:
    """How far inputs are from those at another point, in units of how far the point is."""
    return tuple((b.detach() - a) / _RHO for a, b in zip(here, there, strict=True))


def _rivals(kinks: Kinks, tangents: Tangents) -> Rivals:
    """What competes at the ties of a site."""
    with torch.no_grad():
        return kinks.operation.rivals(kinks.value, tangents)


def _rivals_once(kinks: Kinks, tangents: Tangents) -> Rivals:
    """The same, where nobody asks again: the copy of the call takes along what was listed."""
    with torch.no_grad():
        return copy(kinks.operation).rivals(kinks.value, tangents)


def _gaps(rivals: Rivals) -> tuple[Tensor, Tensor, Tensor]:
    """The tied outputs, how far apart the tangents of each are, and the largest of them."""
    of, place = torch.unique(rivals.of, return_inverse=True)
    moved = rivals.tangent.new_zeros(len(of), dtype=torch.float64)
    most, least = (
        moved.scatter_reduce(0, place, rivals.tangent.double(), reduce, include_self=False)
        for reduce in ("amax", "amin")
    )
    return of, most - least, torch.maximum(most.abs(), least.abs())


def _through(census: Census, tangents: Callable[[Kinks], Tangents]) -> Floats:
    """The tangent of the output of each tie through each branch."""
    found = []
    for ties, kept in zip((*census.apart, *census.same), census.listed.kept, strict=True):
        rivals = _rivals(ties.kinks, tangents(ties.kinks))
        found.append(rivals.tangent.double().cpu()[kept])
    joined: Floats = _joined(found)
    return joined


def _table(census: Census, moved: Sequence[dict[Edge, Tensor]]) -> Table:
    """Tangents at ties, from what was traced along some directions."""
    listed, all_ties = census.listed, (*census.apart, *census.same)
    through = [_through(census, partial(_moved, moved=each)) for each in moved]
    outputs = [_joined([_under(ties, each) for ties in all_ties]) for each in moved]
    return Table(
        census.kinks, listed.of, listed.contest, listed.wins,
        np.stack(through, 1), np.stack(outputs, 1), listed.scale,
    )  # fmt: skip


def _under(ties: LiveTies, moved: dict[Edge, Tensor]) -> Tensor:
    """The tangents of outputs under what was chosen."""
    tangent = moved.get(_output(ties.kinks))
    if tangent is None:
        return torch.zeros(ties.outputs.numel(), dtype=torch.float64)
    return tangent.real.double().flatten()[ties.outputs].cpu()


def _joined(parts: list[Tensor]) -> Any:
    return (torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)).numpy()
