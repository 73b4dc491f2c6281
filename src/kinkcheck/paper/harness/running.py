"""An experiment from its start to the files that it leaves."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from kinkcheck.arithmetic.threads import of_threads
from kinkcheck.errors import InputError, blaming
from kinkcheck.files import (
    Claim,
    require_readable,
    require_writable,
    set_aside,
    write_whole,
    write_whole_bytes,
)
from kinkcheck.paper.harness.experiment import Experiment, Setup
from kinkcheck.paper.harness.rows import decoded, line
from kinkcheck.report import ink
from kinkcheck.seal import KEY, DamagedError, require_intact, say_damaged, sealed

SCHEMA = "kinkcheck.paper/1"

R = TypeVar("R")


@dataclass(frozen=True)
class Numbers(Generic[R]):
    """What was measured.

    Attributes:
        experiment: its name.
        reduced: whether at the reduced size.
        kinkcheck, torch: versions that measured it.
        rows: the numbers.
    """

    experiment: str
    reduced: bool
    kinkcheck: str
    torch: str
    rows: list[R]


def run(experiment: Experiment[R], out: Path, setup: Setup) -> Numbers[R]:
    """Measure an experiment, write its numbers, then its figure.

    Numbers come first: ``NAME.json``; then ``NAME.csv``, ``NAME.pdf``, ``NAME.svg`` and
    ``NAME.png``. Numbers that are there already, of the same size, are written and drawn again and
    not measured again; what an interrupted run had done lies in ``setup.work``. Numbers that are
    damaged are set aside and measured again.

    Raises:
        InputError: the experiment cannot be measured, or ``out`` holds numbers of another size,
            cannot be written, or is being written by another process.
    """
    path = out / f"{experiment.name}.json"
    with ExitStack() as held:
        with _writing(out):
            setup.work.mkdir(parents=True, exist_ok=True)
            for form in ("json", "csv", *ink.FORMATS):
                require_writable(out / f"{experiment.name}.{form}", "out")
            claim = held.enter_context(Claim(path))
        numbers = _kept(experiment, out)
        kept = numbers is not None
        if numbers is None:
            with of_threads(setup.threads):
                rows = experiment.measure(setup)
            numbers = Numbers(
                experiment.name, setup.reduced, version("kinkcheck"), str(torch.__version__), rows
            )
            with _writing(out):
                claim.write(to_json(numbers).encode())
        elif numbers.reduced != setup.reduced:
            size = "reduced" if numbers.reduced else "full"
            raise InputError(f"{path} holds a run of {size} size; give another --out, or delete it")
        with _writing(out):
            write_whole(out / f"{experiment.name}.csv", _csv(numbers.rows))
            for form in ink.FORMATS:
                drawn = _drawn(experiment, numbers, form, path if kept else None)
                write_whole_bytes(out / f"{experiment.name}.{form}", drawn)
    return numbers


def _drawn(experiment: Experiment[R], numbers: Numbers[R], form: str, read: Path | None) -> bytes:
    """The figure; where it cannot be drawn of rows that were read, their file is to blame."""
    draw = partial(experiment.draw, numbers.rows)
    if read is None:
        return ink.save(draw, form)
    with blaming(f"{read}: its rows cannot be drawn; delete it to measure them again"):
        return ink.save(draw, form)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from error


def _kept(experiment: Experiment[R], out: Path) -> Numbers[R] | None:
    """The numbers of an earlier run; None if there are none, or they were damaged and set aside."""
    path = out / f"{experiment.name}.json"
    if not path.exists():
        return None
    try:
        return read(experiment, out)
    except DamagedError:
        say_damaged(str(path), set_aside(path))
        return None


def read(experiment: Experiment[R], out: Path) -> Numbers[R]:
    """The numbers that :func:`run` wrote.

    Raises:
        DamagedError: they are not what was written.
        InputError: there are none, they do not fit the experiment, or a newer version wrote them.
    """
    path = out / f"{experiment.name}.json"
    if path.exists():
        require_readable(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; kinkcheck paper run {experiment.name} "
            "writes it"
        ) from None
    except (ValueError, RecursionError):
        raise DamagedError(
            f"{path} is damaged: it is not JSON; kinkcheck paper run {experiment.name} measures it "
            "again"
        ) from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError(f"{path} is not of the schema {SCHEMA}")
    require_intact(content, str(path))
    try:
        rows = decoded(experiment.row, content["rows"], str(path))
        head = {name: content[name] for name in _HEAD}
    except KeyError as error:
        raise InputError(f"{path} has no {error}") from None
    for name, value in head.items():
        kind = bool if name == "reduced" else str
        if not isinstance(value, kind):
            raise InputError(
                f"{path}: {name} is of type {type(value).__name__}, not {kind.__name__}"
            )
    if head["experiment"] != experiment.name:  # files of two may look alike
        raise InputError(
            f"{path} holds the numbers of {head['experiment']}, not of {experiment.name}"
        )
    return Numbers(**head, rows=rows)


_HEAD = ("experiment", "reduced", "kinkcheck", "torch")


def to_json(numbers: Numbers[Any]) -> str:
    """What :func:`read` reads: a row a line.

    >>> print(to_json(Numbers("x", True, "1", "2", [])))
    {
     "schema": "kinkcheck.paper/1",
     "experiment": "x",
     "reduced": true,
     "kinkcheck": "1",
     "torch": "2",
     "digest": "...",
     "rows": [
    <BLANKLINE>
     ]
    }
    """
    head = {"schema": SCHEMA, **{name: getattr(numbers, name) for name in _HEAD}}
    lines = [line(row) for row in numbers.rows]
    head[KEY] = sealed({**head, "rows": lines})[KEY]
    compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
    rows = ",\n".join(compact.encode(each) for each in lines)
    return f'{json.dumps(head, indent=1)[:-2]},\n "rows": [\n{rows}\n ]\n}}\n'


def _csv(rows: Sequence[object]) -> str:
    lines = [line(row) for row in rows]
    text = io.StringIO(newline="")
    columns = list(dict.fromkeys(column for each in lines for column in each))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
