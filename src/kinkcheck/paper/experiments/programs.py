"""[B24], introduction: two programs for one maximum, and what AD says of their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from kinkcheck.arithmetic.precision import PRECISIONS
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.rows import line
from kinkcheck.programs import ENTRIES, PLACES, evaluate
from kinkcheck.report.ink import INKS, MARKERS

_PRECISIONS = ("float16", "float32", "float64")
_ZERO = "zero"  # the difference of max1 and max2


@dataclass(frozen=True)
class Row:
    """A program at an input.

    Attributes:
        entries: x, its entries parted by spaces.
        t: where on the line x·t.
        precision: of the input and of all that is computed.
        program: its name.
        value, derivative: as computed.
        exact: the derivative by the same rules at the same floating-point input, not rounded.
    """

    entries: str
    t: float
    precision: str
    program: str
    value: float
    derivative: float
    exact: float


def measure(setup: Setup) -> list[Row]:
    """Value and derivative of every program at the published inputs, in 16, 32 and 64 bits.

    >>> from pathlib import Path
    >>> rows = measure(Setup(Path()))
    >>> next(row.derivative for row in rows if (row.program, row.t) == ("zero", 0.0))
    -1.5
    """
    rows: list[Row] = []
    cases = [(x, t, name) for x in ENTRIES for t in PLACES for name in _PRECISIONS]
    for done, (x, t, name) in enumerate(cases, start=1):
        rows += [
            Row(
                entries=" ".join(f"{entry:g}" for entry in x),
                t=t,
                precision=name,
                program=found.program,
                value=found.value,
                derivative=found.derivative,
                exact=float(found.exact),
            )
            for found in evaluate(t, x, PRECISIONS[name].storage)
        ]
        setup.on_progress("programs", done, len(cases))
    return rows


def draw(rows: Sequence[Row]) -> Figure:
    """The size of the derivative of zero at every t, a panel for each x."""
    entries = list(dict.fromkeys(row.entries for row in rows))
    figure = Figure(figsize=(2.5 * len(entries), 3.0))
    panels = figure.subplots(1, len(entries), sharey=True, squeeze=False)[0]
    for axes, x in zip(panels, entries, strict=True):
        here = [row for row in rows if row.entries == x and row.program == _ZERO]
        places = sorted({row.t for row in here})
        for number, precision in enumerate(_PRECISIONS):
            found = [row for row in here if row.precision == precision]
            axes.plot(
                [places.index(row.t) + 0.2 * (number - 1) for row in found],
                [abs(row.derivative) for row in found],
                MARKERS[number], color=INKS[number], markersize=5, label=precision,
                clip_on=False,
            )  # fmt: skip
        wrong = [
            (places.index(row.t), abs(row.exact))
            for row in here
            if row.precision == "float64" and row.exact
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
    cost=Cost("60 points by hand", "1 s", "1 core", measured=True),
    cost_reduced=Cost("the same", "1 s", "1 core", measured=True),
    row=Row,
    measure=measure,
    draw=draw,
    summarise=lambda rows: [line(row) for row in rows if row.program == _ZERO],
    reduced_cannot="The reduced run is the whole experiment.",
)
