"""Causes of ties and zones of variations, worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kinkcheck.nn as knn
from kinkcheck import audit
from kinkcheck.audit import SiteCount, Variation
from kinkcheck.measure.finite import first_in_forward, first_in_gradient
from kinkcheck.measure.zones import ROUNDING, WRONG, Zone, by_lift, by_threshold

Function = Callable[[Tensor], Tensor]


def total(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.sum()


def sites(model: nn.Module, x: list[float], at: str = "16", loss=total) -> list[SiteCount]:
    batch = torch.tensor([x], dtype=torch.float64), torch.zeros(1)
    return audit(model, [batch], loss=loss, precisions=[at], selections=["last"]).sites


def scaled(*weights: float) -> nn.Linear:
    """Multiplies each entry by a weight of its own."""
    layer = nn.Linear(len(weights), len(weights), bias=False, dtype=torch.float64)
    layer.weight.data = torch.diag(torch.tensor(weights, dtype=torch.float64))
    return layer


def causes(site: SiteCount) -> tuple[int | None, ...]:
    return site.dead, site.exact, site.rounding


def test_tie_that_persists_and_tie_that_float64_parts() -> None:
    # (1 + 2^-10)(1 − 2^-11) lies just below the middle of 1 and float16's next number.
    model = nn.Sequential(scaled(1, 1, 1 + 2**-10, 1), nn.MaxPool1d(2))
    x = [3.0, 3.0, 1 - 2**-11, 1.0]
    (pool,) = sites(model, x)
    assert pool.tied == 2
    assert causes(pool) == (0, 1, 1)
    (pool,) = sites(model, x, "32")
    assert (pool.tied, causes(pool)) == (1, (0, 1, 0))
    (pool,) = sites(model, x, "64")
    assert (pool.tied, causes(pool)) == (1, (0, None, None))


def test_zeros_of_a_relu_are_dead_and_zeros_of_anything_else_are_not() -> None:
    model = nn.Sequential(scaled(1, 1, 1, 1), nn.ReLU(), nn.MaxPool1d(2))
    relu, pool = sites(model, [-1.0, -2.0, 5.0, 5.0])
    assert (pool.tied, causes(pool)) == (2, (1, 1, 0))
    assert relu.tied == 0
    (pool,) = sites(nn.Sequential(scaled(1, 1), nn.MaxPool1d(2)), [0.0, 0.0])
    assert causes(pool) == (0, 1, 0)


@pytest.mark.parametrize("inplace", [False, True])
def test_entries_at_which_what_made_them_is_constant_are_dead(inplace: bool) -> None:
    model = nn.Sequential(scaled(1, 1, 1, 1), nn.ReLU6(inplace), nn.MaxPool1d(2))
    _, pool = sites(model, [7.0, 8.0, 3.0, 3.0])
    assert (pool.tied, causes(pool)) == (2, (1, 1, 0))
    # Here one of those with this value has a derivative: hardswish has 0 at -4 and at 0.
    model = nn.Sequential(scaled(1, 1, 1, 1), nn.Hardswish(), nn.MaxPool1d(2))
    _, pool = sites(model, [-4.0, 0.0, 3.5, 3.5])
    assert causes(pool) == (0, 2, 0)
    _, pool = sites(model, [-4.0, -5.0, 3.5, 3.5])
    assert causes(pool) == (1, 1, 0)


@pytest.mark.parametrize(
    "made",
    [
        # The other entry that ties, or the entries themselves, do depend on parameters.
        lambda h: torch.maximum(F.relu(h), h.exp() - 1),
        lambda h: F.relu(h + 2).std(1),
        lambda h: F.pdist(F.relu(h + 2).T),
        lambda h: F.prelu(h - 1, h.new_zeros(1) + 0 * h.sum()).amax(1),
    ],
)
def test_entries_that_something_else_makes_as_well_live(made: Function) -> None:
    class Made(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            return made(h).sum()[None]

    *_, site = sites(nn.Sequential(scaled(1, 1), Made()), [0.0, 0.0], "32")
    assert site.tied > 0
    assert site.dead == 0


def test_a_selection_of_a_module_lets_through_what_it_says() -> None:
    for selection, dead in (("native", 1), ("branch:1", 0)):
        relu = knn.ReLU(selection=selection)
        _, pool = sites(nn.Sequential(scaled(1, 1), relu, nn.MaxPool1d(2)), [0.0, 0.0])
        assert pool.dead == dead


def test_window_without_a_gradient_is_dead() -> None:
    model = nn.Sequential(scaled(1, 1, 1, 1), nn.MaxPool1d(2))
    (pool,) = sites(model, [3.0, 3.0, 4.0, 4.0], loss=lambda outputs, targets: outputs[0, 0])
    assert causes(pool) == (1, 1, 0)


def test_ties_above_the_first_parameter_only_are_dead() -> None:
    model = nn.Sequential(nn.MaxPool1d(2), scaled(1, 1))
    (pool,) = sites(model, [3.0, 3.0, 4.0, 4.0])
    assert causes(pool) == (2, 0, 0)


def test_what_another_selection_reaches_is_not_dead() -> None:
    # Each pool of four: native sends everything to one of them, last to another.
    model = nn.Sequential(scaled(*[1] * 16), nn.MaxPool1d(2), nn.MaxPool1d(8))
    first, second = sites(model, [3.0] * 16)
    assert causes(second) == (0, 1, 0)
    assert causes(first) == (6, 2, 0)


@pytest.mark.parametrize(
    "between",
    [nn.Unflatten(1, (1, 4)), nn.Sequential(nn.Dropout(0.5).eval(), nn.Unflatten(1, (1, 4)))],
)
def test_zeros_of_a_relu_are_dead_behind_a_view(between: nn.Module) -> None:
    model = nn.Sequential(scaled(1, 1, 1, 1), nn.ReLU(), between, nn.MaxPool1d(2))
    assert causes(sites(model, [-1.0, -2.0, 5.0, 5.0])[1]) == (1, 1, 0)


def test_relu_at_zero_is_exact_or_rounding() -> None:
    # 2^-20 · 2^-10 lies below float16's least number, 2^-24.
    model = nn.Sequential(scaled(2.0**-20, 1), nn.ReLU())
    (relu,) = sites(model, [2.0**-10, 0.0])
    assert (relu.tied, causes(relu)) == (2, (0, 1, 1))


def test_causes_are_left_out_where_a_point_is_not_finite() -> None:
    model = nn.Sequential(scaled(1, 1, 300, 300), nn.MaxPool1d(2))
    batches = [
        (torch.tensor([[1.0, 1.0, big, big]], dtype=torch.float64), torch.zeros(1))
        for big in (2.0, 300.0)
    ]
    report = audit(model, batches, loss=total, precisions=["16"])
    assert [point.zone for point in report.points] == [Zone.BIFURCATION, Zone.NON_FINITE]
    assert [point.non_finite_layer for point in report.points] == [None, "0"]
    (pool,) = report.sites
    assert pool.tied == 4
    assert (causes(pool), pool.cause_unknown) == ((0, 2, 0), 2)


def test_selection_that_alone_overflows_is_not_finite_and_has_a_layer() -> None:
    model = nn.Sequential(scaled(1, 1), nn.MaxPool1d(2))
    batch = torch.tensor([[2.0, 2.0]]), torch.zeros(1)
    for lifted in (True, False):
        first, second = audit(
            model, [batch], loss=total, precisions=["16"], lifted=lifted,
            selections=["hybrid:1e30", "minimal"],
        ).points  # fmt: skip
        assert first.zone_by_threshold is Zone.NON_FINITE
        assert first.zone is (Zone.NON_FINITE if lifted else None)
        assert first.non_finite_layer == "0"
        assert second.non_finite_layer is None
        assert second.zone is (Zone.BIFURCATION if lifted else None)


# --- where numbers stop being finite --------------------------------------------------------------


def test_first_layer_of_the_forward_pass() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), nn.ReLU())
    assert first_in_forward(model, lambda: model(torch.ones(1, 2))) is None
    nn.init.constant_(model[1][1].weight, math.inf)
    nn.init.constant_(model[0].bias, 1e6)
    assert first_in_forward(model, lambda: model(torch.ones(1, 2))) == "1.1"
    assert not any(module._forward_hooks for module in model.modules())


def test_first_layer_of_the_backward_pass_is_the_last_of_the_network() -> None:
    finite, wrong = torch.ones(1), torch.tensor([math.nan])
    assert first_in_gradient({"a.weight": wrong, "b.weight": wrong, "c.bias": finite}) == "b"
    assert first_in_gradient({"weight": wrong}) == ""
    assert first_in_gradient({"weight": finite}) is None


def test_loss_that_alone_is_not_finite_is_named() -> None:
    model = nn.Sequential(scaled(1, 1), nn.MaxPool1d(2))
    batch = torch.tensor([[2.0, 2.0]]), torch.zeros(1)
    (point,) = audit(model, [batch], loss=lambda outputs, targets: outputs.sum() * math.inf).points
    assert (point.zone, point.non_finite_layer) == (Zone.NON_FINITE, "loss")


# --- zones ----------------------------------------------------------------------------------------


def size(d: float) -> Variation:
    return Variation(1.0 if d else 0.0, 1.0, 1.0, d, 1.0)


@pytest.mark.parametrize(
    ("precision", "tau"),
    [("float16", 1e-3), ("bfloat16", 1e-3), ("float32", 1e-7), ("float64", 1e-15)],
)
def test_published_threshold_parts_compensation_from_bifurcation(
    precision: str, tau: float
) -> None:
    assert by_threshold(size(0.0), precision) is Zone.AGREEMENT
    assert by_threshold(size(tau), precision) is Zone.COMPENSATION
    assert by_threshold(size(math.nextafter(tau, 1)), precision) is Zone.BIFURCATION


def test_threshold_knows_no_mixed_precision_and_nothing_that_is_not_finite() -> None:
    assert by_threshold(size(1.0), "mixed") is None
    for broken in (math.nan, math.inf):
        assert by_threshold(Variation(*[broken] * 5), "mixed") is Zone.NON_FINITE


@pytest.mark.parametrize(
    ("d", "lifted", "zone"),
    [
        (0.0, 1.0, Zone.AGREEMENT),
        (1e-3, 0.0, Zone.COMPENSATION),
        (1e-3, ROUNDING, Zone.COMPENSATION),
        (1e-3, math.nextafter(ROUNDING, math.inf), Zone.UNDECIDED),
        (1e-3, math.nextafter(WRONG, 0), Zone.UNDECIDED),
        (1e-3, WRONG, Zone.BIFURCATION),
        (math.nan, 0.0, Zone.NON_FINITE),
        (math.inf, WRONG, Zone.NON_FINITE),
    ],
)
def test_lift_in_noise_floors(d: float, lifted: float, zone: Zone) -> None:
    assert by_lift(d, lifted * 2.0**-50, 2.0**-50) is zone


def test_without_noise_any_difference_is_a_bifurcation() -> None:
    assert by_lift(1.0, 0.0, 0.0) is Zone.COMPENSATION
    assert by_lift(1.0, 5e-324, 0.0) is Zone.BIFURCATION


def test_every_number_of_a_point_that_is_not_finite_is_nan() -> None:
    model = nn.Sequential(scaled(300, 300), nn.MaxPool1d(2))
    batch = torch.tensor([[300.0, 300.0]]), torch.zeros(1)
    (point,) = audit(model, [batch], loss=total, precisions=["16"]).points
    assert all(map(math.isnan, astuple(point.variation)))


class ByPrecision(nn.Module):
    """Pools once more in float16 than in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.p, self.q = scaled(1, 1, 1, 1), nn.MaxPool1d(1), nn.MaxPool1d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.q(self.p(x) if x.dtype == torch.float16 else x)


