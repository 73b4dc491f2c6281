"""What a study has found so far, in one file that survives a kill at any instant.

The rows of an epoch and the checkpoint to go on from it become valid together: the checkpoint is
written whole under a name of its own, then one transaction adds the rows and names the checkpoint,
then the checkpoint before it is deleted.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from zipfile import BadZipFile, ZipFile

from kinkcheck.errors import InputError, blaming
from kinkcheck.files import aside_of, set_aside, write_whole_bytes
from kinkcheck.seal import DamagedError, digest, say_damaged
from kinkcheck.study import schema, seals
from kinkcheck.study.job import EpochEnd, Outcome, Record, Started, State
from kinkcheck.study.lock import Lock, is_lock
from kinkcheck.study.settings import COLUMNS, Classification, Factory, Settings

LOCK = "lock"
"""Name of the file in a study's folder that says who writes."""

_CHECKPOINTS = "checkpoints"
_CHECKPOINT = re.compile(r"\.?(?P<trial>.+)-\d+\.pt(\.kinkcheck-(lock|new))?")


@dataclass(frozen=True)
class Progress:
    """Where a trial stands.

    Attributes:
        trial: its id.
        settings: what it is.
        state: see :data:`kinkcheck.study.job.State`.
        learning_rate: its own, or the one that was found for it; None as long as it is searched.
        checkpoint: what to go on from; None if nothing is done yet, or all is.
        values: how the epochs done were judged on the test set.
    """

    trial: str
    settings: Settings
    state: State
    learning_rate: float | None
    checkpoint: bytes | None
    values: tuple[float, ...]

    @property
    def over(self) -> bool:
        """Whether there is nothing left to train."""
        return self.state in ("finished", "diverged", "pruned")


