"""[B24], section 3: how many points lie beyond the threshold, by precision and by architecture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.figure import Figure

from kinkcheck import data
from kinkcheck.audit.intervals import clopper_pearson
from kinkcheck.audit.published import Setting, volumes
from kinkcheck.audit.zones import Zone
from kinkcheck.paper import published_values
from kinkcheck.paper.comparison import Comparison, of_intervals
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.paper.style import HATCHES, INKS

_BITS = {"16": "float16", "32": "float32", "64": "float64"}


def measure(setup: Setup, settings: Sequence[Setting], batches: int | None) -> list[Row]:
    """The share of points above the published threshold, one row a setting and precision."""
    images = data.load("cifar10", "train", data_dir=setup.data_dir)
    rows: list[Row] = []
    for setting, volume in volumes(
        settings,
        images,
        batches=batches,
        lifted=False,
        device=setup.device,
        out=setup.work,
        on_point=lambda at, done, total: setup.on_progress(f"{at.factor} {at.value}", done, total),
    ):
        for summary in volume.summaries:
            share = summary.zones_by_threshold[Zone.BIFURCATION]
            low, high = share.interval
            rows.append(
                {
                    "factor": setting.factor,
                    "value": setting.value,
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
    axes.set_title(f"{points[0]}{f'-{points[-1]}' if len(points) > 1 else ''} points a bar")
    axes.legend()
    return figure


def compare(rows: Sequence[Row], factor: str) -> list[Comparison]:
    """Beside the published shares; the number of their points is 391 where one is known."""
    published = {
        (row["value"].lower(), _BITS[row["precision_bits"]]): float(row["proportion_percent"])
        for row in published_values.table("bifurcation_volumes")
        if row["factor"] == factor
    }
    found = []
    for row in rows:
        theirs = published[str(row["value"]).lower(), str(row["precision"])]
        interval = clopper_pearson(round(3.91 * theirs), 391).interval
        found.append(
            of_intervals(
                f"{row['value']}, {row['precision']}: % above",
                (float(row["percent"] or 0), float(row["low"] or 0), float(row["high"] or 0)),
                (theirs, 100 * interval[0], 100 * interval[1]),
            )
        )
    return found


_CANNOT = (
    "The reduced run takes the mini-batches of a sample of 5,000 images at one parameter draw; its "
    "intervals say how far that reaches. Published: 391 mini-batches of the whole training set."
)

VOLUME_BY_PRECISION = Experiment(
    name="volume-by-precision",
    source="B24, section 3: volumes of VGG-11, CIFAR-10",
    shows="the share of points above the threshold at 16, 32 and 64 bits",
    cost="391 points at three precisions; 35 minutes on two cores",
    cost_reduced="39 points at three precisions; 4 minutes on two cores",
    measure=lambda setup: measure(setup, [Setting("network")], None),
    draw=partial(draw, xlabel="network"),
    compare=partial(compare, factor="precision"),
    reduced_cannot=_CANNOT,
)
