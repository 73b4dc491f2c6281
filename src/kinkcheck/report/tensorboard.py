"""A study's epochs as TensorBoard logs, a run a trial: ``pip install kinkcheck[tensorboard]``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kinkcheck.errors import InputError
from kinkcheck.extras import require
from kinkcheck.report.study import settings_text
from kinkcheck.study.job import Outcome, Record
from kinkcheck.study.run import Silent
from kinkcheck.study.settings import Settings


class TensorBoard(Silent):
    """A watcher of a study that writes what each epoch brought, while it runs.

    The folder of a trial is named after its settings and its id. A trial that goes on from an epoch
    goes on in its folder; TensorBoard leaves out what was written of later epochs.

    Args:
        folder: holds a folder for each trial.

    Raises:
        InputError: TensorBoard is not installed, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        require("tensorboard", extra="tensorboard")
        self._new: Any = require("torch.utils.tensorboard", extra="tensorboard").SummaryWriter
        self._folder = folder
        self._writers: dict[Settings, Any] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--tensorboard: {folder} cannot be written: {error.strerror}"
            ) from error

    def started(self, settings: Settings, first_epoch: int) -> None:
        """A folder for the trial; it may have been started before, here or by another process."""
        self._close(settings)
        writer = self._new(
            str(self._folder / run_name(settings)), purge_step=first_epoch if first_epoch > 1 else 0
        )
        writer.add_text("settings", f"    {settings.to_json()}")
        self._writers[settings] = writer

    def epoch(self, settings: Settings, record: Record) -> None:
        """All numbers of an epoch."""
        writer = self._writers[settings]
        for name, value in scalars(record):
            writer.add_scalar(name, value, record.epoch)
        writer.flush()

    def ended(self, settings: Settings, outcome: Outcome) -> None:
        """How it ended."""
        if settings in self._writers:
            where = "" if outcome.step is None else f" at step {outcome.step} in {outcome.layer}"
            self._writers[settings].add_text("outcome", f"{outcome.state}{where}")
            self._close(settings)

    def _close(self, settings: Settings) -> None:
        if settings in self._writers:
            self._writers.pop(settings).close()


def run_name(settings: Settings) -> str:
    """The name of a trial's folder.

    >>> from kinkcheck.study.spec import shipped
    >>> run_name(shipped("smoke").trials()[0])
    'lenet5-float16-hybrid-0-seed-0-...'
    """
    words = re.sub(r"[^A-Za-z0-9.+-]+", "-", settings_text(settings)).strip("-")
    return f"{words}-{settings.id}"


def scalars(record: Record) -> Iterator[tuple[str, float]]:
    """The numbers of an epoch by name.

    >>> from kinkcheck.study.criteria import ACCURACY
    >>> from kinkcheck.study.job import Score
    >>> train, test = Score(2.0, {ACCURACY: 0.5}), Score(1.5, {ACCURACY: 0.6})
    >>> for name, value in scalars(Record(1, 0.1, train, test, seconds=1.0)):
    ...     print(name, value)
    loss/train 2.0
    loss/test 1.5
    accuracy/train 0.5
    accuracy/test 0.6
    learning_rate 0.1
    seconds 1.0
    """
    train, test = record.train.numbers(), record.test.numbers()
    for name in train:
        yield f"{name}/train", train[name]
        yield f"{name}/test", test[name]
    yield "learning_rate", record.learning_rate
    yield "seconds", record.seconds
    if record.gradient_norm is not None:
        yield "gradient_norm", record.gradient_norm
    for ties in record.ties:
        yield f"ties/{ties.layer}", ties.rate
    for other in record.distances:
        yield f"distance/{other.network}", other.l1
        yield f"distance_{record.test.main.name}/{other.network}", other.test_value
