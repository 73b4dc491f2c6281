"""[B24], section 3: histograms of the gradient variation by precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from kinkcheck.audit.points import Factory
from kinkcheck.audit.volume import estimate_volume
from kinkcheck.measure.zones import PUBLISHED_THRESHOLDS
from kinkcheck.paper.harness.case import Batch, Case, Network, Size
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.gradients import drawn, repeated
from kinkcheck.paper.harness.parts import all_kept
from kinkcheck.paper.harness.rows import Line, by
from kinkcheck.report.ink import HATCHES, INKS

PRECISIONS = ("float16", "bfloat16", "float32", "float64")
_SAME, _DIFFERENT = "native twice", "native and minimal"
_FULL, _REDUCED = (Case(Network("lenet5"), "mnist", size) for size in (Size(100, 100), Size(5, 6)))


@dataclass(frozen=True)
class Row:
    """Two programs at a point.

    Attributes:
        programs: which.
        noise: whether noise is added to the images.
        precision: name.
        draw, batch: of the point.
        variation: how far their gradients are apart, D (l1).
    """

    programs: str
    noise: bool
    precision: str
    draw: int
    batch: int
    variation: float


def measure(setup: Setup, case: Case | None = None) -> list[Row]:
    """D (l1) of LeNet-5 at every point, with and without input noise, for two pairs of programs.

    Two programs with the same backward pass are one program that runs twice from its start.

    Args:
        setup: where.
        case: what is measured; by default the reduced or the full size.
    """
    case = case or (_REDUCED if setup.reduced else _FULL)
    images = case.images(setup.data_dir)
    clean = case.batches(images)
    rows: list[Row] = []
    for noise, batches in ((False, clean), (True, with_input_noise(clean))):
        for pair, measured in ((_DIFFERENT, _native_and_minimal), (_SAME, _native_twice)):
            what = f"{pair}, {'with' if noise else 'without'} noise"
            said = partial(Row, pair, noise)
            rows += measured(setup, case.factory(images), batches, case.size, what, said)
    return rows


def with_input_noise(
    batches: Iterable[tuple[Tensor, Tensor]], *, seed: int = 0, scale: float = 1.0
) -> list[tuple[Tensor, Tensor]]:
    """The same mini-batches with independent normal noise added to every pixel.

    Equal neighbours, such as the black border of a digit, tie in every window that they fill;
    noise undoes these ties and leaves those that a network makes by itself. The published
    experiments add noise of deviation 1 to the normalised images.

    Args:
        batches: pairs of images and targets; the images are not changed in place.
        seed: of the noise, which depends on nothing else.
        scale: standard deviation, in the units of the images.

    >>> ((noisy, _),) = with_input_noise([(torch.zeros(1, 1, 4, 4), torch.tensor([0]))])
    >>> len(noisy.unique())
    16
    """
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            images + scale * torch.randn(images.shape, generator=generator, dtype=images.dtype),
            targets,
        )
        for images, targets in batches
    ]


def _native_and_minimal(
    setup: Setup,
    network: Factory,
    batches: Sequence[Batch],
    size: Size,
    what: str,
    said: Callable[[str, int, int, float], Row],
) -> list[Row]:
    volume = estimate_volume(
        network,
        batches,
        draws=size.draws,
        precisions=PRECISIONS,
        operations=["max_pool"],
        lifted=False,
        standing=False,
        device=setup.device,
        out=setup.work / f"{_file(what)}-{size}.jsonl",
        network_name="lenet5",
        data_name="mnist",
        executor=setup.measures,
        on_point=partial(setup.on_progress, what),
    )
    return [said(p.precision, p.draw, p.batch, p.variation.l1) for p in volume.points]


def _file(what: str) -> str:
    return what.replace(",", "").replace(" ", "-")


def _native_twice(
    setup: Setup,
    network: Factory,
    batches: Sequence[Batch],
    size: Size,
    what: str,
    said: Callable[[str, int, int, float], Row],
) -> list[Row]:
    def measured(draw: int, where: Setup) -> list[Row]:
        model = drawn(network, draw)
        return [
            said(precision, draw, batch, repeated(model, pair, precision, where.device))
            for batch, pair in enumerate(batches)
            for precision in PRECISIONS
        ]

    parts = {f"{what} {size} {draw}": partial(measured, draw) for draw in range(size.draws)}
    return [row for rows in all_kept(setup, Row, parts).values() for row in rows]


def summarise(rows: Sequence[Row]) -> list[Line]:
    """Points, those with D = 0, and the least, middle and largest finite D, by group.

    >>> rows = [Row("native twice", False, "float32", 0, 0, d) for d in (0.0, 2.0)]
    >>> [(found["zero"], found["median"]) for found in summarise(rows)]
    [(1, 1.0)]
    """
    found: list[Line] = []
    groups = by(rows, lambda row: (row.programs, row.noise, row.precision))
    for (programs, noise, precision), group in groups.items():
        values = sorted(row.variation for row in group if math.isfinite(row.variation))
        found.append(
            {
                "programs": programs,
                "noise": noise,
                "precision": precision,
                "points": len(group),
                "zero": values.count(0.0),
                "least": values[0] if values else None,
                "median": float(np.median(values)) if values else None,
                "largest": values[-1] if values else None,
                "threshold": PUBLISHED_THRESHOLDS[precision],
            }
        )
    return found


def draw(rows: Sequence[Row]) -> Figure:
    """A panel for each pair of programs, with and without noise; a histogram for each precision."""
    panels = list(dict.fromkeys((row.programs, row.noise) for row in rows))
    precisions = list(dict.fromkeys(row.precision for row in rows))
    known = [math.log10(row.variation) for row in rows if 0 < row.variation < math.inf]
    low, high = math.floor(min(known, default=-1)), math.ceil(max(known, default=0)) + 1
    zero = low - 1.5  # the place of D = 0, which has no logarithm
    edges = np.arange(low, high, 0.25)
    figure = Figure(figsize=(6.4, 0.8 + 1.35 * len(panels)))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (programs, noise) in zip(grid, panels, strict=True):
        for number, precision in enumerate(precisions):
            values = [
                row.variation
                for row in rows
                if (row.programs, row.noise, row.precision) == (programs, noise, precision)
            ]
            style = {"color": INKS[number], "hatch": HATCHES[number], "edgecolor": "white"}
            place = zero + 0.3 * (number - 1.5)
            axes.bar(place, values.count(0.0), 0.3, label=precision, **style)
            axes.hist(
                [math.log10(d) for d in values if 0 < d < math.inf], edges, alpha=0.8, **style
            )
        here = [row for row in rows if (row.programs, row.noise) == (programs, noise)]
        lost = sum(not math.isfinite(row.variation) for row in here)
        axes.set_title(
            f"{programs}, {'with' if noise else 'without'} noise; "
            f"{len(here) // len(precisions)} points each" + f", {lost} not finite" * bool(lost)
        )
        axes.set_ylabel("points")
        for precision in precisions:
            axes.axvline(
                math.log10(PUBLISHED_THRESHOLDS[precision]), color="#000000", linestyle=":",
                linewidth=0.9,
            )  # fmt: skip
    ticks = range(low, high, max(1, (high - low) // 8))
    grid[-1].set_xticks([zero, *ticks], ["0", *(f"1e{tick}" for tick in ticks)])
    grid[-1].set_xlabel("D (l1); dotted: published thresholds of 64, 32 and 16 bits")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return figure


VARIATION_HISTOGRAMS = Experiment(
    name="variation-histograms",
    source="B24, section 3: variation of LeNet-5, MNIST",
    shows="D by precision, with and without input noise, for equal and different backward passes",
    cost=Cost(
        "10,000 points at four precisions, with and without noise, twice",
        "about 5 hours",
        "1 core",
        ("mnist",),
    ),
    cost_reduced=Cost(
        "30 points at four precisions, with and without noise, twice",
        "about 1 min",
        "1 core",
        ("mnist",),
        measured=True,
    ),
    row=Row,
    measure=measure,
    spreads=True,
    draw=draw,
    summarise=summarise,
    reduced_cannot="The reduced run shows where each histogram lies, not its tails.",
)
