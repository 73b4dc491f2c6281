"""A file of points that grows by a line a point, so that a killed run can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from kinkcheck.audit.report import plain
from kinkcheck.errors import InputError
from kinkcheck.files import take
from kinkcheck.measure.records import Found, Point
from kinkcheck.tape import Unseen

SCHEMA = "kinkcheck.volume/1"


class Journal:
    """Points in a file of JSON lines: first the settings, then a line for every point.

    A point is one parameter draw, mini-batch and precision; its line is a list with one entry a
    selection, as in ``points`` of an audit's JSON; or, where something was not switched or not
    measured, an object with that list as ``points``, ``unseen`` and ``left_out``. A line is on disk
    before the next point starts. One process writes at a time. A last line that was cut short, by a
    kill or a full disk, is removed when the file is opened.

    Args:
        path: the file; None keeps nothing.
        settings: what the points depend on, JSON values by name. A file that has points already
            must have been written with the same.

    Attributes:
        found: what was found at the points in the file, in their order, without sites.

    Raises:
        InputError: the file was written with other settings, which are named; another process
            writes it; it is no journal; or it cannot be read or written, or a line in the middle is
            damaged.

    >>> file = getfixture("tmp_path") / "points.jsonl"
    >>> with Journal(file, {"seed": 0}) as journal:
    ...     journal.append(Found([], [], [], []))
    >>> Journal(file, {"seed": 1})
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: out: ... was written with seed 0, not 1; ...
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.found: list[Found] = []
        self._file = None
        if path is None:
            return
        head: dict[str, Any] = {"schema": SCHEMA, "settings": dict(settings)}
        try:
            file = open(path, "a+b")  # noqa: SIM115 closed by close()
        except OSError as error:
            raise InputError(f"out: {path} cannot be written: {error.strerror}") from error
        self._file = file
        try:
            if not take(file):
                raise InputError(
                    f"out: {path} is being written by another process; wait for it, or name "
                    "another file"
                )
            file.seek(0)
            lines = file.read().splitlines(keepends=True)
            if lines and not lines[-1].endswith(b"\n"):
                if not _begins(lines[0]):
                    raise InputError(f"out: {path} is not a file of points; name another")
                file.truncate(sum(map(len, lines[:-1])))
                lines.pop()
            if lines:
                differing = _differing(path, lines[0], head["settings"])
                if differing and len(lines) > 1:
                    raise InputError(f"out: {path} was written with {differing}; name another file")
                if differing:  # settings without points: nothing is lost
                    file.truncate(0)
                    lines = []
            if not lines:
                self._write(head)
            self.found = [
                _read(path, number, line) for number, line in enumerate(lines[1:], start=2)
            ]
        except BaseException:
            file.close()
            raise

    def append(self, found: Found) -> None:
        """Add one point; on return it is on disk. Its sites are not kept.

        Raises:
            InputError: the disk is full, or the like.
        """
        entries = [plain(asdict(entry)) for entry in found.points]
        unseen = [asdict(each) for each in found.unseen]
        beside = {"unseen": unseen, "left_out": found.left_out}
        self._write({"points": entries, **beside} if any(beside.values()) else entries)
        self.found.append(replace(found, sites=[]))

    def _write(self, value: Any) -> None:
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(value, allow_nan=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(
                f"out: {self._file.name} cannot be written: {error.strerror}"
            ) from error

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


_ENTRIES = TypeAdapter(list[Point])
_UNSEEN = TypeAdapter(list[Unseen])
_LEFT_OUT = TypeAdapter(list[str])
_START = json.dumps({"schema": SCHEMA}).encode()[:-1]


def _begins(line: bytes) -> bool:
    """Whether a line begins like the first line of a journal, however short it was cut."""
    return line.startswith(_START) or _START.startswith(line)


def _differing(path: Path, line: bytes, settings: Mapping[str, Any]) -> str | None:
    """The first setting that is not the same as in a journal's first line."""
    try:
        found = json.loads(line)
        schema, before = found["schema"], dict(found["settings"])
    except (ValueError, TypeError, KeyError):
        raise InputError(f"out: {path} is not a file of points; name another") from None
    if schema != SCHEMA:
        raise InputError(f"out: {path} has the schema {schema}, not {SCHEMA}; name another file")
    now = json.loads(json.dumps(settings))  # tuples are lists in a file
    for name in (*now, *before):
        was, given = before.get(name), now.get(name)
        if was != given:
            return f"{name} {_short(was)}, not {_short(given)}"
    return None


def _read(path: Path, number: int, line: bytes) -> Found:
    try:
        read = json.loads(line)
        beside = {} if isinstance(read, list) else read
        return Found(
            _ENTRIES.validate_python(beside.get("points", read)),
            [],
            _UNSEEN.validate_python(beside.get("unseen", [])),
            _LEFT_OUT.validate_python(beside.get("left_out", [])),
        )
    except (ValueError, AttributeError, ValidationError):
        raise InputError(f"out: line {number} of {path} is damaged; name another file") from None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
