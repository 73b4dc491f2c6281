"""Intervals against exact binomial sums, closed forms and scipy.stats."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from kinkcheck.audit.intervals import Proportion, clopper_pearson, estimate, mcdiarmid, method_for
from kinkcheck.errors import InputError

CONFIDENCES = (0.5, 0.9, 0.95, 0.999)


def binomial(n: int, p: Fraction) -> list[Fraction]:
    """P(X = k) for k = 0, ..., n, exactly."""
    return [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    points = draw(st.integers(1, 60))
    return draw(st.integers(0, points)), points


confidences = st.sampled_from(CONFIDENCES)


@given(counts(), confidences)
def test_limits_have_the_tails_that_define_them(count: tuple[int, int], confidence: float) -> None:
    k, n = count
    low, high = clopper_pearson(k, n, confidence).interval
    tail = pytest.approx((1 - confidence) / 2, rel=1e-9, abs=0)
    assert low == 0 if k == 0 else float(sum(binomial(n, Fraction(low))[k:])) == tail
    assert high == 1 if k == n else float(sum(binomial(n, Fraction(high))[: k + 1])) == tail


@given(counts(), confidences)
def test_clopper_pearson_is_scipys(count: tuple[int, int], confidence: float) -> None:
    expected = binomtest(*count).proportion_ci(confidence, method="exact")
    assert clopper_pearson(*count, confidence).interval == pytest.approx(
        (expected.low, expected.high), rel=1e-9, abs=1e-15
    )


@pytest.mark.parametrize("n", [1, 2, 40, 391])
def test_closed_forms_at_the_ends(n: int) -> None:
    reach = 1 - 0.025 ** (1 / n)
    assert clopper_pearson(0, n).interval == pytest.approx((0, reach), rel=1e-12)
    assert clopper_pearson(n, n).interval == pytest.approx((1 - reach, 1), rel=1e-12)


@given(st.integers(1, 40), st.fractions(0, 1, max_denominator=997), confidences)
def test_clopper_pearson_covers(n: int, p: Fraction, confidence: float) -> None:
    covered = Fraction(0)
    for k, probability in enumerate(binomial(n, p)):
        low, high = clopper_pearson(k, n, confidence).interval
        covered += probability if low <= p <= high else 0
    assert covered >= confidence - 1e-12


@given(counts(), confidences)
def test_the_complement_has_the_mirrored_interval(
    count: tuple[int, int], confidence: float
) -> None:
    k, n = count
    low, high = clopper_pearson(k, n, confidence).interval
    mirrored = clopper_pearson(n - k, n, confidence).interval
    assert mirrored == pytest.approx((1 - high, 1 - low), rel=1e-9, abs=1e-12)


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.fractions(0, 1, max_denominator=97),
    st.fractions(0, 1, max_denominator=97),
    st.sampled_from(["draw", "both", "either"]),
    confidences,
)
def test_mcdiarmid_covers_crossed_points(
    m: int, n: int, p: Fraction, q: Fraction, kind: str, confidence: float
) -> None:
    # A point lies in the zone if its draw is bad, or draw and batch are, or exactly one of them.
    truth = {"draw": p, "both": p * q, "either": p * (1 - q) + q * (1 - p)}[kind]
    covered = Fraction(0)
    for a, of_draws in enumerate(binomial(m, p)):
        for b, of_batches in enumerate(binomial(n, q)):
            count = {"draw": a * n, "both": a * b, "either": a * (n - b) + (m - a) * b}[kind]
            low, high = mcdiarmid(count, m, n, confidence).interval
            covered += of_draws * of_batches if low <= truth <= high else 0
    assert covered >= confidence - 1e-12


@pytest.mark.parametrize(("count", "m", "n"), [(0, 3, 5), (7, 10, 4), (4000, 100, 80)])
@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_mcdiarmid_inverts_the_published_bound(
    count: int, m: int, n: int, confidence: float
) -> None:
    found = mcdiarmid(count, m, n, confidence)
    assert found.points == m * n
    assert found.proportion == count / (m * n)
    for limit, end in zip(found.interval, (0, 1), strict=True):
        t = abs(found.proportion - limit)
        missed = 2 * math.exp(-2 * t**2 / (1 / m + 1 / n))
        assert limit == end or missed == pytest.approx(1 - confidence, rel=1e-9)
        assert 0 <= limit <= 1
    assert found.width == found.interval[1] - found.interval[0]


ROW = [(0, b) for b in range(5)]
COLUMN = [(d, 3) for d in range(5)]
DIAGONAL = [(i, i) for i in range(5)]
GRID = [(d, b) for d in range(2) for b in range(3)]


@pytest.mark.parametrize("cells", [ROW, COLUMN, DIAGONAL, [(0, 0)]])
def test_points_that_share_nothing_drawn_are_independent(cells: list[tuple[int, int]]) -> None:
    assert estimate(1, cells) == clopper_pearson(1, len(cells))


@pytest.mark.parametrize(
    "cells", [GRID, GRID[:-1], [*DIAGONAL, (0, 1)], [(0, 0), (0, 1), (1, 2)], [(0, 0), (0, 0)]]
)
def test_points_that_share_something_drawn_are_crossed(cells: list[tuple[int, int]]) -> None:
    assert method_for(cells) == "McDiarmid"
    assert estimate(1, cells).method == "McDiarmid"


@given(st.integers(2, 12), st.integers(2, 12))
def test_a_whole_grid_has_the_published_bound(m: int, n: int) -> None:
    cells = [(d, b) for d in range(m) for b in range(n)]
    expected = mcdiarmid(3, m, n)
    found = estimate(3, cells)
    assert found.interval == pytest.approx(expected.interval, rel=1e-12)
    assert (found.count, found.points, found.method) == (3, m * n, expected.method)


def test_a_part_of_a_grid_is_bounded_by_what_each_draw_can_change() -> None:
    # Draw 0 has 2 of 3 points, draw 1 one; batches one, one and one.
    found = estimate(0, [(0, 0), (0, 1), (1, 2)], 0.5)
    differences = [2 / 3, 1 / 3, 1 / 3, 1 / 3, 1 / 3]
    t = found.interval[1]
    missed = 2 * math.exp(-2 * t**2 / sum(c * c for c in differences))
    assert missed == pytest.approx(0.5)


def ask(which: str, *arguments: float) -> Proportion:
    by_name = {"clopper_pearson": clopper_pearson, "mcdiarmid": mcdiarmid}
    return by_name[which](*arguments)  # type: ignore[arg-type, operator]


@pytest.mark.parametrize(
    ("which", "arguments", "complaint"),
    [
        ("clopper_pearson", (0, 0), "points must be at least 1, not 0"),
        ("clopper_pearson", (-1, 3), "count must be from 0 to 3, the number of points, not -1"),
        ("clopper_pearson", (4, 3), "count must be from 0 to 3, the number of points, not 4"),
        ("clopper_pearson", (1, 3, 95), "confidence must be between 0 and 1, such as 0.95, not 95"),
        ("clopper_pearson", (1, 3, math.nan), "confidence must be between 0 and 1"),
        ("mcdiarmid", (0, 0, 4), "draws must be at least 1, not 0"),
        ("mcdiarmid", (0, 4, 0), "batches must be at least 1, not 0"),
        ("mcdiarmid", (13, 4, 3), "count must be from 0 to 12"),
        ("mcdiarmid", (1, 4, 3, 1), "confidence must be between 0 and 1"),
    ],
)
def test_refused(which: str, arguments: tuple[float, ...], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        ask(which, *arguments)


def test_no_points_at_all_are_refused() -> None:
    with pytest.raises(InputError, match="points must be at least 1, not 0"):
        estimate(0, [])
