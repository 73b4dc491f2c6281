"""Numbers over several runs of one configuration: for tables and plots, which only draw them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kinkcheck.study.reading import Trial

FACTORS = ("precision", "optimizer", "learning_rate", "forward", "backward")
"""What tells configurations apart besides their task and their selections: all but the seed."""


@dataclass
class Group:
    """The runs of one configuration.

    Attributes:
        factors: the values of what tells trials of the task apart, and of :data:`FACTORS`.
        selections: by family of operations; a family that is not there is native.
        values: how the finished runs are judged in the end, on the test set, in the order of
            seeds.
        diverged: runs that diverged.
        left: runs that are not over, or failed.
    """

    factors: Mapping[str, object]
    selections: Mapping[str, str]
    values: list[float] = field(default_factory=list)
    diverged: int = 0
    left: int = 0

    @property
    def key(self) -> tuple[object, ...]:
        """What no other configuration of the study has."""
        return (*self.factors.values(), *self.selections.items())

    @property
    def runs(self) -> int:
        """All runs."""
        return len(self.values) + self.diverged + self.left

    @property
    def mean(self) -> float:
        """Mean of the finished runs; not a number if there are none, or one is none.

        >>> Group({}, {}, [0.5, 1.0]).mean
        0.75
        """
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation over the finished runs (n - 1); not a number for fewer than two.

        >>> round(Group({}, {}, [0.5, 1.0]).deviation, 3)
        0.354
        """
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan


def groups(trials: Sequence[Trial], *, by_rate: bool = True) -> list[Group]:
    """The configurations of a study, in the order of their first trials.

    Args:
        trials: of the study.
        by_rate: whether learning rates tell configurations apart: they do where the spec lists
            them, not where they were searched for or drawn.
    """
    found: dict[tuple[object, ...], Group] = {}
    for trial in trials:
        factors = dict(trial.task) | {
            name: getattr(trial, name) for name in FACTORS if by_rate or name != "learning_rate"
        }
        new = Group(factors, trial.selections)
        group = found.setdefault(new.key, new)
        if trial.state == "diverged":
            group.diverged += 1
        elif trial.state == "finished":
            group.values.append(math.nan if trial.value is None else trial.value)
        else:
            group.left += 1
    return list(found.values())


def varying(found: Sequence[Group]) -> list[str]:
    """The factors that differ between groups.

    >>> varying([Group({"data": "mnist", "network": name}, {}) for name in ("vgg11", "mlp")])
    ['network']
    """
    return [
        name
        for name in (found[0].factors if found else ())
        if len({str(group.factors[name]) for group in found}) > 1
    ]


def varied(found: Sequence[Group]) -> list[str]:
    """The families whose selections differ between groups.

    >>> varied([Group({}, {"relu": "native", "max_pool": name}) for name in ("last", "minimal")])
    ['max_pool']
    """
    families = dict.fromkeys(family for group in found for family in group.selections)
    return [
        family for family in families if len({group.selections.get(family) for group in found}) > 1
    ]


@dataclass(frozen=True)
class Band:
    """A quantity by epoch over several runs.

    Attributes:
        mean: of the runs that got that far, epoch by epoch.
        low: mean - standard deviation (n - 1), but no less than the least run; not a number where
            one run does not tell.
        high: mean + standard deviation, or not a number.
        runs: how many got that far.
    """

    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    runs: tuple[int, ...]


def band(curves: Sequence[Sequence[float]]) -> Band:
    """Mean and deviation by epoch; numbers that are not finite are left out and not counted.

    >>> band([[1.0, 2.0], [3.0]])
    Band(mean=(2.0, 2.0), low=(1.0, nan), high=(3.414..., nan), runs=(2, 1))
    """
    columns: list[tuple[float, float, float, int]] = []
    for epoch in range(max(map(len, curves), default=0)):
        there = [c[epoch] for c in curves if epoch < len(c) and math.isfinite(c[epoch])]
        if not there:
            columns.append((math.nan, math.nan, math.nan, 0))
            continue
        mean = statistics.fmean(there)
        if len(there) == 1:
            columns.append((mean, math.nan, math.nan, 1))
            continue
        deviation = statistics.stdev(there)
        columns.append((mean, max(mean - deviation, min(there)), mean + deviation, len(there)))
    mean_, low, high, runs = zip(*columns, strict=True) if columns else ((), (), (), ())
    return Band(mean_, low, high, runs)