def test_sites_that_the_lift_does_not_have_are_credited_with_nothing() -> None:
    batch = torch.tensor([[3.0, 3.0, 1.0, 1.0]]), torch.zeros(1)
    report = audit(
        ByPrecision(), [batch], loss=total, precisions=["16"], selections=["last"], layers=True
    )
    p, q = report.sites
    assert (p.layer, p.lift_variation_l1, p.dead, p.cause_unknown) == ("p", None, None, None)
    # Two windows move the gradient from one row of weights to the next; a row sums to 8.
    assert (q.layer, q.variation_l1, q.lift_variation_l1) == ("q", 32.0, 32.0)


@pytest.mark.parametrize("lifted", [False, True, None])
@pytest.mark.parametrize(
    "at",
    [pytest.param("16", marks=pytest.mark.slow), "32", pytest.param("64", marks=pytest.mark.slow)],
)
def test_relus_in_place_are_reported_as_those_out_of_place(at: str, lifted: bool | None) -> None:
    def network(inplace: bool) -> nn.Module:
        torch.manual_seed(0)
        layers = [
            *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace)),
            *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)),
        ]
        for layer in layers:  # small whole numbers: sums are often 0, and never rounded
            for parameter in layer.parameters():
                parameter.data = torch.randint(-1, 2, parameter.shape).float()
        return nn.Sequential(*layers)

    x = torch.randint(-1, 2, (6, 1, 8, 8), generator=torch.Generator().manual_seed(1)).float()
    zeros: list[int] = []
    plain = network(False)
    for layer in plain:
        if isinstance(layer, nn.ReLU):
            layer.register_forward_pre_hook(lambda _, args: zeros.append(int((args[0] == 0).sum())))
    plain(x)
    batches = [(x, torch.arange(6) % 3)]
    reports = [
        audit(
            network(inplace), batches, precisions=[at], lifted=lifted, layers=True,
            selections=["minimal", "branch:0.5"],
        )
        for inplace in (False, True)
    ]  # fmt: skip
    for report in reports:
        assert [s.tied for s in report.sites if s.operation == "relu"] == zeros
    assert min(zeros) > 0
    assert reports[0].sites == reports[1].sites
    assert list(map(repr, reports[0].points)) == list(map(repr, reports[1].points))
