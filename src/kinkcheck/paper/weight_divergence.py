"""[B24], section 4: seven VGG-11 that start equal, see the same mini-batches, and move apart."""

from __future__ import annotations

from collections.abc import Sequence

from kinkcheck.paper import trainings
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.report.study_plots import divergence_figure
from kinkcheck.study.reading import reading
from kinkcheck.study.spec import Spec, shipped


def measure(setup: Setup) -> list[Row]:
    """Distance from network 0 and accuracy of each network after each epoch."""
    name = f"vgg11-weight-divergence{'-small' * setup.reduced}"
    return distances(setup, name, shipped(name))


def distances(setup: Setup, name: str, spec: Spec) -> list[Row]:
    """The table of distances of a study.

    Args:
        setup: the experiment's.
        name: of the study.
        spec: a weight divergence.
    """
    with reading(trainings.finish(setup, name, spec)) as study:
        return list(study.distances())


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Distance from network 0 and accuracy of each network after its last epoch.

    >>> row = {"network": 1, "max_pool": "hybrid:1", "l1": 0.0, "test_accuracy": 0.2}
    >>> summarise([{**row, "epoch": 0}, {**row, "epoch": 1, "l1": 5.0}])
    [{'network': 1, 'max_pool': 'hybrid:1', 'epoch': 1, 'l1': 5.0, 'test_accuracy': 0.2}]
    """
    last = {row["network"]: row for row in rows}
    names = ("network", "max_pool", "epoch", "l1", "test_accuracy")
    return [{name: row[name] for name in names} for row in last.values()]


WEIGHT_DIVERGENCE = Experiment(
    name="weight-divergence",
    source="B24, section 4: seven VGG-11, CIFAR-10",
    shows="how far networks that start equal move apart under β, and their accuracies",
    cost="7 networks, 200 epochs; a day on one GPU (an estimate)",
    cost_reduced="7 networks, 6 epochs of 640 images; 8 minutes on one busy core",
    measure=measure,
    draw=divergence_figure,
    summarise=summarise,
    reduced_cannot=(
        "The reduced run has 30 steps and the exact forward: it shows when the networks part, and "
        "that those of one β do not, but not how far they are after 200 epochs."
    ),
)
