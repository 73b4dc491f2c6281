"""Ours: does accuracy follow the norm of the Jacobian that is picked, or its direction?

At a tie of m entries ‖hybrid(β)‖² = 1/m + (1 − β)²(1 − 1/m), which is that of hybrid(2 − β): the
two differ in direction alone. ``last`` and ``random`` have norm 1, as native has; native is
``first``. All train with the exact forward.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from matplotlib.figure import Figure

from kinkcheck.paper import training_figures, trainings
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.paper.training_figures import half, selection_text
from kinkcheck.paper.trainings import number, runs_of
from kinkcheck.report.ink import INKS, MARKERS
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


def measure(setup: Setup) -> list[Row]:
    """Trainings under each selection, with its norm and the difference from its partner."""
    rows = trainings.train(setup, "norm-against-sign", _spec(setup))
    return with_partners([row for row in rows if row["epoch"] is None])


def with_partners(rows: Sequence[Row]) -> list[Row]:
    """Each selection with what it is compared with, which has the same norm, and the difference.

    The partner of hybrid(β), β > 1, is hybrid(2 − β); of ``last`` and ``random``, native. Runs of
    one seed start equal and see the same mini-batches, so they are compared in pairs: the interval
    is Student's, of the differences seed by seed.
    """
    runs = {str(row["max_pool"]): runs_of(row) for row in rows}
    found: list[Row] = []
    for row in rows:
        name = str(row["max_pool"])
        said: Row = {
            key: row[key]
            for key in ("network", "data", "precision", "max_pool", "runs", "diverged", "accuracy")
        }
        said |= {"norm": norm(name), "partner": None, "difference": None, "low": None, "high": None}
        partner = partner_of(name)
        if partner in runs:
            apart = [one - other for one, other in zip(runs[name], runs[partner], strict=True)]
            mean, reach = statistics.fmean(apart), half(apart)
            said |= {"partner": partner, "difference": mean}
            if reach:  # one run, or equal differences, say nothing of how much they vary
                said |= {"low": mean - reach, "high": mean + reach}
        found.append({**said, "accuracies": row["accuracies"], "class_0": row["class_0"]})
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


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Accuracy by selection, and the difference from the partner, with its interval.

    >>> row = {"max_pool": "last", "norm": 1.0, "runs": 3, "diverged": 0, "accuracy": 95.0,
    ...        "partner": "hybrid:0", "difference": 0.1, "low": -0.2, "high": 0.4, "class_0": 8.5}
    >>> len(summarise([row])[0])
    9
    """
    names = ("max_pool", "norm", "runs", "diverged", "accuracy")
    pair = ("partner", "difference", "low", "high")
    return [{name: row[name] for name in (*names, *pair)} for row in rows]


def draw(rows: Sequence[Row]) -> Figure:
    """Accuracy by norm, a mark a direction; the differences between partners with intervals."""
    figure = Figure(figsize=(8.4, 3.4))
    left, right = figure.subplots(1, 2)
    kinds = training_figures.by([{**row, "kind": _kind(row)} for row in rows], ["kind"])
    for at, ((said,), there) in enumerate(kinds.items()):
        shift = 1 + 0.12 * (at - 1.5)  # on a scale of logarithms
        left.errorbar(
            [number(row["norm"]) * shift for row in there],
            [sum(runs_of(row)) / len(runs_of(row)) for row in there],
            yerr=[half(runs_of(row)) for row in there],
            color=INKS[at], marker=MARKERS[at], linestyle="", ms=4, capsize=2, lw=0.8,
            label=str(said),
        )  # fmt: skip
    left.set_xscale("log")
    training_figures.plain_numbers(left.xaxis)
    left.set_xlabel(f"‖h‖ at a tie of {_TIED} (marks of one norm side by side)")
    left.set_ylabel("final test accuracy, %")
    runs = sorted({int(number(row["runs"])) for row in rows})
    left.set_title(
        f"{rows[0]['network']}, {rows[0]['data']}, {rows[0]['precision']}, exact forward\n"
        f"{'-'.join(map(str, runs))} runs each; mean and 95 % interval"
    )
    left.legend()
    pairs = [row for row in rows if row["partner"]]
    for place, row in enumerate(pairs):
        value = number(row["difference"])
        low, high = number(row["low"]), number(row["high"])
        known = math.isfinite(low)
        right.errorbar(
            [value], [place], xerr=[[value - low], [high - value]] if known else None,
            color=INKS[0], marker=MARKERS[0] if known else "x", ms=4, capsize=2, lw=0.8,
        )  # fmt: skip
    right.axvline(0, color="#777777", lw=0.8, linestyle=":")
    right.set_yticks(range(len(pairs)), [_pair(row) for row in pairs])
    right.set_ylim(len(pairs) - 0.5, -0.5)
    right.set_xlabel("difference in accuracy, points (×: no interval)")
    right.set_title("same norm, another direction\n95 % interval of the differences seed by seed")
    return figure


def _kind(row: Row) -> str:
    kind, _, value = str(row["max_pool"]).partition(":")
    if kind != "hybrid":
        return kind
    return "β > 1" if float(value) > 1 else "β ≤ 1"


def _pair(row: Row) -> str:
    return " against ".join(selection_text(str(row[key])) for key in ("max_pool", "partner"))


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
    cost="130 trainings of LeNet-5; hours on one GPU (an estimate)",
    cost_reduced="39 trainings of LeNet-5; 2 minutes on one busy core",
    measure=measure,
    draw=draw,
    summarise=summarise,
    reduced_cannot=(
        "The reduced run trains on 4,000 digits for 5 epochs, three runs each: it can show a loss "
        "of a point or more, nothing of trainings to their end."
    ),
)
