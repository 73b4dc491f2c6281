"""Draw the picture of the home page from what PyTorch returns. Run from the root.

``python tools/home_figure.py`` writes ``docs/assets/kinks.svg``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import kinkcheck
from kinkcheck.report import ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE = Path("docs/assets/kinks.svg")


@dataclass(frozen=True)
class Program:
    """A program of one number, as it is written, and what is chosen at its kink."""

    said: str
    function: Callable[[Tensor], Tensor]
    selection: str = "native"


@dataclass(frozen=True)
class Panel:
    """A function, its kink, and programs that compute it."""

    title: str
    at: float
    programs: tuple[Program, ...]


PANELS = (
    Panel(
        "A choice: both are right",
        0.0,
        (
            Program("relu(x)", torch.relu),
            Program("where(x >= 0, x, 0)", lambda x: torch.where(x >= 0, x, 0)),
        ),
    ),
    Panel(
        "A mistake: the slope is 1",
        0.0,
        (Program("relu(x) − relu(−x)", lambda x: torch.relu(x) - torch.relu(-x)),),
    ),
    Panel(
        "A convention that changed",
        1.0,
        tuple(
            Program(
                f"clamp(x, −1, 1), PyTorch {version}",
                lambda x: x.clamp(-1, 1),
                f"as:torch-{version}",
            )
            for version in ("2.13", "2.14")
        ),
    ),
)


def told(program: Program, at: float) -> tuple[float, str]:
    """The derivative that AD returns at a kink, and what it is."""
    x = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    with kinkcheck.record() as tape:
        value = program.function(x).sum()
    slope = tape.gradient(value, x, choose=program.selection)[0].item()
    found = kinkcheck.check(
        program.function, x, selections=[program.selection], raise_exception=False
    )
    return slope, found.kind.value


def numbers() -> str:
    """All that the picture says, in a line."""
    return "; ".join(
        "{}: {:g}, {}".format(program.said, *told(program, panel.at))
        for panel in PANELS
        for program in panel.programs
    )


def draw() -> Figure:
    """The picture: functions, and the slopes that AD returns at their kinks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.8))
    for axes, panel in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        _draw(axes, panel)
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    x = torch.linspace(panel.at - 1, panel.at + 1, 3, dtype=torch.float64)
    function = panel.programs[0].function
    axes.plot(x, function(x), color="#bbbbbb", linewidth=5, solid_capstyle="round")
    at = function(torch.tensor([panel.at], dtype=torch.float64)).item()
    for number, program in enumerate(panel.programs):
        slope, kind = told(program, panel.at)
        right = "wrong" if kind == "wrong" else "right"
        axes.plot(
            [panel.at - 0.6, panel.at + 0.6],
            [at - 0.6 * slope, at + 0.6 * slope],
            color=ink.INKS[1] if kind == "wrong" else ink.INKS[2 * number],
            linestyle=ink.LINES[number],
            linewidth=2,
            label=f"{program.said}\nAD returns {slope:g}: {right}",
        )
    axes.plot([panel.at], [at], "o", color=ink.INKS[0])
    axes.set_title(panel.title)
    axes.set_xlabel("x")
    axes.locator_params(nbins=4)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.22), borderaxespad=0)


if __name__ == "__main__":
    FIGURE.write_bytes(ink.save(draw, "svg", numbers()))
