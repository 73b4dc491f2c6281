"""Tangents at ties along several directions, and which branches are ahead of which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinkcheck.ops.branches import Rivals

NOISE = 1e-9
"""Up to this part of the largest tangent at a tie two tangents there are equal: rounding in float64
is 10⁻¹⁶ of it, and more where sums cancel."""

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """Tangents at ties, along some directions.

    Attributes:
        kinks: how many ties are kinks of the loss; they come first.
        of: the tie that each branch belongs to, by number.
        contest: the contest that it takes part in, by number: a tie may hold several.
        wins: who stays active (:class:`~kinkcheck.ops.branches.Rivals`), a branch.
        tangents: of the output through each branch: branches × directions.
        outputs: of the output under what was chosen: ties × directions.
        scale: the largest tangent at each tie.
    """

    kinks: int
    of: Numbers
    contest: Numbers
    wins: Numbers
    tangents: Floats
    outputs: Floats
    scale: Floats

    def listed(self) -> bool:
        """Whether all that competes at kinks is in the table."""
        return not bool((self.wins[self.of < self.kinks] == Rivals.UNLISTED).any())

    def winners(self, ordered: bool = False) -> Numbers:
        """The branch whose tangent each output has; −1 where none has, or an order decides.

        Of several with one tangent the first.

        Args:
            ordered: whether a branch is told where an order decides as well.
        """
        found = np.full(len(self.scale), -1)
        if self.tangents.shape[1]:
            off = np.abs(self.tangents - self.outputs[self.of]).max(1)
            fits = off <= 100 * NOISE * self.scale[self.of]
            fits &= (np.abs(self.wins) == 1) | (ordered & (self.wins == Rivals.ORDERED))
            (places,) = np.nonzero(fits)
            found[self.of[places[::-1]]] = places[::-1]
        return found

    def leaders(self, moved: Floats) -> Numbers:
        """The branch that wins along a direction; −1 where an order decides.

        Args:
            moved: the tangent along it through each branch.
        """
        found = np.full(len(self.scale), -1)
        (places,) = np.nonzero(np.abs(self.wins) == 1)
        ahead = (self.wins * moved)[places]
        order = places[np.lexsort((ahead, self.of[places]))]
        found[self.of[order]] = order
        return found

    def pairs(self, won: Numbers, moved: Floats | None = None) -> tuple[Numbers, Numbers]:
        """Branches of which the first has to have the larger tangent for the same ones to win.

        Args:
            won: the winner of each tie.
            moved: the tangents along a direction, where the order that they have there decides.
        """
        best = won[self.of]
        (others,) = np.nonzero((best >= 0) & (best != np.arange(len(best))))
        smallest = self.wins[others] == Rivals.SMALLEST
        ahead = [np.where(smallest, others, best[others])]
        behind = [np.where(smallest, best[others], others)]
        if moved is not None:
            (ordered,) = np.nonzero(np.isin(self.wins, (Rivals.ORDERED, Rivals.UNLISTED)))
            order = ordered[np.lexsort((-moved[ordered], self.contest[ordered]))]
            beside = np.diff(self.contest[order]) == 0
            ahead.append(order[:-1][beside])
            behind.append(order[1:][beside])
        return np.concatenate(ahead), np.concatenate(behind)

    def leads(self, pairs: tuple[Numbers, Numbers]) -> Floats:
        """By how much the first of each pair is ahead: pairs × directions, of norm 1; or 0."""
        ahead, behind = pairs
        rows = self.tangents[ahead] - self.tangents[behind]
        size = np.linalg.norm(rows, axis=1, keepdims=True)
        none = np.abs(rows).max(1, initial=0)[:, None] <= NOISE * self.scale[self.of[ahead], None]
        return np.where(none, 0.0, rows / np.where(none, 1.0, size))


def margin(table: Table, moved: Floats) -> tuple[float, NDArray[np.bool_]]:
    """By how much a direction decides ties.

    Args:
        table: the tangents along another direction, through the branches that stay active along the
            first; one that is drawn at random tells which branches are one function there.
        moved: the tangents along the direction.

    Returns:
        The least lead of a branch that stays active over one that is another function, in units of
        the largest tangent at its tie; and the ties at which there are several functions.
    """
    ahead, behind = table.pairs(table.leaders(moved), moved)
    scale = table.scale[table.of[ahead]]
    scale = np.where(scale == 0, 1.0, scale)
    around = table.tangents[:, -1]
    # That NaN is neither equal nor ahead makes such ties undecided.
    several = ~(np.abs(around[ahead] - around[behind]) <= NOISE * scale)
    leads = np.nan_to_num((moved[ahead] - moved[behind]) / scale, nan=0.0)[several]
    apart = np.zeros(len(table.scale), dtype=bool)
    apart[table.of[ahead[several]]] = True
    return float(leads.min(initial=np.inf)), apart
