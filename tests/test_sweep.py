"""The smallest precision that will do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from kinkcheck.audit import AuditReport, Point, Variation
from kinkcheck.audit.sweep import ORDER, smallest_precision
from kinkcheck.errors import InputError
from kinkcheck.measure.zones import Zone


def point(precision: str, l1: float, gradient: float = 2.0, selection: str = "minimal") -> Point:
    relative = l1 / gradient if gradient else math.nan if l1 == 0 else math.inf
    return Point(precision, 0, 0, selection, 2.3, gradient, Variation(l1, l1, l1, l1, relative))


LADDER = [
    point("float64", 2e-16),
    point("bfloat16", 2e-2),
    point("float32", 2e-7),
    point("float16", 2e-3),
]


@pytest.mark.parametrize(
    ("tolerance", "expected"),
    [
        (1.0, "float16"),
        (1e-3, "float16"),
        (0.9e-3, "float32"),
        (1e-7, "float32"),
        (1e-8, "float64"),
        (1e-16, "float64"),
        (1e-17, None),
        (0, None),
    ],
)
def test_the_first_precision_within_the_tolerance(tolerance: float, expected: str | None) -> None:
    assert smallest_precision(LADDER, tolerance) == expected


def test_every_point_and_selection_counts() -> None:
    points = [point("float16", 0), point("float16", 1e-2, selection="last"), point("float32", 0)]
    assert smallest_precision(points, 1e-3) == "float32"
    assert smallest_precision(points[:1], 1e-3) == "float16"


def test_of_two_with_16_bits_the_one_that_rounds_less_comes_first() -> None:
    assert smallest_precision([point("bfloat16", 0), point("float16", 0)], 0) == "float16"
    assert smallest_precision([point("bfloat16", 0), point("float16", 1)], 0) == "bfloat16"
    assert ORDER == ("float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize(
    "bad",
    [
        point("float16", math.nan, math.inf),
        point("float16", math.nan, math.nan),
        point("float16", math.inf),
        point("float16", 1e-9, 0.0),
        replace(point("float16", 0), zone=Zone.NON_FINITE),
    ],
)
def test_what_is_not_finite_disqualifies(bad: Point) -> None:
    points = [point("float16", 0), bad, point("bfloat16", 0)]
    assert smallest_precision(points, 1.0) == "bfloat16"


def test_no_gradient_and_no_variation_is_no_variation() -> None:
    assert smallest_precision([point("float32", 0, 0.0)], 0) == "float32"


def test_precisions_that_were_not_audited_and_mixed_are_passed_over() -> None:
    assert smallest_precision([point("mixed", 0), point("float64", 0)], 0) == "float64"
    assert smallest_precision([point("mixed", 0)], 0) is None
    assert smallest_precision([], 1.0) is None


def test_a_report_will_do() -> None:
    report = AuditReport("0", "0", "cpu", "n", "d", 0, "native", ["minimal"], LADDER, [], [])
    assert smallest_precision(report, 1e-6) == "float32"


@pytest.mark.parametrize("tolerance", [-1e-9, math.inf, math.nan])
def test_refused(tolerance: float) -> None:
    with pytest.raises(InputError, match="tolerance must be a number of at least 0"):
        smallest_precision(LADDER, tolerance)
