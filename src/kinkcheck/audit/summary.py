"""What the points of an audit come to: one summary a precision and selection."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from kinkcheck.audit import intervals
from kinkcheck.measure.records import Lift, Point
from kinkcheck.measure.standing.records import Kind, Standing
from kinkcheck.measure.zones import PUBLISHED_THRESHOLDS, Zone
from kinkcheck.ranges import require_confidence


@dataclass(frozen=True)
class ZoneShare:
    """How many of the points that a classifier judged lie in one zone.

    Attributes:
        count: points in the zone.
        proportion: ``count`` divided by the points judged.
        interval: its confidence interval, by the summary's ``interval_method``.
    """

    count: int
    proportion: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest of a number over points.

    Attributes:
        min, median, max: over the points that have the number.
        left_out: points that do not have it: not measured, or not a number (0 divided by 0, or a
            gradient that is not finite).
    """

    min: float
    median: float
    max: float
    left_out: int


@dataclass(frozen=True)
class Summary:
    """All points of one precision and selection.

    Proportions are of the points that the classifier judged; ``..._left_out`` says how many it did
    not judge. Points that are not finite are judged, and are a zone of their own. A classifier that
    judged none of the finite points, because it was not asked or has no threshold, has no zones.

    Attributes:
        precision: name of the precision.
        selection: the selection whose gradient is compared with the reference's.
        points: points in all.
        non_finite: points whose gradient is not finite, judged or not.
        zones: share of every zone by the lift, zones without points included.
        zones_by_standing: points, of these, that were not lifted: the precision itself told that
            the loss has no kink there.
        zones_left_out: points that the lift did not judge.
        zones_by_threshold: the same by the published threshold.
        zones_by_threshold_left_out: points that the threshold did not judge.
        confidence: of every interval.
        interval_method: ``Clopper-Pearson`` or ``McDiarmid``: see
            :mod:`kinkcheck.audit.intervals`.
        threshold: the published τ_ω; None if the precision has none.
        threshold_source: ``published``, or None. It is held against ``variation.linf_by_tensor``.
        threshold_measured: the measured τ_ω, the largest noise floor in the same norm over points:
            what differs by no more need not be a difference over the reals; None if not measured.
        variation: spread of ``variation.relative_l1``.
        noise: spread of the noise floor in l1 relative to the gradient; None if not measured.
        error_reference: spread of the rounding error of the reference's gradient, l1; None without
            a lift, as what follows.
        error_selection: the same of the selection's gradient.
        variation_in_errors: spread of ``variation.l1`` divided by the rounding error of the
            reference's gradient: far below 1 the choice is lost in it, unless it moves
            other parameters than those that round.
        error_ratio: spread of the selection's rounding error divided by the reference's: above 1
            the selection's gradient is farther from the lifted one than the reference's.
        above_measured: the points whose variation exceeds ``threshold_measured``, of those that are
            finite; None if not measured, or none is.
        standings: share of every kind of standing of the selection's gradient; empty if nobody
            looked.
        reference_standings: the same of the reference's gradient.
        standings_left_out: points whose standing is not known, not even as undecided.
        judge: what the zones by the lift rest on: ``float64``, ``exact`` (the exact arbiter), or
            ``noise floor`` for float64 points, which no higher precision judged; None without.
    """

    precision: str
    selection: str
    points: int
    non_finite: int
    zones: dict[str, ZoneShare]
    zones_left_out: int
    zones_by_threshold: dict[str, ZoneShare]
    zones_by_threshold_left_out: int
    confidence: float
    interval_method: str
    threshold: float | None
    threshold_source: str | None
    threshold_measured: float | None
    variation: Spread | None
    noise: Spread | None
    error_reference: Spread | None
    error_selection: Spread | None
    variation_in_errors: Spread | None
    error_ratio: Spread | None
    above_measured: ZoneShare | None = None
    judge: str | None = None
    standings: dict[str, ZoneShare] = field(default_factory=dict)
    reference_standings: dict[str, ZoneShare] = field(default_factory=dict)
    standings_left_out: int = 0
    zones_by_standing: int = 0


def summarise(points: Sequence[Point], *, confidence: float = 0.95) -> list[Summary]:
    """Summarise points, by precision and selection in the order in which they first appear.

    :func:`dataclasses.asdict` turns each into an entry of ``"summary"`` in the JSON of an audit.

    Args:
        points: of any number of precisions and selections; may be empty.
        confidence: of every interval, between 0 and 1.

    Raises:
        InputError: ``confidence`` is out of range.

    >>> from kinkcheck.audit import Variation
    >>> d = Variation(5e-3, 5e-3, 5e-3, 5e-3, 1e-3)
    >>> point = Point("float16", 0, 0, "minimal", 2.3, 5.0, d, zone=Zone.COMPENSATION)
    >>> (summary,) = summarise([point])
    >>> summary.zones["compensation"]
    ZoneShare(count=1, proportion=1.0, interval=(0.025..., 1.0))
    """
    require_confidence(confidence)
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        groups.setdefault((point.precision, point.selection), []).append(point)
    return [_summary(*key, group, confidence) for key, group in groups.items()]


