"""The search for what certifies the standing of gradients at a point."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from kinkcheck.measure.forward import Chooser, Gradient
from kinkcheck.measure.standing import cones
from kinkcheck.measure.standing.program import (
    DIRECTIONS,
    Census,
    Floats,
    Limit,
    Program,
    Table,
)
from kinkcheck.measure.standing.records import Along, Kind, Standing
from kinkcheck.ops.branches import Rivals
from kinkcheck.tape.tape import Choose

EQUAL = 1e-7
"""Up to this part of the larger of their norms two gradients are equal."""

_DECIDED = 1e-7
"""A direction that decides a kink by less than this decides nothing."""

_BYTES = 2e9
"""The most memory for limits of gradients."""


@dataclass
class Search:
    """What is known of the limits of gradients at a point.

    Attributes:
        program: the program.
        census: its live ties.
        budget: the most cells of directions that are enumerated.
        limits: what was found.
        all_found: whether these are all that there are; None if nobody looked.
    """

    program: Program
    budget: int = 64
    census: Census = field(init=False)
    limits: list[Limit] = field(default_factory=list, init=False)
    all_found: bool | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.census = self.program.census()
        self._count = min(self.census.kinks + 1, DIRECTIONS)
        self._most = int(np.clip(_BYTES // (8 * max(1, self.program.size)), 6, 64))
        self._norm = 0.0
        self._random = np.random.default_rng(self.program.seed)

    def standing(self, choose: Chooser | Choose, gradient: Gradient) -> Standing:
        """The standing of the gradient under what is chosen."""
        if not self.census.kinks:
            return self._where_smooth(gradient)
        vector = self.program.vector(gradient)
        table = self.program.rows(self.census, choose, self._count)
        won = cones.winners(table)
        rows = cones.leads(table, won)
        independent = cones.rank(rows)
        inside = cones.deepest(rows)
        if inside is not None and bool((won >= 0).all()):
            found = self._find(inside)
            if found is not None and self._apart(found.gradient, vector) <= EQUAL:
                return self._certified(Kind.LIMIT, independent, [found], [1.0], vector)
        standing = self._sampled(rows, inside, independent, vector)
        if standing is None and self.all_found is None:
            self._enumerate()
            standing = self._in_hull(independent, vector)
        return standing or self._outside(independent, vector)

    def _where_smooth(self, gradient: Gradient) -> Standing:
        """All choices give one gradient: that of another one is to be the same."""
        distance = self._apart(self.program.vector(gradient), self.program.derivative())
        if distance > EQUAL:
            return self._open(0, distance, "it moves, though no tie was seen to be a kink")
        return Standing(
            Kind.DERIVATIVE, self.census.ties, self.census.flat, rows=0, seed=self.program.seed,
            distance=distance,
        )  # fmt: skip

    def _find(self, coefficients: Floats, follow: bool = False) -> Limit | None:
        """The limit along a direction; None where the direction does not decide all kinks."""
        found = self.program.limit(self.census, coefficients.tolist(), self._count if follow else 0)
        if found.margin <= _DECIDED or not bool(found.gradient.isfinite().all()):
            return None
        if all(self._apart(found.gradient, each.gradient) > EQUAL for each in self.limits):
            self.limits.append(found)
        return found

    def _sampled(
        self, rows: Floats, inside: Floats | None, independent: int, vector: Tensor
    ) -> Standing | None:
        """Whether it is a combination of limits where the branches that it has alone win."""
        if inside is None:
            rows, inside = rows[:0], np.ones(self._count)
        for _ in range(self.census.kinks + 2):
            if len(self.limits) + 2 > self._most:
                break
            drawn = self._random.standard_normal(self._count)
            for each in (drawn, -drawn):
                self._find(cones.nearest(rows, each, inside))
            standing = self._in_hull(independent, vector)
            if standing is not None:
                return standing
        return None

    def _in_hull(self, independent: int, vector: Tensor) -> Standing | None:
        """The standing, if a combination of the limits that were found is the gradient."""
        if not self.limits:
            return None
        weights, distance = self._nearest(vector)
        if distance > EQUAL:
            return None
        of = [(limit, w) for limit, w in zip(self.limits, weights, strict=True) if w > 1e-9]
        for limit in self.limits:
            if self._apart(limit.gradient, vector) <= EQUAL:
                of = [(limit, 1.0)]
        kind = Kind.LIMIT if len(of) == 1 else Kind.SUBGRADIENT
        if self.all_found and len(self.limits) == 1:
            kind = Kind.DERIVATIVE
        return self._certified(kind, independent, [e for e, _ in of], [w for _, w in of], vector)

    def _outside(self, independent: int, vector: Tensor) -> Standing:
        if not self.limits:
            return self._open(independent, None, "no direction decides all kinks")
        weights, distance = self._nearest(vector)
        if not self.all_found:
            return self._open(independent, distance, "not all limits could be enumerated")
        nearest = _combined(self.limits, weights)
        away = (vector - nearest) / (vector - nearest).norm()
        above = min(float(((vector - limit.gradient) * away).sum()) for limit in self.limits)
        excess = above / self._norm
        if excess <= EQUAL:
            return self._open(independent, distance, "rounding hides whether it is outside")
        found = self._certified(Kind.WRONG, independent, self.limits, weights, vector)
        return Standing(**{**vars(found), "excess": excess})

    def _open(self, independent: int, distance: float | None, why: str) -> Standing:
        return Standing(
            Kind.UNDECIDED, self.census.ties, self.census.flat, self.census.kinks, independent,
            self.program.seed, distance=distance, why=why,
        )  # fmt: skip

    def _certified(
        self, kind: Kind, independent: int, limits: list[Limit], weights: list[float], to: Tensor
    ) -> Standing:
        return Standing(
            kind, self.census.ties, self.census.flat, self.census.kinks, independent,
            self.program.seed, [Along(each.coefficients, each.margin) for each in limits],
            [float(w) for w in weights], self._apart(_combined(limits, weights), to),
        )  # fmt: skip

    def _apart(self, a: Tensor, b: Tensor) -> float:
        """How far gradients are apart, in units of the largest norm of all that were met."""
        self._norm = max(self._norm, float(a.norm()), float(b.norm()))
        return float((a - b).norm()) / self._norm if self._norm else 0.0

    def _nearest(self, vector: Tensor) -> tuple[list[float], float]:
        """The weights of the combination of limits that is nearest, and how far it is away."""
        apart = torch.stack([limit.gradient - vector for limit in self.limits])
        # The same distances in as many dimensions as there are limits.
        _, within = torch.linalg.qr(apart.T)
        weights = cones.combination(within.T.numpy(), np.zeros(within.shape[0])).tolist()
        return weights, self._apart(_combined(self.limits, weights), vector)

    def _enumerate(self) -> None:
        """Find all limits: from each cell of directions, step into those beside it.

        A cell holds the directions along which the same branches stay active. Cells are polyhedral
        cones, and each can be reached from any other through facets.
        """
        self.all_found = False
        waiting = deque([self._random.standard_normal(self._count)])
        cells: list[Floats] = []
        while waiting:
            along = waiting.popleft()
            if any(bool((rows @ along > 0).all()) for rows in cells):
                continue
            if len(cells) >= self.budget or len(self.limits) >= self._most:
                return
            found = self._find(along, follow=True)
            if found is None:
                return
            table = found.table
            won = cones.winners(table)
            if bool((table.wins == Rivals.UNLISTED).any()) or _lost(table, won):
                return
            rows = np.concatenate([cones.leads(table, won), cones.orders(table, along)])
            cells.append(rows)
            waiting.extend(_beside(rows))
        self.all_found = True


def _lost(table: Table, won: np.ndarray) -> bool:
    """Whether the winner of a kink is not known, though it should be."""
    listed = np.zeros(len(won), dtype=bool)
    listed[table.of[np.abs(table.wins) == 1]] = True
    return bool((listed & (won < 0)).any())


def _beside(rows: Floats) -> list[Floats]:
    """A direction in each cell that shares a facet with one."""
    found = []
    for number, row in enumerate(rows):
        others = np.delete(rows, number, 0)
        on = cones.deepest(others, row)
        if on is not None:
            depth = (others @ on).min(initial=1.0)
            found.append(on - depth / 4 * row)
    return found


def _combined(limits: list[Limit], weights: list[float]) -> Tensor:
    total = torch.zeros_like(limits[0].gradient)
    for limit, weight in zip(limits, weights, strict=True):
        total.add_(limit.gradient, alpha=weight)
    return total
