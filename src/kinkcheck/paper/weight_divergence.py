"""[B24], section 4: seven VGG-11 that start equal, see the same mini-batches, and move apart."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from kinkcheck.paper import trainings
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.paper.style import INKS, LINES, MARKERS
from kinkcheck.paper.training_figures import by, selection_text
from kinkcheck.paper.trainings import number
from kinkcheck.study.reading import reading
from kinkcheck.study.spec import Spec, shipped


def measure(setup: Setup) -> list[Row]:
    """Distance from network 0 and accuracy of each network after each epoch."""
    name = f"vgg11-weight-divergence{'-small' * setup.reduced}"
    return distances(setup, name, shipped(name))


def distances(setup: Setup, name: str, spec: Spec) -> list[Row]:
    """The table of distances of a study, accuracies in per cent.

    Args:
        setup: the experiment's.
        name: of the study.
        spec: a weight divergence.
    """
    with reading(trainings.finish(setup, name, spec)) as study:
        seeds = {trial.trial: trial.seed for trial in study.trials()}
        found = study.distances()
    return [
        {
            "seed": seeds[row["trial"]],
            "network": row["network"],
            "max_pool": row["max_pool"],
            "epoch": row["epoch"],
            "distance": row["l1"],
            "accuracy": None if row["test_accuracy"] is None else 100 * row["test_accuracy"],
            "loss": row["train_loss"],
            "diverged_step": row["diverged_step"],
        }
        for row in found
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """‖θ0 − θi‖1 and test accuracy by epoch, a line a network and seed."""
    figure = Figure(figsize=(8.4, 3.3))
    left, right = figure.subplots(1, 2)
    lines = by(rows, ("network", "seed"))
    for (network, seed), together in lines.items():
        at = int(number(network))
        epochs = [number(row["epoch"]) for row in together]
        label = f"{at}: β = {selection_text(str(together[0]['max_pool']))}"
        first = seed == rows[0]["seed"]
        for axes, column in ((left, "distance"), (right, "accuracy")):
            if axes is right or at:
                axes.plot(
                    epochs, [number(row[column]) for row in together], color=INKS[at % len(INKS)],
                    linestyle=LINES[at % len(LINES)], marker=MARKERS[at % len(MARKERS)], lw=1,
                    ms=3 if len(epochs) < 20 else 0, label=label if first else None,
                )  # fmt: skip
    left.set_yscale("symlog", linthresh=1e-3)
    left.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    left.set_ylim(bottom=0)
    left.set_ylabel("‖θ0 − θi‖1")
    right.set_ylabel("test accuracy, %")
    seeds = len({row["seed"] for row in rows})
    left.set_title(f"distance from network 0; {seeds} seed{'s' * (seeds != 1)}")
    right.set_title("accuracy")
    for axes in (left, right):
        axes.set_xlabel("epoch")
    right.legend(title="network", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


WEIGHT_DIVERGENCE = Experiment(
    name="weight-divergence",
    source="B24, section 4: seven VGG-11, CIFAR-10",
    shows="how far networks that start equal move apart under β, and their accuracies",
    cost="7 networks, 200 epochs; a day on one GPU (an estimate)",
    cost_reduced="7 networks, 6 epochs of 640 images; about 10 minutes of one core (an estimate)",
    measure=measure,
    draw=draw,
    reduced_cannot=(
        "The reduced run has 30 steps and the exact forward: it shows when the networks part, and "
        "that those of one β do not, but not how far they are after 200 epochs."
    ),
)
