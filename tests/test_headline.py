"""The answer in one line: which of the four, from hand-made reports whose answer is known."""

import math
from dataclasses import replace

import pytest
import torch

import kinkcheck
from kinkcheck.audit import AuditReport, Point, SiteCount, UnseenCount, Variation
from kinkcheck.audit.headline import Answer, headline
from kinkcheck.audit.verdict import verdict
from kinkcheck.measure.records import Lift
from kinkcheck.measure.standing.records import Kind, Standing
from kinkcheck.measure.zones import Zone

RIGHT, SMALL, LOOK, CANNOT = Answer
SITE = SiteCount("float32", "features.2", "max_pool2d", 0, 100, 60, 40, None, converts=True)
UNSEEN = UnseenCount("act", "leaky_relu", "kinkcheck does not define its branches", 3)
STILL = Variation(0.0, 0.0, 0.0, 0.0, 0.0)
BROKEN = Variation(*[math.nan] * 5)


def point(
    variation: Variation = STILL,
    standing: Kind | None = Kind.DERIVATIVE,
    *,
    error: float | None = None,
    zone: Zone | None = None,
    precision: str = "float32",
) -> Point:
    """A gradient of norm 1; ``error`` is its rounding error where it was lifted."""
    lift = None if error is None else Lift("float64", 1e-16, 1e-16, 1.0, error, error)
    found = None if standing is None else Standing(standing, ties=9)
    return Point(
        precision, 0, 0, "minimal", 1.0, 1.0, variation,
        zone=zone, lift=lift, standing=found, reference_standing=found,
    )  # fmt: skip


def moved(by: float) -> Variation:
    return Variation(by, by, by, by, by)


def report(*points: Point, sites: tuple[SiteCount, ...] = (SITE,)) -> AuditReport:
    names = ("0.1.0", "2.13.0", "cpu", "my-network", "digits")
    numbered = [replace(each, batch=number) for number, each in enumerate(points)]
    return AuditReport(*names, 0, "native", ["minimal"], numbered, [*sites], [])


@pytest.mark.parametrize("kind", [Kind.DERIVATIVE, Kind.LIMIT, Kind.SUBGRADIENT])
def test_right_everywhere_and_moved_nowhere_is_right(kind: Kind) -> None:
    found = headline(report(point(), point(STILL, kind)))
    assert found.kind is RIGHT
    assert found.text == "right at 2 of 2 points; the same under native and minimal"


def test_ties_where_what_was_compared_is_one_choice_are_not_called_the_same() -> None:
    seen = report(point(), sites=(replace(SITE, operation="relu"),))
    assert headline(seen).text.endswith("point; native and minimal are one choice at its live ties")
    other = replace(seen, selections=["branch:1"])
    assert headline(other).text.endswith("point; the same under native and branch:1")


def test_right_and_moved_by_less_than_rounding_does_not_matter() -> None:
    found = headline(report(point(), point(moved(1e-7), error=1e-6)))
    assert found.kind is SMALL
    assert found.text == "right at 2 of 2 points; the choice is lost in rounding at 1"


@pytest.mark.parametrize("zone", [Zone.BIFURCATION, Zone.UNDECIDED])
def test_what_moves_over_the_reals_is_not_called_lost_in_rounding(zone: Zone) -> None:
    below = point(moved(1e-7), Kind.LIMIT, error=1e-6, zone=zone)
    found = headline(report(below))
    assert found.kind is RIGHT
    whole = "moves it by less than the rounding error of the whole gradient at 1"
    assert found.text == f"right at the one point; the choice {whole}"
    lost = point(moved(1e-7), error=1e-6, zone=Zone.COMPENSATION)
    found = headline(report(lost, below))
    assert found.kind is RIGHT
    assert found.text.endswith(f"; the choice is lost in rounding at 1 and {whole}")


