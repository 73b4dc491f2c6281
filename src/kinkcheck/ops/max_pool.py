"""Max pooling: the branches of a window are its entries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kinkcheck import kernels
from kinkcheck.kernels import AdaptiveWindows, SlidingWindows, Ties, Windows, library
from kinkcheck.ops.branches import Active, Rivals
from kinkcheck.ops.function import like, shared, signed
from kinkcheck.ops.operation import Choice, Operation
from kinkcheck.ops.picks import Picks, Windowed
from kinkcheck.ops.row import Row
from kinkcheck.ops.table import BY_NAME
from kinkcheck.selection import First, Limit, Selection

Size = int | tuple[int, ...] | list[int]


@dataclass(frozen=True)
class MaxPool(Operation):
    """A call of max pooling or adaptive max pooling, in 1, 2 or 3 dimensions.

    Native is the first entry that attains the maximum, minimal weighs all of them equally.
    """

    input: Tensor
    windows: Windows
    return_indices: bool = False

    @property
    def row(self) -> Row:
        """``max_pool2d``, ``adaptive_max_pool1d``, ..."""
        adaptive = "adaptive_" if isinstance(self.windows, AdaptiveWindows) else ""
        return BY_NAME[f"{adaptive}max_pool{self.windows.dimensions}d"]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The input."""
        return (self.input,)

    def ties(self) -> Ties:
        """Windows with several active entries, and those whose entries are all zero."""
        return kernels.max_pool_ties(self.input.detach(), self.windows)

    def tied(self) -> Tensor:
        """Windows with several active entries."""
        return kernels.max_pool_tied(self.input.detach(), self.windows)

    def persists(self, lifted: Operation, value: Tensor) -> Tensor:
        """Windows whose active entries have one value in the lift."""
        there = lifted.inputs[0].detach()
        return kernels.max_pool_persists(self.input.detach(), self.windows, there)

    def rivals(self, value: Tensor, tangents: tuple[Tensor, ...]) -> Rivals:
        """The tangents of the entries that attain a maximum."""
        of, entry = self._active
        return Rivals.deciding(of, tangents[0].flatten()[entry], Rivals.LARGEST)

    @cached_property
    def _active(self) -> tuple[Tensor, Tensor]:
        """Of tied windows, by number, the entries that attain the maximum, by number."""
        input = self.input.detach()
        of, entry = Windowed.of(self.windows, input).listed(self.tied())
        found = input.flatten()[entry]
        most = found.new_empty(int(of.max()) + 1 if len(of) else 0)
        most.scatter_reduce_(0, of, found, "amax", include_self=False)
        attains = found == most[of]
        return of[attains], entry[attains]

    def apply(self, choice: Choice) -> Tensor | tuple[Tensor, Tensor]:
        """The pooled tensor, and PyTorch's indices when they were asked for."""
        function = _MaxPool if torch.compiler.is_compiling() else _MaxPoolWithJvp
        return self._with_indices(function.apply(self.input, self.windows, choice, None))

    def apply_counting(self, choice: Choice) -> tuple[Tensor | tuple[Tensor, Tensor], Ties]:
        """What :meth:`apply` returns and what :meth:`ties` does, in one pass over the input."""
        if torch._C._are_functorch_transforms_active():
            return super().apply_counting(choice)
        census: list[Ties] = []
        output = _MaxPoolWithJvp.apply(self.input, self.windows, choice, census)
        return self._with_indices(output), census[0]

    def _with_indices(self, output: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if not self.return_indices:
            return output
        return output, self.windows.torch_max_pool(self.input.detach(), return_indices=True)[1]


def sliding(dimensions: int, with_indices: bool = False) -> Any:
    """The reader of a call of PyTorch's max pooling in some number of dimensions.

    Args:
        dimensions: 1, 2 or 3.
        with_indices: whether the function returns indices without being asked.

    Returns:
        A function of the arguments of ``torch.nn.functional.max_pool2d`` that returns the
        :class:`MaxPool` they describe.

    >>> sliding(2)(torch.zeros(1, 1, 4, 4), 2).windows.stride
    (2, 2)
    """

    def read(
        input: Tensor,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> MaxPool:
        windows = sliding_windows(dimensions, kernel_size, stride, padding, dilation, ceil_mode)
        return MaxPool(input, windows, return_indices or with_indices)

    return read


def adaptive(dimensions: int, with_indices: bool = False) -> Any:
    """The reader of a call of PyTorch's adaptive max pooling, as :func:`sliding`.

    >>> adaptive(2)(torch.zeros(1, 1, 4, 4), (2, None)).windows.output_size
    (2, None)
    """

    def read(
        input: Tensor,
        output_size: int | tuple[int | None, ...] | list[int | None] | None,
        return_indices: bool = False,
    ) -> MaxPool:
        size = (
            tuple(output_size)
            if isinstance(output_size, tuple | list)
            else (output_size,) * dimensions
        )
        if len(size) == 1:
            size = size * dimensions
        return MaxPool(input, AdaptiveWindows(size), return_indices or with_indices)

    return read


def sliding_windows(
    dimensions: int,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> SlidingWindows:
    """The windows that PyTorch's arguments describe, one number standing for all dimensions.

    >>> sliding_windows(2, 3, ceil_mode=True).stride
    (3, 3)
    """
    return SlidingWindows(
        _per_dimension(kernel_size, dimensions),
        _per_dimension(kernel_size if stride in (None, (), []) else stride, dimensions),
        _per_dimension(padding, dimensions),
        _per_dimension(dilation, dimensions),
        ceil_mode,
    )


def _per_dimension(value: Any, dimensions: int) -> tuple[int, ...]:
    numbers = tuple(value) if isinstance(value, tuple | list) else (value,)
    return numbers * dimensions if len(numbers) == 1 else numbers


READERS: dict[Any, Callable[..., MaxPool]] = {
    F.max_pool1d: sliding(1),
    F.max_pool2d: sliding(2),
    F.max_pool3d: sliding(3),
    F.max_pool1d_with_indices: sliding(1, with_indices=True),
    F.max_pool2d_with_indices: sliding(2, with_indices=True),
    F.max_pool3d_with_indices: sliding(3, with_indices=True),
    torch.max_pool1d: sliding(1),
    torch.max_pool2d: sliding(2),
    torch.max_pool3d: sliding(3),
    torch.max_pool1d_with_indices: sliding(1, with_indices=True),
    F.adaptive_max_pool1d: adaptive(1),
    F.adaptive_max_pool2d: adaptive(2),
    F.adaptive_max_pool3d: adaptive(3),
    F.adaptive_max_pool1d_with_indices: adaptive(1, with_indices=True),
    F.adaptive_max_pool2d_with_indices: adaptive(2, with_indices=True),
    F.adaptive_max_pool3d_with_indices: adaptive(3, with_indices=True),
    torch.adaptive_max_pool1d: adaptive(1, with_indices=True),
}
"""The reader of each function of PyTorch."""

for _name, _read in {
    "max_pool1d": sliding(1),
    "max_pool2d": sliding(2),
    "max_pool3d": sliding(3),
    "max_pool1d_with_indices": sliding(1, with_indices=True),
    "max_pool2d_with_indices": sliding(2, with_indices=True),
    "max_pool3d_with_indices": sliding(3, with_indices=True),
    "adaptive_max_pool1d": adaptive(1, with_indices=True),
    "adaptive_max_pool2d": adaptive(2, with_indices=True),
    "adaptive_max_pool3d": adaptive(3, with_indices=True),
}.items():
    _packet = getattr(torch.ops.aten, _name)
    READERS |= {_packet: _read, _packet.default: _read}


class _MaxPool(torch.autograd.Function):
    """The pooled value; its derivatives ask the choice for the selection."""

    @staticmethod
    @signed
    def forward(
        input: Tensor, windows: Windows, choice: Choice, census: list[Ties] | None
    ) -> Tensor:
        with torch._C.DisableTorchFunction():
            if census is None:
                return library.max_pool(input, windows)
            output, ties = kernels.max_pool_with_ties(input, windows)
        census.append(ties)
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, ctx.windows, ctx.choice, _ = inputs
        ctx.save_for_backward(input)
        ctx.save_for_forward(input)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (input,) = ctx.saved_tensors
        (gradient,), selection = grad_outputs, ctx.choice.selection
        if not isinstance(selection, Limit):
            grad = _linear(gradient, input, ctx.windows, selection, backward=True)
            return grad, None, None, None
        active = _active(input, ctx.windows)
        alone, (found,) = shared(active, ctx.choice, gradient, like([input]))
        grad = _linear(alone, input, ctx.windows, First(), backward=True)
        return grad if found is None else grad + found, None, None, None

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        input: Tensor,
        windows: Windows,
        choice: Choice,
        census: None,
    ) -> tuple[Tensor, int]:
        (folded,), unfold = _fold(info.batch_size, windows, [(input, in_dims[0])])
        return unfold(_MaxPoolWithJvp.apply(folded, windows, choice, census)), 0


class _MaxPoolWithJvp(_MaxPool):
    """The same with forward-mode AD, which torch.compile does not take."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (input,) = ctx.saved_tensors
        selection = ctx.choice.selection
        if not isinstance(selection, Limit):
            return _linear(tangents[0], input, ctx.windows, selection, backward=False)
        alone = _linear(tangents[0], input, ctx.windows, First(), backward=False)
        active = _active(input, ctx.windows)
        return torch.where(
            active.tied(), active.push(active.along(tangents[:1]), tangents[:1]), alone
        )


def _active(input: Tensor, windows: Windows) -> Active:
    """The entries that attain each maximum, laid out."""
    value = library.max_pool(input.detach(), windows)
    contest = Windowed.of(windows, input)
    return Picks((input,), contest).active(value)


def _linear(
    direction: Tensor, input: Tensor, windows: Windows, selection: Selection, backward: bool
) -> Tensor:
    """The derivative at an input times a direction of it, or the adjoint times one of the output.

    A linear map of the direction. The input enters through comparisons alone, so that the
    derivative with respect to it is zero almost everywhere.
    """
    function = _Linear if torch.compiler.is_compiling() else _LinearWithJvp
    product: Tensor = function.apply(direction, input, windows, selection, backward)
    return product


class _Linear(torch.autograd.Function):
    @staticmethod
    @signed
    def forward(
        direction: Tensor, input: Tensor, windows: Windows, selection: Selection, backward: bool
    ) -> Tensor:
        multiply = library.max_pool_vjp if backward else library.max_pool_jvp
        return multiply(direction, input, windows, selection)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, input, ctx.windows, ctx.selection, ctx.is_backward = inputs
        ctx.save_for_backward(input)
        ctx.save_for_forward(input)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (input,) = ctx.saved_tensors
        grad = _linear(grads[0], input, ctx.windows, ctx.selection, not ctx.is_backward)
        return grad, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, direction: Tensor, input: Tensor, *rest: Any) -> Any:
        (direction, input), unfold = _fold(
            info.batch_size, rest[0], [(direction, in_dims[0]), (input, in_dims[1])]
        )
        return unfold(_linear(direction, input, *rest)), 0


class _LinearWithJvp(_Linear):
    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (input,) = ctx.saved_tensors
        return _linear(tangents[0], input, ctx.windows, ctx.selection, ctx.is_backward)


def _fold(
    batch_size: int, windows: Windows, tensors: list[tuple[Tensor, int | None]]
) -> tuple[list[Tensor], Callable[[Tensor], Tensor]]:
    """Fold the dimension of ``vmap`` into the channels, which max pooling treats alike."""
    channels = -windows.dimensions - 1
    folded = []
    for tensor, dimension in tensors:
        batched = (
            tensor.expand(batch_size, *tensor.shape)
            if dimension is None
            else tensor.movedim(dimension, 0)
        )
        folded.append(batched.movedim(0, channels - 1).flatten(channels - 1, channels))

    def unfold(tensor: Tensor) -> Tensor:
        shape = (*tensor.shape[:channels], batch_size, -1, *tensor.shape[channels + 1 :])
        return tensor.reshape(shape).movedim(channels - 1, 0)

    return folded, unfold
