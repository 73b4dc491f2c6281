"""A study while it runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kinkcheck.report.study import settings_text
from kinkcheck.study.criteria import Criterion
from kinkcheck.study.job import Beat, Outcome, Record
from kinkcheck.study.settings import Settings
from kinkcheck.study.store import Progress as Standing
from kinkcheck.terminal import Terminal

if TYPE_CHECKING:
    from kinkcheck.study.run import Watcher

_PATIENCE = 5.0  # seconds between two lines about epochs


@contextmanager
def watching(console: Terminal, *others: Watcher) -> Iterator[Watcher]:
    """What fits the console, a live view or lines, and other watchers besides."""
    with _shown(console) as shown:
        yield Several(shown, *others)


@contextmanager
def _shown(console: Terminal) -> Iterator[Watcher]:
    if not console.is_terminal:
        with console.waiting("Making and reading what is trained ...") as say_else:

            def say(text: str) -> None:
                say_else("")
                console.tell(text)

            yield Lines(say)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[told]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # An epoch may take minutes: the speed is that of the last hour, not of the last half minute.
    with Progress(*columns, console=console, transient=True, speed_estimate_period=3600) as bars:
        yield Bars(bars)


class Several:
    """Watchers that are told one after the other.

    Args:
        watchers: in their order.
    """

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def planned(self, trials: Sequence[Standing]) -> None:
        """Told to all."""
        for watcher in self._watchers:
            watcher.planned(trials)

    def started(self, settings: Settings, first_epoch: int) -> None:
        """Told to all."""
        for watcher in self._watchers:
            watcher.started(settings, first_epoch)

    def beat(self, settings: Settings, beat: Beat) -> None:
        """Told to all."""
        for watcher in self._watchers:
            watcher.beat(settings, beat)

    def epoch(self, settings: Settings, record: Record) -> None:
        """Told to all."""
        for watcher in self._watchers:
            watcher.epoch(settings, record)

    def ended(self, settings: Settings, outcome: Outcome) -> None:
        """Told to all."""
        for watcher in self._watchers:
            watcher.ended(settings, outcome)

    def found(self, settings: Settings, rate: float, criterion: Criterion, value: float) -> None:
        """Told to all."""
        for watcher in self._watchers:
            watcher.found(settings, rate, criterion, value)


class Lines:
    """A line for each trial that starts, ends or has gone on for some seconds.

    Args:
        say: prints a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._over = 0
        self._all = 0
        self._last = time.monotonic()

    def planned(self, trials: Sequence[Standing]) -> None:
        """How many trials there are, and how many are over already."""
        self._over, self._all = sum(trial.over for trial in trials), len(trials)
        counted = "1 trial" if self._all == 1 else f"{self._all} trials"
        self._say(f"{counted}, {self._over} of them done")

    def started(self, settings: Settings, first_epoch: int) -> None:
        """What goes on in the middle is worth a line."""
        self._last = time.monotonic()
        if first_epoch > 1:
            self._say(f"{settings_text(settings)}: goes on with epoch {first_epoch}")

    def beat(self, settings: Settings, beat: Beat) -> None:
        """Nothing."""

    def epoch(self, settings: Settings, record: Record) -> None:
        """A line, unless there was one a moment ago."""
        if time.monotonic() - self._last > _PATIENCE:
            self._last = time.monotonic()
            self._say(f"{settings_text(settings)}: {epoch_text(settings, record)}")

    def ended(self, settings: Settings, outcome: Outcome) -> None:
        """How it ended."""
        counted = ""
        if not settings.candidate:
            self._over += outcome.state != "failed"
            counted = f"[{self._over}/{self._all}] "
        self._say(f"{counted}{settings_text(settings)}: {outcome_text(outcome)}")

    def found(self, settings: Settings, rate: float, criterion: Criterion, value: float) -> None:
        """What a search has found."""
        self._say(found_text(settings, rate, criterion, value))


class Bars:
    """A bar for all epochs of the study, and one for the trial that is running.

    Args:
        bars: to draw on.
    """

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._whole: TaskID | None = None
        self._running: dict[Settings, TaskID] = {}
        self._left: dict[Settings, int] = {}
        self._over = self._all = 0

    def planned(self, trials: Sequence[Standing]) -> None:
        """The epochs that are left, and how many trials are over already."""
        self._left = {
            trial.settings: trial.settings.epochs - len(trial.values)
            for trial in trials
            if not trial.over
        }
        self._over, self._all = sum(trial.over for trial in trials), len(trials)
        self._whole = self._bars.add_task(
            "study", total=sum(self._left.values()), told=self._counted()
        )

    def started(self, settings: Settings, first_epoch: int) -> None:
        """A bar for it; another one in its place, if it was running already."""
        if settings in self._running:
            self._bars.remove_task(self._running[settings])
        self._running[settings] = self._bars.add_task(
            settings_text(settings), total=settings.epochs, completed=first_epoch - 1, told=""
        )

    def beat(self, settings: Settings, beat: Beat) -> None:
        """A part of an epoch."""
        if settings in self._running:
            done = beat.epoch - 1 + beat.step / beat.steps
            self._bars.update(self._running[settings], completed=done)

    def epoch(self, settings: Settings, record: Record) -> None:
        """A whole epoch, and how it is judged."""
        self._bars.update(
            self._running[settings],
            completed=record.epoch,
            told=f"epoch {record.epoch} of {settings.epochs}, {judged_text(record)}",
        )
        if record.epoch:
            self._advance(settings, 1)

    def ended(self, settings: Settings, outcome: Outcome) -> None:
        """Its bar goes; a line stays if it did not just finish."""
        if settings in self._running:  # not if it failed before it started
            self._bars.remove_task(self._running.pop(settings))
        self._advance(settings, self._left.get(settings, 0))
        if self._whole is not None and not settings.candidate and outcome.state != "failed":
            self._over += 1
            self._bars.update(self._whole, told=self._counted())
        if outcome.state in ("diverged", "failed"):
            self._say(f"{settings_text(settings)}: {outcome_text(outcome)}")

    def found(self, settings: Settings, rate: float, criterion: Criterion, value: float) -> None:
        """What a search has found."""
        self._say(found_text(settings, rate, criterion, value))

    def _counted(self) -> str:
        return f"{self._over} of {self._all} trials done"

    def _advance(self, settings: Settings, epochs: int) -> None:
        if self._whole is not None and settings in self._left:
            self._left[settings] -= epochs
            self._bars.advance(self._whole, epochs)

    def _say(self, text: str) -> None:
        self._bars.console.print(text)


def epoch_text(settings: Settings, record: Record) -> str:
    """An epoch in a few words."""
    loss = f"loss {record.train.loss:.4g}, " if record.epoch else ""
    return f"epoch {record.epoch} of {settings.epochs}, {loss}{judged_text(record)}"


def judged_text(record: Record) -> str:
    """What a trial is judged by after an epoch, with its name."""
    return f"test {record.test.main.words} {record.test.main.text(record.test.value)}"


def outcome_text(outcome: Outcome) -> str:
    """An outcome in a few words."""
    if outcome.state == "diverged":
        return f"diverged at step {outcome.step} in {outcome.layer}"
    if outcome.state == "failed":
        return f"failed: {outcome.reason}"
    return outcome.state


def found_text(settings: Settings, rate: float, criterion: Criterion, value: float) -> str:
    """What a search has found, in a few words."""
    return (
        f"{settings_text(settings)}: learning rate {rate:.4g} "
        f"(test {criterion.words} {criterion.text(value)})"
    )
