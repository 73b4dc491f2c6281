"""Ours: is the published effect of ReLU'(0) that of a derivative, or of a line of its code?

The ReLU of the code published with [B21] returns α itself where its input is 0, in place of α times
the gradient that arrives (:class:`kinkcheck.nn.AssignedReLU`). Both backward passes train networks
that start equal and see the same mini-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from kinkcheck import nn as knn
from kinkcheck.arithmetic.precision import parse
from kinkcheck.data import Images
from kinkcheck.paper.harness import published_values
from kinkcheck.paper.harness.case import Case, Network, Size, replaced
from kinkcheck.paper.harness.comparison import Comparison, Sample, of_samples
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.gradients import drawn
from kinkcheck.paper.harness.loop import endless, seeing, step, tested
from kinkcheck.paper.harness.parts import Measure, all_kept
from kinkcheck.paper.harness.rows import Line, by
from kinkcheck.report.ink import INKS, plain_numbers
from kinkcheck.selection import Branch

ALPHAS = (0.0, 0.1, 0.2, 0.5, 1.0)

BACKWARD: dict[str, Callable[[float], nn.Module]] = {
    "α × gradient": lambda alpha: knn.ReLU(selection=Branch(alpha)),
    "α itself": knn.AssignedReLU,
}
"""What a ReLU returns at 0."""


_PUBLISHED = ("cifar10", "resnet18", "sgd", "False")


_HELD = parse("32")
_RATE = 0.01296  # that of the published runs at α = 0, for every α
_TESTED = 256  # images that the accuracy is of at reduced size
_FULL = tuple(Case(Network(name), "cifar10", Size(1, 200 * 391)) for name in ("resnet18", "vgg11"))
_REDUCED = (
    Case(Network("resnet18"), "cifar10", Size(1, 25, 64)),
    Case(Network("vgg11"), "cifar10", Size(1, 60, 64)),
)


@dataclass(frozen=True)
class Cell:
    """A training.

    Attributes:
        network: in words.
        alpha: α.
        backward: what a ReLU returns at 0: a key of :data:`BACKWARD`.
        batch_size: images in a step.
    """

    network: str
    alpha: float
    backward: str
    batch_size: int


@dataclass(frozen=True)
class Step(Cell):
    """A step of a training.

    Attributes:
        step: its number, from 0.
        zeros: inputs of ReLUs that are exactly 0.
        gradient_norm: of all parameters, l2.
        loss: of the mini-batch, before the step.
        accuracy: None, which tells the row from an end.
    """

    step: int
    zeros: int
    gradient_norm: float
    loss: float
    accuracy: None = None


@dataclass(frozen=True)
class End(Cell):
    """The end of a training.

    Attributes:
        accuracy: on test images, in percent.
        step, zeros, gradient_norm, loss: None, which tells the row from a step.
    """

    accuracy: float
    step: None = None
    zeros: None = None
    gradient_norm: None = None
    loss: None = None


Row = Step | End


def measure(setup: Setup, cases: Sequence[Case] | None = None) -> list[Row]:
    """Zeros, gradient norm and loss of each step, and the accuracy after the last.

    Args:
        setup: where.
        cases: what is trained, one mini-batch a step; by default the reduced or the full size.

    Raises:
        InputError: the images are not there.
    """
    cases = cases or (_REDUCED if setup.reduced else _FULL)
    train, test = (
        [replace(case, split=split).images(setup.data_dir) for case in cases]
        for split in ("train", "test")
    )
    parts: dict[str, Measure[Row]] = {}
    cells = [
        (case, seen, unseen, alpha, name)
        for case, seen, unseen in zip(cases, train, test, strict=True)
        for alpha in ALPHAS
        for name in BACKWARD
    ]
    for case, seen, unseen, alpha, backward in cells:
        said = f"{case.network} {case.size.batches}x{case.size.batch_size}"
        name = f"{said}, {alpha:g}, {list(BACKWARD).index(backward)}"
        parts[name] = partial(_train, case, alpha, backward, seen, unseen)
    return [row for rows in all_kept(setup, Row, parts).values() for row in rows]


def _train(
    case: Case, alpha: float, backward: str, train: Images, test: Images, setup: Setup
) -> list[Row]:
    native = drawn(case.factory(train), 0)
    model = replaced(native, nn.ReLU, lambda _: BACKWARD[backward](alpha))
    model.to(setup.device).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=_RATE, momentum=0.9, weight_decay=5e-4
    )  # as published
    cell = Cell(str(case.network), alpha, backward, case.size.batch_size)
    rows: list[Row] = []
    zeros = 0

    def count(given: Tensor) -> None:
        nonlocal zeros
        zeros += int((given == 0).sum())

    batches = islice(endless(train, case.size.batch_size), case.size.batches)
    with seeing(model, count):
        for number, pair in enumerate(batches):
            zeros = 0
            loss = step(model, optimizer, pair, _HELD)
            norm = torch.stack(
                [p.grad.double().norm() for p in model.parameters() if p.grad is not None]
            ).norm()
            rows.append(
                Step(**vars(cell), step=number, zeros=zeros, gradient_norm=norm.item(), loss=loss)
            )
    unseen = test.take(_TESTED) if setup.reduced else test
    return [*rows, End(**vars(cell), accuracy=tested(model, unseen, _HELD).accuracy)]


def summarise(rows: Sequence[Row]) -> list[Line]:
    """One row a training: steps with zeros, the first of them, the largest norm, the accuracy.

    ``norm_there`` is the norm of the gradient at the first step with a zero.

    >>> cell = Cell("vgg11", 0.5, "α itself", 64)
    >>> step = Step(**vars(cell), step=0, zeros=1, gradient_norm=7.0, loss=2.3)
    >>> summarise([step, End(**vars(cell), accuracy=10.0)])[0]["norm_there"]
    7.0
    """
    ends = {_cell(row): row.accuracy for row in rows if isinstance(row, End)}
    found: list[Line] = []
    for cell, steps in _steps(rows).items():
        network, alpha, backward = cell
        met = [row for row in steps if row.zeros]
        found.append(
            {
                "network": network,
                "alpha": alpha,
                "backward": backward,
                "steps": len(steps),
                "with_zeros": len(met),
                "first": met[0].step if met else None,
                "norm_there": met[0].gradient_norm if met else None,
                "largest_norm": max(row.gradient_norm for row in steps),
                "last_loss": steps[-1].loss,
                "accuracy": ends[cell],
            }
        )
    return found


def _cell(row: Cell) -> tuple[str, float, str]:
    return row.network, row.alpha, row.backward


def _steps(rows: Sequence[Row]) -> dict[tuple[str, float, str], list[Step]]:
    return by((row for row in rows if isinstance(row, Step)), _cell)


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """The accuracies of ResNet-18 as assigned beside the published ones, whose code assigns.

    A reduced run has taken a few steps where the published ones took 200 epochs.
    """
    published: dict[float, list[float]] = {}
    for run in published_values.table("relu_training_final"):
        if (run["dataset"], run["network"], run["optimizer"], run["batch_norm"]) == _PUBLISHED:
            published.setdefault(float(run["alpha"]), []).append(100 * float(run["test_accuracy"]))
    return [
        of_samples(
            f"resnet18, α = {row.alpha:g}: accuracy, %",
            Sample.of([row.accuracy]),
            Sample.of(published[row.alpha]),
        )
        for row in rows
        if isinstance(row, End) and (row.network, row.backward) == ("resnet18", "α itself")
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """The norm of the gradient by step, a panel a network and backward pass, a line an α."""
    networks = list(dict.fromkeys(row.network for row in rows))
    trained = _steps(rows)
    figure = Figure(figsize=(8.4, 0.6 + 2.4 * len(networks)))
    panels = figure.subplots(len(networks), len(BACKWARD), squeeze=False, sharey="row")
    for line, network in zip(panels, networks, strict=True):
        for axes, backward in zip(line, BACKWARD, strict=True):
            for ink, alpha in zip(INKS, ALPHAS, strict=False):
                steps = trained.get((network, alpha, backward), [])
                axes.plot(
                    [row.step for row in steps], [row.gradient_norm for row in steps], color=ink,
                    lw=1, label=f"{alpha:g}",
                )  # fmt: skip
            axes.set_yscale("log")
            plain_numbers(axes.yaxis)
            axes.set_title(f"{network}: at 0 {backward}")
            axes.set_xlabel("step")
        line[0].set_ylabel("norm of the gradient")
    figure.legend(*panels[0][0].get_legend_handles_labels(), title="α", loc="outside right center")
    return figure


RELU_BACKWARD_CONFOUND = Experiment(
    name="relu-backward-confound",
    source="kinkcheck",
    shows="trainings under ReLU'(0) = α, as a derivative and as the published code assigns it",
    cost=Cost("20 trainings of 200 epochs", "days", "1 GPU", ("cifar10",)),
    cost_reduced=Cost(
        "10 trainings of ResNet-18 of 25 steps, 10 of VGG-11 of 60 steps",
        "10 min",
        "1 core",
        ("cifar10",),
        measured=True,
    ),
    row=Row,
    measure=measure,
    draw=draw,
    compare=compare,
    summarise=summarise,
    spreads=True,
    reduced_cannot=(
        "The reduced run has one seed and less than an epoch: it shows what the two backward "
        "passes do to the gradient where zeros are met, nothing of accuracies after 200 epochs."
    ),
)
