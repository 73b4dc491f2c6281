"""Figures of a study: accuracy by selection, loss by epoch, weight divergence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kinkcheck.report.ink import INKS, LINES
from kinkcheck.report.study import value_text
from kinkcheck.study.reading import Reading, Trial
from kinkcheck.study.summary import Band, Group, band, groups, varied, varying


def figures(study: Reading) -> dict[str, Callable[[], Figure]]:
    """The figures that a study has data for, by file name without ending.

    Args:
        study: open to be read.
    """
    distances = study.distances()
    if distances:
        return {"divergence": lambda: divergence_figure(distances)}
    trials, losses = study.trials(), study.losses()
    by_rate = study.lists_rates()
    found = groups(trials, by_rate=by_rate)
    return {
        "accuracy": lambda: accuracy_figure(found),
        "loss": lambda: loss_figure(trials, losses, by_rate=by_rate),
    }


def accuracy_figure(found: Sequence[Group]) -> Figure:
    """Box plots of final test accuracy by selection, a panel for all else that varies.

    Boxes span the quartiles, whiskers the whole range; every run that finished is a dot. Below a
    selection stands how many of its runs diverged.
    """
    panels = _panels(found)
    figure, all_axes = _grid(len(panels), "final test accuracy, %")
    for axes, (title, together) in zip(all_axes, panels.items(), strict=True):
        axis, labels = _labels(together)
        shown = [[100 * accuracy for accuracy in group.accuracies] for group in together]
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
                f"{label}\n{group.diverged} of {group.runs}\ndiverged" if group.diverged else label
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

    Runs that diverged count as far as they got; the legend says how many did.
    """
    by_group: dict[tuple[object, ...], list[Trial]] = {}
    for trial in trials:
        (group,) = groups([trial], by_rate=by_rate)
        by_group.setdefault(group.key, []).append(trial)
    found = groups(trials, by_rate=by_rate)
    panels = _panels(found)
    figure, all_axes = _grid(len(panels), "training loss")
    for axes, (title, together) in zip(all_axes, panels.items(), strict=True):
        axis, labels = _labels(together)
        drawn = False
        for number, (group, label) in enumerate(zip(together, labels, strict=True)):
            runs = by_group[group.key]
            over = band([losses.get(run.trial, ()) for run in runs])
            drawn |= bool(over.mean)
            diverged = f" ({group.diverged}/{group.runs} diverged)" if group.diverged else ""
            _line(axes, range(1, len(over.mean) + 1), over, f"{label}{diverged}", number)
        if drawn:  # a scale of logarithms needs a number
            axes.set_yscale("log")
        _plain_numbers(axes)
        axes.set_xlabel("epoch")
        axes.set_title(title)
        axes.legend(title=axis)
    return figure


def divergence_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Distance from network 0 and test accuracy by epoch, a line a network; mean over seeds."""
    networks: dict[tuple[int, str], dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        key = row["network"], row["max_pool"]
        networks.setdefault(key, {}).setdefault(row["trial"], []).append(row)
    figure = Figure(figsize=(9.2, 3.2))
    left, right = figure.subplots(1, 2)
    axis, labels = _short("max_pool", [max_pool for _, max_pool in networks])
    first = labels[0]
    for (number, _), label, by_trial in zip(networks, labels, networks.values(), strict=True):
        for axes, column, scale in ((left, "l1", 1.0), (right, "test_accuracy", 100.0)):
            over = band(
                [
                    [scale * (math.nan if r[column] is None else r[column]) for r in of_trial]
                    for of_trial in by_trial.values()
                ]
            )
            name = f"{first} and {label}" if axes is left else label
            if axes is right or number:
                _line(axes, range(len(over.mean)), over, name, number)
    left.set_yscale("symlog", linthresh=1e-3)
    _plain_numbers(left)
    left.set_ylabel("‖θ0 - θi‖1")
    right.set_ylabel("test accuracy, %")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.legend(title=axis)
    return figure


def _line(axes: Axes, epochs: range, over: Band, label: str, number: int) -> None:
    colour, dashes = INKS[number % len(INKS)], LINES[number % len(LINES)]
    axes.plot(epochs, over.mean, color=colour, linestyle=dashes, label=label, linewidth=1.2)
    axes.fill_between(epochs, over.low, over.high, color=colour, alpha=0.2, linewidth=0)


def _plain_numbers(axes: Axes) -> None:
    """Numbers like 0.1 instead of powers, and none between them."""
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: "")


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
    figure = Figure(figsize=(4.6 * columns, 2.8 * rows))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
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
