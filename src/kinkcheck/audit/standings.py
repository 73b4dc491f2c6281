"""What the standings of an audit come to, in sentences: is the gradient right?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kinkcheck.audit.effect import Place, place, places
from kinkcheck.audit.words import listed
from kinkcheck.measure.records import Point
from kinkcheck.measure.standing.records import STANDS, Kind, Standing
from kinkcheck.measure.zones import Zone

if TYPE_CHECKING:
    from kinkcheck.audit.report import AuditReport

_NOUNS = {
    Kind.DERIVATIVE: "the derivative",
    Kind.LIMIT: "one of its limits",
    Kind.SUBGRADIENT: "between its limits",
}


def of_reference(points: Sequence[Point]) -> list[Standing]:
    """The standing of the reference's gradient at each point where it was looked for, once each.

    >>> of_reference([])
    []
    """
    return list(
        {
            place(point): point.reference_standing
            for point in points
            if point.reference_standing is not None
        }.values()
    )


def answer(report: AuditReport) -> str:
    """Whether the gradient is right, in a sentence or a few.

    Empty where nobody looked, and where no kink was met that could have been switched. A point is a
    precision, a parameter draw and a mini-batch.

    >>> from kinkcheck.audit import AuditReport, SiteCount, Variation
    >>> d = Variation(0.0, 0.0, 0.0, 0.0, 0.0)
    >>> stands = Standing(Kind.DERIVATIVE, ties=3, flat=3)
    >>> point = Point("float32", 0, 0, "minimal", 2.3, 5.0, d, None, None, None, standing=stands,
    ...               reference_standing=stands)
    >>> site = SiteCount("float32", "1", "relu", 0, 8, 3, 3, None)
    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> answer(AuditReport(*names, 0, "native", ["minimal"], [point], [site], []))
    'Right at the one point: the gradient is the derivative. Right under minimal too. 1 point ...'
    """
    standings = of_reference(report.points)
    if not standings or not report.sites:
        return ""
    total = len(places(report.points))
    unlifted = {
        place(point)
        for point in report.points
        if point.reference_standing is None and math.isfinite(point.gradient_l1 + point.loss)
    }
    return " ".join(
        [
            _first(
                standings, total, len(unlifted), _kinks_shown(report.points), no_tie_lives(report)
            ),
            *_others(report, standings),
            *told(report),
            *_of_rounding(report),
        ]
    )


def no_tie_lives(report: AuditReport) -> str:
    """That no tie is live, of points where none is in the lift: rounding may make some.

    >>> from kinkcheck.audit import AuditReport
    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> no_tie_lives(AuditReport(*names, 0, "native", ["minimal"], [], [], []))
    'no tie that kinkcheck recognises is live'
    """
    said = "no tie that kinkcheck recognises is live"
    return f"{said} but by rounding" if any(site.rounding for site in report.sites) else said


def is_wrong(report: AuditReport) -> bool:
    """Whether the gradient is wrong at some point.

    >>> from kinkcheck.audit import AuditReport
    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> is_wrong(AuditReport(*names, 0, "native", ["minimal"], [], [], []))
    False
    """
    return any(each.kind is Kind.WRONG for each in of_reference(report.points))


def _kinks_shown(points: Sequence[Point]) -> bool:
    """Whether the loss is seen to have a kink wherever a gradient is not called the derivative.

    It is where one tie alone is a kink, where a gradient combines two limits, or where two that are
    apart over the reals are both right. That several kinks of operations reach the loss is not
    enough: in a difference of them they may be gone.
    """
    shown: dict[Place, bool] = {}
    for point in points:
        at = place(point)
        both = [each for each in (point.reference_standing, point.standing) if each is not None]
        apart = point.zone is Zone.BIFURCATION and len(both) == 2 and all(e.stands for e in both)
        for each in both:
            if each.kind in (Kind.LIMIT, Kind.SUBGRADIENT):
                several = apart or len(each.along) > 1 or each.kinks == 1 == each.rows
                shown[at] = shown.get(at, False) or several
    return all(shown.values())


def told(report: AuditReport) -> list[str]:
    """At how many points nothing but the audited precision told it, in a sentence.

    >>> from kinkcheck.audit import AuditReport
    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> told(AuditReport(*names, 0, "native", ["minimal"], [], [], []))
    []
    """
    found = {
        place(point)
        for point in report.points
        if point.lift is None and point.reference_standing is not None
    }
    if not found:
        return []
    points = "1 point was" if len(found) == 1 else f"{len(found)} points were"
    how = "judged at the audited precision, without the lift to float64"
    return [f"{points} {how}; rounding may hide ties there."]


def _first(
    standings: Sequence[Standing], total: int, unlifted: int, kinks_shown: bool, no_tie: str
) -> str:
    kinds = Counter(each.kind for each in standings)
    right, wrong, undecided = _judged(standings)
    if wrong:
        text = (
            f"Wrong at {_points(wrong, total)}: the gradient there is neither the derivative, "
            "nor one of its limits, nor between its limits"
        )
        text += f". Right at {right}" if right else ""
    elif right:
        text = f"Right at {_points(right, total)}: the gradient is {_kinds(kinds, kinks_shown)}"
        if not any(each.ties for each in standings):
            text += f", for {no_tie}"
    else:
        text = f"Undecided at {_points(undecided, total)}"
    if undecided:
        whys = Counter(each.why for each in standings if each.kind is Kind.UNDECIDED)
        why, _ = whys.most_common(1)[0]
        text += f". Undecided at {undecided}" if right or wrong else ""
        text += f": {why}" if why else ""
    if unlifted:
        text += f". At {unlifted} the lift would have to tell"
    return f"{text}."


def _points(count: int, total: int) -> str:
    return f"{count} of {total} points" if total != 1 else "the one point"


def _judged(standings: Sequence[Standing]) -> tuple[int, int, int]:
    """How many are right, wrong and undecided."""
    kinds = Counter(each.kind for each in standings)
    return sum(kinds[kind] for kind in STANDS), kinds[Kind.WRONG], kinds[Kind.UNDECIDED]


def _kinds(kinds: Counter[Kind], kinks_shown: bool) -> str:
    """What a gradient is: the derivative at 30 and, at 10 where the loss has a kink, a limit."""
    smooth = kinds[Kind.DERIVATIVE]
    kinked = {kind: kinds[kind] for kind in (Kind.LIMIT, Kind.SUBGRADIENT) if kinds[kind]}
    if not kinked:
        return _NOUNS[Kind.DERIVATIVE]
    total = sum(kinked.values())
    said = " and ".join(
        _NOUNS[kind] + (f" (at {count})" if len(kinked) > 1 else "")
        for kind, count in kinked.items()
    )
    where = "the loss itself has a kink" if kinks_shown else "kinks of operations reach the loss"
    if not smooth:
        return f"{said}, for {where}{' there' if kinks_shown else ''}"
    return f"the derivative at {smooth} and, at {total} where {where}, {said}"


def _others(report: AuditReport, standings: Sequence[Standing]) -> list[str]:
    """The same of each selection."""
    too, sentences = [], []
    for selection in report.selections:
        found = [
            point.standing
            for point in report.points
            if point.selection == selection and point.standing is not None
        ]
        if not found or selection == report.reference:
            continue
        judged = _judged(found)
        right, wrong, undecided = judged
        if judged == _judged(standings) and not wrong:
            too += [selection] if right and not undecided else []
            continue
        words = zip(("right", "wrong", "undecided"), judged, strict=True)
        one = sum(judged) == len(standings) == 1
        counted = listed([word if one else f"{word} at {count}" for word, count in words if count])
        sentences.append(f"Under {selection} it is {counted}.")
    return [*([f"Right under {listed(too)} too."] if too else []), *sentences]


def _of_rounding(report: AuditReport) -> list[str]:
    """What is tied in a precision and not over the reals."""
    alone: Counter[str] = Counter()
    for site in report.sites:
        alone[site.precision] += site.rounding or 0
    counted = [f"{count:,} at {name}" for name, count in alone.items() if count]
    if not counted:
        return []
    return [
        f"Of the live ties {listed(counted)} are there by rounding alone: the branch taken may be "
        "another than the active one."
    ]
