"""The largest and the smallest of some entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kinkcheck import ops
from kinkcheck.ops.row import OF_PICKS, Row

if TYPE_CHECKING:
    from torch import Tensor

    from kinkcheck.ops.branches import Branches


def _along(wins: Any) -> Any:
    def read(input: Tensor, dim: int | Sequence[int] = (), keepdim: bool = False) -> Branches:
        return ops.Picks((input,), ops.Along.of(input, dim, keepdim), wins)

    return read


def _between(wins: Any) -> Any:
    def read(input: Tensor, other: Tensor) -> Branches:
        return ops.Picks((input, other), ops.Between.of(input, other), wins)

    return read


EXTREMES: tuple[Row, ...] = (
    Row("amax", OF_PICKS, _along("largest")),
    Row("amin", OF_PICKS, _along("smallest")),
    Row("maximum", OF_PICKS, _between("largest")),
    Row("minimum", OF_PICKS, _between("smallest")),
)
