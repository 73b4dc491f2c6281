"""Hypothesis strategies: poolings of every kind on inputs in which live ties abound."""

from __future__ import annotations

from typing import Any

import torch
from exact import Pooling
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

dtypes = st.sampled_from(DTYPES)
seeds = st.integers(0, 2**32 - 1)
betas = st.integers(-64, 64).map(lambda eighths: eighths / 8)


@st.composite
def sliding(draw: Any, overlap: bool = True) -> tuple[Pooling, tuple[int, ...]]:
    """A call of max_pool1d, 2d or 3d and the sizes of an input; no window is all padding."""
    dimensions = draw(st.integers(1, 3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(dimensions))

    kernel = each(1, 3)
    if overlap:
        stride, dilation = each(1, 3), each(1, 2)
        padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    else:
        stride = tuple(k + draw(st.integers(0, 1)) for k in kernel)
        padding = (0,) * dimensions
        dilation = (1,) * dimensions
    spans = [
        d * (k - 1) + 1 - 2 * p for k, p, d in zip(kernel, padding, dilation, strict=True)
    ]
    sizes = tuple(max(1, span) + more for span, more in zip(spans, each(0, 3), strict=True))
    pooling = Pooling(
        dimensions,
        {
            "kernel_size": kernel,
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "ceil_mode": draw(st.booleans()),
        },
    )
    assume(all(pooling.windows(sizes)))
    return pooling, sizes


@st.composite
def adaptive(draw: Any) -> tuple[Pooling, tuple[int, ...]]:
    """A call of adaptive_max_pool1d, 2d or 3d, also with more outputs than inputs."""
    dimensions = draw(st.integers(1, 3))
    sizes = tuple(draw(st.integers(1, 6)) for _ in range(dimensions))
    # adaptive_max_pool1d takes None in its module and in 2d and 3d only.
    outputs = st.integers(1, 7) if dimensions == 1 else st.none() | st.integers(1, 7)
    output_size = tuple(draw(outputs) for _ in range(dimensions))
    return Pooling(dimensions, {"output_size": output_size}, adaptive=True), sizes


poolings = sliding() | adaptive()

_PALETTES = (
    (0.0,),
    (0.0, 1.0),
    (-1.0, 0.0, 1.0),
    (-0.0, 0.0),
    (-0.0, 0.0, -1.0),
    (1.0, 2.0, 2.0, 2.0),
)


def palettes(dtype: torch.dtype) -> st.SearchStrategy[tuple[float, ...]]:
    """A few finite values: whole numbers, ±0, subnormals, neighbours one unit apart."""
    limits = torch.finfo(dtype)
    fine = (
        (0.0, limits.smallest_normal * limits.eps, -limits.smallest_normal * limits.eps),
        (1.0, 1.0 + limits.eps),
        (limits.max, -limits.max),
    )
    return st.sampled_from(_PALETTES + fine)


nonfinite_palettes = st.sampled_from(
    (
        (float("-inf"),),
        (float("-inf"), float("inf")),
        (float("-inf"), 0.0, float("inf")),
        (float("nan"), 0.0),
        (float("nan"), float("-inf")),
        (float("nan"), float("inf"), -1.0, 1.0),
    )
)


def filled(
    shape: tuple[int, ...], palette: tuple[float, ...], dtype: torch.dtype, seed: int
) -> Tensor:
    """A tensor of values drawn from a palette."""
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(palette, dtype=dtype)[
        torch.randint(len(palette), shape, generator=generator)
    ]


MEMORY = ("contiguous", "channels_last", "transposed")


def laid_out(x: Tensor, memory: str, pooled: int) -> Tensor:
    """The same tensor in another memory format, where PyTorch pools it in that format."""
    if memory == "channels_last" and x.dim() == pooled + 2 and pooled > 1:
        formats = {2: torch.channels_last, 3: torch.channels_last_3d}
        return x.contiguous(memory_format=formats[pooled])
    if memory == "transposed":
        return x.transpose(-1, -2).contiguous().transpose(-1, -2)
    return x.contiguous()


@st.composite
def inputs(
    draw: Any,
    sizes: tuple[int, ...],
    dtype: torch.dtype,
    palette: tuple[float, ...] | None = None,
) -> Tensor:
    """An input of the given sizes, batched or not, in any memory format, full of ties."""
    leading = draw(st.sampled_from(((1,), (2,), (1, 1), (2, 3))))
    palette = draw(palettes(dtype)) if palette is None else palette
    x = filled((*leading, *sizes), palette, dtype, draw(seeds))
    return laid_out(x, draw(st.sampled_from(MEMORY)), len(sizes)).requires_grad_()


def whole_numbers(like: Tensor, seed: int) -> Tensor:
    """Nonzero whole numbers from -3 to 3: sums of them are exact in every type."""
    return filled(tuple(like.shape), (-3.0, -2.0, -1.0, 1.0, 2.0, 3.0), like.dtype, seed)
