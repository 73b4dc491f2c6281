"""The sentence that closes an audit."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from kinkcheck.arithmetic import precision
from kinkcheck.audit.report import AuditReport, LeftOut, SiteCount, UnseenCount
from kinkcheck.audit.standings import answer
from kinkcheck.audit.summary import ratio
from kinkcheck.measure.records import Point
from kinkcheck.measure.zones import Zone
from kinkcheck.ops.table import ROWS
from kinkcheck.selection import parse

_ROUNDING = 10  # unit roundoffs
_NAMED = 4  # operations


def verdict(report: AuditReport) -> str:
    """What the numbers of a report mean, and what to do, in a sentence or a few.

    It asserts nothing that was not seen. Rules, in this order:

    1. no point is finite: nothing is known of the choice there (see 7);
    2. no kink that kinkcheck recognises was met: it switched nothing, so that it knows nothing of
       the kinks that it does not switch (see 8);
    3. the gradient moved at no point: the choice at the kinks that were switched does not matter on
       these points; if something was not switched, only that those that were do not move it;
    4. if points were not lifted, the largest relative l1 variation of each precision is given, also
       in units of roundoff u; up to 10 u it is called the size of rounding, above 10 u more;
    5. if they were, the largest relative l1 variation of each precision is given; then

       a. whether any point that moved is a true bifurcation, at which precisions, and the largest
          difference in the lift relative to the gradient; if none is and none is undecided, all of
          it is rounding; float64 points, which no higher precision judged, are named;
       b. how the variation compares, at the median point of each precision and at most, with the
          rounding error that the reference's gradient has anyway, which part of the ties is dead,
          and where most of the others are;
       c. the advice: where the variation reaches that error at some point, name the selection or
          compute in a higher precision; at precisions where it does at none, the choice is lost in
          rounding, and naming it only removes the dependence on scan order;

    6. after any of these: what was not measured, at how many points, and why;
    7. a gradient is not finite at some points, which says nothing of the choice there: how many,
       the first layers and operations where that appears, and whether float64 helps;
    8. what has kinks or jumps, or may have, and was not switched.

    >>> names = ("0.1.0", "2.13.0", "cpu", "linear", "batches")
    >>> verdict(AuditReport(*names, 0, "native", ["minimal"], [], [], []))
    'No kink that kinkcheck recognises was met in linear: it had no choice to switch.'
    """
    return " ".join(
        [
            *([right] if report.sites and (right := answer(report)) else []),
            _of_choice(report),
            *not_measured(report.left_out),
            *_not_finite(report.points),
            *_not_compared(report),
            *not_switched(report.unseen),
        ]
    )


def _of_choice(report: AuditReport) -> str:
    """What the points that are finite say of the choice."""
    finite = [point for point in report.points if _is_finite(point)]
    if report.points and not finite:
        return "Nothing is known of the choice at kinks: no gradient is finite."
    if not report.sites:
        return (
            f"No kink that kinkcheck recognises was met in {report.network}: it had no choice to "
            "switch."
        )
    moved = [point for point in finite if point.variation.l1 != 0]
    if not moved:
        switched = f" of {_listed(report.operations)}" if report.operations else ""
        still = f"The gradient did not move at any of {len(finite)} points"
        if report.unseen or _kept(report):
            return f"{still} by the choice at the kinks{switched} that were switched."
        return f"{still}: here the choice at kinks{switched} does not matter."
    if all(point.lift is not None for point in moved):
        return _of_lifted(moved, len(finite), report.sites)
    largest: dict[str, float] = {}
    for point in moved:
        so_far = largest.get(point.precision, 0.0)
        largest[point.precision] = max(so_far, point.variation.relative_l1)
    parts, beyond = [], []
    for name, relative in largest.items():
        roundings = relative / precision.parse(name).unit_roundoff
        parts.append(f"{relative:.1e} of its l1 norm at {name} ({roundings:.2g} u)")
        if roundings > _ROUNDING:
            beyond.append(name)
    meaning = (
        f"more than rounding at {_listed(beyond)}; give the choice a name with "
        f"{_naming(report.sites)}, or compute in a higher precision"
        if beyond
        else "the size of rounding"
    )
    return (
        f"The arbitrary choice at kinks moves the gradient at {len(moved)} of "
        f"{len(finite)} points, by at most {_listed(parts)}: {meaning} (u is the unit roundoff; up "
        f"to {_ROUNDING} u counts as rounding)."
    )


def _is_finite(point: Point) -> bool:
    return math.isfinite(point.gradient_l1) and math.isfinite(point.variation.l1)


def _not_finite(points: Sequence[Point]) -> list[str]:
    """Where gradients are not finite, and whether a higher precision would help."""
    wrong = [point for point in points if not _is_finite(point)]
    if not wrong:
        return []
    layers = {p.non_finite_layer or "(root)" for p in wrong if p.non_finite_layer is not None}
    operations = {p.non_finite_operation for p in wrong if p.non_finite_operation is not None}
    where = f", first in {_listed(sorted(layers))}" if layers else ""
    by = f" (the derivative of {_listed(sorted(operations))})" if operations else ""
    found = f"At {len(wrong)} of {len(points)} points a gradient is not finite{where}{by}"
    lifted = {point.non_finite_lifted for point in wrong}
    if lifted == {True}:
        why = "so it is in float64, where a higher precision cannot help: " + (
            "an infinite derivative times 0 is no number, also where a mask hides the value"
            if operations
            else "it is the function that is not finite there"
        )
        return [f"{found}; {why}."]
    if lifted == {False}:
        return [f"{found}; in float64 it is: scale the loss, or compute in a higher precision."]
    return [f"{found}."]


def not_measured(left_out: Sequence[LeftOut]) -> list[str]:
    """A sentence for all that was not measured, with the reason.

    >>> not_measured([LeftOut("the noise floor: no samples", 3)])
    ['Not measured at 3 points: the noise floor: no samples.']
    """
    return [f"Not measured at {_points(each.points)}: {each.what}." for each in left_out]


def not_switched(unseen: Sequence[UnseenCount]) -> list[str]:
    """A sentence on what has kinks or jumps, or may have, and kept its own derivative.

    >>> not_switched([UnseenCount("act", "abs", "kinkcheck does not define its branches", 1)])
    ['Not switched, though it may have kinks or jumps: abs in act.']
    """
    named: dict[str, list[str]] = {}
    for each in unseen:
        named.setdefault(each.operation, []).append(each.layer)
    if not named:
        return []
    listed = [f"{name}{_in(layers)}" for name, layers in named.items()]
    if len(listed) > _NAMED:
        listed = [*listed[: _NAMED - 1], f"{len(listed) - _NAMED + 1} other operations"]
    return [f"Not switched, though it may have kinks or jumps: {_listed(listed)}."]


def _not_compared(report: AuditReport) -> list[str]:
    kept = _kept(report)
    if not kept:
        return []
    why = "no selection that was compared is another one there"
    return [f"The ties of {_listed(kept)} were not switched: {why}."]


def _kept(report: AuditReport) -> list[str]:
    """The operations with ties at which every selection leaves the reference's choice."""
    others = [parse(each) for each in report.selections if each != report.reference]
    having = {row.name for row in ROWS if any(isinstance(each, row.accepted) for each in others)}
    asked = [site for site in report.sites if site.tied and report.operations is None]
    return list(dict.fromkeys(each.operation for each in asked if each.operation not in having))


