"""A number of ours beside the published one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from kinkcheck.audit.intervals import clopper_pearson

_LEAST_RUNS = 3  # the interval of two holds nearly anything


@dataclass(frozen=True)
class Comparison:
    """One value of ours and the published one.

    Attributes:
        what: which value it is, in words.
        ours: the value measured here.
        published: the published value.
        low, high: the 95 % interval of ``ours - published`` as far as sampling explains it; None
            where neither side says how much it varies.
        runs: of ours that the value rests on; None where it is of no runs.

    >>> Comparison("volume, float32", 48.7, 55.2, -20.8, 7.8).within
    True
    """

    what: str
    ours: float
    published: float
    low: float | None = None
    high: float | None = None
    runs: int | None = None

    @property
    def difference(self) -> float:
        """Ours minus the published value."""
        return self.ours - self.published

    @property
    def within(self) -> bool | None:
        """Whether sampling alone explains the difference; None where that is not known.

        Of fewer than three runs it is not.

        >>> Comparison("accuracy, %", 41.6, 98.6, -120.0, 6.0, runs=2).within
        """
        few = self.runs is not None and self.runs < _LEAST_RUNS
        if few or self.low is None or self.high is None:
            return None
        return self.low <= 0 <= self.high


def of_intervals(
    what: str,
    ours: tuple[float, float, float],
    published: tuple[float, float, float],
) -> Comparison:
    """Two values, each with its own interval ``(value, low, high)``.

    The interval of the difference takes the worst of both: it holds the difference wherever both
    hold their values.

    >>> of_intervals("p", (0.5, 0.4, 0.6), (0.7, 0.55, 0.8)).within
    True
    """
    value, low, high = ours
    theirs, their_low, their_high = published
    return Comparison(what, value, theirs, low - their_high, high - their_low)


@dataclass(frozen=True)
class Share:
    """A share of independent trials with its 95 % interval (Clopper and Pearson), in per cent.

    >>> Share.of(1, 10)
    Share(percent=10.0, low=0.25..., high=44.5...)
    """

    percent: float
    low: float
    high: float

    @staticmethod
    def of(count: int, of: int) -> Share:
        """The share that a count is of all."""
        low, high = clopper_pearson(count, of).interval
        return Share(100 * count / of, 100 * low, 100 * high)

    @property
    def interval(self) -> tuple[float, float, float]:
        """The share, and the ends of its interval."""
        return self.percent, self.low, self.high


@dataclass(frozen=True)
class Sample:
    """What is known of some runs.

    Attributes:
        mean: their mean.
        deviation: their standard deviation; None where one run does not tell.
        runs: how many, at least one.
    """

    mean: float
    deviation: float | None
    runs: int

    @staticmethod
    def of(values: Sequence[float]) -> Sample:
        """The sample of some values, at least one.

        >>> Sample.of([1.0, 3.0])
        Sample(mean=2.0, deviation=1.414..., runs=2)
        >>> Sample.of([1.0])
        Sample(mean=1.0, deviation=None, runs=1)
        """
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return Sample(statistics.fmean(values), deviation, len(values))

    @property
    def variance_of_mean(self) -> float | None:
        """How much the mean varies; None where that is not known, whatever deviation was given.

        >>> Sample(2.0, 3.0, 9).variance_of_mean, Sample(2.0, 0.0, 1).variance_of_mean
        (1.0, None)
        """
        if self.deviation is None or self.runs < 2:
            return None
        return self.deviation**2 / self.runs


def of_samples(what: str, ours: Sample, published: Sample) -> Comparison:
    """Two means with their deviations, by Welch's t interval for their difference.

    Without two runs on each side, of which one varies, there is no interval. Source: B. L. Welch
    (Biometrika 1947).

    Args:
        what: which value it is.
        ours: measured here.
        published: published.

    >>> of_samples("loss", Sample(0.5, 0.1, 3), Sample(0.6, 0.1, 10)).within
    True
    """
    first, second = ours.variance_of_mean, published.variance_of_mean
    if first is None or second is None or first + second == 0:
        return Comparison(what, ours.mean, published.mean, runs=ours.runs)
    spread = first + second
    freedom = spread**2 / (first**2 / (ours.runs - 1) + second**2 / (published.runs - 1))
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(spread)
    difference = ours.mean - published.mean
    low, high = difference - half, difference + half
    return Comparison(what, ours.mean, published.mean, low, high, ours.runs)
