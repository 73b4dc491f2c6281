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

    axis %= max(data.dim(), 1)
    if offsets is None:
        assert lengths is not None
        offsets = torch.nn.functional.pad(lengths.cumsum(-1), (1, 0))
    *lead, edges = offsets.shape
    output = (*lead, edges - 1, *data.shape[axis + 1 :])
    # What lies before the first segment and behind the last is in none.
    lengths = offsets.diff(
        prepend=torch.zeros_like(offsets[..., :1]),
        append=torch.full_like(offsets[..., :1], data.shape[axis]),
    )
    segments = torch.arange(prod(lead) * (edges - 1), device=data.device).reshape(*lead, edges - 1)
    segments = torch.nn.functional.pad(segments, (1, 1), value=segments.numel())
    rows = prod(data.shape[: axis + 1])
    of = torch.repeat_interleave(segments.flatten(), lengths.flatten(), output_size=rows)
    shape = tuple(data.shape)
    if initial is None:
        contest = ops.Gathered(of, (shape,), output, axis + 1, gaps=True)
        return ops.Picks((data,), contest, _WINS[reduce])
    own = data.new_full(output, initial)
    numbers = torch.arange(prod(lead) * (edges - 1), device=data.device)
    of = torch.cat([numbers, of])
    given = torch.arange(len(of), device=data.device).unsqueeze(1) < len(numbers)
    contest = ops.Gathered(of, (output, shape), output, axis + 1)
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
    of = torch.where(again, bags, bag)
    contest = ops.Gathered(of, ((rows, size),), (bags, size), 1, indices, gaps=True)
    return ops.Picks((weight,), contest)


SCATTERED: tuple[Row, ...] = (
    Row("scatter_reduce", OF_PICKS, _scatter),
    Row("index_reduce", OF_PICKS, _index),
    Row("segment_reduce", OF_PICKS, _segment, once="SegmentReduceBackward0"),
    Row("embedding_bag", OF_PICKS, _embedding_bag, once="EmbeddingBagBackward0"),
)
