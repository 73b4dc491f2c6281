"""Ours: what the threshold of [B24] calls a bifurcation, judged by the lift."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure, SubFigure

from kinkcheck import data
from kinkcheck.audit.intervals import estimate
from kinkcheck.audit.published import FACTORS, PRECISIONS, Setting, volumes
from kinkcheck.measure.zones import PUBLISHED_THRESHOLDS, Zone
from kinkcheck.paper.comparison import Comparison, of_intervals
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.paper.volumes import published_shares, title
from kinkcheck.report.ink import HATCHES, INKS

_LENET = Setting("network", network="lenet5")
_NARROW = ("float16", "bfloat16", "float32")


@dataclass(frozen=True)
class Part:
    """Points of one setting.

    Attributes:
        setting: network, batch size, batch norm.
        data: the image set.
        batches: mini-batches; None for as many whole ones as there are.
        precisions: names.
        draws: parameter draws.
    """

    setting: Setting
    data: str = "cifar10"
    batches: int | None = None
    precisions: Sequence[str] = PRECISIONS
    draws: int = 1


# VGG-11 without batch norm is there already: counted twice it would weigh double.
_VGG = [setting for factor in FACTORS.values() for setting in factor if setting.value is not False]
_FULL = (*map(Part, _VGG), Part(_LENET, "mnist", 30, _NARROW, 30))
_DEEP = [Part(setting, batches=2, precisions=_NARROW[::2]) for setting in FACTORS["network"][1:]]
_SIZES = [
    Part(setting, batches=batches, precisions=_NARROW[::2])
    for setting, batches in zip(FACTORS["batch_size"][:3], (4, 2, 1), strict=True)
]
_REDUCED = (
    Part(_LENET, "mnist", 12, _NARROW, 8),
    Part(Setting("network"), batches=8),
    Part(Setting("batch_norm", batch_norm=True), batches=4, precisions=_NARROW[::2]),
    *_SIZES,
    *_DEEP,
)


def measure(setup: Setup, parts: Sequence[Part] | None = None) -> list[Row]:
    """Every point with its variation, its zone by the threshold and its zone by the lift.

    Args:
        setup: where.
        parts: what is measured; by default the reduced or the full size.
    """
    rows: list[Row] = []
    for part in parts or (_REDUCED if setup.reduced else _FULL):
        images = data.load(part.data, "train", data_dir=setup.data_dir)
        ((setting, volume),) = volumes(
            [part.setting],
            images,
            draws=part.draws,
            batches=part.batches,
            precisions=part.precisions,
            device=setup.device,
            out=setup.work,
            on_point=lambda at, done, total: setup.on_progress(
                title(at.network, at.factor, at.value), done, total
            ),
        )
        rows += [
            {
                "factor": setting.factor,
                "value": setting.value,
                "network": setting.network,
                "data": part.data,
                "precision": point.precision,
                "draw": point.draw,
                "batch": point.batch,
                "variation": point.variation.linf_by_tensor,
                "by_threshold": str(point.zone_by_threshold),
                "by_lift": str(point.zone),
                "lift_in_noise_floors": point.lift.ratio if point.lift else None,
            }
            for point in volume.points
        ]
    return rows


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


def by_setting(rows: Sequence[Row]) -> list[Row]:
    """For every setting and precision what each judge says, and for all settings of a precision.

    ``above`` counts points above the published threshold, ``true`` those of them that are
    bifurcation by the lift, with the interval of their share in percent. ``wrong`` is the share of
    judged points (compensation or bifurcation by the lift) that the published threshold puts into
    the other zone, ``best_wrong`` that of ``best_threshold``, which was fitted to these very
    points: no threshold does better on them.

    >>> row = {"factor": "network", "value": "vgg11", "network": "vgg11", "data": "cifar10",
    ...        "precision": "float32", "draw": 0, "batch": 0, "variation": 1e-3,
    ...        "by_threshold": "bifurcation", "by_lift": "compensation"}
    >>> [(found["setting"], found["above"], found["true"]) for found in by_setting([row])]
    [('vgg11', 1, 0), ('all', 1, 0)]
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((_title(row), str(row["precision"])), []).append(row)
    for precision in dict.fromkeys(str(row["precision"]) for row in rows):
        groups["all", precision] = [row for row in rows if row["precision"] == precision]
    return [_judged(setting, precision, group) for (setting, precision), group in groups.items()]


def _judged(setting: str, precision: str, group: Sequence[Row]) -> Row:
    above = [row for row in group if row["by_threshold"] == Zone.BIFURCATION]
    true = sum(row["by_lift"] == Zone.BIFURCATION for row in above)
    found: Row = {
        "setting": setting,
        "precision": precision,
        "points": len(group),
        "above": len(above),
        "true": true,
    }
    if above and setting != "all":  # settings are no sample of anything
        low, high = estimate(true, [_cell(row) for row in above]).interval
        found |= {"true_percent": 100 * true / len(above), "low": 100 * low, "high": 100 * high}
    compensation, bifurcation = (
        variations(group, zone) for zone in (Zone.COMPENSATION, Zone.BIFURCATION)
    )
    judged = len(compensation) + len(bifurcation)
    found |= {
        "compensation": len(compensation),
        "bifurcation": len(bifurcation),
        "others": len(group) - judged,
    }
    if judged:
        best = best_split(compensation, bifurcation)
        wrong = errors(PUBLISHED_THRESHOLDS[precision], compensation, bifurcation)
        found |= {
            "wrong": 100 * wrong / judged,
            "best_threshold": best.threshold,
            "best_wrong": 100 * best.wrong / judged,
        }
    return found


