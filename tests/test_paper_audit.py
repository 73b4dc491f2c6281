"""The papers' experiments that audit: tiny runs, rules by hand, and figures of made-up rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import kinkcheck.nn
from kinkcheck import data, networks
from kinkcheck.audit import audit
from kinkcheck.data import Images, ImageSet
from kinkcheck.errors import InputError
from kinkcheck.measure.batch import Samples
from kinkcheck.measure.forward import Gradient
from kinkcheck.measure.runs import Runs
from kinkcheck.measure.zones import Zone
from kinkcheck.paper.catalogue import EXPERIMENTS
from kinkcheck.paper.experiments import (
    lift,
    norm_pool,
    programs,
    relu_introduction,
    relu_volumes,
    relu_zeros,
    thresholds,
    tied_windows,
    variations,
    volumes,
)
from kinkcheck.paper.harness import gradients
from kinkcheck.paper.harness.case import Case, Mlp, Network, Size, take
from kinkcheck.paper.harness.experiment import Experiment, Setup
from kinkcheck.paper.harness.first_hits import first_hits
from kinkcheck.paper.harness.rows import by, decoded, line
from kinkcheck.report.ink import save
from kinkcheck.selection import Branch, Minimal

DTYPES = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
positive = st.floats(1e-9, 1e3)


def image_set(name: str, count: int = 64) -> ImageSet:
    """Pictures of two shades in the shape of a set that is not there."""
    side, channels = (28, 1) if name == "mnist" else (32, 3)
    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, side // 4, side // 4)
    coarse = 255 * torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8)
    return ImageSet(
        name=name,
        split="train",
        classes=10,
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
        images=coarse.repeat_interleave(4, -1).repeat_interleave(4, -2),
        labels=torch.arange(count) % 10,
    )


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up pictures in the place of every data set."""

    def load(name: str, split: str = "train", *, data_dir: Path | None = None) -> ImageSet:
        return image_set(name)

    monkeypatch.setattr(data, "load", load)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path, reduced=True)


def drawn(experiment: Experiment[Any], rows: Sequence[Any]) -> str:
    """The figure of some rows, which a file would hold as they are."""
    content = json.loads(json.dumps([line(row) for row in rows]))
    assert repr(decoded(experiment.row, content, "x")) == repr(list(rows))
    return save(lambda: experiment.draw(rows), "svg").decode()


# --- programs ------------------------------------------------------------------------------------


def test_the_derivative_of_zero_is_what_exact_arithmetic_says(setup: Setup) -> None:
    for row in programs.measure(setup):
        if row.program != "zero":
            continue
        dtype = DTYPES[row.precision]
        x = [Fraction(float(torch.tensor(float(e), dtype=dtype))) for e in row.entries.split()]
        t = Fraction(float(torch.tensor(row.t, dtype=dtype)))
        tied = [entry for entry in x if t * entry == max(t * other for other in x)]
        assert row.exact == tied[0] - sum(tied) / len(tied)
        assert abs(row.derivative - row.exact) <= 2 * torch.finfo(dtype).eps
        assert row.value == 0


def test_zero_bifurcates_at_0_and_compensates_elsewhere(setup: Setup) -> None:
    rows = [row for row in programs.measure(setup) if row.program == "zero"]
    wrong = {(row.entries, row.t) for row in rows if row.exact}
    assert wrong == {("1 2 3 4", 0.0)}
    assert {row.derivative for row in rows if row.exact} == {-1.5}
    rounded = {row.entries for row in rows if row.derivative and not row.exact}
    assert rounded == {"1.4 1.4 1.4 1.4", "1.14 1.14 1.14 1.14"}
    picture = drawn(EXPERIMENTS["programs"], programs.measure(setup))
    assert "without rounding" in picture


# --- volumes -------------------------------------------------------------------------------------


def test_volumes_take_as_many_batches_as_planned(pictures: None, setup: Setup) -> None:
    bars = [
        volumes.Bar("batch_size", Case(Network("lenet5"), "cifar10", Size(1, *size)))
        for size in ((2, 8), (None, 16))
    ]
    rows = volumes.measure(setup, bars)
    assert [(row.value, row.precision, row.points) for row in rows] == [
        (size, precision, points)
        for size, points in ((8, 2), (16, 4))
        for precision in ("float16", "float32", "float64")
    ]
    assert "2-4 points a bar; lenet5" in save(lambda: volumes.draw(rows, "batch"), "svg").decode()


