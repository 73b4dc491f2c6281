"""The nonsmooth operations that kinkcheck knows, one row each.

A row reads a call of PyTorch: it takes the arguments of PyTorch's function and says where its
branches are. All else follows from it. A new operation is a row in :mod:`kinkcheck.ops.rows`.
"""

from __future__ import annotations

from kinkcheck.ops.row import Row
from kinkcheck.ops.rows.extremes import EXTREMES
from kinkcheck.ops.rows.norms import NORMS
from kinkcheck.ops.rows.orders import ORDERS
from kinkcheck.ops.rows.pointwise import POINTWISE
from kinkcheck.ops.rows.pooling import POOLING
from kinkcheck.ops.rows.scattered import SCATTERED

ROWS: tuple[Row, ...] = (*POOLING, *POINTWISE, *EXTREMES, *SCATTERED, *ORDERS, *NORMS)
"""All rows."""

FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(row.family for row in ROWS))
"""The names of all families."""

BY_NAME: dict[str, Row] = {row.name: row for row in ROWS}
"""The rows by their name; those of one name differ in the arguments that they read."""
