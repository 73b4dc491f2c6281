"""A recorded program, of which kinks, tangents and limits are asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinkcheck.measure.forward import Chooser, Forward, Kinks
from kinkcheck.ops.branches import Rivals
from kinkcheck.selection import Branch, Hybrid, Selection
from kinkcheck.tape import Site, Tape
from kinkcheck.tape.directions import direction
from kinkcheck.tape.tangents import Edge, Traced
from kinkcheck.tape.tape import Choose

DIRECTIONS = 32
"""The most directions that are followed."""

NOISE = 1e-9
"""Up to this part of the largest tangent at a site two tangents are equal."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LiveKinks:
    """The kinks of the loss at one site.

    Attributes:
        kinks: the site.
        outputs: the tied outputs that are live and not flat, by their numbers in row-major order.
    """

    kinks: Kinks
    outputs: Tensor


@dataclass(frozen=True)
class Census:
    """The live ties of a point.

    Attributes:
        ties: how many there are.
        flat: how many have active branches of one derivative.
        sites: where the others are.
    """

    ties: int
    flat: int
    sites: list[LiveKinks]

    @property
    def kinks(self) -> int:
        """How many ties are kinks of the loss."""
        return sum(site.outputs.numel() for site in self.sites)


@dataclass(frozen=True)
class Table:
    """Tangents at the kinks of the loss, along some directions.

    Attributes:
        of: the kink that each branch belongs to, by number.
        wins: who stays active (:class:`~kinkcheck.ops.branches.Rivals`), a branch.
        tangents: of the output through each branch: branches × directions.
        outputs: of the output under what was chosen: kinks × directions.
        scale: the largest tangent that arrives at the site of each kink.
    """

    of: NDArray[np.int64]
    wins: NDArray[np.int64]
    tangents: Floats
    outputs: Floats
    scale: Floats


@dataclass(frozen=True)
class Limit:
    """A limit of gradients.

    Attributes:
        coefficients: of the direction.
        margin: by how much it decides each kink.
        gradient: the limit, in one vector.
        table: the tangents along the directions asked for, through the branches that stay active.
    """

    coefficients: list[float]
    margin: float
    gradient: Tensor
    table: Table


class Program:
    """A recorded program at a point.

    Args:
        forward: the forward pass; in float64, or what is rounding there is not told from truth.
        seed: of the first direction.

    >>> from torch import nn
    >>> model = nn.PReLU(1).double()
    >>> forward = Forward(model, lambda: model(-torch.ones(1).double()).abs().sum())
    >>> Program(forward).census().kinks
    0
    """

    def __init__(self, forward: Forward, seed: int = 0) -> None:
        self.seed = seed
        self._forward = forward
        self._tensors = [p for p in forward.model.parameters() if p.requires_grad]
        self._kinks = [k for k in forward.kinks if k.site.tied and k.edge is not None]
        self._edges = list(
            dict.fromkeys(e for k in self._kinks for e in (_output(k), *k.sources) if e)
        )

    @property
    def size(self) -> int:
        """How many numbers a gradient has."""
        return sum(tensor.numel() for tensor in self._tensors)

    def census(self) -> Census:
        """The live ties, and which of them are kinks of the loss.

        A tie is live if a gradient arrives when every tie passes on some of what it gets to all its
        branches. Its branches have one derivative if they have one tangent along a direction drawn
        at random: so for all but a null set of directions.
        """
        if not self._kinks:
            return Census(0, 0, [])
        traced = self._forward.trace(_generic, self._drawn([0]), self._edges)
        ties = flat = 0
        sites = []
        for kinks in self._kinks:
            arrived = traced.arrived.get(_output(kinks))
            if arrived is None:
                continue
            rivals, scale = _rivals(kinks, traced.moved[0])
            of, gap = _gaps(rivals, arrived.numel())
            live = arrived.flatten()[of]
            apart = gap > NOISE * scale
            ties += int(live.sum())
            flat += int((live & ~apart).sum())
            if bool((live & apart).any()):
                sites.append(LiveKinks(kinks, of[live & apart]))
        return Census(ties, flat, sites)

    def rows(self, census: Census, choose: Chooser | Choose, count: int) -> Table:
        """Tangents at kinks along the first directions, under what is chosen."""
        traced = self._forward.trace(choose, self._drawn(range(count)), self._edges)
        return _table(census, traced)

    def limit(self, census: Census, coefficients: Sequence[float], count: int = 0) -> Limit:
        """The limit of gradients along a direction.

        Args:
            census: the kinks.
            coefficients: of the directions that it is the sum of.
            count: how many directions to follow through the branches that it decides for.
        """
        along = self._sum(coefficients)
        # One more than any sum is made of tells which kinks are left in this cell.
        followed = self._drawn([*range(count), DIRECTIONS])
        deciding, found = self._forward.limit(along, self._edges, followed)
        table = _table(census, found)
        margin = _margin(_table(census, deciding), table)
        table = replace(table, tangents=table.tangents[:, :count], outputs=table.outputs[:, :count])
        return Limit(
            [float(c) for c in coefficients],
            margin,
            self.vector(dict(enumerate(found.gradients))),
            table,
        )

    def derivative(self) -> Tensor:
        """The gradient under the choices of the program itself, in one vector."""
        return self.vector(self._forward.gradient({}))

    def vector(self, gradient: dict[str, Tensor] | dict[int, Tensor | None]) -> Tensor:
        """A gradient in one vector of float64."""
        return torch.cat(
            [
                _real(torch.zeros_like(tensor) if each is None else each)
                for each, tensor in zip(gradient.values(), self._tensors, strict=True)
            ]
        )

    def _drawn(self, numbers: Sequence[int]) -> Iterator[list[Tensor]]:
        for number in numbers:
            yield direction(self._tensors, self.seed + number)

    def _sum(self, coefficients: Sequence[float]) -> list[Tensor]:
        total = [torch.zeros_like(tensor) for tensor in self._tensors]
        for number, coefficient in enumerate(coefficients):
            if coefficient:
                drawn = direction(self._tensors, self.seed + number)
                total = [t.add(d, alpha=coefficient) for t, d in zip(total, drawn, strict=True)]
        return total


