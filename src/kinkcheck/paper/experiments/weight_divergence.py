"""[B24], section 4: seven VGG-11 that start equal, see the same mini-batches, and move apart.

Published at 32 bits; here at 16 and 64 as well. In each precision the networks start from the same
parameters, rounded to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from kinkcheck.paper.harness import trainings
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.rows import Line, by, line
from kinkcheck.report.study_plots import divergence_panels
from kinkcheck.study.reading import reading
from kinkcheck.study.spec import Spec

PRECISIONS = ("16", "32", "64")
_REDUCED = {"train_images": "256", "test_images": "128", "epochs": "3"}


@dataclass(frozen=True)
class Row:
    """A network after an epoch.

    Attributes:
        trial: its id in the study.
        epoch: 0 is the start.
        network: its number.
        max_pool: its selection.
        l1: ‖θ − θ₀‖₁, its distance from network 0; None where that is not finite.
        train_loss, test_loss: None where they are not finite.
        test_accuracy: from 0 to 1; None where it is not a number.
        diverged_step, diverged_layer: where what is not finite began; None if nothing is.
        precision: name.
    """

    trial: str
    epoch: int
    network: int
    max_pool: str
    l1: float | None
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None
    diverged_step: int | None
    diverged_layer: str | None
    precision: str = "float32"


def measure(setup: Setup) -> list[Row]:
    """Distance from network 0 and accuracy of each network after each epoch, in each precision."""
    name = f"vgg11-weight-divergence{'-small' * setup.reduced}"
    keys = _REDUCED if setup.reduced else {}
    rows: list[Row] = []
    for bits in PRECISIONS:
        spec = trainings.changed(name, precision=f'"{bits}"', **keys)
        rows += distances(setup, f"{name}-{bits}", spec)
    return rows


def distances(setup: Setup, name: str, spec: Spec) -> list[Row]:
    """The table of distances of a study.

    Args:
        setup: the experiment's.
        name: of the study.
        spec: a weight divergence.
    """
    with reading(trainings.finish(setup, name, spec)) as study:
        precisions = {trial.trial: trial.precision for trial in study.trials()}
        return [Row(**row, precision=precisions[row["trial"]]) for row in study.distances()]


def last(rows: Sequence[Row]) -> list[Row]:
    """The last epoch of each network in each precision.

    >>> rows = [Row("a", epoch, 1, "hybrid:1", 5.0, 1.0, 1.0, 0.2, None, None) for epoch in (0, 1)]
    >>> [row.epoch for row in last(rows)]
    [1]
    """
    return list({(row.precision, row.network): row for row in rows}.values())


def summarise(rows: Sequence[Row]) -> list[Line]:
    """Distance from network 0 and accuracy of each network after its last epoch.

    >>> rows = [Row("a", epoch, 1, "hybrid:1", 5.0, 1.0, 1.0, 0.2, None, None) for epoch in (0, 1)]
    >>> summarise(rows)[0]["precision"], summarise(rows)[0]["l1"]
    ('float32', 5.0)
    """
    columns = ("precision", "network", "max_pool", "epoch", "l1", "test_accuracy")
    return [line(row, *columns) for row in last(rows)]


def draw(rows: Sequence[Row]) -> Figure:
    """Distances and accuracies by epoch, as a study draws them; a line of panels a precision."""
    found = by(rows, lambda row: row.precision)
    figure = Figure(figsize=(9.2, 3.2 * len(found)))
    panels = figure.subplots(len(found), 2, sharey="col", squeeze=False)
    for (left, right), (precision, together) in zip(panels, found.items(), strict=True):
        divergence_panels(left, right, [line(row) for row in together])
        left.set_title(precision)
        right.set_title(precision)
    return figure


WEIGHT_DIVERGENCE = Experiment(
    name="weight-divergence",
    source="B24, section 4: seven VGG-11, CIFAR-10",
    shows="how far networks that start equal move apart under β, and their accuracies",
    cost=Cost("7 networks at three precisions, 200 epochs", "days", "1 GPU", ("cifar10",)),
    cost_reduced=Cost(
        "7 networks at three precisions, 3 epochs of 256 images",
        "7 min",
        "1 core",
        ("cifar10",),
    ),
    row=Row,
    measure=measure,
    spreads=True,
    draw=draw,
    summarise=summarise,
    reduced_cannot=(
        "The reduced run has 6 steps and the exact forward: it shows when the networks part, and "
        "that those of one β do not, but not how far they are after 200 epochs."
    ),
)
