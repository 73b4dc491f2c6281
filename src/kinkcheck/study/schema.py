"""The tables of a study's file, and how it is opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from kinkcheck.errors import InputError

FILE = "study.db"
"""Name of the file in a study's folder."""

VERSION = 2
"""Of the tables, in ``PRAGMA user_version``; the page on studies documents them.

Version 1 has the same tables, where only max pooling and ReLU have selections; it is written on as
version 2, so that a kinkcheck that knows no others refuses to read the rest wrongly.
"""

_APPLICATION = 0x4B4E4B53  # "KNKS", in PRAGMA application_id: whose file this is

TABLES = """
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
    data TEXT NOT NULL,
    network TEXT NOT NULL,
    batch_norm INTEGER NOT NULL,
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
    train_accuracy REAL NOT NULL,
    test_loss REAL,
    test_accuracy REAL NOT NULL,
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
    test_accuracy REAL NOT NULL,
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
    test_accuracy REAL NOT NULL,
    candidates INTEGER NOT NULL
) WITHOUT ROWID;
"""


def create(path: Path) -> sqlite3.Connection:
    """A new file with empty tables; it appears whole or not at all.

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
        connection.executescript(
            f"BEGIN; {TABLES} PRAGMA application_id = {_APPLICATION};"
            f"PRAGMA user_version = {VERSION}; COMMIT; PRAGMA journal_mode = WAL;"
        )
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
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


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
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
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
    except InputError:
        connection.close()
        raise
    return connection
