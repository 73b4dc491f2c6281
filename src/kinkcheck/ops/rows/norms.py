"""Norms and distances."""

from __future__ import annotations

from kinkcheck.ops.row import Row

NORMS: tuple[Row, ...] = ()
