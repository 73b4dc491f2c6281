"""Records in a file that grows by a line a record: JSON lines or CSV."""

from __future__ import annotations

import csv
import errno
import io
import json
import logging
import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kinkcheck.errors import InputError
from kinkcheck.files import require_writable, take
from kinkcheck.monitor.measure import Record

_log = logging.getLogger("kinkcheck")


def appender(path: Path) -> Callable[[Record], None]:
    """A function that adds a record to a file, which it opens and closes again each time.

    A ``.jsonl`` gets everything that a record holds, numbers that are not finite as ``"nan"``,
    ``"inf"`` and ``"-inf"``. A ``.csv`` gets the step and what :meth:`Record.scalars` returns,
    under the names of the first record: a site that only later ones have is left out. Where a kill
    or a full disk cut a line short, the next record does not go on with it: in a ``.jsonl`` it
    stays as a line of its own, in a ``.csv`` it is removed, since its last number may be another.
    Several processes may write to one file.

    Raises:
        InputError: the file has another ending, is a pipe or a device, or cannot be written; when
            called, the CSV has other columns already.
        OSError: when called, the file cannot be written; or not any more, as its columns changed.

    >>> appender(Path("records.xml"))
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: file: records.xml must end in .jsonl or .csv
    """
    forms: dict[str, type[_Lines | _Table]] = {".jsonl": _Lines, ".csv": _Table}
    if path.suffix not in forms:
        raise InputError(f"file: {path} must end in {' or '.join(forms)}")
    require_writable(path, "file")
    if path.exists() and not path.is_file():
        raise InputError(f"file: {path} cannot be written: {_NO_FILE}")
    form = forms[path.suffix](path)
    begun = False

    def add(record: Record) -> None:
        nonlocal begun
        try:
            form.add(record)
        except _OtherError as error:
            if begun:  # no reason to end a training
                raise OSError(errno.EEXIST, f"it {error} now") from None
            raise InputError(f"file: {path} {error}; name another file") from None
        begun = True

    return add


_NO_FILE = "it is a pipe or a device, not a file"
_TRIES, _PAUSE = 5, 0.1  # a record takes a moment to write


class _OtherError(Exception):
    """A file holds something else than records; in the words that follow its name."""


class _Lines:
    """A file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, record: Record) -> None:
        text = json.dumps(_plain(asdict(record)), allow_nan=False) + "\n"
        with _opened(self.path) as file:
            if _last_line(file)[1]:
                _log.warning("kinkcheck: the last line of %s was cut short", self.path)
                text = f"\n{text}"
            _write(file, text)


class _Table:
    """A file in CSV."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] = []  # of the first record that was written

    def add(self, record: Record) -> None:
        named = {"step": record.step, **record.scalars()}
        # A name may hold half a surrogate pair, which UTF-8 does not have.
        row = {key.encode(errors="backslashreplace").decode(): named[key] for key in named}
        columns = self._columns or list(row)
        header, line = io.StringIO(), io.StringIO()
        csv.writer(header).writerow(columns)
        csv.DictWriter(line, columns, extrasaction="ignore").writerow(row)
        heading = header.getvalue()
        with _opened(self.path) as file:
            whole = heading.encode()
            there = file.read(len(whole))
            if len(there) < len(whole) and whole.startswith(there):
                if there:
                    _remove(file, 0, self.path)
            elif _first_row(file) != columns:
                raise _OtherError("has other columns")
            else:
                heading = ""
                start, last = _last_line(file)
                if last:
                    _remove(file, start, self.path)
            _write(file, heading + line.getvalue())
        self._columns = columns


@contextmanager
def _opened(path: Path) -> Iterator[io.FileIO]:
    """A file to read and to append to, which no other process does meanwhile."""
    # Without waiting: a pipe would wait for a reader.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _AT_ONCE, 0o666)
    with io.FileIO(handle, "r+") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, _NO_FILE)
        for _ in range(_TRIES):
            if take(file):
                break
            time.sleep(_PAUSE)
        else:
            raise OSError(errno.EBUSY, "another process is at it")
        yield file


_AT_ONCE = getattr(os, "O_NONBLOCK", 0)  # not on Windows


def _last_line(file: io.FileIO, block: int = 1 << 16) -> tuple[int, bytes]:
    """What comes after the last end of a line, and where it starts."""
    at = end = file.seek(0, os.SEEK_END)
    last = b""
    while at and b"\n" not in last:
        at = max(0, at - block)
        file.seek(at)
        last = file.read(min(block, end - at)) + last
    last = last[last.rfind(b"\n") + 1 :]
    return end - len(last), last


def _write(file: io.FileIO, text: str) -> None:
    rest = memoryview(text.encode())
    while rest:
        rest = rest[file.write(rest) :]


def _remove(file: io.FileIO, start: int, path: Path) -> None:
    """Remove a line that was cut short; a next one would go on with it."""
    file.truncate(start)
    _log.warning("kinkcheck: the last line of %s was cut short, and is removed", path)


def _first_row(file: io.FileIO) -> list[str] | None:
    """The first row of a CSV; None if it is none."""
    file.seek(0)
    buffered = io.BufferedReader(file)
    text = io.TextIOWrapper(buffered, encoding="utf-8", errors="replace", newline="")
    try:
        return next(csv.reader(text), None)
    except csv.Error:
        return None
    finally:
        text.detach().detach()  # the file stays open


def _plain(value: Any) -> Any:
    """The same without numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
