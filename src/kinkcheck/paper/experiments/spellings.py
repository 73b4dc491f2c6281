"""Ours: one function in the spellings of those who write it, and whose gradient is right.

Over the reals all spellings are one function. What AD returns at its kink is put together from what
it picks in each call; where two calls have their kinks at one place the sum may be outside of all
that a gradient can be. Then a network that meets such kinks is trained in each spelling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from kinkcheck import data
from kinkcheck.check import check
from kinkcheck.data import Images
from kinkcheck.paper.experiments.spelled import FUNCTIONS, LEAKY_RELU, Spelling, right, vector_text
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.gradients import drawn
from kinkcheck.paper.harness.parts import all_kept
from kinkcheck.paper.harness.rows import Line, by, line
from kinkcheck.paper.harness.training_figures import half
from kinkcheck.report.ink import INKS, MARKERS
from kinkcheck.study.divergence import distance

TRAINED = (
    "leaky_relu(x, a)",
    "where(x >= 0, x, a*x)",
    "maximum(x, 0) + a*minimum(x, 0)",
    "relu(x) - a*relu(-x)",
    "clamp(x, min=0) + a*clamp(x, max=0)",
)
"""The spellings of the leaky ReLU that networks are trained in; the others are compared with the
first."""

_SETTINGS = {"float32": None, "4-bit activations": 7}
_BATCH, _RATE, _MOMENTUM = 64, 0.05, 0.9
_STANDINGS = ("derivative", "limit", "subgradient", "undecided", "wrong")


@dataclass(frozen=True)
class AtKink:
    """A spelling at a kink of its function.

    Attributes:
        part: ``spelling``.
        function: its name.
        of_a_number: whether it takes a number, not a vector.
        kink: where, in words.
        spelling: the program.
        returned: by AD, in words.
        right: what would be, in words.
        standing: what is returned.
        by_quotients: whether difference quotients alone tell.
        why: why nothing was decided.
    """

    part: str
    function: str
    of_a_number: bool
    kink: str
    spelling: str
    returned: str
    right: str
    standing: str
    by_quotients: bool
    why: str | None


@dataclass(frozen=True)
class Training:
    """A training in one spelling of the leaky ReLU.

    Attributes:
        part: ``training``.
        setting: ``float32`` or ``4-bit activations``.
        spelling: the program.
        seed: of the start and of the order.
        slope: what AD returns at 0.
        accuracy: on the test images, in percent.
        apart: ‖θ − θ'‖₁ to the first spelling at the end, in percent of the way that the first has
            gone from the start.
        met_first, met: the share of activations at the kink, in the first step and in all, in
            percent.
        standing: of what AD returns at 0; None until that is known.
    """

    part: str
    setting: str
    spelling: str
    seed: int
    slope: float
    accuracy: float
    apart: float
    met_first: float
    met: float
    standing: str | None = None


Row = AtKink | Training


def measure(setup: Setup) -> list[Row]:
    """What AD returns for each spelling at each kink, and trainings in some of them."""
    spelled = judged()
    standings = {row.spelling: row.standing for row in spelled}
    rows: list[Row] = [*spelled]
    images, epochs, seeds = (2000, 3, 5) if setup.reduced else (60000, 10, 10)
    train = data.load("mnist", "train", data_dir=setup.data_dir).take(images)
    test = data.load("mnist", "test", data_dir=setup.data_dir)
    parts = {
        f"{setting}, {images}, {epochs}, {seed}": partial(
            _one_seed, train, test, setting, epochs, seed
        )
        for setting in _SETTINGS
        for seed in range(seeds)
    }
    for found in all_kept(setup, Training, parts).values():
        rows += [replace(row, standing=standings[row.spelling]) for row in found]
    return rows


def _one_seed(
    train: Images, test: Images, setting: str, epochs: int, seed: int, setup: Setup
) -> list[Training]:
    return trained(train, test, setting, epochs, seed, setup.device)


def judged() -> list[AtKink]:
    """For each spelling and kink what AD returns, what would be right, and the standing.

    >>> [row.returned for row in judged() if row.spelling == "relu(x) - relu(-x)"]
    ['0']
    """
    rows: list[AtKink] = []
    for function in FUNCTIONS:
        for place, limits in function.kinks.items():
            for name, spelling in function.spellings.items():
                x = torch.tensor(place, dtype=torch.float64, requires_grad=True)
                (gradient,) = torch.autograd.grad(spelling(x).sum(), x)
                found = check(spelling, x, raise_exception=False)
                (entry,) = found.entries
                rows.append(
                    AtKink(
                        part="spelling",
                        function=function.name,
                        of_a_number=len(place) == 1,
                        kink=vector_text(place),
                        spelling=name,
                        returned=vector_text(tuple(gradient.tolist())),
                        right=right(limits),
                        standing=str(found.kind),
                        by_quotients=entry.by_quotients,
                        why=entry.why,
                    )
                )
    return rows


class Spelled(nn.Module):
    """A leaky ReLU in one spelling, which counts how often it meets its kink.

    Args:
        spelling: the program.
        steps: to each side of 0 to which its inputs are rounded, by fake quantisation; None for
            none.
    """

    def __init__(self, spelling: Spelling, steps: int | None) -> None:
        super().__init__()
        self.spelling = spelling
        self.steps = steps
        self.met = self.all = 0

    def forward(self, input: Tensor) -> Tensor:
        """The inputs, rounded if so asked, under the leaky ReLU."""
        if self.steps is not None:
            scale = input.detach().abs().amax() / self.steps
            zero = torch.zeros((), dtype=torch.int32, device=input.device)
            input = torch.fake_quantize_per_tensor_affine(
                input, scale, zero, -self.steps, self.steps
            )
        if self.training:
            self.met += int((input == 0).sum())
            self.all += input.numel()
        return self.spelling(input)


def network(spelling: Spelling, steps: int | None = None) -> nn.Module:
    """A network for digits whose biases are 0 at the start, so that black borders meet the kink.

    >>> net = network(LEAKY_RELU["leaky_relu(x, a)"])
    >>> bool(net(torch.zeros(1, 1, 28, 28)).any())
    False
    """
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2), Spelled(spelling, steps),
        nn.Conv2d(8, 16, 5, stride=2), Spelled(spelling, steps),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model


def trained(
    train: Images, test: Images, setting: str, epochs: int, seed: int, device: str
) -> list[Training]:
    """A training in each spelling, all from one start and on the same mini-batches.

    Pixels are given from 0 to 1, so that black is 0.

    Args:
        train: digits to learn.
        test: others.
        setting: ``float32`` or ``4-bit activations``.
        epochs: how many.
        seed: of the start and of the order.
        device: where.
    """
    rows: list[Training] = []
    first: nn.Module | None = None
    way = 0.0
    for name in TRAINED:
        spelling = LEAKY_RELU[name]
        factory = partial(network, spelling, _SETTINGS[setting])
        start = drawn(factory, seed).to(device)
        model = drawn(factory, seed).to(device)
        met_first, met = _train(model, train, epochs, seed, device)
        if first is None:
            first, way = model, distance(model, start)
        x = torch.zeros(1, requires_grad=True)
        (slope,) = torch.autograd.grad(spelling(x).sum(), x)
        rows.append(
            Training(
                part="training", setting=setting, spelling=name, seed=seed,
                slope=round(slope.item(), 6), accuracy=_accuracy(model, test, device),
                apart=100 * distance(first, model) / way, met_first=met_first, met=met,
            )
        )  # fmt: skip
    return rows


def _train(
    model: nn.Module, images: Images, epochs: int, seed: int, device: str
) -> tuple[float, float]:
    """Train, and say the share of activations at the kink, in the first step and in all."""
    optimiser = torch.optim.SGD(model.parameters(), lr=_RATE, momentum=_MOMENTUM)
    spelled = [each for each in model.modules() if isinstance(each, Spelled)]
    met_first = math.nan
    for epoch in range(epochs):
        for x, y in _batches(images, device, seed=1000 * seed + epoch):
            optimiser.zero_grad()
            torch.autograd.backward(F.cross_entropy(model(x), y))
            optimiser.step()
            if math.isnan(met_first):
                met_first = _met(spelled)
    return met_first, _met(spelled)


def _met(spelled: Sequence[Spelled]) -> float:
    return 100 * sum(each.met for each in spelled) / sum(each.all for each in spelled)


def _batches(
    images: Images, device: str, seed: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pixels from 0, which is black, to 1, and labels."""
    for x, y in images.batches(_BATCH, seed=seed):
        yield ((x + 1) / 2).to(device), y.to(device)  # digits are normalised to -1 to 1