def _points(number: int) -> str:
    return f"{number} point{'s' * (number > 1)}"


def _in(layers: Sequence[str]) -> str:
    known = list(dict.fromkeys(layer for layer in layers if layer))
    if not known:
        return ""
    more = len(known) - 1
    return f" in {known[0]}" + (f" and {more} more layer{'s' * (more > 1)}" if more else "")


def _of_lifted(moved: Sequence[Point], finite: int, sites: Sequence[SiteCount]) -> str:
    by_precision: dict[str, list[Point]] = {}
    for point in moved:
        by_precision.setdefault(point.precision, []).append(point)
    largest, compared, reached, lost = [], [], [], []
    for name, points in by_precision.items():
        most = max(point.variation.relative_l1 for point in points)
        largest.append(f"{_part(most)} of its l1 norm at {name}")
        errors = [point.lift.error_reference_l1 for point in points if point.lift is not None]
        in_errors = [
            each
            for point, error in zip(points, errors, strict=True)
            if (each := ratio(point.variation.l1, error)) is not None
        ]
        if not in_errors:
            continue
        compared.append(
            f"{statistics.median(in_errors):.2g} at {name} (at most {max(in_errors):.2g})"
        )
        beyond = sum(value >= 1 for value in in_errors)
        if beyond:
            reached.append(f"{beyond} of {len(points)} points at {name}")
        elif len(in_errors) == len(points):
            lost.append(name)
    text = (
        f"The arbitrary choice at kinks moves the gradient at {len(moved)} of {finite} points, by "
        f"at most {_listed(largest)}. {_zones(by_precision)}"
    )
    if compared:
        text += (
            " In units of the rounding error that the gradient has anyway, it moves at the median "
            f"point by {_listed(compared)}."
        )
    text += _live_ties(sites)
    if reached:
        text += (
            f" At {_listed(reached)} the choice matters as much as rounding does: give it a name "
            f"with {_naming(sites)}, or compute in a higher precision."
        )
    elif lost:
        where = "T" if len(lost) == len(by_precision) else f"At {_listed(lost)} t"
        text += (
            f" {where}he choice is lost in rounding: to name one, such as minimal, with "
            f"{_naming(sites)} costs nothing and removes the dependence on scan order."
        )
    return text


