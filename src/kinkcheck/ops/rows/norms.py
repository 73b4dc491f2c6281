"""Norms and distances.

A norm has another kind of kink for each power, and so three rows: its kink is where it is 0 for a
power above 1 (``norm``), where any entry is 0 for the power 1 (``norm_1``), and where entries tie
for the infinite one (``norm_inf``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from kinkcheck import ops
from kinkcheck.ops.row import OF_BALL, OF_PICKS, OF_SIDES, Row

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from kinkcheck.ops.branches import Branches

_Parts = tuple[tuple[Any, ...], Any, float]
"""The inputs of a norm, which of them make which output, and the power."""


def _norm(
    input: Tensor,
    p: float | str | None = 2,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    out: None = None,
    dtype: torch.dtype | None = None,
    ord: float | None = None,
) -> _Parts | None:
    power = 2 if p in (None, "fro") else p
    power = power if ord is None else ord
    if isinstance(power, str):
        return None
    input = input if dtype is None else input.to(dtype)
    return (input,), ops.Along.of(input, dim, keepdim), power


def _dist(input: Tensor, other: Tensor, p: float = 2) -> _Parts:
    shape = ops.Between.of(input, other).output
    sizes = tuple(input.shape), tuple(other.shape)
    return (input, other), ops.Apart(ops.Along(shape, ()), sizes, sizes), p


def _cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: Any = None) -> _Parts:
    sizes = tuple(x1.shape), tuple(x2.shape)
    *left, rows, columns = sizes[0]
    views = (*left, rows, 1, columns), (*sizes[1][:-2], 1, *sizes[1][-2:])
    import torch

    shape = tuple(torch.broadcast_shapes(*views))
    return (x1, x2), ops.Apart(ops.Along(shape, (-1,)), sizes, views), p


def _pdist(input: Tensor, p: float = 2.0) -> _Parts:
    rows, columns = input.shape
    contest = ops.Pairs(ops.Along((rows * (rows - 1) // 2, columns), (-1,)), rows)
    return (input,), contest, p


def _rows(name: str, parts: Callable[..., _Parts | None], spellings: str = "") -> tuple[Row, ...]:
    def ball(*args: Any, **kwargs: Any) -> Branches | None:
        found = parts(*args, **kwargs)
        return ops.Ball(*found) if found and 1 < found[2] < inf else None

    def sums(*args: Any, **kwargs: Any) -> Branches | None:
        found = parts(*args, **kwargs)
        return ops.Sums(*found[:2]) if found and found[2] == 1 else None

    def picks(*args: Any, **kwargs: Any) -> Branches | None:
        found = parts(*args, **kwargs)
        return ops.Picks(found[0], ops.Both(found[1])) if found and found[2] == inf else None

    spellings = spellings or name
    return (
        Row(name, OF_BALL, ball, "norm", spellings),
        Row(f"{name}_1", OF_SIDES, sums, "norm_1", spellings),
        Row(f"{name}_inf", OF_PICKS, picks, "norm_inf", spellings),
    )


NORMS: tuple[Row, ...] = (
    *_rows("norm", _norm, "norm linalg.vector_norm linalg_vector_norm"),
    *_rows("dist", _dist),
    *_rows("cdist", _cdist),
    *_rows("pdist", _pdist),
)
