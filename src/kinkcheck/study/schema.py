"""The tables of a study's file, and how it is opened."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from kinkcheck.errors import InputError
from kinkcheck.study import seals
from kinkcheck.study.criteria import ACCURACY, Criterion

FILE = "study.db"
"""Name of the file in a study's folder."""

VERSION = 4
"""Of the tables, in ``PRAGMA user_version``; the page on studies documents them.

Up to version 3 there are no seals. Up to version 2 every task is the classification of images, and
its tables are what they are now; in version 1 only max pooling and ReLU have selections. All are
written on as this version, so that a kinkcheck that knows no more refuses to read the rest wrongly.
"""

SEALED = 4
"""The version from which on the tables have seals."""

_APPLICATION = 0x4B4E4B53  # "KNKS", in PRAGMA application_id: whose file this is


@dataclass(frozen=True)
class Shape:
    """The columns that depend on the task.

    Attributes:
        factors: what tells its trials apart, by SQL type.
        criteria: what they are judged by, the one that decides first.
    """

    factors: Mapping[str, str]
    criteria: tuple[Criterion, ...]

    def to_json(self) -> str:
        """The shape as a JSON object.

        >>> Shape.from_json(IMAGES.to_json()) == IMAGES
        True
        """
        criteria = [asdict(each) for each in self.criteria]
        return json.dumps({"factors": dict(self.factors), "criteria": criteria})

    @classmethod
    def from_json(cls, text: str) -> Shape:
        """The shape that :meth:`to_json` wrote."""
        read = json.loads(text)
        return cls(read["factors"], tuple(Criterion(**each) for each in read["criteria"]))


IMAGES = Shape({"data": "TEXT", "network": "TEXT", "batch_norm": "INTEGER"}, (ACCURACY,))
"""What the tables of a study that says nothing else have."""

OWN = {"task": "TEXT"}
"""What tells trials of a user's own task apart."""


def shape_of(connection: sqlite3.Connection) -> Shape:
    """The shape of the tables of a study."""
    row = connection.execute("SELECT value FROM study WHERE key = 'task'").fetchone()
    return IMAGES if row is None else Shape.from_json(row[0])


_TABLES = """
CREATE TABLE study (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE trials (
    trial TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    search TEXT,
    number INTEGER,
    {factors},
    precision TEXT NOT NULL,
    optimizer TEXT NOT NULL,
    forward TEXT NOT NULL,
    max_pool TEXT,
    relu TEXT,
    seed INTEGER NOT NULL,
    learning_rate REAL,
    epochs INTEGER NOT NULL,
    settings TEXT NOT NULL,
    diverged_step INTEGER,
    diverged_layer TEXT,
    reason TEXT,
    checkpoint TEXT
) WITHOUT ROWID;

CREATE TABLE epochs (
    trial TEXT NOT NULL REFERENCES trials,
    epoch INTEGER NOT NULL,
    learning_rate REAL NOT NULL,
    train_loss REAL,
    {train},
    test_loss REAL,
    {test},
    gradient_norm REAL,
    seconds REAL NOT NULL,
    PRIMARY KEY (trial, epoch)
) WITHOUT ROWID;

CREATE TABLE ties (
    trial TEXT NOT NULL REFERENCES trials,
    epoch INTEGER NOT NULL,
    layer TEXT NOT NULL,
    windows INTEGER NOT NULL,
    tied INTEGER NOT NULL,
    PRIMARY KEY (trial, epoch, layer)
) WITHOUT ROWID;

CREATE TABLE distances (
    trial TEXT NOT NULL REFERENCES trials,
    epoch INTEGER NOT NULL,
    network INTEGER NOT NULL,
    max_pool TEXT NOT NULL,
    l1 REAL,
    train_loss REAL,
    test_loss REAL,
    test_{main} REAL,
    diverged_step INTEGER,
    diverged_layer TEXT,
    PRIMARY KEY (trial, epoch, network)
) WITHOUT ROWID;

CREATE TABLE sessions (
    trial TEXT NOT NULL REFERENCES trials,
    first_epoch INTEGER NOT NULL,
    started TEXT NOT NULL,
    kinkcheck TEXT NOT NULL,
    commit_id TEXT,
    clean INTEGER,
    torch TEXT NOT NULL,
    python TEXT NOT NULL,
    platform TEXT NOT NULL,
    device TEXT NOT NULL,
    device_name TEXT NOT NULL,
    kernels TEXT NOT NULL,
    threads INTEGER NOT NULL,
    flags TEXT NOT NULL,
    init_seed INTEGER NOT NULL,
    order_seed INTEGER NOT NULL,
    augment_seed INTEGER NOT NULL
);

CREATE TABLE searches (
    search TEXT PRIMARY KEY,
    learning_rate REAL NOT NULL,
    test_{main} REAL,
    candidates INTEGER NOT NULL
) WITHOUT ROWID;
"""

