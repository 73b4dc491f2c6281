"""The answer of an audit in one line."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from kinkcheck.audit.effect import Effect, Place, effects, is_finite, place
from kinkcheck.audit.report import AuditReport
from kinkcheck.audit.standings import no_tie_lives
from kinkcheck.audit.verdict import is_one_choice, kept, part
from kinkcheck.audit.words import listed
from kinkcheck.measure.standing.records import STANDS, Kind


class Answer(StrEnum):
    """What an audit answers; :func:`headline` has the rule."""

    RIGHT = "RIGHT"
    DOES_NOT_MATTER = "DOES NOT MATTER"
    LOOK_HERE = "LOOK HERE"
    CANNOT_SAY = "CANNOT SAY"


@dataclass(frozen=True)
class Headline:
    """The answer of an audit, and what it rests on.

    Attributes:
        kind: the answer.
        text: what was found, and at how many points; a precision, a parameter draw and a mini-batch
            are a point.

    >>> print(Headline(Answer.RIGHT, "right at 2 of 2 points; the same under native and minimal"))
    RIGHT: right at 2 of 2 points; the same under native and minimal
    """

    kind: Answer
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def headline(report: AuditReport) -> Headline:
    """The answer of an audit in one line: the first of these whose condition holds.

    ``LOOK HERE``: at some point the gradient is wrong, or not finite, or the choice at kinks moves
    it by as much as rounding does, or more (:class:`~kinkcheck.audit.effect.Effect`).

    ``CANNOT SAY``: no kink that kinkcheck recognises was met; or at some point nobody knows whether
    the gradient is right, or how far the choice moves it; or its rounding error is as large as it
    is where ties are rounding alone; or something with kinks or jumps was not switched.

    ``DOES NOT MATTER``: the gradient is right at every point (the derivative, a limit or between
    limits), and the choice moves it at some, nowhere over the reals, and by less than rounding does
    anyway.

    ``RIGHT``: it is right at every point, and the choice moves it at none; or it moves it over the
    reals, by less than the rounding error of the whole gradient. Whether that matters nobody knows:
    the rounding may be in other parameters.

    Right is meant of the reference's gradient; the choice is between the selections that were
    compared, at the operations that were switched; what is not recognised as a kink nobody looked
    at.

    >>> names = ("0.1.0", "2.13.0", "cpu", "linear", "batches")
    >>> print(headline(AuditReport(*names, 0, "native", ["minimal"], [], [], [])))
    CANNOT SAY: no kink that kinkcheck recognises was met
    """
    standings = _standings(report)
    moves = effects(report.points)
    states = Counter(standings.values())
    matter = [at for at, effect in moves.items() if effect is Effect.MATTERS]
    not_switched = _not_switched(report)
    known = [_counted(states, len(standings))] if report.sites or states["not finite"] else []
    if states["wrong"] or states["not finite"] or matter:
        return Headline(Answer.LOOK_HERE, "; ".join([*known, *_weighed(report, matter)]))
    if not report.sites:
        none = "no kink that kinkcheck recognises was met"
        return Headline(Answer.CANNOT_SAY, "; ".join([none, *not_switched]))
    unknown = sum(effect is Effect.UNKNOWN for effect in moves.values())
    none_left = _none_left(report)
    if states["right"] < len(standings) or unknown or none_left or not_switched or not standings:
        weighing = [f"at {unknown} nobody knows how far the choice moves it"] if unknown else []
        if none_left:
            weighing.append(f"at {none_left} rounding makes ties, and outweighs the gradient")
        return Headline(Answer.CANNOT_SAY, "; ".join([*known, *weighing, *not_switched]))
    of = f" at kinks of {listed(report.operations)}" if report.operations else ""
    lost, below = (
        sum(effect is each for effect in moves.values()) for each in (Effect.ROUNDING, Effect.BELOW)
    )
    moved = [f"the choice{of} is lost in rounding at {lost}"] if lost else []
    if below:
        by = f"it by less than the rounding error of the whole gradient at {below}"
        moved += [f"and moves {by}" if lost else f"the choice{of} moves {by}"]
    if moved:
        kind = Answer.RIGHT if below else Answer.DOES_NOT_MATTER
        return Headline(kind, "; ".join([*known, " ".join(moved)]))
    if not any(each.reference_standing and each.reference_standing.ties for each in report.points):
        return Headline(Answer.RIGHT, f"{known[0]}; {no_tie_lives(report)}")
    compared = listed(list(dict.fromkeys([report.reference, *report.selections])))
    if is_one_choice(report):
        return Headline(Answer.RIGHT, f"{known[0]}; {compared} are one choice at its live ties")
    return Headline(Answer.RIGHT, f"{known[0]}; the same under {compared}{of}")


_STATES = ("wrong", "not finite", "right", "undecided", "not judged")


def _standings(report: AuditReport) -> dict[Place, str]:
    """What the reference's gradient is at each place, in a word of ``_STATES``."""
    found: dict[Place, str] = {}
    for point in report.points:
        standing = point.reference_standing
        if not math.isfinite(point.gradient_l1 + point.loss):
            found[place(point)] = "not finite"
        elif standing is not None:
            named = {Kind.WRONG: "wrong", **dict.fromkeys(STANDS, "right")}
            found[place(point)] = named.get(standing.kind, "undecided")
        else:
            found.setdefault(place(point), "not judged")
    return found


def _counted(states: Counter[str], total: int) -> str:
    """Of which kind how many points are, the worst first."""
    counted = [f"{state} at {states[state]}" for state in _STATES if states[state]]
    if not counted:
        return "no point was measured"
    if total == 1:
        return counted[0].replace("at 1", "at the one point")
    first, *others = counted
    return ", ".join([f"{first} of {total} points", *others])


def _weighed(report: AuditReport, matter: list[Place]) -> list[str]:
    """Where the choice matters, and how far it moves the gradient there."""
    if not matter:
        return []
    precisions = list(dict.fromkeys(name for name, _, _ in matter))
    several = len({each.precision for each in report.points}) > 1
    named = f" ({listed(precisions)})" if several else ""
    largest = max(
        each.variation.relative_l1
        for each in report.points
        if place(each) in matter and is_finite(each) and each.variation.l1
    )
    return [f"at {len(matter)}{named} the choice outweighs rounding, moving it by {part(largest)}"]


def _none_left(report: AuditReport) -> int:
    """At how many places ties are rounding alone and no digit of the reference's gradient is left.

    What stands there is a gradient through other branches than those that were taken.
    """
    alone = {site.precision for site in report.sites if site.rounding}
    errors = {
        place(point): (point.lift.error_reference_l1, point.gradient_l1)
        for point in report.points
        if point.precision in alone
        and point.lift is not None
        and point.lift.error_reference_l1 is not None
    }
    return sum(0 < error >= gradient for error, gradient in errors.values())


def _not_switched(report: AuditReport) -> list[str]:
    """What has kinks or jumps, or may have, and kept its own derivative."""
    unseen = [each.operation for each in report.unseen]
    first, *others = dict.fromkeys([*unseen, *kept(report)]) or [""]
    more = f" and {len(others)} more" if others else ""
    return [f"not switched: {first}{more}"] if first else []
