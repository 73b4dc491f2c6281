"""What an audit comes to, in a few sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kinkcheck.audit.advice import advice, known, switched
from kinkcheck.audit.counts import LeftOut, SiteCount, UnseenCount
from kinkcheck.audit.effect import (
    ROUNDING,
    Yardstick,
    is_finite,
    is_rounding,
    places,
    roundings,
)
from kinkcheck.audit.standings import answer
from kinkcheck.audit.words import listed
from kinkcheck.measure.records import Point
from kinkcheck.measure.zones import Zone
from kinkcheck.ops.conventions import Form, meaning
from kinkcheck.ops.table import BY_NAME
from kinkcheck.selection import As, First, Minimal, Native, Selection

if TYPE_CHECKING:
    from kinkcheck.audit.report import AuditReport

_NAMED = 4  # operations

_OTHERS = "It may matter all the same: what rounds may be other parameters than what moves."


def verdict(report: AuditReport) -> str:
    """What the numbers of a report mean, and what to do, in a sentence or a few.

    It asserts nothing that was not seen; tables hold what it leaves out. A point is a precision, a
    parameter draw and a mini-batch; a gradient moves there if it does under some selection. Rules,
    in this order:

    1. whether the gradient is right, where that was looked for: at how many points it is the
       derivative, one of its limits, between them, wrong or undecided; whether it is right under
       the other selections; which live ties are rounding alone;
    2. no point is finite: nothing is known of the choice there (see 8);
    3. no kink that kinkcheck recognises was met: it switched nothing, so that it knows nothing of
       the kinks that it does not switch (see 9);
    4. the gradient moved at no point: the choice between the selections that were compared does not
       matter on these points; if something was not switched, only that what was does not move it;
    5. it moved: the largest relative l1 variation of each precision;

       a. if points were not lifted, also in units of roundoff u; up to 10 u it is called the size
          of rounding, above 10 u more;
       b. if they were, or need not be, that all of it is rounding if every point that moved is in
          compensation, and where the variation reaches the rounding error that the reference's
          gradient has anyway; where it does not, and it moves the gradient over the reals, that the
          rounding may be in other parameters;

    6. what to do, after any of these: where the gradient is wrong, what names the calls, and a
       selection that is right there; where the choice outweighs rounding, what can give it a name,
       and a higher precision if rounding makes the difference; where it is lost in rounding, and
       nowhere moves the gradient over the reals, nothing. A selection is recommended only if its
       rounding error is the smallest at every point where that was measured, and nothing speaks
       against its gradient there;
    7. what was not measured, at how many points, and why;
    8. a gradient is not finite at some points, which says nothing of the choice there: how many,
       the first layers and operations where that appears, and whether float64 helps;
    9. what has kinks or jumps, or may have, and was not switched.

    >>> from kinkcheck.audit import AuditReport
    >>> names = ("0.1.0", "2.13.0", "cpu", "linear", "batches")
    >>> verdict(AuditReport(*names, 0, "native", ["minimal"], [], [], []))
    'No kink that kinkcheck recognises was met in linear: it had no choice to switch.'
    """
    right = answer(report)
    return " ".join(
        [
            *([right] if right else []),
            _of_choice(report),
            *advice(report),
            *beside(report),
        ]
    )


def beside(report: AuditReport) -> list[str]:
    """What the answer leaves out, in sentences: what was not measured, finite or switched.

    >>> from kinkcheck.audit import AuditReport
    >>> names = ("0.1.0", "2.13.0", "cpu", "linear", "batches")
    >>> beside(AuditReport(*names, 0, "native", ["minimal"], [], [], []))
    []
    """
    return [
        *not_measured(report.left_out),
        *_not_finite(report.points),
        *_not_compared(report),
        *not_switched(report.unseen),
    ]


def _of_choice(report: AuditReport) -> str:
    """What the points that are finite say of the choice."""
    finite = [point for point in report.points if is_finite(point)]
    if report.points and not finite:
        return "Nothing is known of the choice at kinks: no gradient is finite."
    if not report.sites:
        return (
            f"No kink that kinkcheck recognises was met in {report.network}: it had no choice to "
            "switch."
        )
    total = len(places(report.points))
    moved = [point for point in finite if point.variation.l1 != 0]
    if not moved:
        switched = f" of {listed(report.operations)}" if report.operations else ""
        still = f"The gradient did not move at any of {len(places(finite))} points"
        if report.unseen or kept(report):
            return f"{still} by the choice at the kinks{switched} that were switched."
        if is_one_choice(report):
            return f"{still}."  # why is said beside it
        compared = listed(list(dict.fromkeys([report.reference, *report.selections])))
        return f"{still}: here the choice at kinks{switched} between {compared} does not matter."
    largest: dict[str, float] = {}
    for point in moved:
        so_far = largest.get(point.precision, 0.0)
        largest[point.precision] = max(so_far, point.variation.relative_l1)
    text = f"The choice at kinks moves the gradient at {len(places(moved))} of {total} points"
    sized = {name: relative for name, relative in largest.items() if math.isfinite(relative)}
    from_zero = [name for name in largest if name not in sized]
    zero = f", from 0 at {listed(from_zero)}" if from_zero else ""
    if all(point.zone is not None for point in moved):
        parts = [f"{part(relative)} at {name}" for name, relative in sized.items()]
        return f"{text}{_at_most(parts)}{zero}{_of_judged(moved, report)}"
    units = {name: roundings(relative, name) for name, relative in largest.items()}
    parts = [f"{each:.1e} at {name} ({units[name]:.2g} u)" for name, each in sized.items()]
    beyond = [name for name, each in units.items() if each > ROUNDING]
    meaning = f"more than rounding at {listed(beyond)}" if beyond else "the size of rounding"
    return (
        f"{text}{_at_most(parts)}{zero}: {meaning} (u is the unit roundoff; up to {ROUNDING} u "
        "counts as rounding)."
    )


def _at_most(parts: Sequence[str]) -> str:
    return f", by at most {listed(parts)} of its l1 norm" if parts else ""


def _not_finite(points: Sequence[Point]) -> list[str]:
    """Where gradients are not finite, and whether a higher precision would help."""
    wrong = [point for point in points if not is_finite(point)]
    if not wrong:
        return []
    layers = {p.non_finite_layer or "(root)" for p in wrong if p.non_finite_layer is not None}
    operations = {p.non_finite_operation for p in wrong if p.non_finite_operation is not None}
    where = f", first in {listed(sorted(layers))}" if layers else ""
    by = f" (the derivative of {listed(sorted(operations))})" if operations else ""
    found = (
        f"At {len(places(wrong))} of {len(places(points))} points a gradient is not finite"
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
    lines = []
    if still := kept(report):
        why = "no selection that was compared is another one there"
        lines.append(f"The ties of {listed(still)} were not switched: {why}.")
    if same := _alike(report):
        compared = listed(list(dict.fromkeys([report.reference, *report.selections])))
        others = [each for each in same if BY_NAME[each].has(First())]
        lines.append(f"At the ties of {listed(same)} {compared} are one choice.")
        if others:
            lines[-1] = f"{lines[-1][:-1]}; --selection first,last compares others."
    for each in dict.fromkeys(known([report.reference, *report.selections])):
        if isinstance(each, As) and (lacking := _lacking(each, report)):
            lines.append(f"Under {each} some ties stay native: {listed(lacking)}.")
    return lines


def _lacking(convention: As, report: AuditReport) -> list[str]:
    """Why operations with ties have nothing of a convention."""
    found = (_why_native(convention, site) for site in switched(report) if site.tied)
    return list(dict.fromkeys(why for why in found if why))


def _why_native(convention: As, site: SiteCount) -> str:
    """Why a convention leaves a site native; empty if it does not."""
    return meaning(convention, Form(site.operation, site.form, dtype=site.precision)).why


def kept(report: AuditReport) -> list[str]:
    """The operations with ties at which every selection leaves the reference's choice.

    >>> from kinkcheck.audit import AuditReport
    >>> names = ("0.1.0", "2.13.0", "cpu", "linear", "batches")
    >>> kept(AuditReport(*names, 0, "native", ["minimal"], [], [], []))
    []
    """
    others = known(each for each in report.selections if each != report.reference)
    return list(
        dict.fromkeys(
            site.operation
            for site in switched(report)
            if site.tied and not any(_acts(each, site) for each in others)
        )
    )


def is_one_choice(report: AuditReport) -> bool:
    """Whether the selections that were compared are one at all live ties: nothing was switched.

    >>> from kinkcheck.audit import AuditReport
    >>> names = ("0.1.0", "2.13.0", "cpu", "linear", "batches")
    >>> is_one_choice(AuditReport(*names, 0, "native", ["minimal"], [], [], []))
    False
    """
    live = _live(report)
    return bool(live) and live == _alike(report)


def _alike(report: AuditReport) -> list[str]:
    """The operations with live ties where PyTorch's choice is the least, and no other was compared.

    Hybrid is native there over the reals alone: its β amplifies rounding.
    """
    texts = [report.reference, *report.selections]
    compared = list(known(texts))
    if len(compared) < len(texts) or not all(
        isinstance(each, Native | Minimal) for each in compared
    ):
        return []
    return [name for name in _live(report) if name in BY_NAME and BY_NAME[name].least]


def _live(report: AuditReport) -> list[str]:
    """The operations with a tie that may reach a parameter."""
    sites = switched(report)
    live = [site.operation for site in sites if site.tied > (site.dead or 0)]
    if not live and any(p.reference_standing and p.reference_standing.ties for p in report.points):
        # Each is dead while the others choose as they did: of two in a row, say.
        live = [site.operation for site in sites if site.tied]
    return list(dict.fromkeys(live))


def _acts(selection: Selection, site: SiteCount) -> bool:
    """Whether a selection chooses at a site."""
    row = BY_NAME.get(site.operation)
    if row is None or not row.has(selection):
        return False
    return not (isinstance(selection, As) and _why_native(selection, site))


def _points(number: int) -> str:
    return f"{number} point{'s' * (number > 1)}"


def _in(layers: Sequence[str]) -> str:
    known = list(dict.fromkeys(layer for layer in layers if layer))
    if not known:
        return ""
    more = len(known) - 1
    return f" in {known[0]}" + (f" and {more} more layer{'s' * (more > 1)}" if more else "")


def _of_judged(moved: Sequence[Point], report: AuditReport) -> str:
    """Whether it is rounding, and whether it matters beside that."""
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
    below: list[Point] = []
    for name, points in by_precision.items():
        yardstick = Yardstick([p for p in report.points if p.precision == name])
        in_errors = [(yardstick.errors(point), point) for point in points]
        known = [(each, point) for each, point in in_errors if each is not None]
        beyond = [point for each, point in known if each >= 1]
        if beyond:
            counted = f"{len(places(beyond))} of {len(places(points))} points at {name}"
            reached.append((counted, yardstick))
        elif known and len(known) == len(points):
            lost.append((name, yardstick))
            below += [point for point in points if not is_rounding(point)]
    if reached:
        text += (
            f" At {listed([counted for counted, _ in reached])} that is as much as rounding moves "
            f"it anyway{_measured([by for _, by in reached])}."
        )
    elif lost:
        names = listed([name for name, _ in lost])
        where = "That" if len(lost) == len(by_precision) else f"At {names} that"
        error = "of the whole gradient" if below else "that it has anyway"
        text += f" {where} is less than the rounding error {error}"
        text += f"{_measured([by for _, by in lost])}."
        if below:
            text += f" {_OTHERS}"
    return text


def _measured(yardsticks: Sequence[Yardstick]) -> str:
    """At how many points the rounding error was measured, if not at all."""
    lifted, points = (sum(getattr(each, of) for each in yardsticks) for of in ("lifted", "points"))
    return f" (measured at {lifted} of {points} points)" if lifted < points else ""


def part(proportion: float) -> str:
    """A proportion in words: per cent where that reads well.

    >>> part(0.042), part(2e-7)
    ('4 %', '2.0e-07')
    """
    if math.isinf(proportion):
        return "more than all (the reference's is 0)"
    if proportion >= 0.095:
        return f"{100 * proportion:.0f} %"
    return f"{100 * proportion:.1g} %" if proportion >= 1e-5 else f"{proportion:.1e}"
