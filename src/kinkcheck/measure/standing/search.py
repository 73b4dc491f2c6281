"""The search for what certifies the standing of gradients at a point."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from kinkcheck.errors import InputError
from kinkcheck.measure.forward import Chooser, Gradient
from kinkcheck.measure.standing import cones
from kinkcheck.measure.standing.aims import Aims
from kinkcheck.measure.standing.program import DIRECTIONS, Census, Limit, Program
from kinkcheck.measure.standing.records import Along, Kind, Standing
from kinkcheck.measure.standing.tables import Floats
from kinkcheck.tape.tape import Choose

EQUAL = 1e-9
"""Up to this part of the larger of their norms two gradients are equal, each tensor in units of its
own (:meth:`Program.vector`)."""

DECIDED = 1e-7
"""A direction that decides a kink by less than this decides nothing: a hundred times the noise of
tangents."""

_CANCELS = 1e-4
"""Where large numbers cancel, gradients are equal up to this part of that part of them."""

_CURVED = 1e-10
"""Up to this part of how far kinks move a dependence between them is exact. At the distance of the
points looked at, 10⁻², rounding is 10⁻¹⁴ of it, and terms of the fifth order 10⁻⁸."""

_DRAWN = 10**6
"""How many numbers all directions may have if there are more than :data:`DIRECTIONS`."""

_NUMBERS, _PASSES = 10**6, 500
"""How many numbers all tangents together may have, and in how many passes, that are spent on
finding all limits, if that is more than the effort: seconds, in a small program."""

_FOLLOWED = 5 * 10**7
"""How many numbers all tangents together may have that are spent on limits pulled back from kinks,
if that is more than the effort."""

_SAMPLED = 10**5
"""How many rows all limits together may have that are looked for to make a combination."""

_PROGRAMS = 16
"""How many linear programs are solved for each cell that may be enumerated."""

_BYTES = 2e9
"""The most memory for limits of gradients."""

_NEARLY_FLAT = "the branches of some tie are too nearly alike to be told apart by tangents"
_WITHOUT = "no way was given to carry the program out at other points"


def scale_of(uncancelled: float, *gradients: Tensor) -> float:
    """The unit in which gradients are compared: the larger of their norms.

    Args:
        uncancelled: how large they are where nothing in them cancels.
        gradients: what is compared.

    >>> scale_of(0.0, torch.ones(1), torch.full((1,), 2.0))
    2.0
    """
    return max(_CANCELS * uncancelled, *(float(each.norm()) for each in gradients))


def apart(a: Tensor, b: Tensor, uncancelled: float, *of: Tensor) -> float:
    """How far two gradients are apart, in units of the larger of their norms.

    Args:
        a: the first.
        b: the second.
        uncancelled: as in :func:`scale_of`.
        of: gradients that one of them is a combination of.

    >>> apart(torch.ones(1), torch.full((1,), 2.0), 0.0)
    0.5
    """
    scale = scale_of(uncancelled, a, b, *(_CANCELS * each for each in of))
    return float((a - b).norm()) / scale if scale else 0.0


@dataclass
class Search:
    """What is known of the limits of gradients at a point.

    Attributes:
        program: the program.
        census: its live ties.
        budget: the most cells of directions that are enumerated.
        effort: about how many times tangents may be carried through the program.
        limits: what was found.
        why: why these may not be all that there are; None if they are.
    """

    program: Program
    budget: int = 64
    effort: float = np.inf
    census: Census = field(init=False)
    limits: list[Limit] = field(default_factory=list, init=False)
    why: str | None = field(default="nobody looked", init=False)

    def __post_init__(self) -> None:
        self.census = self._pulled_from = self.program.census()
        self._most = int(np.clip(_BYTES // (8 * max(1, self.program.size)), 6, 64))
        self._random = np.random.default_rng(self.program.seed)
        self._enumerated = False

    @property
    def _count(self) -> int:
        """How many directions are followed: all if possible, or one more than there are rows."""
        most = max(DIRECTIONS, min(_DRAWN // max(1, self.program.size), 1000))
        return min(self.census.rows + 1, most, self.program.size)

    def standing(self, choose: Chooser | Choose, gradient: Gradient) -> Standing:
        """The standing of the gradient under what is chosen."""
        vector = self.program.vector(gradient)
        if not bool(vector.isfinite().all()):
            return self._open(None, None, "the gradient is not finite")
        if not self.census.kinks:
            derivative = self.program.derivative()
            if self._apart(self.program.otherwise(), derivative) > EQUAL:
                return self._open(0, None, _NEARLY_FLAT)
            distance = self._apart(vector, derivative)
            if distance <= EQUAL:
                return self._certified(Kind.DERIVATIVE, 0, [], [], vector, distance)
        # Those along directions that were pulled back under other choices certify nothing here.
        self.limits = [each for each in self.limits if not each.pulls]
        rows, inside, all_won = self._own(choose)
        independent = cones.rank(rows)
        if inside is not None and all_won:
            found = self._find(inside)
            if found is not None and self._apart(found.gradient, vector) <= EQUAL:
                return self._certified(Kind.LIMIT, independent, [found], [1.0], vector)
        standing = self._aimed(choose, independent, vector) or self._sampled(
            rows, inside, independent, vector
        )
        if standing is None and not self._enumerated:
            self.enumerate()
            standing = self._in_hull(independent, vector)
        return standing or self._outside(independent, vector)

    def _own(self, choose: Chooser | Choose) -> tuple[Floats, Floats | None, bool]:
        """The cell of the branches that are chosen alone.

        Returns:
            Its rows; what is deep inside, None if it is empty; and whether one branch is chosen
            at every kink.
        """
        none = np.zeros((0, self._count))
        try:
            # One direction tells that no branch is chosen alone, as under minimal.
            one = self.program.rows(self.census, choose, 1)
            if not bool((one.winners() >= 0).any()):
                return none, cones.deep(none), False
            table = self.program.rows(self.census, choose, self._count)
            won = table.winners()
            rows = cones.distinct(table.leads(table.pairs(won)))
            return rows, cones.deep(rows), bool((won >= 0).all())
        except (InputError, cones.UntoldError):  # of tangents under what is chosen, say
            return none, None, False

    def enumerate(self) -> None:
        """Find all limits, if there are not too many."""
        self._enumerated = True
        try:
            self.why = self._all_cells()
        except (cones.UntoldError, np.linalg.LinAlgError) as untold:
            self.why = str(untold)

    def _tired(self) -> bool:
        return self.program.passes >= self.effort

    def _find(self, coefficients: Floats, follow: bool = False) -> Limit | None:
        """The limit along a direction; None where the direction does not decide all kinks."""
        found = self.program.limit(self.census, coefficients.tolist(), self._count if follow else 0)
        return found if self._keep(found) else None

    def _keep(self, found: Limit) -> bool:
        """Keep a limit, if its direction decides all kinks."""
        if not found.margin > DECIDED or not bool(found.gradient.isfinite().all()):
            return False
        for place, each in enumerate(self.limits):
            if self._apart(found.gradient, each.gradient) <= EQUAL:
                if not found.pulls:  # it certifies under all choices
                    self.limits[place] = found
                return True
        self.limits.append(found)
        return True

    def _aimed(self, choose: Chooser | Choose, independent: int, vector: Tensor) -> Standing | None:
        """Whether it is a combination of limits along directions pulled back from the kinks."""
        if not self._pulled_from.kinks:
            return None
        before = self.program.passes
        try:
            aims = Aims(self.program, self._pulled_from, choose)
            if aims.all_won:
                found = aims.own()
                if found is not None and self._keep(found):
                    return self._in_hull(independent, vector)
                return None
            enough = before + max(self.effort, _FOLLOWED // self.program.size)
            most = int(_BYTES // (8 * self.program.size))
            for together in aims.rounds(most, np.random.default_rng(self.program.seed)):
                known = len(self.limits)
                kept = [self._keep(each) for each in together]
                standing = self._in_hull(independent, vector)
                fruitless = not all(kept) or len(self.limits) == known
                if standing is not None or fruitless or self.program.passes > enough:
                    return standing
        except (InputError, cones.UntoldError):
            pass
        finally:
            self.effort += self.program.passes - before  # it is beside that of the search
        return None

    def _sampled(
        self, rows: Floats, inside: Floats | None, independent: int, vector: Tensor
    ) -> Standing | None:
        """Whether it is a combination of limits where the branches that it has alone win."""
        if inside is None:
            rows, inside = rows[:0], np.ones(self._count)
        standing, away = self._in_hull(independent, vector), vector
        for _ in range(min(self.census.kinks, _SAMPLED // max(1, self.census.rows)) + 2):
            full = len(self.limits) + 2 > self._most or self._tired()
            if standing is not None or self._enumerated or full:
                break
            drawn = self._random.standard_normal(self._count)
            if self._count * self.program.size <= _DRAWN:
                # The limit that is farthest in some direction is often that along it.
                drawn = self.program.coefficients(away, self._count) + 1e-3 * drawn
            for each in (drawn, -drawn):
                self._find(cones.nearest(rows, each, inside))
            standing = self._in_hull(independent, vector)
            if standing is None and self.limits:
                weights, _ = self._nearest(vector)
                away = vector - _combined(self.limits, weights)
        return standing

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
        if self.why is None and len(self.limits) == 1:
            kind = Kind.DERIVATIVE
        total = sum(w for _, w in of)
        weights = [w / total for _, w in of]
        return self._certified(kind, independent, [limit for limit, _ in of], weights, vector)

    def _outside(self, independent: int, vector: Tensor) -> Standing:
        if not self.limits:
            return self._open(independent, None, "no direction decides all kinks")
        weights, distance = self._nearest(vector)
        if self.why is not None:
            return self._open(independent, distance, f"limits may be missing: {self.why}")
        nearest = _combined(self.limits, weights)
        away = (vector - nearest) / (vector - nearest).norm()
        above = min(float(((vector - limit.gradient) * away).sum()) for limit in self.limits)
        excess = above / scale_of(self.census.scale, vector, nearest)
        if excess <= EQUAL:
            return self._open(independent, distance, "rounding hides whether it is outside")
        found = self._certified(Kind.WRONG, independent, self.limits, weights, vector)
        return replace(found, excess=excess)

    def _open(self, independent: int | None, distance: float | None, why: str) -> Standing:
        return Standing(
            Kind.UNDECIDED, self.census.ties, self.census.flat, self.census.kinks, independent,
            self.program.seed, distance=distance, why=why,
        )  # fmt: skip

    def _certified(
        self,
        kind: Kind,
        independent: int,
        limits: list[Limit],
        weights: list[float],
        to: Tensor,
        distance: float | None = None,
    ) -> Standing:
        if distance is None:
            distance = self._apart(_combined(limits, weights), to, limits)
        return Standing(
            kind, self.census.ties, self.census.flat, self.census.kinks, independent,
            self.program.seed, [Along(e.coefficients, e.margin, e.pulls) for e in limits],
            [float(w) for w in weights], distance,
        )  # fmt: skip

    def _apart(self, a: Tensor, b: Tensor, of: Sequence[Limit] = ()) -> float:
        return apart(a, b, self.census.scale, *(limit.gradient for limit in of))

    def _nearest(self, vector: Tensor) -> tuple[list[float], float]:
        """The weights of the combination of limits that is nearest, and how far it is away."""
        apart = torch.stack([limit.gradient - vector for limit in self.limits])
        # The same distances in as many dimensions as there are limits.
        _, within = torch.linalg.qr(apart.T)
        weights = cones.combination(within.T.numpy(), np.zeros(within.shape[0])).tolist()
        return weights, self._apart(_combined(self.limits, weights), vector, self.limits)

    def _all_cells(self) -> str | None:
        """Step from each cell of directions into those beside it; say why if not into all.

        A cell holds the directions along which the same branches stay active. Cells are polyhedral
        cones, and each can be reached from any other through facets.
        """
        enough = max(self.effort, min(_PASSES, _NUMBERS // self.program.size))
        waiting = deque([self._random.standard_normal(self._count)])
        cells: list[Floats] = []
        solved = 0
        while waiting:
            along = waiting.popleft()
            if any(bool((rows @ along > 0).all()) for rows in cells):
                continue
            many = self.program.passes >= enough
            if len(cells) >= self.budget or len(self.limits) >= self._most or many:
                return "there are too many"
            found = self._find(along, follow=True)
            if found is None:
                return "a direction does not decide all kinks"
            if bool(found.unforeseen.any()):
                # Rows of cells lack these kinks: from the beginning.
                self.census = self.program.foreseen(self.census, found)
                return self._all_cells()
            if not found.table.listed():
                return "a norm is 0 there, which has a limit along each direction"
            rows = self._cell(found)
            cells.append(rows)
            solved += len(rows)
            if solved > _PROGRAMS * self.budget:
                return "there are too many"
            waiting.extend(cones.beside(rows))
        return None

    def _cell(self, limit: Limit) -> Floats:
        """The rows of a cell.

        Kinks whose rows are independent can be decided in all ways. Where rows depend on each
        other, so may the kinks themselves, or only to first order: then points off the directions
        of all cells may have branches that stay active in none.
        """
        table, along = limit.table, np.array(limit.coefficients)
        moved = table.tangents @ along
        ahead, behind = table.pairs(table.leaders(moved), moved)
        every = table.leads((ahead, behind))
        of_kinks = every[table.of[ahead] < table.kinks]
        rows = cones.distinct(of_kinks)
        independent = cones.rank(rows)
        if independent == self._count < self.program.size:
            raise cones.UntoldError("there are more kinks than directions")
        if independent < int(of_kinks.any(1).sum()):
            points = cones.spread(rows, along, independent + 8, self._random)
            there = self.program.beyond(self.census, points)
            if there is None:
                raise cones.UntoldError(_WITHOUT)
            size = np.abs(table.tangents[ahead] - table.tangents[behind])
            size = np.where(
                every.any(1), np.linalg.norm(size, axis=1), table.scale[table.of[ahead]]
            )
            apart = (there[ahead] - there[behind]) / np.where(size == 0, 1.0, size)[:, None]
            if cones.off_span(apart, every) > _CURVED:
                raise cones.UntoldError("kinks depend on each other to first order alone")
        return rows


def _combined(limits: list[Limit], weights: list[float]) -> Tensor:
    total = torch.zeros_like(limits[0].gradient)
    for limit, weight in zip(limits, weights, strict=True):
        total.add_(limit.gradient, alpha=weight)
    return total
