"""The experiments of the papers that train."""

import json
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from kinkcheck.errors import InputError
from kinkcheck.paper.catalogue import EXPERIMENTS
from kinkcheck.paper.experiments import (
    forward_confound,
    norm_against_sign,
    relu_training,
    training_by_beta,
    weight_divergence,
)
from kinkcheck.paper.harness import published_values, training_figures, trainings
from kinkcheck.paper.harness.comparison import Sample, of_samples
from kinkcheck.paper.harness.experiment import Experiment, Setup
from kinkcheck.paper.harness.rows import by, decoded, line
from kinkcheck.paper.harness.running import read
from kinkcheck.paper.harness.running import run as run_experiment
from kinkcheck.paper.harness.trainings import Configuration, Epoch, Final
from kinkcheck.report.ink import save
from kinkcheck.study.spec import parse

TRAINED = (*training_by_beta.ACCURACIES, *relu_training.RELU_TRAININGS)


def rounded(value: Fraction, bits: int = 11, least: int = -24) -> Fraction:
    """To the nearest float of so many bits, ties to even; the oracle's own arithmetic."""
    if not value:
        return value
    exponent = math.floor(math.log2(abs(value))) - bits + 1
    unit = Fraction(2) ** max(exponent, least)
    return round(value / unit) * unit  # Python rounds a half to even


def assert_kept(experiment: Experiment[Any], rows: Sequence[Any]) -> None:
    """A file holds the rows as they are."""
    content = json.loads(json.dumps([line(row) for row in rows]))
    assert repr(decoded(experiment.row, content, "x")) == repr(list(rows))


def final(**keys: Any) -> Final:
    base = Final(
        data="mnist", network="lenet5", batch_norm=False, optimizer="sgd", precision="float16",
        forward="compound", relu=None, max_pool="hybrid:0", runs=2, diverged=0, diverged_at="",
        accuracy=99.0, accuracies="99.2 99.3", class_0=9.8, learning_rate=0.02, searched=False,
    )  # fmt: skip
    return replace(base, **keys)


@pytest.mark.parametrize("beta", [10, 100, 1000])
def test_the_forward_error_is_that_of_rational_arithmetic(beta: int) -> None:
    values = np.array([0.1, 0.33, 1.7, 2.5, 3.14], dtype=np.float16)
    windows = torch.zeros(5, 1, 2, 2, dtype=torch.float16)
    windows[:, 0, 1, 0] = torch.from_numpy(values)
    errors = []
    for value in map(Fraction, map(float, values)):
        got = rounded(rounded(beta * value) + rounded((1 - beta) * value))
        errors.append(float(abs(got - value) / value))
    row = forward_confound.error([windows], beta, "float16")
    assert row.error_greatest == pytest.approx(max(errors), rel=1e-12)
    assert row.error_median == pytest.approx(float(np.median(errors)), rel=1e-12)
    assert row.not_finite == 0


def test_the_forward_value_overflows_past_65504() -> None:
    windows = torch.tensor([6.0, 7.0], dtype=torch.float16).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    row = forward_confound.error([windows], 1e4, "float16")
    assert row.not_finite == 50
    assert forward_confound.error([windows], 1.0, "float16").error_greatest == 0


def test_what_is_lost_is_split_between_jacobian_and_forward_value() -> None:
    rows = [
        final(forward="exact", accuracies="99 97"),
        final(forward="exact", max_pool="hybrid:1000", accuracies="96 94"),
        final(forward="compound"),
        final(forward="compound", max_pool="hybrid:1000", accuracies="nan nan"),
    ]
    (row,) = forward_confound.attribution(rows)
    assert row.by_jacobian == pytest.approx(3)
    assert row.by_forward_value == pytest.approx(95 - 9.8)
    assert row.lost == pytest.approx(98 - 9.8)


def test_collapses_are_compared_as_shares_and_the_rest_as_accuracies() -> None:
    fine, lost = trainings.compare(
        [final(), final(max_pool="hybrid:1000", diverged=3, accuracies="nan nan nan")]
    )
    assert fine.what.endswith("accuracy, %")
    assert fine.published == pytest.approx(99.224)  # by hand, from ten runs at 16 bits
    assert lost.what.endswith("runs that collapsed, %")
    assert (lost.ours, lost.published, lost.within) == (100, 100, True)


def test_two_runs_have_no_verdict() -> None:
    rows = [
        final(accuracies=accuracies, max_pool=max_pool, diverged=accuracies.count("nan"))
        for accuracies in ("50 51", "50 51 52", "nan nan", "nan nan nan")
        for max_pool in ("hybrid:0", "hybrid:1000")
    ]
    verdicts = [found.within for found in trainings.compare(rows)]
    few, three = verdicts[:2] + verdicts[4:6], verdicts[2:4] + verdicts[6:]
    assert few == [None] * 4
    assert None not in three


