"""[B21]: how often ReLU'(0) changes the gradient of a fully connected network on MNIST."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure
from torch import nn

from kinkcheck import data
from kinkcheck.audit.intervals import estimate
from kinkcheck.audit.volume import estimate_volume
from kinkcheck.data import Images
from kinkcheck.networks import MLP
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.paper.gradients import take
from kinkcheck.report.ink import INKS, LINES, MARKERS

PRECISIONS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Shape:
    """A network and what it sees; the defaults are what is held while one is varied.

    Attributes:
        factor: which of the others is varied.
        sample_size: images that mini-batches are taken from.
        batch_size: images in a mini-batch.
        layers: hidden layers.
        neurons: neurons in each.
    """

    factor: str
    sample_size: int = 4_000
    batch_size: int = 256
    layers: int = 3
    neurons: int = 256

    @property
    def value(self) -> int:
        """The value of the factor.

        >>> Shape("layers", layers=2).value
        2
        """
        found: int = getattr(self, self.factor)
        return found

    @property
    def file(self) -> str:
        """Tells networks and what they see apart; one that is met under two factors runs once.

        >>> Shape("layers", layers=3).file == Shape("neurons", neurons=256).file
        True
        """
        return f"{self.sample_size}-by-{self.batch_size}-mlp-{self.layers}x{self.neurons}"

    def build(self, images: Images) -> nn.Module:
        """The network for a set of images."""
        return MLP(
            self.neurons,
            self.layers,
            in_channels=images.channels,
            classes=images.classes,
            image_size=images.image_size[0],
        )


VALUES = {
    "sample_size": (1_000, 4_000, 16_000),
    "batch_size": (32, 128, 256, 512),
    "layers": (1, 2, 3, 4, 5),
    "neurons": (16, 64, 256, 1024),
}
"""What is varied, one at a time."""

_SHAPES = [
    Shape(factor, **{factor: value}) for factor, values in VALUES.items() for value in values
]


def measure(
    setup: Setup, shapes: Sequence[Shape] | None = None, size: tuple[int, int] | None = None
) -> list[Row]:
    """The share of points at which ReLU'(0) = 1 gives another gradient than ReLU'(0) = 0.

    Args:
        setup: where.
        shapes: what is measured; by default one factor of :data:`VALUES` at a time.
        size: parameter draws, and mini-batches at most: a small sample has fewer.
    """
    draws, most = size or ((10, 10) if setup.reduced else (200, 60))
    images = data.load("mnist", "train", data_dir=setup.data_dir)
    rows: list[Row] = []
    for shape in shapes or _SHAPES:
        where = f"{shape.factor.replace('_', ' ')} {shape.value}"
        given = take(images.take(shape.sample_size), shape.batch_size, most)
        volume = estimate_volume(
            partial(shape.build, images),
            given,
            draws=draws,
            precisions=PRECISIONS,
            selections=["branch:1"],
            operations=["relu"],
            lifted=False,
            device=setup.device,
            out=setup.work / f"{shape.file}-{draws}x{most}.jsonl",
            network_name=f"mlp-{shape.layers}x{shape.neurons}",
            data_name=images.name,
            on_point=partial(setup.on_progress, where),
        )
        for precision in PRECISIONS:
            points = [point for point in volume.points if point.precision == precision]
            share = estimate(
                sum(point.variation.l1 != 0 for point in points),
                [(point.draw, point.batch) for point in points],
            )
            low, high = share.interval
            rows.append(
                {
                    "factor": shape.factor,
                    "value": shape.value,
                    "precision": precision,
                    "draws": draws,
                    "batches": len(given),
                    "differing": share.count,
                    "percent": 100 * share.proportion,
                    "low": 100 * low,
                    "high": 100 * high,
                }
            )
    return rows


def summarise(rows: Sequence[Row]) -> list[Row]:
    """The shares of every network in percent, a column a precision.

    >>> row = {"factor": "layers", "value": 2, "draws": 10, "batches": 7}
    >>> summarise([{**row, "precision": "float16", "percent": 4.0}])
    [{'factor': 'layers', 'value': 2, 'points': 70, 'float16': 4.0}]
    """
    found: dict[tuple[object, ...], Row] = {}
    for row in rows:
        here = found.setdefault(
            (row["factor"], row["value"]),
            {
                "factor": row["factor"],
                "value": row["value"],
                "points": int(row["draws"] or 0) * int(row["batches"] or 0),
            },
        )
        here[str(row["precision"])] = row["percent"]
    return list(found.values())


def draw(rows: Sequence[Row]) -> Figure:
    """A panel for each factor, a line for each precision, with intervals."""
    factors = list(dict.fromkeys(str(row["factor"]) for row in rows))
    figure = Figure(figsize=(1.0 + 2.1 * len(factors), 2.9))
    panels = figure.subplots(1, len(factors), sharey=True, squeeze=False)[0]
    for axes, factor in zip(panels, factors, strict=True):
        here = [row for row in rows if row["factor"] == factor]
        values = list(dict.fromkeys(row["value"] for row in here))
        for number, precision in enumerate(PRECISIONS):
            found = [row for row in here if row["precision"] == precision]
            heights = [float(row["percent"] or 0) for row in found]
            below = [h - float(r["low"] or 0) for h, r in zip(heights, found, strict=True)]
            above = [float(r["high"] or 0) - h for h, r in zip(heights, found, strict=True)]
            axes.errorbar(
                [values.index(row["value"]) + 0.12 * (number - 1) for row in found],
                heights, yerr=(below, above), color=INKS[number], linestyle=LINES[number],
                marker=MARKERS[number], markersize=4, capsize=2, linewidth=1, elinewidth=0.7,
                label=precision,
            )  # fmt: skip
        axes.set_xticks(range(len(values)), [f"{value}" for value in values])
        axes.set_xlabel(factor.replace("_", " "))
        counts = sorted({int(row["draws"] or 0) * int(row["batches"] or 0) for row in here})
        axes.set_title(f"{'-'.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} points")
        axes.set_ylim(-3, 103)
    panels[0].set_ylabel("points where ReLU'(0) matters, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


RELU_VOLUMES = Experiment(
    name="relu-volumes",
    source="B21, section 4: volumes of fully connected networks, MNIST",
    shows="the share of points where ReLU'(0) = 1 differs from 0, in percent, by sample size, "
    "batch size, layers and neurons",
    cost="200 draws by 60 mini-batches (fewer of small samples) at three precisions for each of 13 "
    "networks; about 4 hours on one core (an estimate)",
    cost_reduced="10 draws by 10 mini-batches at three precisions for each; about 2 minutes on one "
    "core",
    measure=measure,
    draw=draw,
    summarise=summarise,
    reduced_cannot="The reduced run has intervals of 60 percentage points and more (McDiarmid, 10 "
    "draws by at most 10 mini-batches): it can show that ReLU'(0) matters at all at a "
    "precision, not that one size differs from the next.",
)
