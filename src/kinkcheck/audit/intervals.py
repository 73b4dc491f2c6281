"""Proportions of points, each with its confidence interval.

Which interval, by how the points were drawn (a point is a parameter draw and a mini-batch):

* **Clopper–Pearson** where no two points share anything that was drawn:

  - every point has a draw and a mini-batch of its own: the proportion is about all parameters and
    mini-batches that might have been drawn;
  - one draw and N mini-batches: given these parameters the points are independent, and the
    proportion is about mini-batches *at these very parameters*, not about other draws;
  - M draws and one mini-batch: the same the other way round, about parameters *on this very
    mini-batch*.

* **McDiarmid** where draws and mini-batches are crossed. Points of one draw, or of one mini-batch,
  then depend on each other, and M·N of them say less than M·N independent ones.

Disjoint mini-batches of a shuffled set count as independent: the set is taken for a sample of the
distribution that the proportion is about.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from scipy.special import betaincinv  # scipy.stats takes a second to import

from kinkcheck.errors import InputError
from kinkcheck.ranges import require_confidence

CLOPPER_PEARSON = "Clopper-Pearson"
MCDIARMID = "McDiarmid"

Cell: TypeAlias = tuple[int, int]
"""The numbers of the parameter draw and of the mini-batch of a point."""


@dataclass(frozen=True)
class Proportion:
    """A proportion of points, and what is known of the probability behind it.

    Attributes:
        count: points that have the property.
        points: points in all.
        proportion: ``count / points``.
        interval: lower and upper limit; it holds the probability with at least ``confidence``.
        confidence: the probability, over what was drawn, that the interval is right.
        method: how the interval was found, ``Clopper-Pearson`` or ``McDiarmid``.
    """

    count: int
    points: int
    proportion: float
    interval: tuple[float, float]
    confidence: float
    method: str

    @property
    def width(self) -> float:
        """Upper minus lower limit.

        >>> round(clopper_pearson(0, 72).width, 2)
        0.05
        """
        low, high = self.interval
        return high - low


def clopper_pearson(count: int, points: int, confidence: float = 0.95) -> Proportion:
    """The exact interval for independent points.

    With α = 1 − confidence, k of n points: the limits are the α/2 quantile of Beta(k, n − k + 1)
    and the 1 − α/2 quantile of Beta(k + 1, n − k); 0 if k = 0, 1 if k = n. They are those p at
    which k or more, and k or fewer, of n have probability α/2. Source: C. J. Clopper and E. S.
    Pearson (Biometrika 1934).

    Args:
        count: points that have the property.
        points: points in all, at least 1.
        confidence: between 0 and 1.

    Raises:
        InputError: an argument is out of range.

    >>> low, high = clopper_pearson(0, 10).interval
    >>> low, round(high, 4)
    (0.0, 0.3085)
    """
    _require_sound(count, points, confidence)
    tail = (1 - confidence) / 2
    low = float(betaincinv(count, points - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, points - count, 1 - tail)) if count < points else 1.0
    return Proportion(count, points, count / points, (low, high), confidence, CLOPPER_PEARSON)


def mcdiarmid(count: int, draws: int, batches: int, confidence: float = 0.95) -> Proportion:
    """The interval for M parameter draws, each crossed with the same N mini-batches.

    P(|p̂ − p| ≥ t) ≤ 2 exp(−2t² / (1/M + 1/N)), hence p̂ ± √(log(2/α) (1/M + 1/N) / 2), cut to
    [0, 1]. Another draw changes p̂ by at most 1/M, another mini-batch by at most 1/N. Source: D.
    Bertoin et al. (NeurIPS 2021), after C. McDiarmid (1989).

    Args:
        count: points that have the property, of ``draws * batches``.
        draws: M, at least 1.
        batches: N, at least 1.
        confidence: between 0 and 1.

    Raises:
        InputError: an argument is out of range.

    >>> low, high = mcdiarmid(500, 1000, 1000).interval
    >>> low, round(high, 4)
    (0.0, 0.0612)
    """
    for name, number in (("draws", draws), ("batches", batches)):
        if number < 1:
            raise InputError(f"{name} must be at least 1, not {number}")
    return _mcdiarmid(count, draws * batches, 1 / draws + 1 / batches, confidence)


def estimate(
    count: int, cells: Sequence[Cell], confidence: float = 0.95, *, method: str | None = None
) -> Proportion:
    """The proportion among visited points, with the interval that fits how they were drawn.

    Points need not fill a whole grid: if K_d of K points have draw d and K_b have mini-batch b,
    another draw d changes p̂ by at most K_d / K and another mini-batch b by K_b / K, so McDiarmid's
    bound holds with Σ (K_d / K)² + Σ (K_b / K)² in the place of 1/M + 1/N.

    Args:
        count: points that have the property.
        cells: draw and mini-batch of every point.
        confidence: between 0 and 1.
        method: one of :func:`method_for`; by default the one for these cells.

    Raises:
        InputError: an argument is out of range.

    >>> estimate(1, [(0, 0), (0, 1), (0, 2)]) == clopper_pearson(1, 3)
    True
    >>> estimate(1, [(0, 0), (0, 1), (1, 0), (1, 1)]) == mcdiarmid(1, 2, 2)
    True
    """
    _require_sound(count, len(cells), confidence)
    if (method or method_for(cells)) == CLOPPER_PEARSON:
        return clopper_pearson(count, len(cells), confidence)
    shares = (Counter(numbers) for numbers in zip(*cells, strict=True))
    spread = sum(sum(k * k for k in share.values()) / len(cells) ** 2 for share in shares)
    return _mcdiarmid(count, len(cells), spread, confidence)


def method_for(cells: Sequence[Cell]) -> str:
    """The name of the interval that fits how points were drawn.

    >>> method_for([(0, 0), (1, 1)]), method_for([(0, 0), (1, 1), (0, 1)])
    ('Clopper-Pearson', 'McDiarmid')
    """
    draws, batches = ({*numbers} for numbers in zip(*cells, strict=True))
    # What there is only one of is given, not drawn; of the rest every point needs one of its own.
    drawn = [numbers for numbers in (draws, batches) if len(numbers) > 1]
    apart = len({*cells}) == len(cells) and all(len(each) == len(cells) for each in drawn)
    return CLOPPER_PEARSON if apart else MCDIARMID


def _mcdiarmid(count: int, points: int, spread: float, confidence: float) -> Proportion:
    _require_sound(count, points, confidence)
    proportion = count / points
    reach = math.sqrt(math.log(2 / (1 - confidence)) * spread / 2)
    limits = (max(0.0, proportion - reach), min(1.0, proportion + reach))
    return Proportion(count, points, proportion, limits, confidence, MCDIARMID)


def _require_sound(count: int, points: int, confidence: float) -> None:
    if points < 1:
        raise InputError(f"points must be at least 1, not {points}")
    if not 0 <= count <= points:
        raise InputError(f"count must be from 0 to {points}, the number of points, not {count}")
    require_confidence(confidence)