def test_published_collapses() -> None:
    # Four of five runs of VGG-11 at 32 bits and 10⁴; on ImageNet, one of two at 10³ or both.
    (vgg,) = trainings.compare(
        [final(data="cifar10", network="vgg11", precision="float32", max_pool="hybrid:10000")]
    )
    assert vgg.published == 80
    image = final(
        data="imagenet", network="resnet50", batch_norm=True, precision="mixed",
        max_pool="hybrid:1000", diverged=2,
    )  # fmt: skip
    (found,) = trainings.compare([image])
    assert found.what.endswith("collapsed, %")
    assert found.published in (50, 100)


def test_the_exact_forward_was_not_published() -> None:
    assert trainings.compare([final(forward="exact"), final(max_pool="hybrid:7")]) == []


def under_alpha(alpha: str, **keys: Any) -> Final:
    base = final(
        data="cifar10", network="resnet18", precision="float32", forward="exact", max_pool=None,
        relu=f"branch:{alpha}",
    )  # fmt: skip
    return replace(base, **keys)


def test_values_of_relu_at_0_are_compared_with_their_runs() -> None:
    # By hand, from relu_training_final: "cifar10,resnet18,sgd,False", and svhn's under Adam.
    lost, stopped, other, svhn = trainings.compare(
        [
            under_alpha("0.5", diverged=3, accuracies="nan nan nan", accuracy=None),
            under_alpha("0.3"),
            under_alpha("0"),
            under_alpha("8", data="svhn", network="vgg11", optimizer="adam"),
        ]
    )
    assert lost.what == "resnet18 cifar10, sgd, float32, α = 0.5: runs that collapsed, %"
    assert (lost.ours, lost.published, lost.within) == (100, 100, True)
    # Three of ten runs went to their end, all at 10 %.
    assert stopped.what.endswith("α = 0.3: runs that collapsed, %")
    assert stopped.published == 100
    assert other.what.endswith("α = 0: accuracy, %")
    assert other.published == pytest.approx(90.136)
    assert svhn.published == pytest.approx(95.01074)


def test_losses_under_an_alpha_are_those_of_its_last_epoch() -> None:
    row = under_alpha("0.1")
    said = {field.name: getattr(row, field.name) for field in fields(Configuration)}
    end = Epoch(**said, runs=2, epoch=200, loss=0.1, loss_low=0.09, loss_high=0.11)
    _, loss = trainings.compare([row, end])
    assert loss.what.endswith("α = 0.1: training loss, epoch 200")
    assert loss.published == pytest.approx(0.0073801, abs=1e-7)
    assert len(trainings.compare([row, replace(end, epoch=199)])) == 1


def test_what_no_published_program_is_has_no_published_value() -> None:
    zero = under_alpha("0")
    both = replace(zero, max_pool="minimal")
    unlike = [both, replace(zero, relu="minimal"), under_alpha("0", network="vgg11")]
    assert trainings.compare([*unlike, under_alpha("-0.4")]) == []
    assert str(both).endswith("float32, branch:0")


@pytest.mark.parametrize("tied", [2, 4])
@pytest.mark.parametrize("name", norm_against_sign.SELECTIONS)
def test_norms_are_those_of_the_vectors(name: str, tied: int) -> None:
    native, minimal = np.eye(tied)[0], np.full(tied, 1 / tied)
    beta = float(name.partition(":")[2]) if name.startswith("hybrid") else 0.0
    expected = np.linalg.norm(native + beta * (minimal - native))
    assert norm_against_sign.norm(name, tied) == pytest.approx(expected)
    partner = norm_against_sign.partner_of(name)
    if partner:
        assert norm_against_sign.norm(partner, tied) == pytest.approx(expected)


def test_partners_are_compared() -> None:
    rows = [
        final(accuracies="90 92"), final(max_pool="hybrid:2", accuracies="80 84"),
        final(max_pool="last", accuracies="91 93"),
    ]  # fmt: skip
    native, other, last = norm_against_sign.with_partners(rows)
    assert native.partner is None
    assert other.difference == pytest.approx(-9)
    # Differences -10 and -8, of standard error 1: -9 ± t(1; 0.975).
    assert other.low == pytest.approx(-9 - 12.7062, rel=1e-5)
    assert (last.partner, last.low) == ("hybrid:0", None)


