"""Ours: one function in the spellings of those who write it, and whose gradient is right.

Over the reals all spellings are one function. What AD returns at its kink is put together from what
it picks in each call; where two calls have their kinks at one place the sum may be outside of all
that a gradient can be. Then a network that meets such kinks is trained in each spelling.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from kinkcheck import data
from kinkcheck.check import check
from kinkcheck.data import Images
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.paper.gradients import drawn
from kinkcheck.paper.parts import kept
from kinkcheck.paper.spelled import FUNCTIONS, LEAKY_RELU, Spelling, right, vector_text
from kinkcheck.paper.training_figures import by, half
from kinkcheck.paper.trainings import number
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


def measure(setup: Setup) -> list[Row]:
    """What AD returns for each spelling at each kink, and trainings in some of them."""
    rows = judged()
    standings = {str(row["spelling"]): row["standing"] for row in rows}
    images, epochs, seeds = (2000, 3, 5) if setup.reduced else (60000, 10, 10)
    train = data.load("mnist", "train", data_dir=setup.data_dir).take(images)
    test = data.load("mnist", "test", data_dir=setup.data_dir)
    for done, (setting, seed) in enumerate((s, n) for s in _SETTINGS for n in range(seeds)):
        setup.on_progress("trainings", done, len(_SETTINGS) * seeds)
        rows += [
            {**row, "standing": standings[str(row["spelling"])]}
            for row in kept(
                setup,
                f"{setting}, {images}, {epochs}, {seed}",
                partial(trained, train, test, setting, epochs, seed, setup.device),
            )
        ]
    return rows


def judged() -> list[Row]:
    """For each spelling and kink what AD returns, what would be right, and the standing.

    >>> [row["returned"] for row in judged() if row["spelling"] == "relu(x) - relu(-x)"]
    ['0']
    """
    rows: list[Row] = []
    for function in FUNCTIONS:
        for place, limits in function.kinks.items():
            for name, spelling in function.spellings.items():
                x = torch.tensor(place, dtype=torch.float64, requires_grad=True)
                (gradient,) = torch.autograd.grad(spelling(x).sum(), x)
                found = check(spelling, x, raise_exception=False)
                (entry,) = found.entries
                rows.append(
                    {
                        "part": "spelling",
                        "function": function.name,
                        "of_a_number": len(place) == 1,
                        "kink": vector_text(place),
                        "spelling": name,
                        "returned": vector_text(tuple(gradient.tolist())),
                        "right": right(limits),
                        "standing": str(found.kind),
                        "by_quotients": entry.by_quotients,
                        "why": entry.why,
                    }
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
) -> list[Row]:
    """A training in each spelling, all from one start and on the same mini-batches.

    Pixels are given from 0 to 1, so that black is 0. ``apart`` is ‖θ − θ'‖₁ to the first spelling
    at the end, in % of the way that the first has gone from the start; ``met_first`` and ``met``
    are the shares of activations at the kink, in the first step and in all, in %.

    Args:
        train: digits to learn.
        test: others.
        setting: ``float32`` or ``4-bit activations``.
        epochs: how many.
        seed: of the start and of the order.
        device: where.
    """
    rows: list[Row] = []
    first: nn.Module | None = None
    way = 0.0
    for name in TRAINED:
        spelling = LEAKY_RELU[name]
        factory = partial(network, spelling, _SETTINGS[setting])
        start = drawn(factory, seed).to(device)
        model = drawn(factory, seed).to(device)
        said = _train(model, train, epochs, seed, device)
        if first is None:
            first, way = model, distance(model, start)
        x = torch.zeros(1, requires_grad=True)
        (slope,) = torch.autograd.grad(spelling(x).sum(), x)
        rows.append(
            {
                "part": "training", "setting": setting, "spelling": name, "seed": seed,
                "slope": round(slope.item(), 6), "accuracy": _accuracy(model, test, device),
                "apart": 100 * distance(first, model) / way, **said,
            }
        )  # fmt: skip
    return rows


def _train(model: nn.Module, images: Images, epochs: int, seed: int, device: str) -> Row:
    optimiser = torch.optim.SGD(model.parameters(), lr=_RATE, momentum=_MOMENTUM)
    spelled = [each for each in model.modules() if isinstance(each, Spelled)]
    met_first: float | None = None
    for epoch in range(epochs):
        for x, y in _batches(images, device, seed=1000 * seed + epoch):
            optimiser.zero_grad()
            torch.autograd.backward(F.cross_entropy(model(x), y))
            optimiser.step()
            if met_first is None:
                met_first = _met(spelled)
    return {"met_first": met_first, "met": _met(spelled)}


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


def differences(rows: Sequence[Row]) -> list[Row]:
    """Each spelling's trainings beside those of the first, seed by seed, with Student's interval.

    >>> row = {"part": "training", "setting": "float32", "slope": 0.1, "standing": "limit",
    ...        "apart": 0.0, "met_first": 50.0, "met": 5.0}
    >>> rows = [{**row, "spelling": name, "seed": seed, "accuracy": accuracy + seed}
    ...         for name, accuracy in (("a", 90.0), ("b", 89.0)) for seed in (0, 1)]
    >>> [(each["spelling"], each["difference"], each["low"]) for each in differences(rows)]
    [('a', None, None), ('b', -1.0, -1.0)]
    """
    found: list[Row] = []
    trainings = [row for row in rows if row["part"] == "training"]
    for (setting,), together in by(trainings, ["setting"]).items():
        spelled = by(together, ["spelling"])
        first, *_ = spelled.values()
        for (name,), runs in spelled.items():
            accuracies = [number(row["accuracy"]) for row in runs]
            said: Row = {
                "setting": str(setting),
                "spelling": str(name),
                "slope": runs[0]["slope"],
                "standing": runs[0]["standing"],
                "runs": len(runs),
                **{
                    key: statistics.fmean(number(row[key]) for row in runs)
                    for key in ("met_first", "met", "apart", "accuracy")
                },
                "difference": None,
                "low": None,
                "high": None,
            }
            if runs is not first:
                apart = [a - number(b["accuracy"]) for a, b in zip(accuracies, first, strict=True)]
                mean, reach = statistics.fmean(apart), half(apart)
                said["difference"] = mean
                if len(apart) > 1:
                    said |= {"low": mean - reach, "high": mean + reach}
            found.append(said)
    return found


def summarise(rows: Sequence[Row]) -> list[Row]:
    """The spellings whose gradient does not stand, then the trainings in spellings of leaky ReLU.

    >>> {row["standing"] for row in summarise(judged())} <= {"wrong", "undecided"}
    True
    """
    names = ("function", "spelling", "returned", "standing")
    measured = ("met_first", "met", "apart", "accuracy", "difference", "low", "high")
    found = [
        {key: row[key] for key in names}
        for row in rows
        if row["part"] == "spelling" and row["standing"] in ("wrong", "undecided")
    ]
    for row in differences(rows):
        found.append(
            {
                "function": row["setting"],
                "spelling": row["spelling"],
                "returned": f"{row['slope']:g}",
                "standing": row["standing"],
                **{key: row[key] for key in measured},
            }
        )
    return found


def draw(rows: Sequence[Row]) -> Figure:
    """What AD returns for each spelling of a function of one number; then the trainings."""
    figure = Figure(figsize=(10.5, 9.0))
    left, right_half = figure.subplots(1, 2)
    numbers = [row for row in rows if row["part"] == "spelling" and row["of_a_number"]]
    _returned(left, numbers)
    _trainings(right_half, differences(rows))
    return figure


def _returned(axes: Axes, rows: Sequence[Row]) -> None:
    labels: list[object] = []
    for place, row in enumerate(rows):
        low, _, high = str(row["right"]).partition(" to ")
        start, end = float(low), float(high or low)
        axes.plot([start, end], [place, place], color="#bbbbbb", lw=5, solid_capstyle="projecting")
        value, kind = float(str(row["returned"])), _STANDINGS.index(str(row["standing"]))
        at = value if math.isfinite(value) else end
        axes.plot(
            [at], [place], MARKERS[kind], color=INKS[kind], ms=5,
            label=None if row["standing"] in labels else str(row["standing"]),
        )  # fmt: skip
        labels.append(row["standing"])
        if not math.isfinite(value):
            axes.annotate(f" {value}", (at, place), va="center", fontsize=7)
    names = [f"{row['spelling']}   at {row['kink']}" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=6)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("derivative at the kink; grey: what is right")
    axes.set_title("one function in several spellings")
    axes.legend(loc="lower right", framealpha=1)


def _trainings(axes: Axes, rows: Sequence[Row]) -> None:
    there = [row for row in rows if row["difference"] is not None]
    for place, row in enumerate(there):
        value, kind = number(row["difference"]), _STANDINGS.index(str(row["standing"]))
        known = row["low"] is not None
        axes.errorbar(
            [value], [place], color=INKS[kind], marker=MARKERS[kind], ms=5, capsize=2, lw=1,
            xerr=[[value - number(row["low"])], [number(row["high"]) - value]] if known else None,
        )  # fmt: skip
    axes.axvline(0, color="#777777", lw=0.8, linestyle=":")
    names = [f"{row['setting']}\n{row['spelling']}\nslope {row['slope']:g} at 0" for row in there]
    axes.set_yticks(range(len(there)), names, fontsize=7)
    axes.set_ylim(len(there) - 0.5, -0.5)
    axes.set_xlabel("test accuracy, points above leaky_relu")
    runs = "-".join(map(str, sorted({int(number(row["runs"])) for row in there})))
    axes.set_title(f"the same training in another spelling\n{runs} runs; 95 % intervals of pairs")


SPELLINGS = Experiment(
    name="spellings",
    source="kinkcheck",
    shows="what AD returns for one function in several spellings, what of it is right, and whether "
    "a wrong spelling harms a training",
    cost="100 trainings of a small network on 60,000 digits, 10 epochs; hours on one CPU core "
    "(an estimate)",
    cost_reduced="50 trainings on 2,000 digits, 3 epochs; half a minute on one busy core",
    measure=measure,
    draw=draw,
    summarise=summarise,
    reduced_cannot=(
        "The table of spellings is whole. The reduced run trains on 2,000 digits for 3 epochs: it "
        "can show a loss of a point or so, nothing of trainings to their end."
    ),
)
