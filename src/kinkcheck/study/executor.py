"""Who trains the trials: this process, or others."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Protocol, TypeAlias

from kinkcheck.arithmetic.precision import require_precisions
from kinkcheck.errors import InputError
from kinkcheck.interrupts import require_none
from kinkcheck.study.job import Beat, Event, Job, Outcome
from kinkcheck.study.parallel import train_parallel
from kinkcheck.study.trial import train

OnBeat: TypeAlias = Callable[[Job, Beat], None]


class Executor(Protocol):
    """Trains jobs that do not depend on each other, in any order, as many at a time as it likes."""

    def require(self, precisions: Sequence[str], device: str) -> None:
        """Check that jobs can be trained.

        Args:
            precisions: their names.
            device: of the jobs.

        Raises:
            InputError: the device is not there, or does not have a precision.
        """

    def run(self, jobs: Sequence[Job], on_beat: OnBeat) -> Generator[tuple[Job, Event]]:
        """The events of each job in their order, those of different jobs mixed as they come.

        Every job's last event is its :class:`Outcome`. An exception in a trial is an outcome
        ``failed``; only bad input, which would hit every trial, is raised.

        Args:
            jobs: to be trained.
            on_beat: is told now and then how far an epoch is.

        Raises:
            InputError: the data cannot be loaded, or the network cannot be built.
        """


class Inline:
    """Trains one job after the other in this process.

    >>> from kinkcheck.study.spec import shipped
    >>> settings = shipped("smoke").model_copy(update={"epochs": 1}).trials()[-1]
    >>> job = Job("t", settings, 0.02, None, "cpu", 1)
    >>> [type(event).__name__ for _, event in Inline().run([job], lambda job, beat: None)][-1]
    'Outcome'
    """

    def require(self, precisions: Sequence[str], device: str) -> None:
        """See :meth:`Executor.require`."""
        require_precisions(precisions, device)

    def run(self, jobs: Sequence[Job], on_beat: OnBeat) -> Generator[tuple[Job, Event]]:
        """See :meth:`Executor.run`."""
        for job in jobs:
            for event in guarded(job, lambda beat, job=job: on_beat(job, beat)):  # type: ignore[misc]
                yield job, event


def guarded(job: Job, on_beat: Callable[[Beat], None]) -> Iterator[Event]:
    """Train a job, on one device or several; an exception becomes the outcome ``failed``."""
    with closing((train if job.settings.devices == 1 else train_parallel)(job, on_beat)) as events:
        while True:
            try:
                event = next(events, None)
            except (InputError, KeyboardInterrupt):
                raise
            except BaseException as error:  # a user's code may also leave
                require_none()  # which may be what it comes from
                event = Outcome.failure(error)
            if event is None:
                return
            yield event
            if isinstance(event, Outcome):
                return
