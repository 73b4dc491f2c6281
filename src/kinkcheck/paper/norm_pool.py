"""[B24], section 3: the variation of norm pooling, and its threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from matplotlib.figure import Figure
from torch import nn

from kinkcheck import data
from kinkcheck.audit.volume import estimate_volume
from kinkcheck.data import Images
from kinkcheck.measure.zones import PUBLISHED_THRESHOLDS
from kinkcheck.paper.comparison import Comparison
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.paper.gradients import Network, Size, largest, take
from kinkcheck.report.ink import INKS, MARKERS

PRECISIONS = ("float16", "bfloat16", "float32", "float64")
_ONES = "branch:1"
_ON_THE_SPHERE = "branch:0.5"  # 1/√4 for each of the four entries of a window
_FULL, _REDUCED = Size(30, 30), Size(3, 4)


def network(images: Images) -> nn.Module:
    """LeNet-5 with the 2-norm of each window in the place of its maximum.

    >>> from kinkcheck.data import load
    >>> network(load("mnist-sample")).features[2]
    LPPool2d(norm_type=2.0, kernel_size=2, stride=2, ceil_mode=False)
    """
    model = Network("lenet5", init="kaiming").build(images)  # as published, unlike max pooling's
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MaxPool2d):
                setattr(parent, name, nn.LPPool2d(2.0, child.kernel_size, child.stride))
    return model


def measure(setup: Setup, size: Size | None = None) -> list[Row]:
    """D at every point between 0 and two vectors as the derivative of the norm at 0.

    The published vector of ones lies outside of the unit ball, which is the subdifferential; half
    of it lies on the sphere.

    Args:
        setup: where.
        size: by default the reduced or the full one.
    """
    size = size or (_REDUCED if setup.reduced else _FULL)
    images = data.load("mnist", "train", data_dir=setup.data_dir)
    volume = estimate_volume(
        partial(network, images),
        take(images, size.batch_size, size.batches),
        draws=size.draws,
        precisions=PRECISIONS,
        selections=[_ONES, _ON_THE_SPHERE],
        operations=["norm_pool"],
        device=setup.device,
        out=setup.work / f"{size}.jsonl",
        network_name="lenet5-norm-pool",
        data_name=images.name,
        on_point=partial(setup.on_progress, "lenet5, norm pooling"),
    )
    return [
        {
            "precision": point.precision,
            "draw": point.draw,
            "batch": point.batch,
            "selection": point.selection,
            "variation": point.variation.l1,
            "noise_floor": point.noise.l1 if point.noise else None,
            "gradient": point.gradient_l1,
            "by_lift": str(point.zone),
        }
        for point in volume.points
    ]


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Of every precision and selection the points with D = 0, and the largest D and noise floor.

    >>> row = {"precision": "float32", "selection": "branch:1", "noise_floor": 1e-7}
    >>> [found["zero"] for found in summarise([{**row, "variation": 0.0}])]
    [1]
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(row["precision"]), str(row["selection"])), []).append(row)
    return [
        {
            "precision": precision,
            "selection": selection,
            "points": len(group),
            "zero": sum(row["variation"] == 0 for row in group),
            "largest": largest(float(row["variation"] or 0) for row in group),
            "noise_floor": largest(float(row["noise_floor"] or 0) for row in group),
            "published_threshold": PUBLISHED_THRESHOLDS[precision],
        }
        for (precision, selection), group in groups.items()
    ]


_PUBLISHED = 2.0**-23
"""The least D that is not 0 at 16 bits over 100 draws, an output of the published notebook."""


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """The least D that is not 0 at 16 bits; it came without an interval."""
    values = [
        d
        for row in rows
        if (row["precision"], row["selection"]) == ("float16", _ONES)
        and (d := float(row["variation"] or 0)) > 0
    ]
    if not values:
        return []
    return [Comparison("lenet5, mnist, float16: least D that is not 0", min(values), _PUBLISHED)]


def draw(rows: Sequence[Row]) -> Figure:
    """D of every point and its noise floor by precision; D = 0 at the foot."""
    precisions = list(dict.fromkeys(str(row["precision"]) for row in rows))
    known = [
        value
        for row in rows
        for column in ("variation", "noise_floor")
        if 0 < (value := float(row[column] or 0)) < math.inf
    ]
    foot = min(known, default=1e-3) / 100
    figure = Figure(figsize=(5.6, 3.2))
    axes = figure.subplots()
    series = [
        ("variation", _ONES, "D, vector of ones against 0"),
        ("variation", _ON_THE_SPHERE, "D, half of it against 0"),
        ("noise_floor", _ONES, "noise floor"),
    ]
    for number, (column, selection, label) in enumerate(series):
        here = [row for row in rows if row["selection"] == selection]
        axes.plot(
            [precisions.index(str(row["precision"])) + 0.2 * (number - 1) for row in here],
            [float(row[column] or 0) or foot for row in here],
            MARKERS[number], color=INKS[number], markersize=4, alpha=0.6, label=label,
        )  # fmt: skip
    for place, precision in enumerate(precisions):
        axes.hlines(
            PUBLISHED_THRESHOLDS[precision], place - 0.4, place + 0.4, color="#000000",
            linestyle="--", linewidth=1, label="" if place else "published τ",
        )  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: "0" if value < 2 * foot else f"{value:g}")
    axes.set_yticks([foot, *(10.0**k for k in range(-18, 3, 3) if 10.0**k > 2 * foot)])
    axes.minorticks_off()
    axes.set_xticks(range(len(precisions)), precisions)
    axes.set_ylabel("distance of two gradients, l1")
    points = len({(row["draw"], row["batch"]) for row in rows})
    axes.set_title(f"LeNet-5 with norm pooling, MNIST; {points} points a precision")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


NORM_POOL = Experiment(
    name="norm-pool",
    source="B24, section 3: NormPool",
    shows="the variation between derivatives of the 2-norm at 0, and the noise floor; the "
    "published derivative, a vector of ones, lies outside the unit ball",
    cost="900 points at four precisions; about 30 minutes on one core (an estimate)",
    cost_reduced="12 points at four precisions; half a minute on one core",
    measure=measure,
    draw=draw,
    compare=compare,
    summarise=summarise,
    reduced_cannot="The reduced run shows in which precisions norms of 0 matter at all, not how "
    "often. Where only float16 sees them, squares have underflowed: the entries are not 0. The "
    "least D of 12 points lies above the least of 46,900.",
)
