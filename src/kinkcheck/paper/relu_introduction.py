"""[B21], introduction: ReLU'(0) and ReLU6', in programs that compute one function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from kinkcheck.arithmetic.precision import PRECISIONS
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.programs import relu1, relu2
from kinkcheck.report.ink import INKS, MARKERS

_PRECISIONS = ("float16", "float32", "float64")
_NEAR = 0.5  # away from a kink, where all programs agree


def _relu3(x: Tensor) -> Tensor:
    """The mean of both: derivative 1/2 at 0."""
    return (relu1(x) + relu2(x)) / 2


def _relu6(x: Tensor, relu: Callable[[Tensor], Tensor]) -> Tensor:
    """ReLU6 as a difference of two ReLUs."""
    return relu(x) - relu(x - 6)


PROGRAMS: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {
    "ReLU": {
        "relu1: torch.relu": relu1,
        "relu2: where(x >= 0, x, 0)": relu2,
        "relu3: (relu1 + relu2) / 2": _relu3,
    },
    "ReLU6": {
        "torch's relu6": F.relu6,
        "relu1(x) - relu1(x - 6)": partial(_relu6, relu=relu1),
        "relu2(x) - relu2(x - 6)": partial(_relu6, relu=relu2),
    },
}
"""Programs of each function; the first is what the others are subtracted from."""

KINKS = {"ReLU": (0.0,), "ReLU6": (0.0, 6.0)}
"""Where each function has no derivative."""


def measure(setup: Setup) -> list[Row]:
    """Value and derivative of every program at the kinks and beside them, in 16, 32 and 64 bits.

    ``difference`` is the derivative of this program minus the first of its function: the
    derivative of a program that is 0 everywhere.

    >>> from pathlib import Path
    >>> rows = measure(Setup(Path()))
    >>> [row["derivative"] for row in rows if (row["function"], row["x"]) == ("ReLU", 0.0)][:3]
    [0.0, 1.0, 0.5]
    """
    rows: list[Row] = []
    for function, programs in PROGRAMS.items():
        places = sorted({k + d for k in KINKS[function] for d in (-_NEAR, 0.0, _NEAR)})
        first = next(iter(programs.values()))
        for precision in _PRECISIONS:
            dtype = PRECISIONS[precision].storage
            for place in places:
                for name, program in programs.items():
                    value, derivative = _at(program, place, dtype)
                    rows.append(
                        {
                            "function": function,
                            "program": name,
                            "precision": precision,
                            "x": place,
                            "value": value,
                            "derivative": derivative,
                            "difference": derivative - _at(first, place, dtype)[1],
                        }
                    )
        setup.on_progress("programs", 1 + list(PROGRAMS).index(function), len(PROGRAMS))
    return rows


def _at(program: Callable[[Tensor], Tensor], x: float, dtype: torch.dtype) -> tuple[float, float]:
    at = torch.tensor(x, dtype=dtype, requires_grad=True)
    value = program(at)
    (derivative,) = torch.autograd.grad(value, at)
    return value.item(), derivative.item()


def draw(rows: Sequence[Row]) -> Figure:
    """The derivative of every program at every x, a panel a function; float32."""
    functions = list(dict.fromkeys(str(row["function"]) for row in rows))
    figure = Figure(figsize=(3.2 * len(functions), 3.4))
    panels = figure.subplots(1, len(functions), sharey=True, squeeze=False)[0]
    for axes, function in zip(panels, functions, strict=True):
        here = [
            row for row in rows if row["function"] == function and row["precision"] == "float32"
        ]
        places = sorted({float(row["x"] or 0) for row in here})
        for number, program in enumerate(dict.fromkeys(str(row["program"]) for row in here)):
            found = [row for row in here if row["program"] == program]
            axes.plot(
                [places.index(float(row["x"] or 0)) + 0.15 * (number - 1) for row in found],
                [float(row["derivative"] or 0) for row in found],
                MARKERS[number], color=INKS[number], label=program,
            )  # fmt: skip
        axes.set_xticks(range(len(places)), [f"{place:g}" for place in places])
        axes.set_xlabel("x")
        axes.set_ylim(-0.1, 1.75)
        axes.set_yticks([0, 0.5, 1])
        axes.set_title(function)
        axes.legend(loc="upper left", fontsize=7)
    panels[0].set_ylabel("derivative by AD, float32")
    return figure


RELU_INTRODUCTION = Experiment(
    name="relu-introduction",
    source="B21, introduction: ReLU'(0), and ReLU6",
    shows="programs for ReLU and ReLU6, and the derivative that AD returns at their kinks",
    cost="9 places at three precisions; a second",
    cost_reduced="the same",
    measure=measure,
    draw=draw,
    summarise=lambda rows: [row for row in rows if row["precision"] == "float32"],
    reduced_cannot="The reduced run is the whole experiment.",
)
