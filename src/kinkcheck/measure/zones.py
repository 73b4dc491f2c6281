"""Zones: what a variation means, by the lift and by the published threshold."""

from __future__ import annotations

import math
from enum import StrEnum

from kinkcheck.measure.variation import Variation


class Zone(StrEnum):
    """Where a point lies for a pair of programs P, Q (Boustany 2024, section 3).

    ``UNDECIDED`` and ``NON_FINITE`` are honest leftovers: a lift between the two limits of
    :func:`by_lift`, and a gradient with an infinity or a NaN, which is in no zone of the paper.
    """

    AGREEMENT = "agreement"
    COMPENSATION = "compensation"
    BIFURCATION = "bifurcation"
    UNDECIDED = "undecided"
    NON_FINITE = "non-finite"


PUBLISHED_THRESHOLDS = {"float16": 1e-3, "bfloat16": 1e-3, "float32": 1e-7, "float64": 1e-15}
"""τ_ω of Boustany (2024, section 3) for 16, 32 and 64 bits, for :attr:`Variation.linf_by_tensor`.

The paper's 16 bits are float16; bfloat16 is held to the same number for want of one of its own.
Mixed precision has none.
"""

ROUNDING = 8.0
"""A lifted variation up to this many noise floors is rounding.

Where exact arithmetic says that programs agree, the ratio stays below 2 on hundreds of small
networks (tests/test_lift.py). No float64 evaluation can see what differs by less than its floor.
"""

WRONG = 1000.0
"""A lifted variation from this many noise floors on is a difference over the reals."""


def by_threshold(variation: Variation, precision: str) -> Zone | None:
    """The zone by the published threshold: bifurcation if D > τ_ω.

    Returns:
        The zone, or None if there is no published threshold for the precision.

    >>> by_threshold(Variation(1.0, 1.0, 1.0, 1.0, 1.0), "float32")
    <Zone.BIFURCATION: 'bifurcation'>
    """
    if not math.isfinite(variation.l1):
        return Zone.NON_FINITE
    if precision not in PUBLISHED_THRESHOLDS:
        return None
    if variation.l1 == 0:
        return Zone.AGREEMENT
    beyond = variation.linf_by_tensor > PUBLISHED_THRESHOLDS[precision]
    return Zone.BIFURCATION if beyond else Zone.COMPENSATION


def by_lift(variation: float, lifted: float, noise: float) -> Zone:
    """The zone by the lift.

    Args:
        variation: D in the audited precision, in any norm.
        lifted: D of the same two programs at the same point in float64, l1.
        noise: the float64 noise floor, l1.

    >>> by_lift(5e-3, lifted=2e-15, noise=1e-15)
    <Zone.COMPENSATION: 'compensation'>
    >>> by_lift(5e-3, lifted=1e-7, noise=1e-15)
    <Zone.BIFURCATION: 'bifurcation'>
    """
    if not math.isfinite(variation):
        return Zone.NON_FINITE
    if variation == 0:
        return Zone.AGREEMENT
    if lifted <= ROUNDING * noise:
        return Zone.COMPENSATION
    return Zone.BIFURCATION if lifted >= WRONG * noise else Zone.UNDECIDED
