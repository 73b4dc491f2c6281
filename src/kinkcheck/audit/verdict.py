"""What an audit comes to, in a few sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kinkcheck.arithmetic import precision
from kinkcheck.audit.report import AuditReport, LeftOut, SiteCount, UnseenCount
from kinkcheck.audit.standings import answer, is_wrong
from kinkcheck.audit.summary import ratio
from kinkcheck.audit.words import listed
from kinkcheck.measure.records import Point
from kinkcheck.measure.zones import Zone
from kinkcheck.ops.conventions import Form, meaning
from kinkcheck.ops.table import ROWS
from kinkcheck.selection import As, parse

_ROUNDING = 10  # unit roundoffs
_NAMED = 4  # operations
_WRONG = "kinkcheck.check of a part of the program names the calls that make it so."


def verdict(report: AuditReport) -> str:
    """What the numbers of a report mean, and what to do, in a sentence or a few.

    It asserts nothing that was not seen; tables hold what it leaves out. A point is a precision, a
    parameter draw and a mini-batch; a gradient moves there if it does under some selection. Rules,
    in this order:

    1. whether the gradient is right, where that was looked for: at how many points it is the
       derivative, one of its limits, between them, wrong or undecided; whether it is right under
       the other selections; which live ties are rounding alone; if it is wrong somewhere, what
       names the calls;
    2. no point is finite: nothing is known of the choice there (see 7);
    3. no kink that kinkcheck recognises was met: it switched nothing, so that it knows nothing of
       the kinks that it does not switch (see 8);
    4. the gradient moved at no point: the choice at the kinks that were switched does not matter on
       these points; if something was not switched, only that those that were do not move it;
    5. it moved: the largest relative l1 variation of each precision;

       a. if points were not lifted, also in units of roundoff u; up to 10 u it is called the size
          of rounding, above 10 u more;
       b. if they were, or need not be, that all of it is rounding if every point that moved is in
          compensation;
          then the advice: where the variation reaches the rounding error that the reference's
          gradient has anyway, name the selection or compute in a higher precision; at precisions
          where it does at no point, naming it only removes the dependence on scan order;

    6. after any of these: what was not measured, at how many points, and why;
    7. a gradient is not finite at some points, which says nothing of the choice there: how many,
       the first layers and operations where that appears, and whether float64 helps;
    8. what has kinks or jumps, or may have, and was not switched.

    >>> names = ("0.1.0", "2.13.0", "cpu", "linear", "batches")
    >>> verdict(AuditReport(*names, 0, "native", ["minimal"], [], [], []))
    'No kink that kinkcheck recognises was met in linear: it had no choice to switch.'
    """
    right = answer(report)
    return " ".join(
        [
            *([right] if right else []),
            *([_WRONG] if right and is_wrong(report) else []),
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
    total = len(_places(report.points))
    moved = [point for point in finite if point.variation.l1 != 0]
    if not moved:
        switched = f" of {listed(report.operations)}" if report.operations else ""
        still = f"The gradient did not move at any of {len(_places(finite))} points"
        if report.unseen or _kept(report):
            return f"{still} by the choice at the kinks{switched} that were switched."
        return f"{still}: here the choice at kinks{switched} does not matter."
    largest: dict[str, float] = {}
    for point in moved:
        so_far = largest.get(point.precision, 0.0)
        largest[point.precision] = max(so_far, point.variation.relative_l1)
    text = (
        f"The choice at kinks moves the gradient at {len(_places(moved))} of {total} points, by at "
        "most "
    )
    if all(point.zone is not None for point in moved):
        parts = [f"{_part(relative)} at {name}" for name, relative in largest.items()]
        return f"{text}{listed(parts)} of its l1 norm{_of_judged(moved, report)}"
    parts, beyond = [], []
    for name, relative in largest.items():
        roundings = relative / precision.parse(name).unit_roundoff
        parts.append(f"{relative:.1e} at {name} ({roundings:.2g} u)")
        if roundings > _ROUNDING:
            beyond.append(name)
    meaning = (
        f"more than rounding at {listed(beyond)}; give the choice a name with "
        f"{_naming(report.sites)}, or compute in a higher precision"
        if beyond
        else "the size of rounding"
    )
    return (
        f"{text}{listed(parts)} of its l1 norm: {meaning} (u is the unit roundoff; up to "
        f"{_ROUNDING} u counts as rounding)."
    )


def _places(points: Sequence[Point]) -> set[tuple[str, int, int]]:
    """What is counted as points: the places, whatever was chosen there."""
    return {(point.precision, point.draw, point.batch) for point in points}


def _is_finite(point: Point) -> bool:
    return math.isfinite(point.gradient_l1) and math.isfinite(point.variation.l1)


def _not_finite(points: Sequence[Point]) -> list[str]:
    """Where gradients are not finite, and whether a higher precision would help."""
    wrong = [point for point in points if not _is_finite(point)]
    if not wrong:
        return []
    layers = {p.non_finite_layer or "(root)" for p in wrong if p.non_finite_layer is not None}
    operations = {p.non_finite_operation for p in wrong if p.non_finite_operation is not None}
    where = f", first in {listed(sorted(layers))}" if layers else ""
    by = f" (the derivative of {listed(sorted(operations))})" if operations else ""
    found = (
        f"At {len(_places(wrong))} of {len(_places(points))} points a gradient is not finite"
        f"{where}{by}"
    )
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
    names = [f"{name}{_in(layers)}" for name, layers in named.items()]
    if len(names) > _NAMED:
        names = [*names[: _NAMED - 1], f"{len(names) - _NAMED + 1} other operations"]
    return [f"Not switched, though it may have kinks or jumps: {listed(names)}."]


def _not_compared(report: AuditReport) -> list[str]:
    kept = _kept(report)
    lines = []
    if kept:
        why = "no selection that was compared is another one there"
        lines.append(f"The ties of {listed(kept)} were not switched: {why}.")
    for each in dict.fromkeys(map(parse, [report.reference, *report.selections])):
        if isinstance(each, As) and (lacking := _lacking(each, report)):
            lines.append(f"Under {each} some ties stay native: {listed(lacking)}.")
    return lines


def _lacking(convention: As, report: AuditReport) -> list[str]:
    """Why operations with ties have nothing of a convention."""
    met = (Form(s.operation, s.form, dtype=s.precision) for s in report.sites if s.tied)
    found = (meaning(convention, form).why for form in met)
    return list(dict.fromkeys(why for why in found if why))


def _kept(report: AuditReport) -> list[str]:
    """The operations with ties at which every selection leaves the reference's choice."""
    others = [parse(each) for each in report.selections if each != report.reference]
    having = {row.name for row in ROWS if any(map(row.has, others))}
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


