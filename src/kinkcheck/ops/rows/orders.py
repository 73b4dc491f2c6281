"""Entries by their place in an order."""

from __future__ import annotations

from kinkcheck.ops.row import Row

ORDERS: tuple[Row, ...] = ()