def _real(gradient: Tensor) -> Tensor:
    dense = gradient.to_dense() if gradient.is_sparse else gradient
    return (torch.view_as_real(dense) if dense.is_complex() else dense).double().flatten()


def _output(kinks: Kinks) -> Edge:
    assert kinks.edge is not None
    return kinks.edge.node, kinks.edge.output_nr


def _generic(tape: Tape) -> dict[Site, Selection]:
    """A selection of each site that lets some of what it gets pass to every branch."""
    return {
        site: Branch(0.381966) if Branch in site.row.accepted else Hybrid(0.723607)
        for site in tape.sites
    }


def _rivals(kinks: Kinks, moved: dict[Edge, Tensor]) -> tuple[Rivals, float]:
    """What competes at the ties of a site, and the largest tangent that arrives there."""
    inputs = kinks.operation.inputs
    tangents = tuple(
        torch.zeros_like(each) if edge is None or edge not in moved else moved[edge]
        for each, edge in zip(inputs, kinks.sources, strict=True)
    )
    with torch.no_grad():
        rivals = kinks.operation.rivals(kinks.value, tangents)
    scale = max((float(each.abs().max()) for each in tangents if each.numel()), default=0.0)
    return rivals, scale


def _gaps(rivals: Rivals, outputs: int) -> tuple[Tensor, Tensor]:
    """The tied outputs, and how far apart the tangents of each are."""
    moved = rivals.tangent.new_zeros(outputs)
    most, least = (
        moved.scatter_reduce(0, rivals.of, rivals.tangent, reduce, include_self=False)
        for reduce in ("amax", "amin")
    )
    of = torch.unique(rivals.of)
    return of, (most - least)[of]


def _table(census: Census, traced: Traced) -> Table:
    """Tangents at kinks, from what was traced along some directions."""
    count = len(traced.moved)
    of, wins, tangents, outputs, scales = [], [], [], [], []
    start = 0
    for site in census.sites:
        number = torch.full((site.kinks.value.numel(),), -1)
        number[site.outputs] = torch.arange(start, start + site.outputs.numel())
        through, under, largest = [], [], 0.0
        kept = numbers = None
        for moved in traced.moved:
            rivals, scale = _rivals(site.kinks, moved)
            largest = max(largest, scale)
            if kept is None:
                numbers = number[rivals.of.cpu()]
                kept = numbers >= 0
                of.append(numbers[kept])
                wins.append(rivals.wins.cpu()[kept])
            through.append(rivals.tangent.double().cpu()[kept])
            tangent = moved.get(_output(site.kinks))
            under.append(
                torch.zeros(site.outputs.numel(), dtype=torch.float64)
                if tangent is None
                else tangent.real.double().flatten()[site.outputs].cpu()
            )
        if count:
            tangents.append(torch.stack(through, 1))
            outputs.append(torch.stack(under, 1))
        scales.append(torch.full((site.outputs.numel(),), largest, dtype=torch.float64))
        start += site.outputs.numel()
    return Table(
        _joined(of, (0,)), _joined(wins, (0,)), _joined(tangents, (0, count)),
        _joined(outputs, (0, count)), _joined(scales, (0,)),
    )  # fmt: skip


def _joined(parts: list[Tensor], empty: tuple[int, ...]) -> Any:
    return (torch.cat(parts) if parts else torch.zeros(empty)).numpy()


def _margin(along: Table, around: Table) -> float:
    """By how much a direction decides each kink that is one among the branches that win."""
    scale = np.where(along.scale == 0, 1, along.scale)
    kinks = _apart(around.of, around.tangents[:, -1], scale) < np.inf
    decided = _apart(along.of, along.tangents[:, 0], scale)
    return float(np.where(np.isinf(decided), 0, decided)[kinks].min(initial=np.inf))


def _apart(of: NDArray[np.int64], moved: Floats, scale: Floats) -> Floats:
    """How far the tangents of two branches are apart at each kink: the least that is not 0."""
    order = np.lexsort((moved, of))
    apart = np.diff(moved[order]) / scale[of[order][1:]]
    apart[(np.diff(of[order]) != 0) | (apart <= NOISE)] = np.inf
    found = np.full(len(scale), np.inf)
    np.minimum.at(found, of[order][1:], apart)
    return found
