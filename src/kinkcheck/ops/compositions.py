"""Functions of PyTorch that are written with others, of which some are nonsmooth.

PyTorch carries them out in one call, out of sight. Here each is written once more as PyTorch
writes it, so that value and native derivative are its own bit for bit, and the nonsmooth operations
inside are sites.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor

from kinkcheck.ops import fractional, losses, observed


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The smallest and the largest entry.

    >>> aminmax(torch.tensor([1.0, 3.0]))
    torch.return_types.aminmax(
    min=tensor(1.),
    max=tensor(3.))
    """
    over = () if dim is None else dim
    extremes = torch.amin(input, over, keepdim), torch.amax(input, over, keepdim)
    return torch.return_types.aminmax(extremes)


def quantile(
    input: Tensor,
    q: float | Tensor,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """The number between two sorted entries that has a part q of them below it.

    >>> quantile(torch.tensor([1.0, 3.0, 2.0]), 0.75)
    tensor(2.5000)
    """
    return _between_sorted(torch.quantile, input, q, dim, keepdim, interpolation)


def nanquantile(
    input: Tensor,
    q: float | Tensor,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """The same among the entries that are not NaN.

    >>> nanquantile(torch.tensor([1.0, torch.nan, 3.0, 2.0]), 0.75)
    tensor(2.5000)
    """
    return _between_sorted(torch.nanquantile, input, q, dim, keepdim, interpolation)


def _between_sorted(
    function: Callable[..., Tensor],
    input: Tensor,
    q: float | Tensor,
    dim: int | None,
    keepdim: bool,
    interpolation: str,
) -> Tensor:
    parts = torch.as_tensor(q, dtype=input.dtype, device=input.device)
    entries = input.flatten() if dim is None or not input.dim() else input.movedim(dim, -1)
    types = {input.dtype, q.dtype if isinstance(q, Tensor) else input.dtype}
    known = types in ({torch.float32}, {torch.float64}) and interpolation in _BETWEEN
    known = known and parts.dim() < 2 and entries.numel() > 0
    if not known or not bool(((parts >= 0) & (parts <= 1)).all()):
        refused: Tensor = _original(function)(input, q, dim, keepdim, interpolation=interpolation)
        return refused
    in_order = torch.sort(entries, -1).values
    last = in_order.shape[-1] - 1
    with torch.no_grad():
        broken = in_order.isnan()
        if function is torch.nanquantile:
            numbers = (~broken).sum(-1, keepdim=True)
            ranks = parts.reshape(-1) * (numbers - 1).clamp(min=0)
        else:
            ranks = parts.reshape(-1) * last
            ranks = torch.where(broken.any(-1, keepdim=True), float(last), ranks)
        ranks = _BETWEEN[interpolation](ranks)
        below, above = ranks.to(torch.int64), ranks.ceil().to(torch.int64)
        share = ranks - below if interpolation != "midpoint" else torch.full_like(ranks, 0.5)
    found = in_order.gather(-1, below)
    if interpolation in ("linear", "midpoint"):
        found = found.lerp(in_order.gather(-1, above), share)
    moved = found.movedim(-1, 0)
    if keepdim:
        sizes = [
            1 if dim is None or d == dim % input.dim() else n for d, n in enumerate(input.shape)
        ]
        moved = moved.reshape(-1, *sizes)
    return moved if parts.dim() else moved.squeeze(0)


_BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda ranks: ranks,
    "lower": torch.floor,
    "higher": torch.ceil,
    "midpoint": lambda ranks: ranks,
    "nearest": torch.round,
}


_vector_norm: Callable[..., Tensor] = torch.linalg.vector_norm
_matrix_norm: Callable[..., Tensor] = torch.linalg.matrix_norm
# Not taken for themselves once more.
_refused: Callable[..., Tensor] = torch.ops.aten.linalg_norm
_other_matrix_norm: Callable[..., Tensor] = torch.ops.aten.linalg_matrix_norm


def norm(
    input: Tensor,
    ord: float | str | None = None,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    out: None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """``torch.linalg.norm``: of vectors, or of matrices where two dimensions and a power are given.

    >>> norm(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), inf)
    tensor(7.)
    """
    size = input.dim() if dim is None else 1 if isinstance(dim, int) else len(dim)
    if ord is None or (size == 1 and not isinstance(ord, str)):
        power = 2.0 if ord is None else ord
        return _vector_norm(input, power, dim, keepdim, dtype=dtype)
    if size == 2 and not isinstance(dim, int):
        return _matrix_norm(input, ord, (0, 1) if dim is None else dim, keepdim, dtype=dtype)
    return _refused(input, ord, dim, keepdim, dtype=dtype)


def matrix_norm(
    input: Tensor,
    ord: float | str = "fro",
    dim: Sequence[int] = (-2, -1),
    keepdim: bool = False,
    *,
    out: None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Frobenius norms, and the extremes of sums over rows or columns; others are PyTorch's own.

    >>> matrix_norm(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), 1)
    tensor(5.)
    """
    over = [each % max(input.dim(), 1) for each in dim]
    extreme = not isinstance(ord, str) and abs(ord) in (1, inf)
    possible = len(set(over)) == 2 and input.dim() > 1 and input.numel()
    if not possible or not (extreme or ord == "fro"):
        return _other_matrix_norm(input, ord, dim, keepdim, dtype=dtype)
    if isinstance(ord, str):
        return _vector_norm(input, 2, over, keepdim, dtype=dtype)
    summed, compared = over if abs(ord) == 1 else over[::-1]
    sums = _vector_norm(input, 1, summed, keepdim, dtype=dtype)
    if compared > summed and not keepdim:
        compared -= 1
    return torch.amax(sums, compared, keepdim) if ord > 0 else torch.amin(sums, compared, keepdim)


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """The norm of a difference, which ε moves away from 0.

    >>> pairwise_distance(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]), eps=0)
    tensor([5.])
    """
    last = max(x1.dim(), x2.dim()) - 1
    return _vector_norm(x1 - x2 + eps, p, last, keepdim)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The product of two vectors over their norms; the bound of these has no derivative.

    >>> cosine_similarity(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([0.6000])
    """
    if x1.dtype != x2.dtype:
        plain: Tensor = _original(torch.cosine_similarity)(x1, x2, dim, eps)
        return plain
    x1, x2 = torch.broadcast_tensors(x1, x2)
    norms = [_vector_norm(each, 2, dim, True).clone() for each in (x1, x2)]
    with torch.no_grad(), torch._C.DisableTorchFunction():
        for each in norms:
            each.clamp_min_(eps)
    return ((x1 / norms[0]) * (x2 / norms[1])).sum(dim)