def _summary(precision: str, selection: str, points: list[Point], confidence: float) -> Summary:
    method = intervals.method_for([(point.draw, point.batch) for point in points])
    zones, left_out = _shares(Zone, [(p, p.zone) for p in points], method, confidence)
    by_threshold, left_out_by_threshold = _shares(
        Zone, [(p, p.zone_by_threshold) for p in points], method, confidence
    )
    standings, unknown = _shares(Kind, [(p, _kind(p.standing)) for p in points], method, confidence)
    of_reference, _ = _shares(
        Kind, [(p, _kind(p.reference_standing)) for p in points], method, confidence
    )
    threshold = PUBLISHED_THRESHOLDS.get(precision)
    lifts = [point.lift for point in points]
    noise = [point.noise for point in points]
    measured = _largest(None if n is None else n.linf_by_tensor for n in noise)
    return Summary(
        precision=precision,
        selection=selection,
        points=len(points),
        non_finite=sum(map(_non_finite, points)),
        zones=zones,
        zones_left_out=left_out,
        zones_by_threshold=by_threshold,
        zones_by_threshold_left_out=left_out_by_threshold,
        confidence=confidence,
        interval_method=method,
        threshold=threshold,
        threshold_source=None if threshold is None else "published",
        threshold_measured=measured,
        variation=_spread([point.variation.relative_l1 for point in points]),
        noise=_spread([None if n is None else n.relative_l1 for n in noise]),
        error_reference=_spread([None if e is None else e.error_reference_l1 for e in lifts]),
        error_selection=_spread([None if e is None else e.error_selection_l1 for e in lifts]),
        variation_in_errors=_spread(
            [
                None if e is None else ratio(point.variation.l1, e.error_reference_l1)
                for point, e in zip(points, lifts, strict=True)
            ]
        ),
        error_ratio=_spread(
            [
                None if e is None else ratio(e.error_selection_l1, e.error_reference_l1)
                for e in lifts
            ]
        ),
        above_measured=_above(points, measured, method, confidence),
        judge=_judge(precision, lifts),
        standings=standings,
        reference_standings=of_reference,
        standings_left_out=unknown,
        zones_by_standing=sum(
            p.lift is None and p.zone in (Zone.AGREEMENT, Zone.COMPENSATION) for p in points
        ),
    )


def _kind(standing: Standing | None) -> Kind | None:
    return None if standing is None else standing.kind


def _shares(
    kinds: type[StrEnum],
    judged: Sequence[tuple[Point, StrEnum | None]],
    method: str,
    confidence: float,
) -> tuple[dict[str, ZoneShare], int]:
    """The share of every zone or kind, and how many points are in none."""
    found = [(zone, (point.draw, point.batch)) for point, zone in judged if zone is not None]
    left_out = len(judged) - len(found)
    # A classifier that judged only what is not finite does not know how large a share that is.
    if not found or (left_out and all(zone is Zone.NON_FINITE for zone, _ in found)):
        return {}, len(judged)
    cells = [cell for _, cell in found]
    shares = {}
    for each in kinds:
        count = sum(zone is each for zone, _ in found)
        share = intervals.estimate(count, cells, confidence, method=method)
        shares[each.value] = ZoneShare(count, share.proportion, share.interval)
    return shares, left_out


def _above(
    points: list[Point], threshold: float | None, method: str, confidence: float
) -> ZoneShare | None:
    """The share of the finite points whose variation exceeds a threshold."""
    finite = [point for point in points if math.isfinite(point.variation.linf_by_tensor)]
    if threshold is None or not finite:
        return None
    count = sum(point.variation.linf_by_tensor > threshold for point in finite)
    cells = [(point.draw, point.batch) for point in finite]
    share = intervals.estimate(count, cells, confidence, method=method)
    return ZoneShare(count, share.proportion, share.interval)


def _judge(precision: str, lifts: Sequence[Lift | None]) -> str | None:
    judges = {lift.precision for lift in lifts if lift is not None}
    names = sorted("noise floor" if judge == precision else judge for judge in judges)
    return ", ".join(names) or None


def _non_finite(point: Point) -> bool:
    return (
        Zone.NON_FINITE in (point.zone, point.zone_by_threshold)
        or not math.isfinite(point.gradient_l1)
        or not math.isfinite(point.variation.l1)
    )


def _spread(values: Sequence[float | None]) -> Spread | None:
    """None if no point has the number."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    if not known:
        return None
    middle = statistics.median(known)
    return Spread(min(known), middle, max(known), len(values) - len(known))


def _largest(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return max(known, default=None)


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """A quotient: infinite if only the denominator is 0, NaN if both are, None if one is unknown.

    >>> ratio(1.0, 2.0), ratio(1.0, 0.0), ratio(0.0, 0.0), ratio(1.0, None)
    (0.5, inf, nan, None)
    """
    if numerator is None or denominator is None:
        return None
    if denominator == 0:
        return math.nan if numerator == 0 or math.isnan(numerator) else math.inf
    return numerator / denominator
