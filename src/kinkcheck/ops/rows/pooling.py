"""Pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def _fractional(dimensions: int) -> Any:
    def read(
        input: Tensor,
        kernel_size: int | Sequence[int],
        output_size: int | Sequence[int],
        _random_samples: Tensor,
    ) -> Branches:
        kernel, output = (
            size if isinstance(size, Sequence) else (size,) * dimensions
            for size in (kernel_size, output_size)
        )
        return ops.Picks((input,), ops.fractional_windows(input, kernel, output, _random_samples))

    return read


def _of(name: str) -> str:
    return f"_C._nn.{name} ops.aten.{name} ops.aten.{name}.default"


POOLING: tuple[Row, ...] = (
    Row("max_pool1d", OF_PICKS, family="max_pool"),
    Row("max_pool2d", OF_PICKS, family="max_pool"),
    Row("max_pool3d", OF_PICKS, family="max_pool"),
    Row("adaptive_max_pool1d", OF_PICKS, family="max_pool"),
    Row("adaptive_max_pool2d", OF_PICKS, family="max_pool"),
    Row("adaptive_max_pool3d", OF_PICKS, family="max_pool"),
    *(
        Row(
            f"fractional_max_pool{d}d",
            OF_PICKS,
            _fractional(d),
            "fractional_max_pool",
            _of(f"fractional_max_pool{d}d"),
        )
        for d in (2, 3)
    ),
    Row("norm_pool1d", OF_BALL, _norm_pool(1), "norm_pool", "lp_pool1d"),
    Row("norm_pool2d", OF_BALL, _norm_pool(2), "norm_pool", "lp_pool2d"),
    Row("norm_pool3d", OF_BALL, _norm_pool(3), "norm_pool", "lp_pool3d"),
)
