"""Where the windows of a pooling lie: the geometry that every kernel shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Along = tuple[slice | Tensor, slice | Tensor]
Index = tuple[slice | Tensor, ...]


@dataclass(frozen=True)
class Windows(ABC):
    """The windows of a pooling over the last ``dimensions`` dimensions of its input."""

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """How many dimensions are pooled: 1, 2 or 3."""

    @abstractmethod
    def torch_max_pool(self, input: Tensor, return_indices: bool = False) -> Any:
        """PyTorch's own max pooling over these windows: the values, or values and indices."""

    @abstractmethod
    def torch_max_pool_backward(self, grad_output: Tensor, input: Tensor) -> Tensor:
        """PyTorch's own gradient with respect to the input.

        Called as an operator, since kernels run below autograd.
        """

    @abstractmethod
    def _places(self, dimension: int, inputs: int, outputs: int) -> Iterator[Along]:
        """One dimension of :meth:`entries`: pairs of an output and an input index."""

    def entries(
        self, input_size: torch.Size, output_size: torch.Size
    ) -> Iterator[tuple[Index, Index]]:
        """The places of the windows, in the order in which PyTorch scans them.

        Args:
            input_size: size of the pooled dimensions of the input.
            output_size: size of the pooled dimensions of the output.

        Yields:
            For each place two indices of equal shape: which windows have it, and where it lies.
            ``input[..., *at]`` are the entries of the windows ``output[..., *of]``. At one place
            no two windows share an entry, and when places are taken from the last to the first,
            the windows reach any given entry in ascending order.

        >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
        >>> list(windows.entries(torch.Size([4]), torch.Size([2])))
        [((slice(0, 2, None),), (slice(0, 3, 2),)), ((slice(0, 2, None),), (slice(1, 4, 2),))]
        """
        along = [
            list(self._places(dimension, input_size[dimension], output_size[dimension]))
            for dimension in range(self.dimensions)
        ]
        for place in product(*along):
            yield _outer([of for of, _ in place]), _outer([at for _, at in place])


@dataclass(frozen=True)
class SlidingWindows(Windows):
    """The windows of ``torch.nn.functional.max_pool1d``, ``2d`` and ``3d``.

    Each tuple has one number per pooled dimension. Window ``o`` along a dimension holds the inputs
    ``o·stride − padding + k·dilation`` for ``k`` in ``range(kernel)`` that lie inside; padding is
    never an entry.
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

    def torch_max_pool(self, input: Tensor, return_indices: bool = False) -> Any:
        """PyTorch's own max pooling over these windows: the values, or values and indices."""
        return _MAX_POOL[self.dimensions](
            input,
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=return_indices,
        )

    def torch_max_pool_backward(self, grad_output: Tensor, input: Tensor) -> Tensor:
        """PyTorch's own gradient with respect to the input."""
        _, indices = self.torch_max_pool(input, return_indices=True)
        sizes = [self.kernel, self.stride, self.padding, self.dilation]
        if self.dimensions == 3:
            gradient: Tensor = torch.ops.aten.max_pool3d_with_indices_backward(
                grad_output, input, *sizes, self.ceil_mode, indices
            )
            return gradient
        flat = self.dimensions == 1
        if flat:
            sizes = [(neutral, *size) for neutral, size in zip((1, 1, 0, 1), sizes, strict=True)]
            grad_output, input, indices = (t.unsqueeze(-2) for t in (grad_output, input, indices))
        gradient = torch.ops.aten.max_pool2d_with_indices_backward(
            grad_output, input, *sizes, self.ceil_mode, indices
        )
        return gradient.squeeze(-2) if flat else gradient

    def _places(self, dimension: int, inputs: int, outputs: int) -> Iterator[Along]:
        stride = self.stride[dimension]
        for k in range(self.kernel[dimension]):
            start = k * self.dilation[dimension] - self.padding[dimension]
            low = min(outputs, max(0, -(start // stride)))
            high = max(low, min(outputs, (inputs - 1 - start) // stride + 1))
            first = low * stride + start
            stop = first + (high - low - 1) * stride + 1
            yield slice(low, high), slice(first, stop, stride) if low < high else slice(0, 0)


@dataclass(frozen=True)
class AdaptiveWindows(Windows):
    """The windows of ``torch.nn.functional.adaptive_max_pool1d``, ``2d`` and ``3d``.

    Window ``o`` of ``O`` along a dimension of size ``I`` holds the inputs from ``⌊o·I / O⌋`` up to,
    but not including, ``⌈(o + 1)·I / O⌉``.

    Attributes:
        output_size: one size per pooled dimension; ``None`` keeps the input's.
    """

    output_size: tuple[int | None, ...]

    @property
    def dimensions(self) -> int:
        """How many dimensions are pooled: 1, 2 or 3."""
        return len(self.output_size)

    def torch_max_pool(self, input: Tensor, return_indices: bool = False) -> Any:
        """PyTorch's own max pooling over these windows: the values, or values and indices."""
        return _ADAPTIVE_MAX_POOL[self.dimensions](
            input, self.output_size, return_indices=return_indices
        )

    def torch_max_pool_backward(self, grad_output: Tensor, input: Tensor) -> Tensor:
        """PyTorch's own gradient with respect to the input."""
        _, indices = self.torch_max_pool(input, return_indices=True)
        if self.dimensions == 3:
            gradient: Tensor = torch.ops.aten.adaptive_max_pool3d_backward(
                grad_output, input, indices
            )
            return gradient
        if self.dimensions == 2:
            gradient = torch.ops.aten.adaptive_max_pool2d_backward(grad_output, input, indices)
            return gradient
        gradient = torch.ops.aten.adaptive_max_pool2d_backward(
            grad_output.unsqueeze(-2), input.unsqueeze(-2), indices.unsqueeze(-2)
        )
        return gradient.squeeze(-2)

    def _places(self, dimension: int, inputs: int, outputs: int) -> Iterator[Along]:
        spans = [
            (output * inputs // outputs, -(-(output + 1) * inputs // outputs))
            for output in range(outputs)
        ]
        # With more outputs than inputs several windows start at one entry: each of them gets its
        # place in turn, the last one first, so that no two windows share an entry at one place.
        later = [
            sum(start == other for other, _ in spans[output + 1 :])
            for output, (start, _) in enumerate(spans)
        ]
        for k in range(max((end - start for start, end in spans), default=0)):
            for turn in range(max(later) + 1):
                of = [
                    output
                    for output, (start, end) in enumerate(spans)
                    if start + k < end and later[output] == turn
                ]
                at = [spans[output][0] + k for output in of]
                yield torch.tensor(of, dtype=torch.int64), torch.tensor(at, dtype=torch.int64)


_MAX_POOL: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_ADAPTIVE_MAX_POOL: dict[int, Callable[..., Any]] = {
    1: F.adaptive_max_pool1d,
    2: F.adaptive_max_pool2d,
    3: F.adaptive_max_pool3d,
}


def _outer(indices: list[slice | Tensor]) -> Index:
    """Indices of single dimensions, broadcast so that together they index their product."""
    last = len(indices) - 1
    return tuple(
        index if isinstance(index, slice) else index.reshape(-1, *(1,) * (last - dimension))
        for dimension, index in enumerate(indices)
    )
