"""Where the windows of a pooling lie: the geometry shared by every kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

Index = tuple[slice | Tensor, ...]


@dataclass(frozen=True)
class Windows:
    """Sliding windows, as in ``torch.nn.functional.max_pool1d``, ``2d`` and ``3d``.

    Each tuple has one number per pooled dimension; the pooled dimensions are the last of the
    input. Window ``o`` along a dimension holds the inputs ``o·stride − padding + k·dilation`` for
    ``k`` in ``range(kernel)`` that lie inside; padding is never an entry.

    >>> windows = Windows((2, 2), (2, 2), (0, 0), (1, 1), ceil_mode=False)
    >>> windows.entries_per_window
    4
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool

    @property
    def dimensions(self) -> int:
        """How many dimensions are pooled: 1, 2 or 3."""
        return len(self.kernel)

    @property
    def entries_per_window(self) -> int:
        """How many entries a window without padding has."""
        return int(torch.Size(self.kernel).numel())

    def entries(
        self, input_size: torch.Size, output_size: torch.Size
    ) -> Iterator[tuple[Index, Index]]:
        """For each place in the window, in scan order: which windows have it, and where it lies.

        Args:
            input_size: size of the pooled dimensions of the input.
            output_size: size of the pooled dimensions of the output.

        Yields:
            A pair of indices of equal shape, into the pooled dimensions of the output and of the
            input: ``input[..., *at]`` is the entry of the windows ``output[..., *of]``. For one
            place no two windows share an entry, and windows reach a given entry in ascending
            order when the places are taken in descending order.
        """
        for place in product(*(range(kernel) for kernel in self.kernel)):
            pairs = [
                self._along(dimension, k, input_size[dimension], output_size[dimension])
                for dimension, k in enumerate(place)
            ]
            yield tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)

    def _along(self, dimension: int, k: int, inputs: int, outputs: int) -> tuple[slice, slice]:
        stride = self.stride[dimension]
        start = k * self.dilation[dimension] - self.padding[dimension]
        low = min(outputs, max(0, -(start // stride)))
        high = max(low, min(outputs, (inputs - 1 - start) // stride + 1))
        if low == high:
            return slice(0, 0), slice(0, 0)
        first = low * stride + start
        return slice(low, high), slice(first, first + (high - low - 1) * stride + 1, stride)
