"""Ours: is the published effect of ReLU'(0) that of a derivative, or of a line of its code?

The ReLU of the code published with [B21] returns α itself where its input is 0, in place of α times
the gradient that arrives (:class:`kinkcheck.nn.AssignedReLU`). Both backward passes train networks
that start equal and see the same mini-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from kinkcheck import data
from kinkcheck import nn as knn
from kinkcheck.data import Images
from kinkcheck.paper import published_values
from kinkcheck.paper.comparison import Comparison, Sample, of_samples
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.paper.gradients import Network, drawn
from kinkcheck.paper.parts import kept
from kinkcheck.paper.training_figures import plain_numbers
from kinkcheck.report.ink import INKS
from kinkcheck.selection import Branch

ALPHAS = (0.0, 0.1, 0.2, 0.5, 1.0)

BACKWARD: dict[str, Callable[[float], nn.Module]] = {
    "α × gradient": lambda alpha: knn.ReLU(selection=Branch(alpha)),
    "α itself": knn.AssignedReLU,
}
"""What a ReLU returns at 0."""


_PUBLISHED = ("cifar10", "resnet18", "sgd", "False")


@dataclass(frozen=True)
class Case:
    """Trainings of one network.

    Attributes:
        network: the network.
        rate: the learning rate, that of the published runs at α = 0, for every α.
        steps: how many.
        batch_size: images in each.
        images: how many of the test images the accuracy is of; None for all.
    """

    network: Network
    rate: float
    steps: int
    batch_size: int
    images: int | None = None

    def __str__(self) -> str:
        """As a part of a file's name."""
        return f"{self.network} {self.steps}x{self.batch_size}"


_FULL = (
    Case(Network("resnet18"), 0.01296, 200 * 391, 128),
    Case(Network("vgg11"), 0.01296, 200 * 391, 128),
)
_REDUCED = (
    Case(Network("resnet18"), 0.01296, 25, 64, 256),
    Case(Network("vgg11"), 0.01296, 60, 64, 256),
)


def measure(setup: Setup, cases: Sequence[Case] | None = None) -> list[Row]:
    """Zeros, gradient norm and loss of each step, and the accuracy after the last.

    Args:
        setup: where.
        cases: what is trained; by default the reduced or the full size.

    Raises:
        InputError: the images are not there.
    """
    cases = cases or (_REDUCED if setup.reduced else _FULL)
    train, test = (
        data.load("cifar10", part, data_dir=setup.data_dir) for part in ("train", "test")
    )
    rows: list[Row] = []
    cells = [(case, alpha, name) for case in cases for alpha in ALPHAS for name in BACKWARD]
    for number, (case, alpha, backward) in enumerate(cells):
        setup.on_progress(f"{case.network}, α = {alpha:g}, {backward}", number, len(cells))
        name = f"{case}, {alpha:g}, {list(BACKWARD).index(backward)}"
        rows += kept(setup, name, partial(_train, setup, case, alpha, backward, train, test))
    setup.on_progress("trained", len(cells), len(cells))
    return rows


def _train(
    setup: Setup, case: Case, alpha: float, backward: str, train: Images, test: Images
) -> list[Row]:
    model = drawn(partial(case.network.build, train), 0)
    _replace(model, partial(BACKWARD[backward], alpha))
    model.to(setup.device).train()
    zeros = _count_zeros(model)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=case.rate, momentum=0.9, weight_decay=5e-4
    )  # as published
    cell: Row = {
        "network": str(case.network), "alpha": alpha, "backward": backward,
        "batch_size": case.batch_size,
    }  # fmt: skip
    rows: list[Row] = []
    for step, (images, labels) in enumerate(_steps(train, case)):
        zeros[0] = 0
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images.to(setup.device)), labels.to(setup.device))
        torch.autograd.backward(loss)
        norm = torch.stack(
            [p.grad.double().norm() for p in model.parameters() if p.grad is not None]
        ).norm()
        optimizer.step()
        rows.append(
            {**cell, "step": step, "zeros": zeros[0], "gradient_norm": norm.item(),
             "loss": loss.item(), "accuracy": None}
        )  # fmt: skip
    accuracy = _accuracy(model, test if case.images is None else test.take(case.images), setup)
    last = {"step": None, "zeros": None, "gradient_norm": None, "loss": None}
    return [*rows, {**cell, **last, "accuracy": accuracy}]


def _replace(model: nn.Module, relu: Callable[[], nn.Module]) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(parent, name, relu())


