"""[B21]: for how many fully connected networks ReLU'(0) changes a gradient on MNIST.

A draw of the parameters counts if the gradient of the first layer's weights changes at any
mini-batch of the images, which are not normalised: a share of draws, which grows with the images
that are looked at. As published, but for one thing: there, gradients were not set to 0 between
mini-batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from matplotlib.figure import Figure

from kinkcheck.data import Images
from kinkcheck.measure.forward import Forward
from kinkcheck.paper.harness import published_values
from kinkcheck.paper.harness.case import Case, Mlp, Size
from kinkcheck.paper.harness.comparison import Comparison, Share, of_intervals
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.first_hits import Firsts, count_within, first_hits
from kinkcheck.paper.harness.rows import Line, by, line
from kinkcheck.report.ink import INKS, LINES, MARKERS

PRECISIONS = ("float16", "float32", "float64")
_BITS = {"16": "float16", "32": "float32"}


@dataclass(frozen=True)
class Row:
    """How many draws count, for one network and precision.

    Attributes:
        factor: what is varied.
        value: its value.
        precision: name.
        images: that are looked at.
        draws: of the parameters.
        differing: those of them whose gradient changes.
        percent: the share of these.
        low, high: its 95 % interval, in percent.
    """

    factor: str
    value: int
    precision: str
    images: int
    draws: int
    differing: int
    percent: float
    low: float
    high: float


VALUES = {
    "batch_size": (16, 64, 256, 512, 1024),
    "layers": (1, 2, 3, 5, 6),
    "neurons": (16, 64, 256, 512, 1024),
}
"""What is varied, one at a time; the sample size is, besides."""

SAMPLE_SIZES = (1_000, 10_000, 20_000, 30_000, 40_000, 50_000, 60_000)
_REDUCED_SAMPLE_SIZES = (512, 1_024, 2_048)  # whole mini-batches of every size
_FULL, _REDUCED = (Case(Mlp(), "mnist", Size(draws, None, 256)) for draws in (1_000, 20))


def measure(
    setup: Setup,
    base: Case | None = None,
    values: Mapping[str, Sequence[int]] = VALUES,
    sample_sizes: Sequence[int] | None = None,
) -> list[Row]:
    """The share of draws for which ReLU'(0) = 1 gives another gradient than ReLU'(0) = 0.

    Args:
        setup: where.
        base: what is held while one factor is varied; the sample size is varied for it, too.
        values: of each factor.
        sample_sizes: images that mini-batches are taken from, rising; the others see the last.
    """
    base = base or (_REDUCED if setup.reduced else _FULL)
    sample_sizes = sample_sizes or (_REDUCED_SAMPLE_SIZES if setup.reduced else SAMPLE_SIZES)
    images = base.images(setup.data_dir).take(sample_sizes[-1])
    images = replace(images, mean=(0.0,), std=(1.0,))
    cases = {
        (factor, value): _varied(base, factor, value)
        for factor, each in values.items()
        for value in each
    }
    firsts = {case: _firsts(setup, images, case) for case in dict.fromkeys((base, *cases.values()))}
    rows = [
        row for size in sample_sizes for row in _rows("sample_size", size, base, size, firsts[base])
    ]
    for (factor, value), case in cases.items():
        rows += _rows(factor, value, case, len(images), firsts[case])
    return rows


def _varied(base: Case, factor: str, value: int) -> Case:
    if factor == "batch_size":
        return replace(base, size=base.size._replace(batch_size=value))
    changed: dict[str, Any] = {factor: value}
    return replace(base, network=replace(base.network, **changed))


def _firsts(setup: Setup, images: Images, case: Case) -> Firsts:
    """The first mini-batch at which the gradient changes; under two factors measured once."""
    name = f"{case.network}-by-{case.size.batch_size}"
    return first_hits(setup, name, case, images, PRECISIONS, _changes)


def _changes(forward: Forward) -> bool:
    """Whether ReLU'(0) = 1 changes the gradient of the weights of the first layer."""
    if not any(site.tied for site in forward.tape.sites):
        return False
    native, other = (
        next(iter(forward.gradient(choose).values())) for choose in ("native", "branch:1")
    )
    return not torch.allclose(native, other, rtol=0, atol=0, equal_nan=True)


