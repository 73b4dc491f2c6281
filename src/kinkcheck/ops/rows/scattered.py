"""Extremes of entries that indices gather."""

from __future__ import annotations

from kinkcheck.ops.row import Row

SCATTERED: tuple[Row, ...] = ()