@pytest.mark.parametrize("lifted", [None, False])
def test_rounding_in_one_parameter_hides_no_choice_in_another(lifted: bool | None) -> None:
    """The slope of relu at 0 is all of the gradient of v: native takes 0, branch:1 takes 1."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64))
    model.v = torch.nn.Parameter(torch.zeros(1))

    def step(model: torch.nn.Sequential, batch: torch.Tensor) -> torch.Tensor:
        return 1e3 * model[0](batch).square().mean() + torch.relu(model.v).sum()

    seen = kinkcheck.audit(
        model, [100 * torch.randn(32, 64)], step=step, samples=None, selections=["branch:1"],
        lifted=lifted,
    )  # fmt: skip
    (found,) = seen.points
    assert found.variation.l1 == 1
    if found.lift is not None:
        assert found.lift.error_reference_l1 is not None
        assert found.lift.error_reference_l1 > 1
    assert headline(seen).kind is not SMALL
    for text in (str(seen), seen.verdict):
        for words in ("lost in rounding", "nothing has to be done", "not matter"):
            assert words not in text


def test_a_choice_that_outweighs_rounding_is_to_be_looked_at_however_right() -> None:
    found = headline(
        report(point(error=1e-6), point(moved(1e-6), error=1e-6), point(moved(0.2), error=0.1))
    )
    assert found.kind is LOOK
    assert found.text == (
        "right at 3 of 3 points; at 2 the choice outweighs rounding, moving it by 20 %"
    )


def test_the_precision_is_named_where_there_are_several() -> None:
    found = headline(
        report(point(moved(0.04), error=1e-3, precision="float16"), point(moved(1e-7), error=1e-6))
    )
    assert "at 1 (float16) the choice outweighs rounding, moving it by 4 %" in found.text


@pytest.mark.parametrize(
    ("points", "text"),
    [
        ([point(STILL, Kind.WRONG)], "wrong at the one point"),
        (
            [point(), point(STILL, Kind.WRONG), point(STILL, Kind.UNDECIDED)],
            "wrong at 1 of 3 points, right at 1, undecided at 1",
        ),
        ([replace(point(BROKEN, None), gradient_l1=math.nan), point()],
         "not finite at 1 of 2 points, right at 1"),
        ([replace(point(BROKEN, None), loss=math.inf)], "not finite at the one point"),
    ],
)  # fmt: skip
def test_what_is_wrong_or_no_number_is_to_be_looked_at(points: list[Point], text: str) -> None:
    found = headline(report(*points))
    assert found.kind is LOOK
    assert found.text == text


@pytest.mark.parametrize(
    ("points", "text"),
    [
        ([point(), point(STILL, Kind.UNDECIDED)], "right at 1 of 2 points, undecided at 1"),
        ([point(), point(STILL, None)], "right at 1 of 2 points, not judged at 1"),
        ([point(), point(BROKEN)],
         "right at 2 of 2 points; at 1 nobody knows how far the choice moves it"),
        ([point(moved(1e-9), zone=Zone.UNDECIDED)],
         "right at the one point; at 1 nobody knows how far the choice moves it"),
        ([], "no point was measured"),
    ],
)  # fmt: skip
def test_what_is_not_known_at_one_point_forbids_an_all_clear(
    points: list[Point], text: str
) -> None:
    found = headline(report(*points))
    assert found.kind is CANNOT
    assert found.text == text


@pytest.mark.parametrize("points", [[point()], [point(moved(1e-7), error=1e-6)]])
def test_what_was_not_switched_forbids_an_all_clear(points: list[Point]) -> None:
    seen = report(*points)
    seen.unseen.append(UNSEEN)
    assert headline(seen).kind is CANNOT
    assert headline(seen).text == "right at the one point; not switched: leaky_relu"
    seen.unseen.append(replace(UNSEEN, operation="other"))
    assert headline(seen).text.endswith("; not switched: leaky_relu and 1 more")
    unlike = replace(report(*points), selections=["branch:0.5"])  # max pooling does not have it
    assert headline(unlike).kind is CANNOT
    assert headline(unlike).text.endswith("; not switched: max_pool2d")


@pytest.mark.parametrize("operations", [None, ["max_pool2d"], ["max_pool"]])
def test_who_compares_a_selection_with_itself_switches_nothing(
    operations: list[str] | None,
) -> None:
    same = replace(report(point()), selections=["native"], operations=operations)
    assert headline(same).kind is CANNOT
    assert headline(same).text == "right at the one point; not switched: max_pool2d"
    other = replace(same, operations=["relu"])
    assert headline(other).kind is RIGHT


def test_what_a_framework_lacks_was_not_switched() -> None:
    """JAX has max pooling and no fractional one."""
    lacking = replace(SITE, operation="fractional_max_pool2d")
    as_jax = replace(report(point(), sites=(SITE, lacking)), selections=["as:jax-0.10"])
    assert headline(as_jax).kind is CANNOT
    assert headline(as_jax).text.endswith("not switched: fractional_max_pool2d")
    assert headline(replace(as_jax, selections=["as:jax-0.10", "minimal"])).kind is RIGHT
    assert headline(replace(as_jax, sites=[SITE])).kind is RIGHT


def test_without_a_kink_that_is_recognised_nothing_is_known() -> None:
    found = headline(report(point(), sites=()))
    assert found.kind is CANNOT
    assert found.text == "no kink that kinkcheck recognises was met"
    broken = replace(point(BROKEN), gradient_l1=math.inf)
    assert headline(report(broken, sites=())).kind is LOOK


def test_no_live_tie_is_said_as_far_as_ties_are_recognised() -> None:
    without = Standing(Kind.DERIVATIVE, ties=0)
    found = headline(report(replace(point(), standing=without, reference_standing=without)))
    assert found.kind is RIGHT
    assert found.text == "right at the one point; no tie that kinkcheck recognises is live"


def test_a_gradient_that_rounding_has_taken_another_branch_for_is_no_all_clear() -> None:
    """(w + 1) - 1 is 0 in float16, where autograd returns 0; over the reals the derivative is 1."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1e-4)

    def step(model: torch.nn.Module, one: torch.Tensor) -> torch.Tensor:
        return torch.relu(model(one) + one - one).sum()

    found = [
        kinkcheck.audit(model, [torch.ones(1, 1)], step=step, precisions=[each], samples=None)
        for each in ("16", "32")
    ]
    assert [each.points[0].gradient_l1 for each in found] == [0, 1]
    assert [headline(each).kind for each in found] == [CANNOT, RIGHT]
    assert headline(found[0]).text.endswith("at 1 rounding makes ties, and outweighs the gradient")
    assert "no tie that kinkcheck recognises is live but by rounding" in verdict(found[0])


