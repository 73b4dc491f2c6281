"""Digests of what a study's file and its checkpoints hold, so that damage there is noticed.

SQLite notices pages that do not fit together, and not that a number has become another one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from hashlib import sha256

TABLES = ("epochs", "ties", "distances", "sessions")
"""Tables whose rows belong to a trial."""

_WHOLE = {
    "schema": "SELECT name, sql FROM sqlite_master ORDER BY name",
    "study": "SELECT * FROM study ORDER BY key",
    "searches": "SELECT * FROM searches ORDER BY search",
}
"""What is sealed as one."""

_ORDER = {
    "trials": "trial",
    "epochs": "epoch",
    "ties": "epoch, layer",
    "distances": "epoch, network",
    "sessions": "rowid",
}


def seal(connection: sqlite3.Connection, name: str, digest: str | None = None) -> None:
    """Write the digest of something, in the transaction that writes it.

    Args:
        connection: to the file.
        name: ``trial ID``, ``study``, ``searches``, ``schema``, or ``checkpoint ID``.
        digest: of a checkpoint, which is not in the file.
    """
    connection.execute(
        "INSERT OR REPLACE INTO seals VALUES (?, ?)", (name, digest or _digest(connection, name))
    )


def unseal(connection: sqlite3.Connection, name: str) -> None:
    """What is gone has no digest."""
    # A name that was damaged may be no text.
    key = name.encode(errors="surrogateescape")
    connection.execute("DELETE FROM seals WHERE CAST(name AS BLOB) = ?", (key,))


def seal_all(connection: sqlite3.Connection) -> None:
    """Seal everything in a file of an earlier version."""
    for name in _due(connection):
        seal(connection, name)


def sealed(connection: sqlite3.Connection, name: str) -> str | None:
    """The digest that was written for something; None if there is none."""
    row = connection.execute("SELECT digest FROM seals WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def damaged(connection: sqlite3.Connection) -> list[str]:
    """The names of what is in the file and not what was written.

    Returns:
        Names as in :func:`seal`, without checkpoints; a trial that is gone or that nobody wrote is
        among them.
    """
    try:
        seals = dict(
            connection.execute("SELECT name, digest FROM seals WHERE name NOT LIKE 'checkpoint %'")
        )
    except sqlite3.OperationalError:
        return ["schema"]
    if seals.get("schema") != _digest(connection, "schema"):
        return ["schema"]
    due = list(_due(connection))
    return [
        *(name for name in due if seals.get(name) != _digest(connection, name)),
        *sorted(map(str, seals.keys() - set(due))),
    ]


def _due(connection: sqlite3.Connection) -> Iterator[str]:
    yield from _WHOLE
    ids: set[str] = set()
    for table in _ORDER:
        ids |= {str(trial) for (trial,) in connection.execute(f"SELECT trial FROM {table}")}
    yield from (f"trial {trial}" for trial in sorted(ids))


def _digest(connection: sqlite3.Connection, name: str) -> str:
    """Of rows as Python shows them: exact, and with their types."""
    of = sha256()
    kind, _, trial = name.partition(" ")
    try:
        if kind in _WHOLE:
            rows = connection.execute(_WHOLE[kind])
            of.update(repr([tuple(row) for row in rows]).encode())
        else:
            for table, order in _ORDER.items():
                rows = connection.execute(
                    f"SELECT * FROM {table} WHERE trial = ? ORDER BY {order}", (trial,)
                )
                of.update(repr([tuple(row) for row in rows]).encode())
    except UnicodeError:  # an id that is no text any more
        return ""
    return of.hexdigest()
