"""Whether the choice at kinks matters at a point, beside what rounding does there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum

from kinkcheck.arithmetic import precision
from kinkcheck.audit.summary import ratio
from kinkcheck.measure.records import Point
from kinkcheck.measure.standing.records import Kind
from kinkcheck.measure.zones import Zone

ROUNDING = 10
"""Unit roundoffs that count as rounding where nothing better was measured."""

Place = tuple[str, int, int]
"""What is counted as a point, whatever was chosen there: a precision, a draw and a mini-batch."""


def place(point: Point) -> Place:
    """Where a point is.

    >>> from kinkcheck.measure.variation import Variation
    >>> place(Point("float32", 0, 3, "minimal", 2.3, 5.0, Variation(0.0, 0.0, 0.0, 0.0, 0.0)))
    ('float32', 0, 3)
    """
    return point.precision, point.draw, point.batch


def places(points: Sequence[Point]) -> set[Place]:
    """Where points are, each once.

    >>> places([])
    set()
    """
    return set(map(place, points))


def is_finite(point: Point) -> bool:
    """Whether the gradient and its variation are.

    >>> from kinkcheck.measure.variation import Variation
    >>> broken = Variation(*[math.nan] * 5)
    >>> is_finite(Point("float32", 0, 0, "minimal", 2.3, 5.0, broken))
    False
    """
    return math.isfinite(point.gradient_l1) and math.isfinite(point.variation.l1)


def roundings(relative: float, name: str) -> float:
    """A variation, relative to the gradient, in unit roundoffs of a precision.

    >>> roundings(2.0**-23, "float32")
    2.0
    """
    return relative / precision.parse(name).unit_roundoff


def is_rounding(point: Point) -> bool:
    """Whether the two gradients of a point are known to be one over the reals.

    >>> from kinkcheck.measure.variation import Variation
    >>> is_rounding(Point("float32", 0, 0, "minimal", 2.3, 5.0, Variation(*[0.0] * 5)))
    False
    """
    if point.zone is not None:
        return point.zone in (Zone.AGREEMENT, Zone.COMPENSATION)
    standings = point.standing, point.reference_standing
    return all(each is not None and each.kind is Kind.DERIVATIVE for each in standings)


class Effect(IntEnum):
    """What the choice does to the gradient, from the least that is to be said to the most.

    ``NONE``: nothing. ``ROUNDING``: over the reals it does not move it, in the precision by less
    than rounding does anyway. ``BELOW``: over the reals it moves it, as far as anybody knows, by
    less than the rounding error of the whole gradient; that may sit in other parameters than what
    moves. ``UNKNOWN``: it moves it, nobody knows how far that is beside rounding. ``MATTERS``: by
    as much as rounding does, or more.
    """

    NONE = 0
    ROUNDING = 1
    BELOW = 2
    UNKNOWN = 3
    MATTERS = 4


def effects(points: Sequence[Point]) -> dict[Place, Effect]:
    """What the choice does at each place, by the selection that does most.

    The measure is the rounding error of the reference's gradient (:class:`Yardstick`). Where there
    is none, which is so of float64, the zone tells: compensation is rounding, bifurcation is not.
    Where there is neither, up to 10 unit roundoffs are rounding.

    >>> effects([])
    {}
    """
    yardsticks = {
        name: Yardstick([each for each in points if each.precision == name])
        for name in {each.precision for each in points}
    }
    found: dict[Place, Effect] = {}
    for point in points:
        at = place(point)
        found[at] = max(found.get(at, Effect.NONE), _effect(point, yardsticks[point.precision]))
    return found


def _effect(point: Point, yardstick: Yardstick) -> Effect:
    if not is_finite(point):
        return Effect.UNKNOWN
    if point.variation.l1 == 0:
        return Effect.NONE
    below = Effect.ROUNDING if is_rounding(point) else Effect.BELOW
    errors = yardstick.errors(point)
    if errors is not None:
        return Effect.MATTERS if errors >= 1 else below
    if point.zone is None and point.precision in precision.PRECISIONS:
        beyond = roundings(point.variation.relative_l1, point.precision) > ROUNDING
        return Effect.MATTERS if beyond else below
    by_zone = {Zone.COMPENSATION: Effect.ROUNDING, Zone.BIFURCATION: Effect.MATTERS}
    return Effect.UNKNOWN if point.zone is None else by_zone.get(point.zone, Effect.UNKNOWN)


class Yardstick:
    """The rounding error of the reference's gradient in one precision.

    Args:
        points: those of the precision.

    Attributes:
        points: how many places there are.
        lifted: at how many of them it was measured; elsewhere it is taken to be, relative to the
            gradient, the least of these.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        errors = {
            (point.draw, point.batch): ratio(point.lift.error_reference_l1, point.gradient_l1)
            for point in points
            if point.lift is not None and point.lift.error_reference_l1 is not None
        }
        self.points = len(places(points))
        self.lifted = len(errors)
        known = [each for each in errors.values() if each is not None and math.isfinite(each)]
        self._least = min(known, default=None)

    def errors(self, point: Point) -> float | None:
        """The variation in units of it; None if it is not known, or neither is there."""
        if point.lift is not None:
            found = ratio(point.variation.l1, point.lift.error_reference_l1)
        else:
            found = ratio(point.variation.relative_l1, self._least)
        return None if found is None or math.isnan(found) else found
