"""One look for all figures: readable on paper, on a screen, and printed in grey."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")

INKS = ("#1b1b1b", "#8e1b10", "#2f6fab", "#d28b26", "#6b8e23", "#7d5ba6", "#777777")
"""Colours of lines, in order; they differ in lightness as well."""

LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)))
"""Dashes that go with :data:`INKS`: a line is told by both."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Markers that go with :data:`INKS`."""

HATCHES = ("", "///", "...", "xxx", "\\\\\\", "+++", "ooo")
"""Hatches that go with :data:`INKS`, for bars."""

_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.fontsize": 8,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.7,
    "legend.frameon": True,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "kinkcheck",  # equal figures are equal files
    "text.parse_math": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


def save(draw: Callable[[], Figure], form: str, description: str | None = None) -> bytes:
    """A figure as the content of a file; equal figures give equal files.

    Args:
        draw: makes it; the style holds while it does.
        form: one of :data:`FORMATS`.
        description: a line in the file that is not drawn; not in PDF.

    >>> from matplotlib.figure import Figure
    >>> save(Figure, "svg")[:5]
    b'<?xml'
    """
    import matplotlib as mpl  # takes a second, which the names of formats need not

    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    said = {} if description is None else {"Description": description}
    with mpl.rc_context(_STYLE):
        buffer = io.BytesIO()
        draw().savefig(buffer, format=form, dpi=150, metadata={**dates.get(form, {}), **said})
    return buffer.getvalue()


def plain_numbers(axis: Axis) -> None:
    """Numbers like 0.1 on a scale of logarithms, not markup; between powers only on short scales.

    >>> from matplotlib.figure import Figure
    >>> axes = Figure().subplots()
    >>> plain_numbers(axes.xaxis)
    >>> axes.xaxis.get_major_formatter()(0.001, 0)
    '0.001'
    """
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    low, high = sorted(axis.get_view_interval())
    short = low > 0 and high < 10 * low
    axis.set_minor_formatter(lambda value, _: f"{value:g}" if short else "")
