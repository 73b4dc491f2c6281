"""What an audit comes to: the rules of its sentences, and the words that a reader acts on."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from kinkcheck import audit
from kinkcheck.audit import AuditReport, LeftOut, Point, SiteCount, UnseenCount, Variation
from kinkcheck.audit.verdict import verdict
from kinkcheck.measure.records import Lift
from kinkcheck.measure.standing.records import Kind, Standing
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
    numbered = [replace(each, batch=number) for number, each in enumerate(points)]
    return AuditReport(*names, 0, "native", ["minimal"], numbered, [*sites], [*unseen])


def still(precision: str = "float32") -> Point:
    return point(precision, 0.0, l1=0.0)


def test_without_sites_nothing_is_claimed_of_kinks_that_are_not_recognised() -> None:
    assert verdict(report(still(), sites=())) == (
        "No kink that kinkcheck recognises was met in my-network: it had no choice to switch."
    )


def test_gradient_that_never_moved_says_so_with_the_number_of_points() -> None:
    text = verdict(report(still(), still("float64")))
    assert text == (
        "The gradient did not move at any of 2 points: here the choice at kinks between native and "
        "minimal does not matter. What was not judged, --lift (in Python lifted=True) judges."
    )


@pytest.mark.parametrize(
    ("converts", "advice"),
    [
        ([True, True], 'kinkcheck.nn.convert(model, max_pool="...").'),
        (
            [True, False],
            'kinkcheck.nn.convert(model, max_pool="...") (other calls: kinkcheck.record).',
        ),
        ([False, False], "kinkcheck.record."),
        ([None, None], "kinkcheck.record."),
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
    assert f"by at most {roundings * U[precision]:.1e} at {precision}" in text
    if beyond:
        assert f"more than rounding at {precision} (" in text
        assert "give the choice a name with kinkcheck." in text
        assert "higher precision" not in text  # nobody knows whether it is rounding
    else:
        assert "of its l1 norm: the size of rounding (" in text


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
    assert "more than rounding at float16 and bfloat16 (" in text


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
    assert "moves the gradient at 1 of 2 points" in text
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
        "moves the gradient at 3 of 4 points, by at most 0.4 % at float16 of its l1 norm, all of "
        "it rounding."
    ) in text
    for other in (BIFURCATION, UNDECIDED):
        text = verdict(report(lifted(COMPENSATION), lifted(other)))
        assert "moves the gradient at 2 of 2 points" in text
        assert "all of it" not in text


def test_float64_points_are_named_unless_exact_arithmetic_judged_them() -> None:
    by_noise = lifted(COMPENSATION, "float64", error=None)
    named = "all of it rounding (float64 by its own noise floor)."
    assert named in verdict(report(lifted(COMPENSATION), by_noise))
    exact = lifted(COMPENSATION, "float64", error=None, judge="exact")
    assert "all of it rounding." in verdict(report(lifted(COMPENSATION), exact))


def test_a_point_is_counted_once_for_all_its_selections() -> None:
    last = replace(lifted(COMPENSATION), selection="last")
    found = report(lifted(COMPENSATION), last, still())
    found.points[1] = replace(last, batch=0)
    assert "moves the gradient at 1 of 2 points" in verdict(found)


def test_a_bifurcation_alone_is_never_called_wrong() -> None:
    text = verdict(report(lifted(BIFURCATION, truly=2e-6), lifted(UNDECIDED)))
    assert "moves the gradient at 2 of 2 points" in text
    assert "rong" not in text
    assert "ight" not in text


def test_advice_depends_on_whether_the_variation_reaches_the_error() -> None:
    text = verdict(report(lifted(COMPENSATION, error=4.0), lifted(COMPENSATION, error=2.0)))
    assert "That is less than the rounding error that it has anyway. For the choice at" in text
    assert "kinks nothing has to be done" in text
    above = report(lifted(COMPENSATION, error=4.0), lifted(COMPENSATION, error=1.0))
    text = verdict(above)
    assert "At 1 of 2 points at float16 that is as much as rounding moves it anyway" in text
    assert "less than" not in text
    # An error of 0 is the smallest there is.
    text = verdict(report(lifted(COMPENSATION, error=10.0), lifted(COMPENSATION, error=0.0)))
    assert "At 1 of 2 points at float16 that is as much" in text
    # float64 points have no error to compare with, and so no advice.
    text = verdict(report(lifted(COMPENSATION, "float64", error=None)))
    assert "rounding error" not in text
    assert "less than" not in text
    double = lifted(BIFURCATION, "float64", error=None, truly=1e-4)
    text = verdict(report(lifted(COMPENSATION), double))
    assert "At float16 that is less than the rounding error that it has anyway" in text


@pytest.mark.parametrize(
    ("relative", "words"),
    [(2.0, "200 %"), (0.4, "40 %"), (0.042, "4 %"), (1e-3, "0.1 %"), (9e-6, "9.0e-06")],
)
def test_parts_are_per_cent_where_that_reads_well(relative: float, words: str) -> None:
    assert f"by at most {words} at float16 of its l1 norm" in verdict(
        report(lifted(COMPENSATION, relative=relative))
    )


def test_bifurcation_of_no_gradient_at_all_is_said() -> None:
    found = replace(lifted(BIFURCATION, relative=math.inf), gradient_l1=0.0)
    text = verdict(report(found))
    assert "moves the gradient at 1 of 1 points, from 0 at float16." in text
    text = verdict(report(found, lifted(BIFURCATION, "float32", relative=0.4)))
    assert "at 2 of 2 points, by at most 40 % at float32 of its l1 norm, from 0 at float16." in text
    text = verdict(report(replace(found, zone=None, lift=None)))
    assert "at 1 of 1 points, from 0 at float16: more than rounding at float16 (" in text


def test_rules_in_the_docs_are_those_of_the_docstring() -> None:
    page = (Path(__file__).parent.parent / "docs" / "zones.md").read_text(encoding="utf-8")
    rules = " ".join(page[page.index("1. whether the gradient is right") :].split())
    assert verdict.__doc__ is not None
    assert rules in " ".join(verdict.__doc__.split())


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


@pytest.mark.parametrize(
    ("selections", "rivals", "one"),
    [
        (["minimal"], (), "all"),
        (["minimal", "hybrid:10"], (), "none"),
        (["minimal"], (SITE,), "some"),
        (["minimal", "last"], (), "none"),
        (["branch:1"], (), "none"),
    ],
)
def test_ties_where_what_was_compared_is_one_choice_are_named(
    selections: list[str], rivals: tuple[SiteCount, ...], one: str
) -> None:
    """PyTorch's ReLU'(0) is 0, the least of [0, 1]."""
    rectifier = replace(SITE, operation="relu")
    seen = replace(report(still(), sites=(rectifier, *rivals)), selections=selections)
    named = "native and minimal are one choice; --selection first,last compares others."
    assert (named in verdict(seen)) == (one != "none")
    assert ("does not matter" in verdict(seen)) == (one != "all")
    dead = replace(seen, sites=[replace(rectifier, dead=rectifier.tied), *rivals])
    assert "one choice" not in verdict(dead)


def test_two_rectifiers_in_a_row_at_0_are_not_called_harmless() -> None:
    """Each alone is dead, but max(0, x) has the slopes 0 and 1 at 0, and one choice makes it 1."""
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.ReLU())
    nn.init.zeros_(network[0].weight)  # type: ignore[arg-type]
    found = [
        audit(network, [(torch.ones(1, 1), torch.zeros(1))], loss=lambda out, _: out.sum(),
              selections=[selection])
        for selection in ("minimal", "last")
    ]  # fmt: skip
    assert [each.points[0].variation.l1 for each in found] == [0.0, 1.0]
    assert "does not matter" not in found[0].verdict
    assert "At the ties of relu native and minimal are one choice" in found[0].verdict


def test_many_operations_that_were_not_switched_are_counted() -> None:
    unseen = [replace(UNSEEN, operation=name, layer=name * 2) for name in "abcde"]
    again = replace(unseen[0], layer="last")
    text = verdict(report(still(), unseen=(*unseen, again)))
    assert text.endswith(": a in aa and 1 more layer, b in bb, c in cc and 2 other operations.")


# --- standings ------------------------------------------------------------------------------------

DERIVATIVE, LIMIT, BETWEEN = (
    Standing(
        kind,
        ties=9,
        flat=9 if kind is Kind.DERIVATIVE else 8,
        kinks=0 if kind is Kind.DERIVATIVE else 1,
        rows=0 if kind is Kind.DERIVATIVE else 1,
    )
    for kind in (Kind.DERIVATIVE, Kind.LIMIT, Kind.SUBGRADIENT)
)
OUTSIDE = Standing(Kind.WRONG, ties=9, flat=7)
OPEN = Standing(Kind.UNDECIDED, why="there are too many kinks")


def standing(reference: Standing | None, selection: Standing | None = None) -> Point:
    return replace(
        lifted(COMPENSATION), reference_standing=reference, standing=selection or reference
    )


@pytest.mark.parametrize(
    ("standings", "words"),
    [
        ([DERIVATIVE] * 2, "Right at 2 of 2 points: the gradient is the derivative."),
        (
            [DERIVATIVE] * 3 + [LIMIT],
            "Right at 4 of 4 points: the gradient is the derivative at 3 and, at 1 where the loss "
            "itself has a kink, one of its limits.",
        ),
        (
            [LIMIT, BETWEEN],
            "Right at 2 of 2 points: the gradient is one of its limits (at 1) and between its "
            "limits (at 1), for the loss itself has a kink there.",
        ),
        (
            [Standing(Kind.DERIVATIVE)],
            "Right at the one point: the gradient is the derivative, for no tie that kinkcheck "
            "recognises is live.",
        ),
        (
            [OUTSIDE, LIMIT, OPEN],
            "Wrong at 1 of 3 points: the gradient there is neither the derivative, nor one of its "
            "limits, nor between its limits. Right at 1. Undecided at 1: there are too many kinks.",
        ),
        ([OPEN], "Undecided at the one point: there are too many kinks."),
        ([DERIVATIVE, OPEN], "Right at 1 of 2 points: the gradient is the derivative. Undecided "),
        (
            [DERIVATIVE, None],
            "Right at 1 of 2 points: the gradient is the derivative. At 1 the lift would have to ",
        ),
    ],
)
def test_the_first_sentence_says_whether_it_is_right(
    standings: list[Standing | None], words: str
) -> None:
    assert verdict(report(*map(standing, standings))).startswith(words)


def test_selections_are_told_apart_where_one_is_not_right() -> None:
    found = report(standing(LIMIT, BETWEEN), standing(LIMIT, OUTSIDE), standing(LIMIT, OPEN))
    text = verdict(found)
    assert "Under minimal it is right at 1, wrong at 1 and undecided at 1." in text
    assert "kinkcheck.check" not in text
    assert "Right under minimal too." in verdict(report(standing(LIMIT, BETWEEN)))
    assert "minimal" not in verdict(report(standing(OPEN, OPEN))).partition(" The choice")[0]
    text = verdict(report(standing(OUTSIDE, DERIVATIVE)))
    assert "Under minimal it is right." in text
    assert "kinkcheck.check of a part of the program names the calls" in text


def test_ties_of_a_precision_alone_are_said_to_be_rounding() -> None:
    sites = replace(SITE, rounding=3), replace(SITE, precision="float16", rounding=1200)
    text = verdict(report(standing(LIMIT), sites=sites))
    assert "Of the live ties 3 at float32 and 1,200 at float16 are there by rounding alone" in text
    assert "live ties" not in verdict(report(standing(LIMIT)))


def test_nothing_is_said_of_what_nobody_looked_at() -> None:
    text = verdict(report(lifted(COMPENSATION)))
    assert text.startswith("The choice at kinks moves the gradient at 1 of 1 points")
