"""The sentence that closes an audit: its rules, and the words that a reader acts on."""

import math

import pytest

from kinkcheck.audit import AuditReport, Point, SiteCount, UnseenCount, Variation
from kinkcheck.audit.verdict import verdict

SITE = SiteCount("float32", "features.2", "max_pool2d", 0, 100, 60, 40, None)
UNSEEN = UnseenCount("act", "leaky_relu", "kinkcheck does not define its branches", 3)

# Unit roundoffs of IEEE 754 and bfloat16.
U = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}


def point(precision: str, relative: float, l1: float = 1.0) -> Point:
    return Point(precision, 0, 0, "minimal", 1.0, 1.0, Variation(l1, l1, l1, l1, relative))


def report(
    *points: Point, sites: tuple[SiteCount, ...] = (SITE,), unseen: tuple[UnseenCount, ...] = ()
) -> AuditReport:
    names = ("0.1.0", "2.13.0", "cpu", "my-network", "digits")
    return AuditReport(*names, 0, "native", ["minimal"], [*points], [*sites], [*unseen])


def still(precision: str = "float32") -> Point:
    return point(precision, 0.0, l1=0.0)


def test_network_without_kinks_depends_on_no_choice() -> None:
    assert verdict(report(still(), sites=())) == (
        "No nonsmooth operation was met: the gradient of my-network depends on no choice at kinks."
    )


def test_gradient_that_never_moved_says_so_with_the_number_of_points() -> None:
    text = verdict(report(still(), still("float64")))
    assert text.startswith("The gradient did not move at any of 2 points")
    assert "does not matter" in text


@pytest.mark.parametrize("precision", U)
@pytest.mark.parametrize(("roundings", "beyond"), [(0.5, False), (10, False), (10.1, True)])
def test_ten_roundings_part_rounding_from_more(
    precision: str, roundings: float, beyond: bool
) -> None:
    text = verdict(report(point(precision, roundings * U[precision]), still(precision)))
    assert "moves the gradient at 1 of 2 points" in text
    assert f"({roundings:.2g} u)" in text
    assert f"{roundings * U[precision]:.1e} of its l1 norm at {precision}" in text
    if beyond:
        assert f"more than rounding at {precision}; " in text
        assert "kinkcheck.nn" in text
        assert "higher precision" in text
    else:
        assert ": the size of rounding (" in text


def test_largest_of_each_precision_counts_and_only_those_beyond_are_blamed() -> None:
    text = verdict(
        report(
            point("float16", 100 * U["float16"]),
            point("float16", 1 * U["float16"]),
            point("float32", 1 * U["float32"]),
            point("float32", 3 * U["float32"]),
            point("bfloat16", 20 * U["bfloat16"]),
        )
    )
    assert "5 of 5 points" in text
    for words in ("float16 (1e+02 u)", "float32 (3 u)", "bfloat16 (20 u)"):
        assert words in text
    assert "more than rounding at float16 and bfloat16;" in text


def test_mixed_is_measured_in_roundings_of_float16() -> None:
    assert "(4 u)" in verdict(report(point("mixed", 4 * U["float16"])))


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_variation_that_is_not_a_number_is_never_called_rounding(broken: float, place: int) -> None:
    points = [point("float32", 1e-9)]
    points.insert(place, point("float32", broken, l1=broken))
    text = verdict(report(*points))
    assert "2 of 2 points" in text
    assert "more than rounding at float32" in text


@pytest.mark.parametrize(
    "seen", [report(still(), sites=()), report(still()), report(point("float32", 1e-9))]
)
def test_unseen_kinks_are_mentioned_whatever_else_is_said(seen: AuditReport) -> None:
    beware = "Kinks listed as unseen were not switched."
    assert beware not in verdict(seen)
    seen.unseen.append(UNSEEN)
    assert verdict(seen).endswith(beware)
