"""Extremes of entries that indices gather."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from kinkcheck import ops
from kinkcheck.ops.row import OF_PICKS, Row

if TYPE_CHECKING:
    from torch import Tensor

    from kinkcheck.ops.branches import Branches

_WINS: dict[str, Any] = {
    "amax": "largest",
    "max": "largest",
    "amin": "smallest",
    "min": "smallest",
}


def _scatter(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Branches | None:
    if reduce not in _WINS:
        return None
    return ops.Brought(input, src, dim, index, _WINS[reduce], include_self)


def _index(
    input: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> Branches | None:
    if reduce not in _WINS:
        return None
    shape = [1] * source.dim()
    if shape:
        shape[dim] = -1
    index = index.reshape(shape).expand(source.shape)
    return ops.Brought(input, source, dim, index, _WINS[reduce], include_self)


def _segment(
    data: Tensor,
    reduce: str,
    *,
    lengths: Tensor | None = None,
    indices: Tensor | None = None,
    offsets: Tensor | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: float | None = None,
) -> Branches | None:
    if reduce not in _WINS:
        return None
    import torch

    if offsets is None:
        assert lengths is not None
        ends = lengths.cumsum(-1)
        start = torch.zeros_like(ends[..., :1])
    else:
        start, ends = offsets[..., :1], offsets[..., 1:].contiguous()
    *lead, count = ends.shape
    tail = data.shape[axis + 1 :]
    output = (*lead, count, *tail)
    places = torch.arange(data.shape[axis], device=data.device).expand(*lead, -1).contiguous()
    segment = torch.searchsorted(ends, places, right=True)
    outside = (segment == count) | (places < start)
    first = torch.arange(prod(lead), device=data.device).reshape(*lead, 1) * count
    of = torch.where(outside[..., None], prod(output), _rows(first + segment, prod(tail))).flatten()
    shape = tuple(data.shape)
    if initial is None:
        return ops.Picks((data,), ops.Gathered(of, (shape,), output, gaps=True), _WINS[reduce])
    own = data.new_full(output, initial)
    numbers = torch.arange(own.numel(), device=data.device)
    of = torch.cat([numbers, of])
    given = torch.arange(len(of), device=data.device) < len(numbers)
    contest = ops.Gathered(of, (output, shape), output)
    return ops.Picks((own, data), contest, _WINS[reduce], given=given)


_ATEN = (
    "scale_grad_by_freq",
    "mode",
    "sparse",
    "per_sample_weights",
    "include_last_offset",
    "padding_idx",
)


def _embedding_bag(
    input: Tensor, weight: Tensor, offsets: Tensor | None = None, *rest: Any, **named: Any
) -> Branches | None:
    """The greatest of each bag; ATen takes the weight first, and the mode as a number."""
    functional = weight.is_floating_point()
    names = ("max_norm", "norm_type", *_ATEN) if functional else _ATEN
    given = dict(zip(names, rest, strict=False)) | named
    if given.get("mode", "mean") not in ("max", 2):
        return None
    indices, weight = (input, weight) if functional else (weight, input)
    import torch

    if offsets is None:
        offsets = torch.arange(0, indices.numel(), indices.shape[1], device=indices.device)
    indices = indices.flatten()
    rows, size = weight.shape
    bags = len(offsets) - bool(given.get("include_last_offset"))
    places = torch.arange(len(indices), device=offsets.device, dtype=offsets.dtype)
    # What lies behind the last offset is in the last bag.
    bag = (torch.searchsorted(offsets, places, right=True) - 1).clamp(max=bags - 1)
    # A row that a bag holds twice is one branch.
    pairs, order = (bag * rows + indices).sort(stable=True)
    again = torch.zeros_like(order, dtype=torch.bool)
    again[order[1:]] = pairs[1:] == pairs[:-1]
    padding = given.get("padding_idx")
    if padding is not None:
        again |= indices == padding % rows
    of = torch.where(again[:, None], bags * size, _rows(bag, size)).flatten()
    at = _rows(indices, size).flatten()
    contest = ops.Gathered(of, ((rows, size),), (bags, size), at, gaps=True)
    return ops.Picks((weight,), contest)


def _rows(numbers: Tensor, size: int) -> Tensor:
    """The numbers of the elements of rows of a size, from the numbers of the rows."""
    import torch

    return numbers[..., None] * size + torch.arange(size, device=numbers.device)


SCATTERED: tuple[Row, ...] = (
    Row("scatter_reduce", OF_PICKS, _scatter),
    Row("index_reduce", OF_PICKS, _index),
    Row("segment_reduce", OF_PICKS, _segment, once="SegmentReduceBackward0"),
    Row("embedding_bag", OF_PICKS, _embedding_bag, once="EmbeddingBagBackward0"),
)
