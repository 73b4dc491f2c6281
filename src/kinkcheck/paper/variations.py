"""[B24], section 3: histograms of the gradient variation by precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from kinkcheck import data
from kinkcheck.audit.points import Factory
from kinkcheck.audit.published import with_input_noise
from kinkcheck.audit.volume import estimate_volume
from kinkcheck.measure.variation import Variation
from kinkcheck.measure.zones import PUBLISHED_THRESHOLDS
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.paper.gradients import Batch, Network, Size, drawn, repeated, take
from kinkcheck.paper.parts import kept
from kinkcheck.report.ink import HATCHES, INKS

PRECISIONS = ("float16", "bfloat16", "float32", "float64")
_SAME, _DIFFERENT = "native twice", "native and minimal"
_FULL, _REDUCED = Size(100, 100), Size(5, 6)


def measure(setup: Setup, size: Size | None = None) -> list[Row]:
    """D (l1) of LeNet-5 at every point, with and without input noise, for two pairs of programs.

    Two programs with the same backward pass are one program that runs twice from its start.

    Args:
        setup: where.
        size: by default the reduced or the full one.
    """
    size = size or (_REDUCED if setup.reduced else _FULL)
    images = data.load("mnist", "train", data_dir=setup.data_dir)
    clean = take(images, size.batch_size, size.batches)
    lenet = partial(Network("lenet5").build, images)
    rows: list[Row] = []
    for noise in (False, True):
        batches = with_input_noise(clean) if noise else clean
        for pair, measured in ((_DIFFERENT, _native_and_minimal), (_SAME, _native_twice)):
            what = f"{pair}, {'with' if noise else 'without'} noise"
            rows += [
                {"programs": pair, "noise": noise, **row}
                for row in measured(setup, lenet, batches, size, what)
            ]
    return rows


def _native_and_minimal(
    setup: Setup, network: Factory, batches: Sequence[Batch], size: Size, what: str
) -> list[Row]:
    volume = estimate_volume(
        network,
        batches,
        draws=size.draws,
        precisions=PRECISIONS,
        operations=["max_pool"],
        lifted=False,
        device=setup.device,
        out=setup.work / f"{_file(what)}-{size}.jsonl",
        network_name="lenet5",
        data_name="mnist",
        on_point=partial(setup.on_progress, what),
    )
    return [_row(p.precision, p.draw, p.batch, p.variation) for p in volume.points]


def _native_twice(
    setup: Setup, network: Factory, batches: Sequence[Batch], size: Size, what: str
) -> list[Row]:
    rows: list[Row] = []
    for draw in range(size.draws):
        setup.on_progress(what, draw, size.draws)
        rows += kept(
            setup,
            f"{what} {size} {draw}",
            partial(_one_draw, setup, network, batches, draw),
        )
    setup.on_progress(what, size.draws, size.draws)
    return rows


def _one_draw(setup: Setup, network: Factory, batches: Sequence[Batch], draw: int) -> list[Row]:
    model = drawn(network, draw)
    return [
        _row(precision, draw, batch, repeated(model, pair, precision, setup.device))
        for batch, pair in enumerate(batches)
        for precision in PRECISIONS
    ]


def _row(precision: str, draw: int, batch: int, variation: Variation) -> Row:
    return {"precision": precision, "draw": draw, "batch": batch, "variation": variation.l1}


def _file(what: str) -> str:
    return what.replace(",", "").replace(" ", "-")


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Points, those with D = 0, and the least, middle and largest finite D, by group.

    >>> row = {"programs": "native twice", "noise": False, "precision": "float32"}
    >>> [(f["zero"], f["median"]) for f in summarise([{**row, "variation": d} for d in (0.0, 2.0)])]
    [(1, 1.0)]
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["programs"], row["noise"], row["precision"]), []).append(row)
    found: list[Row] = []
    for group in groups.values():
        every = [float(row["variation"] or 0) for row in group]
        values = sorted(value for value in every if math.isfinite(value)) or [math.nan]
        found.append(
            {
                "programs": group[0]["programs"],
                "noise": group[0]["noise"],
                "precision": group[0]["precision"],
                "points": len(every),
                "zero": values.count(0.0),
                "least": values[0],
                "median": float(np.median(values)),
                "largest": values[-1],
                "threshold": PUBLISHED_THRESHOLDS[str(group[0]["precision"])],
            }
        )
    return found


def draw(rows: Sequence[Row]) -> Figure:
    """A panel for each pair of programs, with and without noise; a histogram for each precision."""
    panels = list(dict.fromkeys((row["programs"], row["noise"]) for row in rows))
    precisions = list(dict.fromkeys(str(row["precision"]) for row in rows))
    known = [math.log10(d) for row in rows if 0 < (d := float(row["variation"] or 0)) < math.inf]
    low, high = math.floor(min(known, default=-1)), math.ceil(max(known, default=0)) + 1
    zero = low - 1.5  # the place of D = 0, which has no logarithm
    edges = np.arange(low, high, 0.25)
    figure = Figure(figsize=(6.4, 0.8 + 1.35 * len(panels)))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (programs, noise) in zip(grid, panels, strict=True):
        for number, precision in enumerate(precisions):
            values = [
                float(row["variation"] or 0)
                for row in rows
                if (row["programs"], row["noise"], row["precision"]) == (programs, noise, precision)
            ]
            style = {"color": INKS[number], "hatch": HATCHES[number], "edgecolor": "white"}
            place = zero + 0.3 * (number - 1.5)
            axes.bar(place, values.count(0.0), 0.3, label=precision, **style)
            axes.hist(
                [math.log10(d) for d in values if 0 < d < math.inf], edges, alpha=0.8, **style
            )
        here = [row for row in rows if (row["programs"], row["noise"]) == (programs, noise)]
        lost = sum(not math.isfinite(float(row["variation"] or 0)) for row in here)
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
    cost="10,000 points at four precisions, with and without noise, twice; about 5 hours on one "
    "core (an estimate)",
    cost_reduced="30 points at four precisions, with and without noise, twice; about a minute on "
    "one core",
    measure=measure,
    draw=draw,
    summarise=summarise,
    reduced_cannot="The reduced run shows where each histogram lies, not its tails.",
)
