"""Fractional max pooling: windows of one size, whose places are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kinkcheck.ops.gathered import Gathered


def fractional_windows(
    input: Tensor, kernel: Sequence[int], output: Sequence[int], samples: Tensor
) -> Gathered:
    """Which entries compete for which output.

    Args:
        input: the planes that are pooled.
        kernel: the size of each window.
        output: how many windows there are, in each dimension.
        samples: what was drawn for each plane: a number from 0 to 1 in each dimension.

    >>> x = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> contest = fractional_windows(x, (2, 2), (1, 1), torch.zeros(1, 1, 2))
    >>> contest.entries(x).flatten()
    tensor([0., 1., 2., 3.])
    """
    dimensions = len(kernel)
    plane = input.shape[-dimensions:]
    # In two dimensions PyTorch draws for the last one first.
    drawn = samples.flatten(0, -2).unbind(-1)[:: -1 if dimensions == 2 else 1]
    at = torch.arange(len(drawn[0]), device=input.device)
    at = at.reshape(-1, *[1] * (2 * dimensions))
    for place, (size, window, count) in enumerate(zip(plane, kernel, output, strict=True)):
        first = _first(drawn[place], size, window, count)
        along = first[..., None] + torch.arange(window, device=input.device)
        shape = [1] * 2 * dimensions
        shape[place], shape[dimensions + place] = count, window
        at = at * size + along.reshape(-1, *shape)
    pooled = (*input.shape[:-dimensions], *output)
    of = torch.arange(prod(pooled), device=input.device).repeat_interleave(prod(kernel))
    return Gathered(of, (tuple(input.shape),), pooled, input.dim(), at.flatten())


def _first(sample: Tensor, size: int, window: int, count: int) -> Tensor:
    """Where the windows of each plane begin, in numbers of the sample's type as in PyTorch."""
    numbers = torch.arange(count, device=sample.device, dtype=sample.dtype)
    step = torch.full_like(sample[:, None], size - window) / max(count - 1, 1)
    first = ((numbers + sample[:, None]) * step).long() - (sample[:, None] * step).long()
    first[:, -1] = size - window
    return first


def _pool(name: str, with_indices: bool) -> Callable[..., Any]:
    dimensions = int(name[-2])
    pool = getattr(torch._C._nn, name)

    def call(
        input: Tensor,
        kernel_size: int | Sequence[int],
        output_size: int | Sequence[int] | None = None,
        output_ratio: float | Sequence[float] | None = None,
        return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ) -> Any:
        if output_size is None and output_ratio is None:
            raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
        if output_size is None:
            ratio: Any = output_ratio
            ratios = ratio if isinstance(ratio, Sequence) else [ratio] * dimensions
            plane = input.shape[-dimensions:]
            output_size = [int(size * ratio) for size, ratio in zip(plane, ratios, strict=True)]
        if _random_samples is None:
            batch = 1 if input.dim() == dimensions + 1 else len(input)
            shape = (batch, input.shape[-dimensions - 1], dimensions)
            _random_samples = torch.rand(shape, dtype=input.dtype, device=input.device)
        pooled = pool(input, kernel_size, output_size, _random_samples)
        return pooled if with_indices else pooled[0]

    return call


COMPOSITIONS: dict[Any, Callable[..., Any]] = {
    getattr(F, name + suffix): _pool(name, bool(suffix))
    for name in ("fractional_max_pool2d", "fractional_max_pool3d")
    for suffix in ("", "_with_indices")
}
"""Functions of PyTorch that draw, and then call one that is given what was drawn."""
