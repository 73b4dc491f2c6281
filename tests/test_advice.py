"""What is advised can be done there: rules of the advice, from hand-made reports."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import kinkcheck
from kinkcheck.audit import AuditReport, Point, SiteCount, UnseenCount, Variation
from kinkcheck.audit.advice import advice, where
from kinkcheck.measure.records import Lift
from kinkcheck.measure.standing.records import Kind, Standing
from kinkcheck.measure.zones import Zone

POOL = SiteCount("float32", "pool", "max_pool2d", 0, 100, 60, 40, None, converts=True)
LOST = "For the choice at kinks nothing has to be done."


def point(
    by: float,
    error: float = 1.0,
    error_selection: float = 1.0,
    *,
    selection: str = "minimal",
    precision: str = "float32",
    zone: Zone | None = Zone.COMPENSATION,
    kinds: tuple[Kind, Kind] = (Kind.LIMIT, Kind.LIMIT),
) -> Point:
    lift = Lift("float64", 1e-16, 1e-16, 1.0, error, error_selection)
    reference, selected = (Standing(kind, ties=3) for kind in kinds)
    return Point(
        precision, 0, 0, selection, 1.0, 1.0, Variation(by, by, by, by, by),
        zone=zone, lift=lift, standing=selected, reference_standing=reference,
    )  # fmt: skip


def report(*points: Point, sites: tuple[SiteCount, ...] = (POOL,)) -> AuditReport:
    names = ("0.1.0", "2.13.0", "cpu", "my-network", "digits")
    selections = list(dict.fromkeys(each.selection for each in points))
    numbers = dict.fromkeys(selections, -1)
    numbered = []
    for each in points:
        numbers[each.selection] += 1
        numbered.append(replace(each, batch=numbers[each.selection]))
    return AuditReport(*names, 0, "native", selections, numbered, [*sites], [])


def said(*points: Point, sites: tuple[SiteCount, ...] = (POOL,)) -> str:
    return " ".join(advice(report(*points, sites=sites)))


def test_where_the_choice_is_lost_in_rounding_nothing_has_to_be_done() -> None:
    assert said(point(0.1)) == LOST
    assert said(point(0.1, 1.0, 1.01)) == LOST
    assert said(point(0.0)) == ""


@pytest.mark.parametrize("by", [0.1, 10.0])
def test_a_selection_is_advised_only_where_its_error_is_the_smaller_at_every_point(
    by: float,
) -> None:
    smaller, larger = point(by, 1.0, 0.9), point(by, 1.0, 1.1)
    assert "minimal has the smaller rounding error" in said(smaller, smaller)
    for others in ((smaller, larger), (larger, larger), (point(by), point(by))):
        assert "minimal has" not in said(*others)
    last = replace(point(by, 1.0, 0.8), selection="last")
    assert "last has the smaller rounding error" in said(smaller, last)


def test_what_is_native_already_is_kept() -> None:
    text = said(point(10.0, 1.0, 1.1))
    assert "keep native, which has the smaller rounding error there" in text


@pytest.mark.parametrize(
    ("precision", "zone", "helps"),
    [
        ("float32", Zone.COMPENSATION, True),
        ("float32", Zone.BIFURCATION, False),
        ("float32", None, False),
        ("float64", Zone.BIFURCATION, False),
    ],
)
def test_a_higher_precision_is_advised_where_there_is_one_and_rounding_decides(
    precision: str, zone: Zone | None, helps: bool
) -> None:
    text = said(point(10.0, precision=precision, zone=zone))
    assert "give the choice a name" in text
    assert "smaller" not in said(replace(point(10.0, 1.0, 0.9), zone=Zone.BIFURCATION))
    assert ("higher precision" in text) == helps


@pytest.mark.parametrize(
    ("sites", "means"),
    [
        ((POOL,), 'kinkcheck.nn.convert(model, max_pool="minimal")'),
        ((POOL, replace(POOL, operation="relu", tied=0, converts=False)),
         'kinkcheck.nn.convert(model, max_pool="minimal")'),
        ((POOL, replace(POOL, operation="relu", dead=60, converts=False)),
         'kinkcheck.nn.convert(model, max_pool="minimal")'),
        ((POOL, replace(POOL, operation="relu")),
         'kinkcheck.nn.convert(model, max_pool="minimal", relu="minimal")'),
        ((POOL, replace(POOL, operation="relu", converts=False)),
         'kinkcheck.nn.convert(model, max_pool="minimal") (other calls: kinkcheck.record)'),
        ((replace(POOL, converts=False),), "with kinkcheck.record:"),
        ((replace(POOL, converts=None),), "with kinkcheck.record:"),
    ],
)  # fmt: skip
def test_conversion_is_advised_where_it_can_act(sites: tuple[SiteCount, ...], means: str) -> None:
    assert means in said(point(10.0, 1.0, 0.9), sites=sites)


def test_a_conversion_gives_no_operation_a_selection_that_it_does_not_have() -> None:
    half = point(10.0, 1.0, 0.9, selection="branch:0.5")
    sites = (POOL, replace(POOL, operation="relu"))
    means = 'kinkcheck.nn.convert(model, relu="branch:0.5") (other calls: kinkcheck.record)'
    assert means in said(half, sites=sites)


def test_a_conversion_leaves_alone_what_was_not_to_be_switched() -> None:
    seen = report(point(10.0, 1.0, 0.9), sites=(POOL, replace(POOL, operation="relu")))
    for name in ("relu", "max_pool2d", "max_pool"):
        (text,) = advice(replace(seen, operations=[name]))
        family = name.removesuffix("2d")
        assert f'kinkcheck.nn.convert(model, {family}="minimal"):' in text


def test_the_advice_can_be_followed() -> None:
    """Code that an audit prints runs on the network that it audited."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    batch = (torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.long))
    loss = nn.functional.cross_entropy
    seen = kinkcheck.audit(model, [batch], step=lambda m, b: loss(m(b[0]), b[1]))
    sites = [replace(site, dead=0) for site in seen.sites]
    moved = [replace(each, variation=Variation(9, 9, 9, 9, 9)) for each in seen.points]
    text = " ".join(advice(replace(seen, points=moved, sites=sites)))
    call = text[text.index("kinkcheck.nn.convert(") :].partition(")")[0] + ")"
    exec(call.replace("...", "minimal"), {"kinkcheck": kinkcheck, "model": model})
    assert isinstance(model[2], kinkcheck.nn.MaxPool2d)


