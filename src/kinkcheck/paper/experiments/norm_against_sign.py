"""Ours: does accuracy follow the norm of the Jacobian that is picked, or its direction?

At a tie of m entries ‖hybrid(β)‖² = 1/m + (1 − β)²(1 − 1/m), which is that of hybrid(2 − β): the
two differ in direction alone. ``last`` and ``random`` have norm 1, as native has; native is
``first``. All train with the exact forward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.figure import Figure

from kinkcheck.paper.harness import trainings
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.rows import Line, by, line
from kinkcheck.paper.harness.training_figures import half, selection_text
from kinkcheck.paper.harness.trainings import Final, runs_of
from kinkcheck.report.ink import INKS, MARKERS, plain_numbers
from kinkcheck.study.spec import Spec

BETAS = (0, 10, 100, 1000, 10000)
SELECTIONS = (
    "hybrid:1",
    *(f"hybrid:{one}" for beta in BETAS for one in (beta, 2 - beta)),
    "last",
    "random:0",
)
_TIED = 2  # entries of the window whose norm stands for the rest


def norm(selection: str, tied: int = _TIED) -> float:
    """‖h‖ of a selection at a tie.

    Args:
        selection: one of :data:`SELECTIONS`.
        tied: entries of the window that attain the maximum.

    >>> norm("hybrid:0"), norm("hybrid:2"), norm("last"), norm("hybrid:1") ** 2
    (1.0, 1.0, 1.0, 0.5000000000000001)
    """
    kind, _, value = selection.partition(":")
    beta = float(value) if kind == "hybrid" else 0.0
    return math.sqrt(1 / tied + (1 - beta) ** 2 * (1 - 1 / tied))


@dataclass(frozen=True)
class Row:
    """The runs under a selection, beside those under its partner.

    Attributes:
        network, data, precision, max_pool, runs, diverged, accuracy: as in
            :class:`kinkcheck.paper.harness.trainings.Final`.
        norm: of what is picked at a tie.
        partner: the selection that it is compared with, of the same norm; None where there is none.
        difference: in accuracy from the partner, in points.
        low, high: its 95 % interval; None where there is none.
        accuracies, class_0: as in :class:`kinkcheck.paper.harness.trainings.Final`.
    """

    network: str
    data: str
    precision: str
    max_pool: str
    runs: int
    diverged: int
    accuracy: float | None
    norm: float
    partner: str | None
    difference: float | None
    low: float | None
    high: float | None
    accuracies: str
    class_0: float

    @property
    def kind(self) -> str:
        """The direction, in words."""
        kind, _, value = self.max_pool.partition(":")
        if kind != "hybrid":
            return kind
        return "β > 1" if float(value) > 1 else "β ≤ 1"


def measure(setup: Setup) -> list[Row]:
    """Trainings under each selection, with its norm and the difference from its partner."""
    rows = trainings.train(setup, "norm-against-sign", _spec(setup))
    return with_partners([row for row in rows if isinstance(row, Final)])


def with_partners(rows: Sequence[Final]) -> list[Row]:
    """Each selection with what it is compared with, which has the same norm, and the difference.

    The partner of hybrid(β), β > 1, is hybrid(2 − β); of ``last`` and ``random``, native. Runs of
    one seed start equal and see the same mini-batches, so they are compared in pairs: the interval
    is Student's, of the differences seed by seed.
    """
    runs = {row.selection: runs_of(row) for row in rows}
    found: list[Row] = []
    for row in rows:
        partner = partner_of(row.selection)
        mean = low = high = None
        if partner in runs:
            apart = [a - b for a, b in zip(runs[row.selection], runs[partner], strict=True)]
            mean, reach = fmean(apart), half(apart)
            if reach > 0:  # one run, or equal differences, say nothing of how much they vary
                low, high = mean - reach, mean + reach
        found.append(
            Row(
                network=row.network, data=row.data, precision=row.precision,
                max_pool=row.selection, runs=row.runs, diverged=row.diverged,
                accuracy=row.accuracy, norm=norm(row.selection),
                partner=None if mean is None else partner, difference=mean, low=low, high=high,
                accuracies=row.accuracies, class_0=row.class_0,
            )
        )  # fmt: skip
    return found


def partner_of(selection: str) -> str | None:
    """What has the same norm and another direction; None where it is the one compared with.

    >>> partner_of("hybrid:10"), partner_of("last"), partner_of("hybrid:-8")
    ('hybrid:-8', 'hybrid:0', None)
    """
    kind, _, value = selection.partition(":")
    if kind != "hybrid":
        return "hybrid:0"
    return f"hybrid:{2 - float(value):g}" if float(value) > 1 else None


def summarise(rows: Sequence[Row]) -> list[Line]:
    """Accuracy by selection, and the difference from the partner, with its interval."""
    names = ("max_pool", "norm", "runs", "diverged", "accuracy")
    return [line(row, *names, "partner", "difference", "low", "high") for row in rows]


def draw(rows: Sequence[Row]) -> Figure:
    """Accuracy by norm, a mark a direction; the differences between partners with intervals."""
    figure = Figure(figsize=(8.4, 3.4))
    left, right = figure.subplots(1, 2)
    for at, (said, there) in enumerate(by(rows, lambda row: row.kind).items()):
        shift = 1 + 0.12 * (at - 1.5)  # on a scale of logarithms
        left.errorbar(
            [row.norm * shift for row in there],
            [sum(runs_of(row)) / len(runs_of(row)) for row in there],
            yerr=[half(runs_of(row)) for row in there],
            color=INKS[at], marker=MARKERS[at], linestyle="", ms=4, capsize=2, lw=0.8,
            label=said,
        )  # fmt: skip
    left.set_xscale("log")
    plain_numbers(left.xaxis)
    left.set_xlabel(f"‖h‖ at a tie of {_TIED} (marks of one norm side by side)")
    left.set_ylabel("final test accuracy, %")
    runs = sorted({row.runs for row in rows})
    left.set_title(
        f"{rows[0].network}, {rows[0].data}, {rows[0].precision}, exact forward\n"
        f"{'-'.join(map(str, runs))} runs each; mean and 95 % interval"
    )
    left.legend()
    pairs = [(row, row.difference) for row in rows if row.difference is not None]
    for place, (row, value) in enumerate(pairs):
        between = None
        if row.low is not None and row.high is not None:
            between = [[value - row.low], [row.high - value]]
        right.errorbar(
            [value], [place], xerr=between, color=INKS[0], marker=MARKERS[0] if between else "x",
            ms=4, capsize=2, lw=0.8,
        )  # fmt: skip
    right.axvline(0, color="#777777", lw=0.8, linestyle=":")
    right.set_yticks(range(len(pairs)), [_pair(row) for row, _ in pairs])
    right.set_ylim(len(pairs) - 0.5, -0.5)
    right.set_xlabel("difference in accuracy, points (×: no interval)")
    right.set_title("same norm, another direction\n95 % interval of the differences seed by seed")
    return figure


def _pair(row: Row) -> str:
    return " against ".join(selection_text(str(name)) for name in (row.max_pool, row.partner))


def _spec(setup: Setup) -> Spec:
    listed = "[" + ", ".join(f'"{name}"' for name in SELECTIONS) + "]"
    keys = {"selections.max_pool": listed, "forward": '"exact"', "precision": '"32"'}
    if setup.reduced:
        return trainings.changed("mnist-lenet5-small", **keys, epochs="5")
    return trainings.changed("mnist-lenet5", **keys, batch_norm="false")


NORM_AGAINST_SIGN = Experiment(
    name="norm-against-sign",
    source="kinkcheck",
    shows="whether accuracy follows the norm of the Jacobian, or also its direction",
    cost=Cost("130 trainings of LeNet-5", "hours", "1 GPU", ("mnist",)),
    cost_reduced=Cost("39 trainings of LeNet-5", "2 min", "1 busy core", ("mnist",), measured=True),
    row=Row,
    measure=measure,
    spreads=True,
    draw=draw,
    summarise=summarise,
    reduced_cannot=(
        "The reduced run trains on 4,000 digits for 5 epochs, three runs each: it can show a loss "
        "of a point or more, nothing of trainings to their end."
    ),
)
