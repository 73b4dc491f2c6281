"""Entries by their place in an order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kinkcheck import ops
from kinkcheck.ops.row import OF_ORDERS, OF_PICKS, Row
from kinkcheck.selection import Limit

if TYPE_CHECKING:
    from torch import Tensor

    from kinkcheck.ops.branches import Branches


def _median(input: Tensor, dim: int | str | None = None, keepdim: bool = False) -> Branches | None:
    if isinstance(dim, str):
        return None
    entries = input.numel() if dim is None else input.shape[dim] if input.dim() else 1
    return ops.Picks((input,), ops.Along.of(input, dim, keepdim), (entries - 1) // 2)


def _nanmedian(
    input: Tensor, dim: int | str | None = None, keepdim: bool = False
) -> Branches | None:
    if isinstance(dim, str):
        return None
    contest = ops.Along.of(input, dim, keepdim)
    count = contest.total(~contest.entries(input.detach()).isnan())
    return ops.Picks((input,), contest, (count - 1) // 2)


def _kthvalue(input: Tensor, k: int, dim: int | str = -1, keepdim: bool = False) -> Branches | None:
    if isinstance(dim, str):
        return None
    return ops.Picks((input,), ops.Along.of(input, dim, keepdim), k - 1)


def _mode(input: Tensor, dim: int | str = -1, keepdim: bool = False) -> Branches | None:
    return None if isinstance(dim, str) else ops.Picks((input,), ops.Along.of(input, dim, keepdim))


def _sort(
    input: Tensor, dim: int | str = -1, descending: bool = False, *, stable: bool | None = None
) -> Branches | None:
    return None if isinstance(dim, str) else ops.Sorted(input, dim, descending)


def _topk(
    input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> Branches:
    return ops.Sorted(input, dim, largest)


def _running(largest: bool) -> Any:
    def read(input: Tensor, dim: int | str) -> Branches | None:
        return None if isinstance(dim, str) else ops.Running(input, dim, largest)

    return read


# Where entries move apart, the mode is another entry altogether: it jumps.
_OF_MODE = tuple(kind for kind in OF_PICKS if kind is not Limit)

ORDERS: tuple[Row, ...] = (
    Row("topk", OF_ORDERS, _topk),
    Row("sort", OF_ORDERS, _sort),
    Row("msort", OF_ORDERS, lambda input: ops.Sorted(input, 0, False)),
    Row("median", OF_PICKS, _median),
    Row("nanmedian", OF_PICKS, _nanmedian),
    Row("kthvalue", OF_PICKS, _kthvalue),
    Row("mode", _OF_MODE, _mode),
    Row("cummax", OF_ORDERS, _running(True)),
    Row("cummin", OF_ORDERS, _running(False)),
)