@pytest.mark.parametrize(("zone", "kind"), [(Zone.COMPENSATION, SMALL), (Zone.BIFURCATION, LOOK)])
def test_float64_which_has_no_rounding_error_is_told_by_its_zone(zone: Zone, kind: Answer) -> None:
    by = point(moved(1e-9), zone=zone, precision="float64")
    assert headline(report(by)).kind is kind


@pytest.mark.parametrize(("roundings", "kind"), [(10, SMALL), (10.1, LOOK)])
def test_without_a_lift_ten_unit_roundoffs_are_rounding(roundings: float, kind: Answer) -> None:
    assert headline(report(point(moved(roundings * 2.0**-24)))).kind is kind


def test_a_file_may_have_precisions_that_nobody_knows_here() -> None:
    assert headline(report(point(moved(1e-9), precision="float8"))).kind is CANNOT


def test_a_point_counts_once_and_by_the_selection_that_moves_it_most() -> None:
    least = point(moved(1e-7), error=1e-6)
    most = replace(point(moved(1e-2), error=1e-6), selection="last")
    seen = replace(report(least), points=[least, most], selections=["minimal", "last"])
    assert headline(seen).text.startswith("right at the one point; at 1 the choice outweighs")


def test_how_far_a_gradient_moves_is_told_by_those_that_are_finite() -> None:
    infinite = replace(point(moved(math.inf)), selection="last")
    seen = report(point(moved(0.2), error=0.1))
    seen = replace(seen, points=[*seen.points, infinite], selections=["minimal", "last"])
    assert headline(seen).text.endswith("the choice outweighs rounding, moving it by 20 %")


@pytest.mark.parametrize("error", [math.inf, math.nan])
@pytest.mark.parametrize("first", [True, False])
def test_a_rounding_error_that_is_no_number_hides_nothing(error: float, first: bool) -> None:
    """Elsewhere the least that was measured counts."""
    measured = [point(error=error), point(error=1e-6)]
    points = [*(measured if first else measured[::-1]), point(moved(1e-3))]
    assert headline(report(*points)).kind is LOOK
    assert headline(report(measured[0], points[-1])).kind is LOOK


def test_operations_that_were_asked_for_are_named() -> None:
    seen = replace(report(point()), operations=["relu"])
    assert headline(seen).text.endswith("; the same under native and minimal at kinks of relu")
