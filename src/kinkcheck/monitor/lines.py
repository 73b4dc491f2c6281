"""Records in a file that grows by a line a record: JSON lines or CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kinkcheck.errors import InputError
from kinkcheck.files import require_writable
from kinkcheck.monitor.measure import Record


def appender(path: Path) -> Callable[[Record], None]:
    """A function that adds a record to a file, which it opens and closes again each time.

    A ``.jsonl`` gets everything that a record holds, numbers that are not finite as ``"nan"``,
    ``"inf"`` and ``"-inf"``. A ``.csv`` gets the step and what :meth:`Record.scalars` returns,
    under the names of the first record: a site that only later ones have is left out.

    Raises:
        InputError: the file has another ending or cannot be written; when called, the CSV has
            other columns already.

    >>> appender(Path("records.xml"))
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: file: records.xml must end in .jsonl or .csv
    """
    forms = {".jsonl": _append_json, ".csv": _append_csv}
    if path.suffix not in forms:
        raise InputError(f"file: {path} must end in {' or '.join(forms)}")
    require_writable(path, "file")
    append = forms[path.suffix]
    begun: list[str] = []  # the columns of a CSV that this process has written to
    return lambda record: append(path, record, begun)


def _append_json(path: Path, record: Record, _: list[str]) -> None:
    line = json.dumps(_plain(asdict(record)), allow_nan=False)
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def _append_csv(path: Path, record: Record, begun: list[str]) -> None:
    row = {"step": record.step, **record.scalars()}
    content = io.StringIO()
    columns = begun or list(row)
    if not begun and _columns(path, columns) is None:
        csv.writer(content).writerow(columns)
    csv.DictWriter(content, columns, extrasaction="ignore").writerow(row)
    with open(path, "a", encoding="utf-8", newline="") as file:
        file.write(content.getvalue())
    begun[:] = columns  # only now: a write that failed has left no header


def _columns(path: Path, expected: list[str]) -> list[str] | None:
    """The columns of a CSV; None if there is none yet."""
    if not path.exists():
        return None
    with open(path, encoding="utf-8", newline="") as file:
        there = next(csv.reader(file), None)
    if there is not None and there != expected:
        raise InputError(f"file: {path} has other columns; name another file")
    return there


def _plain(value: Any) -> Any:
    """The same without numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