@pytest.mark.parametrize("experiment", TRAINED, ids=lambda experiment: experiment.name)
def test_specs_can_be_read_at_both_sizes(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained = []
    monkeypatch.setattr(trainings, "train", lambda setup, name, spec: trained.append(spec) or [])
    for reduced in (True, False):
        experiment.measure(Setup(tmp_path, reduced=reduced))
    assert all(spec.trials() for spec in trained)
    assert EXPERIMENTS[experiment.name] is experiment


def test_every_published_alpha_is_trained_at_full_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained = []
    monkeypatch.setattr(trainings, "train", lambda setup, name, spec: trained.append(spec) or [])
    for experiment in relu_training.RELU_TRAININGS:
        experiment.measure(Setup(tmp_path))
    cells = {
        (task.data, task.network, str(task.batch_norm), settings.optimizer, relu)
        for spec in trained
        for settings in spec.trials()
        for task, relu in [(settings.task, dict(settings.selections)["relu"])]
    }
    for row in published_values.table("relu_training_final"):
        of = row["dataset"], row["network"], row["batch_norm"], row["optimizer"]
        assert (*of, f"branch:{float(row['alpha']):g}") in cells


def test_the_full_form_needs_its_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="svhn") as caught:
        EXPERIMENTS["accuracy-vgg11-svhn"].measure(Setup(tmp_path / "w", data_dir=tmp_path))
    assert "\n" not in str(caught.value)


def test_a_small_training_from_numbers_to_ink(tmp_path: Path) -> None:
    said = []
    setup = Setup(tmp_path / "work", reduced=True, threads=1, on_progress=lambda *a: said.append(a))
    small = {"epochs": "1", "train_images": "64", "seeds": "2", "forward": '"compound"'}
    small["max_pool"] = '["hybrid:0", "hybrid:1e9"]'
    experiment = training_by_beta.experiment(
        "tiny", source="", shows="", full={}, small={"smoke": small}, cost="", cost_reduced="",
        reduced_cannot="",
    )  # fmt: skip
    numbers = run_experiment(experiment, tmp_path, setup)
    finals = {(row.precision, row.max_pool): row for row in numbers.rows if isinstance(row, Final)}
    lost = finals["float16", "hybrid:1e+09"]  # β is not a float16
    assert (lost.runs, lost.diverged, lost.accuracy) == (2, 2, None)
    assert trainings.runs_of(lost) == [lost.class_0] * 2
    assert finals["float32", "hybrid:0"].diverged == 0
    assert (tmp_path / "tiny.png").stat().st_size > 10_000
    assert said[-1][1] == said[-1][2] == 800
    assert all(done <= total for _, done, total in said)
    assert read(experiment, tmp_path) == numbers
    # Going on with what is there trains nothing anew.
    assert experiment.measure(setup)[0] == numbers.rows[0]


