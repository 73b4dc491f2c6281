"""A study's tables as CSV, JSON or Parquet; equal runs give equal files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from kinkcheck.errors import unknown
from kinkcheck.extras import require
from kinkcheck.study.reading import Reading, Rows

Format: TypeAlias = Literal["csv", "json", "parquet"]
FORMATS: tuple[Format, ...] = ("csv", "json", "parquet")

SCHEMA = "kinkcheck.study/1"

_TRIAL = (
    "trial, {factors}, precision, optimizer, forward, max_pool, relu, "
    "json_extract(settings, '$.selections') AS selections, "
    "coalesce(json_extract(settings, '$.backward'), 'exact') AS backward, "
    "seed, trials.learning_rate"
)
_EPOCH = "epoch, epochs.learning_rate AS epoch_learning_rate, {train}, {test}, gradient_norm"
_OUTCOME = "state, diverged_step, diverged_layer, reason"

QUERIES = {
    "epochs": f"SELECT {_TRIAL}, {_EPOCH}{{timing}} FROM epochs JOIN trials USING (trial) "
    "WHERE search IS NULL ORDER BY position, epoch",
    "trials": f"SELECT {_TRIAL}, {_OUTCOME}, settings FROM trials WHERE search IS NULL "
    "ORDER BY position",
    "ties": "SELECT trial, epoch, layer, windows, tied FROM ties JOIN trials USING (trial) "
    "WHERE search IS NULL ORDER BY position, epoch, layer",
    "distances": "SELECT distances.* FROM distances JOIN trials USING (trial) "
    "ORDER BY position, epoch, network",
    "searches": f"SELECT search, number, {_TRIAL}, {_OUTCOME}, {_EPOCH}{{timing}} FROM trials "
    "LEFT JOIN epochs USING (trial) WHERE search IS NOT NULL ORDER BY search, number, epoch",
    "sessions": "SELECT sessions.* FROM sessions JOIN trials USING (trial) "
    "ORDER BY position, search, number, sessions.rowid",
}
"""The tables that can be exported. All but ``sessions``, which says where and when, are equal for
equal runs."""


def export(study: Reading, table: str, form: Format, *, timing: bool = False) -> bytes:
    """One table of a study.

    Args:
        study: open to be read.
        table: one of :data:`QUERIES`.
        form: ``csv`` (an empty field for nothing), ``json`` (an object with ``schema``, ``table``
            and ``rows``; null for nothing) or ``parquet``.
        timing: with measured seconds.

    Returns:
        The file's content. Numbers are written so that they read back as the same ones. A loss that
        was not a number is nothing.

    Raises:
        InputError: no such table or format, or pyarrow is not installed.

    >>> from kinkcheck.study.reading import reading
    >>> from kinkcheck.study.run import run
    >>> from kinkcheck.study.spec import shipped
    >>> folder = getfixture("tmp_path") / "s"
    >>> spec = shipped("smoke").model_copy(update={"epochs": 1})
    >>> _ = run(spec, folder)
    >>> with reading(folder) as study:
    ...     export(study, "ties", "csv").decode().splitlines()[0]
    'trial,epoch,layer,windows,tied'
    """
    if table not in QUERIES:
        raise unknown("table", table, QUERIES)
    columns = ["loss", *(each.name for each in study.shape.criteria)]
    query = QUERIES[table].format(
        factors=", ".join(study.shape.factors),
        train=", ".join(f"train_{name}" for name in columns),
        test=", ".join(f"test_{name}" for name in columns),
        timing=", seconds" if timing else "",
    )
    rows = study.rows(query)
    if form == "json":
        return _json(table, rows)
    if form == "csv":
        return _csv(study.columns(query), rows)
    if form == "parquet":
        return _parquet(study.columns(query), rows)
    raise unknown("format", form, FORMATS)


def _json(table: str, rows: Rows) -> bytes:
    content = {"schema": SCHEMA, "table": table, "rows": [_finite(row) for row in rows]}
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    infinite = (float("inf"), float("-inf"))
    return {key: str(value) if value in infinite else value for key, value in row.items()}


def _csv(columns: Sequence[str], rows: Rows) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _parquet(columns: Sequence[str], rows: Rows) -> bytes:
    arrow: Any = require("pyarrow", extra="data")
    parquet: Any = require("pyarrow.parquet", extra="data")
    buffer = io.BytesIO()
    parquet.write_table(arrow.table({c: [row[c] for row in rows] for c in columns}), buffer)
    return buffer.getvalue()
