"""What an experiment of a paper is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from matplotlib.figure import Figure

from kinkcheck.paper.comparison import Comparison

Row: TypeAlias = dict[str, str | int | float | bool | None]
"""A row of an experiment's numbers, by column; what JSON and CSV can hold."""


def _silent(what: str, done: int, total: int) -> None:
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
    """

    work: Path
    reduced: bool = False
    data_dir: Path | None = None
    device: str = "cpu"
    threads: int | None = None
    on_progress: Callable[[str, int, int], None] = _silent


@dataclass(frozen=True)
class Experiment:
    """One figure or table of a paper, or of this project.

    Attributes:
        name: on the command line.
        source: the paper's key, section and what it is there; ``kinkcheck`` for one of our own.
        shows: what it shows, in one line.
        cost: of the full size, in words.
        cost_reduced: of the reduced size, in words.
        measure: the numbers.
        draw: the figure of these numbers.
        compare: these numbers beside the published ones; None where nothing is published.
        summarise: what a terminal shows of these numbers; None for the numbers themselves.
        reduced_cannot: what a reduced run can and cannot show, a sentence or two.
    """

    name: str
    source: str
    shows: str
    cost: str
    cost_reduced: str
    measure: Callable[[Setup], list[Row]]
    draw: Callable[[Sequence[Row]], Figure]
    reduced_cannot: str
    compare: Callable[[Sequence[Row]], list[Comparison]] | None = None
    summarise: Callable[[Sequence[Row]], list[Row]] | None = None