def _accuracy(model: nn.Module, images: Images, device: str) -> float:
    model.eval()
    with torch.no_grad():
        hits = [(model(x).argmax(1) == y).sum() for x, y in _batches(images, device)]
    return 100 * int(torch.stack(hits).sum()) / len(images)


@dataclass(frozen=True)
class Difference:
    """A spelling's trainings beside those of the first, seed by seed.

    Attributes:
        setting, spelling, slope, standing: as in :class:`Training`.
        runs: how many.
        met_first, met, apart, accuracy: means over the runs.
        difference: of the accuracies, in points; None for the first spelling.
        low, high: its 95 % interval, by Student's t; None where one run says nothing of it.
    """

    setting: str
    spelling: str
    slope: float
    standing: str | None
    runs: int
    met_first: float
    met: float
    apart: float
    accuracy: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None


def differences(rows: Sequence[Row]) -> list[Difference]:
    """Each spelling's trainings beside those of the first.

    >>> rows = [Training("training", "float32", name, seed, 0.1, accuracy + seed, 0.0, 50.0, 5.0)
    ...         for name, accuracy in (("a", 90.0), ("b", 89.0)) for seed in (0, 1)]
    >>> [(each.spelling, each.difference, each.low) for each in differences(rows)]
    [('a', None, None), ('b', -1.0, -1.0)]
    """
    found: list[Difference] = []
    trainings = [row for row in rows if isinstance(row, Training)]
    for setting, together in by(trainings, lambda row: row.setting).items():
        spelled = by(together, lambda row: row.spelling)
        first, *_ = spelled.values()
        for name, runs in spelled.items():
            said = Difference(
                setting=setting,
                spelling=name,
                slope=runs[0].slope,
                standing=runs[0].standing,
                runs=len(runs),
                met_first=fmean(run.met_first for run in runs),
                met=fmean(run.met for run in runs),
                apart=fmean(run.apart for run in runs),
                accuracy=fmean(run.accuracy for run in runs),
            )
            if runs is not first:
                apart = [a.accuracy - b.accuracy for a, b in zip(runs, first, strict=True)]
                mean, reach = fmean(apart), half(apart)
                said = replace(said, difference=mean)
                if len(apart) > 1:
                    said = replace(said, low=mean - reach, high=mean + reach)
            found.append(said)
    return found


