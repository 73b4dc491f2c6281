"""An experiment from its start to the files that it leaves."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from kinkcheck.errors import InputError
from kinkcheck.files import write_whole, write_whole_bytes
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.report import ink

SCHEMA = "kinkcheck.paper/1"


@dataclass(frozen=True)
class Numbers:
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
    rows: list[Row]


def run(experiment: Experiment, out: Path, setup: Setup) -> Numbers:
    """Measure an experiment, write its numbers, then its figure.

    Numbers come first: ``NAME.json`` and ``NAME.csv``; then ``NAME.pdf``, ``NAME.svg`` and
    ``NAME.png``. Numbers that are there already, of the same size, are drawn again and not
    measured again; what an interrupted run had done lies in ``setup.work``.

    Raises:
        InputError: the experiment cannot be measured, or ``out`` holds numbers of another size or
            cannot be written.
    """
    path = out / f"{experiment.name}.json"
    if path.exists():
        numbers = read(experiment.name, out)
        if numbers.reduced != setup.reduced:
            size = "reduced" if numbers.reduced else "full"
            raise InputError(f"{path} holds a run of {size} size; give another --out, or delete it")
    else:
        try:
            setup.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{setup.work} cannot be made: {error.strerror}") from error
        threads = torch.get_num_threads()
        torch.set_num_threads(setup.threads or threads)
        try:
            rows = experiment.measure(setup)
        finally:
            torch.set_num_threads(threads)
        numbers = Numbers(
            experiment.name, setup.reduced, version("kinkcheck"), str(torch.__version__), rows
        )
        try:
            write_whole(out / f"{experiment.name}.csv", _csv(rows))
            write_whole(path, json.dumps({"schema": SCHEMA, **vars(numbers)}, indent=1) + "\n")
        except OSError as error:
            raise InputError(f"{out} cannot be written: {error.strerror}") from error
    try:
        for form in ink.FORMATS:
            drawn = ink.save(lambda: experiment.draw(numbers.rows), form)
            write_whole_bytes(out / f"{experiment.name}.{form}", drawn)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from error
    return numbers


def read(name: str, out: Path) -> Numbers:
    """The numbers that :func:`run` wrote.

    Raises:
        InputError: there are none, or a newer version wrote them.
    """
    path = out / f"{name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; kinkcheck paper run {name} writes it"
        ) from None
    except ValueError:
        raise InputError(f"{path} is not JSON") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError(f"{path} is not of the schema {SCHEMA}")
    del content["schema"]
    return Numbers(**content)


def _csv(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
