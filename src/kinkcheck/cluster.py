"""A Ray cluster: where it is, whether it has room for a piece of work, and what came of the work.

What is handed over is said elsewhere: trials in :mod:`kinkcheck.study.cluster`, points in
:mod:`kinkcheck.audit.cluster`, parts of experiments in :mod:`kinkcheck.paper.harness.parts`.
Nothing heavy is imported here, so that a command can say at once what it waits for.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

from kinkcheck.errors import InputError
from kinkcheck.extras import require
from kinkcheck.interrupts import held_back

_PATIENCE = 5.0  # seconds for a connection
_SILENCE = 1.0  # seconds without a word until a first result
_GLANCE = 5.0  # seconds between two looks whether the machines are still there
_LEAST_SHARE = 1e-4  # of a GPU, that Ray counts


class WorkerDiedError(Exception):
    """The worker of a piece of work has died; the message says of what."""


class Cluster:
    """A connection to a Ray cluster, while the block runs.

    Args:
        address: ``HOST:PORT`` of a running cluster; ``auto`` for the one that ``RAY_ADDRESS``
            names or, without it, this machine belongs to; ``local`` for a new one of this machine
            alone, which ends with the block. By default as ``auto``, or else as ``local``. Where
            Ray is connected already, that is the cluster.
        gpu_share: part of a GPU that a piece of work on CUDA takes, from 0.0001 to 1; one on
            several takes whole ones.
        say: is told in a line what is being waited for.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.

    ::

        with Cluster("local") as cluster:
            run(spec, folder, executor=Trials(cluster))
    """

    DEATHS = 3
    """Of workers in a row that one piece of work survives."""

    def __init__(
        self,
        address: str | None = None,
        gpu_share: float = 1.0,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        if not _LEAST_SHARE <= gpu_share <= 1:
            raise InputError(f"--gpu-share must be from {_LEAST_SHARE} to 1, not {gpu_share:g}")
        self.say = say
        self._address = address
        self._gpu_share = gpu_share
        self._ray: Any = None
        self._connected = False
        self._needed: dict[str, float] = {}
        self._waited = False

    def __enter__(self) -> Self:
        ray: Any = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            address = _require_reachable(self._address)
            if find_spec("ray") is not None:  # else the complaint is the only line
                self.say(_begun(address))
        self._ray = require("ray", extra="ray")
        try:
            if not self._ray.is_initialized():
                self._connected = True
                self._connect()
            machines = self._machines()
        except BaseException:
            self._disconnect()
            raise
        cpus = sum(int(machine.get("CPU", 0)) for machine in machines)
        on = "1 machine" if len(machines) == 1 else f"{len(machines)} machines"
        self.say(f"Ray has {_counted(cpus, 'CPU')} on {on}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._disconnect()

    def needed(self, what: str, device: str, threads: int, devices: int = 1) -> dict[str, float]:
        """What a piece of work reserves; Ray would wait for a machine that has as much to be added.

        Args:
            what: the piece of work, for a complaint.
            device: where it computes.
            threads: of the CPU, for each device.
            devices: how many.

        Raises:
            InputError: no machine of the cluster has as much.
        """
        gpus = float(devices) if devices > 1 else self._gpu_share
        on_cuda = kind_of(device) == "cuda"
        needed = {"num_cpus": float(threads * devices), "num_gpus": gpus if on_cuda else 0.0}
        if not self.room(needed):
            raise InputError(
                f"--ray: {what} takes {_told(needed)}, and no machine of the cluster has as many; "
                "--threads sets how many CPUs"
            )
        return needed

    def room(self, needed: dict[str, float]) -> int:
        """For how many pieces of work at a time the cluster has room, if nobody else uses it."""
        return sum(
            min(
                int(machine.get(name, 0) / needed[argument])
                for name, argument in (("CPU", "num_cpus"), ("GPU", "num_gpus"))
                if needed[argument]
            )
            for machine in self._machines()
        )

    def put(self, value: Any) -> Any:
        """Keep a value for workers to fetch, each at most once; a reference to it."""
        with self._asked():
            return self._ray.put(value)

    def start(self, function: Callable[..., Any], *arguments: Any, needed: dict[str, float]) -> Any:
        """Let a worker call a function; a reference to what it returns."""
        return self._remote(function, arguments, needed)

    def stream(
        self, function: Callable[..., Iterator[Any]], *arguments: Any, needed: dict[str, float]
    ) -> Iterator[Any]:
        """Let a worker go through an iterator; an iterator over references to its items."""
        stream: Iterator[Any] = self._remote(function, arguments, needed, num_returns="streaming")
        return stream

    def call(self, function: Callable[..., Any], *arguments: Any, needed: dict[str, float]) -> Any:
        """What a function returns on a worker.

        Raises:
            InputError: the function raised it, or fails otherwise, or workers die, or no machine
                is left for it.
        """
        reference = self.start(function, *arguments, needed=needed)
        try:
            return self.value(self.first([reference]))
        except WorkerDiedError as error:
            raise InputError(f"--ray: no worker could start: {error}") from None

    def first(self, references: Sequence[Any]) -> Any:
        """The first reference, or stream, that has a value.

        What is waited for until the first of all is said, if that takes a while.

        Raises:
            InputError: no machine is left that the work started last could be done on; Ray would
                wait for one.
        """
        while True:
            timeout = _GLANCE if self._waited else _SILENCE
            with self._asked():
                ready, _ = self._ray.wait(references, num_returns=1, timeout=timeout)
            if not ready and not self._waited:
                self.say(
                    "waiting for a first result; before it a worker has to find its place and to "
                    "import PyTorch ..."
                )
            self._waited = True
            if ready:
                return ready[0]
            if not self.room(self._needed):
                raise InputError(
                    f"--ray: what is to be done takes {_told(self._needed)}, and no machine that "
                    "is left of the cluster has as many"
                )

    def value(self, reference: Any) -> Any:
        """The value of a reference, or the next one of a stream.

        Raises:
            InputError: the function raised it; or it raised something else, which is named.
            WorkerDiedError: its worker has died, or its machine.
        """
        try:
            stream = isinstance(reference, Iterator)
            return self._ray.get(next(reference) if stream else reference)
        except self._ray.exceptions.RayTaskError as error:
            raise _blame(error) from None
        except (self._ray.exceptions.RayError, StopIteration) as error:
            raise WorkerDiedError(type(error).__name__) from None

    def require_survived(self, deaths: int, where: str, error: WorkerDiedError) -> None:
        """Give up a piece of work at which workers keep dying.

        Args:
            deaths: so far, in a row.
            where: the piece of work.
            error: the last one.

        Raises:
            InputError: they are too many.
        """
        if deaths > self.DEATHS:
            raise InputError(
                f"--ray: {deaths} workers in a row died at {where}, the last one of {error}; "
                "memory may be too small"
            )

    def cancel(self, references: Iterable[Any]) -> None:
        """End work, and the workers that are at it; what was done on a cluster ends with that."""
        if not self._ray.is_initialized():  # Ray would start another cluster to ask
            return
        for reference in references:
            with suppress(self._ray.exceptions.RayError):  # what is lost has ended
                self._ray.cancel(reference, force=True)

    def _remote(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        needed: dict[str, float],
        **how: Any,
    ) -> Any:
        self._needed = needed
        # Ray's own retry would leave out what a stream had told, and try for ever without memory.
        with self._asked():
            return self._ray.remote(max_retries=0, **needed, **how)(function).remote(*arguments)

    def _machines(self) -> list[dict[str, float]]:
        """What each machine has, whoever uses it."""
        with self._asked():
            nodes = self._ray.nodes()
        return [node["Resources"] for node in nodes if node["Alive"]]

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """What Ray itself cannot do is a complaint."""
        try:
            yield
        except self._ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"--ray: the cluster fails: {reason}") from None

    def _connect(self) -> None:
        lost = (OSError, RuntimeError, ValueError, self._ray.exceptions.RayError)
        try:
            self._ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
        except lost as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"--ray: no connection to {self._address or 'Ray'}: {reason}"
            ) from None

    def _disconnect(self) -> None:
        if not self._connected:
            return
        self._connected = False
        # While Ray shuts down, giving up a reference ends the process at once, with exit code 1
        # (GetCoreWorker in Ray's core_worker_process.cc): garbage is collected before, not then.
        collects = gc.isenabled()
        with held_back():
            gc.collect()
            gc.disable()
            try:
                self._ray.shutdown()
            finally:
                if collects:
                    gc.enable()


def settle(folder: str, threads: int | None = None) -> None:
    """Make a worker stand where the process that hands over the work stands.

    Args:
        folder: of that process, from where a user's own networks and relative paths are told; one
            that is not there is passed over.
        threads: on as many it computes, if that is not said with the work.

    >>> import os
    >>> settle(os.getcwd())
    """
    with suppress(OSError):
        os.chdir(folder)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def kind_of(device: str) -> str:
    """The kind of a device: which one of them a worker gets is Ray's choice.

    >>> kind_of("cuda:1"), kind_of("cpu")
    ('cuda', 'cpu')
    """
    return device.partition(":")[0]


def _blame(error: Any) -> InputError:
    """What an error on a worker means."""
    if isinstance(error.cause, InputError):
        return error.cause
    reason = " ".join(str(error.cause).split())[:300]
    return InputError(f"--ray: a worker failed: {type(error.cause).__name__}: {reason}")


def _told(needed: dict[str, float]) -> str:
    """What a piece of work reserves, in words.

    >>> _told({"num_cpus": 1.0, "num_gpus": 0.0}), _told({"num_cpus": 4.0, "num_gpus": 0.25})
    ('1 CPU', '4 CPUs and 0.25 GPUs')
    """
    cpus, gpus = needed["num_cpus"], needed["num_gpus"]
    return _counted(cpus, "CPU") + (f" and {_counted(gpus, 'GPU')}" if gpus else "")


def _begun(address: str | None) -> str:
    """What Ray is about to do, at an address as it takes it.

    >>> _begun("local"), _begun("10.0.0.1:6379"), _begun(None)
    ('starting Ray ...', 'connecting to Ray ...', 'connecting to Ray, or starting it ...')
    """
    if address is None:  # only Ray knows whether this machine belongs to a cluster
        return "connecting to Ray, or starting it ..."
    return "starting Ray ..." if address == "local" else "connecting to Ray ..."


def _counted(number: float, what: str) -> str:
    return f"{number:g} {what}" if number == 1 else f"{number:g} {what}s"


def _require_reachable(address: str | None) -> str | None:
    """Check that somebody listens; Ray itself takes long to give up, and tells it in many lines.

    Returns:
        The address that Ray takes: where it is left to it, that of ``RAY_ADDRESS``.
    """
    argument = "--ray"
    if address in (None, "auto") and (named := os.environ.get("RAY_ADDRESS")):
        argument, address = "--ray: RAY_ADDRESS", named
    if address in (None, "auto", "local"):
        return address
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or "/" in host:
        raise InputError(
            f"{argument}: {address!r} is not an address; accepted: HOST:PORT, auto, local"
        )
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except (OSError, OverflowError, ValueError) as error:  # the last of a host that is no name
        raise InputError(f"{argument}: no connection to {address}: {error}") from None
    return address
