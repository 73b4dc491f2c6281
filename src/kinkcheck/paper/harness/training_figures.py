"""Trainings as ink: accuracy by selection, and loss by epoch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.special import stdtrit

from kinkcheck.paper.harness.rows import by
from kinkcheck.paper.harness.trainings import Configuration, Epoch, Final, runs_of, written
from kinkcheck.report.ink import INKS, LINES, MARKERS, plain_numbers

_COLUMNS = 3


def draw(rows: Sequence[Final | Epoch]) -> Figure:
    """Accuracy by selection, a panel a network; below, loss by epoch, a panel a program.

    A dot is a run, a line the mean over all runs with its 95 % interval by Student's t. A run that
    diverged is a cross at the accuracy of a network of NaN, which predicts class 0.
    """
    panels = by((row for row in rows if isinstance(row, Final)), lambda row: row.title)
    losses = by(
        (row for row in rows if isinstance(row, Epoch)), lambda row: (row.title, _program(row))
    )
    tops, bottoms = _lines(len(panels)), _lines(len(losses))
    columns = max(min(_COLUMNS, max(len(panels), len(losses))), 1)
    figure = Figure(figsize=(0.6 + 2.9 * columns, 2.7 * (tops + bottoms)))
    grid = figure.add_gridspec(tops + bottoms, columns)
    for place, together in enumerate(panels.values()):
        axes = figure.add_subplot(grid[place // columns, place % columns])
        accuracy_panel(axes, together)
    for place, epochs in enumerate(losses.values()):
        axes = figure.add_subplot(grid[tops + place // columns, place % columns])
        loss_panel(axes, epochs)
    return figure


def _program(row: Configuration) -> str:
    return f"{row.precision}, {row.forward}{', assigned' * (row.backward == 'assigned')}"


def accuracy_panel(axes: Axes, rows: Sequence[Final]) -> None:
    """Final test accuracy of one network by selection, a line a program."""
    chosen = list(dict.fromkeys(row.selection for row in rows))
    lines = by(rows, _program)
    for at, (program, together) in enumerate(lines.items()):
        shift = 0.5 * ((at + 0.5) / len(lines) - 0.5)
        places = [chosen.index(row.selection) + shift for row in together]
        runs = [runs_of(row) for row in together]
        counts = sorted({len(each) for each in runs})
        axes.errorbar(
            places, [statistics.fmean(each) for each in runs], yerr=[half(each) for each in runs],
            color=INKS[at], linestyle=LINES[at], marker=MARKERS[at], ms=4, lw=1, capsize=2,
            label=f"{program} ({'-'.join(map(str, counts))} run{'s' * (counts != [1])})",
        )  # fmt: skip
        for place, row, each in zip(places, together, runs, strict=True):
            for value, shown in zip(written(row), each, strict=True):
                lost = math.isnan(value)
                axes.plot(
                    place + 0.06, shown, "x" if lost else ".", ms=5 if lost else 3, color=INKS[at]
                )
    labels = [selection_text(text) for text in chosen]
    axes.set_xticks(range(len(chosen)), labels)
    if max(map(len, labels)) > 5:
        axes.tick_params(axis="x", rotation=45)
    low, high = axes.get_ylim()  # an interval may leave what an accuracy can be
    axes.set_ylim(max(low, -4), min(high, 104))
    axes.set_xlabel(_axis(chosen))
    axes.set_ylabel("final test accuracy, %")
    axes.set_title(rows[0].title + "\n× diverged: NaN predicts class 0")
    axes.legend(loc="best")


def loss_panel(axes: Axes, rows: Sequence[Epoch]) -> None:
    """Mean training loss by epoch with one standard deviation, a line a selection."""
    lines = by(rows, lambda row: row.selection)
    for at, (selection, together) in enumerate(lines.items()):
        epochs = [row.epoch for row in together]
        ink, dash = INKS[at % len(INKS)], LINES[at % len(LINES)]
        axes.plot(
            epochs, [row.loss for row in together], color=ink, linestyle=dash, lw=1.2,
            label=selection_text(selection), marker="." if len(epochs) < 4 else "",
        )  # fmt: skip
        axes.fill_between(
            epochs, [_drawn(row.loss_low) for row in together],
            [_drawn(row.loss_high) for row in together], color=ink, alpha=0.15, linewidth=0,
        )  # fmt: skip
    axes.set_yscale("log")
    plain_numbers(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss")
    runs = sorted({row.runs for row in rows})
    said = f"{runs[0]}-{runs[-1]} runs" if len(runs) > 1 else f"{runs[0]} run{'s' * (runs[0] > 1)}"
    axes.set_title(f"{rows[0].title}\n{_program(rows[0])}; {said}")
    axes.legend(title=_axis(list(lines)))


def half(runs: Sequence[float]) -> float:
    """Half the 95 % interval of a mean by Student's t; no number for one run.

    >>> round(half([1.0, 2.0, 3.0]), 3)  # 4.303 / √3
    2.484
    >>> half([1.0])
    nan
    """
    if len(runs) < 2:
        return math.nan  # of which Matplotlib draws nothing
    quantile = float(stdtrit(len(runs) - 1, 0.975))
    return quantile * statistics.stdev(runs) / math.sqrt(len(runs))


def selection_text(text: str) -> str:
    """A selection as a label: the number alone where the axis has its name.

    >>> selection_text("hybrid:10000"), selection_text("branch:0.5"), selection_text("last")
    ('10⁴', '0.5', 'last')
    """
    kind, _, value = text.partition(":")
    if kind not in ("hybrid", "branch"):
        return text
    powers = {"1000": "10³", "10000": "10⁴"}
    return powers.get(value, value.replace("-", "−"))


def _axis(chosen: Sequence[str]) -> str:
    kinds = {text.partition(":")[0] for text in chosen}
    if kinds == {"hybrid"}:
        return "β"
    if kinds == {"branch"}:
        return "ReLU'(0)"
    return "selection" if kinds.isdisjoint({"hybrid"}) else "selection (a number: β of hybrid)"


def _drawn(value: float | None) -> float:
    """A number as Matplotlib takes it, which leaves out what is none."""
    return math.nan if value is None else value


def _lines(panels: int) -> int:
    return math.ceil(panels / _COLUMNS)