def _original(function: Any) -> Any:
    """A function of PyTorch without what is written here in its place."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return function(*args, **kwargs)

    return call


def foreach_norm(
    self: Sequence[Tensor], ord: float = 2, dtype: torch.dtype | None = None
) -> tuple[Tensor, ...]:
    """The norm of each tensor; on a GPU one kernel adds in an order of its own.

    >>> foreach_norm([torch.tensor([3.0, 4.0]), torch.zeros(2)])
    (tensor(5.), tensor(0.))
    """
    if any(each.is_cuda for each in self):
        return tuple(torch.ops.aten._foreach_norm(self, ord, dtype=dtype))
    return tuple(_vector_norm(each, ord, dtype=dtype) for each in self)


def _each(name: str, in_place: bool) -> Callable[..., Any]:
    """A function of lists as a call for each of their entries."""
    function = getattr(torch, name)
    takes_numbers = name not in ("maximum", "minimum")

    def call(self: Sequence[Tensor], *others: Any, **named: Any) -> tuple[Tensor, ...] | None:
        made = []
        for place, each in enumerate(self):
            # What the derivative needs of an entry must not be overwritten.
            given = [each.clone() if in_place else each]
            for other in (*others, *named.values()):
                at = other[place] if isinstance(other, tuple | list) else other
                if not takes_numbers and not isinstance(at, Tensor):
                    dtype = each.dtype if each.is_floating_point() else None
                    at = torch.tensor(at, dtype=dtype, device=each.device)
                given.append(at)
            made.append(function(*given))
        if not in_place:
            return tuple(made)
        for each, value in zip(self, made, strict=True):
            each.copy_(value)
        return None

    return call


def rrelu(
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """In training each element has a slope of its own, which is drawn first.

    >>> rrelu(torch.tensor([-1.0, 2.0]), 0.5, 0.5)
    tensor([-0.5000,  2.0000])
    """
    rrelu_of: Callable[..., Tensor] = torch.ops.aten.rrelu  # not taken for itself once more
    # PyTorch takes the mean for a slope if there is next to nothing between, and in half precision
    # it does not keep the slopes that it multiplied by.
    kept = upper - lower > 1e-6 and input.dtype in (torch.float32, torch.float64)
    if not training or not kept:
        return rrelu_of(input, lower, upper, training, generator)
    input = input.contiguous()
    with torch.no_grad(), torch._C.DisableTorchFunction():
        slopes = torch.empty_like(input)
        torch.ops.aten.rrelu_with_noise(input, slopes, lower, upper, True, generator)
    return torch._prelu_kernel(input, slopes)


def rrelu_(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The same, written to its input."""
    return input.copy_(rrelu(input.clone(), *args, **kwargs))


COMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.aminmax: aminmax,
    Tensor.aminmax: aminmax,
    torch.quantile: quantile,
    Tensor.quantile: quantile,
    torch.nanquantile: nanquantile,
    Tensor.nanquantile: nanquantile,
    torch.linalg.norm: norm,
    torch.linalg.matrix_norm: matrix_norm,
    torch.pairwise_distance: pairwise_distance,
    torch.cosine_similarity: cosine_similarity,
    **{
        getattr(torch, f"_foreach_{name}{suffix}"): _each(name, bool(suffix))
        for name in ("abs", "clamp_min", "clamp_max", "maximum", "minimum")
        for suffix in ("", "_")
    },
    torch._foreach_norm: foreach_norm,
    torch.rrelu: rrelu,
    torch.rrelu_: rrelu_,
    **fractional.COMPOSITIONS,
    **losses.COMPOSITIONS,
    **observed.COMPOSITIONS,
}
"""What each function of PyTorch is written as."""
