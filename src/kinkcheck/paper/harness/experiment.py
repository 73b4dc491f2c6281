"""What an experiment of a paper is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Generic, TypeVar

from matplotlib.figure import Figure

from kinkcheck.audit import executor as points
from kinkcheck.audit.cluster import Points
from kinkcheck.cluster import Cluster
from kinkcheck.paper.harness.comparison import Comparison
from kinkcheck.paper.harness.rows import Line, line
from kinkcheck.study import executor as trials
from kinkcheck.study.cluster import Trials

R = TypeVar("R")


def silent(what: str, done: int, total: int) -> None:
    """Nobody is told."""


@dataclass(frozen=True)
class Setup:
    """Where and how an experiment is measured.

    Attributes:
        work: a folder of the experiment's own, for what lets an interrupted run go on.
        reduced: as small as fits a laptop, instead of as published.
        data_dir: see :func:`kinkcheck.data.load`.
        device: where to compute.
        threads: of the CPU; None for PyTorch's number.
        on_progress: called with what is being done, and how many steps of it are done and in all.
        cluster: where points and parts are measured and trials trained; None for this process.
    """

    work: Path
    reduced: bool = False
    data_dir: Path | None = None
    device: str = "cpu"
    threads: int | None = None
    on_progress: Callable[[str, int, int], None] = silent
    cluster: Cluster | None = None

    @property
    def measures(self) -> points.Executor:
        """Who measures points.

        >>> type(Setup(Path()).measures).__name__
        'Inline'
        """
        return points.Inline() if self.cluster is None else Points(self.cluster)

    @property
    def trains(self) -> trials.Executor:
        """Who trains trials.

        >>> type(Setup(Path()).trains).__name__
        'Inline'
        """
        return trials.Inline() if self.cluster is None else Trials(self.cluster)


@dataclass(frozen=True)
class Cost:
    """What it takes to measure an experiment.

    Attributes:
        what: is measured.
        time: how long that takes.
        on: what.
        data: names as :func:`kinkcheck.data.load` takes them.
        measured: whether the time was measured once; else it is an estimate.

    >>> print(Cost("60 trainings", "weeks", "1 GPU", ("mnist",)))
    60 trainings; weeks on 1 GPU (an estimate); data: mnist
    """

    what: str
    time: str
    on: str
    data: tuple[str, ...] = ()
    measured: bool = False

    def __str__(self) -> str:
        time = f"{self.time} on {self.on}{'' if self.measured else ' (an estimate)'}"
        data = [f"data: {', '.join(self.data)}"] if self.data else []
        return "; ".join([self.what, time, *data])

    @property
    def needs(self) -> str:
        """The data, and what is more than a core.

        >>> Cost("60 trainings", "weeks", "1 GPU", ("mnist", "svhn")).needs
        'mnist, svhn; 1 GPU'
        """
        return "; ".join([", ".join(self.data)] * bool(self.data) + [self.on] * ("GPU" in self.on))


@dataclass(frozen=True)
class Experiment(Generic[R]):
    """One figure or table of a paper, or of this project; ``R`` is the type of its rows.

    Attributes:
        name: on the command line.
        source: the paper's key, section and what it is there; ``kinkcheck`` for one of our own.
        shows: what it shows, in one line.
        cost: of the full size.
        cost_reduced: of the reduced size.
        row: the type of a row of its numbers, a frozen dataclass or a union of some. Fields are
            texts, numbers, truth values, or None; their names are the columns of its files.
        measure: the numbers.
        draw: the figure of these numbers.
        compare: these numbers beside the published ones; None where nothing is published.
        summarise: what a terminal shows of these numbers; None for the numbers themselves.
        reduced_cannot: what a reduced run can and cannot show, a sentence or two.
        reduced_is_other: whether what a reduced run measures is not the published quantity, as the
            accuracy of a shorter training on fewer images; it is set beside it without a verdict.
        spreads: whether a cluster takes its points, parts or trials; else all is done here.
    """

    name: str
    source: str
    shows: str
    cost: Cost
    cost_reduced: Cost
    row: type[R] | UnionType
    measure: Callable[[Setup], list[R]]
    draw: Callable[[Sequence[R]], Figure]
    reduced_cannot: str
    compare: Callable[[Sequence[R]], list[Comparison]] | None = None
    summarise: Callable[[Sequence[R]], Sequence[Line]] | None = None
    reduced_is_other: bool = False
    spreads: bool = False

    def shown(self, rows: Sequence[R]) -> Sequence[Line]:
        """What a terminal shows of some numbers."""
        return self.summarise(rows) if self.summarise else [line(row) for row in rows]
