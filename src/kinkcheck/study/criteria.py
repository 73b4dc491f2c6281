"""What trials are judged by: numbers with a name, of which the larger or the smaller are better."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kinkcheck.errors import InputError, one_line


class TaskError(Exception):
    """A task's own code fails, or returns what it should not, at some data.

    Before a study starts that is bad input; in a trial it is this trial's failure.
    """


@dataclass(frozen=True)
class Criterion:
    """A number that trials are judged by.

    Attributes:
        name: such as ``accuracy``; the tables have columns ``train_NAME`` and ``test_NAME``.
        larger_is_better: else the smaller is.
        share: whether it is a share from 0 to 1, which is shown in per cent.
    """

    name: str
    larger_is_better: bool = field(kw_only=True)
    share: bool = field(default=False, kw_only=True)

    @property
    def label(self) -> str:
        """What stands over a column.

        >>> ACCURACY.label, Criterion("mean_error", larger_is_better=False).label
        ('accuracy %', 'mean error')
        """
        return f"{self.words} %" if self.share else self.words

    @property
    def words(self) -> str:
        """The name as it is read."""
        return self.name.replace("_", " ")

    @property
    def worst(self) -> float:
        """What a trial that diverged is worth.

        >>> ACCURACY.worst, Criterion("mean_error", larger_is_better=False).worst
        (0.0, inf)
        """
        if self.share:
            return float(not self.larger_is_better)
        return -math.inf if self.larger_is_better else math.inf

    def goodness(self, value: float) -> float:
        """A number that is the larger the better; one that is not a number is the worst.

        >>> max([0.3, 0.2, math.nan], key=Criterion("error", larger_is_better=False).goodness)
        0.2
        """
        if math.isnan(value):
            return -math.inf
        return value if self.larger_is_better else -value

    def shown(self, value: float) -> float:
        """The number as it is drawn: in per cent, if it is a share."""
        return 100 * value if self.share else value

    def text(self, value: float) -> str:
        """The number as it is told.

        >>> ACCURACY.text(0.955), Criterion("error", larger_is_better=False).text(0.01234567)
        ('95.50 %', '0.01235')
        """
        return f"{100 * value:.2f} %" if self.share else f"{value:.4g}"


ACCURACY = Criterion("accuracy", larger_is_better=True, share=True)
"""What classifiers of images are judged by."""


@dataclass(frozen=True)
class Metric(Criterion):
    """A criterion, and how it is computed from what the steps over a set have returned.

    Attributes:
        of: a function of the second result of :meth:`kinkcheck.study.Task.step`: each of its
            tensors, those of all mini-batches joined along dimension 0. It returns a number.

    Raises:
        InputError: the name cannot be that of a column.

    >>> error = Metric("error", lambda each: each.abs().mean(), larger_is_better=False)
    >>> error.value((torch.tensor([1.0, -3.0]),))
    2.0
    >>> Metric("error", lambda each: "large", larger_is_better=False).value((torch.ones(1),))
    Traceback (most recent call last):
    ...
    kinkcheck.study.criteria.TaskError: metric 'error' must be a number, not 'large'
    """

    of: Callable[..., Any] = field(repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z][a-z0-9_]*", str(self.name)) or self.name == "loss":
            raise InputError(
                f"task: metric {self.name!r} must be small letters, digits and _, and not 'loss'"
            )
        if not callable(self.of):
            raise InputError(
                f"task: metric {self.name!r} must have a function, not {type(self.of).__name__}"
            )

    @property
    def criterion(self) -> Criterion:
        """The metric without its function, to be kept and sent."""
        return Criterion(self.name, larger_is_better=self.larger_is_better, share=self.share)

    def value(self, results: tuple[Any, ...]) -> float:
        """The number.

        Args:
            results: what ``of`` takes.

        Raises:
            TaskError: the function fails, or does not return a number.
        """
        try:
            found = self.of(*results)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # it may also leave
            raise TaskError(f"metric {self.name!r} failed: {one_line(error)}") from error
        try:
            if isinstance(found, str):
                raise TypeError
            return float(found)
        except (TypeError, ValueError, RuntimeError):
            given = " ".join(repr(found).split())[:60]
            raise TaskError(f"metric {self.name!r} must be a number, not {given}") from None
