"""The sentence that closes an audit."""

from __future__ import annotations

import math

from kinkcheck import precision
from kinkcheck.audit.report import AuditReport


def verdict(report: AuditReport) -> str:
    """What the numbers of a report mean, in one sentence.

    Rules, in this order:

    1. no site was met: nothing depends on a choice;
    2. the gradient moved at no point: the choice does not matter on these points;
    3. otherwise the largest relative l1 variation of each precision is given, also in units of
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
    moved = [point for point in report.points if point.variation.l1 != 0]
    if not moved:
        return (
            f"The gradient did not move at any of {len(report.points)} points: here the choice at "
            f"kinks does not matter.{beware}"
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
        if roundings > 10:
            beyond.append(name)
    meaning = (
        f"more than rounding at {_listed(beyond)}; give the choice a name with kinkcheck.nn, or "
        "compute in a higher precision"
        if beyond
        else "the size of rounding"
    )
    return (
        f"The arbitrary choice at kinks moves the gradient at {len(moved)} of "
        f"{len(report.points)} points, by at most {_listed(parts)}: {meaning}.{beware}"
    )


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