def _rows(factor: str, value: int, case: Case, images: int, firsts: Firsts) -> list[Row]:
    rows: list[Row] = []
    batches = images // case.size.batch_size
    for precision, first in firsts.items():
        count = count_within(first, batches)
        rows.append(
            Row(
                factor=factor,
                value=value,
                precision=precision,
                images=batches * case.size.batch_size,
                draws=len(first),
                differing=count,
                **vars(Share.of(count, len(first))),
            )
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
        theirs = published.get((row.factor, row.value, row.precision))
        if theirs:
            found.append(
                of_intervals(
                    f"{row.factor.replace('_', ' ')} {row.value}, {row.precision}: %",
                    (row.percent, row.low, row.high),
                    Share.of(*theirs).interval,
                )
            )
    return found


def summarise(rows: Sequence[Row]) -> list[Line]:
    """The shares of every network in percent, a column a precision.

    >>> summarise([Row("layers", 2, "float16", 3840, 10, 4, 40.0, 12.2, 73.8)])
    [{'factor': 'layers', 'value': 2, 'images': 3840, 'draws': 10, 'float16': 40.0}]
    """
    return [
        {
            **line(together[0], "factor", "value", "images", "draws"),
            **{row.precision: row.percent for row in together},
        }
        for together in by(rows, lambda row: (row.factor, row.value)).values()
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """A panel for each factor, a line for each precision, with intervals."""
    factors = list(dict.fromkeys(row.factor for row in rows))
    figure = Figure(figsize=(1.0 + 2.1 * len(factors), 2.9))
    panels = figure.subplots(1, len(factors), sharey=True, squeeze=False)[0]
    for axes, factor in zip(panels, factors, strict=True):
        here = [row for row in rows if row.factor == factor]
        values = list(dict.fromkeys(row.value for row in here))
        for number, precision in enumerate(PRECISIONS):
            found = [row for row in here if row.precision == precision]
            below = [row.percent - row.low for row in found]
            above = [row.high - row.percent for row in found]
            axes.errorbar(
                [values.index(row.value) + 0.12 * (number - 1) for row in found],
                [row.percent for row in found], yerr=(below, above), color=INKS[number],
                linestyle=LINES[number],
                marker=MARKERS[number], markersize=4, capsize=2, linewidth=1, elinewidth=0.7,
                label=precision,
            )  # fmt: skip
        axes.set_xticks(range(len(values)), [f"{value}" for value in values])
        axes.set_xlabel(factor.replace("_", " "))
        axes.set_title(f"{here[0].draws} draws, {_said(here)} images")
        axes.set_ylim(-3, 103)
    panels[0].set_ylabel("draws where ReLU'(0) matters, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def _said(rows: Sequence[Row]) -> str:
    counts = sorted({row.images for row in rows})
    return "-".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))


RELU_VOLUMES = Experiment(
    name="relu-volumes",
    source="B21, section 3: volumes of fully connected networks, MNIST",
    shows="the share of parameter draws for which ReLU'(0) = 1 changes a gradient somewhere on the "
    "images, by sample size, batch size, layers and neurons",
    cost=Cost(
        "1,000 draws over 60,000 images at three precisions for each of 13 networks",
        "days",
        "1 GPU",
        ("mnist",),
    ),
    cost_reduced=Cost(
        "20 draws over 2,048 images for each",
        "4 min",
        "1 busy core",
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
    reduced_cannot="The reduced run looks at 2,048 images instead of 60,000, so that its shares "
    "are lower (see the panel by sample size), with intervals of up to 46 percentage points: it "
    "can show which way the share goes with precision, depth and width, not the published shares.",
)
