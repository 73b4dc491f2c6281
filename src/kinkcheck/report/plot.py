"""An audit as a plot."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from kinkcheck.audit.effect import place
from kinkcheck.audit.report import AuditReport
from kinkcheck.audit.summary import ratio
from kinkcheck.measure.records import Point
from kinkcheck.report.ink import INKS, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_variation(report: AuditReport, axes: Axes | None = None) -> Axes:
    """How far each selection moves the gradient at each point, beside its rounding error.

    Args:
        report: the audit.
        axes: to draw on; by default those of a new figure of :mod:`matplotlib.pyplot`.

    >>> from matplotlib.figure import Figure
    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> report = AuditReport(*names, 0, "native", [], [], [], [])
    >>> plot_variation(report, Figure().subplots()).get_ylabel()
    'part of the l1 norm of the gradient'
    """
    if axes is None:
        from matplotlib import pyplot

        axes = pyplot.subplots(layout="constrained")[1]
    precisions = list(dict.fromkeys(point.precision for point in report.points))
    selections = list(dict.fromkeys(point.selection for point in report.points))
    shown: list[float] = []
    for index, selection in enumerate(selections):
        found = [point for point in report.points if point.selection == selection]
        moved = [point.variation.relative_l1 for point in found]
        infinite = sum(not math.isfinite(value) for value in moved)
        x = _places(found, precisions, index, len(selections))
        ink, marker = INKS[index % len(INKS)], MARKERS[index % len(MARKERS)]
        label = f"moved by {selection}" + (f" ({infinite} not finite)" if infinite else "")
        axes.plot(x, moved, marker, color=ink, alpha=0.7, label=label)
        shown += moved
    errors = {
        place(point): error
        for point in report.points
        if point.lift is not None
        and (error := ratio(point.lift.error_reference_l1, point.gradient_l1)) is not None
    }
    if errors:
        axes.errorbar(
            [precisions.index(name) for name, _, _ in errors], list(errors.values()), xerr=0.45,
            fmt="none", color="#777777", label="rounding error of the gradient anyway",
        )  # fmt: skip
    least = min((y for y in (*shown, *errors.values()) if 0 < y < math.inf), default=1.0)
    axes.set_yscale("symlog", linthresh=least)
    axes.set_xticks(range(len(precisions)), precisions, parse_math=False)  # names are text
    axes.set_ylabel("part of the l1 norm of the gradient")
    axes.set_title(f"{report.network} on {report.data}", parse_math=False)
    if report.points:
        key = axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), frameon=False, ncols=2)
        for text in key.get_texts():
            text.set_parse_math(False)
    return axes


def _places(points: list[Point], precisions: list[str], strip: int, strips: int) -> list[float]:
    """Where points stand: side by side, each selection in a strip of its precision."""
    counts = Counter(point.precision for point in points)
    seen: Counter[str] = Counter()
    places = []
    for point in points:
        seen[point.precision] += 1
        within = seen[point.precision] / (counts[point.precision] + 1)
        places.append(precisions.index(point.precision) + 0.8 * ((strip + within) / strips - 0.5))
    return places
