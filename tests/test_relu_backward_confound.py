"""Backward passes that assign α, against the published rule written out, and their experiment."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import check, data
from kinkcheck import nn as knn
from kinkcheck.data import Images, ImageSet
from kinkcheck.errors import InputError
from kinkcheck.paper.experiments import relu_backward_confound
from kinkcheck.paper.experiments.relu_backward_confound import (
    BACKWARD,
    FROM_ZERO,
    Row,
    Step,
    compare,
    draw,
    measure,
    spec,
    summarise,
)
from kinkcheck.paper.harness import trainings
from kinkcheck.paper.harness.case import Case, Network, Size
from kinkcheck.paper.harness.experiment import Setup
from kinkcheck.paper.harness.rows import by, decoded, line
from kinkcheck.paper.harness.trainings import Final
from kinkcheck.study.settings import Classification


def grid() -> Tensor:
    x = torch.tensor([-1.0, -0.0, 0.0, 0.5, 6.0, 7.0, float("inf"), -float("inf")])
    return x.requires_grad_()


@pytest.mark.parametrize("arriving", [1.0, 2**-10, 0.0, -2.0])
def test_what_is_returned_is_what_the_published_code_assigns(arriving: float) -> None:
    x = grid()
    (arriving * knn.AssignedReLU(0.3)(x)).sum().backward()
    # gradient.clone(); gradient[x < 0] = 0; gradient[x == 0] = alpha
    alpha = float(torch.tensor(0.3))
    expected = [0.0, alpha, alpha, *[arriving] * 4, 0.0]
    assert x.grad is not None
    assert x.grad.tolist() == expected

    x = grid()
    module = knn.AssignedReLU6(0.25, -2)
    (arriving * module(x)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 0.25, 0.25, arriving, -2.0, 0.0, 0.0, 0.0]
    assert repr(module) == "AssignedReLU6(alpha=0.25, beta=-2)"


def test_values_are_those_of_pytorch() -> None:
    x = torch.randn(100)
    assert torch.equal(knn.AssignedReLU(1)(x), nn.ReLU()(x))
    assert torch.equal(knn.AssignedReLU6(1, 1)(x), nn.ReLU6()(x))


def test_it_is_the_derivative_of_nothing() -> None:
    """At x = 0 the slopes of relu(x)/1000 are 0 and 1/1000; it returns 1/2."""
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (knn.AssignedReLU(0.5)(x) * float(Fraction(1, 1000))).sum().backward()
    assert x.grad is not None
    assert not 0 <= x.grad.item() <= 1e-3
    assert not check(lambda x: knn.AssignedReLU(0.5)(x) / 1000, [x], raise_exception=False)


def test_the_two_backward_passes_agree_at_alpha_0_and_where_no_zero_is_met() -> None:
    for alpha, at in ((0.0, 0.0), (0.5, 1e-3)):
        found = []
        for make in BACKWARD.values():
            x = torch.full((3,), at, requires_grad=True)
            (make(alpha)(x) * torch.arange(3)).sum().backward()
            assert x.grad is not None
            found.append(x.grad.tolist())
        assert found[0] == found[1]


# --- the experiment ------------------------------------------------------------------------------


def final(alpha: float, backward: str = "assigned", accuracies: str = "25") -> Final:
    return Final(
        "cifar10", "resnet18", False, "sgd", "float32", "exact", f"branch:{alpha:g}", None, 1, 0,
        "", 25.0, accuracies, 10.0, 0.01, False, backward=backward,
    )  # fmt: skip


def test_a_training_is_summed_up() -> None:
    shared = [Step("resnet18", None, None, 2, 1, 0, 11.0, 3.0)]
    own = [
        Step("resnet18", alpha, "assigned", 2, number, zeros, norm * alpha, 2.0)
        for alpha in (0.5, 1.0)
        for number, zeros, norm in ((2, 2, 10.0), (3, 0, 8.0), (4, 1, 4.0))
    ]
    rows = [*shared, *own, final(0.5), Step("vgg11", None, None, 2, 1, 0, 1.0, 3.0)]
    half, one, none = summarise(rows)
    assert (half["alpha"], one["alpha"], none["alpha"]) == (0.5, 1.0, None)
    assert (half["steps"], half["with_zeros"], half["first"]) == (4, 2, 2)
    assert (half["norm_there"], half["largest_norm"]) == (5.0, 11.0)
    assert (half["last_loss"], half["accuracy"]) == (2.0, 25.0)
    assert (none["network"], none["steps"], none["with_zeros"]) == ("vgg11", 1, 0)
    assert (none["first"], none["norm_there"], none["accuracy"]) == (None, None, None)
    assert draw(rows).axes


def test_published_runs_that_stopped_early_are_not_compared() -> None:
    with (files("kinkcheck.paper.published") / "relu_training_final.csv").open() as file:
        runs = [
            100 * float(run["test_accuracy"])
            for run in csv.DictReader(file)
            if (run["dataset"], run["network"], run["batch_norm"], run["alpha"], run["last_epoch"])
            == ("cifar10", "resnet18", "False", "0.2", "199")
        ]
    assert len(runs) == 9
    accuracy, collapsed = compare([final(0.2), final(0.5), final(0.2, "exact")])
    assert accuracy.what == "resnet18 cifar10, sgd, float32, α = 0.2: accuracy, %"
    assert accuracy.published == pytest.approx(sum(runs) / 9)
    assert round(accuracy.published, 2) == 86.34
    assert accuracy.within is None  # one run does not say how much it varies
    several, _ = compare([final(0.2, accuracies="85 86 88"), final(0.5)])
    assert several.within is not None
    assert collapsed.what.endswith("α = 0.5: runs that collapsed, %")
    assert (collapsed.ours, collapsed.published) == (0.0, 100.0)


def test_the_full_size_is_the_training_of_the_other_experiment() -> None:
    published = trainings.changed(
        "relu-cifar10-resnet18", batch_norm="false", seeds="1",
        **{"selections.relu": '"branch:0.2"'},
    )  # fmt: skip
    (theirs,) = published.trials()
    ours = [trial for trial in spec().trials() if trial.selections["relu"] == "branch:0.2"]
    assert [(trial.seed, trial.backward) for trial in ours] == [
        (seed, backward) for seed in range(5) for backward in ("exact", "assigned")
    ]
    # Of that training only the learning rate is not searched.
    found = replace(ours[0], learning_rate=None, search=theirs.search)
    assert found == theirs
    assert (found.schedule, found.epochs, found.batch_size) == ("cosine", 200, 128)
    assert (found.momentum, found.weight_decay) == (0.9, 5e-4)
    assert isinstance(found.task, Classification)
    assert found.task.augment


def test_the_full_size_from_numbers_to_ink(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small = trainings.changed(
        "smoke", epochs="1", train_images="64", precision='"32"', backward='["exact", "assigned"]',
        **{"selections.relu": '["branch:0", "branch:1"]', "selections.max_pool": '"native"'},
    )  # fmt: skip
    monkeypatch.setattr(relu_backward_confound, "spec", lambda: small)
    rows = measure(Setup(tmp_path, threads=1))
    finals = [row for row in rows if isinstance(row, Final)]
    assert [(row.backward, row.relu) for row in finals] == [
        (backward, relu) for backward in BACKWARD for relu in ("branch:0", "branch:1")
    ]
    assert finals[0].accuracies == finals[2].accuracies
    assert [row["backward"] for row in summarise(rows)] == ["exact", "exact", *["assigned"] * 2]
    assert len(draw(rows).axes) == 3
    assert decoded(Row, [line(row) for row in rows], "x") == rows


def test_without_images_nothing_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cifar10"):
        measure(Setup(tmp_path, reduced=True, data_dir=tmp_path))
    assert not list(tmp_path.iterdir())


class Shift(nn.Module):
    """Adds a parameter less its own value: 0, whose derivative is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(8))

    def forward(self, input: Tensor) -> Tensor:
        moved: Tensor = input + (self.bias - self.bias.detach())
        return moved