def _count_zeros(model: nn.Module) -> list[int]:
    """The zeros that ReLUs are given, added up in a list of one number."""
    found = [0]

    def count(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if module.training:
            found[0] += int((given[0] == 0).sum())

    for module in model.modules():
        if isinstance(module, knn.ReLU | knn.AssignedReLU):
            module.register_forward_pre_hook(count)
    return found


def _steps(train: Images, case: Case) -> Iterator[tuple[Tensor, Tensor]]:
    done = epoch = 0
    while done < case.steps:
        for batch in train.batches(case.batch_size, seed=epoch, drop_last=True):
            if done == case.steps:
                return
            yield batch
            done += 1
        epoch += 1


def _accuracy(model: nn.Module, test: Images, setup: Setup) -> float:
    model.eval()
    right = 0
    with torch.no_grad():
        for images, labels in test.batches(256):
            found = model(images.to(setup.device)).argmax(1).cpu()
            right += int((found == labels).sum())
    return 100 * right / len(test)


def summarise(rows: Sequence[Row]) -> list[Row]:
    """One row a training: steps with zeros, the first of them, the largest norm, the accuracy.

    ``norm_there`` is the norm of the gradient at the first step with a zero.

    >>> row = {"network": "vgg11", "alpha": 0.5, "backward": "α itself", "accuracy": None}
    >>> step = {**row, "step": 0, "zeros": 1, "gradient_norm": 7.0, "loss": 2.3}
    >>> last = {**row, "step": None, "accuracy": 10.0}
    >>> summarise([step, last])[0]["norm_there"]
    7.0
    """
    found: list[Row] = []
    for network, alpha, backward in dict.fromkeys(map(_cell, rows)):
        own = [row for row in rows if _cell(row) == (network, alpha, backward)]
        steps = [row for row in own if row["step"] is not None]
        met = [row for row in steps if row["zeros"]]
        norms = [row["gradient_norm"] for row in steps]
        found.append(
            {
                "network": network,
                "alpha": alpha,
                "backward": backward,
                "steps": len(steps),
                "with_zeros": len(met),
                "first": met[0]["step"] if met else None,
                "norm_there": met[0]["gradient_norm"] if met else None,
                "largest_norm": max((n for n in norms if isinstance(n, float)), default=None),
                "last_loss": steps[-1]["loss"],
                "accuracy": own[-1]["accuracy"],
            }
        )
    return found


def _cell(row: Row) -> tuple[str, float, str]:
    alpha = row["alpha"]
    assert isinstance(alpha, float)
    return str(row["network"]), alpha, str(row["backward"])


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """The accuracies of ResNet-18 as assigned beside the published ones, whose code assigns.

    A reduced run has taken a few steps where the published ones took 200 epochs.
    """
    published: dict[float, list[float]] = {}
    for run in published_values.table("relu_training_final"):
        if (run["dataset"], run["network"], run["optimizer"], run["batch_norm"]) == _PUBLISHED:
            published.setdefault(float(run["alpha"]), []).append(100 * float(run["test_accuracy"]))
    found: list[Comparison] = []
    for row in rows:
        accuracy, (network, alpha, backward) = row["accuracy"], _cell(row)
        if isinstance(accuracy, float) and network == "resnet18" and backward == "α itself":
            ours, theirs = Sample.of([accuracy]), Sample.of(published[alpha])
            found.append(of_samples(f"resnet18, α = {alpha:g}: accuracy, %", ours, theirs))
    return found


def draw(rows: Sequence[Row]) -> Figure:
    """The norm of the gradient by step, a panel a network and backward pass, a line an α."""
    networks = list(dict.fromkeys(str(row["network"]) for row in rows))
    figure = Figure(figsize=(8.4, 0.6 + 2.4 * len(networks)))
    panels = figure.subplots(len(networks), len(BACKWARD), squeeze=False, sharey="row")
    for line, network in zip(panels, networks, strict=True):
        for axes, backward in zip(line, BACKWARD, strict=True):
            for ink, alpha in zip(INKS, ALPHAS, strict=False):
                here = [r for r in rows if _cell(r) == (network, alpha, backward)]
                steps = [row for row in here if row["step"] is not None]
                numbers = [row["step"] for row in steps]
                axes.plot(
                    numbers, [row["gradient_norm"] for row in steps], color=ink, lw=1,
                    label=f"{alpha:g}",
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
    cost="20 trainings of 200 epochs; days on one GPU (an estimate)",
    cost_reduced="10 trainings of ResNet-18 of 25 steps, 10 of VGG-11 of 60 steps; 10 minutes on "
    "one core",
    measure=measure,
    draw=draw,
    compare=compare,
    summarise=summarise,
    reduced_cannot=(
        "The reduced run has one seed and less than an epoch: it shows what the two backward "
        "passes do to the gradient where zeros are met, nothing of accuracies after 200 epochs."
    ),
)