def summarise(rows: Sequence[Row]) -> list[Line]:
    """The spellings whose gradient does not stand, then the trainings in spellings of leaky ReLU.

    >>> {row["standing"] for row in summarise(judged())} <= {"wrong", "undecided"}
    True
    """
    measured = ("met_first", "met", "apart", "accuracy", "difference", "low", "high")
    return [
        *(
            line(row, "function", "spelling", "returned", "standing")
            for row in rows
            if isinstance(row, AtKink) and row.standing in ("wrong", "undecided")
        ),
        *(
            {
                "function": row.setting,
                "spelling": row.spelling,
                "returned": f"{row.slope:g}",
                "standing": row.standing,
                **line(row, *measured),
            }
            for row in differences(rows)
        ),
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """What AD returns for each spelling of a function of one number; then the trainings."""
    figure = Figure(figsize=(10.5, 9.0))
    left, right_half = figure.subplots(1, 2)
    _returned(left, [row for row in rows if isinstance(row, AtKink) and row.of_a_number])
    _trainings(right_half, differences(rows))
    return figure


def _returned(axes: Axes, rows: Sequence[AtKink]) -> None:
    labels: list[str] = []
    for place, row in enumerate(rows):
        low, _, high = row.right.partition(" to ")
        start, end = float(low), float(high or low)
        axes.plot([start, end], [place, place], color="#bbbbbb", lw=5, solid_capstyle="projecting")
        value, kind = float(row.returned), _STANDINGS.index(row.standing)
        at = value if math.isfinite(value) else end
        axes.plot(
            [at], [place], MARKERS[kind], color=INKS[kind], ms=5,
            label=None if row.standing in labels else row.standing,
        )  # fmt: skip
        labels.append(row.standing)
        if not math.isfinite(value):
            axes.annotate(f" {value}", (at, place), va="center", fontsize=7)
    axes.set_yticks(
        range(len(rows)), [f"{row.spelling}   at {row.kink}" for row in rows], fontsize=6
    )
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("derivative at the kink; grey: what is right")
    axes.set_title("one function in several spellings")
    axes.legend(loc="lower right", framealpha=1)


def _trainings(axes: Axes, rows: Sequence[Difference]) -> None:
    there = [(row, row.difference) for row in rows if row.difference is not None]
    for place, (row, value) in enumerate(there):
        kind = _STANDINGS.index(str(row.standing))
        between = None
        if row.low is not None and row.high is not None:
            between = [[value - row.low], [row.high - value]]
        axes.errorbar(
            [value], [place], xerr=between, color=INKS[kind], marker=MARKERS[kind], ms=5,
            capsize=2, lw=1,
        )  # fmt: skip
    axes.axvline(0, color="#777777", lw=0.8, linestyle=":")
    names = [f"{row.setting}\n{row.spelling}\nslope {row.slope:g} at 0" for row, _ in there]
    axes.set_yticks(range(len(there)), names, fontsize=7)
    axes.set_ylim(len(there) - 0.5, -0.5)
    axes.set_xlabel("test accuracy, points above leaky_relu")
    runs = "-".join(map(str, sorted({row.runs for row, _ in there})))
    axes.set_title(f"the same training in another spelling\n{runs} runs; 95 % intervals of pairs")


SPELLINGS = Experiment(
    name="spellings",
    source="kinkcheck",
    shows="what AD returns for one function in several spellings, what of it is right, and whether "
    "a wrong spelling harms a training",
    cost=Cost(
        "100 trainings of a small network on 60,000 digits, 10 epochs",
        "hours",
        "1 core",
        ("mnist",),
    ),
    cost_reduced=Cost(
        "50 trainings on 2,000 digits, 3 epochs",
        "30 s",
        "1 busy core",
        ("mnist",),
        measured=True,
    ),
    row=Row,
    measure=measure,
    draw=draw,
    summarise=summarise,
    spreads=True,
    reduced_cannot=(
        "The table of spellings is whole. The reduced run trains on 2,000 digits for 3 epochs: it "
        "can show a loss of a point or so, nothing of trainings to their end."
    ),
)
