"""Ours: what the threshold of [B24] calls a bifurcation, judged by the lift."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure, SubFigure

from kinkcheck.audit.intervals import estimate
from kinkcheck.measure.zones import PUBLISHED_THRESHOLDS, Zone
from kinkcheck.paper.experiments.volumes import (
    CHARTS,
    Bar,
    estimated,
    few,
    published_shares,
    title,
)
from kinkcheck.paper.harness.case import Case, Network, Size
from kinkcheck.paper.harness.comparison import Comparison, of_intervals
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.rows import Line, by, line
from kinkcheck.report.ink import HATCHES, INKS

_NARROW = ("float16", "bfloat16", "float32")


def _lenet(draws: int, batches: int) -> Bar:
    network = Network("lenet5", init="kaiming")
    return Bar("network", Case(network, "mnist", Size(draws, batches)), _NARROW)


def _two(bars: Sequence[Bar]) -> list[Bar]:
    return [replace(bar, precisions=_NARROW[::2]) for bar in bars]


# VGG-11 without batch norm is there already: counted twice it would weigh double.
_VGG = [bar for chart in CHARTS.values() for bar in chart if bar.value is not False]
_FULL = (*_VGG, _lenet(30, 30))
_REDUCED = (
    _lenet(8, 12),
    *few(CHARTS["network"][:1], 8),
    *_two(few(CHARTS["batch_norm"][1:], 4)),
    *_two(few(CHARTS["batch_size"][:1], 4)),  # larger ones take more memory
    *_two(few(CHARTS["network"][1:], 2, 2, 2)),
)


@dataclass(frozen=True)
class Row:
    """A point under two judges.

    Attributes:
        factor: what the chart varies that has this bar.
        value: its value.
        network: name.
        data: the image set.
        precision: name.
        draw, batch: of the point.
        variation: D, the sum over tensors of ∞-norms.
        by_threshold: the zone by the published threshold.
        by_lift: the zone by the lift.
        lift_in_noise_floors: what the lift moved, in noise floors; None where that is not known.
    """

    factor: str
    value: str | int | bool
    network: str
    data: str
    precision: str
    draw: int
    batch: int
    variation: float
    by_threshold: str
    by_lift: str
    lift_in_noise_floors: float | None = None

    @property
    def setting(self) -> str:
        """Which bar it is of, in words."""
        return title(self.network, self.factor, self.value)


def measure(setup: Setup, bars: Sequence[Bar] | None = None) -> list[Row]:
    """Every point with its variation, its zone by the threshold and its zone by the lift.

    Args:
        setup: where.
        bars: what is measured; by default the reduced or the full size.
    """
    return [
        Row(
            factor=bar.factor,
            value=bar.value,
            network=bar.case.network.name,
            data=bar.case.data,
            precision=point.precision,
            draw=point.draw,
            batch=point.batch,
            variation=point.variation.linf_by_tensor,
            by_threshold=str(point.zone_by_threshold),
            by_lift=str(point.zone),
            lift_in_noise_floors=point.lift.ratio if point.lift else None,
        )
        for bar in bars or (_REDUCED if setup.reduced else _FULL)
        for point in estimated(setup, bar, lifted=True).points
    ]


@dataclass(frozen=True)
class Split:
    """A rule "bifurcation if D > τ" on points whose zone is known.

    Attributes:
        threshold: τ.
        wrong: points that the rule puts into the other zone.
    """

    threshold: float
    wrong: int


def errors(threshold: float, compensation: Sequence[float], bifurcation: Sequence[float]) -> int:
    """How many points the rule "bifurcation if D > τ" gets wrong.

    Args:
        threshold: τ.
        compensation: D of the points that are compensation.
        bifurcation: D of the points that are bifurcation.

    >>> errors(2.0, [1.0, 3.0], [2.0, 4.0])
    2
    """
    return sum(d > threshold for d in compensation) + sum(d <= threshold for d in bifurcation)


def best_split(compensation: Iterable[float], bifurcation: Iterable[float]) -> Split:
    """The threshold with the fewest wrong points; of several the least.

    It is one of the D, or 0, below all of them: between two D the rule does not change.

    >>> best_split([1.0, 3.0], [2.0, 4.0, 5.0])
    Split(threshold=1.0, wrong=1)
    """
    no, yes = sorted(compensation), sorted(bifurcation)
    candidates = [0.0, *sorted({*no, *yes})]
    wrong = [
        len(no) - bisect.bisect_right(no, threshold) + bisect.bisect_right(yes, threshold)
        for threshold in candidates
    ]
    least = min(wrong)
    return Split(candidates[wrong.index(least)], least)


@dataclass(frozen=True)
class Judged:
    """What each judge says of the points of one setting, or of all settings, in one precision.

    Attributes:
        setting: in words, or ``all``.
        precision: name.
        points: how many.
        above: those above the published threshold.
        true: those of them that are bifurcation by the lift.
        true_percent: the share of these among those above; None where there are none, and for
            ``all``, since settings are no sample of anything.
        low, high: its 95 % interval, in percent.
        compensation, bifurcation: points in these zones by the lift: the judged ones.
        others: the rest.
        wrong: the share of judged points that the published threshold puts into the other zone, in
            percent; None where there are none.
        best_threshold: a threshold that was fitted to these very points: none does better on them.
        best_wrong: as ``wrong``, of that threshold.
    """

    setting: str
    precision: str
    points: int
    above: int
    true: int
    true_percent: float | None
    low: float | None
    high: float | None
    compensation: int
    bifurcation: int
    others: int
    wrong: float | None
    best_threshold: float | None
    best_wrong: float | None


def by_setting(rows: Sequence[Row]) -> list[Judged]:
    """What the judges say of every setting and precision, and of all settings of a precision.

    >>> row = Row("network", "vgg11", "vgg11", "cifar10", "float32", 0, 0, 1e-3, "bifurcation",
    ...           "compensation")
    >>> [(found.setting, found.above, found.true) for found in by_setting([row])]
    [('vgg11', 1, 0), ('all', 1, 0)]
    """
    groups = by(rows, lambda row: (row.setting, row.precision))
    whole = by(rows, lambda row: ("all", row.precision))
    return [_judged(*key, group) for key, group in (groups | whole).items()]


def _judged(setting: str, precision: str, group: Sequence[Row]) -> Judged:
    above = [row for row in group if row.by_threshold == Zone.BIFURCATION]
    true = sum(row.by_lift == Zone.BIFURCATION for row in above)
    low = high = true_percent = wrong = best_threshold = best_wrong = None
    if above and setting != "all":
        low, high = (100 * end for end in estimate(true, _cells(above)).interval)
        true_percent = 100 * true / len(above)
    no, yes = variations(group, Zone.COMPENSATION), variations(group, Zone.BIFURCATION)
    if judged := len(no) + len(yes):
        best = best_split(no, yes)
        wrong = 100 * errors(PUBLISHED_THRESHOLDS[precision], no, yes) / judged
        best_threshold, best_wrong = best.threshold, 100 * best.wrong / judged
    return Judged(
        setting, precision, len(group), len(above), true, true_percent, low, high, len(no),
        len(yes), len(group) - judged, wrong, best_threshold, best_wrong,
    )  # fmt: skip


def variations(rows: Sequence[Row], zone: Zone) -> list[float]:
    """D of the points that are in a zone by the lift."""
    return [row.variation for row in rows if row.by_lift == zone]


def _cells(rows: Sequence[Row]) -> list[tuple[int, int]]:
    return [(row.draw, row.batch) for row in rows]


def draw(rows: Sequence[Row]) -> Figure:
    """Above D of compensation and bifurcation, a panel a precision; below the shares by setting."""
    precisions = list(dict.fromkeys(row.precision for row in rows))
    judged = by_setting(rows)
    settings = list(dict.fromkeys(row.setting for row in rows))
    height = 1.1 + 0.24 * len(settings)
    figure = Figure(figsize=(1.6 + 2.2 * len(precisions), 3.0 + height))
    upper, lower = figure.subfigures(2, 1, height_ratios=(3.0, height), squeeze=False)[:, 0]
    _distributions(upper, rows, precisions, [each for each in judged if each.setting == "all"])
    panels = lower.subplots(1, len(precisions), sharey=True, squeeze=False)[0]
    for axes, precision in zip(panels, precisions, strict=True):
        for found in judged:
            if found.precision != precision or found.setting == "all":
                continue
            place = settings.index(found.setting)
            counts = {"above the published threshold": found.above}
            counts["and bifurcation by the lift"] = found.true
            for number, (label, count) in enumerate(counts.items()):
                axes.barh(
                    place + 0.4 * number - 0.2, 100 * count / found.points, 0.36,
                    color=INKS[2 - number], hatch=HATCHES[2 - number], edgecolor="white",
                    label=label if not axes.get_legend_handles_labels()[1][number:] else None,
                )  # fmt: skip
            axes.text(101, place, f"{found.points}", va="center", fontsize=7)
        axes.set_xlim(0, 118)
        axes.set_xticks([0, 50, 100])
        axes.set_xlabel("% of points")
    panels[0].set_yticks(range(len(settings)), settings)
    panels[0].set_ylim(len(settings) - 0.4, -0.6)
    lower.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def _distributions(
    figure: SubFigure, rows: Sequence[Row], precisions: Sequence[str], judged: Sequence[Judged]
) -> None:
    panels = figure.subplots(1, len(precisions), squeeze=False)[0]
    for axes, precision, found in zip(panels, precisions, judged, strict=True):
        here = [row for row in rows if row.precision == precision]
        by_zone = {
            zone: [math.log10(d) for d in variations(here, zone) if 0 < d < math.inf]
            for zone in (Zone.COMPENSATION, Zone.BIFURCATION)
        }
        published = math.log10(PUBLISHED_THRESHOLDS[precision])
        known = [*by_zone[Zone.COMPENSATION], *by_zone[Zone.BIFURCATION], published]
        edges = np.arange(math.floor(min(known)), math.ceil(max(known)) + 0.3, 0.25)
        for number, (zone, values) in enumerate(by_zone.items()):
            axes.hist(
                values, edges, color=INKS[2 - number], alpha=0.65, hatch=HATCHES[1 + number],
                edgecolor="white", label=f"{zone} by the lift ({len(values)})",
            )  # fmt: skip
        axes.axvline(published, color="#000000", linestyle="--", linewidth=1.2)
        lines = [precision]
        if found.wrong is not None:
            lines.append(f"published τ: {found.wrong:.0f} % wrong")
            lines.append(f"best τ: {found.best_wrong:.0f} % wrong")
        if found.best_threshold:
            best = math.log10(found.best_threshold)
            axes.axvline(best, color="#000000", linestyle=":", linewidth=1.2)
        axes.set_title("\n".join(lines), fontsize=8)
        axes.set_xlabel("log10 D")
        axes.legend(loc="upper left", fontsize=6)
        axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    panels[0].set_ylabel("points")


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """The share of bifurcation by the lift beside the published share above the threshold."""
    published = published_shares()
    groups = by(rows, lambda row: (row.factor, str(row.value).lower(), row.precision))
    found = []
    for key, group in groups.items():
        if key not in published:
            continue
        share = estimate(sum(row.by_lift == Zone.BIFURCATION for row in group), _cells(group))
        low, high = share.interval
        found.append(
            of_intervals(
                f"{group[0].setting}, {key[2]}: % bifurcation",
                (100 * share.proportion, 100 * low, 100 * high),
                published[key],
            )
        )
    return found


def summarise(rows: Sequence[Row]) -> list[Line]:
    """What :func:`by_setting` says."""
    return [line(each) for each in by_setting(rows)]


THRESHOLD_AGAINST_LIFT = Experiment(
    name="threshold-against-lift",
    source="kinkcheck, on the volumes of B24, section 3",
    shows="of the points above the threshold, how many are bifurcation by the lift, and how right "
    "a threshold of any value can be",
    cost=Cost(
        "390 points at three precisions for each VGG and for batch norm, 48 to 781 for "
        "each batch size, 900 for LeNet-5 on MNIST",
        "about 30 hours",
        "2 cores",
        ("cifar10", "mnist"),
    ),
    cost_reduced=Cost(
        "1 to 8 points of each setting, 96 for LeNet-5",
        "12 min",
        "1 busy core",
        ("cifar10", "mnist"),
        measured=True,
    ),
    row=Row,
    measure=measure,
    spreads=True,
    draw=draw,
    compare=compare,
    summarise=summarise,
    reduced_cannot="The reduced run can show whether points above the threshold are compensation; "
    "with few points of a setting it cannot rule out rare bifurcations there: the intervals say "
    "how rare. Published is the share above the threshold, ours the share of bifurcation by the "
    "lift: where they differ, the threshold does. The published bars by batch size are of VGG-19, "
    "ours of VGG-11, at 64 and 128 images: larger mini-batches take more memory.",
)