def test_the_forward_confound_from_numbers_to_ink(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = trainings.changed(
        "smoke", epochs="1", train_images="64", precision='"16"', forward='["exact", "compound"]'
    )
    monkeypatch.setattr(forward_confound, "_specs", lambda setup: {"tiny": spec})
    monkeypatch.setattr(forward_confound, "_IMAGES", 32)
    rows = forward_confound.measure(Setup(tmp_path, data_dir=data_dir, threads=1))
    errors = {
        (row.precision, row.beta): row.error_median
        for row in rows
        if isinstance(row, forward_confound.ForwardError)
    }
    assert errors["float16", 0.0] == errors["float16", 1.0] == 0
    # One rounding is half a unit, 2⁻¹¹ or 2⁻²⁴; it is magnified by about β.
    assert 0.05 < errors["float16", 1000.0] / (1000 * 2**-11) < 2
    assert 0.05 < errors["float32", 1000.0] / (1000 * 2**-24) < 2
    assert [row.beta for row in rows if isinstance(row, forward_confound.Lost)] == [10.0]
    assert_kept(EXPERIMENTS["forward-confound"], rows)
    assert save(lambda: forward_confound.draw(rows), "svg")


def test_networks_of_one_selection_do_not_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = (
        'data = "mnist-sample"\nnetwork = "lenet5"\nexperiment = "weight-divergence"\n'
        'train_images = 128\ntest_images = 64\nmax_pool = ["hybrid:0", "hybrid:10", "hybrid:0"]\n'
        "seeds = 1\nlearning_rate = 0.1\nepochs = 2\nbatch_size = 32\nprecision = "
    )
    monkeypatch.setattr(trainings, "changed", lambda name, precision: parse(tiny + precision, name))
    rows = weight_divergence.measure(Setup(tmp_path, threads=1))
    assert list(by(rows, lambda row: row.precision)) == ["float16", "float32", "float64"]
    for together in by(rows, lambda row: row.precision).values():
        _assert_of_one_selection_do_not_part(together)
    assert len(weight_divergence.last(rows)) == 9
    assert_kept(EXPERIMENTS["weight-divergence"], rows)
    old = [{k: v for k, v in line(row).items() if k != "precision"} for row in rows[:1]]
    assert decoded(weight_divergence.Row, old, "old")[0].precision == "float32"
    assert save(lambda: weight_divergence.draw(rows), "svg")


def _assert_of_one_selection_do_not_part(rows: Sequence[weight_divergence.Row]) -> None:
    by_network = by(rows, lambda row: row.network)
    assert [row.l1 for row in by_network[2]] == [0, 0, 0]
    assert by_network[1][0].l1 == 0 < by_network[1][-1].l1


def test_norms_and_signs_as_ink() -> None:
    rows = norm_against_sign.with_partners(
        [final(max_pool=name) for name in norm_against_sign.SELECTIONS]
    )
    assert_kept(EXPERIMENTS["norm-against-sign"], rows)
    assert save(lambda: norm_against_sign.draw(rows), "svg")


def test_how_much_one_run_varies_is_not_known(tmp_path: Path) -> None:
    known = Sample(99.0, 0.1, 10)
    for one in (Sample.of([99.0]), Sample(99.0, 0.0, 1)):
        for pair in ((one, known), (known, one)):
            found = of_samples("x", *pair)
            assert (found.low, found.high, found.within) == (None, None, None)
    spec = trainings.changed("smoke", epochs="1", train_images="64", seeds="1", precision='"32"')
    rows = trainings.train(Setup(tmp_path, threads=1), "s", spec)
    epochs = [row for row in rows if isinstance(row, Epoch)]
    assert [(row.runs, row.loss_low, row.loss_high) for row in epochs] == [(1, None, None)] * 2
    assert_kept(training_by_beta.ACCURACIES[0], rows)
    assert save(lambda: training_figures.draw(rows), "svg")
    # Earlier files have the loss there; nothing else is said of them.
    content = [line(row) | {"loss_low": row.loss, "loss_high": row.loss} for row in epochs]
    old = decoded(Epoch, content, "old")
    assert [row.sample for row in old] == [row.sample for row in epochs]
    assert {row.sample.deviation for row in old} == {None}


def test_an_interval_that_is_not_known_is_not_drawn() -> None:
    axes = Figure().subplots()
    accuracies = ("99.2 99.3", "99.1")
    rows = [final(runs=len(text.split()), accuracies=text) for text in accuracies]
    rows[1] = replace(rows[1], max_pool="hybrid:10")
    training_figures.accuracy_panel(axes, rows)
    (drawn,) = axes.containers
    assert isinstance(drawn, ErrorbarContainer)
    _, (low, high), _ = drawn.lines
    ends = np.stack([low.get_ydata(orig=False), high.get_ydata(orig=False)])
    assert np.isfinite(ends).tolist() == [[True, False], [True, False]]
    # By hand: 12.706 is the quantile of one degree of freedom, and 0.05 the error of the mean.
    assert ends[:, 0] == pytest.approx([99.25 - 12.706 * 0.05, 99.25 + 12.706 * 0.05], abs=1e-3)
    pair = [final(max_pool=name, accuracies="99.2") for name in ("hybrid:-8", "hybrid:10")]
    _, row = norm_against_sign.with_partners(pair)
    assert (row.difference, row.low, row.high) == (0, None, None)


def test_a_study_that_is_not_over_gives_no_numbers(tmp_path: Path) -> None:
    factory = tmp_path / "broken.py"
    factory.write_text("def make():\n    raise RuntimeError('no')\n")
    spec = trainings.changed("smoke", network=f'"{factory}:make"')
    with pytest.raises(InputError, match="4 of 4 trials are not over"):
        trainings.train(Setup(tmp_path, threads=1), "broken", spec)


def test_losses_and_searched_learning_rates_are_compared() -> None:
    said = {field.name: getattr(final(), field.name) for field in fields(Configuration)}
    loss = Epoch(**said, runs=2, epoch=3, loss=0.1, loss_low=0.09, loss_high=0.11)
    first = replace(loss, epoch=1, loss=2.0)
    rate = final(searched=True, learning_rate=0.02)
    unsearched = final(max_pool="hybrid:10", searched=True)
    _, _, lost, rated = trainings.compare([rate, unsearched, first, loss])
    # By hand, from the published rows "mnist,lenet,False,sgd,16,0.0": the third epoch is number 2.
    assert lost.what.endswith("training loss, epoch 3")
    assert (lost.ours, lost.published) == (0.1, 0.049527)
    assert lost.high is not None
    assert lost.high - lost.difference == pytest.approx(0.085145, rel=1e-4)  # SciPy
    assert rated.what.endswith("learning rate")
    assert (rated.ours, rated.published) == (0.02, 0.0232649491717045)
    assert rated.within is None
