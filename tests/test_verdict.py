"""The sentence that closes an audit: its rules, and the words that a reader acts on."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from kinkcheck.audit import AuditReport, LeftOut, Point, SiteCount, UnseenCount, Variation
from kinkcheck.audit.verdict import verdict
from kinkcheck.measure.records import Lift
from kinkcheck.measure.zones import Zone

SITE = SiteCount("float32", "features.2", "max_pool2d", 0, 100, 60, 40, None, converts=True)
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


def test_without_sites_nothing_is_claimed_of_kinks_that_are_not_recognised() -> None:
    assert verdict(report(still(), sites=())) == (
        "No kink that kinkcheck recognises was met in my-network: it had no choice to switch."
    )


def test_gradient_that_never_moved_says_so_with_the_number_of_points() -> None:
    text = verdict(report(still(), still("float64")))
    assert text.startswith("The gradient did not move at any of 2 points")
    assert "does not matter" in text


@pytest.mark.parametrize(
    ("converts", "advice"),
    [
        ([True, True], "kinkcheck.nn.convert, or"),
        ([True, False], "kinkcheck.nn.convert (functional calls: kinkcheck.record), or"),
        ([False, False], "kinkcheck.record, or"),
        ([None, None], "kinkcheck.record, or"),
    ],
)
def test_modules_are_advised_for_calls_that_they_make(
    converts: list[bool | None], advice: str
) -> None:
    sites = tuple(replace(SITE, converts=each) for each in converts)
    without_ties = replace(SITE, tied=0, converts=False)
    assert f"a name with {advice}" in verdict(
        report(point("float32", 1.0), sites=(*sites, without_ties))
    )


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
@pytest.mark.parametrize("layer", [None, "", "features.0"])
def test_variation_that_is_not_a_number_is_never_called_rounding(
    broken: float, place: int, layer: str | None
) -> None:
    points = [point("float32", 1e-9)]
    points.insert(place, replace(point("float32", broken, l1=broken), non_finite_layer=layer))
    text = verdict(report(*points))
    assert "moves the gradient at 1 of 1 points" in text
    where = {None: "", "": ", first in (root)", "features.0": ", first in features.0"}[layer]
    assert text.endswith(f" At 1 of 2 points a gradient is not finite{where}.")


@pytest.mark.parametrize(
    ("operation", "lifted", "words"),
    [
        ("sqrt", True, "(the derivative of sqrt); so it is in float64, where a higher precision"),
        (None, True, "it is the function that is not finite there"),
        ("sqrt", False, "in float64 it is: scale the loss, or compute in a higher precision."),
    ],
)
def test_a_higher_precision_is_advised_only_where_it_helps(
    operation: str | None, lifted: bool, words: str
) -> None:
    wrong = replace(
        point("float16", math.nan, l1=math.nan),
        non_finite_layer="0",
        non_finite_operation=operation,
        non_finite_lifted=lifted,
    )
    text = verdict(report(wrong, sites=()))
    assert text.startswith("Nothing is known of the choice at kinks: no gradient is finite. At 1 ")
    assert words in text
    assert ("scale the loss" in text) == (not lifted)
    assert "recognises" not in text
    assert "matter" not in text


def test_what_was_left_out_is_said_with_the_reason() -> None:
    seen = replace(report(still()), left_out=[LeftOut("the noise floor: no samples", 3)])
    assert "Not measured at 3 points: the noise floor: no samples." in verdict(seen)


def test_gradient_without_size_moves_by_more_than_rounding() -> None:
    assert "more than rounding at float32" in verdict(report(point("float32", math.inf)))


# --- lifted points --------------------------------------------------------------------------------


def lifted(
    zone: Zone,
    precision: str = "float16",
    *,
    relative: float = 4e-3,
    error: float | None = 10.0,
    truly: float = 1e-16,
    judge: str = "float64",
) -> Point:
    lift = Lift(judge, truly, 1e-16, truly / 1e-16, error, error)
    return replace(point(precision, relative), zone=zone, lift=lift)


COMPENSATION, BIFURCATION, UNDECIDED = Zone.COMPENSATION, Zone.BIFURCATION, Zone.UNDECIDED


def test_all_of_it_is_rounding_only_if_every_point_that_moved_is_certified() -> None:
    text = verdict(report(*[lifted(COMPENSATION)] * 3, still()))
    assert (
        "moves the gradient at 3 of 4 points, by at most 0.4 % of its l1 norm at float16." in text
    )
    assert "All of it is rounding" in text
    assert "(3 of 3 points certified compensation)" in text
    for other in (BIFURCATION, UNDECIDED):
        assert "All of it is rounding" not in verdict(report(lifted(COMPENSATION), lifted(other)))


def test_float64_points_are_named_unless_exact_arithmetic_judged_them() -> None:
    by_noise = lifted(COMPENSATION, "float64", error=None)
    named = ", those at float64 by their own noise floor alone)"
    assert named in verdict(report(lifted(COMPENSATION), by_noise))
    exact = lifted(COMPENSATION, "float64", error=None, judge="exact")
    assert named not in verdict(report(lifted(COMPENSATION), exact))


def test_true_bifurcations_are_counted_by_precision_with_the_largest() -> None:
    text = verdict(
        report(
            lifted(BIFURCATION, truly=2e-6),
            lifted(BIFURCATION, truly=3e-7),
            lifted(COMPENSATION),
            lifted(BIFURCATION, "float32", truly=1e-7),
            lifted(UNDECIDED, "float32"),
        )
    )
    assert (
        "At 3 of these points (2 of 3 at float16 and 1 of 2 at float32) the programs differ over "
        "the reals as well, by at most 2.0e-06 of the gradient: true bifurcations"
    ) in text
    assert "1 points are undecided" in text
    assert "rest is rounding" not in text
    assert "; the rest is rounding." in verdict(report(lifted(BIFURCATION), lifted(COMPENSATION)))
    assert "rest is rounding" not in verdict(report(lifted(BIFURCATION)))


def test_advice_depends_on_whether_the_variation_reaches_the_error() -> None:
    below = report(lifted(COMPENSATION, error=4.0), lifted(COMPENSATION, error=2.0))
    text = verdict(below)
    assert "it moves at the median point by 0.38 at float16 (at most 0.5)" in text
    assert "lost in rounding: to name one, such as minimal" in text
    above = report(lifted(COMPENSATION, error=4.0), lifted(COMPENSATION, error=1.0))
    text = verdict(above)
    assert "At 1 of 2 points at float16 the choice matters as much as rounding does" in text
    assert "lost in rounding" not in text
    # An error of 0 is the smallest there is.
    text = verdict(report(lifted(COMPENSATION, error=10.0), lifted(COMPENSATION, error=0.0)))
    assert "(at most inf)" in text
    assert "At 1 of 2 points at float16 the choice matters" in text
    # float64 points have no error to compare with, and so no advice.
    text = verdict(report(lifted(COMPENSATION, "float64", error=None)))
    assert "rounding error" not in text
    assert "lost in rounding" not in text
    double = lifted(BIFURCATION, "float64", error=None, truly=1e-4)
    text = verdict(report(lifted(COMPENSATION), double))
    assert "At float16 the choice is lost in rounding" in text


@pytest.mark.parametrize(
    ("relative", "words"),
    [(2.0, "200 %"), (0.4, "40 %"), (0.042, "4 %"), (1e-3, "0.1 %"), (9e-6, "9.0e-06")],
)
def test_parts_are_per_cent_where_that_reads_well(relative: float, words: str) -> None:
    assert f"by at most {words} of its l1 norm" in verdict(
        report(lifted(COMPENSATION, relative=relative))
    )


def test_bifurcation_of_no_gradient_at_all_is_said() -> None:
    found = replace(lifted(BIFURCATION, relative=math.inf), gradient_l1=0.0)
    assert "more than all (the reference's is 0)" in verdict(report(found))


def test_rules_in_the_docs_are_those_of_the_docstring() -> None:
    page = (Path(__file__).parent.parent / "docs" / "zones.md").read_text(encoding="utf-8")
    rules = " ".join(page[page.index("1. no point is finite") :].split())
    assert verdict.__doc__ is not None
    assert rules in " ".join(verdict.__doc__.split())


def test_dead_ties_are_a_part_of_those_whose_cause_is_known() -> None:
    site = replace(SITE, dead=30, exact=6, rounding=4, cause_unknown=20)
    other = replace(site, layer="features.6", dead=40)
    text = verdict(report(lifted(COMPENSATION), sites=(site, other)))
    assert " 88 % of the ties are dead: no choice there reaches a parameter." in text
    assert "100 % of the others are at features.2 (max_pool2d)." in text
    assert "All ties are dead" in verdict(report(lifted(COMPENSATION), sites=(other,)))
    assert "dead" not in verdict(report(lifted(COMPENSATION)))


@pytest.mark.parametrize(
    "seen", [report(still(), sites=()), report(still()), report(point("float32", 1e-9))]
)
def test_what_was_not_switched_is_named_whatever_else_is_said(seen: AuditReport) -> None:
    beware = "Not switched, though it may have kinks or jumps: leaky_relu in act."
    assert "Not switched" not in verdict(seen)
    seen.unseen.append(UNSEEN)
    assert verdict(seen).endswith(beware)
    assert "does not matter" not in verdict(seen)


@pytest.mark.parametrize(
    ("selections", "kept"),
    [(["branch:0.5"], True), (["native"], True), (["branch:0.5", "last"], False)],
)
def test_ties_that_no_selection_switches_are_never_called_harmless(
    selections: list[str], kept: bool
) -> None:
    rectifier = replace(SITE, operation="relu", tied=0)
    seen = replace(report(still(), sites=(SITE, rectifier)), selections=selections)
    assert ("The ties of max_pool2d were not switched" in verdict(seen)) == kept
    assert ("does not matter" in verdict(seen)) != kept


def test_many_operations_that_were_not_switched_are_counted() -> None:
    unseen = [replace(UNSEEN, operation=name, layer=name * 2) for name in "abcde"]
    again = replace(unseen[0], layer="last")
    text = verdict(report(still(), unseen=(*unseen, again)))
    assert text.endswith(": a in aa and 1 more layer, b in bb, c in cc and 2 other operations.")
