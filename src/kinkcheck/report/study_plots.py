"""Figures of a study: what decides by selection, loss by epoch, weight divergence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kinkcheck.report.ink import INKS, LINES, plain_numbers
from kinkcheck.report.study import value_text
from kinkcheck.study.criteria import ACCURACY, Criterion
from kinkcheck.study.reading import Reading, Trial
from kinkcheck.study.summary import Band, Group, band, groups, varied, varying


def figures(study: Reading) -> dict[str, Callable[[], Figure]]:
    """The figures that a study has data for, by file name without ending.

    Args:
        study: open to be read.
    """
    distances = study.distances()
    if distances:
        return {"divergence": lambda: divergence_figure(distances, study.criterion)}
    trials, losses = study.trials(), study.losses()
    by_rate = study.lists_rates()
    found = groups(trials, by_rate=by_rate)
    return {
        study.criterion.name: lambda: value_figure(found, study.criterion),
        "loss": lambda: loss_figure(trials, losses, by_rate=by_rate),
    }


def value_figure(found: Sequence[Group], criterion: Criterion) -> Figure:
    """Box plots of what decides, on the test set, by selection; a panel for all else that varies.

    Boxes span the quartiles, whiskers the whole range; every run that finished is a dot. Below a
    selection stands how many these are, and how many diverged.
    """
    panels = _panels(found)
    figure, all_axes = _grid(len(panels), f"final test {_label(criterion)}")
    _explain(
        figure,
        "Dots: the n runs that finished. Box: quartiles and median; whiskers: least and greatest.",
    )
    for axes, (title, together) in zip(all_axes, panels.items(), strict=True):
        axis, labels = _labels(together)
        shown = [
            [criterion.shown(value) for value in group.values if math.isfinite(value)]
            for group in together
        ]
        places = np.arange(len(together))
        axes.boxplot(
            shown, positions=places, widths=0.5, whis=(0, 100), showfliers=False,
            medianprops={"color": "#8e1b10"},
        )  # fmt: skip
        for place, values in zip(places, shown, strict=True):
            axes.plot(np.full(len(values), place), values, "o", ms=3, color="#5f9fd4")
        axes.set_xticks(
            places,
            [
                f"{label}\nn = {len(group.values)}"
                + (f"\n{group.diverged} diverged" if group.diverged else "")
                for label, group in zip(labels, together, strict=True)
            ],
        )
        axes.set_xlim(-0.5, len(together) - 0.5)
        axes.set_xlabel(axis)
        axes.set_title(title)
    return figure


def loss_figure(
    trials: Sequence[Trial], losses: Mapping[str, Sequence[float]], *, by_rate: bool = True
) -> Figure:
    """Mean training loss by epoch with a band of one standard deviation, a line a selection.

    Runs that diverged count as far as they got; the legend says how many runs there are, and how
    many diverged.
    """
    by_group: dict[tuple[object, ...], list[Trial]] = {}
    for trial in trials:
        (group,) = groups([trial], by_rate=by_rate)
        by_group.setdefault(group.key, []).append(trial)
    found = groups(trials, by_rate=by_rate)
    panels = _panels(found)
    figure, all_axes = _grid(len(panels), "training loss")
    _explain(figure, _BANDS)
    for axes, (title, together) in zip(all_axes, panels.items(), strict=True):
        axis, labels = _labels(together)
        drawn = False
        for number, (group, label) in enumerate(zip(together, labels, strict=True)):
            runs = by_group[group.key]
            over = band([losses.get(run.trial, ()) for run in runs])
            drawn |= bool(over.mean)
            diverged = f", {group.diverged} diverged" if group.diverged else ""
            _line(axes, range(1, len(over.mean) + 1), over, f"{label}{_n(over)}{diverged}", number)
        if drawn:  # a scale of logarithms needs a number
            axes.set_yscale("log")
        axes.set_title(title)
        _epochs(axes, axis)
    for axes in all_axes:  # on the scale that they share
        plain_numbers(axes.yaxis)
    return figure


def divergence_figure(rows: Sequence[Mapping[str, Any]], criterion: Criterion = ACCURACY) -> Figure:
    """Distance from network 0 and what decides by epoch, a line a network; mean over seeds."""
    figure = Figure(figsize=(10, 3.2))
    left, right = figure.subplots(1, 2)
    divergence_panels(left, right, rows, criterion)
    _explain(figure, _BANDS)
    return figure


def divergence_panels(
    left: Axes, right: Axes, rows: Sequence[Mapping[str, Any]], criterion: Criterion = ACCURACY
) -> None:
    """Distance from network 0 on the left, what decides on the right; see above."""
    networks: dict[tuple[int, str], dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        key = row["network"], row["max_pool"]
        networks.setdefault(key, {}).setdefault(row["trial"], []).append(row)
    axis, labels = _short("max_pool", [max_pool for _, max_pool in networks])
    first = labels[0]
    for (number, _), label, by_trial in zip(networks, labels, networks.values(), strict=True):
        columns: tuple[tuple[Axes, str, Callable[[float], float]], ...] = (
            (left, "l1", float), (right, f"test_{criterion.name}", criterion.shown),
        )  # fmt: skip
        for axes, column, shown in columns:
            over = band(
                [
                    [math.nan if r[column] is None else shown(r[column]) for r in of_trial]
                    for of_trial in by_trial.values()
                ]
            )
            name = f"{first} and {label}" if axes is left else label
            if axes is right or number:
                _line(axes, range(len(over.mean)), over, f"{name}{_n(over)}", number)
    least = min((row["l1"] for row in rows if row["l1"]), default=1e-3)
    left.set_yscale("symlog", linthresh=min(least, 1e-3))
    plain_numbers(left.yaxis)
    left.set_ylabel("‖θ0 - θi‖1")
    right.set_ylabel(f"test {_label(criterion)}")
    for axes in (left, right):
        _epochs(axes, axis)


def _label(criterion: Criterion) -> str:
    return f"{criterion.words}, %" if criterion.share else criterion.words


_BANDS = (
    "Line: mean over the n runs that got so far. Band: one standard deviation (n − 1) on each "
    "side where n > 1, not below the least run."
)


def _explain(figure: Figure, text: str) -> None:
    """What lines, boxes and bands are, below all panels."""
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7)


def _n(over: Band) -> str:
    """How many runs a curve is the mean of: fewer in its end, where some diverged."""
    counts = sorted({count for count in over.runs if count}, reverse=True)
    return (
        f", n = {' to '.join(map(str, (counts[0], counts[-1])[: len(counts)]))}" if counts else ""
    )


def _line(axes: Axes, epochs: range, over: Band, label: str, number: int) -> None:
    colour, dashes = INKS[number % len(INKS)], LINES[number % len(LINES)]
    axes.plot(epochs, over.mean, color=colour, linestyle=dashes, label=label, linewidth=1.2)
    axes.fill_between(epochs, over.low, over.high, color=colour, alpha=0.2, linewidth=0)


def _epochs(axes: Axes, title: str) -> None:
    """Whole epochs below, and the lines' names on the right."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.legend(title=title, loc="center left", bbox_to_anchor=(1, 0.5))


