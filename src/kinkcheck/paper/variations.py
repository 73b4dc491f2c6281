"""[B24], section 3: histograms of the gradient variation by precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure

from kinkcheck import data
from kinkcheck.audit.published import with_input_noise
from kinkcheck.audit.volume import estimate_volume
from kinkcheck.audit.zones import PUBLISHED_THRESHOLDS
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.paper.gradients import Batch, Network, repeated, take
from kinkcheck.paper.style import HATCHES, INKS

PRECISIONS = ("float16", "bfloat16", "float32", "float64")
_SAME, _DIFFERENT = "native twice", "native and minimal"
_SIZE = 128  # images in a mini-batch


def measure(setup: Setup, size: tuple[int, int] | None = None) -> list[Row]:
    """D (l1) of LeNet-5 at every point, with and without input noise, for two pairs of programs.

    Two programs with the same backward pass are one program that runs twice from its start.

    Args:
        setup: where.
        size: parameter draws and mini-batches.
    """
    draws, batches = size or ((5, 6) if setup.reduced else (100, 100))
    images = data.load("mnist", "train", data_dir=setup.data_dir)
    clean = take(images, _SIZE, batches)
    lenet = Network("lenet5")
    rows: list[Row] = []
    for noise in (False, True):
        given = with_input_noise(clean) if noise else clean
        where = f"lenet5, {'noise' if noise else 'no noise'}"
        for pair, points in (
            (_DIFFERENT, _different(setup, lenet, images, given, draws, where)),
            (_SAME, _same(setup, lenet, images, given, draws, where)),
        ):
            rows += [
                {
                    "programs": pair, "noise": noise, "precision": precision, "draw": draw,
                    "batch": batch, "variation": variation,
                }
                for precision, draw, batch, variation in points
            ]  # fmt: skip
    return rows


_Found = tuple[str, int, int, float]


def _different(
    setup: Setup, network: Network, images: data.Images, given: list[Batch], draws: int, where: str
) -> list[_Found]:
    volume = estimate_volume(
        partial(network.build, images),
        given,
        draws=draws,
        precisions=PRECISIONS,
        operations=["max_pool"],
        lifted=False,
        device=setup.device,
        out=setup.work / f"{where.replace(', ', '-').replace(' ', '-')}.jsonl",
        network_name=network.name,
        data_name=images.name,
        on_point=lambda done, total: setup.on_progress(where, done, total),
    )
    return [(p.precision, p.draw, p.batch, p.variation.l1) for p in volume.points]


def _same(
    setup: Setup, network: Network, images: data.Images, given: list[Batch], draws: int, where: str
) -> list[_Found]:
    found, total = [], draws * len(given) * len(PRECISIONS)
    for draw in range(draws):
        torch.manual_seed(draw)
        model = network.build(images)
        for batch, pair in enumerate(given):
            for precision in PRECISIONS:
                variation = repeated(model, pair, precision, setup.device)
                found.append((precision, draw, batch, variation.l1))
                setup.on_progress(f"{where}, {_SAME}", len(found), total)
    return found


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Points, those with D = 0, and the least, middle and largest D, by group.

    >>> row = {"programs": "native twice", "noise": False, "precision": "float32"}
    >>> [(f["zero"], f["median"]) for f in summarise([{**row, "variation": d} for d in (0.0, 2.0)])]
    [(1, 1.0)]
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["programs"], row["noise"], row["precision"]), []).append(row)
    found: list[Row] = []
    for group in groups.values():
        values = sorted(float(row["variation"] or 0) for row in group)
        found.append(
            {
                "programs": group[0]["programs"],
                "noise": group[0]["noise"],
                "precision": group[0]["precision"],
                "points": len(values),
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
        count = len(values)
        axes.set_title(f"{programs}, {'with' if noise else 'without'} noise; {count} points each")
        axes.set_ylabel("points")
        for precision in precisions:
            axes.axvline(
                math.log10(PUBLISHED_THRESHOLDS[precision]), color="#000000", linestyle=":",
                linewidth=0.9,
            )  # fmt: skip
    ticks = range(low, high, max(1, (high - low) // 8))
    grid[-1].set_xticks([zero, *ticks], ["0", *map(str, ticks)])
    grid[-1].set_xlabel("log10 of D (l1); dotted: published thresholds")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return figure


VARIATION_HISTOGRAMS = Experiment(
    name="variation-histograms",
    source="B24, section 3: variation of LeNet-5, MNIST (the published 32-bit cell compares a "
    "program with itself)",
    shows="D by precision, with and without input noise, for equal and different backward passes",
    cost="10,000 points at four precisions, with and without noise, twice; about 8 hours on two "
    "cores",
    cost_reduced="30 points at four precisions, with and without noise, twice; about 2 minutes",
    measure=measure,
    draw=draw,
    summarise=summarise,
    reduced_cannot="The reduced run shows where each histogram lies, not its tails.",
)