def _of_judged(moved: Sequence[Point], report: AuditReport) -> str:
    """Whether it is rounding, whether it matters beside that, and what to do."""
    by_precision: dict[str, list[Point]] = {}
    for point in moved:
        by_precision.setdefault(point.precision, []).append(point)
    text = "."
    if all(point.zone is Zone.COMPENSATION for point in moved):
        unjudged = any(
            point.lift is not None and point.lift.precision == point.precision for point in moved
        )
        text = f", all of it rounding{' (float64 by its own noise floor)' if unjudged else ''}."
    reached, lost = [], []
    for name, points in by_precision.items():
        yardstick = _Yardstick([p for p in report.points if p.precision == name])
        in_errors = [(yardstick.errors(point), point) for point in points]
        known = [(each, point) for each, point in in_errors if each is not None]
        beyond = [point for each, point in known if each >= 1]
        if beyond:
            counted = f"{len(_places(beyond))} of {len(_places(points))} points at {name}"
            reached.append((counted, yardstick))
        elif known and len(known) == len(points):
            lost.append((name, yardstick))
    if reached:
        text += (
            f" At {listed([counted for counted, _ in reached])} that is as much as rounding moves "
            f"it anyway{_measured([by for _, by in reached])}: give the choice a name with "
            f"{_naming(report.sites)}, or compute in a higher precision."
        )
    elif lost:
        names = listed([name for name, _ in lost])
        where = "That" if len(lost) == len(by_precision) else f"At {names} that"
        text += (
            f" {where} is less than the rounding error that it has anyway"
            f"{_measured([by for _, by in lost])}: to name a choice, such as minimal, with "
            f"{_naming(report.sites)} costs nothing and removes the dependence on scan order."
        )
    return text


def _measured(yardsticks: Sequence[_Yardstick]) -> str:
    """At how many points the rounding error was measured, if not at all."""
    lifted, points = (sum(getattr(each, of) for each in yardsticks) for of in ("lifted", "points"))
    return f" (measured at {lifted} of {points} points)" if lifted < points else ""


class _Yardstick:
    """The rounding error of the reference's gradient in one precision.

    Attributes:
        points: how many points there are.
        lifted: at how many of them it was measured; elsewhere it is taken to be, relative to the
            gradient, the least of these.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        errors = {
            (point.draw, point.batch): ratio(point.lift.error_reference_l1, point.gradient_l1)
            for point in points
            if point.lift is not None and point.lift.error_reference_l1 is not None
        }
        self.points = len(_places(points))
        self.lifted = len(errors)
        self._least = min((e for e in errors.values() if e is not None), default=None)

    def errors(self, point: Point) -> float | None:
        """The variation in units of it; None if it is not known, or neither is there."""
        if point.lift is not None:
            found = ratio(point.variation.l1, point.lift.error_reference_l1)
        else:
            found = ratio(point.variation.relative_l1, self._least)
        return None if found is None or math.isnan(found) else found


def _naming(sites: Sequence[SiteCount]) -> str:
    """What gives the choice at sites with ties a name: modules, where all are made by some."""
    tied = [bool(site.converts) for site in sites if site.tied]
    if not any(tied):
        return "kinkcheck.record"
    rest = "" if all(tied) else " (functional calls: kinkcheck.record)"
    return f"kinkcheck.nn.convert{rest}"


def _part(proportion: float) -> str:
    """A proportion in words: per cent where that reads well."""
    if math.isinf(proportion):
        return "more than all (the reference's is 0)"
    if proportion >= 0.095:
        return f"{100 * proportion:.0f} %"
    return f"{100 * proportion:.1g} %" if proportion >= 1e-5 else f"{proportion:.1e}"
