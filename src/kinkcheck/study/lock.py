"""One writer a study: a lock that names its process and dies with it."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from kinkcheck.errors import InputError
from kinkcheck.files import say_whose, take

_TRIES, _PAUSE = 5, 0.1  # a reader that asks who writes holds the lock for a moment


class Lock:
    """The right to write to a study, held while the block runs.

    The lock is the operating system's (``flock``), so it ends with the process, however that ends;
    the file only says whose it is. It is never deleted.

    Args:
        path: the file.

    Raises:
        InputError: another process has it; the message names that process.

    >>> path = getfixture("tmp_path") / "lock"
    >>> with Lock(path):
    ...     holder(path) == os.getpid()
    True
    >>> holder(path) is None
    True
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            file = open(self._path, "a+b", buffering=0)
        except OSError as error:
            raise InputError(f"{self._path} cannot be written: {error.strerror}") from error
        if not _take_for_good(file):
            told = _read(file)
            file.close()
            raise InputError(
                f"{self._path.parent} is being written by process {told.get('pid', '?')} on "
                f"{told.get('host', 'this machine')}; wait for it, or stop it and try again"
            )
        say_whose(file, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        self._file = file
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()  # which gives the lock back


def holder(path: Path) -> int | None:
    """The id of the process that holds a lock; None if none does."""
    try:
        file = open(path, "rb")  # noqa: SIM115 closed below
    except OSError:
        return None
    with file:
        if take(file, shared=True):
            return None
        pid = _read(file).get("pid")
        return pid if isinstance(pid, int) else -1


def is_lock(path: Path) -> bool:
    """Whether a file is one that says who writes.

    >>> path = getfixture("tmp_path") / "lock"
    >>> with Lock(path):
    ...     is_lock(path)
    True
    >>> path.write_text("mine"), is_lock(path)
    (4, False)
    """
    with suppress(OSError, ValueError), open(path, "rb") as file:
        return path.stat().st_size == 0 or "pid" in _read(file)
    return False


def _take_for_good(file: IO[bytes]) -> bool:
    for _ in range(_TRIES - 1):
        if take(file):
            return True
        time.sleep(_PAUSE)
    return take(file)


def _read(file: IO[bytes]) -> dict[str, Any]:
    file.seek(0)
    with suppress(ValueError):
        told = json.load(file)
        if isinstance(told, dict):
            return told
    return {}
