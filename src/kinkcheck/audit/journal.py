"""A file of points that grows by a line a point, so that a killed run can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import TypeAdapter

from kinkcheck.audit.report import plain
from kinkcheck.errors import InputError
from kinkcheck.files import Claim, append, set_aside
from kinkcheck.measure.records import Found, Point
from kinkcheck.seal import DamagedError, require_intact, say_damaged, sealed
from kinkcheck.tape import Unseen

SCHEMA = "kinkcheck.volume/1"


class Journal:
    """Points in a file of JSON lines: first the settings, then a line for every point.

    A point is one parameter draw, mini-batch and precision; its line is an object whose ``points``
    have one entry a selection, as in an audit's JSON, with ``unseen`` and ``left_out`` where
    something was not switched or not measured, and a ``digest``. Earlier versions wrote no digests.
    A line is on disk before the next one is written. One process writes at a time. A last line that
    was cut short, by a kill or a full disk, is removed when the file is opened. A file with a line
    that is damaged otherwise is set aside, and goes on from the line before; what stood behind it
    can be appended again.

    Args:
        path: the file; None keeps nothing.
        settings: what the points depend on, JSON values by name. A file that has points already
            must have been written with the same.

    Attributes:
        settings: as they were given, but for what an earlier version did not write, which nobody
            knows of its points.
        found: what was found at the points in the file, in their order, without sites; where lines
            were damaged, at the others.
        whole: whether none was damaged.
        lines: how many points are in the file now; as many of ``found`` need not be kept.

    Raises:
        InputError: the file was written with other settings, which are named; another process
            writes it; it is no journal; or it cannot be read or written.

    >>> file = getfixture("tmp_path") / "points.jsonl"
    >>> with Journal(file, {"seed": 0}) as journal:
    ...     journal.append(Found([], [], [], []))
    >>> Journal(file, {"seed": 1})
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: out: ... was written with seed 0, not 1; ...
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)
        self.found: list[Found] = []
        self.whole = True
        self.lines = 0
        self._intact: list[bytes] = []
        self._path = path
        self._handle: int | None = None
        self._held = ExitStack()
        if path is None:
            return
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError(f"out: {path} cannot be written: it is a pipe or a device, not a file")
        head: dict[str, Any] = {"schema": SCHEMA, "settings": dict(settings)}
        with ExitStack() as stack, self._written():
            claim = stack.enter_context(Claim(path))
            intact = self._read(path, claim, head["settings"])
            how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._handle = os.open(path, how, 0o666)
            stack.callback(os.close, self._handle)
            if path.is_file():
                os.truncate(self._handle, intact)
            if not intact:
                self._write(head)
            self._held = stack.pop_all()

    def append(self, found: Found) -> None:
        """Add one point; on return it is on disk. Its sites are not kept.

        Raises:
            InputError: the disk is full, or the like.
        """
        with self._written():
            beside = {
                "unseen": [asdict(each) for each in found.unseen], "left_out": found.left_out
            }  # fmt: skip
            self._write(
                {
                    "points": [plain(asdict(entry)) for entry in found.points],
                    **(beside if any(beside.values()) else {}),
                }
            )
        self.lines += 1

    def keep(self, number: int) -> None:
        """Add the line of one of ``found``, which stood behind a damaged one, as it was.

        Raises:
            InputError: the disk is full, or the like.
        """
        with self._written():
            assert self._handle is not None
            append(self._handle, self._intact[number])
        self.lines += 1

    def _read(self, path: Path, claim: Claim, settings: Mapping[str, Any]) -> int:
        """Read what is there; how many bytes of the file go on."""
        if not path.exists():
            return 0
        content = path.read_bytes()
        if not content:  # also a device
            return 0
        lines = content.splitlines(keepends=True)
        cut = not lines[-1].endswith(b"\n")
        if cut and not _begins(lines[0]):
            raise InputError(f"out: {path} is not a file of points; name another")
        if cut:
            lines.pop()
        if not lines:
            return 0
        try:
            differing = _differing(path, lines[0], settings)
        except DamagedError:
            say_damaged(str(path), set_aside(path))
            self.whole = False
            return 0
        if differing and len(lines) > 1:
            raise InputError(f"out: {path} was written with {differing}; name another file")
        if differing:  # settings without points: nothing is lost
            return 0
        written = json.loads(lines[0])["settings"]
        for name in set(_SINCE) - set(written):
            self.settings.pop(name, None)
        read = [_read(line) for line in lines[1:]]
        self.found = [found for found in read if found is not None]
        self._intact = [line for line, found in zip(lines[1:], read, strict=True) if found]
        self.whole = None not in read
        self.lines = len(read) if self.whole else read.index(None)
        intact = sum(map(len, lines[: 1 + self.lines]))
        if not self.whole:
            first = f"line {2 + self.lines} of {path}"
            aside = set_aside(path)
            claim.write(content[:intact])
            say_damaged(first, aside)
        return intact

    def _write(self, value: Mapping[str, Any]) -> None:
        if self._handle is not None:
            line = json.dumps(sealed(value), allow_nan=False).encode() + b"\n"
            append(self._handle, line)

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"out: {self._path} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        self._held.close()

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
_SINCE = {"threads": None, "standing": True}
"""Settings that earlier versions did not write, with what they were; None where nobody knows."""

_MARK = SCHEMA.partition("/")[0].encode()
_START = json.dumps({"schema": SCHEMA}).encode()[:-1]


def _begins(line: bytes) -> bool:
    """Whether a line begins like the first line of a journal, however short it was cut."""
    return line.startswith(_START) or _START.startswith(line)


def _differing(path: Path, line: bytes, settings: Mapping[str, Any]) -> str | None:
    """The first setting that is not the same as in a journal's first line."""
    try:
        found = json.loads(line)
        require_intact(found, str(path))
        schema, before = found["schema"], dict(found["settings"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        if _MARK in line:
            raise DamagedError(f"out: line 1 of {path} is damaged") from None
        raise InputError(f"out: {path} is not a file of points; name another") from None
    if schema != SCHEMA:
        raise InputError(f"out: {path} has the schema {schema}, not {SCHEMA}; name another file")
    now = json.loads(json.dumps(settings))  # tuples are lists in a file
    for name in (*now, *before):
        was, given = before.get(name, _SINCE.get(name)), now.get(name)
        unknown = was is None and name in _SINCE
        if was != given and not unknown:
            return f"{name} {_short(was)}, not {_short(given)}"
    return None


def _read(line: bytes) -> Found | None:
    """What a line holds; None if it is damaged."""
    try:
        read = json.loads(line)
        beside = {"points": read} if isinstance(read, list) else read
        require_intact(beside, "")
        return Found(
            _ENTRIES.validate_python(beside["points"]),
            [],
            _UNSEEN.validate_python(beside.get("unseen", [])),
            _LEFT_OUT.validate_python(beside.get("left_out", [])),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
