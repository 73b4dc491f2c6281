"""[B24], introduction: two programs for one maximum, and what AD says of their difference."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from kinkcheck.arithmetic.precision import PRECISIONS
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.programs import ENTRIES, PLACES, evaluate
from kinkcheck.report.ink import INKS, MARKERS

_PRECISIONS = ("float16", "float32", "float64")
_ZERO = "zero"  # the difference of max1 and max2


def measure(setup: Setup) -> list[Row]:
    """Value and derivative of every program at the published inputs, in 16, 32 and 64 bits.

    ``exact`` is what the same rules of differentiation give at the same floating-point inputs
    without rounding.

    >>> from pathlib import Path
    >>> rows = measure(Setup(Path()))
    >>> next(row["derivative"] for row in rows if (row["program"], row["t"]) == ("zero", 0.0))
    -1.5
    """
    rows: list[Row] = []
    cases = [(x, t, name) for x in ENTRIES for t in PLACES for name in _PRECISIONS]
    for done, (x, t, name) in enumerate(cases, start=1):
        rows += [
            {
                "entries": " ".join(f"{entry:g}" for entry in x),
                "t": t,
                "precision": name,
                "program": found.program,
                "value": found.value,
                "derivative": found.derivative,
                "exact": float(found.exact),
            }
            for found in evaluate(t, x, PRECISIONS[name].storage)
        ]
        setup.on_progress("programs", done, len(cases))
    return rows


def draw(rows: Sequence[Row]) -> Figure:
    """The size of the derivative of zero at every t, a panel for each x."""
    entries = list(dict.fromkeys(str(row["entries"]) for row in rows))
    figure = Figure(figsize=(2.5 * len(entries), 3.0))
    panels = figure.subplots(1, len(entries), sharey=True, squeeze=False)[0]
    for axes, x in zip(panels, entries, strict=True):
        here = [row for row in rows if row["entries"] == x and row["program"] == _ZERO]
        places = sorted({float(row["t"] or 0) for row in here})
        for number, precision in enumerate(_PRECISIONS):
            found = [row for row in here if row["precision"] == precision]
            axes.plot(
                [places.index(float(row["t"] or 0)) + 0.2 * (number - 1) for row in found],
                [abs(float(row["derivative"] or 0)) for row in found],
                MARKERS[number], color=INKS[number], markersize=5, label=precision,
                clip_on=False,
            )  # fmt: skip
        wrong = [
            (places.index(float(row["t"] or 0)), abs(float(row["exact"])))
            for row in here
            if row["precision"] == "float64" and row["exact"]
        ]
        if wrong:
            axes.plot(
                *zip(*wrong, strict=True),
                "_",
                color=INKS[0],
                markersize=30,
                label="without rounding",
            )
        axes.set_yscale("symlog", linthresh=1e-17, linscale=0.6)
        axes.set_ylim(-1e-18, 30)
        axes.yaxis.set_major_locator(FixedLocator([0, 1e-16, 1e-12, 1e-8, 1e-4, 1]))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xticks(range(len(places)), [f"{place:g}" for place in places])
        axes.set_xlim(-0.6, len(places) - 0.4)
        axes.set_xlabel("t")
        axes.set_title(f"x = ({x.replace(' ', ', ')})")
    panels[0].set_ylabel("|derivative of zero(t)|; over the reals 0")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4)
    return figure


PROGRAMS = Experiment(
    name="programs",
    source="B24, introduction: max1, max2, zero",
    shows="programs that compute one function, and the derivative that AD returns for each",
    cost="60 points by hand; a second",
    cost_reduced="the same",
    measure=measure,
    draw=draw,
    summarise=lambda rows: [row for row in rows if row["program"] == _ZERO],
    reduced_cannot="The reduced run is the whole experiment.",
)
