"""What is handed to an executor, and what comes back while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from kinkcheck.errors import InputError, one_line
from kinkcheck.study.criteria import Criterion
from kinkcheck.study.settings import Settings

if TYPE_CHECKING:  # a study is read without PyTorch
    from kinkcheck.study.probe import Ties
    from kinkcheck.study.provenance import Provenance

State: TypeAlias = Literal["waiting", "running", "finished", "diverged", "pruned", "failed"]
"""Where a trial stands. A running trial whose process has died is running still: it goes on when
the study is started again, and so does a failed one."""


class Stop(Protocol):
    """Whether a trial is stopped early; a value, so that it can travel to another process."""

    def __call__(self, values: Sequence[float]) -> bool:
        """Whether to stop after an epoch, given how all epochs so far were judged."""


@dataclass(frozen=True)
class Job:
    """One trial to be trained, from its start or from a checkpoint.

    Attributes:
        trial: its id.
        settings: what it is.
        learning_rate: its own, or the one that was found for it.
        data_dir: where the data are.
        folder: of the spec, from which the paths of the user's files are told.
        device: where to train.
        threads: of the CPU.
        state: a checkpoint, as :class:`EpochEnd` brought it; None for the start.
        values: how the epochs before the checkpoint were judged, see :attr:`Score.value`.
        stop: whether to stop early; None for never.
    """

    trial: str
    settings: Settings
    learning_rate: float
    data_dir: str | None
    device: str
    threads: int
    folder: str = ""
    state: bytes | None = None
    values: tuple[float, ...] = ()
    stop: Stop | None = None


@dataclass(frozen=True)
class Score:
    """How a network does on a set.

    Attributes:
        loss: mean loss of a sample.
        metrics: by criterion, the one that decides first. Not a number before the first epoch.
    """

    loss: float
    metrics: Mapping[Criterion, float] = field(hash=False)

    @property
    def main(self) -> Criterion:
        """The criterion that decides."""
        return next(iter(self.metrics))

    @property
    def value(self) -> float:
        """What it says."""
        return self.metrics[self.main]

    def numbers(self) -> dict[str, float]:
        """The loss and the metrics by name.

        >>> Score(2.0, {Criterion("error", larger_is_better=False): 1.5}).numbers()
        {'loss': 2.0, 'error': 1.5}
        """
        return {"loss": self.loss, **{each.name: value for each, value in self.metrics.items()}}


@dataclass(frozen=True)
class Distance:
    """One network of a weight divergence after an epoch.

    Attributes:
        network: its number i, from 0.
        max_pool: its selection.
        l1: ‖θ_0 − θ_i‖₁, the sum of absolute differences over all parameters, in float64.
        train_loss: mean loss of a sample over the epoch; not a number before the first.
        test_loss: mean loss of a test sample.
        test_value: how it is judged on the test set, see :attr:`Score.value`.
        diverged_step: first step whose loss was not finite; None if all were.
        diverged_layer: the layer where that came from.
    """

    network: int
    max_pool: str
    l1: float
    train_loss: float
    test_loss: float
    test_value: float
    diverged_step: int | None = None
    diverged_layer: str | None = None


@dataclass(frozen=True)
class Record:
    """What is kept of one epoch.

    Attributes:
        epoch: epochs done, from 1; 0 is the start of a weight divergence.
        learning_rate: of the epoch's steps.
        train: over the epoch, each mini-batch taken before its step.
        test: on the test set after the epoch.
        gradient_norm: see :class:`kinkcheck.study.probe.Probe`; None if not probed.
        ties: see :class:`kinkcheck.study.probe.Probe`.
        distances: of the networks of a weight divergence; the values above are network 0's.
        seconds: that the epoch took, with test and probe.
    """

    epoch: int
    learning_rate: float
    train: Score
    test: Score
    seconds: float
    gradient_norm: float | None = None
    ties: tuple[Ties, ...] = ()
    distances: tuple[Distance, ...] = ()


@dataclass(frozen=True)
class Started:
    """A trial starts, or goes on.

    Attributes:
        first_epoch: the epoch that is next, from 1.
        provenance: where it is trained.
    """

    first_epoch: int
    provenance: Provenance


@dataclass(frozen=True)
class Beat:
    """A sign of life within an epoch.

    Attributes:
        epoch: that is running, from 1.
        step: steps of it that are done.
        steps: steps it has.
    """

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True)
class EpochEnd:
    """An epoch is done.

    Attributes:
        record: what is kept of it.
        state: a checkpoint with which the trial can go on from here.
    """

    record: Record
    state: bytes


@dataclass(frozen=True)
class Outcome:
    """A trial is over.

    Attributes:
        state: ``finished``, ``diverged``, ``pruned`` or ``failed``.
        step: steps before the first number that was not finite; None if all were finite. In mixed
            precision a trial may finish all the same, having skipped such steps.
        layer: where that was.
        reason: of a failure, in one line.
    """

    state: State
    step: int | None = None
    layer: str | None = None
    reason: str | None = None

    @classmethod
    def failure(cls, error: BaseException) -> Outcome:
        r"""What an exception in a trial means.

        >>> Outcome.failure(ValueError("too\n  big")).reason
        'ValueError: too big'
        """
        return cls("failed", reason=one_line(error))


Event: TypeAlias = Started | EpochEnd | Outcome
"""What a trial that is being trained says: a start, the end of each epoch, an outcome."""

Told: TypeAlias = Event | Beat | InputError
"""What another process tells of a trial."""
