"""What is handed to an executor, and what comes back while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from kinkcheck.study.settings import Settings

if TYPE_CHECKING:  # a study is read without PyTorch
    from kinkcheck.study.probe import Ties
    from kinkcheck.study.provenance import Provenance

State: TypeAlias = Literal["waiting", "running", "finished", "diverged", "pruned", "failed"]
"""Where a trial stands. A running trial whose process has died is running still: it goes on when
the study is started again, and so does a failed one."""


class Stop(Protocol):
    """Whether a trial is stopped early; a value, so that it can travel to another process."""

    def __call__(self, accuracies: Sequence[float]) -> bool:
        """Whether to stop after an epoch, given the test accuracies of all epochs so far."""


@dataclass(frozen=True)
class Job:
    """One trial to be trained, from its start or from a checkpoint.

    Attributes:
        trial: its id.
        settings: what it is.
        learning_rate: its own, or the one that was found for it.
        data_dir: where the data are.
        device: where to train.
        threads: of the CPU.
        state: a checkpoint, as :class:`EpochEnd` brought it; None for the start.
        accuracies: test accuracies of the epochs before the checkpoint.
        stop: whether to stop early; None for never.
    """

    trial: str
    settings: Settings
    learning_rate: float
    data_dir: str | None
    device: str
    threads: int
    state: bytes | None = None
    accuracies: tuple[float, ...] = ()
    stop: Stop | None = None


@dataclass(frozen=True)
class Distance:
    """One network of a weight divergence after an epoch.

    Attributes:
        network: its number i, from 0.
        max_pool: its selection.
        l1: ‖θ_0 − θ_i‖₁, the sum of absolute differences over all parameters, in float64.
        train_loss: mean loss of an image over the epoch; not a number before the first.
        test_loss: mean loss of a test image.
        test_accuracy: share of test images, from 0 to 1.
        diverged_step: first step whose loss was not finite; None if all were.
        diverged_layer: the layer where that came from.
    """

    network: int
    max_pool: str
    l1: float
    train_loss: float
    test_loss: float
    test_accuracy: float
    diverged_step: int | None = None
    diverged_layer: str | None = None


@dataclass(frozen=True)
class Record:
    """What is kept of one epoch.

    Attributes:
        epoch: epochs done, from 1; 0 is the start of a weight divergence.
        learning_rate: of the epoch's steps.
        train_loss: mean loss of an image over the epoch, each taken before its step.
        train_accuracy: share of training images, from 0 to 1, likewise.
        test_loss: mean loss of a test image after the epoch.
        test_accuracy: share of test images, likewise.
        gradient_norm: see :class:`kinkcheck.study.probe.Probe`; None if not probed.
        ties: see :class:`kinkcheck.study.probe.Probe`.
        distances: of the networks of a weight divergence; the values above are network 0's.
        seconds: that the epoch took, with test and probe.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
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
    def failure(cls, error: Exception) -> Outcome:
        r"""What an exception in a trial means.

        >>> Outcome.failure(ValueError("too\n  big")).reason
        'ValueError: too big'
        """
        return cls("failed", reason=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


Event: TypeAlias = Started | EpochEnd | Outcome
"""What a trial that is being trained says: a start, the end of each epoch, an outcome."""