def test_a_selection_that_is_right_where_the_reference_is_not_is_named() -> None:
    wrong, other = (Kind.WRONG, Kind.LIMIT), (Kind.WRONG, Kind.WRONG)
    assert "Under minimal it is right there: name it with" in said(point(0.0, kinds=wrong))
    assert "Under" not in said(point(0.0, kinds=wrong), point(0.0, kinds=other))
    assert "names the calls that make it so" in said(point(0.0, kinds=other))
    assert LOST not in said(point(0.1, kinds=wrong))


def test_what_would_tell_is_said_where_nobody_knows() -> None:
    blind = replace(point(0.0), lift=None, standing=None, reference_standing=None)
    assert "--lift" in said(blind)
    assert "--lift" not in said(point(0.0))
    assert said(replace(blind, gradient_l1=math.nan)) == ""  # a lift does not judge that
    seen = report(point(0.0))
    seen.unseen.append(UnseenCount("act", "my_op", "custom", 3))
    assert "kinkcheck.check judges" in " ".join(advice(seen))


def test_sites_with_the_most_live_ties_come_first() -> None:
    sites = [
        replace(POOL, layer="a", tied=60, dead=59),
        replace(POOL, layer="b", tied=50, dead=0),
        replace(POOL, layer="dead", tied=70, dead=70),
        replace(POOL, layer="b", tied=55, dead=0, precision="float16"),
    ]
    assert where(report(sites=tuple(sites))) == (
        "b (max_pool2d): live ties in 55 of 100 windows at float16; a (max_pool2d): live ties in "
        "1 of 100 windows at float32."
    )
    assert where(report(sites=(replace(POOL, tied=0),))) == ""
    nobody_knows = "pool (max_pool2d): ties in 60 of 100 windows."
    assert where(report(sites=(POOL,))) == nobody_knows


def test_a_wrong_gradient_is_not_advised_for_its_rounding_error() -> None:
    """2 is no slope of relu at 0, whose subdifferential is [0, 1]; rounding is larger beside it."""
    torch.manual_seed(4)
    model = nn.Linear(16, 1).half().float()
    batch = torch.randn(32, 16)
    at = model.weight[0, 0].item()

    def step(model: nn.Linear, batch: torch.Tensor) -> torch.Tensor:
        return model(batch).square().mean() + torch.relu(1e-4 * (model.weight[0, 0] - at))

    seen = kinkcheck.audit(
        model, [batch], step=step, samples=None, selections=["branch:2"], precisions=["16"]
    )
    (found,) = seen.points
    assert found.lift is not None
    assert found.lift.error_reference_l1 is not None
    assert found.lift.error_selection_l1 is not None
    assert found.lift.error_selection_l1 < found.lift.error_reference_l1
    assert "branch:2 has the smaller" not in seen.verdict
    assert "Under branch:2 it is wrong" in seen.verdict


@pytest.mark.parametrize("by", [0.1, 10.0])
def test_a_selection_is_advised_only_where_nothing_speaks_against_it(by: float) -> None:
    good = point(by, 1.0, 0.9)
    assert "minimal has the smaller" in said(good)
    for kind in (Kind.WRONG, Kind.UNDECIDED):
        assert "minimal has" not in said(good, point(by, 1.0, 0.9, kinds=(Kind.LIMIT, kind)))
    unjudged = replace(good, zone=Zone.BIFURCATION, standing=None)
    assert "minimal has" not in said(good, unjudged)
    assert "keep native" not in said(point(10.0, 1.0, 1.1, kinds=(Kind.WRONG, Kind.LIMIT)))