@pytest.mark.parametrize(
    ("name", "factor", "values"),
    [
        ("volume-by-precision", "precision", ("vgg11",)),
        ("volume-by-depth", "network", ("vgg11", "vgg13", "vgg16", "vgg19")),
        ("volume-by-batch-size", "batch_size", (64, 256, 512, 1024)),
        ("volume-by-batch-norm", "batch_norm", (False, True)),
    ],
)
@pytest.mark.parametrize("reduced", [False, True])
def test_every_published_bar_has_one_of_ours(
    name: str,
    factor: str,
    values: tuple[Any, ...],
    reduced: bool,
    setup: Setup,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planned: list[volumes.Bar] = []

    def measure(setup: Setup, bars: Sequence[volumes.Bar]) -> list[volumes.Row]:
        planned.extend(bars)
        return [
            volumes.Row(
                bar.factor, bar.value, bar.case.network.name, precision, None, 10, 5, 50.0, 18.7,
                81.3,
            )
            for bar in bars
            for precision in DTYPES
        ]  # fmt: skip

    monkeypatch.setattr(volumes, "measure", measure)
    experiment = EXPERIMENTS[name]
    rows = experiment.measure(replace(setup, reduced=reduced))
    assert {bar.value for bar in planned} == set(values)
    assert all((bar.case.size.batches is None) != reduced for bar in planned)
    networks = {bar.case.network.name for bar in planned}
    if factor == "batch_size":
        assert networks == {"vgg11" if reduced else "vgg19"}
    assert experiment.compare is not None
    found = experiment.compare(rows)
    assert len(found) == 3 * len(values)
    # 91.8 % is of 49 mini-batches of 1,024 images, too few to tell it from 81 %.
    assert all(each.within == (each.published not in (0.0, 100.0, 99.7)) for each in found)


def test_the_charts_are_those_of_the_published_bars() -> None:
    bars = {(factor, value) for factor, value, _ in volumes.published_shares()}
    ours = {
        (bar.factor, str(bar.value).lower()) for chart in volumes.CHARTS.values() for bar in chart
    }
    assert ours == {(factor, value) for factor, value in bars if factor != "precision"}


@pytest.mark.slow
@pytest.mark.parametrize("factor", volumes.CHARTS)
def test_volumes_of_a_chart_on_real_images(factor: str, data_dir: Path, setup: Setup) -> None:
    setup = replace(setup, data_dir=data_dir)
    # The first and last bar of each chart, on two batches of four or eight images.
    for number, bar in enumerate(volumes.CHARTS[factor][k] for k in (0, -1)):
        size = Size(1, 2, 8 if bar.case.size.batch_size > 128 else 4)
        case = replace(bar.case, size=size)
        found = volumes.estimated(setup, volumes.Bar(factor, case, ("float32",)), lifted=False)
        assert len(list(setup.work.iterdir())) == number + 1
        torch.manual_seed(0)
        network = networks.build(
            case.network.name,
            in_channels=3,
            classes=10,
            image_size=32,
            batch_norm=case.network.batch_norm,
            init="kaiming",
        )
        batches = data.load("cifar10", data_dir=data_dir).batches(size.batch_size, seed=0)
        expected = audit(network, [next(batches)], operations=["max_pool"]).points[0]
        assert found.points[0].variation == expected.variation
        assert found.points[0].loss == expected.loss
        assert found.visited == 2


def test_too_few_images_are_refused(pictures: None, setup: Setup) -> None:
    bars = volumes.few(volumes.CHARTS["batch_size"][-1:], 1)
    with pytest.raises(InputError, match=r"batches: 1 of 1024 images each: cifar10 has 64 images"):
        volumes.measure(setup, bars)


# --- threshold against lift ----------------------------------------------------------------------


@given(st.lists(positive, max_size=12), st.lists(positive, max_size=12))
def test_no_threshold_does_better_than_the_best(no: list[float], yes: list[float]) -> None:
    best = lift.best_split(no, yes)
    assert best.wrong == lift.errors(best.threshold, no, yes)
    # Between two D the rule does not change: these are all rules there are.
    places = sorted({*no, *yes})
    between = [(a + b) / 2 for a, b in pairwise(places)]
    assert all(best.wrong <= lift.errors(t, no, yes) for t in (0.0, *places, *between, 1e4))
    assert best.wrong <= min(len(no), len(yes))  # one answer for all is a rule too


MADE_UP = [
    lift.Row("network", "vgg11", "vgg11", "cifar10", "float32", 0, batch, *judged)
    for batch, judged in enumerate(
        [
            (2e-7, "bifurcation", "compensation"),
            (3e-7, "bifurcation", "compensation"),
            (5e-8, "compensation", "bifurcation"),
            (1e-6, "bifurcation", "bifurcation"),
            (0.0, "agreement", "agreement"),
            (4e-7, "bifurcation", "undecided"),
        ]
    )
]


def test_points_are_counted_by_both_judges() -> None:
    vgg, every = lift.by_setting(MADE_UP)
    assert (vgg.setting, every.setting) == ("vgg11", "all")
    for found in (vgg, every):
        assert (found.points, found.above, found.true) == (6, 4, 1)
        assert (found.compensation, found.bifurcation, found.others) == (2, 2, 2)
        # The published threshold puts both compensations and one bifurcation wrong; 3e-7 one.
        assert (found.wrong, found.best_threshold, found.best_wrong) == (75.0, 3e-7, 25.0)
    assert vgg.true_percent == 25.0
    # Clopper-Pearson for 1 of 4, as tabulated.
    assert (vgg.low, vgg.high) == (pytest.approx(0.63, abs=0.01), pytest.approx(80.59, abs=0.01))
    assert (every.true_percent, every.low) == (None, None)


def test_bifurcation_by_the_lift_stands_beside_the_published_share() -> None:
    (found,) = lift.compare(MADE_UP)
    assert (found.what, found.published) == ("vgg11, float32: % bifurcation", 48.6)
    assert found.ours == pytest.approx(100 * 2 / 6)


def test_the_lift_judges_every_point_once(pictures: None, setup: Setup) -> None:
    narrow = ("float16", "float32")
    bars = [
        volumes.Bar("network", Case(Network("lenet5"), "mnist", Size(2, 2, 8)), narrow),
        volumes.Bar("batch_norm", Case(Network("lenet5", True), "cifar10", Size(1, 1, 8))),
    ]
    rows = lift.measure(setup, bars)
    assert len(rows) == 2 * 2 * 2 + 3
    assert {row.by_lift for row in rows} <= set(map(str, Zone))
    again = lift.measure(setup, bars)
    assert again == rows
    assert lift.by_setting(rows)[-1].setting == "all"
    picture = drawn(EXPERIMENTS["threshold-against-lift"], rows)
    assert "lenet5, batch norm True" in picture


def test_figures_of_either_class_alone_can_be_drawn() -> None:
    for rows in (MADE_UP, MADE_UP[:2], MADE_UP[4:5]):
        assert "published" in drawn(EXPERIMENTS["threshold-against-lift"], rows)


# --- tied windows --------------------------------------------------------------------------------


def test_a_tied_window_of_pixels_is_one_whose_largest_pixel_is_met_twice(setup: Setup) -> None:
    images = image_set("mnist").normalise(image_set("mnist").images[:1])
    images[0, 0, :2, :2] = torch.tensor([[0.0, 3.0], [3.0, 1.0]])
    images[0, 0, :2, 2:4] = torch.tensor([[5.0, 3.0], [3.0, 1.0]])
    found = {(row.top, row.left) for row in tied_windows._tied_pixels("mnist", images[0])}
    assert (0, 0) in found
    assert (0, 2) not in found


def test_every_pixel_and_every_tied_place_is_a_row(pictures: None, setup: Setup) -> None:
    rows = tied_windows.measure(setup)
    assert sum(isinstance(row, tied_windows.Pixel) for row in rows) == 28**2 + 32**2
    panels = {(row["image"], row["panel"]): row for row in tied_windows.summarise(rows)}
    # Squares of 4 x 4 equal pixels: all 2 x 2 windows of pixels are tied.
    assert panels["mnist", "pixels"]["tied"] == 14**2
    assert panels["cifar10", "pixels"]["tied"] == 16**2
    picture = drawn(EXPERIMENTS["tied-windows"], rows)
    assert "mnist: pixels" in picture


# --- variation, thresholds, norm pooling ---------------------------------------------------------


def test_equal_backward_passes_give_equal_gradients(pictures: None, setup: Setup) -> None:
    case = Case(Network("lenet5"), "mnist", Size(2, 1, 8))
    rows = variations.measure(setup, case)
    assert len(rows) == 2 * 2 * 2 * 4  # noise, pairs of programs, points, precisions
    assert {row.variation for row in rows if row.programs == "native twice"} == {0.0}
    # Squares of equal pixels tie; noise unties them, and what float16 rounds together still ties.
    different = {
        (row.noise, row.precision)
        for row in rows
        if row.programs == "native and minimal" and row.variation
    }
    assert (False, "float16") in different
    assert not different & {(True, "float32"), (True, "float64")}
    assert variations.measure(setup, case) == rows  # kept
    assert "published thresholds" in drawn(EXPERIMENTS["variation-histograms"], rows)


def test_noise_undoes_the_ties_of_the_background() -> None:
    digits = take(data.load("mnist-sample"), 4, 3)
    noisy = variations.with_input_noise(digits, seed=1)
    first = torch.nn.Sequential(torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(196, 10))
    ties = [audit(first, batches).sites[0].tied for batches in (digits, noisy)]
    assert ties[0] > 1000
    assert ties[1] == 0
    again = variations.with_input_noise(digits, seed=1)
    difference = torch.cat([x - y for (x, _), (y, _) in zip(noisy, digits, strict=True)])
    assert all(torch.equal(x, y) for (x, _), (y, _) in zip(noisy, again, strict=True))
    assert difference.mean().item() == pytest.approx(0, abs=0.05)  # 9,408 numbers: 4.8 deviations
    assert difference.std().item() == pytest.approx(1, abs=0.05)
    assert all(x is y for (_, x), (_, y) in zip(noisy, digits, strict=True))


def test_histograms_of_zeros_alone_can_be_drawn() -> None:
    rows = [variations.Row("native twice", False, "float32", 0, n, 0.0) for n in range(3)]
    assert "3 points each" in drawn(EXPERIMENTS["variation-histograms"], rows)


def test_the_floor_of_a_sum_is_what_another_order_rounds() -> None:
    """A linear model under cross-entropy, whose gradient is known in closed form."""
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3)
    pair = torch.rand(32, 5), torch.arange(32) % 3
    double = model.weight.detach().double()
    inputs, labels = pair[0].double(), pair[1]
    scores = inputs @ double.T + model.bias.detach().double()
    error = (scores.softmax(1) - torch.nn.functional.one_hot(labels, 3)) / 32
    size = float((error.abs().T @ inputs).sum() + error.abs().sum())
    found = {p: gradients.reordered(model, pair, p, "cpu", meet=False).l1 for p in DTYPES}
    assert 0 < found["float64"] < 32 * 2.0**-53 * size
    assert 0 < found["float32"] < 32 * 2.0**-24 * size
    assert 0 < found["float16"] < 32 * 2.0**-11 * size


