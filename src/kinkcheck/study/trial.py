"""One trial, from its seed or a checkpoint to its end, as a stream of events."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Generator
from typing import Any

import torch

from kinkcheck.arithmetic import precision
from kinkcheck.interrupts import require_none
from kinkcheck.study import model
from kinkcheck.study.determinism import deterministic
from kinkcheck.study.divergence import distances
from kinkcheck.study.job import Beat, EpochEnd, Event, Job, Outcome, Record, Score, Started, State
from kinkcheck.study.learner import Learner, Spread, on_one_device, untrained
from kinkcheck.study.probe import Probe, probe
from kinkcheck.study.provenance import provenance
from kinkcheck.study.streams import stream
from kinkcheck.study.task import forward
from kinkcheck.study.tasks import task_of

OnBeat = Callable[[Beat], None]

_BEAT = 0.5  # seconds between two signs of life


def train(
    job: Job, on_beat: OnBeat = lambda beat: None, spread: Spread = on_one_device
) -> Generator[Event, None, None]:
    """Train one trial.

    What comes out depends on the settings, the data, the device and the number of threads, and not
    on whether the trial was interrupted: an epoch continues from the checkpoint that the epoch
    before it brought, bit for bit.

    Args:
        job: what to train, and the checkpoint to go on from.
        on_beat: is told now and then how far the epoch is.
        spread: each network over several devices.

    Returns:
        One :class:`Started`, an :class:`EpochEnd` after each epoch, one :class:`Outcome`. The epoch
        in which a trial diverges has no end.

    Raises:
        InputError: the task cannot be made, or the network cannot be built.

    >>> from kinkcheck.study.spec import shipped
    >>> settings = shipped("smoke").trials()[2]
    >>> events = list(train(Job("t", settings, 0.02, None, "cpu", 1)))
    >>> [type(event).__name__ for event in events]
    ['Started', 'EpochEnd', 'EpochEnd', 'EpochEnd', 'Outcome']
    """
    run = _Run(job, on_beat, spread)
    values = list(job.values)
    if job.state is not None:
        run.restore(job.state)
    yield Started(run.epoch + 1, provenance(job.device, job.threads))
    if job.state is None and job.settings.networks:
        yield run.start()
    if values and job.stop is not None and job.stop(values):
        # The epoch that stops it was kept, and what came after it was not.
        yield run.outcome("pruned")
        return
    while run.epoch < job.settings.epochs:
        with deterministic(job.device, job.threads, run.next_seed):
            ended = run.next_epoch()
        if ended is None:
            break
        yield ended
        values.append(ended.record.test.value)
        if job.stop is not None and job.stop(values):
            yield run.outcome("pruned")
            return
    yield run.outcome("diverged" if run.diverged else "finished")


class _Run:
    """The networks of a trial and the epochs that they have done."""

    def __init__(self, job: Job, on_beat: OnBeat, spread: Spread = on_one_device) -> None:
        self.job = job
        self.epoch = 0
        self._on_beat = on_beat
        self._held = precision.parse(job.settings.precision)
        self._task = task_of(job.settings.task, job.data_dir, job.folder)
        self._train, self._test = (
            self._task.feed(part, self._held, job.device) for part in ("train", "test")
        )
        with deterministic(job.device, job.threads, 0):
            self._learners = [
                Learner(
                    model.build(job.settings, self._task, job.device, selection),
                    self._task,
                    job.settings,
                    job.learning_rate,
                    spread,
                )
                for selection in job.settings.networks or (None,)
            ]

    @property
    def diverged(self) -> bool:
        """Whether the network, or the one that others are compared with, cannot go on."""
        return self._learners[0].diverged

    @property
    def next_seed(self) -> int:
        """Of what the networks draw in the forward passes of the next epoch."""
        return stream(self.job.settings.seed, "forward", self.epoch + 1)

    def start(self) -> EpochEnd:
        """The networks before their first step."""
        with deterministic(self.job.device, self.job.threads, 0):
            nothing = [untrained(self._task.metrics) for _ in self._learners]
            return self._end(nothing, time.perf_counter(), self._learners[0].learning_rate)

    def next_epoch(self) -> EpochEnd | None:
        """Train, test and probe; None if the trial diverges."""
        settings, started = self.job.settings, time.perf_counter()
        learning_rate = self._learners[0].learning_rate
        for learner in self._learners:
            learner.begin_epoch()
        steps, beaten = math.ceil(len(self._train) / settings.batch_size), started
        batches = self._train.epoch(
            settings.batch_size,
            self.epoch + 1,
            settings.order_seed,
            settings.augment_seed,
        )
        for step, (batch, samples) in enumerate(batches):
            require_none()
            for learner in self._learners:
                learner.step(batch, samples)
            if self.diverged:
                return None
            if time.perf_counter() - beaten > _BEAT:
                self._on_beat(Beat(self.epoch + 1, step + 1, steps))
                beaten = time.perf_counter()
        trained = [learner.end_epoch() for learner in self._learners]
        if self.diverged:
            return None
        self.epoch += 1
        return self._end(trained, started, learning_rate)

    def _end(self, trained: list[Score], started: float, learning_rate: float) -> EpochEnd:
        settings = self.job.settings
        tested = [learner.test(self._test) for learner in self._learners]
        probed = self._probe() if settings.probe and not settings.networks else None
        record = Record(
            epoch=self.epoch,
            learning_rate=learning_rate,
            train=trained[0],
            test=tested[0],
            gradient_norm=None if probed is None else probed.gradient_norm,
            ties=() if probed is None else probed.ties,
            distances=(
                distances(settings.networks, self._learners, trained, tested)
                if settings.networks
                else ()
            ),
            seconds=time.perf_counter() - started,
        )
        return EpochEnd(record, self._state())

    def _probe(self) -> Probe:
        batch, _ = next(self._train.in_order(self.job.settings.batch_size))
        model = self._learners[0].model
        return probe(model, lambda: forward(self._task, model, batch)[0], self._held)

    def _state(self) -> bytes:
        kept = {"epoch": self.epoch, "networks": [learner.state() for learner in self._learners]}
        buffer = io.BytesIO()
        torch.save(kept, buffer)
        return buffer.getvalue()

    def restore(self, state: bytes) -> None:
        """Go on from a checkpoint."""
        kept: dict[str, Any] = torch.load(
            io.BytesIO(state), map_location=self.job.device, weights_only=True
        )
        self.epoch = kept["epoch"]
        for learner, network in zip(self._learners, kept["networks"], strict=True):
            learner.restore(network)

    def outcome(self, state: State) -> Outcome:
        """How the trial ended."""
        broken = self._learners[0].broken
        if broken is None:
            return Outcome(state)
        return Outcome(state, broken.step, broken.layer)
