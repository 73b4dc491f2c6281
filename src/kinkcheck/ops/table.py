"""The nonsmooth operations that kinkcheck knows, one row each.

A row reads a call of PyTorch: it takes the arguments of PyTorch's function and says where its
branches are. All else follows from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kinkcheck import ops
from kinkcheck.ops.row import OF_BALL, OF_PICKS, OF_SIDES, Row

if TYPE_CHECKING:
    from torch import Tensor

    from kinkcheck.ops.branches import Branches


def _clamp(input: Tensor, min: Any = None, max: Any = None) -> Branches:
    kinks = [] if min is None else [(min, 0.0, 1.0)]
    return ops.Sides(input, [*kinks, *([] if max is None else [(max, 1.0, 0.0)])])


def _along(wins: Any) -> Any:
    def read(
        input: Tensor, dim: int | Sequence[int] = (), keepdim: bool = False, **named: Any
    ) -> Branches:
        return ops.Picks((input,), ops.Along.of(input, dim, keepdim), wins)

    return read


def _norm_pool(dimensions: int) -> Any:
    def read(
        input: Tensor,
        norm_type: float,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        ceil_mode: bool = False,
    ) -> Branches | None:
        if not 1 < norm_type < math.inf:
            return None
        windows = ops.sliding_windows(dimensions, kernel_size, stride, ceil_mode=ceil_mode)
        return ops.Ball((input,), ops.Windowed.of(windows, input), norm_type)

    return read


def _between(wins: Any) -> Any:
    def read(input: Tensor, other: Tensor) -> Branches:
        return ops.Picks((input, other), ops.Between.of(input, other), wins)

    return read


ROWS: tuple[Row, ...] = (
    Row("max_pool1d", OF_PICKS, family="max_pool"),
    Row("max_pool2d", OF_PICKS, family="max_pool"),
    Row("max_pool3d", OF_PICKS, family="max_pool"),
    Row("adaptive_max_pool1d", OF_PICKS, family="max_pool"),
    Row("adaptive_max_pool2d", OF_PICKS, family="max_pool"),
    Row("adaptive_max_pool3d", OF_PICKS, family="max_pool"),
    Row("relu", OF_SIDES),
    Row("norm_pool1d", OF_BALL, _norm_pool(1), "norm_pool", "lp_pool1d"),
    Row("norm_pool2d", OF_BALL, _norm_pool(2), "norm_pool", "lp_pool2d"),
    Row("norm_pool3d", OF_BALL, _norm_pool(3), "norm_pool", "lp_pool3d"),
    Row("relu6", OF_SIDES, lambda input, inplace=False: ops.Sides(
        input, [(0.0, 0.0, 1.0), (6.0, 1.0, 0.0)])),
    Row("hardtanh", OF_SIDES, lambda input, min_val=-1.0, max_val=1.0, inplace=False: ops.Sides(
        input, [(min_val, 0.0, 1.0), (max_val, 1.0, 0.0)])),
    Row("amax", OF_PICKS, _along("largest")),
    Row("amin", OF_PICKS, _along("smallest")),
    Row("leaky_relu", OF_SIDES, lambda input, negative_slope=0.01, inplace=False: ops.Sides(
        input, [(0.0, negative_slope, 1.0)])),
    Row("maximum", OF_PICKS, _between("largest")),
    Row("minimum", OF_PICKS, _between("smallest")),
    Row("abs", OF_SIDES, lambda input: ops.Sides(input, [(0.0, -1.0, 1.0)]), "", "abs absolute"),
)  # fmt: skip
"""All rows, in the order of what they move."""

FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(row.family for row in ROWS))
"""The names of all families."""

BY_NAME: dict[str, Row] = {row.name: row for row in ROWS}
