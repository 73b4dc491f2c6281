"""Pooling."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kinkcheck import ops
from kinkcheck.ops.row import OF_BALL, OF_PICKS, Row

if TYPE_CHECKING:
    from torch import Tensor

    from kinkcheck.ops.branches import Branches


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


POOLING: tuple[Row, ...] = (
    Row("max_pool1d", OF_PICKS, family="max_pool"),
    Row("max_pool2d", OF_PICKS, family="max_pool"),
    Row("max_pool3d", OF_PICKS, family="max_pool"),
    Row("adaptive_max_pool1d", OF_PICKS, family="max_pool"),
    Row("adaptive_max_pool2d", OF_PICKS, family="max_pool"),
    Row("adaptive_max_pool3d", OF_PICKS, family="max_pool"),
    Row("norm_pool1d", OF_BALL, _norm_pool(1), "norm_pool", "lp_pool1d"),
    Row("norm_pool2d", OF_BALL, _norm_pool(2), "norm_pool", "lp_pool2d"),
    Row("norm_pool3d", OF_BALL, _norm_pool(3), "norm_pool", "lp_pool3d"),
)
