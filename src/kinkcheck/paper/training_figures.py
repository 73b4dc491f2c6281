"""Trainings as ink: accuracy by selection, and loss by epoch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.special import stdtrit

from kinkcheck.paper.experiment import Row
from kinkcheck.paper.trainings import number, runs_of
from kinkcheck.report.ink import INKS, LINES, MARKERS

_COLUMNS = 3
_PANEL = ("data", "network", "batch_norm", "optimizer")
_LINE = ("precision", "forward")


def draw(rows: Sequence[Row]) -> Figure:
    """Accuracy by selection, a panel a network; below, loss by epoch, a panel a program.

    A dot is a run, a line the mean over all runs with its 95 % interval by Student's t. A run that
    diverged is a cross at the accuracy of a network of NaN, which predicts class 0.
    """
    finals = [row for row in rows if row["epoch"] is None]
    epochs = [row for row in rows if row["epoch"] is not None]
    panels, losses = by(finals, _PANEL), by(epochs, _PANEL + _LINE)
    tops, bottoms = _lines(len(panels)), _lines(len(losses))
    columns = max(min(_COLUMNS, max(len(panels), len(losses))), 1)
    figure = Figure(figsize=(0.6 + 2.9 * columns, 2.7 * (tops + bottoms)))
    grid = figure.add_gridspec(tops + bottoms, columns)
    for place, together in enumerate(panels.values()):
        axes = figure.add_subplot(grid[place // columns, place % columns])
        accuracy_panel(axes, together)
    for place, together in enumerate(losses.values()):
        axes = figure.add_subplot(grid[tops + place // columns, place % columns])
        loss_panel(axes, together)
    return figure


def accuracy_panel(axes: Axes, rows: Sequence[Row]) -> None:
    """Final test accuracy of one network by selection, a line a precision and forward."""
    chosen = list(dict.fromkeys(selection(row) for row in rows))
    lines = by(rows, _LINE)
    for at, ((precision, forward), together) in enumerate(lines.items()):
        shift = 0.5 * ((at + 0.5) / len(lines) - 0.5)
        places = [chosen.index(selection(row)) + shift for row in together]
        runs = [runs_of(row) for row in together]
        counts = sorted({len(each) for each in runs})
        axes.errorbar(
            places, [statistics.fmean(each) for each in runs], yerr=[half(each) for each in runs],
            color=INKS[at], linestyle=LINES[at], marker=MARKERS[at], ms=4, lw=1, capsize=2,
            label=f"{precision}, {forward} ({'-'.join(map(str, counts))} run"
            f"{'s' * (counts != [1])})",
        )  # fmt: skip
        for place, row, each in zip(places, together, runs, strict=True):
            written = [float(text) for text in str(row["accuracies"]).split()]
            for value, shown in zip(written, each, strict=True):
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
    axes.set_title(title(rows[0]) + "\n× diverged: NaN predicts class 0")
    axes.legend(loc="best")


def loss_panel(axes: Axes, rows: Sequence[Row]) -> None:
    """Mean training loss by epoch with one standard deviation, a line a selection."""
    lines = by(rows, ("relu", "max_pool"))
    for at, together in enumerate(lines.values()):
        epochs = [number(row["epoch"]) for row in together]
        ink, dash = INKS[at % len(INKS)], LINES[at % len(LINES)]
        label = selection_text(selection(together[0]))
        axes.plot(
            epochs, [number(row["loss"]) for row in together], color=ink, linestyle=dash, lw=1.2,
            label=label, marker="." if len(epochs) < 4 else "",
        )  # fmt: skip
        low, high = ([number(row[key]) for row in together] for key in ("loss_low", "loss_high"))
        axes.fill_between(epochs, low, high, color=ink, alpha=0.15, linewidth=0)
    axes.set_yscale("log")
    plain_numbers(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss")
    runs = sorted({int(row["runs"] or 0) for row in rows})
    said = f"{runs[0]}-{runs[-1]} runs" if len(runs) > 1 else f"{runs[0]} run{'s' * (runs[0] > 1)}"
    axes.set_title(f"{title(rows[0])}\n{rows[0]['precision']}, {rows[0]['forward']}; {said}")
    axes.legend(title=_axis([selection(each[0]) for each in lines.values()]))


def plain_numbers(axis: Axis) -> None:
    """Numbers like 0.1 on a scale of logarithms, not markup; between powers only on short scales.

    >>> axes = Figure().subplots()
    >>> plain_numbers(axes.xaxis)
    >>> axes.xaxis.get_major_formatter()(0.001, 0)
    '0.001'
    """
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    low, high = sorted(axis.get_view_interval())
    short = low > 0 and high < 10 * low
    axis.set_minor_formatter(lambda value, _: f"{value:g}" if short else "")


def half(runs: Sequence[float]) -> float:
    """Half the 95 % interval of a mean by Student's t; 0 where one run says nothing of it.

    >>> round(half([1.0, 2.0, 3.0]), 3)  # 4.303 / √3
    2.484
    >>> half([1.0])
    0.0
    """
    if len(runs) < 2:
        return 0.0
    quantile = float(stdtrit(len(runs) - 1, 0.975))
    return quantile * statistics.stdev(runs) / math.sqrt(len(runs))


def by(rows: Iterable[Row], names: Sequence[str]) -> dict[tuple[object, ...], list[Row]]:
    """Rows that agree in some columns, together.

    >>> by([{"a": 1, "b": 2}, {"a": 1, "b": 3}], ["a"])
    {(1,): [{'a': 1, 'b': 2}, {'a': 1, 'b': 3}]}
    """
    found: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def selection(row: Row) -> str:
    """What is picked at the kinks of a row that is varied: of ReLU if it is, else of pooling.

    >>> selection({"relu": None, "max_pool": "hybrid:10"})
    'hybrid:10'
    """
    return str(row["relu"] or row["max_pool"] or "native")


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


def title(row: Row) -> str:
    """Network, data, batch norm, optimizer.

    >>> title({"network": "vgg11", "data": "cifar10", "batch_norm": True, "optimizer": "sgd"})
    'vgg11, cifar10, batch norm, sgd'
    """
    norm = ("batch norm",) if row["batch_norm"] else ()
    return ", ".join((str(row["network"]), str(row["data"]), *norm, str(row["optimizer"])))


def _axis(chosen: Sequence[str]) -> str:
    kinds = {text.partition(":")[0] for text in chosen}
    if kinds == {"hybrid"}:
        return "β"
    if kinds == {"branch"}:
        return "ReLU'(0)"
    return "selection" if kinds.isdisjoint({"hybrid"}) else "selection (a number: β of hybrid)"


def _lines(panels: int) -> int:
    return math.ceil(panels / _COLUMNS)
