"""[B21]: for how many fully connected networks ReLU'(0) changes a gradient on MNIST.

A draw of the parameters counts if the gradient of the first layer's weights changes at any
mini-batch of the images, which are not normalised: a share of draws, which grows with the images
that are looked at. As published, but for one thing: there, gradients were not set to 0 between
mini-batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn

from kinkcheck import data
from kinkcheck.arithmetic.precision import parse
from kinkcheck.audit.intervals import clopper_pearson
from kinkcheck.audit.points import Factory
from kinkcheck.data import Images
from kinkcheck.measure.runs import Runs, pairs
from kinkcheck.networks import MLP
from kinkcheck.paper import published_values
from kinkcheck.paper.comparison import Comparison, of_intervals
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.paper.gradients import Batch, drawn, take
from kinkcheck.paper.parts import kept
from kinkcheck.report.ink import INKS, LINES, MARKERS

PRECISIONS = ("float16", "float32", "float64")
_BITS = {"16": "float16", "32": "float32"}


@dataclass(frozen=True)
class Shape:
    """A network and its mini-batches; the defaults are what is held while one is varied.

    Attributes:
        batch_size: images in a mini-batch.
        layers: hidden layers.
        neurons: neurons in each.
    """

    batch_size: int = 256
    layers: int = 3
    neurons: int = 256

    @property
    def name(self) -> str:
        """Tells shapes apart; one that is met under two factors is measured once.

        >>> Shape(16).name
        'mlp-3x256-by-16'
        """
        return f"mlp-{self.layers}x{self.neurons}-by-{self.batch_size}"

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
    "batch_size": (16, 64, 256, 512, 1024),
    "layers": (1, 2, 3, 5, 6),
    "neurons": (16, 64, 256, 512, 1024),
}
"""What is varied, one at a time; the sample size is, besides."""

SAMPLE_SIZES = (1_000, 10_000, 20_000, 30_000, 40_000, 50_000, 60_000)
_REDUCED_SAMPLE_SIZES = (512, 1_024, 2_048)  # whole mini-batches of every size


def measure(
    setup: Setup,
    base: Shape | None = None,
    values: Mapping[str, Sequence[int]] = VALUES,
    sample_sizes: Sequence[int] | None = None,
    draws: int | None = None,
) -> list[Row]:
    """The share of draws for which ReLU'(0) = 1 gives another gradient than ReLU'(0) = 0.

    Args:
        setup: where.
        base: what is held while one factor is varied; the sample size is varied for it, too.
        values: of each factor.
        sample_sizes: images that mini-batches are taken from, rising; the others see the last.
        draws: of the parameters.
    """
    base = base or Shape()
    sample_sizes = sample_sizes or (_REDUCED_SAMPLE_SIZES if setup.reduced else SAMPLE_SIZES)
    draws = draws or (20 if setup.reduced else 1_000)
    images = data.load("mnist", "train", data_dir=setup.data_dir).take(sample_sizes[-1])
    images = replace(images, mean=(0.0,), std=(1.0,))
    shapes = {
        (factor, value): replace(base, **{factor: value})
        for factor, each in values.items()
        for value in each
    }
    firsts = {
        shape: _by_precision(setup, images, shape, draws)
        for shape in dict.fromkeys((base, *shapes.values()))
    }
    rows = [
        row for size in sample_sizes for row in _rows("sample_size", size, base, size, firsts[base])
    ]
    for (factor, value), shape in shapes.items():
        rows += _rows(factor, value, shape, len(images), firsts[shape])
    return rows


def _by_precision(
    setup: Setup, images: Images, shape: Shape, draws: int
) -> dict[str, list[int | None]]:
    """The first mini-batch at which the gradient changes, a number for each draw."""
    batches = take(images, shape.batch_size, None)
    found: dict[str, list[int | None]] = {precision: [] for precision in PRECISIONS}
    for draw in range(draws):
        setup.on_progress(shape.name, draw, draws)
        rows = kept(
            setup,
            f"{shape.name} {len(images)} {draw}",
            partial(_one_draw, setup, partial(shape.build, images), batches, draw),
        )
        for row in rows:
            first = row["first"]
            found[str(row["precision"])].append(None if first is None else int(first))
    setup.on_progress(shape.name, draws, draws)
    return found


def _one_draw(setup: Setup, network: Factory, batches: Sequence[Batch], draw: int) -> list[Row]:
    model = drawn(network, draw)
    return [
        {
            "precision": precision,
            "first": next(
                (
                    index
                    for index, pair in enumerate(batches)
                    if _changes(model, pair, precision, setup.device)
                ),
                None,
            ),
        }
        for precision in PRECISIONS
    ]


def _changes(model: nn.Module, pair: Batch, at: str, device: str) -> bool:
    """Whether ReLU'(0) = 1 changes the gradient of the weights of the first layer."""
    runs = Runs(model, pairs(F.cross_entropy), pair, parse(at), device, where=at)
    with runs.audited():
        forward = runs.forward()
        native, other = (
            next(iter(forward.gradient(choose).values())) for choose in ("native", "branch:1")
        )
    return not torch.allclose(native, other, rtol=0, atol=0, equal_nan=True)


