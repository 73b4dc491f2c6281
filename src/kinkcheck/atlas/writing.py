"""The file of the table, written: one probe and one measurement a line.

Run as ``python -m kinkcheck.atlas.writing FILE ...`` it puts the columns that
:mod:`kinkcheck.atlas.measuring` wrote into the table of the package, in the place of those of the
same framework and version.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from kinkcheck.atlas.probes import PROBES, Probe
from kinkcheck.atlas.table import FILE, SCHEMA
from kinkcheck.files import write_whole


def document(columns: Iterable[Mapping[str, Any]], probes: Sequence[Probe] = PROBES) -> str:
    """The text of the file.

    Args:
        columns: as :func:`kinkcheck.atlas.measuring.column` returns them.
        probes: that were measured.

    >>> json.loads(document([], PROBES[:1]))["probes"][0]["operation"]
    'max_pool1d'
    """
    listed = _lines(_line(_written(probe)) for probe in probes)
    written = _lines(map(_column, sorted(columns, key=_place)))
    return f'{{"schema": {SCHEMA},\n"probes": [\n{listed}\n],\n"columns": [\n{written}\n]}}\n'


def _place(column: Mapping[str, Any]) -> tuple[bool, str, list[int]]:
    """PyTorch first; the versions of one framework in ascending order."""
    numbers = [int(each) for each in column["version"].split(".") if each.isdigit()]
    return column["framework"] != "torch", column["framework"], numbers


def _column(column: Mapping[str, Any]) -> str:
    head = _line({name: each for name, each in column.items() if name != "found"})
    found = _lines(f"{json.dumps(name)}: {_line(each)}" for name, each in column["found"].items())
    return f'{head[:-1]},\n"found": {{\n{found}\n}}}}'


def _written(probe: Probe) -> dict[str, Any]:
    """The fields that are not the usual ones, numbers as JSON has them."""
    usual = {each.name: each.default for each in fields(probe)} | {"call": probe.operation}
    written = {
        name: each
        for name, each in asdict(probe).items()
        if each != usual[name] and each not in ({}, ())
    }
    for name, each in probe.settings.items():
        written["settings"][name] = str(each) if each == float("inf") else each
    return written


def _line(each: Any) -> str:
    return json.dumps(each, ensure_ascii=False)


def _lines(texts: Iterable[str]) -> str:
    return ",\n".join(texts)


if __name__ == "__main__":
    measured = [json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]
    again = {(each["framework"], each["version"]) for each in measured}
    kept = json.loads(FILE.read_text(encoding="utf-8"))["columns"] if FILE.exists() else []
    measured += [each for each in kept if (each["framework"], each["version"]) not in again]
    write_whole(FILE, document(measured))