def _panels(found: Sequence[Group]) -> dict[str, list[Group]]:
    """Groups that differ in their selections alone, by what else there is to say of them."""
    names = varying(found)
    panels: dict[str, list[Group]] = {}
    for group in found:
        words = {"batch_norm": {"yes": "batch norm", "no": "no batch norm"}}
        values = [value_text(name, group.factors[name]) for name in names]
        said = [words.get(n, {}).get(v, v) for n, v in zip(names, values, strict=True)]
        panels.setdefault(", ".join(said), []).append(group)
    return panels


def _grid(panels: int, ylabel: str) -> tuple[Figure, list[Axes]]:
    columns = min(panels, 2)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(5 * columns, 2.8 * rows))
    axes = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for unused in axes[panels:]:
        unused.remove()
    for each in axes[:panels:columns]:
        each.set_ylabel(ylabel)
    return figure, axes[:panels]


def _labels(together: Sequence[Group]) -> tuple[str, list[str]]:
    """What the selections of groups are called together, and the selections of each."""
    families = varied(together) or list(together[0].selections)
    chosen = [[group.selections.get(family, "native") for family in families] for group in together]
    if len(families) == 1:
        return _short(families[0], [text for (text,) in chosen])
    return _words(*families) or "selection", [", ".join(texts) or "native" for texts in chosen]


def _short(family: str, texts: Sequence[str]) -> tuple[str, list[str]]:
    """What the selections of one family are called together, and the rest of each.

    >>> _short("max_pool", ["hybrid:0", "hybrid:10000"]), _short("relu", ["branch:0"])
    (('β', ['0', '10000']), ("ReLU'(0)", ['0']))
    >>> _short("hardtanh", ["branch:0", "branch:1"]), _short("relu", ["native", "branch:1"])
    (('hardtanh', ['branch:0', 'branch:1']), ('relu', ['native', 'branch:1']))
    """
    kinds = {text.partition(":")[0] if ":" in text else "" for text in texts}
    names = {"hybrid": "β", "branch": "ReLU'(0)" if family == "relu" else ""}
    name = names.get(kinds.pop(), "") if len(kinds) == 1 else ""
    if not name:
        return _words(family), list(texts)
    return name, [text.partition(":")[2] for text in texts]


def _words(*families: str) -> str:
    return ", ".join(families).replace("_", " ")
