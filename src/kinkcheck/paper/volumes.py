"""[B24], section 3: how many points lie beyond the threshold, by precision and by architecture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from matplotlib.figure import Figure

from kinkcheck import data
from kinkcheck.audit.intervals import clopper_pearson
from kinkcheck.audit.published import FACTORS, Setting, volumes
from kinkcheck.measure.zones import Zone
from kinkcheck.paper import published_values
from kinkcheck.paper.comparison import Comparison, of_intervals
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.report.ink import HATCHES, INKS

_BITS = {"16": "float16", "32": "float32", "64": "float64"}
_TRAINED_ON = 50_000  # images of CIFAR-10

Plan = Mapping[Setting, int | None]
"""How many mini-batches each setting takes; None for as many whole ones as the images make."""


def measure(setup: Setup, plan: Plan) -> list[Row]:
    """The share of points above the published threshold, one row a setting and precision.

    Args:
        setup: where; ``setup.reduced`` is not looked at.
        plan: what is measured.
    """
    images = data.load("cifar10", "train", data_dir=setup.data_dir)
    rows: list[Row] = []
    for setting, batches in plan.items():
        ((_, volume),) = volumes(
            [setting],
            images,
            batches=batches,
            lifted=False,
            device=setup.device,
            out=setup.work,
            on_point=lambda at, done, total: setup.on_progress(
                title(at.network, at.factor, at.value), done, total
            ),
        )
        for summary in volume.summaries:
            share = summary.zones_by_threshold[Zone.BIFURCATION]
            low, high = share.interval
            rows.append(
                {
                    "factor": setting.factor,
                    "value": setting.value,
                    "network": setting.network,
                    "precision": summary.precision,
                    "threshold": summary.threshold,
                    "points": summary.points,
                    "above": share.count,
                    "percent": 100 * share.proportion,
                    "low": 100 * low,
                    "high": 100 * high,
                }
            )
    return rows


def title(network: object, factor: object, value: object) -> str:
    """A setting in words.

    >>> title("vgg11", "batch_size", 64)
    'vgg11, batch size 64'
    """
    if factor == "network":
        return str(network)
    return f"{network}, {str(factor).replace('_', ' ')} {value}"


def draw(rows: Sequence[Row], xlabel: str) -> Figure:
    """Bars by precision with their intervals, a group for each value of the factor."""
    values = list(dict.fromkeys(row["value"] for row in rows))
    precisions = list(dict.fromkeys(str(row["precision"]) for row in rows))
    figure = Figure(figsize=(1.6 + 0.9 * len(values) * len(precisions) / 2, 2.8))
    axes = figure.subplots()
    width = 0.8 / len(precisions)
    for number, precision in enumerate(precisions):
        found = [row for row in rows if row["precision"] == precision]
        places = [values.index(row["value"]) + (number + 0.5) * width - 0.4 for row in found]
        heights = [float(row["percent"] or 0) for row in found]
        below = [h - float(r["low"] or 0) for h, r in zip(heights, found, strict=True)]
        above = [float(r["high"] or 0) - h for h, r in zip(heights, found, strict=True)]
        axes.bar(
            places, heights, width * 0.92, yerr=(below, above), capsize=2, label=precision,
            color=INKS[number], hatch=HATCHES[number], edgecolor="white",
            error_kw={"linewidth": 0.8, "ecolor": "#555555"},
        )  # fmt: skip
    axes.set_xticks(range(len(values)), [str(value) for value in values])
    axes.set_xlabel(xlabel)
    axes.set_ylabel("points above the threshold, %")
    axes.set_ylim(0, 105)
    points = sorted({int(row["points"] or 0) for row in rows})
    counts = f"{points[0]}-{points[-1]}" if len(points) > 1 else f"{points[0]}"
    networks = sorted({str(row["network"]) for row in rows})
    axes.set_title(f"{counts} points a bar" + (f"; {networks[0]}" if len(networks) == 1 else ""))
    axes.legend()
    return figure


def published_shares() -> dict[tuple[str, str, str], tuple[float, float, float]]:
    """Published shares above the threshold with their intervals, in percent.

    The intervals are Clopper and Pearson's for one pass over the 50,000 training images. The
    published notebook says so of one share (216 of 391 mini-batches); of the bar charts it is taken
    for granted.

    Returns:
        Share, low and high by factor, value in lower case, and precision.

    >>> [round(value, 1) for value in published_shares()["precision", "vgg11", "float32"]]
    [55.2, 50.2, 60.2]
    """
    found = {}
    for row in published_values.table("bifurcation_volumes"):
        factor, value, share = row["factor"], row["value"], float(row["proportion_percent"])
        points = math.ceil(_TRAINED_ON / (int(value) if factor == "batch_size" else 128))
        low, high = clopper_pearson(round(share / 100 * points), points).interval
        key = factor, value.lower(), _BITS[row["precision_bits"]]
        found[key] = share, 100 * low, 100 * high
    return found


def compare(rows: Sequence[Row], factor: str) -> list[Comparison]:
    """Beside the published shares of a factor."""
    published = published_shares()
    return [
        of_intervals(
            f"{row['value']}, {row['precision']}: % above",
            (float(row["percent"] or 0), float(row["low"] or 0), float(row["high"] or 0)),
            published[factor, str(row["value"]).lower(), str(row["precision"])],
        )
        for row in rows
    ]


_CANNOT = (
    "The reduced run takes mini-batches of a sample of 5,000 images at one parameter draw; its "
    "intervals say how far that reaches. Published: 391 mini-batches of the whole training set."
)

VOLUME_BY_PRECISION = Experiment(
    name="volume-by-precision",
    source="B24, section 3: volumes of VGG-11, CIFAR-10",
    shows="the share of points above the threshold at 16, 32 and 64 bits",
    cost="391 points at three precisions; about 35 minutes on two cores (an estimate)",
    cost_reduced="39 points at three precisions; 10 minutes on two cores",
    measure=partial(measure, plan={Setting("network"): None}),
    draw=partial(draw, xlabel="network"),
    compare=partial(compare, factor="precision"),
    reduced_cannot=_CANNOT,
)


def _planned(setup: Setup, full: Plan, reduced: Plan) -> list[Row]:
    return measure(setup, reduced if setup.reduced else full)


_DEPTHS = FACTORS["network"]

VOLUME_BY_DEPTH = Experiment(
    name="volume-by-depth",
    source="B24, section 3: volumes of VGG 11, 13, 16, 19, CIFAR-10",
    shows="the share of points above the threshold as the network gets deeper",
    cost="391 points at three precisions for each of four networks; about 5 hours on two cores "
    "(an estimate)",
    cost_reduced="8 points at three precisions for VGG-11, 4 for each other; 10 minutes on one "
    "busy core",
    measure=partial(
        _planned,
        full=dict.fromkeys(_DEPTHS),
        reduced=dict(zip(_DEPTHS, (8, 4, 4, 4), strict=True)),
    ),
    draw=partial(draw, xlabel="network"),
    compare=partial(compare, factor="network"),
    reduced_cannot=_CANNOT,
)

# The paper says VGG-11; the published script that drew the bars builds VGG-19.
_AS_RUN = tuple(replace(setting, network="vgg19") for setting in FACTORS["batch_size"])

VOLUME_BY_BATCH_SIZE = Experiment(
    name="volume-by-batch-size",
    source="B24, section 3: volumes by batch size, CIFAR-10",
    shows="the share of points above the threshold as mini-batches get larger; "
    "VGG-19 at full size, as the published code has it, VGG-11, as the paper says, reduced",
    cost="48 to 781 points at three precisions for each of four batch sizes of VGG-19; about 10 "
    "hours on two cores (an estimate)",
    cost_reduced="8, 4, 2 and 1 points at three precisions, VGG-11; 9 minutes on one busy core",
    measure=partial(
        _planned,
        full=dict.fromkeys(_AS_RUN),
        reduced=dict(zip(FACTORS["batch_size"], (8, 4, 2, 1), strict=True)),
    ),
    draw=partial(draw, xlabel="images in a mini-batch"),
    compare=partial(compare, factor="batch_size"),
    reduced_cannot=f"{_CANNOT} The published bars are of VGG-19, which the reduced run does not "
    "measure: it can only show which way the share goes.",
)

VOLUME_BY_BATCH_NORM = Experiment(
    name="volume-by-batch-norm",
    source="B24, section 3: volumes with and without batch norm, VGG-11, CIFAR-10",
    shows="the share of points above the threshold without and with batch norm",
    cost="391 points at three precisions, twice; about 80 minutes on two cores (an estimate)",
    cost_reduced="8 points at three precisions, twice; 11 minutes on one busy core",
    measure=partial(
        _planned,
        full=dict.fromkeys(FACTORS["batch_norm"]),
        reduced=dict.fromkeys(FACTORS["batch_norm"], 8),
    ),
    draw=partial(draw, xlabel="batch norm"),
    compare=partial(compare, factor="batch_norm"),
    reduced_cannot=_CANNOT,
)
