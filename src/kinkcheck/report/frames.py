"""An audit as pandas tables."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from kinkcheck.audit.counts import SiteCount
from kinkcheck.audit.report import AuditReport
from kinkcheck.errors import InputError, unknown
from kinkcheck.extras import require
from kinkcheck.measure.records import Point

if TYPE_CHECKING:
    from pandas import DataFrame

_KINDS = {"points": Point, "sites": SiteCount}


def frame(report: AuditReport, of: str) -> DataFrame:
    """One row for each entry, one column for each number or word in it.

    Args:
        report: the audit.
        of: ``points`` or ``sites``.

    Raises:
        InputError: ``of`` is something else, or pandas is not installed.

    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> list(frame(AuditReport(*names, 0, "native", [], [], [], []), "sites"))[:3]
    ['precision', 'layer', 'operation']
    """
    if of not in _KINDS:
        raise InputError(f"of: {unknown('table', of, list(_KINDS))}")
    columns = _columns(_KINDS[of])
    rows = [[_cell(each, column) for column in columns] for each in getattr(report, of)]
    made: DataFrame = require("pandas", extra="pandas").DataFrame(rows, columns=columns)
    return made


def _columns(kind: Any, before: str = "") -> list[str]:
    """What an entry holds, by the names of docs/audit-json.md; lists are left out."""
    found, hints = [], get_type_hints(kind)
    for each in fields(kind):
        hint = hints[each.name]
        kinds: list[Any] = [hint, *get_args(hint)]
        if any(get_origin(part) is list for part in kinds):
            continue
        inner = [part for part in kinds if is_dataclass(part)]
        if inner:
            found += _columns(inner[0], f"{before}{each.name}.")
        else:
            found.append(before + each.name)
    return found


def _cell(entry: Any, column: str) -> Any:
    for name in column.split("."):
        entry = getattr(entry, name, None)
    return str(entry) if isinstance(entry, str) else entry  # no enumeration
