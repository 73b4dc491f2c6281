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

from kinkcheck.errors import InputError, blaming
from kinkcheck.seal import DamagedError
from kinkcheck.study import schema, seals
from kinkcheck.study.criteria import Criterion
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
        task: what tells trials of its task apart: ``data``, ``network`` and ``batch_norm`` where
            images are classified, ``task`` else.
        precision, optimizer, forward, backward, seed, learning_rate: what it is; the learning rate
            is None as long as it is searched.
        selections: by family of operations; a family that is not there is native.
        epochs: that it is to have.
        done: epochs that it has.
        value: how it is judged on the test set after the last of them; None before the first, and
            where it is not a number.
        diverged_step: steps before the first number that was not finite.
        diverged_layer: where that was.
        reason: of a failure.
    """

    trial: str
    state: State
    task: Mapping[str, object]
    precision: str
    optimizer: str
    forward: str
    backward: str
    selections: Mapping[str, str]
    seed: int
    learning_rate: float | None
    epochs: int
    done: int
    value: float | None
    diverged_step: int | None
    diverged_layer: str | None
    reason: str | None


class Reading:
    """An open study.

    Attributes:
        folder: of the study.
        shape: of its tables: what its task adds to them.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._connection = connection
        self.shape = schema.shape_of(connection)

    @property
    def criterion(self) -> Criterion:
        """What decides."""
        return self.shape.criteria[0]

    def trials(self, *, candidates: bool = False) -> list[Trial]:
        """The trials in order; the candidates of searches instead, if asked."""
        found = self.rows(
            "SELECT trial, state, precision, optimizer, forward, "
            "settings, seed, trials.learning_rate, trials.epochs, "
            "(SELECT coalesce(max(epoch), 0) FROM epochs WHERE epochs.trial = trials.trial) done, "
            f"(SELECT test_{self.criterion.name} FROM epochs WHERE epochs.trial = trials.trial "
            "ORDER BY epoch DESC LIMIT 1) value, diverged_step, diverged_layer, reason "
            "FROM trials WHERE (search IS NOT NULL) = ? ORDER BY position, search, number",
            (candidates,),
        )
        for row in found:
            settings = Settings.from_json(row.pop("settings"))
            row["task"], row["selections"] = settings.task.columns, settings.selections
            row["backward"] = settings.backward
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

    Whatever fails in the block is said to be the fault of what was read.

    Raises:
        InputError: there is none, it was written by a newer version, it is damaged, or it cannot be
            read.

    >>> from kinkcheck.study.run import run
    >>> from kinkcheck.study.spec import shipped
    >>> folder = getfixture("tmp_path") / "s"
    >>> spec = shipped("smoke").model_copy(update={"epochs": 1, "precision": ("float32",)})
    >>> _ = run(spec, folder)
    >>> with reading(folder) as study:
    ...     [(trial.state, trial.done) for trial in study.trials()]
    [('finished', 1), ('finished', 1)]
    """
    file = folder / schema.FILE
    with closing(schema.open_for_reading(file)) as connection:
        try:
            # What somebody wrote there by hand fails in as many ways as there are to write.
            with blaming(f"{file} holds what no study does"):
                _require_intact(file, connection)
                yield Reading(folder, connection)
        except InputError as error:
            if isinstance(error.__cause__, sqlite3.Error):
                raise InputError(f"{file} cannot be read: {error.__cause__}") from error
            raise


def _require_intact(path: Path, connection: sqlite3.Connection) -> None:
    if schema.version_of(connection) < schema.SEALED:
        return
    connection.execute("BEGIN")  # a writer may be at it
    found = seals.damaged(connection)
    connection.execute("COMMIT")
    if found:
        raise DamagedError(
            f"{path} is damaged: {found[0]} is not what its digest says; kinkcheck study run "
            "computes it again, if it can"
        )
