"""[B24], section 3: the variation of norm pooling, and its threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure
from torch import nn

from kinkcheck.audit.volume import estimate_volume
from kinkcheck.data import Images
from kinkcheck.measure.zones import PUBLISHED_THRESHOLDS
from kinkcheck.paper.harness.case import Case, Network, Size, replaced
from kinkcheck.paper.harness.comparison import Comparison
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.gradients import largest
from kinkcheck.paper.harness.rows import Line, by
from kinkcheck.report.ink import INKS, MARKERS

PRECISIONS = ("float16", "bfloat16", "float32", "float64")
_ONES = "branch:1"
_ON_THE_SPHERE = "branch:0.5"  # 1/√4 for each of the four entries of a window


@dataclass(frozen=True)
class Row:
    """A point and a vector in place of 0.

    Attributes:
        precision: name.
        draw, batch: of the point.
        selection: the vector, as a selection.
        variation: D (l1) between it and 0.
        noise_floor: D (l1) between two runs that are equal over the reals; None where samples
            cannot be ordered otherwise.
        gradient: the l1 norm of the gradient under 0.
        by_lift: the zone, judged by the lift.
    """

    precision: str
    draw: int
    batch: int
    selection: str
    variation: float
    noise_floor: float | None
    gradient: float
    by_lift: str


class NormPooled(Network):
    """A network with the 2-norm of each window in the place of its maximum.

    >>> from kinkcheck.data import load
    >>> NormPooled("lenet5").build(load("mnist-sample")).features[2]
    LPPool2d(norm_type=2.0, kernel_size=2, stride=2, ceil_mode=False)
    """

    def build(self, images: Images) -> nn.Module:
        """The network for a set of images."""
        return replaced(
            super().build(images),
            nn.MaxPool2d,
            lambda pool: nn.LPPool2d(2.0, pool.kernel_size, pool.stride),
        )


_LENET = NormPooled("lenet5", init="kaiming")  # as published, unlike max pooling's
_FULL, _REDUCED = Case(_LENET, "mnist", Size(30, 30)), Case(_LENET, "mnist", Size(3, 4))


def measure(setup: Setup, case: Case | None = None) -> list[Row]:
    """D at every point between 0 and two vectors as the derivative of the norm at 0.

    The published vector of ones lies outside of the unit ball, which is the subdifferential; half
    of it lies on the sphere.

    Args:
        setup: where.
        case: what is measured; by default the reduced or the full size.
    """
    case = case or (_REDUCED if setup.reduced else _FULL)
    images = case.images(setup.data_dir)
    volume = estimate_volume(
        case.factory(images),
        case.batches(images),
        draws=case.size.draws,
        precisions=PRECISIONS,
        selections=[_ONES, _ON_THE_SPHERE],
        operations=["norm_pool"],
        standing=False,
        device=setup.device,
        out=setup.work / f"{case.size}.jsonl",
        network_name="lenet5-norm-pool",
        data_name=images.name,
        executor=setup.measures,
        on_point=partial(setup.on_progress, "lenet5, norm pooling"),
    )
    return [
        Row(
            precision=point.precision,
            draw=point.draw,
            batch=point.batch,
            selection=point.selection,
            variation=point.variation.l1,
            noise_floor=point.noise.l1 if point.noise else None,
            gradient=point.gradient_l1,
            by_lift=str(point.zone),
        )
        for point in volume.points
    ]


def summarise(rows: Sequence[Row]) -> list[Line]:
    """Of every precision and selection the points with D = 0, and the largest D and noise floor.

    >>> row = Row("float32", 0, 0, "branch:1", 0.0, 1e-7, 2.0, "agreement")
    >>> [found["zero"] for found in summarise([row])]
    [1]
    """
    return [
        {
            "precision": precision,
            "selection": selection,
            "points": len(group),
            "zero": sum(row.variation == 0 for row in group),
            "largest": largest(row.variation for row in group),
            "noise_floor": largest(known) if (known := _floors(group)) else None,
            "published_threshold": PUBLISHED_THRESHOLDS[precision],
        }
        for (precision, selection), group in by(
            rows, lambda row: (row.precision, row.selection)
        ).items()
    ]


def _floors(rows: Sequence[Row]) -> list[float]:
    return [row.noise_floor for row in rows if row.noise_floor is not None]


_PUBLISHED = 2.0**-23
"""The least D that is not 0 at 16 bits over 100 draws, an output of the published notebook."""


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """The least D that is not 0 at 16 bits; it came without an interval."""
    values = [
        row.variation
        for row in rows
        if (row.precision, row.selection) == ("float16", _ONES) and row.variation > 0
    ]
    if not values:
        return []
    return [Comparison("lenet5, mnist, float16: least D that is not 0", min(values), _PUBLISHED)]


def draw(rows: Sequence[Row]) -> Figure:
    """D of every point and its noise floor by precision; D = 0 at the foot."""
    precisions = list(dict.fromkeys(row.precision for row in rows))
    known = [*(row.variation for row in rows), *_floors(rows)]
    foot = min((value for value in known if 0 < value < math.inf), default=1e-3) / 100
    figure = Figure(figsize=(5.6, 3.2))
    axes = figure.subplots()
    ones, half = ([row for row in rows if row.selection == one] for one in (_ONES, _ON_THE_SPHERE))
    series = {
        "D, vector of ones against 0": [(row.precision, row.variation) for row in ones],
        "D, half of it against 0": [(row.precision, row.variation) for row in half],
        "noise floor": [(r.precision, r.noise_floor) for r in ones if r.noise_floor is not None],
    }
    for number, (label, here) in enumerate(series.items()):
        axes.plot(
            [precisions.index(precision) + 0.2 * (number - 1) for precision, _ in here],
            [value if value else foot for _, value in here],
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
    points = len({(row.draw, row.batch) for row in rows})
    axes.set_title(f"LeNet-5 with norm pooling, MNIST; {points} points a precision")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


NORM_POOL = Experiment(
    name="norm-pool",
    source="B24, section 3: NormPool",
    shows="the variation between derivatives of the 2-norm at 0, and the noise floor; the "
    "published derivative, a vector of ones, lies outside the unit ball",
    cost=Cost("900 points at four precisions", "about 30 min", "1 core", ("mnist",)),
    cost_reduced=Cost("12 points at four precisions", "30 s", "1 core", ("mnist",), measured=True),
    row=Row,
    measure=measure,
    spreads=True,
    draw=draw,
    compare=compare,
    summarise=summarise,
    reduced_cannot="The reduced run shows in which precisions norms of 0 matter at all, not how "
    "often. Where only float16 sees them, squares have underflowed: the entries are not 0. The "
    "least D of 12 points lies above the least of 46,900.",
)