@dataclass(frozen=True)
class Shifted(Network):
    """A ReLU is given 0 where an image is black, at whatever step that is."""

    def build(self, images: Images) -> nn.Module:
        pixels = images.channels * 32 * 32
        return nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, 8, bias=False), Shift(), nn.ReLU(), nn.Linear(8, 10)
        )


def images(black: int | None) -> ImageSet:
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(1, 256, (256, 3, 32, 32), generator=generator, dtype=torch.uint8)
    if black is not None:
        pixels[black] = 0
    return ImageSet(
        name="cifar10", split="train", classes=10, mean=(0.0,) * 3, std=(1.0,) * 3, images=pixels,
        labels=torch.arange(256) % 10,
    )  # fmt: skip


def by_hand(pictures: ImageSet, first: int, alpha: float, backward: str) -> list[float]:
    """The norms of the gradients up to a step, by the chain rule."""
    torch.manual_seed(0)
    model = Shifted("shifted").build(pictures)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01296, momentum=0.9, weight_decay=5e-4)
    batches = [
        pair for epoch in range(3) for pair in pictures.batches(100, seed=epoch, drop_last=True)
    ]
    norms = []
    for x, y in batches[:first]:
        into, shift, out = model[1].weight, model[2].bias, model[4]
        with torch.no_grad():
            x = x.flatten(1)
            before = x @ into.T
            after = before.clamp(min=0)
            error = (torch.softmax(after @ out.weight.T + out.bias, 1) - F.one_hot(y, 10)) / 100
            arriving = error @ out.weight
            there = alpha * arriving if backward == "exact" else torch.full_like(arriving, alpha)
            inner = torch.where(before == 0, there, arriving * (before > 0))
        into.grad, shift.grad = inner.T @ x, inner.sum(0)
        out.weight.grad, out.bias.grad = error.T @ after, error.sum(0)
        grads = [each.grad for each in model.parameters()]
        norms.append(
            torch.cat([each.flatten() for each in grads if each is not None]).norm().item()
        )
        optimizer.step()
    return norms


