"""[B24], section 3: how many points lie beyond the threshold, by precision and by architecture.

In the published notebooks images are cropped and flipped at random, in stored order; here they are
as :meth:`kinkcheck.data.Images.batches` shuffles them, without augmentation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from matplotlib.figure import Figure

from kinkcheck.audit.volume import Volume, estimate_volume
from kinkcheck.measure.zones import Zone
from kinkcheck.paper.harness import published_values
from kinkcheck.paper.harness.case import Case, Network, Size
from kinkcheck.paper.harness.comparison import Comparison, Share, of_intervals
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.report.ink import HATCHES, INKS

PRECISIONS = ("float16", "float32", "float64")
_BITS = {"16": "float16", "32": "float32", "64": "float64"}
_TRAINED_ON = 50_000  # images of CIFAR-10


@dataclass(frozen=True)
class Bar:
    """A bar of a published chart of volumes, or one like it.

    Attributes:
        factor: what the chart varies: ``network``, ``batch_size`` or ``batch_norm``.
        case: what is measured.
        precisions: names.
    """

    factor: str
    case: Case
    precisions: Sequence[str] = PRECISIONS

    @property
    def value(self) -> str | int | bool:
        """The value of the factor.

        >>> Bar("network", Case(vgg(13), "cifar10", Size(1, None))).value
        'vgg13'
        """
        network = self.case.network
        values: dict[str, str | int | bool] = {
            "network": network.name,
            "batch_size": self.case.size.batch_size,
            "batch_norm": network.batch_norm,
        }
        return values[self.factor]


def vgg(depth: int, batch_norm: bool = False) -> Network:
    """A VGG with Kaiming's parameters, as published.

    >>> vgg(11)
    Network(name='vgg11', batch_norm=False, init='kaiming')
    """
    return Network(f"vgg{depth}", batch_norm, "kaiming")


def _bar(factor: str, network: Network, batch_size: int = 128) -> Bar:
    return Bar(factor, Case(network, "cifar10", Size(1, None, batch_size)))


CHARTS: dict[str, tuple[Bar, ...]] = {
    "network": tuple(_bar("network", vgg(depth)) for depth in (11, 13, 16, 19)),
    "batch_size": tuple(_bar("batch_size", vgg(11), size) for size in (64, 256, 512, 1024)),
    "batch_norm": tuple(_bar("batch_norm", vgg(11, there)) for there in (False, True)),
}
"""The bars of each published chart; what is not varied is VGG-11, 128 images, no batch norm."""


def few(bars: Sequence[Bar], *batches: int) -> tuple[Bar, ...]:
    """Bars with so many mini-batches each.

    >>> [bar.case.size.batches for bar in few(CHARTS["batch_norm"], 8, 4)]
    [8, 4]
    """
    return tuple(
        replace(bar, case=replace(bar.case, size=bar.case.size._replace(batches=count)))
        for bar, count in zip(bars, batches, strict=True)
    )


def estimated(setup: Setup, bar: Bar, *, lifted: bool) -> Volume:
    """The volume of a bar: native against minimal max pooling.

    Args:
        setup: where; ``setup.reduced`` is not looked at.
        bar: what is measured.
        lifted: whether every point is also judged by the lift.

    Raises:
        InputError: the images are not there, or too few.
    """
    case = bar.case
    images = case.images(setup.data_dir)
    name = f"{case.network.name}-{case.size.batch_size}{'-bn' * case.network.batch_norm}"
    return estimate_volume(
        case.factory(images),
        case.batches(images),
        draws=case.size.draws,
        precisions=bar.precisions,
        operations=["max_pool"],
        lifted=lifted,
        standing=False,
        device=setup.device,
        out=setup.work / f"{name}.jsonl",
        network_name=name,
        data_name=images.name,
        executor=setup.measures,
        on_point=partial(setup.on_progress, title(case.network.name, bar.factor, bar.value)),
    )


@dataclass(frozen=True)
class Row:
    """A bar in one precision.

    Attributes:
        factor: what the chart varies.
        value: its value.
        network: name.
        precision: name.
        threshold: the published one; None where there is none.
        points: how many were measured.
        above: those of them above the threshold.
        percent: the share of these.
        low, high: its 95 % interval, in percent.
    """

    factor: str
    value: str | int | bool
    network: str
    precision: str
    threshold: float | None
    points: int
    above: int
    percent: float
    low: float
    high: float


def measure(setup: Setup, bars: Sequence[Bar]) -> list[Row]:
    """The share of points above the published threshold, one row a bar and precision.

    Args:
        setup: where; ``setup.reduced`` is not looked at.
        bars: what is measured.
    """
    rows: list[Row] = []
    for bar in bars:
        for summary in estimated(setup, bar, lifted=False).summaries:
            share = summary.zones_by_threshold[Zone.BIFURCATION]
            low, high = share.interval
            rows.append(
                Row(
                    factor=bar.factor,
                    value=bar.value,
                    network=bar.case.network.name,
                    precision=summary.precision,
                    threshold=summary.threshold,
                    points=summary.points,
                    above=share.count,
                    percent=100 * share.proportion,
                    low=100 * low,
                    high=100 * high,
                )
            )
    return rows


def title(network: str, factor: str, value: str | int | bool) -> str:
    """What a bar shows, in words.

    >>> title("vgg11", "batch_size", 64)
    'vgg11, batch size 64'
    """
    if factor == "network":
        return network
    return f"{network}, {factor.replace('_', ' ')} {value}"


def draw(rows: Sequence[Row], xlabel: str) -> Figure:
    """Bars by precision with their intervals, a group for each value of the factor."""
    values = list(dict.fromkeys(row.value for row in rows))
    precisions = list(dict.fromkeys(row.precision for row in rows))
    figure = Figure(figsize=(1.6 + 0.9 * len(values) * len(precisions) / 2, 2.8))
    axes = figure.subplots()
    width = 0.8 / len(precisions)
    for number, precision in enumerate(precisions):
        found = [row for row in rows if row.precision == precision]
        below = [row.percent - row.low for row in found]
        above = [row.high - row.percent for row in found]
        axes.bar(
            [values.index(row.value) + (number + 0.5) * width - 0.4 for row in found],
            [row.percent for row in found], width * 0.92, yerr=(below, above), capsize=2,
            label=precision, color=INKS[number], hatch=HATCHES[number], edgecolor="white",
            error_kw={"linewidth": 0.8, "ecolor": "#555555"},
        )  # fmt: skip
    axes.set_xticks(range(len(values)), [str(value) for value in values])
    axes.set_xlabel(xlabel)
    axes.set_ylabel("points above the threshold, %")
    axes.set_ylim(0, 105)
    points = sorted({row.points for row in rows})
    counts = f"{points[0]}-{points[-1]}" if len(points) > 1 else f"{points[0]}"
    networks = sorted({row.network for row in rows})
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
        _, low, high = Share.of(round(share / 100 * points), points).interval
        key = factor, value.lower(), _BITS[row["precision_bits"]]
        found[key] = share, low, high
    return found


def compare(rows: Sequence[Row], factor: str) -> list[Comparison]:
    """Beside the published shares of a factor."""
    published = published_shares()
    return [
        of_intervals(
            f"{row.value}, {row.precision}: % above",
            (row.percent, row.low, row.high),
            published[factor, str(row.value).lower(), row.precision],
        )
        for row in rows
    ]


def _planned(setup: Setup, full: Sequence[Bar], reduced: Sequence[Bar]) -> list[Row]:
    return measure(setup, reduced if setup.reduced else full)


_CANNOT = (
    "The reduced run takes few mini-batches at one parameter draw; its intervals say how far that "
    "reaches. Published: all mini-batches of the training set, 391 of 128 images."
)

VOLUME_BY_PRECISION = Experiment(
    name="volume-by-precision",
    source="B24, section 3: volumes of VGG-11, CIFAR-10",
    shows="the share of points above the threshold at 16, 32 and 64 bits",
    cost=Cost("390 points at three precisions", "about 35 min", "2 cores", ("cifar10",)),
    cost_reduced=Cost(
        "39 points at three precisions",
        "7 min",
        "1 busy core",
        ("cifar10",),
        measured=True,
    ),
    row=Row,
    measure=partial(_planned, full=CHARTS["network"][:1], reduced=few(CHARTS["network"][:1], 39)),
    spreads=True,
    draw=partial(draw, xlabel="network"),
    compare=partial(compare, factor="precision"),
    reduced_cannot=_CANNOT,
)


VOLUME_BY_DEPTH = Experiment(
    name="volume-by-depth",
    source="B24, section 3: volumes of VGG 11, 13, 16, 19, CIFAR-10",
    shows="the share of points above the threshold as the network gets deeper",
    cost=Cost(
        "390 points at three precisions for each of four networks",
        "about 5 hours",
        "2 cores",
        ("cifar10",),
    ),
    cost_reduced=Cost(
        "8 points at three precisions for VGG-11, 4 for each other",
        "6 min",
        "1 busy core",
        ("cifar10",),
        measured=True,
    ),
    row=Row,
    measure=partial(_planned, full=CHARTS["network"], reduced=few(CHARTS["network"], 8, 4, 4, 4)),
    spreads=True,
    draw=partial(draw, xlabel="network"),
    compare=partial(compare, factor="network"),
    reduced_cannot=_CANNOT,
)

# The paper says VGG-11; the published script that drew the bars builds VGG-19.
_AS_RUN = [replace(bar, case=replace(bar.case, network=vgg(19))) for bar in CHARTS["batch_size"]]

VOLUME_BY_BATCH_SIZE = Experiment(
    name="volume-by-batch-size",
    source="B24, section 3: volumes by batch size, CIFAR-10",
    shows="the share of points above the threshold as mini-batches get larger; "
    "VGG-19 at full size, as the published code has it, VGG-11, as the paper says, reduced",
    cost=Cost(
        "48 to 781 points at three precisions for each of four batch sizes of VGG-19",
        "about 10 hours",
        "2 cores",
        ("cifar10",),
    ),
    cost_reduced=Cost(
        "8, 4, 2 and 1 points at three precisions, VGG-11",
        "8 min",
        "1 busy core",
        ("cifar10",),
        measured=True,
    ),
    row=Row,
    measure=partial(_planned, full=_AS_RUN, reduced=few(CHARTS["batch_size"], 8, 4, 2, 1)),
    spreads=True,
    draw=partial(draw, xlabel="images in a mini-batch"),
    compare=partial(compare, factor="batch_size"),
    reduced_cannot=f"{_CANNOT} The published bars are of VGG-19, which the reduced run does not "
    "measure: it can only show which way the share goes.",
)

VOLUME_BY_BATCH_NORM = Experiment(
    name="volume-by-batch-norm",
    source="B24, section 3: volumes with and without batch norm, VGG-11, CIFAR-10",
    shows="the share of points above the threshold without and with batch norm",
    cost=Cost("390 points at three precisions, twice", "about 80 min", "2 cores", ("cifar10",)),
    cost_reduced=Cost(
        "8 points at three precisions, twice",
        "3 min",
        "1 busy core",
        ("cifar10",),
        measured=True,
    ),
    row=Row,
    measure=partial(_planned, full=CHARTS["batch_norm"], reduced=few(CHARTS["batch_norm"], 8, 8)),
    spreads=True,
    draw=partial(draw, xlabel="batch norm"),
    compare=partial(compare, factor="batch_norm"),
    reduced_cannot=_CANNOT,
)
