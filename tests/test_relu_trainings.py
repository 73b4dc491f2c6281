"""Trainings under values of ReLU'(0), against plain loops of PyTorch; shares of draws by images."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import data
from kinkcheck.data import ImageSet
from kinkcheck.measure.forward import Forward
from kinkcheck.paper.catalogue import EXPERIMENTS
from kinkcheck.paper.experiments import (
    draws_by_images,
    relu_dropout,
    relu_introduction,
    relu_zeros_by_architecture,
)
from kinkcheck.paper.harness.case import Case, Mlp, Network, Size, take
from kinkcheck.paper.harness.experiment import Setup
from kinkcheck.paper.harness.gradients import drawn
from kinkcheck.paper.harness.published_values import table
from kinkcheck.paper.harness.running import read
from kinkcheck.report.ink import save

SMALL = Mlp(layers=1, neurons=8)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path, reduced=True)


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """Pictures of few shades, in the place of every data set."""
    generator = torch.Generator().manual_seed(0)
    shades = torch.randint(0, 3, (128, 1, 28, 28), generator=generator, dtype=torch.uint8)
    found = ImageSet(
        name="mnist", split="train", classes=10, mean=(0.0,), std=(1.0,),
        images=100 * shades, labels=torch.arange(128) % 10,
    )  # fmt: skip
    monkeypatch.setattr(data, "load", lambda *_, **__: found)
    return found


class Where(nn.Module):
    """ReLU with the derivative 1 at 0."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x >= 0, x, 0)


class HalfSilent(Network):
    """Of draws every other one gives a ReLU exactly 0."""

    def build(self, images: object) -> nn.Module:
        model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 2), nn.ReLU(), nn.Linear(2, 10))
        with torch.no_grad():
            model[1].bias.fill_(0.5)
            if float(torch.rand(())) < 0.5:
                model[1].weight.zero_()
                model[1].bias.zero_()
        return model


# --- shares of draws -----------------------------------------------------------------------------


def test_a_share_is_of_the_draws_whose_gradient_relus_slope_at_0_changes(
    images: ImageSet, setup: Setup
) -> None:
    network = HalfSilent("half")
    plan = draws_by_images.Plan((Case(network, "mnist", Size(6, None, 16)),), (1, 3), ("float32",))
    silent = sum(not drawn(lambda: network.build(images), draw)[1].bias.any() for draw in range(6))
    assert 0 < silent < 6
    rows = draws_by_images.measure(setup, plan, draws_by_images._changes, lambda given: given)
    assert [(row.images, row.draws, row.met) for row in rows] == [(16, 6, silent), (48, 6, silent)]
    assert draws_by_images.measure(setup, plan, _refused, lambda given: given) == rows  # kept
    picture = save(lambda: EXPERIMENTS["relu-sample-volumes"].draw(rows), "svg").decode()
    assert "images looked at" in picture


def _refused(forward: Forward) -> bool:
    raise AssertionError("measured again")


@pytest.mark.parametrize(("size", "beyond"), [(1.0, True), (1e-7, False)])
def test_a_zone_is_met_beyond_the_threshold(size: float, beyond: bool) -> None:
    """Four parameters tie: native has (1, 0, 0, 0), minimal 1/4 of it each; 3/4 apart."""
    model = nn.ParameterList([torch.zeros(1, 1, 2, 2)])
    forward = Forward(model, lambda: size * F.max_pool2d(model[0], 2).sum())
    assert draws_by_images._beyond_threshold(forward) == beyond


def test_batch_norm_that_takes_the_mean_away_first_is_0_where_the_input_is_the_mean() -> None:
    x = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    x[0, :, 0, 0] = 0
    for _ in range(100):  # until it is the mean of what it is in
        x[0, :, 0, 0] = torch.var_mean(x, (0, 2, 3), correction=0)[1]
    norm = nn.BatchNorm2d(3)
    found = draws_by_images.MeanFirst(norm)(x)
    at_mean = x == torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)[1]
    assert at_mean[0, :, 0, 0].any()
    assert torch.equal(found == 0, at_mean)


def test_a_network_whose_batch_norms_take_the_mean_away_first_says_so(
    images: ImageSet, setup: Setup
) -> None:
    network = draws_by_images._MeanFirst("lenet5", True)
    kinds = [type(each) for each in network.build(images).modules()]
    assert nn.BatchNorm2d not in kinds
    assert draws_by_images.MeanFirst in kinds
    plan = draws_by_images.Plan((Case(network, "mnist", Size(1, None, 16)),), (1,), ("float32",))
    (row,) = draws_by_images.measure(setup, plan, draws_by_images._changes, lambda given: given)
    assert (row.batch_norm, row.mean_first) == (True, True)


