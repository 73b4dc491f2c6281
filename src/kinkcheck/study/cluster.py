"""Trials on the machines of a Ray cluster: one task a trial, and Ray finds the place for it."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Thread
from typing import Any

from kinkcheck.arithmetic.precision import require_precisions
from kinkcheck.cluster import Cluster, WorkerDiedError, kind_of, settle
from kinkcheck.data.source import ENVIRONMENT
from kinkcheck.errors import InputError
from kinkcheck.study.executor import OnBeat, guarded
from kinkcheck.study.job import Beat, EpochEnd, Event, Job, Outcome, Started, Told


class Trials:
    """Trains as many jobs at a time as a Ray cluster has room for.

    A job's task takes as many CPUs as the job has threads, times its devices. When its worker dies
    another one goes on from the last epoch that has arrived here, so that what arrives is what one
    worker alone would have brought. Only this process keeps results.

    Args:
        cluster: a connection that is open.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def require(self, precisions: Sequence[str], device: str) -> None:
        """See :meth:`kinkcheck.study.executor.Executor.require`."""
        needed = self._cluster.needed("a trial", device, threads=1)
        self._cluster.call(require_precisions, precisions, kind_of(device), needed=needed)

    def run(self, jobs: Sequence[Job], on_beat: OnBeat) -> Generator[tuple[Job, Event]]:
        """See :meth:`kinkcheck.study.executor.Executor.run`."""
        tasks: list[_Task] = []
        try:
            tasks.extend(_Task(job, job, self._start(job)) for job in jobs)
            while tasks:
                ready = self._cluster.first([task.told for task in tasks])
                task = next(task for task in tasks if task.told is ready)
                tasks.remove(task)
                item = self._next(task)
                if isinstance(item, Beat):
                    on_beat(task.job, item)
                elif isinstance(item, Started | EpochEnd | Outcome):
                    yield task.job, item
                if not isinstance(item, Outcome):
                    tasks.append(task)  # at the end: no trial is heard more often than others
        finally:
            self._cluster.cancel(task.told for task in tasks)

    def _start(self, job: Job) -> Any:
        """A task that trains a job; an iterator over references to what it tells."""
        where = job.data_dir or os.environ.get(ENVIRONMENT)
        placed = replace(
            job,
            data_dir=None if where is None else os.path.abspath(where),
            folder=os.path.abspath(job.folder),
            device=kind_of(job.device),
        )
        needed = self._cluster.needed("a trial", job.device, job.threads, job.settings.devices)
        return self._cluster.stream(_work, placed, os.getcwd(), needed=needed)

    def _next(self, task: _Task) -> Event | Beat | None:
        """What a task tells next; None if its worker has died and another one goes on."""
        try:
            item: Told = self._cluster.value(task.told)
        except WorkerDiedError as error:
            task.deaths += 1
            if task.deaths > self._cluster.DEATHS:
                return Outcome(
                    "failed",
                    reason=f"{task.deaths} workers in a row died within one epoch, the last one "
                    f"of {error}; memory may be too small",
                )
            task.told = self._start(task.rest)
            return None
        if isinstance(item, InputError):
            raise item
        if isinstance(item, EpochEnd):
            task.keep(item)
        return item


@dataclass
class _Task:
    """A job on the cluster.

    Attributes:
        job: as it was handed over.
        rest: as it stands now, from the last checkpoint that arrived.
        told: an iterator over references to what it tells.
        deaths: workers that died since that checkpoint.
    """

    job: Job
    rest: Job
    told: Any
    deaths: int = 0

    def keep(self, ended: EpochEnd) -> None:
        """An epoch has arrived."""
        values = self.rest.values
        if ended.record.epoch:
            values = (*values, ended.record.test.value)
        self.rest = replace(self.rest, state=ended.state, values=values)
        self.deaths = 0


def _work(job: Job, folder: str) -> Iterator[Told]:
    """What a worker does: it tells the events of a job and, between them, how far an epoch is."""
    settle(folder)
    told: SimpleQueue[Told | None] = SimpleQueue()

    def train() -> None:
        try:
            for event in guarded(job, told.put):
                told.put(event)
        except InputError as error:
            told.put(error)
        finally:
            told.put(None)

    Thread(target=train, daemon=True).start()
    while (item := told.get()) is not None:
        yield item
