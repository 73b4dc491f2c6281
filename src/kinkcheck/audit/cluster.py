"""Points on the machines of a Ray cluster: one task a parameter draw and mini-batch."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pickle import loads
from typing import Any

import torch
from torch import Tensor

from kinkcheck.arithmetic.precision import Precision, require_precisions
from kinkcheck.audit.points import Grid, Place
from kinkcheck.cluster import Cluster, WorkerDiedError, kind_of, settle
from kinkcheck.errors import InputError, blaming
from kinkcheck.extras import require
from kinkcheck.measure.batch import moved
from kinkcheck.measure.records import Found

_AHEAD = 2  # tasks for each that there is room for, so that no worker waits for another's point


class Points:
    """Measures as many points at a time as a Ray cluster has room for.

    A task measures a parameter draw and a mini-batch in every precision, on as many CPUs as this
    process has threads; so what is found is what this process would find, on machines of one kind.
    What arrives before its turn waits here: points come in the order in which they were asked for.
    When a worker dies, another one measures its points again.

    Workers get the program, pickled, and with each task its mini-batch. They import what the
    program names, in the same folder as here.

    Args:
        cluster: a connection that is open.

    ::

        with Cluster("local") as cluster:
            estimate_volume(network, batches, draws=4, executor=Points(cluster))
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def require(self, precisions: Sequence[Precision], device: str) -> None:
        """See :meth:`kinkcheck.audit.executor.Executor.require`."""
        self._cluster.call(
            require_precisions, list(precisions), kind_of(device), needed=self._needed(device)
        )

    def measure(self, grid: Grid, places: Sequence[Place]) -> Generator[Found]:
        """See :meth:`kinkcheck.audit.executor.Executor.measure`."""
        cells = groupby(places, lambda place: (place.draw, place.batch))
        tasks = [_Task(list(cell)) for _, cell in cells]
        if not tasks:
            return
        needed = self._needed(grid.device)
        send = _Sender(self._cluster, grid, needed)
        self._say(self._cluster.room(needed))
        running: dict[Any, _Task] = {}
        begun = 0
        try:
            for number, task in enumerate(tasks):
                while task.found is None:
                    end = number + _AHEAD * max(1, self._cluster.room(needed))
                    running |= {send(each): each for each in tasks[begun:end]}
                    begun = max(begun, end)
                    ready = self._cluster.first(list(running))
                    each = running.pop(ready)
                    try:
                        each.found = self._cluster.value(ready)
                    except InputError as error:
                        each.found = error  # it is raised when the points before have arrived
                    except WorkerDiedError as error:
                        each.died(error, self._cluster)
                        running |= {send(each): each} if each.found is None else {}
                if isinstance(task.found, InputError):
                    raise task.found
                yield from task.found
        finally:
            self._cluster.cancel(running)

    def _say(self, room: int) -> None:
        threads = torch.get_num_threads()
        cpus = "1 CPU" if threads == 1 else f"{threads} CPUs"
        more = "" if threads == 1 else "; --threads 1 measures more at a time"
        self._cluster.say(
            f"at most {room} of the points are measured at a time, on {cpus} each{more}"
        )

    def _needed(self, device: str) -> dict[str, float]:
        return self._cluster.needed("a point", device, torch.get_num_threads())


@dataclass(eq=False)
class _Task:
    """A parameter draw and a mini-batch.

    Attributes:
        places: its points.
        found: what was found there, or why nothing can be; None as long as that is not known.
        deaths: workers that died at it.
    """

    places: list[Place]
    found: list[Found] | InputError | None = None
    deaths: int = 0

    def died(self, error: WorkerDiedError, cluster: Cluster) -> None:
        """A worker has died at it."""
        self.deaths += 1
        _, draw, batch = self.places[0]
        try:
            cluster.require_survived(self.deaths, f"draw {draw}, batch {batch}", error)
        except InputError as given_up:
            self.found = given_up


class _Sender:
    """Hands a task to the cluster; the program and each mini-batch are sent there once."""

    def __init__(self, cluster: Cluster, grid: Grid, needed: dict[str, float]) -> None:
        self._cluster = cluster
        self._needed = needed
        self._program = cluster.put(_pickled(grid))
        _, self._batches, _ = grid.first()
        self._sent: dict[int, Any] = {}

    def __call__(self, task: _Task) -> Any:
        number = task.places[0].batch
        if number not in self._sent:
            self._sent[number] = self._cluster.put(_compact(self._batches[number]))
        return self._cluster.start(
            _measure, self._program, self._sent[number], task.places, os.getcwd(),
            torch.get_num_threads(), needed=self._needed,
        )  # fmt: skip


def _pickled(grid: Grid) -> bytes:
    """The program as a worker gets it; functions that no module has are pickled whole."""
    pickle: Any = require("ray.cloudpickle", extra="ray")
    with blaming("network: cannot be sent to a worker"):
        program: bytes = pickle.dumps(grid.without_batches())
    return program


def _compact(batch: Any) -> Any:
    """The batch without the rest of the tensors that it is cut from."""

    def cut(tensor: Tensor) -> Tensor:
        return tensor.detach().clone().requires_grad_(tensor.requires_grad)

    return moved(batch, cut)


def _measure(
    program: bytes, batch: Any, places: Sequence[Place], folder: str, threads: int
) -> list[Found]:
    """What a worker does."""
    settle(folder, threads)
    grid = _unpickled(program)
    grid.batches = {places[0].batch: batch}
    return [found for _, found in grid.measure(places)]


@lru_cache(maxsize=1)
def _unpickled(program: bytes) -> Grid:
    grid: Grid = loads(program)
    return grid