def test_batch_norm_in_16_bits_is_0_where_the_input_is_the_mean_in_16_bits() -> None:
    """As the page on ReLU says of PyTorch's kernel."""
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)).half()
    mean = torch.native_batch_norm(x, None, None, None, None, True, 0.0, 1e-5)[1]
    assert mean.dtype == torch.float16
    found = nn.functional.batch_norm(x, None, None, training=True)
    assert found.eq(0).any()
    assert torch.equal(found == 0, x == mean.view(3, 1, 1))


def test_batch_norm_that_takes_the_mean_away_first_is_batch_norm() -> None:
    norm = nn.BatchNorm2d(3, dtype=torch.float64)
    x = torch.randn(5, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    cotangent = torch.randn_like(x)
    sources = [x, norm.weight, norm.bias]
    found, expected = (
        torch.autograd.grad(each(x), sources, cotangent)
        for each in (draws_by_images.MeanFirst(norm), norm)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_shares_stand_beside_the_published_ones() -> None:
    row = draws_by_images.Row("vgg11", True, "cifar10", "float16", 200, 8, 3, 37.5, 8.5, 75.5)
    (found,) = draws_by_images.compare([row, replace(row, data="svhn"), replace(row, images=150)])
    assert (found.published, found.within) == (37.3, True)
    assert {int(line["draws"]) for line in table("relu_sample_volumes")} == {1000}


# --- zeros over a training -----------------------------------------------------------------------


def test_zeros_by_architecture_are_those_of_a_plain_training(
    images: ImageSet, setup: Setup
) -> None:
    plan = relu_zeros_by_architecture.Plan((1,), (8,), images=64, epochs=2, every=1)
    rows = relu_zeros_by_architecture.measure(setup, plan)
    assert [row.inputs for row in rows] == [64 * 8] * 6
    trained = images.take(64)
    model = drawn(lambda: SMALL.build(images), 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for row in rows[3:]:
        if row.epoch:
            for x, y in trained.batches(128, seed=row.epoch):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
            assert row.loss == loss.item()
        ((x, _),) = trained.batches(64)
        assert row.zeros == int((model.layers[0](x.flatten(1)) == 0).sum())
    assert relu_zeros_by_architecture.summarise(rows)[0]["epoch"] == 2
    picture = save(lambda: EXPERIMENTS["relu-zeros-by-architecture"].draw(rows), "svg").decode()
    assert "1 layer, float16" in picture


def test_zeros_stand_beside_the_published_ones() -> None:
    (published,) = (
        int(line["zeros"])
        for line in table("relu_zeros_by_architecture")
        if [*line.values()][:4] == ["16", "3", "512", "99"]
    )
    row = relu_zeros_by_architecture.Row(3, 512, "float16", 100, 0, 1, 0.0, None)
    (found,) = relu_zeros_by_architecture.compare([row])
    assert found.published == pytest.approx(1e6 * published / 92_160_000)
    assert found.within is None


# --- dropout -------------------------------------------------------------------------------------


def test_dropout_trains_as_a_plain_network_with_dropout_after_each_relu(
    images: ImageSet, setup: Setup
) -> None:
    plan = relu_dropout.Plan(
        SMALL, dropouts=(0.0, 0.5), alphas=(0.0, 1.0), runs=1, images=64, tested=64, epochs=2
    )
    rows = relu_dropout.measure(setup, plan)
    for row in rows:
        model = drawn(lambda: SMALL.build(images), 0)
        relu = nn.ReLU() if row.alpha == 0 else Where()
        model.layers[1] = nn.Sequential(relu, nn.Dropout(row.dropout))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.manual_seed(0)
        for epoch in (1, 2):
            for x, y in images.take(64).batches(128, seed=epoch):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
        assert row.train_loss == loss.item()
    assert rows[0].train_loss != rows[2].train_loss
    picture = save(lambda: EXPERIMENTS["relu-dropout"].draw(rows), "svg").decode()
    assert "zeros at ReLU in training" in picture
    published = [100 * float(r["test_accuracy"]) for r in table("relu_dropout_final")[:10]]
    compared = relu_dropout.compare(rows)
    assert [found.what[:11] for found in compared] == ["dropout 0: ", "dropout 0.5"]
    assert compared[0].published == pytest.approx(sum(published) / 10)


# --- the introduction ----------------------------------------------------------------------------


class OneAtItsKink(Mlp):
    """A neuron is given exactly 0 by every image."""

    def build(self, images: ImageSet) -> nn.Module:
        model = super().build(images)
        with torch.no_grad():
            model.layers[0].weight[0] = model.layers[0].bias[0] = 0
        return model


def test_networks_part_at_the_first_step_that_meets_a_kink(images: ImageSet, setup: Setup) -> None:
    plan = relu_introduction.Plan(OneAtItsKink(layers=2, neurons=32), steps=3, side=1)
    rows = relu_introduction.measure(setup, plan)
    steps = [row for row in rows if isinstance(row, relu_introduction.Step)]
    assert len(steps) == 2 * 2 * 3 * 3
    assert not any(row.distance for row in steps if row.network != 1)
    for function in ("ReLU", "ReLU6"):
        for precision in ("float16", "float32"):
            own = [
                row
                for row in steps
                if (row.function, row.precision, row.network) == (function, precision, 1)
            ]
            assert [row.step for row in own if row.distance] == [1, 2]
            assert own[0].at_kinks >= 128  # one of every image
            assert all((row.nearest == 0) == (row.at_kinks > 0) for row in own)
    lines = relu_introduction.summarise(rows)
    assert [line["function"] for line in lines] == ["ReLU", "ReLU", "ReLU6", "ReLU6"]
    assert {line["differ from step"] for line in lines} == {1}
    assert {line["native again from step"] for line in lines} == {None}
    picture = save(lambda: EXPERIMENTS["relu-introduction"].draw(rows), "svg").decode()
    assert "least distance from a kink" in picture


def test_the_plane_has_the_points_where_two_spellings_differ(
    images: ImageSet, setup: Setup
) -> None:
    network = OneAtItsKink(layers=2, neurons=8)
    plan = relu_introduction.Plan(network, steps=2, side=5, precisions=("float32",))
    rows = relu_introduction.measure(setup, plan)
    (plane, _) = (row for row in rows if isinstance(row, relu_introduction.Plane))
    assert plane == relu_introduction.Plane("ReLU", "float32", 0, 2.0**-26, 5)
    found = {
        (row.a, row.b): row.variation
        for row in rows
        if isinstance(row, relu_introduction.Corner) and row.function == "ReLU"
    }
    ((x, y),) = take(images, 128, 1)
    expected = {}
    for a, b in product([-1, -0.5, 0, 0.5, 1], repeat=2):
        gradients = []
        for relu in (nn.ReLU, Where):
            model = drawn(lambda: network.build(images), 0)
            model.layers[1], model.layers[3] = relu(), relu()
            model.double()
            with torch.no_grad():
                for seed, far in ((0, a), (1, b)):
                    generator = torch.Generator().manual_seed(seed)
                    for each in model.parameters():
                        each += far * 2.0**-26 * torch.randn(each.shape, generator=generator)
            loss = F.cross_entropy(model.float()(x), y)
            gradients.append(torch.autograd.grad(loss, list(model.parameters())))
        variation = sum(float((p - q).abs().sum()) for p, q in zip(*gradients, strict=True))
        if variation:
            expected[a, b] = variation
    assert found == pytest.approx(expected)
    assert (0, 0) in found


def test_the_stored_planes_are_where_the_stored_trainings_part() -> None:
    runs = Path(__file__).parent.parent / "docs" / "experiments" / "runs"
    rows = read(EXPERIMENTS["relu-introduction"], runs).rows
    planes = [row for row in rows if isinstance(row, relu_introduction.Plane)]
    assert [plane.precision for plane in planes] == ["float16", "float32"]
    for plane in planes:
        steps = [
            row
            for row in rows
            if isinstance(row, relu_introduction.Step)
            and (row.function, row.precision) == (plane.function, plane.precision)
        ]
        assert plane.step + 1 == min(row.step for row in steps if row.distance)
        assert any(row.at_kinks for row in steps if (row.network, row.step) == (0, plane.step))
        assert any(
            row.precision == plane.precision and abs(row.a) + abs(row.b) < 1e-6
            for row in rows
            if isinstance(row, relu_introduction.Corner)
        )
