"""Rows of numbers: dataclasses in memory, objects of JSON in files, lines on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from types import UnionType
from typing import Any, TypeAlias, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from kinkcheck.errors import InputError, unknown

R = TypeVar("R")
K = TypeVar("K", bound=Hashable)

Value: TypeAlias = str | int | float | bool | None
"""What a column of a row can hold; None where there is nothing to say."""

Line: TypeAlias = Mapping[str, Value]
"""A line of a table that is shown: values by the headings of their columns."""


def line(row: object, *columns: str) -> dict[str, Value]:
    """Some columns of a row, or all of them, to be shown.

    Args:
        row: a dataclass.
        columns: their names, in the order in which they are shown; none for all.

    >>> from kinkcheck.paper.harness.comparison import Sample
    >>> line(Sample(0.5, 0.1, 3), "runs", "mean")
    {'runs': 3, 'mean': 0.5}
    """
    found: dict[str, Value] = vars(row)
    return {column: found[column] for column in columns or found}


def by(rows: Iterable[R], key: Callable[[R], K]) -> dict[K, list[R]]:
    """Rows that agree in something, together, in the order in which they come.

    >>> by(["a1", "b1", "a2"], lambda text: text[0])
    {'a': ['a1', 'a2'], 'b': ['b1']}
    """
    found: dict[K, list[R]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def decoded(kind: type[R] | UnionType, content: object, where: str) -> list[R]:
    """The rows that a file holds.

    Args:
        kind: a dataclass, or a union of some: a row is then of the one that it fits best. A column
            may be missing where its field has a default.
        content: a list of mappings, as JSON gives it; None, infinities and NaN are kept.
        where: the name of the file.

    Raises:
        InputError: a row does not fit; the message names file, row and column.

    >>> from kinkcheck.paper.harness.comparison import Sample
    >>> decoded(Sample, [{"mean": 0.5, "deviation": float("nan"), "runs": 3}], "x.json")
    [Sample(mean=0.5, deviation=nan, runs=3)]
    >>> decoded(Sample, [{"mean": 0.5, "deviation": "wide", "runs": 3}], "x.json")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: x.json, row 1, column deviation: 'wide' is not of type float | None
    """
    if not isinstance(content, list):
        raise InputError(f"{where}: rows are not a list")
    kinds: tuple[type[R], ...] = get_args(kind) or (kind,)
    known = [(each, _columns(each)) for each in kinds]
    return [_decoded(known, row, f"{where}, row {n}") for n, row in enumerate(content, start=1)]


_Columns: TypeAlias = dict[str, tuple[Field[Any], TypeAdapter[Any]]]


def _columns(kind: type[Any]) -> _Columns:
    hints = get_type_hints(kind)
    return {field.name: (field, TypeAdapter(hints[field.name])) for field in fields(kind)}


def _decoded(known: Sequence[tuple[type[R], _Columns]], row: object, where: str) -> R:
    if not isinstance(row, dict):
        raise InputError(f"{where} is not an object")
    found = [(kind, list(_misfits(columns, row))) for kind, columns in known]
    kind, misfits = min(found, key=lambda each: len(each[1]))
    if misfits:
        raise InputError(f"{where}{misfits[0]}")
    return kind(**row)


def _misfits(columns: _Columns, row: dict[str, object]) -> Iterator[str]:
    """What is wrong with a row, if it is to have these columns."""
    for name in row:
        if name not in columns:
            yield f": {unknown('column', name, columns)}"
    for name, (field, adapter) in columns.items():
        if name not in row:
            if field.default is MISSING:
                yield f", column {name}: missing"
            continue
        try:
            adapter.validate_python(row[name], strict=True)
        except ValidationError:
            yield f", column {name}: {row[name]!r} is not of type {field.type}"
