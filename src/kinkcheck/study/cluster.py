"""Trials on the machines of a Ray cluster: one task a trial, and Ray finds the place for it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Self, TypeAlias

import torch

from kinkcheck.data.source import ENVIRONMENT
from kinkcheck.errors import InputError
from kinkcheck.extras import require
from kinkcheck.study.executor import OnBeat, guarded, require_precisions
from kinkcheck.study.job import Beat, EpochEnd, Event, Job, Outcome, Started

Told: TypeAlias = Event | Beat | InputError

_DEATHS = 3  # of workers in a row, within one epoch, after which a trial has failed
_PATIENCE = 5.0  # seconds for a connection


class Cluster:
    """Trains as many jobs at a time as a Ray cluster has room for, while the block runs.

    A job's task takes as many CPUs as the job has threads, times its devices. When its worker dies
    another one goes on from the last epoch that has arrived here, so that what arrives is what one
    worker alone would have brought. Only this process keeps results.

    Args:
        address: ``HOST:PORT`` of a running cluster; ``auto`` for the one that this machine belongs
            to; ``local`` for a new one of this machine alone, which ends with the block. By default
            the first of these that is there, the address being that of ``RAY_ADDRESS``. Where Ray
            is connected already, that is the cluster.
        gpu_share: part of a GPU that a trial on CUDA takes; a trial on several takes whole ones.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.

    ::

        with Cluster() as cluster:
            run(spec, folder, executor=cluster)
    """

    def __init__(self, address: str | None = None, gpu_share: float = 1.0) -> None:
        if not 0 < gpu_share <= 1:
            raise InputError(f"--gpu-share must be above 0 and at most 1, not {gpu_share:g}")
        self._address = address
        self._gpu_share = gpu_share
        self._ray: Any = require("ray", extra="ray")
        self._connected = False

    def __enter__(self) -> Self:
        if not self._ray.is_initialized():
            self._connect()
            self._connected = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._connected:
            self._ray.shutdown()

    def require(self, precisions: Sequence[str], device: str) -> None:
        """See :meth:`kinkcheck.study.executor.Executor.require`."""
        needed = self._needed(device, threads=1, devices=1)
        self._require_room(needed)
        task = self._ray.remote(**needed)(require_precisions)
        try:
            self._ray.get(task.remote(precisions, torch.device(device).type))
        except self._ray.exceptions.RayTaskError as error:
            raise _blame(error) from None

    def run(self, jobs: Sequence[Job], on_beat: OnBeat) -> Iterator[tuple[Job, Event]]:
        """See :meth:`kinkcheck.study.executor.Executor.run`."""
        tasks: list[_Task] = []
        try:
            tasks.extend(_Task(job, job, self._start(job)) for job in jobs)
            while tasks:
                ready, _ = self._ray.wait([task.told for task in tasks], num_returns=1)
                task = next(task for task in tasks if task.told is ready[0])
                tasks.remove(task)
                item = self._next(task)
                if isinstance(item, Beat):
                    on_beat(task.job, item)
                elif isinstance(item, Started | EpochEnd | Outcome):
                    yield task.job, item
                if not isinstance(item, Outcome):
                    tasks.append(task)  # at the end: no trial is heard more often than others
        finally:
            for task in tasks:
                self._ray.cancel(task.told, force=True)

    def _start(self, job: Job) -> Any:
        """A task that trains a job; an iterator over references to what it tells."""
        needed = self._needed(job.device, job.threads, job.settings.devices)
        self._require_room(needed)
        # Ray's own retry would leave out what the worker before it had told.
        task = self._ray.remote(num_returns="streaming", max_retries=0, **needed)(_work)
        where = job.data_dir or os.environ.get(ENVIRONMENT)
        placed = replace(
            job,
            data_dir=None if where is None else os.path.abspath(where),
            device=torch.device(job.device).type,  # which one of them is Ray's choice
        )
        return task.remote(placed, os.getcwd())

    def _next(self, task: _Task) -> Event | Beat | None:
        """What a task tells next; None if its worker has died and another one goes on."""
        try:
            item: Told = self._ray.get(next(task.told))
        except self._ray.exceptions.RayTaskError as error:
            raise _blame(error) from None
        except (self._ray.exceptions.RayError, StopIteration) as error:
            task.deaths += 1
            if task.deaths > _DEATHS:
                return Outcome(
                    "failed",
                    reason=f"{task.deaths} workers in a row died within one epoch, the last one "
                    f"of {type(error).__name__}; memory may be too small",
                )
            task.told = self._start(task.rest)
            return None
        if isinstance(item, InputError):
            raise item
        if isinstance(item, EpochEnd):
            task.keep(item)
        return item

    def _needed(self, device: str, threads: int, devices: int) -> dict[str, float]:
        """What a task reserves."""
        on_cuda = torch.device(device).type == "cuda"
        gpus = float(devices) if devices > 1 else self._gpu_share
        return {"num_cpus": threads * devices, "num_gpus": gpus if on_cuda else 0}

    def _require_room(self, needed: dict[str, float]) -> None:
        """Check that a task will find its place; Ray would wait for a machine to be added."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(
            machine.get("CPU", 0) >= needed["num_cpus"]
            and machine.get("GPU", 0) >= needed["num_gpus"]
            for machine in machines
        ):
            gpus = f" and {needed['num_gpus']:g} GPUs" if needed["num_gpus"] else ""
            raise InputError(
                f"--ray: a trial takes {needed['num_cpus']:g} CPUs{gpus}, and no machine of the "
                "cluster has as many; --threads sets the CPUs of a new study"
            )

    def _connect(self) -> None:
        address = self._address
        if address is not None and address not in ("auto", "local"):
            _require_reachable(address)
        lost = (OSError, RuntimeError, ValueError, self._ray.exceptions.RayError)
        try:
            self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except lost as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"--ray: no connection to {address or 'Ray'}: {reason}") from None


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
        accuracies = self.rest.accuracies
        if ended.record.epoch:
            accuracies = (*accuracies, ended.record.test_accuracy)
        self.rest = replace(self.rest, state=ended.state, accuracies=accuracies)
        self.deaths = 0


def _work(job: Job, folder: str) -> Iterator[Told]:
    """What a worker does: it tells the events of a job and, between them, how far an epoch is."""
    with suppress(OSError):
        os.chdir(folder)  # a user's own networks are named from there
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


def _blame(error: Any) -> InputError:
    """What an error on a worker outside of a trial means: it would hit every trial."""
    if isinstance(error.cause, InputError):
        return error.cause
    reason = " ".join(str(error.cause).split())[:300]
    return InputError(f"--ray: a worker cannot train: {type(error.cause).__name__}: {reason}")


def _require_reachable(address: str) -> None:
    """Check that somebody listens; Ray itself takes long to give up, and tells it in many lines."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise InputError(f"--ray: {address!r} is not an address; accepted: HOST:PORT, auto, local")
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--ray: no connection to {address}: {error}") from None
