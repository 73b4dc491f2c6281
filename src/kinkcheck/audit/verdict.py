"""The sentence that closes an audit."""

from __future__ import annotations

import math

from kinkcheck import precision
from kinkcheck.audit.report import AuditReport

_ROUNDING = 10  # unit roundoffs


def verdict(report: AuditReport) -> str:
    """What the numbers of a report mean, in one sentence.

    Rules, in this order:

    1. no site was met: nothing depends on a choice;
    2. the gradient itself is not finite at some points, which says nothing of the choice there;
    3. the gradient moved at no point: the choice does not matter on these points;
    4. otherwise the largest relative l1 variation of each precision is given, also in units of
       roundoff u; up to 10 u it is called the size of rounding, above 10 u more than rounding.

    >>> names = ("0.1.0", "2.13.0", "cpu", "linear", "batches")
    >>> verdict(AuditReport(*names, 0, "native", ["minimal"], [], [], []))
    'No nonsmooth operation was met: the gradient of linear depends on no choice at kinks.'
    """
    beware = " Kinks listed as unseen were not switched." if report.unseen else ""
    if not report.sites:
        return (
            f"No nonsmooth operation was met: the gradient of {report.network} depends on no "
            f"choice at kinks.{beware}"
        )
    finite = [point for point in report.points if math.isfinite(point.gradient_l1)]
    if len(finite) < len(report.points):
        beware = (
            f" At {len(report.points) - len(finite)} of {len(report.points)} points the gradient "
            f"itself is not finite: scale the loss, or compute in a higher precision.{beware}"
        )
    moved = [point for point in finite if point.variation.l1 != 0]
    if not moved:
        switched = f" of {_listed(report.operations)}" if report.operations else ""
        return (
            f"The gradient did not move at any of {len(finite)} points: here the choice at kinks"
            f"{switched} does not matter.{beware}"
        )
    largest: dict[str, float] = {}
    for point in moved:
        relative = point.variation.relative_l1
        so_far = largest.get(point.precision, 0.0)
        largest[point.precision] = max(so_far, math.inf if math.isnan(relative) else relative)
    parts, beyond = [], []
    for name, relative in largest.items():
        roundings = relative / precision.parse(name).unit_roundoff
        parts.append(f"{relative:.1e} of its l1 norm at {name} ({roundings:.2g} u)")
        if roundings > _ROUNDING:
            beyond.append(name)
    meaning = (
        f"more than rounding at {_listed(beyond)}; give the choice a name with kinkcheck.nn, or "
        "compute in a higher precision"
        if beyond
        else "the size of rounding"
    )
    return (
        f"The arbitrary choice at kinks moves the gradient at {len(moved)} of "
        f"{len(finite)} points, by at most {_listed(parts)}: {meaning} (u is the unit roundoff; up "
        f"to {_ROUNDING} u counts as rounding).{beware}"
    )


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