@pytest.mark.parametrize("family", ["max_pool", "relu"])
def test_a_pair_of_programs_is_two_networks(family: str) -> None:
    """The published procedure: each network runs forward and backward by itself."""
    images = image_set("mnist")
    pair = take(images, 16, 1)[0]
    selection = {"max_pool": Minimal(), "relu": Branch(1.0)}[family]
    build = {"max_pool": Network("lenet5").build, "relu": a_third_is_silent}[family]
    found = []
    for chosen in ("native", str(selection)):
        model = kinkcheck.nn.convert(gradients.drawn(partial(build, images), 0), **{family: chosen})
        torch.nn.functional.cross_entropy(model(pair[0]), pair[1]).backward()
        found.append([p.grad.double() for p in model.parameters() if p.grad is not None])
    expected = sum(float((a - b).abs().sum()) for a, b in zip(*found, strict=True))
    assert expected > 0
    model = gradients.drawn(partial(build, images), 0)
    variation = gradients.against_native(model, pair, "float32", "cpu", family, selection)
    assert variation.l1 == pytest.approx(expected, rel=1e-6)


def test_thresholds_are_floors_of_the_same_program(pictures: None, setup: Setup) -> None:
    cases = [
        Case(Network("lenet5"), "mnist", Size(2, 2, 8)),
        thresholds.StandIn(
            Network("lenet5", True), "cifar10", Size(1, 1, 8), stands_for="cifar100"
        ),
    ]
    rows = thresholds.measure(setup, cases)
    assert len(rows) == (4 + 1) * 3 * 4
    by_way = by(rows, lambda row: row.way)
    assert {row.l1 for row in by_way["repeated, deterministic kernels"]} == {0.0}
    assert len(by_way) == 4
    floors = {
        precision: max(
            row.l1
            for row in by_way["noise floor"]
            if (row.precision, row.data) == (precision, "mnist")
        )
        for precision in DTYPES
    }
    # Rounding errors grow with the unit roundoff, 2^-11, 2^-24 and 2^-53.
    assert 2**29 / 30 < floors["float32"] / floors["float64"] < 2**29 * 30
    assert 2**13 / 30 < floors["float16"] / floors["float32"] < 2**13 * 30
    assert thresholds.measure(setup, cases) == rows  # kept
    found = thresholds.compare(rows)
    assert {each.published for each in found} == {1e-3, 1e-7, 1e-15}
    assert {each.within for each in found} == {None}
    assert "cifar100" in drawn(EXPERIMENTS["thresholds"], rows)


