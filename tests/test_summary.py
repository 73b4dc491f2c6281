"""Summaries of points made by hand."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import asdict, is_dataclass, replace
from typing import get_args, get_type_hints

import pytest

from kinkcheck.audit import Lift, Point, Spread, Variation, Zone
from kinkcheck.audit.intervals import clopper_pearson, mcdiarmid
from kinkcheck.audit.summary import summarise
from kinkcheck.errors import InputError


def point(
    batch: int = 0,
    zone: Zone | None = Zone.COMPENSATION,
    threshold: Zone | None = Zone.BIFURCATION,
    *,
    draw: int = 0,
    precision: str = "float16",
    selection: str = "minimal",
    l1: float = 4.0,
    errors: tuple[float, float] | None = (8.0, 2.0),
    noise: float | None = 1.0,
) -> Point:
    def size(l1: float) -> Variation:
        return Variation(l1, l1, l1, l1 / 2, l1 / 10)

    return Point(
        precision, draw, batch, selection, 2.3, 10.0, size(l1), zone, threshold,
        None if errors is None else Lift("float64", 1e-15, 1e-15, 1.0, *errors),
        None if noise is None else size(noise),
    )  # fmt: skip


NAN = Variation(math.nan, math.nan, math.nan, math.nan, math.nan)


def overflowed(batch: int, lifted: bool = True) -> Point:
    found = point(
        batch, Zone.NON_FINITE if lifted else None, Zone.NON_FINITE, errors=None, noise=None
    )
    return replace(found, gradient_l1=math.inf, variation=NAN)


def test_zones_are_counted_with_their_intervals() -> None:
    zones = [Zone.AGREEMENT, *[Zone.COMPENSATION] * 3, Zone.BIFURCATION, Zone.UNDECIDED]
    (found,) = summarise([*map(point, range(6), zones), overflowed(6)])
    expected = {
        "agreement": 1, "compensation": 3, "bifurcation": 1, "undecided": 1, "non-finite": 1,
    }  # fmt: skip
    assert {zone: share.count for zone, share in found.zones.items()} == expected
    for zone, count in expected.items():
        assert found.zones[zone].proportion == count / 7
        assert found.zones[zone].interval == clopper_pearson(count, 7).interval
    assert found.zones_by_threshold["bifurcation"].count == 6
    assert found.zones_by_threshold["non-finite"].count == 1
    assert found.zones_by_threshold["undecided"].count == 0
    assert (found.points, found.non_finite) == (7, 1)
    assert (found.zones_left_out, found.zones_by_threshold_left_out) == (0, 0)
    assert (found.interval_method, found.confidence) == ("Clopper-Pearson", 0.95)


def test_a_proportion_is_of_the_points_judged() -> None:
    points = [point(0), point(1, None), point(2, Zone.BIFURCATION), point(3, None, None)]
    (found,) = summarise(points, confidence=0.8)
    assert found.zones["bifurcation"].count == 1
    assert found.zones["bifurcation"].proportion == 0.5
    assert found.zones["bifurcation"].interval == clopper_pearson(1, 2, 0.8).interval
    assert found.zones_left_out == 2
    assert found.zones_by_threshold["bifurcation"].interval == clopper_pearson(3, 3, 0.8).interval
    assert found.zones_by_threshold_left_out == 1
    assert found.confidence == 0.8


def test_crossed_points_have_mcdiarmids_interval() -> None:
    points = [point(b, draw=d) for d in range(3) for b in range(4)]
    (found,) = summarise(points)
    assert found.interval_method == "McDiarmid"
    assert found.zones["compensation"].interval == pytest.approx(mcdiarmid(12, 3, 4).interval)


def test_a_classifier_that_judged_only_what_is_not_finite_has_no_zones() -> None:
    mixed = [replace(p, precision="mixed") for p in (point(0, None, None), overflowed(1, False))]
    (found,) = summarise(mixed)
    assert found.zones == found.zones_by_threshold == {}
    assert (found.zones_left_out, found.zones_by_threshold_left_out) == (2, 2)
    assert found.non_finite == 1
    assert (found.threshold, found.threshold_source) == (None, None)


def test_where_nothing_is_finite_that_is_the_zone() -> None:
    (found,) = summarise([overflowed(0), overflowed(1)])
    assert found.zones["non-finite"].proportion == 1
    assert found.zones["agreement"].count == 0
    assert found.non_finite == 2
    assert found.variation is None
    assert found.error_ratio is None


def test_precisions_and_selections_stay_apart_in_their_order() -> None:
    kinds = [("float32", "last"), ("float16", "minimal"), ("float32", "minimal")]
    points = [point(b, precision=p, selection=s) for b in range(2) for p, s in kinds]
    found = summarise(points)
    assert [(s.precision, s.selection) for s in found] == kinds
    assert [s.points for s in found] == [2, 2, 2]
    assert [s.threshold for s in found] == [1e-7, 1e-3, 1e-7]
    assert {s.threshold_source for s in found} == {"published"}


def test_spreads() -> None:
    points = [
        point(0, l1=2.0, errors=(8.0, 2.0), noise=1.0),
        point(1, l1=4.0, errors=(2.0, 3.0), noise=0.5),
        point(2, l1=9.0, errors=(0.5, 2.0), noise=7.0),
        point(3, l1=6.0, errors=None, noise=None),
    ]
    (found,) = summarise(points)
    assert found.variation == Spread(0.2, pytest.approx(0.5), 0.9, 0)
    assert found.noise == Spread(0.05, 0.1, 0.7, 1)
    assert found.error_reference == Spread(0.5, 2.0, 8.0, 1)
    assert found.error_selection == Spread(2.0, 2.0, 3.0, 1)
    assert found.variation_in_errors == Spread(0.25, 2.0, 18.0, 1)
    assert found.error_ratio == Spread(0.25, 1.5, 4.0, 1)
    assert found.threshold_measured == 3.5


def test_points_above_the_measured_threshold_are_counted_among_the_finite() -> None:
    # point() has a variation of l1 / 2 and a noise floor of noise / 2 in the norm of thresholds.
    points = [
        point(0, l1=2.0, noise=1.0),
        point(1, l1=4.0, noise=3.0),
        point(2, l1=9.0, noise=None),
    ]
    (found,) = summarise([*points, overflowed(3)])
    assert found.threshold_measured == 1.5
    assert found.above_measured is not None
    assert (found.above_measured.count, found.above_measured.proportion) == (2, 2 / 3)
    assert found.above_measured.interval == clopper_pearson(2, 3).interval


@pytest.mark.parametrize(
    ("precision", "higher", "judge"),
    [
        ("float32", "float64", "float64"),
        ("float64", "float64", "noise floor"),
        ("float64", "exact", "exact"),
        ("float32", None, None),
        ("float32", "float64 exact", "exact, float64"),
    ],
)
def test_what_judged_is_named(precision: str, higher: str | None, judge: str | None) -> None:
    lifts = [Lift(name, 0.0, 1e-16, 0.0, None, None) for name in (higher or "").split()]
    points = [replace(point(precision=precision), lift=lift) for lift in (None, *lifts)]
    (found,) = summarise(points)
    assert found.judge == judge


def test_ratios_of_nothing() -> None:
    points = [point(0, l1=0.0, errors=(0.0, 0.0)), point(1, l1=1.0, errors=(0.0, 1.0))]
    (found,) = summarise(points)
    assert found.error_ratio == found.variation_in_errors == Spread(*[math.inf] * 3, 1)


def test_what_was_not_measured_is_none() -> None:
    (found,) = summarise([point(0, None, errors=None, noise=None)])
    assert found.threshold_measured is found.noise is found.error_ratio is None
    assert found.above_measured is found.judge is None
    assert found.zones == {}
    assert found.zones_left_out == 1
    assert summarise([]) == []


def test_an_entry_of_the_json() -> None:
    entry = json.loads(json.dumps(asdict(summarise([point(0)])[0])))
    assert entry["zones"]["compensation"] == {
        "count": 1,
        "proportion": 1.0,
        "interval": [pytest.approx(0.025), 1.0],
    }
    assert entry["error_ratio"] == {"min": 0.25, "median": 0.25, "max": 0.25, "left_out": 0}
    assert {"confidence", "interval_method", "threshold", "threshold_source"} <= entry.keys()


def test_refused() -> None:
    with pytest.raises(InputError, match="confidence must be between 0 and 1"):
        summarise([], confidence=0)


def test_what_records_hold_is_there_by_name() -> None:
    public = sys.modules["kinkcheck.audit"]  # beside which stands a function of that name
    records = [getattr(public, name) for name in public.__all__]
    for record in filter(is_dataclass, records):
        for held in get_type_hints(record).values():
            named = re.findall(r"kinkcheck\.[\w.]+\.(\w+)", str((held, get_args(held))))
            assert set(named) <= set(public.__all__), record
