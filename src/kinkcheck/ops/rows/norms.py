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
    if input.is_complex():
        return _complex_norm(input, dim, keepdim) if power == 2 else None
    return (input,), ops.Along.of(input, dim, keepdim), power


def _complex_norm(input: Tensor, dim: int | Sequence[int] | None, keepdim: bool) -> _Parts | None:
    """The 2-norm of complex numbers is that of their parts, here side by side."""
    import torch

    if not input.dim():
        return _modulus(input)
    over = dim if isinstance(dim, int) else next(iter(dim or ()), 0)
    parts = torch.cat([input.real, input.imag], over)
    return (parts,), ops.Along.of(parts, dim, keepdim), 2


def _modulus(input: Tensor) -> _Parts | None:
    if not input.is_complex():
        return None
    import torch

    parts = torch.view_as_real(input)
    return (parts,), ops.Along.of(parts, -1), 2


def _dist(input: Tensor, other: Tensor, p: float = 2) -> _Parts | None:
    if input.is_complex() or other.is_complex():
        return _norm(input - other, p)
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


def _std(
    input: Tensor,
    dim: int | Sequence[int] | bool | None = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> _Parts | None:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = float(unbiased is not False)
    contest = ops.Along.of(input, dim, keepdim)
    freedom = contest.count() - correction
    if freedom <= 0 or input.is_complex():
        return None
    return (input,), ops.Centred(contest, freedom**-0.5), 2


def _ball(parts: Callable[..., _Parts | None]) -> Callable[..., Branches | None]:
    def read(*args: Any, **kwargs: Any) -> Branches | None:
        found = parts(*args, **kwargs)
        return ops.Ball(*found) if found and 1 < found[2] < inf else None

    return read


def _rows(
    name: str,
    parts: Callable[..., _Parts | None],
    spellings: str = "",
    once: str = "",
    least: bool = False,
) -> tuple[Row, ...]:
    def sums(*args: Any, **kwargs: Any) -> Branches | None:
        found = parts(*args, **kwargs)
        return ops.Sums(*found[:2]) if found and found[2] == 1 else None

    def picks(*args: Any, **kwargs: Any) -> Branches | None:
        found = parts(*args, **kwargs)
        return ops.Picks(found[0], ops.Both(found[1])) if found and found[2] == inf else None

    spellings = spellings or name
    return (
        Row(name, OF_BALL, _ball(parts), "norm", spellings, "", once, least),
        Row(f"{name}_1", OF_SIDES, sums, "norm_1", spellings, "", once, least),
        Row(f"{name}_inf", OF_PICKS, picks, "norm_inf", spellings, "", once, least),
    )


NORMS: tuple[Row, ...] = (
    *_rows("norm", _norm, "norm linalg.vector_norm linalg_vector_norm", least=True),
    Row("abs_complex", OF_BALL, _ball(_modulus), "norm", "abs absolute"),
    Row("std", OF_BALL, _ball(_std), "", "std std_mean"),
    *_rows("dist", _dist),
    *_rows("cdist", _cdist, once="CdistBackward0"),
    *_rows("pdist", _pdist, once="PdistBackward0"),
)