class Store:
    """The folder of a study, for its one writer.

    ::

        study.db               the tables, documented on the page on studies
        checkpoints/ID-N.pt    trial ID after epoch N, as long as it is not over
        lock                   who writes

    What is damaged there is noticed by its digest, set aside and computed again; a warning and a
    fact in the tables say so.

    Args:
        folder: of the study; made if it is not there.
        trials: the settings of every trial, in order. A study may grow; none of its trials may
            disappear.
        facts: what the study was begun with and has to go on with (digests of the data, device,
            threads), texts by name.
        spec: the declared study, for the record.
        shape: of the tables.

    Raises:
        InputError: another process writes; the folder holds something and no study, or a study that
            was begun otherwise, by a newer version, or that cannot be read; or it cannot be
            written. What was there is left as it was.

    >>> from kinkcheck.study.spec import shipped
    >>> with Store(getfixture("tmp_path") / "s", shipped("smoke").trials(), {}, "") as store:
    ...     [progress.state for progress in store.progress()]
    ['waiting', 'waiting', 'waiting', 'waiting']
    """

    def __init__(
        self,
        folder: Path,
        trials: Sequence[Settings],
        facts: Mapping[str, str],
        spec: str,
        shape: schema.Shape = schema.IMAGES,
    ) -> None:
        self._folder = folder
        self._checkpoints = folder / _CHECKPOINTS
        self._trials = trials
        self._facts = dict(facts)
        self._spec = spec
        self._shape = shape
        self._held = ExitStack()
        self._connection: sqlite3.Connection

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            with self._written():
                _require_own(self._folder)
                self._checkpoints.mkdir(parents=True, exist_ok=True)
            stack.enter_context(Lock(self._folder / LOCK))
            path = self._folder / schema.FILE
            if path.exists():
                self._connection = schema.open_for_writing(path)
            else:
                with self._written():
                    self._connection = schema.create(path, self._shape)
            stack.callback(self._connection.close)
            with self._written():
                self._repair()
                self._require_same()
                self._declare()
                self._tidy()
            self._held = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._held.close()

    def progress(self, search: str | None = None) -> list[Progress]:
        """Where each trial stands, in order; those of a search, if one is given."""
        with self._written():
            found = self._connection.execute(
                "SELECT * FROM trials WHERE search IS ? ORDER BY position, number", (search,)
            ).fetchall()
            return [self._progress(row) for row in found]

    def fact(self, name: str, default: str) -> str:
        """What the study was begun with; the default from now on, if that was left open."""
        with self._transaction("study") as connection:
            connection.execute("INSERT OR IGNORE INTO study VALUES (?, ?)", (name, default))
            (value,) = connection.execute(
                "SELECT value FROM study WHERE key = ?", (name,)
            ).fetchone()
        return str(value)

    def learning_rate(self, search: str) -> float | None:
        """What a search has found; None as long as it runs."""
        row = self._connection.execute(
            "SELECT learning_rate FROM searches WHERE search = ?", (search,)
        ).fetchone()
        return None if row is None else float(row[0])

    def add_candidate(self, search: str, number: int, settings: Settings) -> None:
        """A learning rate to be tried, as a trial of its own."""
        with self._transaction(f"trial {settings.id}"):
            self._insert(settings, position=-1, search=search, number=number)

    def settle(self, search: str, rate: float, value: float) -> None:
        """A search is over."""
        with self._transaction("searches") as connection:
            (candidates,) = connection.execute(
                "SELECT count(*) FROM trials WHERE search = ?", (search,)
            ).fetchone()
            connection.execute(
                "INSERT INTO searches VALUES (?, ?, ?, ?)", (search, rate, value, candidates)
            )

    def assign(self, trials: Sequence[str], rate: float) -> None:
        """Trials train at the learning rate that was found for them."""
        with self._transaction(*(f"trial {trial}" for trial in trials)) as connection:
            connection.executemany(
                "UPDATE trials SET learning_rate = ? WHERE trial = ?", [(rate, t) for t in trials]
            )

    def start(self, trial: str, started: Started) -> None:
        """A trial starts or goes on."""
        settings = self._settings(trial)
        seeds = settings.init_seed, settings.order_seed, settings.augment_seed
        session = (trial, started.first_epoch, _now(), *astuple(started.provenance), *seeds)
        with self._transaction(f"trial {trial}") as connection:
            connection.execute(
                "UPDATE trials SET state = 'running', reason = NULL WHERE trial = ?", (trial,)
            )
            connection.execute(_insertion("sessions", len(session)), session)

    def add_epoch(self, trial: str, ended: EpochEnd) -> None:
        """An epoch is done; on return it cannot be lost any more."""
        name = f"{trial}-{ended.record.epoch}.pt"
        with self._written():
            write_whole_bytes(self._checkpoints / name, ended.state)
        with self._transaction(f"trial {trial}") as connection:
            (before,) = connection.execute(
                "SELECT checkpoint FROM trials WHERE trial = ?", (trial,)
            ).fetchone()
            self._add_rows(connection, trial, ended.record)
            connection.execute("UPDATE trials SET checkpoint = ? WHERE trial = ?", (name, trial))
            seals.seal(connection, f"checkpoint {trial}", digest(ended.state))
        self._remove(before)

    def end(self, trial: str, outcome: Outcome) -> None:
        """A trial is over, or has failed and can go on from its checkpoint."""
        with self._transaction(f"trial {trial}") as connection:
            (before,) = connection.execute(
                "SELECT checkpoint FROM trials WHERE trial = ?", (trial,)
            ).fetchone()
            kept = before if outcome.state == "failed" else None
            connection.execute(
                "UPDATE trials SET state = ?, diverged_step = ?, diverged_layer = ?, reason = ?, "
                "checkpoint = ? WHERE trial = ?",
                (outcome.state, outcome.step, outcome.layer, outcome.reason, kept, trial),
            )
            if kept is None:
                seals.unseal(connection, f"checkpoint {trial}")
        if kept is None:
            self._remove(before)

    def _require_same(self) -> None:
        """Check that the study goes on with what it was begun with."""
        begun = dict(self._connection.execute("SELECT key, value FROM study").fetchall())
        for name, now in self._facts.items():
            # A study that was killed as it began has not all of them yet.
            if name in begun and begun[name] != now:
                is_digest = name.startswith(("data ", "network "))
                what = "has changed since" if is_digest else f"is {now}, but"
                was = "" if is_digest else f" with {begun[name]}"
                raise InputError(
                    f"{self._folder}: {name} {what} the study began{was}; name another folder"
                )
        ids = {settings.id for settings in self._trials}
        kept = self._connection.execute("SELECT trial FROM trials WHERE search IS NULL").fetchall()
        lost = [trial for (trial,) in kept if trial not in ids]
        if lost:
            example = self._settings(lost[0])
            if _changed(example.task, self._trials[0].task):
                raise InputError(
                    f"{self._folder}: task {example.task.words[0]} has changed since the study "
                    "began; name another folder"
                )
            raise InputError(
                f"{self._folder} holds {len(lost)} trials that the spec does not have, one of them "
                f"with {_peculiarity(example, self._trials)}; name another folder, or put them back"
            )
        with blaming(f"{self._folder}: the metrics of the task are damaged"):
            shape = schema.shape_of(self._connection)
        if shape != self._shape:
            names = ", ".join(each.name for each in shape.criteria)
            raise InputError(
                f"{self._folder}: the metrics of the task have changed since the study began with "
                f"{names}; name another folder"
            )

    def _declare(self) -> None:
        names = [f"trial {settings.id}" for settings in self._trials]
        with self._transaction("study", *names) as connection:
            self._upgrade()
            for name, value in {**self._facts, "spec": self._spec}.items():
                connection.execute("INSERT OR REPLACE INTO study VALUES (?, ?)", (name, value))
            connection.execute("INSERT OR IGNORE INTO study VALUES ('begun', ?)", (_now(),))
            for position, settings in enumerate(self._trials):
                self._insert(settings, position=position)

    def _upgrade(self) -> None:
        """Seal what an earlier version wrote."""
        if schema.version_of(self._connection) >= schema.SEALED:
            return
        self._connection.execute(schema.SEALS)
        seals.seal_all(self._connection)
        named = "SELECT trial, checkpoint FROM trials WHERE checkpoint IS NOT NULL"
        for trial, name in self._connection.execute(named).fetchall():
            path = self._checkpoints / name
            if _is_whole(path):
                seals.seal(self._connection, f"checkpoint {trial}", digest(path.read_bytes()))
        self._connection.execute(f"PRAGMA user_version = {schema.VERSION}")

    def _insert(
        self,
        settings: Settings,
        *,
        position: int,
        search: str | None = None,
        number: int | None = None,
    ) -> None:
        columns = {
            "trial": settings.id,
            "position": position,
            "search": search,
            "number": number,
            **settings.task.columns,
            "precision": settings.precision,
            "optimizer": settings.optimizer,
            "forward": settings.forward,
            **{family: settings.selections.get(family) for family in COLUMNS},
            "seed": settings.seed,
            "learning_rate": settings.learning_rate,
            "epochs": settings.epochs,
            "settings": settings.to_json(),
        }
        self._connection.execute(
            f"INSERT INTO trials ({', '.join(columns)}) "
            f"VALUES ({', '.join('?' * len(columns))}) "
            "ON CONFLICT (trial) DO UPDATE SET position = excluded.position",
            tuple(columns.values()),
        )

    def _repair(self) -> None:
        """Have trials trained again whose rows are damaged; seal those of an earlier version."""
        path = self._folder / schema.FILE
        if schema.version_of(self._connection) < schema.SEALED:
            return
        found = seals.damaged(self._connection)
        if not found:
            return
        if {"schema", "study"} & set(found):
            raise DamagedError(
                f"{path} is damaged: {found[0]} is not what its digest says; name another folder"
            )
        aside = aside_of(path)
        self._connection.execute("VACUUM INTO ?", (str(aside),))
        ids = {name.removeprefix("trial ") for name in found} - {"searches"}
        if not ids <= {settings.id for settings in self._trials}:
            # A candidate depends on those before it: all are tried again.
            candidates = "SELECT trial FROM trials WHERE search IS NOT NULL"
            ids |= {trial for (trial,) in self._connection.execute(candidates)}
            found.append("searches")
        with self._transaction("searches", "study"):
            if "searches" in found:
                self._connection.execute("DELETE FROM searches")
            for trial in ids:
                self._forget(trial)
            for name in found:
                seals.unseal(self._connection, name)
                self._note(f"{name} was damaged; it lies in {aside.name}")
        for name in found:
            say_damaged(f"{name} in {path}", aside)

    def _forget(self, trial: str) -> None:
        # An id that was damaged may be no text.
        key = trial.encode(errors="surrogateescape")
        for table in (*seals.TABLES, "trials"):
            self._connection.execute(f"DELETE FROM {table} WHERE CAST(trial AS BLOB) = ?", (key,))
        seals.unseal(self._connection, f"trial {trial}")
        seals.unseal(self._connection, f"checkpoint {trial}")

    def _note(self, text: str) -> None:
        """Keep a fact about what happened to the study."""
        self._connection.execute(
            "INSERT INTO study SELECT 'damage ' || (count(*) + 1), ? FROM study "
            "WHERE key LIKE 'damage %'",
            (f"{_now()}: {text}",),
        )

    def _tidy(self) -> None:
        """Remove checkpoints of trials that name others; restart trials whose own is unusable.

        The latter happens only if a file was cut or changed from outside. What is not a checkpoint
        of a trial is somebody else's.
        """
        trials = {trial for (trial,) in self._connection.execute("SELECT trial FROM trials")}
        named = dict(
            self._connection.execute(
                "SELECT checkpoint, trial FROM trials WHERE checkpoint IS NOT NULL"
            ).fetchall()
        )
        there = {file.name for file in self._checkpoints.iterdir()}
        for name in there - set(named):
            written = _CHECKPOINT.fullmatch(name)
            if written is not None and written["trial"] in trials:
                self._remove(name)
        for name, trial in named.items():
            path = self._checkpoints / name
            aside = None
            if name in there:
                found = digest(path.read_bytes())
                if found == seals.sealed(self._connection, f"checkpoint {trial}"):
                    continue
                aside = set_aside(path)
            self._restart(trial, aside)
            say_damaged(str(path), aside)

    def _restart(self, trial: str, aside: Path | None) -> None:
        with self._transaction("study", f"trial {trial}") as connection:
            for table in seals.TABLES:
                connection.execute(f"DELETE FROM {table} WHERE trial = ?", (trial,))
            connection.execute(
                "UPDATE trials SET state = 'waiting', checkpoint = NULL WHERE trial = ?", (trial,)
            )
            seals.unseal(connection, f"checkpoint {trial}")
            lies = "was gone" if aside is None else f"was damaged; it lies in {aside.name}"
            self._note(f"the checkpoint of trial {trial} {lies}")

    def _progress(self, row: sqlite3.Row) -> Progress:
        values = self._connection.execute(
            f"SELECT test_{self._shape.criteria[0].name} FROM epochs "
            "WHERE trial = ? AND epoch > 0 ORDER BY epoch",
            (row["trial"],),
        ).fetchall()
        checkpoint = None
        if row["checkpoint"] is not None:
            try:
                checkpoint = (self._checkpoints / row["checkpoint"]).read_bytes()
            except OSError as error:
                raise InputError(
                    f"{self._checkpoints / row['checkpoint']} cannot be read: {error.strerror}"
                ) from error
            if digest(checkpoint) != seals.sealed(self._connection, f"checkpoint {row['trial']}"):
                raise DamagedError(
                    f"{self._checkpoints / row['checkpoint']} is damaged; the same command trains "
                    "that trial again"
                )
        return Progress(
            trial=row["trial"],
            settings=self._said(row["settings"]),
            state=row["state"],
            learning_rate=row["learning_rate"],
            checkpoint=checkpoint,
            values=tuple(math.nan if value is None else value for (value,) in values),
        )

    def _settings(self, trial: str) -> Settings:
        (text,) = self._connection.execute(
            "SELECT settings FROM trials WHERE trial = ?", (trial,)
        ).fetchone()
        return self._said(text)

    def _said(self, text: str) -> Settings:
        with blaming(f"{self._folder}: the settings of a trial are damaged"):
            return Settings.from_json(text)

    def _add_rows(self, connection: sqlite3.Connection, trial: str, record: Record) -> None:
        epoch = {
            "epoch": record.epoch,
            "learning_rate": record.learning_rate,
            **{f"train_{name}": value for name, value in record.train.numbers().items()},
            **{f"test_{name}": value for name, value in record.test.numbers().items()},
            "gradient_norm": record.gradient_norm,
            "seconds": record.seconds,
        }
        connection.execute(
            f"INSERT INTO epochs (trial, {', '.join(epoch)}) "
            f"VALUES (?, {', '.join('?' * len(epoch))})",
            (trial, *epoch.values()),
        )
        for table, rows in (("ties", record.ties), ("distances", record.distances)):
            for row in rows:
                values = (trial, record.epoch, *astuple(row))
                connection.execute(_insertion(table, len(values)), values)

    def _remove(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            (self._checkpoints / checkpoint).unlink(missing_ok=True)

    @contextmanager
    def _transaction(self, *changed: str) -> Iterator[sqlite3.Connection]:
        """All or nothing, also of what several blocks inside each other do.

        Args:
            changed: what is to be sealed anew, see :func:`kinkcheck.study.seals.seal`.
        """
        if self._connection.in_transaction:
            yield self._connection
            self._seal(changed)
            return
        with self._written():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._seal(changed)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _seal(self, changed: Sequence[str]) -> None:
        for name in changed:
            seals.seal(self._connection, name)

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise InputError(f"{self._folder} cannot be written: {error}") from error
        except OSError as error:
            raise InputError(f"{self._folder} cannot be written: {error.strerror}") from error


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint without a digest has the sums that PyTorch's format has."""
    try:
        with ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, BadZipFile, NotImplementedError):
        return False


