"""[B21]: exact zeros at ReLU over a training, by layers and neurons of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from kinkcheck.arithmetic.precision import parse
from kinkcheck.data import Images
from kinkcheck.paper.harness import published_values
from kinkcheck.paper.harness.case import Case, Mlp, Size
from kinkcheck.paper.harness.comparison import Comparison
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.gradients import drawn
from kinkcheck.paper.harness.loop import seeing, step
from kinkcheck.paper.harness.parts import all_kept
from kinkcheck.paper.harness.rows import Line, by
from kinkcheck.report.ink import INKS, LINES, MARKERS

PRECISIONS = ("float16", "float32")
_BITS = {"16": "float16", "32": "float32"}
_RATE = 0.01


@dataclass(frozen=True)
class Row:
    """A network after some epochs.

    Attributes:
        layers: hidden layers.
        neurons: in each.
        precision: name.
        epoch: epochs done.
        zeros: numbers that ReLUs are given and that are exactly 0, over the training images.
        inputs: numbers that they are given.
        zeros_per_million: of these.
        loss: mean of the steps of the epoch before; None at the start.
    """

    layers: int
    neurons: int
    precision: str
    epoch: int
    zeros: int
    inputs: int
    zeros_per_million: float
    loss: float | None


@dataclass(frozen=True)
class Plan:
    """What is trained.

    Attributes:
        layers, neurons: of the networks, crossed.
        images: how many are trained on.
        epochs: how many.
        every: epochs between two counts, of which the first two are at the start and after the
            first epoch, and the last is at the end.
    """

    layers: tuple[int, ...] = (1, 2, 3, 5, 6)
    neurons: tuple[int, ...] = (16, 64, 256, 512)
    images: int = 60_000
    epochs: int = 100
    every: int = 10


_REDUCED = Plan(images=2_000, epochs=11, every=5)


def measure(setup: Setup, plan: Plan | None = None) -> list[Row]:
    """How many zeros ReLUs are given before and during a training, a row a network and count.

    Stochastic gradient descent, mini-batches of 128, learning rate 0.01, no momentum.

    Args:
        setup: where.
        plan: what is trained; by default the reduced or the full size.

    Raises:
        InputError: the images are not there.
    """
    plan = plan or (_REDUCED if setup.reduced else Plan())
    cases = [
        Case(Mlp(layers=layers, neurons=neurons), "mnist", Size(1, None))
        for layers in plan.layers
        for neurons in plan.neurons
    ]
    images = cases[0].images(setup.data_dir).take(plan.images)
    parts = {
        f"{case.network} {precision} {plan.images} {plan.epochs} {plan.every}": partial(
            _train, case, precision, images, plan
        )
        for precision in PRECISIONS
        for case in cases
    }
    return [row for rows in all_kept(setup, Row, parts).values() for row in rows]


def _train(case: Case, precision: str, images: Images, plan: Plan, setup: Setup) -> list[Row]:
    held = parse(precision)
    model = held.cast_model(drawn(case.factory(images), 0), setup.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=_RATE)
    losses: list[float] = []
    rows = [_counted(model, case, precision, images, 0, None)]
    for epoch in range(1, plan.epochs + 1):
        losses = [
            step(model, optimizer, pair, held)
            for pair in images.batches(case.size.batch_size, seed=epoch)
        ]
        if epoch % plan.every == 1 % plan.every or epoch == plan.epochs:
            mean = sum(losses) / len(losses)
            rows.append(_counted(model, case, precision, images, epoch, mean))
    return rows


def _counted(
    model: nn.Module, case: Case, precision: str, images: Images, epoch: int, loss: float | None
) -> Row:
    held, device = parse(precision), next(model.parameters()).device
    zeros = inputs = 0

    def count(given: Tensor) -> None:
        nonlocal zeros, inputs
        zeros += int((given == 0).sum())
        inputs += given.numel()

    with seeing(model, count), torch.no_grad(), held.contractions(device):
        for x, _ in images.batches(512):
            model(held.cast(x, device))
    assert isinstance(case.network, Mlp)
    return Row(
        case.network.layers, case.network.neurons, precision, epoch, zeros, inputs,
        1e6 * zeros / inputs, loss,
    )  # fmt: skip


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """Zeros per million beside the published ones, at the epochs that both have.

    Both count over one training each, whose zeros depend on each other, so that how much they
    vary is not known.
    """
    published = {
        (
            int(row["nb_layers"]), int(row["nb_neurons"]), _BITS[row["precision"]],
            int(row["epoch"]) + 1,  # it counts from 0
        ): 1e6 * int(row["zeros"]) / int(row["total_relu"])
        for row in published_values.table("relu_zeros_by_architecture")
    }  # fmt: skip
    found = []
    for row in rows:
        theirs = published.get((row.layers, row.neurons, row.precision, row.epoch))
        if theirs is not None:
            what = f"{row.layers} x {row.neurons}, {row.precision}, epoch {row.epoch}"
            found.append(Comparison(f"{what}: zeros per million", row.zeros_per_million, theirs))
    return found


def summarise(rows: Sequence[Row]) -> list[Line]:
    """Zeros per million after the last epoch, a column a precision.

    >>> row = Row(1, 16, "float16", 0, 1, 1000, 1000.0, None)
    >>> last = Row(1, 16, "float16", 10, 2, 1000, 2000.0, 0.5)
    >>> summarise([row, last])
    [{'layers': 1, 'neurons': 16, 'epoch': 10, 'float16': 2000.0}]
    """
    last = max(row.epoch for row in rows)
    found = by((row for row in rows if row.epoch == last), lambda row: (row.layers, row.neurons))
    return [
        {"layers": layers, "neurons": neurons, "epoch": last}
        | {row.precision: row.zeros_per_million for row in together}
        for (layers, neurons), together in found.items()
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """Zeros per million by epoch, a panel for each number of layers, a line for each of neurons."""
    layers = list(dict.fromkeys(row.layers for row in rows))
    neurons = list(dict.fromkeys(row.neurons for row in rows))
    figure = Figure(figsize=(1.2 + 1.7 * len(layers), 0.8 + 2.0 * len(PRECISIONS)))
    panels = figure.subplots(len(PRECISIONS), len(layers), sharex=True, sharey="row", squeeze=False)
    for line, precision in zip(panels, PRECISIONS, strict=True):
        for axes, count in zip(line, layers, strict=True):
            for number, width in enumerate(neurons):
                here = [
                    row
                    for row in rows
                    if (row.precision, row.layers, row.neurons) == (precision, count, width)
                ]
                axes.plot(
                    [row.epoch for row in here], [row.zeros_per_million for row in here],
                    color=INKS[number], linestyle=LINES[number % len(LINES)],
                    marker=MARKERS[number % len(MARKERS)], markersize=3, lw=1, label=f"{width}",
                )  # fmt: skip
            axes.set_title(f"{count} layer{'s' * (count != 1)}, {precision}", fontsize=8)
            axes.set_ylim(bottom=0)
        line[0].set_ylabel("zeros per million")
    for axes in panels[-1]:
        axes.set_xlabel("epochs")
    handles = panels[0][0].get_legend_handles_labels()
    figure.legend(*handles, title="neurons", loc="outside right center")
    return figure


RELU_ZEROS_BY_ARCHITECTURE = Experiment(
    name="relu-zeros-by-architecture",
    source="B21, section 4: fully connected networks, MNIST",
    shows="how many inputs of ReLUs are exactly 0 over a training, by layers and neurons",
    cost=Cost("20 networks at two precisions, 100 epochs", "1 day", "1 GPU", ("mnist",)),
    cost_reduced=Cost(
        "the same networks, 11 epochs of 2,000 digits",
        "4 min",
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
    reduced_cannot="The reduced run has a tenth of the epochs and a thirtieth of the digits: it "
    "can show the power of ten where zeros are met, not how it moves over a long training.",
)
