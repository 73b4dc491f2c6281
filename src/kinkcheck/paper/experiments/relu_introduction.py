"""[B21], introduction: ReLU'(0) and ReLU6' in programs that compute one function, and what follows.

Three networks start equal and see the same mini-batches: two under the native derivative, one
under another. They move apart at the first step whose gradient the choice changes. Around the
parameters of that step, a plane shows where else it does: the bifurcation zone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from kinkcheck import nn as knn
from kinkcheck.arithmetic.precision import PRECISIONS, parse
from kinkcheck.data import Images
from kinkcheck.paper.harness.case import Batch, Case, Mlp, Size, replaced
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.gradients import against_native, drawn
from kinkcheck.paper.harness.loop import endless, seeing, step
from kinkcheck.paper.harness.parts import Measure, all_kept
from kinkcheck.paper.harness.rows import Line, by, line
from kinkcheck.programs import relu1, relu2
from kinkcheck.report.ink import INKS, MARKERS
from kinkcheck.selection import Branch, Kinks, Selection

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


@dataclass(frozen=True)
class At:
    """A program at an input.

    Attributes:
        function: what it computes.
        program: its name.
        precision: of the input and of all that is computed.
        x: the input.
        value, derivative: as computed.
        difference: the derivative minus that of the first program of the function: the derivative
            of a program that is 0 everywhere.
    """

    function: str
    program: str
    precision: str
    x: float
    value: float
    derivative: float
    difference: float


@dataclass(frozen=True)
class Step:
    """One of three networks before a step.

    Attributes:
        function: of its hidden neurons.
        precision: name.
        network: its number: 0 and 2 are native, 1 has the slope 1 at each kink.
        step: steps taken.
        distance: ‖θ_i − θ_0‖₁ from network 0, over all parameters, in float64.
        nearest: how near a kink the numbers are that the function is given, at the least.
        at_kinks: how many of them are at a kink.
        loss: of the mini-batch.
    """

    function: str
    precision: str
    network: int
    step: int
    distance: float
    nearest: float
    at_kinks: int
    loss: float


@dataclass(frozen=True)
class Plane:
    """The plane θ + a u + b v, with a and b from -1 to 1.

    Attributes:
        function: of the hidden neurons.
        precision: name.
        step: whose parameters of network 0 are θ, and whose mini-batch the gradients are of: the
            first after which networks 0 and 1 differ, or 0 where they never do.
        scale: standard deviation of the entries of u and v.
        side: points along a side.
    """

    function: str
    precision: str
    step: int
    scale: float
    side: int


@dataclass(frozen=True)
class Corner:
    """A point of a plane at which the choice changes the gradient.

    Attributes:
        function: of the hidden neurons.
        precision: name.
        a, b: coordinates.
        variation: l1 norm by which the gradients differ of native and of slope 1 at each kink.
    """

    function: str
    precision: str
    a: float
    b: float
    variation: float


Row = At | Step | Plane | Corner
_Measured = Step | Plane | Corner


@dataclass(frozen=True)
class Plan:
    """What is measured beside the programs.

    Attributes:
        network: the network.
        steps: of the trainings.
        side: points along a side of a plane.
        precisions: names.
        planes: functions that have one.
    """

    network: Mlp = field(default_factory=partial(Mlp, layers=3, neurons=2048))
    steps: int = 100 * 468
    side: int = 81
    precisions: tuple[str, ...] = ("float16", "float32")
    planes: tuple[str, ...] = ("ReLU", "ReLU6")


_REDUCED = Plan(Mlp(layers=3, neurons=1024), steps=100, side=25, planes=("ReLU",))
_RATE = 0.01
_FAMILIES = {"ReLU": "relu", "ReLU6": "hardtanh"}
_OTHER: dict[str, Selection] = {"ReLU": Branch(1.0), "ReLU6": Kinks((1.0, 0.0))}  # slope 1


def measure(setup: Setup, plan: Plan | None = None) -> list[Row]:
    """The programs at kinks, three networks by step, and the plane where two of them part.

    Stochastic gradient descent on MNIST, mini-batches of 128, learning rate 0.01, no momentum. The
    directions u and v of a plane are normal numbers, seeds 0 and 1, times a quarter of the unit
    roundoff, by which the parameters move by roundings.

    Args:
        setup: where.
        plan: what is measured; by default the reduced or the full size.

    Raises:
        InputError: the images are not there.
    """
    plan = plan or (_REDUCED if setup.reduced else Plan())
    case = Case(plan.network, "mnist", Size(1, plan.steps))
    images = case.images(setup.data_dir)
    parts: dict[str, Measure[_Measured]] = {}
    for function in KINKS:
        side = plan.side if function in plan.planes else 0
        for precision in plan.precisions:
            name = f"{plan.network} {function} {precision} {plan.steps} plane {side}"
            parts[name] = partial(_trained, case, images, function, precision, side)
    measured: dict[str, list[_Measured]] = all_kept(setup, _Measured, parts)
    return [*programs(), *(row for rows in measured.values() for row in rows)]


def _built(case: Case, images: Images, function: str) -> nn.Module:
    model = drawn(case.factory(images), 0)
    return replaced(model, nn.ReLU, lambda _: nn.ReLU6()) if function == "ReLU6" else model


def _trained(
    case: Case, images: Images, function: str, precision: str, side: int, setup: Setup
) -> list[_Measured]:
    """Three networks by step, then the plane at the step at which two of them part."""
    held = parse(precision)
    start = held.cast_model(_built(case, images, function), setup.device)
    models = [
        knn.convert(copy.deepcopy(start), **{_FAMILIES[function]: _OTHER[function]})
        if number == 1
        else copy.deepcopy(start)
        for number in range(3)
    ]
    optimizers = [torch.optim.SGD(model.parameters(), lr=_RATE) for model in models]
    near: list[Tensor] = []
    rows: list[_Measured] = []
    parting: tuple[int, nn.Module, Batch] | None = None
    before: tuple[int, nn.Module, Batch] | None = None

    def see(given: Tensor) -> None:
        gaps = torch.stack([(given.detach().double() - kink).abs() for kink in KINKS[function]])
        near.append(gaps.min(0).values.flatten())

    batches = islice(endless(images, case.size.batch_size), case.size.batches)
    for number, pair in enumerate(batches):
        distances = [
            sum(
                float((p.detach().double() - q.detach().double()).abs().sum())
                for p, q in zip(model.parameters(), models[0].parameters(), strict=True)
            )
            for model in models
        ]
        if parting is None:
            parting = before if distances[1] else None
            before = number, copy.deepcopy(models[0]), pair
        for index, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            near.clear()
            with seeing(model, see):
                loss = step(model, optimizer, pair, held)
            gaps = torch.cat(near)
            rows.append(
                Step(
                    function, precision, index, number, distances[index], float(gaps.min()),
                    int((gaps == 0).sum()), loss,
                )
            )  # fmt: skip
    if side:
        first = next(endless(images, case.size.batch_size))
        rows += _plane(function, precision, side, *(parting or (0, start, first)), setup)
    return rows


def _plane(
    function: str, precision: str, side: int, number: int, model: nn.Module, pair: Batch,
    setup: Setup,
) -> list[_Measured]:  # fmt: skip
    model = model.to("cpu", torch.float64)  # a parameter that moves is rounded once
    start = [each.detach().clone() for each in model.parameters()]
    scale = parse(precision).unit_roundoff / 4
    u, v = (
        [scale * torch.randn(each.shape, generator=generator).double() for each in start]
        for generator in (torch.Generator().manual_seed(seed) for seed in (0, 1))
    )
    places = torch.linspace(-1, 1, side).tolist()
    rows: list[_Measured] = [Plane(function, precision, number, scale, side)]
    for a in places:
        for b in places:
            with torch.no_grad():
                for each, at, along, across in zip(model.parameters(), start, u, v, strict=True):
                    each.copy_(at + a * along + b * across)
            found = against_native(
                model, pair, precision, setup.device, _FAMILIES[function], _OTHER[function]
            )
            if found.l1:
                rows.append(Corner(function, precision, a, b, found.l1))
    return rows


def programs() -> list[At]:
    """Value and derivative of every program at the kinks and beside them, in 16, 32 and 64 bits.

    >>> [row.derivative for row in programs() if (row.function, row.x) == ("ReLU", 0.0)][:3]
    [0.0, 1.0, 0.5]
    """
    rows: list[At] = []
    for function, programs in PROGRAMS.items():
        places = sorted({k + d for k in KINKS[function] for d in (-_NEAR, 0.0, _NEAR)})
        first = next(iter(programs.values()))
        for precision in _PRECISIONS:
            dtype = PRECISIONS[precision].storage
            for place in places:
                for name, program in programs.items():
                    value, derivative = _at(program, place, dtype)
                    rows.append(
                        At(
                            function=function,
                            program=name,
                            precision=precision,
                            x=place,
                            value=value,
                            derivative=derivative,
                            difference=derivative - _at(first, place, dtype)[1],
                        )
                    )
    return rows


def _at(program: Callable[[Tensor], Tensor], x: float, dtype: torch.dtype) -> tuple[float, float]:
    at = torch.tensor(x, dtype=dtype, requires_grad=True)
    value = program(at)
    (derivative,) = torch.autograd.grad(value, at)
    return value.item(), derivative.item()


def draw(rows: Sequence[Row]) -> Figure:
    """Derivatives at kinks, distances and how near kinks are, a column a function; then planes."""
    functions = list(dict.fromkeys(row.function for row in rows))
    planes = [row for row in rows if isinstance(row, Plane)]
    trained = any(isinstance(row, Step) for row in rows)
    columns = len(functions)
    above = 1 + 2 * trained
    lines = above + math.ceil(len(planes) / columns)
    figure = Figure(figsize=(4.2 * columns, 2.4 * above + 3.4 * (lines - above) + 0.4))
    panels = figure.subplots(
        lines, columns, squeeze=False, height_ratios=[2.4] * above + [3.4] * (lines - above)
    )
    for column, function in enumerate(functions):
        here = [row for row in rows if row.function == function]
        top, *others = panels[:above, column]
        _draw_programs(top, function, [row for row in here if isinstance(row, At)])
        if trained:
            _draw_steps(others[0], others[1], [row for row in here if isinstance(row, Step)])
    places = panels[above:].flat
    for plane, axes in zip(planes, places, strict=False):
        _draw_plane(axes, plane, _corners(plane, rows))
    for axes in places:
        axes.set_axis_off()
    return figure


def _draw_programs(axes: Axes, function: str, rows: Sequence[At]) -> None:
    rows = [row for row in rows if row.precision == "float32"]
    places = sorted({row.x for row in rows})
    for number, (program, found) in enumerate(by(rows, lambda row: row.program).items()):
        axes.plot(
            [places.index(row.x) + 0.15 * (number - 1) for row in found],
            [row.derivative for row in found],
            MARKERS[number], color=INKS[number], label=program,
        )  # fmt: skip
    axes.set_xticks(range(len(places)), [f"{place:g}" for place in places])
    axes.set_xlabel("x")
    axes.set_ylim(-0.1, 1.75)
    axes.set_yticks([0, 0.5, 1])
    axes.set_title(function)
    axes.set_ylabel("derivative by AD, float32")
    axes.legend(loc="upper left", fontsize=7)


def _draw_steps(distances: Axes, nearest: Axes, rows: Sequence[Step]) -> None:
    for number, (precision, found) in enumerate(by(rows, lambda row: row.precision).items()):
        for network, own in by(found, lambda row: row.network).items():
            if network:
                distances.plot(
                    [row.step for row in own], [row.distance for row in own], lw=1,
                    color=INKS[number], linestyle="-" if network == 1 else ":",
                    label=f"{precision}, {'slope 1' if network == 1 else 'native again'}",
                )  # fmt: skip
        first = [row for row in found if row.network == 0]
        nearest.plot(
            [row.step for row in first], [row.nearest for row in first], lw=0.7,
            color=INKS[number], label=precision,
        )  # fmt: skip
    distances.set_ylabel("distance from network 0, l1")
    nearest.set_yscale("symlog", linthresh=1e-9)
    nearest.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    nearest.set_ylabel("least distance from a kink")
    for axes in (distances, nearest):
        axes.set_xlabel("step")
        axes.legend(fontsize=7, loc="upper left")


def _corners(plane: Plane, rows: Sequence[Row]) -> list[Corner]:
    """Where on a plane the choice changes the gradient."""
    return [
        row
        for row in rows
        if isinstance(row, Corner)
        and (row.function, row.precision) == (plane.function, plane.precision)
        and row.variation
    ]


def _draw_plane(axes: Axes, plane: Plane, rows: Sequence[Corner]) -> None:
    places = np.linspace(-1, 1, plane.side)
    sizes = np.full((plane.side, plane.side), np.nan)
    for row in rows:
        a, b = (np.abs(places - each).argmin() for each in (row.a, row.b))
        sizes[b, a] = math.log10(row.variation)
    drawn = axes.pcolormesh(places, places, sizes, cmap="viridis", shading="nearest")
    axes.set_facecolor("#dddddd")
    axes.set_aspect("equal")
    where = f"{plane.function}, {plane.precision}, step {plane.step}"
    axes.set_title(f"{where}: grey where equal", fontsize=8)
    axes.set_xlabel("a")
    axes.set_ylabel("b")
    if rows:
        axes.figure.colorbar(drawn, ax=axes, label="log₁₀ D, l1")


def summarise(rows: Sequence[Row]) -> list[Line]:
    """Where the networks part, and how much of the plane lies in the zone.

    >>> steps = [Step("ReLU", "float32", 1, n, float(n == 2), 0.1, 0, 2.3) for n in range(3)]
    >>> (found,) = summarise([*steps, Plane("ReLU", "float32", 1, 1e-8, 2),
    ...                       Corner("ReLU", "float32", -1.0, 1.0, 0.5)])
    >>> found["differ from step"], found["of the plane in the zone, %"]
    (2, 25.0)
    """
    found: list[Line] = []
    cells = by(
        (row for row in rows if not isinstance(row, At)), lambda r: (r.function, r.precision)
    )
    for (function, precision), together in cells.items():
        steps = [row for row in together if isinstance(row, Step)]
        shares = (
            100 * len(_corners(row, rows)) / row.side**2
            for row in together
            if isinstance(row, Plane)
        )
        parted, again = (
            next((row.step for row in steps if row.network == number and row.distance != 0), None)
            for number in (1, 2)
        )
        found.append(
            {
                "function": function,
                "precision": precision,
                "steps": max((row.step for row in steps), default=-1) + 1,
                "steps at a kink": sum(row.at_kinks > 0 for row in steps if row.network == 0),
                "differ from step": parted,
                "native again from step": again,
                "of the plane in the zone, %": next(shares, None),
            }
        )
    return found or [line(row) for row in rows if row.precision == "float32"]


RELU_INTRODUCTION = Experiment(
    name="relu-introduction",
    source="B21, introduction: ReLU'(0), and ReLU6",
    shows="programs for ReLU and ReLU6 and their derivatives at kinks; when networks part that "
    "were trained alike; where around that step the choice changes the gradient",
    cost=Cost(
        "3 networks of ReLU and 3 of ReLU6 at two precisions, 100 epochs; planes of 6,561 points",
        "1 day",
        "1 GPU",
        ("mnist",),
    ),
    cost_reduced=Cost(
        "narrower networks, 100 steps of each, two planes of 625 points",
        "4 min",
        "1 core",
        ("mnist",),
        measured=True,
    ),
    row=Row,
    measure=measure,
    draw=draw,
    summarise=summarise,
    spreads=True,
    reduced_cannot="The reduced run has 100 steps: it shows whether and when the networks part in "
    "16 bits, and may end before they do in 32.",
)
