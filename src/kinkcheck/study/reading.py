"""What a study has found, as its readers see it: at any time, also while it runs."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinkcheck.errors import InputError
from kinkcheck.study import schema
from kinkcheck.study.job import State
from kinkcheck.study.lock import holder
from kinkcheck.study.settings import Settings
from kinkcheck.study.store import LOCK

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Trial:
    """One trial, as far as it has come.

    Attributes:
        trial: its id.
        state: see :data:`kinkcheck.study.job.State`.
        network, batch_norm, precision, optimizer, forward, seed, learning_rate: what it is;
            the learning rate is None as long as it is searched.
        selections: by family of operations; a family that is not there is native.
        epochs: that it is to have.
        done: epochs that it has.
        test_accuracy: after the last of them, from 0 to 1; None before the first.
        diverged_step: steps before the first number that was not finite.
        diverged_layer: where that was.
        reason: of a failure.
        data: name of the data set.
    """

    trial: str
    state: State
    data: str
    network: str
    batch_norm: bool
    precision: str
    optimizer: str
    forward: str
    selections: Mapping[str, str]
    seed: int
    learning_rate: float | None
    epochs: int
    done: int
    test_accuracy: float | None
    diverged_step: int | None
    diverged_layer: str | None
    reason: str | None


class Reading:
    """An open study.

    Attributes:
        folder: of the study.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._connection = connection

    def trials(self, *, candidates: bool = False) -> list[Trial]:
        """The trials in order; the candidates of searches instead, if asked."""
        found = self.rows(
            "SELECT trial, state, data, network, batch_norm, precision, optimizer, forward, "
            "settings, seed, trials.learning_rate, trials.epochs, "
            "(SELECT coalesce(max(epoch), 0) FROM epochs WHERE epochs.trial = trials.trial) done, "
            "(SELECT test_accuracy FROM epochs WHERE epochs.trial = trials.trial "
            "ORDER BY epoch DESC LIMIT 1) test_accuracy, diverged_step, diverged_layer, reason "
            "FROM trials WHERE (search IS NOT NULL) = ? ORDER BY position, search, number",
            (candidates,),
        )
        for row in found:
            row["batch_norm"] = bool(row["batch_norm"])
            row["selections"] = Settings.from_json(row.pop("settings")).selections
        return [Trial(**row) for row in found]

    def losses(self) -> dict[str, list[float]]:
        """Training loss of each epoch, by trial; not a number where it was not finite."""
        found: dict[str, list[float]] = {}
        for row in self.rows(
            "SELECT trial, train_loss FROM epochs WHERE epoch > 0 ORDER BY trial, epoch"
        ):
            loss = row["train_loss"]
            found.setdefault(row["trial"], []).append(math.nan if loss is None else loss)
        return found

    def distances(self) -> Rows:
        """The table ``distances``, in order."""
        return self.rows("SELECT * FROM distances ORDER BY trial, network, epoch")

    def lists_rates(self) -> bool:
        """Whether the spec lists its learning rates, instead of searching or drawing them."""
        ((spec,),) = self._connection.execute("SELECT value FROM study WHERE key = 'spec'")
        return isinstance(json.loads(spec)["learning_rate"], list)

    def running(self) -> int | None:
        """The id of the process that writes; None if none does."""
        return holder(self.folder / LOCK)

    def rows(self, query: str, values: Sequence[object] = ()) -> Rows:
        """What a query finds, each row by the names of its columns."""
        return [dict(row) for row in self._connection.execute(query, values)]

    def columns(self, query: str) -> list[str]:
        """The names of the columns that a query finds, be there rows or not."""
        return [column for column, *_ in self._connection.execute(query).description]


@contextmanager
def reading(folder: Path) -> Iterator[Reading]:
    """Open a study to read from it; it may be running.

    Raises:
        InputError: there is none, it was written by a newer version, or it cannot be read.

    >>> from kinkcheck.study.run import run
    >>> from kinkcheck.study.spec import shipped
    >>> folder = getfixture("tmp_path") / "s"
    >>> spec = shipped("smoke").model_copy(update={"epochs": 1, "precision": ("float32",)})
    >>> _ = run(spec, folder)
    >>> with reading(folder) as study:
    ...     [(trial.state, trial.done) for trial in study.trials()]
    [('finished', 1), ('finished', 1)]
    """
    with closing(schema.open_for_reading(folder / schema.FILE)) as connection:
        try:
            yield Reading(folder, connection)
        except sqlite3.Error as error:
            raise InputError(f"{folder / schema.FILE} cannot be read: {error}") from error