def test_runs_that_add_in_any_order_spread(
    pictures: None, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for kernels of a GPU: each run has its samples in an order of its own."""
    generator, kinds = torch.Generator().manual_seed(0), []

    def plain(runs: Runs) -> Gradient:
        order = torch.arange(8)
        if kinds[-1] == "any":
            order = torch.randperm(8, generator=generator)
        return runs.forward(Samples(8), order).gradient(lambda tape: {})

    @contextmanager
    def allowing(kind: str, device: str) -> Iterator[None]:
        kinds.append(kind)
        yield

    monkeypatch.setattr(Runs, "plain", plain)
    monkeypatch.setattr(thresholds, "_allowing", allowing)
    of_cuda = thresholds.kernels("cuda")
    monkeypatch.setattr(thresholds, "kernels", lambda device: of_cuda)
    rows = thresholds.measure(setup, [Case(Network("lenet5"), "mnist", Size(1, 1, 8))])
    spread = {
        (row.precision, row.kernels): row for row in rows if isinstance(row, thresholds.Repeated)
    }
    assert {row.repetitions for (_, kind), row in spread.items() if kind == "any"} == {10}
    assert {row.l1 for (_, kind), row in spread.items() if kind == "deterministic"} == {0.0}
    found = {precision: spread[precision, "any"].l1 for precision in DTYPES}
    # Units roundoff are 2^-24 and 2^-53; in float16 sums are float32's, and most of it is rounded.
    assert 2**29 / 30 < found["float32"] / found["float64"] < 2**29 * 30
    assert found["float16"] > 0
    repeated = [each for each in thresholds.compare(rows) if each.what.endswith(": repeated")]
    assert [each.ours for each in repeated] == list(found.values())
    assert "in any order" in drawn(EXPERIMENTS["thresholds"], rows)
    content = json.loads(json.dumps([line(row) for row in rows]))
    assert decoded(EXPERIMENTS["thresholds"].row, content, "x") == rows


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_repeated_runs_on_cuda_leave_the_settings_of_kernels_alone(
    pictures: None, setup: Setup
) -> None:
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    cuda = replace(setup, device="cuda")
    rows = thresholds.measure(cuda, [Case(Network("vgg11"), "cifar10", Size(1, 1, 8))])
    repeated = [row for row in rows if isinstance(row, thresholds.Repeated)]
    assert len(repeated) == 6
    for row in repeated:
        assert row.device == "cuda"
        assert row.l1 == 0 or row.kernels == "any"
    after = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    assert after == before


def test_a_set_that_is_not_there_is_named_before_anything_is_measured(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = data.load

    def load(name: str, split: str = "train", *, data_dir: Path | None = None) -> Any:
        return image_set(name) if name == "mnist" else there(name, split, data_dir=data_dir)

    monkeypatch.setattr(data, "load", load)
    folders = [tmp_path / name for name in ("data", "work")]
    for folder in folders:
        folder.mkdir()
    setup = replace(setup, data_dir=folders[0], work=folders[1])
    lenet, vgg, size = Network("lenet5"), Network("vgg11"), Size(1, 1, 8)
    with pytest.raises(InputError, match="svhn"):
        thresholds.measure(
            setup,
            [Case(lenet, "mnist", size), Case(vgg, "svhn", size)],
        )
    with pytest.raises(InputError, match="cifar10"):
        relu_zeros.measure(
            setup,
            [Case(lenet, "mnist", size), Case(vgg, "cifar10", size)],
        )
    assert not list(setup.work.iterdir())


def test_the_published_thresholds_are_measured_where_they_were() -> None:
    full = {(case.network.name, case.data) for case in thresholds._FULL}
    assert full == {
        ("lenet5", "mnist"),
        *((f"vgg{depth}", "cifar10") for depth in (11, 13, 16, 19)),
        ("resnet18", "cifar10"), ("vgg11", "svhn"), ("densenet121-published", "cifar100"),
    }  # fmt: skip
    reduced = {(c.network.name, getattr(c, "stands_for", c.data)) for c in thresholds._REDUCED}
    assert reduced == full


def test_norm_pooling_compares_two_vectors_with_0(pictures: None, setup: Setup) -> None:
    case = Case(norm_pool.NormPooled("lenet5", init="kaiming"), "mnist", Size(1, 2, 8))
    rows = norm_pool.measure(setup, case)
    assert len(rows) == 2 * 4 * 2
    assert {row.selection for row in rows} == {"branch:1", "branch:0.5"}
    # In 64 bits a norm is 0 only where a ReLU has made all entries 0, which lets nothing through.
    assert {row.variation for row in rows if row.precision == "float64"} == {0.0}
    (least,) = norm_pool.compare([replace(rows[0], variation=d) for d in (0.0, 0.5, 0.25)])
    assert (least.ours, least.published) == (0.25, 1.1920928955078125e-07)  # as it was printed
    assert "norm pooling" in drawn(EXPERIMENTS["norm-pool"], rows)


# --- ReLU ----------------------------------------------------------------------------------------


def test_programs_of_relu_differ_at_their_kinks_alone(setup: Setup) -> None:
    for row in relu_introduction.programs():
        x, kinks = row.x, relu_introduction.KINKS[row.function]
        value = max(x, 0.0) if row.function == "ReLU" else min(max(x, 0.0), 6.0)
        assert row.value == value
        if x not in kinks:
            assert row.derivative == (0 < x < kinks[-1] or (len(kinks) == 1 and x > 0))
            assert row.difference == 0
    rows = [row for row in relu_introduction.programs() if row.precision == "float32"]
    at = {(row.function, row.x, row.program[:5]): row.derivative for row in rows}
    assert [at["ReLU", 0.0, f"relu{k}"] for k in (1, 2, 3)] == [0.0, 1.0, 0.5]
    assert (at["ReLU6", 6.0, "relu1"], at["ReLU6", 6.0, "relu2"]) == (1.0, 0.0)
    assert "ReLU6" in drawn(EXPERIMENTS["relu-introduction"], rows)


def a_third_is_silent(images: Images) -> torch.nn.Module:
    """A network of which one hidden neuron of three is exactly 0 on every image."""
    first = torch.nn.Linear(28 * 28, 3)
    with torch.no_grad():
        first.weight[0], first.bias[0] = 0, 0
    return torch.nn.Sequential(
        torch.nn.Flatten(), first, torch.nn.ReLU(), torch.nn.Linear(3, images.classes)
    )


class SilentMlp(Mlp):
    def build(self, images: Images) -> torch.nn.Module:
        return a_third_is_silent(images)


class SilentNetwork(Network):
    def build(self, images: Images) -> torch.nn.Module:
        return a_third_is_silent(images)


def test_relu_volumes_count_draws_whose_gradient_changes(pictures: None, setup: Setup) -> None:
    # A third of its neurons is given 0 at every image.
    silent = Case(SilentMlp(layers=1, neurons=3), "mnist", Size(2, None, 16))
    values = {"layers": (1,), "batch_size": (8, 16)}
    rows = relu_volumes.measure(setup, silent, values, (32, 64))
    sizes = [(row.factor, row.value, row.images) for row in rows[::3]]
    assert sizes == [
        ("sample_size", 32, 32), ("sample_size", 64, 64), ("layers", 1, 64),
        ("batch_size", 8, 64), ("batch_size", 16, 64),
    ]  # fmt: skip
    # Clopper and Pearson, two of two: from (1/40)^(1/2).
    assert {(row.differing, row.draws, row.high) for row in rows} == {(2, 2, 100.0)}
    assert [row.low for row in rows] == pytest.approx([100 * 0.025**0.5] * len(rows))
    assert relu_volumes.measure(setup, silent, values, (32, 64)) == rows
    assert len(list(setup.work.iterdir())) == 2 * 2  # of the five, three are the same
    assert "2 draws, 32-64 images" in drawn(EXPERIMENTS["relu-volumes"], rows)
    compared = relu_volumes.compare(rows)
    assert [
        (found.published, found.within)
        for found in compared
        if found.what.startswith("batch size 16,")
    ] == [(100.0, True), (43.9, True)]


def test_a_draw_counts_from_its_first_mini_batch_on(
    monkeypatch: pytest.MonkeyPatch, setup: Setup
) -> None:
    """One picture among 64 gives a ReLU exactly 0: samples without it count nothing."""

    class Contrast(Mlp):
        def build(self, images: Images) -> torch.nn.Module:
            first = torch.nn.Linear(28 * 28, 1)
            with torch.no_grad():
                first.weight.copy_(torch.cat([torch.ones(392), -torch.ones(392)]) / 1024)
                first.bias.zero_()
            return torch.nn.Sequential(
                torch.nn.Flatten(), first, torch.nn.ReLU(), torch.nn.Linear(1, 10)
            )

    pictures = torch.zeros(64, 1, 28, 28, dtype=torch.uint8)
    pictures[:, :, :14] = 255
    images = replace(image_set("mnist"), images=pictures)
    numbered = replace(images, classes=64, labels=torch.arange(64))
    order = torch.cat([found for _, found in take(numbered, 16, 4)])
    pictures[order[2 * 16]] = 255  # the first of the third mini-batch: the halves cancel
    monkeypatch.setattr(data, "load", lambda *_, **__: images)
    case = Case(Contrast(), "mnist", Size(3, None, 16))
    rows = relu_volumes.measure(setup, case, {}, (16, 32, 48, 64))
    found = [row.differing for row in rows if row.precision == "float32"]
    assert found == [0, 0, 3, 3]


def test_no_mini_batch_after_the_first_hit_is_looked_at(tmp_path: Path) -> None:
    happens = {"float32": [[False, False, True], [False] * 4], "float16": [[True], [False, True]]}
    answers = [happens[name][draw] for draw in range(2) for name in happens]
    told = iter([each for run in answers for each in run])
    case = Case(Network("mlp"), "mnist-sample", Size(2, 4, 2))
    firsts = first_hits(
        Setup(tmp_path), "x", case, case.images(None), tuple(happens), lambda forward: next(told)
    )
    assert firsts == {"float32": [2, None], "float16": [0, 1]}
    assert not list(told)  # it was asked no oftener than so, or `next` had failed


def test_zeros_at_relu_are_counted_by_network(pictures: None, setup: Setup) -> None:
    cases = [
        Case(Network("mlp"), "mnist", Size(1, 2, 4)),
        Case(SilentNetwork("silent"), "mnist", Size(1, 2, 4)),
    ]
    rows = relu_zeros.measure(setup, cases)
    assert [row.inputs for row in rows] == [2 * 4 * 3 * 256] * 3 + [2 * 4 * 3] * 3
    for row in rows[3:]:
        assert (row.zeros, row.points_that_differ) == (2 * 4, 2)
        assert row.zeros_per_million == pytest.approx(1e6 / 3)
    assert relu_zeros.measure(setup, cases) == rows  # kept
    picture = drawn(EXPERIMENTS["relu-zeros"], rows)
    assert "silent" in picture
    assert "mlp" in picture