SEALS = """
CREATE TABLE IF NOT EXISTS seals (
    name TEXT PRIMARY KEY,
    digest TEXT NOT NULL
) WITHOUT ROWID;
"""
"""Digests of what the other tables and the checkpoints hold; see :mod:`kinkcheck.study.seals`."""


def _tables(shape: Shape) -> str:
    return _TABLES.format(
        factors=",\n    ".join(f"{name} {kind} NOT NULL" for name, kind in shape.factors.items()),
        train=",\n    ".join(f"train_{each.name} REAL" for each in shape.criteria),
        test=",\n    ".join(f"test_{each.name} REAL" for each in shape.criteria),
        main=shape.criteria[0].name,
    )


def create(path: Path, shape: Shape) -> sqlite3.Connection:
    """A new file with empty tables; it appears whole or not at all.

    Args:
        path: of the file.
        shape: of the tables.

    Raises:
        sqlite3.Error, OSError: it cannot be written.
    """
    # Filled under another name: a file without tables would be nobody's, and readers could not
    # recover one that a kill left half on its way to a write-ahead log.
    unfinished = path.with_name(f".{path.name}.new")
    for suffix in ("", "-journal", "-wal", "-shm"):
        unfinished.with_name(unfinished.name + suffix).unlink(missing_ok=True)
    connection = sqlite3.connect(unfinished)
    try:
        connection.executescript(f"BEGIN; {_tables(shape)} {SEALS}")
        connection.execute("INSERT INTO study VALUES ('task', ?)", (shape.to_json(),))
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        seals.seal_all(connection)
        connection.commit()
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
    unfinished.rename(path)
    return open_for_writing(path)


def open_for_writing(path: Path) -> sqlite3.Connection:
    """A file of this version, for its one writer.

    Raises:
        InputError: it is not such a file; see :func:`open_for_reading`.
    """
    open_for_reading(path).close()
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.text_factory = _text
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def version_of(connection: sqlite3.Connection) -> int:
    """The version of the tables in a file."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _text(content: bytes) -> str:
    """A text that was damaged is still one, so that its seal can be tried."""
    return content.decode(errors="surrogateescape")


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A file of this version, for readers; there may be any number, at any time.

    Raises:
        InputError: it is not there, is damaged, belongs to something else, or was written by a
            newer version. It is left as it is.

    >>> open_for_reading(Path("nowhere/study.db"))
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: nowhere holds no study: there is no study.db in it
    """
    if not path.is_file():
        raise InputError(f"{path.parent} holds no study: there is no {path.name} in it")
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)
    connection.row_factory = sqlite3.Row
    connection.text_factory = _text
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        version = version_of(connection)
        if application != _APPLICATION:
            raise InputError(f"{path} is not a study; name another folder")
        if version > VERSION:
            raise InputError(
                f"{path} was written by a newer kinkcheck (tables {version}; this one reads up to "
                f"{VERSION}); update kinkcheck"
            )
        (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if sound != "ok":
            raise InputError(f"{path} cannot be read: {sound}")
    except sqlite3.Error as error:
        connection.close()
        raise InputError(f"{path} cannot be read: {error}") from error
    except UnicodeDecodeError as error:  # SQLite's complaint quotes what is damaged
        connection.close()
        raise InputError(f"{path} cannot be read: the layout of its tables is damaged") from error
    except InputError:
        connection.close()
        raise
    return connection
