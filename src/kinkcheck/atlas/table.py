"""The measured table: what each framework returns at each kink, a column for each version.

The file is ``conventions.json`` in this package. It says the version of its schema; it holds the
probes, and for each column the framework, its version, where and how it was measured, and what
each probe gave. Numbers that JSON has no form for are the words ``nan``, ``inf`` and ``-inf``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from kinkcheck.atlas.clarke import weights
from kinkcheck.atlas.probes import Probe
from kinkcheck.errors import InputError, unknown

SCHEMA = 1
"""The version of the schema that is written."""

FILE = Path(__file__).with_name("conventions.json")
"""The table of this package."""


@dataclass(frozen=True)
class Found:
    """What a probe gave.

    Attributes:
        derivative: a slope for each place of the probe; empty if there was an error.
        lies: where it lies, in the words of :data:`kinkcheck.atlas.clarke.LIES`.
        value: what came out, where it is not the value of the probe.
        elsewhere: whether numbers that cannot move the output had slopes.
        error: what was raised instead.
        dtype: the type that it was measured in, where it is not the first of the column.
        compiled: whether the column's compiler had it.
        layout: of the tensors in memory, where it is not the usual one.
        differs: what departs from this in another type, compiled, or in another layout; whatever
            was measured and is not listed is the same up to rounding.
    """

    derivative: tuple[float, ...] = ()
    lies: tuple[str, ...] = ()
    value: float | None = None
    elsewhere: bool = False
    error: str = ""
    dtype: str = ""
    compiled: bool = False
    layout: str = ""
    differs: tuple[Found, ...] = ()

    @staticmethod
    def of(fields: Mapping[str, Any]) -> Found:
        """From what the file has."""
        value = fields.get("value")
        return Found(**{
            **fields,
            "derivative": tuple(map(float, fields.get("derivative", ()))),
            "lies": tuple(fields.get("lies", ())),
            "value": None if value is None else float(value),
            "differs": tuple(map(Found.of, fields.get("differs", ()))),
        })  # fmt: skip

    @property
    def how(self) -> str:
        """How it was measured: ``float16``, ``compiled``, ``channels_last``."""
        return ", ".join(filter(None, (self.dtype, "compiled" * self.compiled, self.layout)))


@dataclass(frozen=True)
class Column:
    """One framework in one version.

    Attributes:
        framework: the name of its adapter: ``torch``.
        version: of the package.
        install: what brought it.
        python: the version of Python.
        machine: operating system and processor.
        dtypes: the types it computes in; the first is the one that all else is compared with.
        compiler: that was measured, too; empty if none was.
        layouts: of tensors; the first is the usual one.
        calls: the framework's own spelling of each call of a probe.
        lacks: the calls that it does not have; a form of a call may be lacking too.
        found: what each probe gave, by the name of the probe.
    """

    framework: str
    version: str
    install: str
    python: str
    machine: str
    dtypes: tuple[str, ...]
    compiler: str
    layouts: tuple[str, ...]
    calls: Mapping[str, str]
    lacks: tuple[str, ...]
    found: Mapping[str, Found] = field(repr=False)

    @staticmethod
    def of(fields: Mapping[str, Any]) -> Column:
        """From what the file has."""
        lists = {name: tuple(fields[name]) for name in ("dtypes", "layouts", "lacks")}
        found = {name: Found.of(each) for name, each in fields["found"].items()}
        return Column(**{**fields, **lists, "found": found})

    @property
    def name(self) -> str:
        """The framework and the first two numbers of its version: ``torch-2.13``."""
        return f"{self.framework}-{'.'.join(self.version.split('.')[:2])}"

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the version, which order versions."""
        return tuple(int(each) for each in self.version.split(".") if each.isdigit())