def _changed(before: Classification | Factory, now: Classification | Factory) -> bool:
    """Whether a user's own task is in the same place, and its file is another."""
    if not isinstance(before, Factory) or not isinstance(now, Factory):
        return False
    return before.factory == now.factory and before.digest != now.digest


def _insertion(table: str, values: int) -> str:
    return f"INSERT INTO {table} VALUES ({', '.join('?' * values)})"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _peculiarity(one: Settings, others: Sequence[Settings]) -> str:
    """The first setting that no other trial has; if each alone is to be had, its seed."""
    for family, selection in one.selections.items():
        if all(other.selections.get(family) != selection for other in others):
            return f"{family} {selection}"
    for key, value in _said(one).items():
        if all(_said(other).get(key) != value for other in others):
            return f"{key} {value}"
    return " ".join((one.precision, *one.selections.values(), f"seed {one.seed}"))


def _said(one: Settings) -> dict[str, object]:
    """What may be peculiar to a trial, by name."""
    said = asdict(one)
    for key in ("selections", "init_seed", "order_seed", "augment_seed"):
        del said[key]
    return {**said.pop("task"), **said}


def _require_own(folder: Path) -> None:
    """Refuse a folder that holds something of somebody else's, before anything is written there."""
    if not folder.is_dir() or (folder / schema.FILE).exists():
        return
    for path in sorted(folder.iterdir()):
        # What a start that was killed leaves may stay.
        own = path.name.startswith(f".{schema.FILE}.")
        if path.name == LOCK:
            own = is_lock(path)
        elif path.name == _CHECKPOINTS:
            own = path.is_dir() and not any(path.iterdir())
        if not own:
            raise InputError(
                f"{folder} holds {path.name} and no study; name a folder that is new or empty"
            )