def test_trainings_part_at_the_first_zero(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = images(None)
    order = [
        labels
        for epoch in range(2)
        for _, labels in replace(plain, classes=256, labels=torch.arange(256)).batches(
            100, seed=epoch, drop_last=True
        )
    ]
    # An image that is met in the second epoch only, in its second mini-batch: at step 4.
    black = next(n for n in order[3].tolist() if n not in torch.cat(order[:3]).tolist())
    pictures = images(black)
    monkeypatch.setattr(data, "load", lambda *args, **kwargs: pictures)
    setup = Setup(tmp_path, reduced=True)
    cases = [Case(Shifted("shifted"), "cifar10", Size(1, 5, 100))]
    rows = measure(setup, cases)
    steps = by(
        (row for row in rows if isinstance(row, Step)), lambda row: (row.alpha, row.backward)
    )
    assert [(row.step, row.zeros) for row in steps.pop((None, None))] == [(1, 0), (2, 0), (3, 0)]
    assert len(steps) == 10
    for (alpha, backward), own in steps.items():
        assert [row.step for row in own] == list(range(4, 4 + FROM_ZERO))
        assert own[0].zeros == 8
        assert alpha is not None
        assert backward is not None
        expected = by_hand(pictures, 4, alpha, backward)
        assert own[0].gradient_norm == pytest.approx(expected[3], rel=1e-4)
    first = {key: own[0].gradient_norm for key, own in steps.items()}
    assert first[0.0, "exact"] == first[0.0, "assigned"] < first[1.0, "assigned"]
    assert len({own[0].loss for own in steps.values()}) == 1  # that of before the step
    assert [row["first"] for row in summarise(rows)] == [4] * 10
    assert len([row for row in rows if isinstance(row, Final)]) == 10
    assert measure(setup, cases) == rows  # kept


def test_a_network_that_meets_no_zero_has_one_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(data, "load", lambda *args, **kwargs: images(None))
    cases = [Case(Shifted("shifted"), "cifar10", Size(1, 3, 100))]
    rows = measure(Setup(tmp_path, reduced=True), cases)
    steps = [row for row in rows if isinstance(row, Step)]
    assert steps == rows
    assert [(row.step, row.alpha, row.zeros) for row in steps] == [(n, None, 0) for n in (1, 2, 3)]
    expected = by_hand(images(None), 3, 0.0, "exact")
    assert [row.gradient_norm for row in steps] == pytest.approx(expected, rel=1e-4)
    assert draw(rows).axes