@dataclass(frozen=True)
class Table:
    """All columns.

    Attributes:
        probes: by their names.
        columns: by theirs, the versions of one framework side by side, in ascending order.
    """

    probes: Mapping[str, Probe]
    columns: Mapping[str, Column]

    def column(self, name: str) -> Column:
        """A column; of a framework named without a version the newest.

        Raises:
            InputError: there is none of this name.

        >>> from kinkcheck.atlas import table
        >>> table.read().column("torch-2.13").version
        '2.13.0'
        >>> table.read().column("torch-2.31")
        Traceback (most recent call last):
        ...
        kinkcheck.errors.InputError: unknown framework 'torch-2.31'; did you mean ...
        """
        if name in self.columns:
            return self.columns[name]
        of_it = [column for column in self.columns.values() if column.framework == name]
        if not of_it:
            frameworks = (column.framework for column in self.columns.values())
            raise unknown("framework", name, dict.fromkeys([*self.columns, *frameworks]))
        return of_it[-1]

    def at(self, operation: str, form: str = "") -> dict[str, Probe]:
        """The probes of an operation in one form, by their kinks.

        Raises:
            InputError: the operation is unknown, or it has no such form.

        >>> from kinkcheck.atlas import table
        >>> list(table.read().at("clamp"))
        ['at -1', 'at 1']
        >>> table.read().at("max", "along")
        Traceback (most recent call last):
        ...
        kinkcheck.errors.InputError: unknown form of max 'along'; accepted: of all entries, ...
        """
        forms: dict[str, dict[str, None]] = {}
        for probe in self.probes.values():
            forms.setdefault(probe.operation, {})[probe.form] = None
        if operation not in forms:
            raise unknown("operation", operation, forms)
        if form not in forms[operation]:
            raise unknown(f"form of {operation}", form, forms[operation])
        return {
            probe.kink: probe
            for probe in self.probes.values()
            if (probe.operation, probe.form) == (operation, form)
        }

    def weights(
        self, column: str, operation: str, form: str = "", dtype: str = ""
    ) -> dict[str, tuple[float, ...] | None]:
        """With which weights a framework combines what meets at each kink of an operation.

        Args:
            column: the name of a column or of a framework.
            operation: a row of :mod:`kinkcheck.ops`.
            form: which form of it.
            dtype: in which type; by default the first of the column.

        Returns:
            For each kink what :func:`kinkcheck.atlas.clarke.weights` says: (1 − α, α) for the two
            sides, a weight for each tied entry, or the point of a norm's ball; None where the
            framework has no such operation or an error, or returns what no weights give.

        Raises:
            InputError: the column, the operation or its form is unknown.

        >>> from kinkcheck.atlas import table
        >>> table.read().weights("torch-2.13", "max_pool2d")["tie of 3"]
        (1.0, 0.0, 0.0)
        >>> table.read().weights("torch-2.13", "clamp")
        {'at -1': (0.0, 1.0), 'at 1': (1.0, 0.0)}
        """
        of = self.column(column)
        said: dict[str, tuple[float, ...] | None] = {}
        for kink, probe in self.at(operation, form).items():
            found = of.found.get(probe.name, Found(error="lacking"))
            for other in found.differs:
                if other.dtype and other.how == dtype:
                    found = other
            said[kink] = None if found.error else weights(probe, found.derivative)
        return said


@cache
def read(file: Path = FILE) -> Table:
    """The table in a file.

    Raises:
        InputError: a newer program has written the file.

    >>> len(read().columns) > 0
    True
    """
    document = json.loads(file.read_text(encoding="utf-8"))
    if document["schema"] > SCHEMA:
        raise InputError(
            f"{file} has schema {document['schema']}; this version reads up to {SCHEMA}"
        )
    probes = (_probe(each) for each in document["probes"])
    columns = (Column.of(each) for each in document["columns"])
    return Table(
        {probe.name: probe for probe in probes}, {column.name: column for column in columns}
    )


def _probe(fields: Mapping[str, Any]) -> Probe:
    settings = {
        name: tuple(each) if isinstance(each, list) else _number(each)
        for name, each in fields.get("settings", {}).items()
    }
    tuples = {name: tuple(map(tuple, fields[name])) for name in ("places", "branches", "map")
              if name in fields}  # fmt: skip
    return Probe(**{
        **fields, **tuples, "settings": settings, "inputs": tuple(fields["inputs"]),
    })  # fmt: skip


def _number(each: Any) -> Any:
    return float(each) if each in ("inf", "-inf", "nan") else each
