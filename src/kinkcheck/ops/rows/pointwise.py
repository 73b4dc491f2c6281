"""Functions of one number, element by element."""

from __future__ import annotations

from kinkcheck import ops
from kinkcheck.ops.row import OF_SIDES, Row

POINTWISE: tuple[Row, ...] = (
    Row("relu", OF_SIDES),
    Row("hardtanh", OF_SIDES, lambda input, min_val=-1.0, max_val=1.0, inplace=False: ops.Sides(
        input, [(min_val, 0.0, 1.0), (max_val, 1.0, 0.0)])),
    Row("relu6", OF_SIDES, lambda input, inplace=False: ops.Sides(
        input, [(0.0, 0.0, 1.0), (6.0, 1.0, 0.0)]), "hardtanh"),
    Row("leaky_relu", OF_SIDES, lambda input, negative_slope=0.01, inplace=False: ops.Sides(
        input, [(0.0, negative_slope, 1.0)])),
    Row("abs", OF_SIDES, lambda input: ops.Sides(input, [(0.0, -1.0, 1.0)]), "", "abs absolute"),
)  # fmt: skip