def variations(rows: Sequence[Row], zone: Zone) -> list[float]:
    """D of the points that are in a zone by the lift.

    >>> variations([{"by_lift": "bifurcation", "variation": 0.5}], Zone.BIFURCATION)
    [0.5]
    """
    return [float(row["variation"] or 0) for row in rows if row["by_lift"] == zone]


def _title(row: Row) -> str:
    return title(row["network"], row["factor"], row["value"])


def _cell(row: Row) -> tuple[int, int]:
    return int(row["draw"] or 0), int(row["batch"] or 0)


def draw(rows: Sequence[Row]) -> Figure:
    """Above D of compensation and bifurcation, a panel a precision; below the shares by setting."""
    precisions = list(dict.fromkeys(str(row["precision"]) for row in rows))
    judged = by_setting(rows)
    settings = list(dict.fromkeys(_title(row) for row in rows))
    height = 1.1 + 0.24 * len(settings)
    figure = Figure(figsize=(1.6 + 2.2 * len(precisions), 3.0 + height))
    upper, lower = figure.subfigures(2, 1, height_ratios=(3.0, height), squeeze=False)[:, 0]
    _distributions(upper, rows, precisions, [each for each in judged if each["setting"] == "all"])
    panels = lower.subplots(1, len(precisions), sharey=True, squeeze=False)[0]
    for axes, precision in zip(panels, precisions, strict=True):
        for found in judged:
            if found["precision"] != precision or found["setting"] == "all":
                continue
            place, points = settings.index(str(found["setting"])), int(found["points"] or 1)
            for number, (column, label) in enumerate(_SHARES.items()):
                axes.barh(
                    place + 0.4 * number - 0.2, 100 * int(found[column] or 0) / points, 0.36,
                    color=INKS[2 - number], hatch=HATCHES[2 - number], edgecolor="white",
                    label=label if not axes.get_legend_handles_labels()[1][number:] else None,
                )  # fmt: skip
            axes.text(101, place, f"{points}", va="center", fontsize=7)
        axes.set_xlim(0, 118)
        axes.set_xticks([0, 50, 100])
        axes.set_xlabel("% of points")
    panels[0].set_yticks(range(len(settings)), settings)
    panels[0].set_ylim(len(settings) - 0.4, -0.6)
    lower.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


_SHARES = {"above": "above the published threshold", "true": "and bifurcation by the lift"}


def _distributions(
    figure: SubFigure, rows: Sequence[Row], precisions: Sequence[str], judged: Sequence[Row]
) -> None:
    panels = figure.subplots(1, len(precisions), squeeze=False)[0]
    for axes, precision, found in zip(panels, precisions, judged, strict=True):
        here = [row for row in rows if row["precision"] == precision]
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
        if "wrong" in found:
            lines.append(f"published τ: {found['wrong']:.0f} % wrong")
            lines.append(f"best τ: {found['best_wrong']:.0f} % wrong")
            if found["best_threshold"]:
                best = math.log10(float(found["best_threshold"] or 0))
                axes.axvline(best, color="#000000", linestyle=":", linewidth=1.2)
        axes.set_title("\n".join(lines), fontsize=8)
        axes.set_xlabel("log10 D")
        axes.legend(loc="upper left", fontsize=6)
        axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    panels[0].set_ylabel("points")


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """The share of bifurcation by the lift beside the published share above the threshold."""
    published = published_shares()
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        key = (str(row["factor"]), str(row["value"]).lower(), str(row["precision"]))
        groups.setdefault(key, []).append(row)
    found = []
    for key, group in groups.items():
        if key not in published:
            continue
        share = estimate(
            sum(row["by_lift"] == Zone.BIFURCATION for row in group), [_cell(row) for row in group]
        )
        low, high = share.interval
        found.append(
            of_intervals(
                f"{_title(group[0])}, {key[2]}: % bifurcation",
                (100 * share.proportion, 100 * low, 100 * high),
                published[key],
            )
        )
    return found


THRESHOLD_AGAINST_LIFT = Experiment(
    name="threshold-against-lift",
    source="kinkcheck, on the volumes of B24, section 3",
    shows="of the points above the threshold, how many are bifurcation by the lift, and how right "
    "a threshold of any value can be",
    cost="391 points at three precisions for each VGG, batch size and batch norm, 900 for LeNet-5 "
    "on MNIST; about 30 hours on two cores (an estimate)",
    cost_reduced="1 to 8 points of each setting, 96 for LeNet-5; 22 minutes on one busy core",
    measure=measure,
    draw=draw,
    compare=compare,
    summarise=by_setting,
    reduced_cannot="The reduced run can show whether points above the threshold are compensation; "
    "with few points of a setting it cannot rule out rare bifurcations there: the intervals say "
    "how rare. Published is the share above the threshold, ours the share of bifurcation by the "
    "lift: where they differ, the threshold does. The published bars by batch size are of VGG-19, "
    "ours of VGG-11.",
)