def _naming(sites: Sequence[SiteCount]) -> str:
    """What gives the choice at sites with ties a name: modules, where all are made by some."""
    tied = [bool(site.converts) for site in sites if site.tied]
    if not any(tied):
        return "kinkcheck.record"
    rest = "" if all(tied) else " (functional calls: kinkcheck.record)"
    return f"kinkcheck.nn.convert{rest}"


def _live_ties(sites: Sequence[SiteCount]) -> str:
    """Where most of the ties are that are not dead."""
    ties: Counter[tuple[str, str]] = Counter()
    live: Counter[tuple[str, str]] = Counter()
    for site in sites:
        key = site.layer or "(root)", site.operation
        ties[key] += site.caused
        live[key] += site.caused - (site.dead or 0)
    if not any(ties.values()):
        return ""
    dead = 1 - live.total() / ties.total()
    if not live.total():
        return " All ties are dead: no choice there reaches a parameter."
    ((layer, operation), most), *_ = live.most_common(1)
    return (
        f" {100 * dead:.0f} % of the ties are dead: no choice there reaches a parameter. "
        f"{100 * most / live.total():.0f} % of the others are at {layer} ({operation})."
    )


def _zones(by_precision: dict[str, list[Point]]) -> str:
    points = [point for points in by_precision.values() for point in points]
    wrong, open_ = (
        {
            name: sum(point.zone == zone for point in found)
            for name, found in by_precision.items()
            if any(point.zone == zone for point in found)
        }
        for zone in (Zone.BIFURCATION, Zone.UNDECIDED)
    )
    if not wrong and not open_:
        certified = f"{len(points)} of {len(points)} points certified compensation"
        unjudged = "float64" in by_precision and any(
            point.lift is not None and point.lift.precision == "float64"
            for point in by_precision["float64"]
        )
        if unjudged:
            certified += ", those at float64 by their own noise floor alone"
        return f"All of it is rounding: over the reals both programs agree ({certified})."
    said = []
    if wrong:
        truly = max(
            ratio(point.lift.variation_l1, point.gradient_l1) or 0.0
            for point in points
            if point.lift is not None and point.zone == Zone.BIFURCATION
        )
        where = _listed(
            [f"{n} of {len(by_precision[name])} at {name}" for name, n in wrong.items()]
        )
        whole = open_ or sum(wrong.values()) == len(points)
        rest = "." if whole else "; the rest is rounding."
        said.append(
            f"At {sum(wrong.values())} of these points ({where}) the programs differ over the reals"
            f" as well, by at most {_part(truly)} of the gradient: true bifurcations{rest}"
        )
    if open_:
        said.append(
            f"{sum(open_.values())} points are undecided: too small in the lift to tell from "
            "rounding, too large to be called so."
        )
    return " ".join(said)


def _part(proportion: float) -> str:
    """A proportion in words: per cent where that reads well."""
    if math.isinf(proportion):
        return "more than all (the reference's is 0)"
    if proportion >= 0.095:
        return f"{100 * proportion:.0f} %"
    return f"{100 * proportion:.1g} %" if proportion >= 1e-5 else f"{proportion:.1e}"


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
