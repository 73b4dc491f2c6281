"""Max pooling in exact rational arithmetic and pure Python: the oracle of the pooling tests.

Nothing here calls a pooling function of PyTorch or of kinkcheck for its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kinkcheck.nn as knn
from kinkcheck.selection import First, Hybrid, Last, Minimal, Selection

Active = list[int]
Weights = dict[int, Fraction]


@dataclass(frozen=True)
class Pooling:
    """A call of (adaptive) max pooling; ``along`` lists the entries of its windows by dimension."""

    dimensions: int
    arguments: dict[str, Any]
    adaptive: bool = False

    @property
    def name(self) -> str:
        return f"{'adaptive_' if self.adaptive else ''}max_pool{self.dimensions}d"

    def __call__(self, x: Tensor, **more: Any) -> Any:
        """PyTorch's function."""
        return getattr(F, self.name)(x, **self.arguments, **more)

    def module(self, selection: Selection | str | None = None, **more: Any) -> nn.Module:
        """PyTorch's module, or kinkcheck's when a selection is given."""
        name = f"{'Adaptive' if self.adaptive else ''}MaxPool{self.dimensions}d"
        if selection is None:
            return getattr(nn, name)(**self.arguments, **more)
        return getattr(knn, name)(**self.arguments, **more, selection=selection)

    def windows(self, sizes: tuple[int, ...]) -> list[Active]:
        """The entries of every window as row-major positions, in row-major order."""
        along = [self._along(d, size) for d, size in enumerate(sizes)]
        strides = [prod(sizes[d + 1 :]) for d in range(self.dimensions)]
        return [
            [sum(p * s for p, s in zip(at, strides, strict=True)) for at in product(*window)]
            for window in product(*along)
        ]

    def _along(self, dimension: int, size: int) -> list[list[int]]:
        if self.adaptive:
            outputs = self.arguments["output_size"][dimension]
            outputs = size if outputs is None else outputs
            return [
                list(range(o * size // outputs, -(-(o + 1) * size // outputs)))
                for o in range(outputs)
            ]
        kernel, stride, padding, dilation = (
            self.arguments[name][dimension]
            for name in ("kernel_size", "stride", "padding", "dilation")
        )
        ceil_mode = self.arguments["ceil_mode"]
        span = size + 2 * padding - dilation * (kernel - 1) - 1
        outputs = (-(-span // stride) if ceil_mode else span // stride) + 1
        if ceil_mode and (outputs - 1) * stride >= size + padding:
            outputs -= 1  # no window starts in the padding on the right
        starts = (o * stride - padding for o in range(outputs))
        return [
            [p for k in range(kernel) if 0 <= (p := start + k * dilation) < size]
            for start in starts
        ]


def active_sets(x: Tensor, pooling: Pooling) -> Iterator[list[Active]]:
    """For every image and channel, the positions that attain the maximum of each window."""
    sizes = tuple(x.shape[-pooling.dimensions :])
    windows = pooling.windows(sizes)
    for values in x.detach().reshape(-1, prod(sizes)).tolist():
        yield [
            [i for i in window if values[i] == max(values[j] for j in window)] for window in windows
        ]


def weights(selection: Selection) -> Callable[[Active], Weights]:
    """The definitions of DESIGN.md, section 2."""
    match selection:
        case Minimal():
            return lambda active: {i: Fraction(1, len(active)) for i in active}
        case Hybrid(beta):
            return lambda active: {
                i: (i == active[0]) * (1 - Fraction(beta)) + Fraction(beta) / len(active)
                for i in active
            }
        case First():
            return lambda active: {active[0]: Fraction(1)}
        case Last():
            return lambda active: {active[-1]: Fraction(1)}
    raise NotImplementedError(selection)


def gradient(
    x: Tensor, grad_output: Tensor, pooling: Pooling, selection: Selection
) -> list[list[Fraction]]:
    """Σ_o w_{o,i} g_o: one row an image and channel, one fraction an entry."""
    weigh = weights(selection)
    channels = active_sets(x, pooling)
    length = prod(x.shape[-pooling.dimensions :])
    rows = []
    for actives, grads in zip(channels, _rows(grad_output, pooling), strict=True):
        row = [Fraction(0)] * length
        for active, g in zip(actives, grads, strict=True):
            for i, weight in weigh(active).items():
                row[i] += weight * Fraction(g)
        rows.append(row)
    return rows


def magnitudes(
    x: Tensor, grad_output: Tensor, pooling: Pooling
) -> list[list[tuple[int, Fraction]]]:
    """For every entry, how many windows hold it and Σ |g_o| over them: what roundings scale with."""
    windows = pooling.windows(tuple(x.shape[-pooling.dimensions :]))
    length = prod(x.shape[-pooling.dimensions :])
    rows = []
    for grads in _rows(grad_output, pooling):
        row = [(0, Fraction(0))] * length
        for window, g in zip(windows, grads, strict=True):
            for i in window:
                row[i] = (row[i][0] + 1, row[i][1] + abs(Fraction(g)))
        rows.append(row)
    return rows


def _rows(tensor: Tensor, pooling: Pooling) -> list[list[float]]:
    return tensor.reshape(-1, prod(tensor.shape[-pooling.dimensions :])).tolist()


_INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(tensor: Tensor) -> Tensor:
    """The floating-point numbers as integers: tells -0 from 0 and finds NaN equal to itself."""
    return tensor.detach().contiguous().view(_INTEGER[tensor.element_size()])


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    different = bits(actual) != bits(expected)
    assert not different.any(), f"{actual[different]} instead of {expected[different]}"


def unit_roundoff(dtype: torch.dtype) -> Fraction:
    return Fraction(torch.finfo(dtype).eps) / 2
