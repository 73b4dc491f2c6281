"""A study from its spec to its end: searches, trials, and what is kept of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import torch

from kinkcheck.errors import InputError
from kinkcheck.interrupts import remembered, require_none
from kinkcheck.named import source_of
from kinkcheck.ranges import require_threads
from kinkcheck.study import model, schema, search
from kinkcheck.study.criteria import Criterion
from kinkcheck.study.executor import Executor, Inline
from kinkcheck.study.job import Beat, EpochEnd, Job, Outcome, Record, Started
from kinkcheck.study.search import BelowMedian, Candidate
from kinkcheck.study.settings import Classification, Search, Settings
from kinkcheck.study.spec import Spec
from kinkcheck.study.store import Progress, Store
from kinkcheck.study.tasks import rehearse, task_of


class Watcher(Protocol):
    """Is told what happens, to show it."""

    def planned(self, trials: Sequence[Progress]) -> None:
        """These trials are next; some may be over."""

    def started(self, settings: Settings, first_epoch: int) -> None:
        """A trial starts or goes on."""

    def beat(self, settings: Settings, beat: Beat) -> None:
        """How far an epoch is."""

    def epoch(self, settings: Settings, record: Record) -> None:
        """An epoch is done and kept."""

    def ended(self, settings: Settings, outcome: Outcome) -> None:
        """A trial is over."""

    def found(self, settings: Settings, rate: float, criterion: Criterion, value: float) -> None:
        """A search is over: the learning rate, and how it was judged."""


class Silent:
    """A watcher that shows nothing."""

    def planned(self, trials: Sequence[Progress]) -> None:
        """Nothing."""

    def started(self, settings: Settings, first_epoch: int) -> None:
        """Nothing."""

    def beat(self, settings: Settings, beat: Beat) -> None:
        """Nothing."""

    def epoch(self, settings: Settings, record: Record) -> None:
        """Nothing."""

    def ended(self, settings: Settings, outcome: Outcome) -> None:
        """Nothing."""

    def found(self, settings: Settings, rate: float, criterion: Criterion, value: float) -> None:
        """Nothing."""


@remembered()
def run(
    spec: Spec,
    folder: Path,
    *,
    data_dir: Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    executor: Executor | None = None,
    watcher: Watcher | None = None,
) -> list[Progress]:
    """Run a study, or go on with it where it stopped.

    Args:
        spec: what to train.
        folder: where to keep what is found; see :class:`kinkcheck.study.store.Store`.
        data_dir: see :func:`kinkcheck.data.load`.
        device: where to train.
        threads: of the CPU; by default those the study began with, and PyTorch's number for a new
            one.
        executor: who trains; by default this process.
        watcher: is told what happens.

    Returns:
        Where each trial stands at the end. A failed trial is tried again next time.

    Raises:
        InputError: the device, the task, its data or the folder cannot be used; a network has no
            module that a selection could be given to; Optuna is needed and not there.

    >>> from kinkcheck.study.spec import shipped
    >>> spec = shipped("smoke").model_copy(update={"epochs": 1, "precision": ("float32",)})
    >>> for trial in run(spec, getfixture("tmp_path") / "s"):
    ...     print(trial.settings.precision, trial.settings.selections, trial.state)
    float32 {'max_pool': 'hybrid:0'} finished
    float32 {'max_pool': 'hybrid:10'} finished
    """
    require_none()  # that an import of what this needs has lost; so below, after what takes long
    require_threads(threads)
    trials = spec.trials()
    executor = executor or Inline()
    executor.require(list(dict.fromkeys(settings.precision for settings in trials)), device)
    if any(settings.search for settings in trials):
        search.require_optuna()
    where = None if data_dir is None else str(data_dir)
    task = task_of(trials[0].task, where, str(spec.folder))
    shape = schema.IMAGES
    if not isinstance(trials[0].task, Classification):
        rehearse(task, spec.batch_size)
        shape = schema.Shape(schema.OWN, task.criteria)
    require_none()
    facts = {f"data {name}": digest for name, digest in task.digests().items()}
    facts |= {**_networks(spec), "device": torch.device(device).type}
    require_none()
    model.require_modules(trials, lambda one: task_of(one.task, where, str(spec.folder)))
    require_none()
    if threads is not None:
        facts["threads"] = str(threads)
    with Store(folder, trials, facts, spec.model_dump_json(), shape) as store:
        begun = store.fact("threads", str(torch.get_num_threads()))
        running = _Running(
            store, executor, watcher or Silent(), where, str(spec.folder), device,
            _threads(begun, folder),
            task.criteria[0],
        )  # fmt: skip
        running.search(trials)
        running.train()
        return store.progress()


def _threads(begun: str, folder: Path) -> int:
    """The number of threads that a study began with."""
    if not begun.isdecimal():
        raise InputError(f"{folder}: threads must be a number, not {begun!r}; name another folder")
    require_threads(int(begun[:20]), f"{folder}: threads")
    return int(begun)


def template_of(settings: Settings) -> tuple[Settings, Search] | None:
    """The search that a trial waits for; None if its learning rate is given."""
    if settings.search is None:
        return None
    return search.template(settings, settings.search), settings.search


@dataclass
class _Running:
    """A study that is being run."""

    store: Store
    executor: Executor
    watcher: Watcher
    data_dir: str | None
    folder: str
    device: str
    threads: int
    criterion: Criterion

    def search(self, trials: Iterable[Settings]) -> None:
        """Find the learning rates that trials wait for; a search that fails leaves them waiting."""
        waiting: dict[str, tuple[Settings, Search, list[str]]] = {}
        for settings in trials:
            if (sought := template_of(settings)) is not None:
                base, how = sought
                waiting.setdefault(base.id, (base, how, []))[2].append(settings.id)
        while waiting:
            jobs = []
            for name, (base, how, ids) in list(waiting.items()):
                job = self._next_candidate(name, base, how)
                if job is None:
                    self._settle(name, base, ids)
                    del waiting[name]
                else:
                    jobs.append((name, job))
            failed = self._run([job for _, job in jobs])
            for name, job in jobs:
                if job.trial in failed:
                    del waiting[name]

    def train(self) -> None:
        """Train every trial that is not over and has a learning rate."""
        trials = self.store.progress()
        self.watcher.planned(trials)
        self._run(
            [
                self._job(progress, progress.learning_rate)
                for progress in trials
                if not progress.over and progress.learning_rate is not None
            ]
        )

    def _next_candidate(self, name: str, base: Settings, how: Search) -> Job | None:
        """The candidate to train next; None if there were enough."""
        if self.store.learning_rate(name) is not None:
            return None
        there = self.store.progress(search=name)
        earlier = tuple(_candidate(progress) for progress in there if progress.over)
        if len(earlier) == len(there):
            if len(earlier) == how.trials:
                return None
            self.store.add_candidate(
                name, len(there), search.candidate(base, how, self.criterion, earlier)
            )
            there = self.store.progress(search=name)
        rate = there[-1].settings.learning_rate
        assert rate is not None
        stop = BelowMedian(how, self.criterion, earlier, rate) if how.pruning else None
        return self._job(there[-1], rate, stop)

    def _settle(self, name: str, base: Settings, trials: Sequence[str]) -> None:
        """Hand the learning rate of a finished search to its trials."""
        rate = self.store.learning_rate(name)
        if rate is None:
            tried = [_candidate(p) for p in self.store.progress(search=name)]
            winner = search.best(tried, self.criterion)
            rate, value = winner.learning_rate, winner.value(self.criterion)
            self.store.settle(name, rate, value)
            self.watcher.found(base, rate, self.criterion, value)
        self.store.assign(trials, rate)

    def _job(self, progress: Progress, rate: float, stop: BelowMedian | None = None) -> Job:
        return Job(
            trial=progress.trial,
            settings=progress.settings,
            learning_rate=rate,
            data_dir=self.data_dir,
            device=self.device,
            threads=self.threads,
            folder=self.folder,
            state=progress.checkpoint,
            values=progress.values,
            stop=stop,
        )

    def _run(self, jobs: Sequence[Job]) -> set[str]:
        """Train jobs, keep what they bring, and say which failed."""
        failed = set()
        events = self.executor.run(jobs, lambda job, beat: self.watcher.beat(job.settings, beat))
        with closing(events):  # work elsewhere ends with the run, however that ends
            for job, event in events:
                if isinstance(event, Started):
                    self.store.start(job.trial, event)
                    self.watcher.started(job.settings, event.first_epoch)
                elif isinstance(event, EpochEnd):
                    self.store.add_epoch(job.trial, event)
                    self.watcher.epoch(job.settings, event.record)
                else:
                    self.store.end(job.trial, event)
                    self.watcher.ended(job.settings, event)
                    if event.state == "failed":
                        failed.add(job.trial)
        return failed


def _candidate(progress: Progress) -> Candidate:
    rate = progress.settings.learning_rate
    assert rate is not None
    return Candidate(rate, progress.state, progress.values)


def _networks(spec: Spec) -> dict[str, str]:
    """A digest of each file that the spec takes a network from, by name."""
    files = [name for name in spec.network if name.rpartition(":")[0].endswith(".py")]
    return {
        f"network {name}": sha256(source_of(name, "network", spec.folder)).hexdigest()
        for name in files
    }
