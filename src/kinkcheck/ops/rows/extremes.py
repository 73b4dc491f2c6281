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
        return _of_two(input, other, wins)

    return read


def _of_two(input: Tensor, other: Tensor, wins: Any) -> Branches:
    return ops.Picks(ops.competing(input, other), ops.Between.of(input, other), wins)


def _either(wins: Any) -> Any:
    """``torch.max`` and ``torch.min``: of all entries, along a dimension, or of two tensors."""

    def read(
        input: Tensor,
        dim: int | Tensor | str | None = None,
        keepdim: bool = False,
        *,
        other: Tensor | None = None,
        axis: int | None = None,
    ) -> Branches | None:
        if isinstance(dim, str):
            return None
        if other is None and ops.is_tensor(dim):
            other = dim
        if other is not None:
            return _of_two(input, other, wins)
        over: Any = axis if dim is None else dim
        return ops.Picks((input,), ops.Along.of(input, over, keepdim), wins)

    return read


EXTREMES: tuple[Row, ...] = (
    Row("max", OF_PICKS, _either("largest")),
    Row("min", OF_PICKS, _either("smallest")),
    Row("amax", OF_PICKS, _along("largest"), least=True),
    Row("amin", OF_PICKS, _along("smallest"), least=True),
    Row("maximum", OF_PICKS, _between("largest"), least=True),
    Row("minimum", OF_PICKS, _between("smallest"), least=True),
    Row("fmax", OF_PICKS, _between("largest")),
    Row("fmin", OF_PICKS, _between("smallest")),
)
