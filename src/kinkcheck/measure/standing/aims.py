"""A direction along which chosen branches win, pulled back from the kinks themselves.

To move along the row of a kink decides that kink, and where rows have nothing to do with each
other, as those of kinks of distinct inputs, to move along the sum of all rows decides all of them
at once, however many there are. Where it does not, a linear program over the sums tried so far
weighs the rows that hold it back, and these make the next sum (column generation, Dantzig and
Wolfe 1960). A sum costs one backward pass and one tangent, and needs no list of drawn directions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from math import lcm

import numpy as np

from kinkcheck.measure.forward import Chooser
from kinkcheck.measure.standing import cones
from kinkcheck.measure.standing.program import Census, Limit, Program
from kinkcheck.measure.standing.tables import Floats, Numbers
from kinkcheck.ops.branches import Rivals
from kinkcheck.tape.tape import Choose

_SUMS = 12
"""How many sums of rows are tried."""

_TURNS = 256
"""How many branches are taken in turn, at most."""


class Aims:
    """Limits where branches win that are chosen kink by kink.

    Args:
        program: the program.
        census: its kinks.
        choose: under what rows are taken.
    """

    def __init__(self, program: Program, census: Census, choose: Chooser | Choose) -> None:
        self._program, self._census, self._choose = program, replace(census, same=[]), choose
        self._table = table = program.rows(self._census, choose, 2)
        self._own = table.winners(ordered=True)
        by_tie = np.argsort(table.of, kind="stable")
        self._branches = np.split(by_tie, np.nonzero(np.diff(table.of[by_tie]))[0] + 1)
        self._ordered = np.zeros(len(self._own), dtype=bool)
        self._ordered[table.of[table.wins == Rivals.ORDERED]] = True
        self._ranks = self._ranked() if self._ordered.any() else self._own

    @property
    def all_won(self) -> bool:
        """Whether one branch alone is chosen at each kink."""
        return bool((self._own >= 0).all())

    def own(self) -> Limit | None:
        """The limit where the branches win that are chosen alone; None if none was found."""
        return self._limit(self._own)

    def rounds(self, most: int, random: np.random.Generator) -> Iterator[list[Limit]]:
        """Limits where, at kinks at which several branches are chosen, each wins in turn.

        The mean of a round is the gradient in which they have even shares, unless kinks come behind
        each other. Then further rounds, which begin at each kink with another branch, have it
        between them.

        Args:
            most: how many limits there may be.
            random: what draws where later rounds begin.
        """
        (shared,) = np.nonzero(self._own < 0)
        count = lcm(*{len(self._branches[tie]) for tie in shared})
        begin = np.zeros(len(shared), dtype=np.int64)
        for _ in range(min(_TURNS, most) // count):
            found = []
            for turn in range(count):
                won = self._own.copy()
                for tie, first in zip(shared, begin, strict=True):
                    branches = self._branches[tie]
                    # Where an order decides all outputs have the same entries, in the same order.
                    at = turn + (self._ranks[tie] if self._ordered[tie] else first)
                    won[tie] = branches[at % len(branches)]
                limit = self._limit(won)
                if limit is None:
                    return
                found.append(limit)
            yield found
            if self._ordered[shared].all():
                return
            begin = random.integers(0, count, len(shared))

    def _ranked(self) -> Numbers:
        """Where an order decides, the place in it of each output; −1 where it has none."""
        table = self._program.limit(self._census, [1.0], 1).table
        won, ranks = table.winners(ordered=True), np.full(len(self._own), -1)
        for tie in np.nonzero(self._ordered & (won >= 0))[0]:
            moved = table.tangents[self._branches[tie], 0]
            ranks[tie] = np.count_nonzero(moved < table.tangents[won[tie], 0])
        return ranks

    def _limit(self, won: Numbers) -> Limit | None:
        pairs = self._pairs(won)
        if pairs is None:
            return None
        ahead, behind, weights = pairs
        size = np.linalg.norm(self._table.tangents[ahead] - self._table.tangents[behind], axis=1)
        apart = size > 0
        ahead, behind, weights, size = ahead[apart], behind[apart], weights[apart], size[apart]
        sums: list[Floats] = []
        leads: list[Floats] = []
        for _ in range(_SUMS):
            pulls = np.zeros(len(self._table.of))
            np.add.at(pulls, ahead, weights)
            np.add.at(pulls, behind, -weights)
            along = self._program.pulled(self._census, self._choose, pulls)
            norm = float(sum(float(each.abs().square().sum()) for each in along)) ** 0.5
            if not 0 < norm < np.inf:
                return None
            # As long as a direction that is drawn.
            pulls *= self._program.size**0.5 / norm
            along = [each * (self._program.size**0.5 / norm) for each in along]
            moved = self._program.rows_along(self._census, self._choose, along).tangents[:, 0]
            sums.append(pulls)
            leads.append((moved[ahead] - moved[behind]) / size)
            coefficients, held, inside = cones.mixed(np.stack(leads, 1))
            weights = held / size
            if inside:
                pulls = np.stack(sums, 1) @ coefficients
                if coefficients.tolist() != [1.0]:
                    along = self._program.pulled(self._census, self._choose, pulls)
                limit = self._program.limit(self._census, [], along=along)
                return replace(limit, pulls=pulls.tolist())
        return None

    def _pairs(self, won: Numbers) -> tuple[Numbers, Numbers, Floats] | None:
        """Branches of which the first has to be ahead, and how much to pull at each pair.

        None where that is not told.
        """
        if (won < 0).any() or (self._ordered & (self._ranks < 0)).any():
            return None
        ahead, behind = self._table.pairs(np.where(self._ordered, -1, won))
        size = np.linalg.norm(self._table.tangents[ahead] - self._table.tangents[behind], axis=1)
        parts = [(ahead, behind, 1 / np.where(size > 0, size, 1))]
        groups: dict[tuple[float, ...], list[int]] = defaultdict(list)
        for tie in np.nonzero(self._ordered)[0]:
            moved = self._table.tangents[self._branches[tie], 0]
            groups[len(moved), moved.min(), moved.max()].append(int(tie))
        for ties in groups.values():
            chain = self._order(ties, won)
            if chain is None:
                return None
            parts.append(chain)
        ahead, behind, weights = (np.concatenate(each) for each in zip(*parts, strict=True))
        return ahead, behind, weights

    def _order(self, ties: list[int], won: Numbers) -> tuple[Numbers, Numbers, Floats] | None:
        """The pairs of one order in which each of some outputs has the entry that it should.

        All of them have the same entries to choose from.
        """
        branches = self._branches[ties[0]]
        count = len(branches)
        order, free = np.full(count, -1), np.ones(count, dtype=bool)
        in_order = np.argsort(self._table.tangents[branches, 0], kind="stable")
        for tie in ties:
            own = self._branches[tie]
            (at,) = np.nonzero(
                own[np.argsort(self._table.tangents[own, 0], kind="stable")] == won[tie]
            )[0]
            rank = self._ranks[tie]
            if not (order[rank] == at or (order[rank] < 0 and free[at])):
                return None
            order[rank], free[at] = at, False
        order[order < 0] = np.nonzero(free)[0]
        chain, place = branches[in_order][order], np.arange(1, count)
        # As much as if each pulled at all others.
        return chain[1:], chain[:-1], place * (count - place) / self._table.scale[ties[0]]
