"""Ours: is the published effect of ReLU'(0) that of a derivative, or of a line of its code?

The ReLU of the code published with [B21] returns α itself where its input is 0, in place of α times
the gradient that arrives (:class:`kinkcheck.nn.AssignedReLU`). Until a ReLU is given a zero, all
trainings that start equal are one. The reduced size trains up to that step, and from there under
each α and both backward passes; the full size is the published training under both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, product

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim import SGD

from kinkcheck import nn as knn
from kinkcheck.arithmetic.precision import parse
from kinkcheck.data import Images
from kinkcheck.paper.harness import training_figures, trainings
from kinkcheck.paper.harness.case import Batch, Case, Network, Size, replaced
from kinkcheck.paper.harness.comparison import Comparison
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.gradients import drawn
from kinkcheck.paper.harness.loop import endless, seeing, step, tested
from kinkcheck.paper.harness.parts import Measure, all_kept
from kinkcheck.paper.harness.rows import Line, by
from kinkcheck.paper.harness.trainings import Epoch, Final
from kinkcheck.report.ink import INKS, plain_numbers
from kinkcheck.selection import Branch
from kinkcheck.study.spec import Spec

ALPHAS = (0.0, 0.1, 0.2, 0.5, 1.0)

BACKWARD: dict[str, Callable[[float], nn.Module]] = {
    "exact": lambda alpha: knn.ReLU(selection=Branch(alpha)),
    "assigned": knn.AssignedReLU,
}
"""The ReLUs, by what a study calls their backward pass."""

RETURNED = {"exact": "α × gradient", "assigned": "α itself"}
"""What a ReLU returns at 0."""

FROM_ZERO = 10
"""Steps of each training from the first zero on."""

_HELD = parse("32")
_RATE = 0.01296  # the published one of α = 0, here of every α
_TESTED = 256  # images that the accuracy is of at reduced size
_REDUCED = tuple(Case(Network(name), "cifar10", Size(1, 400, 64)) for name in ("resnet18", "vgg11"))


@dataclass(frozen=True)
class Step:
    """A step of a training.

    Attributes:
        network: in words.
        alpha: α; None before the first zero, where all trainings of a network are one.
        backward: a key of :data:`BACKWARD`, or None likewise.
        batch_size: images in the step.
        step: its number, from 1.
        zeros: inputs of ReLUs that are exactly 0.
        gradient_norm: of all parameters, l2.
        loss: of the mini-batch, before the step.
    """

    network: str
    alpha: float | None
    backward: str | None
    batch_size: int
    step: int
    zeros: int
    gradient_norm: float
    loss: float


Row = Step | Final | Epoch


def measure(setup: Setup, cases: Sequence[Case] | None = None) -> list[Row]:
    """At reduced size steps, and accuracies after the last; at full size accuracies and losses.

    Args:
        setup: where.
        cases: what is trained at reduced size, and for how many steps at most up to a zero.

    Raises:
        InputError: the images are not there.
    """
    if not setup.reduced:
        return [*trainings.train(setup, "relu-cifar10-resnet18", spec())]
    cases = cases or _REDUCED
    train, test = (
        [replace(case, split=split).images(setup.data_dir) for case in cases]
        for split in ("train", "test")
    )
    parts: dict[str, Measure[Row]] = {
        f"{case.network} {case.size.batches}x{case.size.batch_size} and {FROM_ZERO}": partial(
            _train, case, seen, unseen.take(_TESTED)
        )
        for case, seen, unseen in zip(cases, train, test, strict=True)
    }
    return [row for rows in all_kept(setup, Row, parts).values() for row in rows]


def spec() -> Spec:
    """The study of the full size.

    >>> [(trial.backward, trial.schedule, trial.epochs) for trial in spec().trials()[:6:5]]
    [('exact', 'cosine', 200), ('assigned', 'cosine', 200)]
    """
    return trainings.changed(
        "relu-cifar10-resnet18",
        **{
            "batch_norm": "false",
            "backward": str([*BACKWARD]),
            "selections.relu": str([f"branch:{alpha:g}" for alpha in ALPHAS]),
            "learning_rate": str(_RATE),
            "seeds": "5",
        },
    )


def _train(case: Case, train: Images, test: Images, setup: Setup) -> list[Row]:
    """The steps of one training before the first zero, and of all from that one on."""
    model = drawn(case.factory(train), 0).to(setup.device).train()
    optimizer = SGD(model.parameters(), lr=_RATE, momentum=0.9, weight_decay=5e-4)
    rows: list[Row] = []
    for number, pair in islice(_batches(case, train), case.size.batches):
        before = deepcopy((model, optimizer))
        row = _step(case, None, None, number, pair, model, optimizer)
        if row.zeros:
            return [*rows, *_from_zero(case, train, test, number, before)]
        rows.append(row)
    return rows


def _from_zero(
    case: Case, train: Images, test: Images, first: int, before: tuple[nn.Module, SGD]
) -> Iterator[Row]:
    """The steps of all trainings from the first zero on, and their ends."""
    for alpha, backward in product(ALPHAS, BACKWARD):
        model, optimizer = deepcopy(before)
        replaced(model, nn.ReLU, partial(_relu, alpha, backward))
        for number, pair in islice(_batches(case, train), first - 1, first - 1 + FROM_ZERO):
            yield _step(case, alpha, backward, number, pair, model, optimizer)
        yield _end(case, alpha, backward, tested(model, test, _HELD).accuracy, test)


def _batches(case: Case, train: Images) -> Iterator[tuple[int, Batch]]:
    return enumerate(endless(train, case.size.batch_size), start=1)


def _relu(alpha: float, backward: str, _: nn.ReLU) -> nn.Module:
    return BACKWARD[backward](alpha)


def _step(
    case: Case,
    alpha: float | None,
    backward: str | None,
    number: int,
    pair: Batch,
    model: nn.Module,
    optimizer: SGD,
) -> Step:
    zeros = 0

    def count(given: Tensor) -> None:
        nonlocal zeros
        zeros += int((given == 0).sum())

    with seeing(model, count):
        loss = step(model, optimizer, pair, _HELD)
    norms = [p.grad.double().norm() for p in model.parameters() if p.grad is not None]
    return Step(
        network=str(case.network),
        alpha=alpha,
        backward=backward,
        batch_size=case.size.batch_size,
        step=number,
        zeros=zeros,
        gradient_norm=torch.stack(norms).norm().item(),
        loss=loss,
    )


def _end(case: Case, alpha: float, backward: str, accuracy: float, test: Images) -> Final:
    return Final(
        data=case.data,
        network=case.network.name,
        batch_norm=case.network.batch_norm,
        optimizer="sgd",
        precision="float32",
        forward="exact",
        backward=backward,
        relu=f"branch:{alpha:g}",
        max_pool=None,
        runs=1,
        diverged=0,
        diverged_at="",
        accuracy=accuracy,
        accuracies=f"{accuracy:.6g}",
        class_0=trainings.share_of_class_0(test),
        learning_rate=_RATE,
        searched=False,
    )


def summarise(rows: Sequence[Row]) -> list[Line]:
    """A row a training: steps with zeros, the first of them, norms, the last loss, the accuracy.

    ``norm_there`` is the norm of the gradient at the first step with a zero. A network that met no
    zero has one row, without an α. At full size the rows are those of a study.

    >>> said = {"batch_size": 64, "loss": 2.3}
    >>> rows = [
    ...     Step("vgg11", None, None, step=1, zeros=0, gradient_norm=0.5, **said),
    ...     Step("vgg11", 0.5, "assigned", step=2, zeros=1, gradient_norm=7.0, **said),
    ... ]
    >>> [(row["first"], row["norm_there"], row["steps"]) for row in summarise(rows)]
    [(2, 7.0, 2)]
    """
    trained = _trainings(rows)
    if not trained:
        return trainings.summarise([row for row in rows if isinstance(row, Final | Epoch)])
    ends: dict[tuple[object, ...], float | None] = {
        (row.network, row.varied, row.backward): row.accuracy
        for row in rows
        if isinstance(row, Final)
    }
    found: list[Line] = []
    for (network, alpha, backward), steps in trained.items():
        met = [row for row in steps if row.zeros]
        found.append(
            {
                "network": network,
                "alpha": alpha,
                "backward": backward,
                "steps": len(steps),
                "with_zeros": len(met),
                "first": met[0].step if met else None,
                "norm_there": met[0].gradient_norm if met else None,
                "largest_norm": max(row.gradient_norm for row in steps),
                "last_loss": steps[-1].loss,
                "accuracy": ends.get((network, ("α", alpha), backward)),
            }
        )
    return found


def _trainings(
    rows: Sequence[Row],
) -> dict[tuple[str, float | None, str | None], list[Step]]:
    """All steps of each training, those that it shares with others too."""
    steps = by(
        (row for row in rows if isinstance(row, Step)),
        lambda row: (row.network, row.alpha, row.backward),
    )
    shared = {network: own for (network, alpha, _), own in steps.items() if alpha is None}
    apart = {key[0] for key in steps if key[1] is not None}
    return {
        key: own if key[1] is None else [*shared.get(key[0], ()), *own]
        for key, own in steps.items()
        if key[1] is not None or key[0] not in apart
    }


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """The trainings as assigned beside the published ones, whose code assigns.

    See :func:`kinkcheck.paper.harness.trainings.compare`. A reduced run has taken a few steps where
    the published ones took 200 epochs.
    """
    return trainings.compare(
        [row for row in rows if isinstance(row, Final | Epoch) and row.backward == "assigned"]
    )


def draw(rows: Sequence[Row]) -> Figure:
    """The norm of the gradient by step, a panel a network and backward pass, a line an α.

    At full size accuracies by α, and losses by epoch.
    """
    trained = _trainings(rows)
    if not trained:
        return training_figures.draw([row for row in rows if isinstance(row, Final | Epoch)])
    networks = list(dict.fromkeys(network for network, *_ in trained))
    figure = Figure(figsize=(8.4, 0.6 + 2.4 * len(networks)))
    panels = figure.subplots(len(networks), len(BACKWARD), squeeze=False, sharey="row")
    for line, network in zip(panels, networks, strict=True):
        for axes, backward in zip(line, BACKWARD, strict=True):
            for ink, alpha in zip(INKS, ALPHAS, strict=False):
                steps = trained.get((network, alpha, backward), trained.get((network, None, None)))
                shown = (steps or [])[-2 * FROM_ZERO :]
                axes.plot(
                    [row.step for row in shown], [row.gradient_norm for row in shown], color=ink,
                    lw=1, label=f"{alpha:g}",
                )  # fmt: skip
            axes.set_yscale("log")
            plain_numbers(axes.yaxis)
            axes.set_title(f"{network}: at 0 {RETURNED[backward]}")
            axes.set_xlabel("step")
        line[0].set_ylabel("norm of the gradient")
    figure.legend(*panels[0][0].get_legend_handles_labels(), title="α", loc="outside right center")
    return figure


RELU_BACKWARD_CONFOUND = Experiment(
    name="relu-backward-confound",
    source="kinkcheck",
    shows="trainings under ReLU'(0) = α, as a derivative and as the published code assigns it",
    cost=Cost("50 trainings of ResNet-18 of 200 epochs", "days", "1 GPU", ("cifar10",)),
    cost_reduced=Cost(
        "ResNet-18 and VGG-11 up to a first zero, then 10 trainings of 10 steps of each",
        "8 min",
        "1 busy core",
        ("cifar10",),
        measured=True,
    ),
    row=Row,
    measure=measure,
    draw=draw,
    compare=compare,
    summarise=summarise,
    spreads=True,
    reduced_is_other=True,
    reduced_cannot=(
        "The reduced run has one seed and ends 10 steps after the first zero: it shows what the "
        "two backward passes do to the gradient there, nothing of how often zeros are met, and "
        "nothing of accuracies after 200 epochs."
    ),
)
