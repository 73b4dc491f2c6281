"""One trial on several devices: each takes its share of every mini-batch.

One process a device runs the trial as if it were alone (:func:`kinkcheck.study.trial.train`), but
for the networks, which compute the outputs of a share and hand them to each other. So all see the
outputs of the whole mini-batch and reach the same loss, the same verdict on it and, with gradients
averaged by ``DistributedDataParallel``, the same parameters. One of them tells what happens.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kinkcheck.errors import InputError
from kinkcheck.files import Claim
from kinkcheck.measure.batch import moved, tensors
from kinkcheck.study.job import Beat, Event, Job, Outcome, Told
from kinkcheck.study.rank import work
from kinkcheck.study.trial import OnBeat, train

# A process forked from one that has used OpenMP can hang.
_CONTEXT: SpawnContext | ForkServerContext = get_context("spawn")


def train_parallel(job: Job, on_beat: OnBeat = lambda beat: None) -> Generator[Event, None, None]:
    """Train one trial on ``settings.devices`` devices, each in a process of its own.

    The events are those of :func:`kinkcheck.study.trial.train`, and so are the numbers, up to the
    rounding of sums that are taken in another order. On a CPU every process has ``job.threads``
    threads. Batch norm takes its statistics from the whole mini-batch on CUDA; elsewhere each
    process takes them from its share, and the running ones are means over the processes.

    A process that ends before its time is an outcome ``failed``. None outlives this generator.

    Raises:
        InputError: there are not as many devices, or as in :func:`kinkcheck.study.trial.train`.
    """
    devices = job.settings.devices
    _require_devices(job.device, devices)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # what goes wrong is told by the outcome
    ranks: list[_Rank] = []
    with _meeting() as meeting:
        try:
            for rank in range(devices):
                told, telling = _CONTEXT.Pipe(duplex=False)
                process = _CONTEXT.Process(target=work, args=(job, rank, meeting, telling))
                with _deaf():
                    process.start()
                telling.close()
                ranks.append(_Rank(process, told))
            yield from _relay(ranks, on_beat)
        finally:
            for one in ranks:
                one.process.kill()
                one.process.join()


_MEETING = "kinkcheck-meeting-"


@contextmanager
def _meeting() -> Iterator[str]:
    """Where processes find each other: a file of theirs; those of killed ones are removed."""
    folder = Path(gettempdir())
    for left in folder.glob(f"{_MEETING}*"):
        with suppress(InputError, OSError), Claim(left):
            left.unlink()
    path = folder / f"{_MEETING}{uuid4().hex}"
    path.touch()
    try:
        with Claim(path):
            yield path.as_uri()
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started in the block get no Ctrl-C: this one ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class _Rank:
    """One of the processes, and where it tells what happens."""

    process: BaseProcess
    told: Connection


def _relay(ranks: Sequence[_Rank], on_beat: OnBeat) -> Iterator[Event]:
    """What the processes tell; the outcome when all have come to it."""
    waiting = [rank.told for rank in ranks]
    outcome: Outcome | None = None
    while waiting:
        for told in connection.wait(waiting):
            assert isinstance(told, Connection)
            try:
                item: Told = told.recv()
            except EOFError:
                item = Outcome("failed")
            if isinstance(item, InputError):
                raise item
            if isinstance(item, Beat):
                on_beat(item)
            elif isinstance(item, Outcome):
                outcome = item
                if item.state == "failed":
                    yield Outcome("failed", reason=_cause(ranks) or item.reason)
                    return
                waiting.remove(told)
            else:
                yield item
    assert outcome is not None
    yield outcome


def _cause(ranks: Sequence[_Rank]) -> str | None:
    """Why a process fails, if that is because one has died: the others then lose touch with it."""
    connection.wait([rank.process.sentinel for rank in ranks], timeout=1.0)
    for number, rank in enumerate(ranks):
        rank.process.join(0.1)  # it may not be quite dead yet
        code = rank.process.exitcode
        if code is not None:
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            return f"process {number} of {len(ranks)} ended {how}"
    return None


def _require_devices(device: str, devices: int) -> None:
    kind = torch.device(device).type
    if kind == "cuda":
        there = torch.cuda.device_count()
        if there < devices:
            raise InputError(f"devices: {devices} are asked for, and there are {there} of CUDA")
    elif kind != "cpu":
        raise InputError(f"devices: {devices} of {kind} cannot work together; accepted: cpu, cuda")


def tell(job: Job, rank: int, meeting: str, telling: Connection) -> None:
    """Train a trial as one of several processes, and tell what happens.

    Args:
        job: the trial.
        rank: the number of the process; all tell outcomes, the first one tells the rest.
        meeting: where the processes find each other.
        telling: takes what happens.
    """
    try:
        for item in _events(job, rank, meeting, telling.send):
            if rank == 0 or isinstance(item, Outcome):
                telling.send(item)
    except InputError as error:
        telling.send(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's code may also leave
        telling.send(Outcome.failure(error))


def _events(job: Job, rank: int, meeting: str, tell: OnBeat) -> Iterator[Event]:
    """The trial as one process sees it."""
    if torch.device(job.device).type == "cuda":
        torch.cuda.set_device(rank)
        job = replace(job, device=f"cuda:{rank}")
    dist.init_process_group(init_method=meeting, rank=rank, world_size=job.settings.devices)
    return train(job, tell if rank == 0 else lambda beat: None, Shared)


class Shared(nn.Module):
    """A network whose copies, one a process, share each batch; every one gets all the outputs.

    What it is called with, and what it returns, has a sample in each entry of dimension 0 of every
    tensor. A batch that cannot be dealt out evenly is filled up with its first samples, whose
    outputs count for nothing; they do take part in the statistics of batch norm.

    Args:
        model: the network, with equal parameters in all processes.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if next(model.parameters()).is_cuda:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        # Were all parameters known to be used, PyTorch would put them in another order after the
        # first step, sum in another order, and a trial that goes on would round differently.
        self._copy = DistributedDataParallel(model, find_unused_parameters=True)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs for the whole batch.

        Raises:
            InputError: samples cannot be told in what the network is called with or returns.
        """
        rank, ranks = dist.get_rank(), dist.get_world_size()
        samples = _samples((args, kwargs), "is called with")
        share = -(-samples // ranks)

        def own(x: Tensor) -> Tensor:
            filled = x[torch.arange(share * ranks, device=x.device) % samples]
            return filled[rank * share : (rank + 1) * share]

        mine, named = moved((args, kwargs), own)
        outputs = self._copy(*mine, **named)
        if _samples(outputs, "returns") != share:
            raise InputError("devices: the network must return a row for each sample")
        if self.training:
            _average([buffer for buffer in self._copy.buffers() if buffer.is_floating_point()])
        return moved(outputs, lambda each: _Gather.apply(each)[:samples])


def _samples(value: Any, what: str) -> int:
    """How many samples there are: the length of every tensor."""
    sizes = {len(each) if each.dim() else 0 for each in tensors(value)}
    if len(sizes) != 1 or sizes == {0}:
        raise InputError(
            f"devices: what the network {what} must be tensors with a sample in each entry of "
            "dimension 0; accepted: devices = 1"
        )
    return sizes.pop()


class _Gather(torch.autograd.Function):
    """All shares, one after the other; each process is answerable for its own.

    The gradient of a share counts once for each process: ``DistributedDataParallel`` takes the mean
    over them, under which what each computes for itself, a penalty on parameters, stays as it is.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        shares = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(shares, own.contiguous())
        return torch.cat(shares)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        ranks = dist.get_world_size()
        return gradient.chunk(ranks)[dist.get_rank()] * ranks


def _average(buffers: Sequence[Tensor]) -> None:
    """Give all processes the mean of their running statistics."""
    if buffers:
        joined = torch.cat([buffer.flatten() for buffer in buffers]) / dist.get_world_size()
        dist.all_reduce(joined)
        for buffer, mean in zip(buffers, joined.split([b.numel() for b in buffers]), strict=True):
            # Autograd has saved the buffer and would complain, though it does not need the values.
            buffer.data.copy_(mean.view_as(buffer))