def _rows(
    factor: str, value: int, shape: Shape, images: int, firsts: dict[str, list[int | None]]
) -> list[Row]:
    rows: list[Row] = []
    batches = images // shape.batch_size
    for precision, first in firsts.items():
        count = sum(batch is not None and batch < batches for batch in first)
        low, high = clopper_pearson(count, len(first)).interval
        rows.append(
            {
                "factor": factor,
                "value": value,
                "precision": precision,
                "images": batches * shape.batch_size,
                "draws": len(first),
                "differing": count,
                "percent": 100 * count / len(first),
                "low": 100 * low,
                "high": 100 * high,
            }
        )
    return rows


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """Beside the published counts among 1,000 draws over 60,000 images."""
    published = {
        (row["factor"], int(row["value"]), _BITS[row["precision_bits"]]): (
            int(row["count"]), int(row["draws"]),
        )
        for row in published_values.table("relu_volumes")
    }  # fmt: skip
    found = []
    for row in rows:
        theirs = published.get((str(row["factor"]), int(row["value"] or 0), str(row["precision"])))
        if theirs:
            count, draws = theirs
            low, high = clopper_pearson(count, draws).interval
            found.append(
                of_intervals(
                    f"{str(row['factor']).replace('_', ' ')} {row['value']}, {row['precision']}: %",
                    (float(row["percent"] or 0), float(row["low"] or 0), float(row["high"] or 0)),
                    (100 * count / draws, 100 * low, 100 * high),
                )
            )
    return found


def summarise(rows: Sequence[Row]) -> list[Row]:
    """The shares of every network in percent, a column a precision.

    >>> row = {"factor": "layers", "value": 2, "images": 3840, "draws": 10}
    >>> summarise([{**row, "precision": "float16", "percent": 4.0}])
    [{'factor': 'layers', 'value': 2, 'images': 3840, 'draws': 10, 'float16': 4.0}]
    """
    found: dict[tuple[object, ...], Row] = {}
    for row in rows:
        said = {name: row[name] for name in ("factor", "value", "images", "draws")}
        here = found.setdefault((row["factor"], row["value"]), said)
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
        axes.set_title(f"{here[0]['draws']} draws, {_said(here)} images")
        axes.set_ylim(-3, 103)
    panels[0].set_ylabel("draws where ReLU'(0) matters, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def _said(rows: Sequence[Row]) -> str:
    counts = sorted({int(row["images"] or 0) for row in rows})
    return "-".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))


RELU_VOLUMES = Experiment(
    name="relu-volumes",
    source="B21, section 3: volumes of fully connected networks, MNIST",
    shows="the share of parameter draws for which ReLU'(0) = 1 changes a gradient somewhere on the "
    "images, by sample size, batch size, layers and neurons",
    cost="1,000 draws over 60,000 images at three precisions for each of 13 networks; days on one "
    "GPU (an estimate)",
    cost_reduced="20 draws over 2,048 images for each; 4 minutes on one busy core",
    measure=measure,
    draw=draw,
    compare=compare,
    summarise=summarise,
    reduced_cannot="The reduced run looks at 2,048 images instead of 60,000, so that its shares "
    "are lower (see the panel by sample size), with intervals of up to 46 percentage points: it "
    "can show which way the share goes with precision, depth and width, not the published shares.",
)
