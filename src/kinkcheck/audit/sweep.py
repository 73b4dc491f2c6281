"""The smallest precision that is good enough."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kinkcheck.audit.report import AuditReport
from kinkcheck.measure.records import Point
from kinkcheck.measure.zones import Zone
from kinkcheck.ranges import require_tolerance

ORDER = ("float16", "bfloat16", "float32", "float64")
"""From the smallest precision on: by bits, then by unit roundoff.

float16 and bfloat16 cost the same, so the one that rounds less comes first: float16, whose u is
2⁻¹¹ against 2⁻⁸. What it lacks is range, and a point that overflows disqualifies it. ``mixed`` is
not in the order: it stores 32 bits and computes with 16.
"""


def smallest_precision(found: AuditReport | Sequence[Point], tolerance: float) -> str | None:
    """The smallest precision at which the choice at kinks matters no more than a tolerance.

    That is the first of :data:`ORDER` that was audited and at *every* one of whose points, of every
    selection, the gradient is finite and ‖g − g_reference‖₁ ≤ tolerance · ‖g_reference‖₁. Nothing
    is said of larger precisions, nor of points that were not audited.

    Args:
        found: a report, or its points; precisions that are not in it are passed over.
        tolerance: of the variation relative to the gradient, 0 or more.

    Returns:
        The name of the precision; None if none of those audited will do.

    Raises:
        InputError: ``tolerance`` is negative or not finite.

    >>> from kinkcheck.audit import Variation
    >>> small, large = (Variation(d, d, d, d, d) for d in (1e-9, 1e-2))
    >>> points = [
    ...     Point("float16", 0, 0, "minimal", 2.3, 1.0, large),
    ...     Point("float32", 0, 0, "minimal", 2.3, 1.0, small),
    ... ]
    >>> smallest_precision(points, 1e-3), smallest_precision(points, 1e-12)
    ('float32', None)
    """
    require_tolerance(tolerance)
    points = found.points if isinstance(found, AuditReport) else found
    audited = {point.precision for point in points}
    failed = {point.precision for point in points if not _within(point, tolerance)}
    return next((name for name in ORDER if name in audited - failed), None)


def _within(point: Point, tolerance: float) -> bool:
    if point.zone is Zone.NON_FINITE or not math.isfinite(point.gradient_l1):
        return False
    # 0 of 0 is no number, and no variation either.
    return point.variation.l1 == 0 or point.variation.relative_l1 <= tolerance
