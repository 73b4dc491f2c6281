"""[B21], appendix: ReLU'(0) beside dropout, which draws anew which neurons a step uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from kinkcheck import nn as knn
from kinkcheck.arithmetic.precision import parse
from kinkcheck.data import Images
from kinkcheck.paper.harness import published_values
from kinkcheck.paper.harness.case import Case, Mlp, Size, replaced
from kinkcheck.paper.harness.comparison import Comparison, Sample, of_samples
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.gradients import drawn
from kinkcheck.paper.harness.loop import seeing, step, tested
from kinkcheck.paper.harness.parts import all_kept
from kinkcheck.paper.harness.rows import Line, by
from kinkcheck.report.ink import INKS, LINES, MARKERS
from kinkcheck.selection import Branch

_HELD = parse("32")
_RATE = 0.1


@dataclass(frozen=True)
class Row:
    """A training.

    Attributes:
        dropout: probability with which the output of a hidden neuron is set to 0.
        alpha: ReLU'(0).
        run: its number, which is its seed.
        epochs: how many.
        zeros: numbers that ReLUs were given in training and that are exactly 0.
        train_loss: mean of the steps of the last epoch.
        test_loss: mean over the test images.
        test_accuracy: in per cent.
    """

    dropout: float
    alpha: float
    run: int
    epochs: int
    zeros: int
    train_loss: float
    test_loss: float
    test_accuracy: float


@dataclass(frozen=True)
class Plan:
    """What is trained.

    Attributes:
        network: without dropout.
        dropouts: probabilities.
        alphas: values of ReLU'(0).
        runs: of each.
        images: how many are trained on.
        tested: how many of the test images the end is judged by.
        epochs: how many.
    """

    network: Mlp = field(default_factory=partial(Mlp, layers=3, neurons=2048))
    dropouts: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    alphas: tuple[float, ...] = (0.0, 0.5, 1.0)
    runs: int = 10
    images: int = 60_000
    tested: int = 10_000
    epochs: int = 200


_REDUCED = Plan(
    dropouts=(0.0, 0.3, 0.6, 0.9), alphas=(0.0, 1.0), runs=2, images=2_000, tested=1_000, epochs=3
)


def measure(setup: Setup, plan: Plan | None = None) -> list[Row]:
    """Loss and accuracy by dropout and ReLU'(0), a row a training.

    Stochastic gradient descent, mini-batches of 128, learning rate 0.1, no momentum, float32. Runs
    of one number start equal, see the same mini-batches and draw the same neurons.

    Args:
        setup: where.
        plan: what is trained; by default the reduced or the full size.

    Raises:
        InputError: the images are not there.
    """
    plan = plan or (_REDUCED if setup.reduced else Plan())
    train, test = (
        Case(plan.network, "mnist", Size(plan.runs, None), split).images(setup.data_dir).take(count)
        for split, count in (("train", plan.images), ("test", plan.tested))
    )
    parts = {
        f"{plan.network} {plan.images} {plan.epochs} {dropout:g} {alpha:g} {run}": partial(
            _train, plan, train, test, dropout, alpha, run
        )
        for dropout in plan.dropouts
        for alpha in plan.alphas
        for run in range(plan.runs)
    }
    return [row for rows in all_kept(setup, Row, parts).values() for row in rows]


def _train(
    plan: Plan, train: Images, test: Images, dropout: float, alpha: float, run: int, setup: Setup
) -> list[Row]:
    model = replaced(
        drawn(partial(plan.network.build, train), run),
        nn.ReLU,
        lambda _: nn.Sequential(knn.ReLU(selection=Branch(alpha)), nn.Dropout(dropout)),
    ).to(setup.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=_RATE)
    zeros, losses = 0, []

    def count(given: Tensor) -> None:
        nonlocal zeros
        zeros += int((given == 0).sum())

    with torch.random.fork_rng(), seeing(model, count):
        torch.manual_seed(run)
        for epoch in range(1, plan.epochs + 1):
            losses = [
                step(model, optimizer, pair, _HELD)
                for pair in train.batches(128, seed=plan.epochs * run + epoch)
            ]
    score = tested(model, test, _HELD)
    mean = sum(losses) / len(losses)
    return [Row(dropout, alpha, run, plan.epochs, zeros, mean, *score)]


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """Accuracies at ReLU'(0) = 0 beside the published ones, by Welch's intervals.

    Published are ten runs of 200 epochs on 60,000 digits for each dropout; at which ReLU'(0) the
    file does not say.
    """
    published = by(published_values.table("relu_dropout_final"), lambda row: float(row["dropout"]))
    ours = by((row for row in rows if row.alpha == 0), lambda row: row.dropout)
    return [
        of_samples(
            f"dropout {dropout:g}: accuracy, %",
            Sample.of([row.test_accuracy for row in together]),
            Sample.of([100 * float(row["test_accuracy"]) for row in published[dropout]]),
        )
        for dropout, together in ours.items()
        if dropout in published
    ]


def summarise(rows: Sequence[Row]) -> list[Line]:
    """Mean accuracies by dropout, a column a value of ReLU'(0).

    >>> row = Row(0.1, 0.0, 0, 3, 0, 0.5, 0.5, 90.0)
    >>> summarise([row, Row(0.1, 1.0, 0, 3, 2, 0.5, 0.5, 91.0)])
    [{'dropout': 0.1, 'runs': 1, 'α = 0': 90.0, 'α = 1': 91.0}]
    """
    found: list[Line] = []
    for dropout, together in by(rows, lambda row: row.dropout).items():
        means = {
            f"α = {alpha:g}": Sample.of([row.test_accuracy for row in runs]).mean
            for alpha, runs in by(together, lambda row: row.alpha).items()
        }
        found.append({"dropout": dropout, "runs": len({row.run for row in together})} | means)
    return found


def draw(rows: Sequence[Row]) -> Figure:
    """Accuracy and zeros by dropout, a line a value of ReLU'(0), a point a run."""
    figure = Figure(figsize=(7.2, 3.0))
    accuracy, zeros = figure.subplots(1, 2)
    for number, (alpha, here) in enumerate(by(rows, lambda row: row.alpha).items()):
        how = {"color": INKS[number], "marker": MARKERS[number], "markersize": 4}
        means = [
            (dropout, Sample.of([row.test_accuracy for row in runs]).mean)
            for dropout, runs in by(here, lambda row: row.dropout).items()
        ]
        accuracy.plot(*zip(*means, strict=True), color=INKS[number], linestyle=LINES[number], lw=1)
        accuracy.plot(
            [row.dropout for row in here], [row.test_accuracy for row in here], linestyle="",
            label=f"{alpha:g}", **how,
        )  # fmt: skip
        zeros.plot([row.dropout for row in here], [row.zeros for row in here], ls="", **how)
    accuracy.set_ylabel("test accuracy, %")
    zeros.set_ylabel("zeros at ReLU in training")
    for axes in (accuracy, zeros):
        axes.set_xlabel("dropout")
    figure.legend(*accuracy.get_legend_handles_labels(), title="α", loc="outside right center")
    return figure


RELU_DROPOUT = Experiment(
    name="relu-dropout",
    source="B21, appendix: dropout, MLP, MNIST",
    shows="test accuracy by dropout under values of ReLU'(0)",
    cost=Cost("300 trainings of 200 epochs", "days", "1 GPU", ("mnist",)),
    cost_reduced=Cost(
        "16 trainings, 3 epochs of 2,000 digits",
        "2 min",
        "1 core",
        ("mnist",),
        measured=True,
    ),
    row=Row,
    measure=measure,
    draw=draw,
    compare=compare,
    summarise=summarise,
    spreads=True,
    reduced_is_other=True,
    reduced_cannot="The reduced run trains on 2,000 digits for 3 epochs, two runs each: it can "
    "show whether zeros are met and a value that fails, not accuracies after 200 epochs.",
)
