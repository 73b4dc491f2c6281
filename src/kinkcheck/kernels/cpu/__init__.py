"""Max pooling on the CPU, compiled: the answers of :mod:`kinkcheck.kernels.reference`, bit for bit.

The functions are those of the reference and take sliding windows over a float16, bfloat16, float32
or float64 tensor in the memory of the CPU (see :func:`accepts`). They work below autograd: what
they return has no graph. A channels_last tensor stays one; any other that is not contiguous is
copied first, as PyTorch does.

Importing this module fails with ``ImportError`` where the package was installed without a compiler.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

import kinkcheck.kernels.cpu._extension as _extension
from kinkcheck.kernels import reference
from kinkcheck.kernels.reference import Ties
from kinkcheck.kernels.shares import shared, shares
from kinkcheck.kernels.windows import SlidingWindows, Windows
from kinkcheck.selection import Native, Random, Selection


def accepts(input: Tensor, windows: Windows) -> bool:
    """Whether these kernels take an input; the reference takes every other.

    Not taken: adaptive windows, other devices, other element types, tensors without memory of
    their own (fake and wrapped ones), and geometries that PyTorch refuses, so that it can say why.

    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> accepts(torch.zeros(1, 4), windows), accepts(torch.zeros(1, 4, dtype=torch.int64), windows)
    (True, False)
    """
    return (
        isinstance(windows, SlidingWindows)
        and type(input) in _PLAIN
        and input.dtype in _ELEMENTS
        and input.device.type == "cpu"
        and input.layout is torch.strided
        and _geometry(windows, input.shape, False) is not None
    )


def max_pool(input: Tensor, windows: Windows) -> Tensor:
    """The maximum of each window.

    Args:
        input: (N, C, *sizes) or (C, *sizes), one that :func:`accepts` takes.
        windows: the geometry.

    Returns:
        The values, of PyTorch's shape, dtype and memory format.

    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool(torch.tensor([[1.0, 3.0, 2.0, 2.0]]), windows)
    tensor([[3., 2.]])
    """
    input, form = _arrange(input, windows)
    value = form.empty_output(input)
    _extension.forward(
        form.problem,
        _ELEMENTS[input.dtype],
        input.data_ptr(),
        value.data_ptr(),
        torch.get_num_threads(),
    )
    return value


def max_pool_with_ties(input: Tensor, windows: Windows) -> tuple[Tensor, Ties]:
    """The maximum of each window and the census of ties, in one pass over the input.

    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool_with_ties(torch.tensor([[1.0, 3.0, 0.0, 0.0]]), windows)
    (tensor([[3., 0.]]), Ties(windows=2, tied=tensor(1), tied_at_zero=tensor(1)))
    """
    input, form = _arrange(input, windows)
    value = form.empty_output(input)
    return value, _ties(input, form, value.numel(), value.data_ptr())


def max_pool_ties(input: Tensor, windows: Windows) -> Ties:
    """How many windows are tied, and how many of those at zero.

    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool_ties(torch.tensor([[1.0, 3.0, 0.0, 0.0]]), windows)
    Ties(windows=2, tied=tensor(1), tied_at_zero=tensor(1))
    """
    input, form = _arrange(input, windows)
    return _ties(input, form, form.output_shape.numel(), 0)


def max_pool_vjp(
    grad_output: Tensor, input: Tensor, windows: Windows, selection: Selection
) -> Tensor:
    """The gradient with respect to the input, under a selection.

    Args:
        grad_output: gradient with respect to the output, of the output's shape and dtype.
        input: the input of the forward pass, one that :func:`accepts` takes.
        windows: the geometry.
        selection: native, minimal, hybrid, first, last or random.

    Returns:
        A tensor of the input's shape, dtype and memory format.

    Raises:
        InputError: the selection is none of these.

    >>> from kinkcheck.selection import Minimal
    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool_vjp(torch.ones(1, 1), torch.tensor([[2.0, 2.0]]), windows, Minimal())
    tensor([[0.5000, 0.5000]])
    """
    arranged, form = _arrange(input, windows)
    if not _fits(grad_output, form.output_shape, input) or not _has(selection):
        return reference.max_pool_vjp(grad_output, input, windows, selection)
    grad_input = form.empty_input(arranged)
    if _linear(form, selection, arranged, form.arrange(grad_output), grad_input, backward=True):
        return grad_input
    return reference.max_pool_vjp(grad_output, input, windows, selection)


def max_pool_jvp(tangent: Tensor, input: Tensor, windows: Windows, selection: Selection) -> Tensor:
    """The derivative along a tangent of the input: the adjoint of :func:`max_pool_vjp`.

    Raises:
        InputError: max pooling has no such selection.

    >>> from kinkcheck.selection import Minimal
    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool_jvp(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 2.0]]), windows, Minimal())
    tensor([[2.]])
    """
    arranged, form = _arrange(input, windows)
    if not _fits(tangent, input.shape, input) or not _has(selection):
        return reference.max_pool_jvp(tangent, input, windows, selection)
    tangent_output = form.empty_output(arranged)
    if _linear(form, selection, arranged, form.arrange(tangent), tangent_output, backward=False):
        return tangent_output
    return reference.max_pool_jvp(tangent, input, windows, selection)


def instruction_sets() -> list[str]:
    """The instruction sets of this machine that there are kernels for, the slowest first.

    >>> instruction_sets()
    ['baseline'...]
    """
    return _extension.instruction_sets()


def instruction_set() -> str:
    """The instruction set in use: the last of :func:`instruction_sets`, unless told otherwise."""
    return _extension.instruction_set_in_use()


def openmp() -> bool:
    """Whether the kernels were compiled to use several threads."""
    return _extension.openmp


def use_instruction_set(name: str) -> None:
    """Use the kernels of another of :func:`instruction_sets`; the answers are the same.

    Raises:
        ValueError: this machine has no such instruction set.
    """
    _extension.use_instruction_set(name)


_PLAIN = (Tensor, torch.nn.Parameter)
_KINDS = ("native", "first", "last", "random")
_ELEMENTS = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class _Form:
    """A geometry applied to one shape and memory layout.

    Attributes:
        input_shape: of the input.
        output_shape: of the output.
        pooled: how many dimensions are pooled.
        places: how many entries a window has.
        problem: the same for the extension.
        axis: where a dimension of size 1 completes a channels_last tensor to (N, C, H, W) or
            (N, C, D, H, W); None if nothing is missing or the layout is contiguous.
        channels_last: the layout.
    """

    input_shape: torch.Size
    output_shape: torch.Size
    pooled: int
    places: int
    problem: _extension.Problem
    axis: int | None
    channels_last: bool

    def empty_input(self, like: Tensor) -> Tensor:
        return self._empty(self.input_shape, like)

    def empty_output(self, like: Tensor) -> Tensor:
        return self._empty(self.output_shape, like)

    def _empty(self, shape: torch.Size, like: Tensor) -> Tensor:
        if not self.channels_last:
            return torch.empty(shape, dtype=like.dtype)
        if self.axis is None:
            return torch.empty(shape, dtype=like.dtype, memory_format=_CHANNELS_LAST[len(shape)])
        full = (*shape[: self.axis], 1, *shape[self.axis :])
        format = _CHANNELS_LAST[len(full)]
        return torch.empty(full, dtype=like.dtype, memory_format=format).squeeze(self.axis)

    def arrange(self, tensor: Tensor) -> Tensor:
        """The tensor in this layout, copied only if it is in another."""
        tensor = tensor.detach().resolve_neg()
        if not self.channels_last:
            return tensor.contiguous()
        if self.axis is None:
            return tensor.contiguous(memory_format=_CHANNELS_LAST[tensor.dim()])
        full = tensor.unsqueeze(self.axis)
        return full.contiguous(memory_format=_CHANNELS_LAST[full.dim()]).squeeze(self.axis)


@lru_cache(maxsize=4096)
def _geometry(windows: SlidingWindows, shape: torch.Size, channels_last: bool) -> _Form | None:
    """The form of a geometry that PyTorch takes; None if it does not."""
    pooled = windows.dimensions
    leading = shape[:-pooled]
    if len(shape) not in (pooled + 1, pooled + 2) or 0 in shape[-pooled - 1 :]:
        return None
    axes: list[tuple[int, ...]] = []
    for size, kernel, stride, padding, dilation in zip(
        shape[-pooled:],
        windows.kernel,
        windows.stride,
        windows.padding,
        windows.dilation,
        strict=True,
    ):
        if min(kernel, stride, dilation) < 1:
            return None
        reach = (kernel - 1) * dilation + 1
        if not 0 <= padding <= kernel // 2:
            return None
        room = size + 2 * padding - reach
        outputs = (room + (stride - 1 if windows.ceil_mode else 0)) // stride + 1
        if windows.ceil_mode and (outputs - 1) * stride >= size + padding:
            outputs -= 1
        if outputs < 1:
            return None
        axes.append((size, outputs, kernel, stride, padding, dilation))
    output_shape = torch.Size((*leading, *(axis[1] for axis in axes)))
    single = (1, 1, 1, 1, 0, 1)
    depth = axes[0] if pooled > 1 else single
    height = axes[1] if pooled == 3 else single
    inner = leading[-1] if channels_last else 1
    problem = _extension.Problem(leading.numel() // inner, inner, depth, height, axes[-1])
    axis = (2 if pooled == 1 else None) if len(leading) == 2 else 0
    places = prod(windows.kernel)
    return _Form(shape, output_shape, pooled, places, problem, axis, channels_last)


def _arrange(input: Tensor, windows: Windows) -> tuple[Tensor, _Form]:
    """The input in the layout that PyTorch works in, and the form of the geometry there."""
    form = _geometry(windows, input.shape, _is_channels_last(input, windows.dimensions))
    if form is None:
        raise ValueError(f"not an input for these kernels: {tuple(input.shape)}, {windows}")
    return form.arrange(input), form


def _is_channels_last(input: Tensor, pooled: int) -> bool:
    """Whether PyTorch pools the input as channels_last: its ``suggest_memory_format``."""
    size, stride = input.shape, input.stride()
    batched = len(size) == pooled + 2
    if batched:
        if stride[-1] < stride[1]:
            return False
        inwards = (1, *range(pooled + 1, 1, -1), 0)
    elif pooled == 3:
        if stride[-1] < stride[0]:
            return False
        inwards = (0, 3, 2, 1)
    else:
        return False
    least = 0
    channel = stride[inwards[0]]
    if channel == 0:
        return False
    for place, dimension in enumerate(inwards):
        if size[dimension] == 0 or stride[dimension] < least:
            return False
        if place == pooled + 1 and least == channel:
            return False
        least = stride[dimension] * max(size[dimension], 1)
    return True


def _fits(tensor: Tensor, shape: torch.Size, input: Tensor) -> bool:
    return (
        tensor.shape == shape
        and tensor.dtype == input.dtype
        and tensor.device == input.device
        and tensor.layout is torch.strided
        and type(tensor) in _PLAIN
    )


def _ties(input: Tensor, form: _Form, windows: int, value: int) -> Ties:
    tied, tied_at_zero = _extension.ties(
        form.problem, _ELEMENTS[input.dtype], input.data_ptr(), value, torch.get_num_threads()
    )
    return Ties(windows, torch.tensor(tied), torch.tensor(tied_at_zero))


def _linear(
    form: _Form,
    selection: Selection,
    input: Tensor,
    given: Tensor,
    result: Tensor,
    backward: bool,
) -> bool:
    """Run the backward or the forward-mode kernel; whether the result is PyTorch's.

    It is not for the native derivative at windows that hold nothing but −∞, channels_last_3d.
    """
    return _extension.linear(
        form.problem,
        _ELEMENTS[input.dtype],
        _choice(selection, form.places),
        form.pooled == 3 and form.channels_last and isinstance(selection, Native),
        input.data_ptr(),
        given.data_ptr(),
        result.data_ptr(),
        torch.get_num_threads(),
        backward,
    )


MOST_NUMBERS = 4
"""How many numbers :func:`count_equal` looks for."""


def takes_entries(tensor: Tensor) -> bool:
    """Whether :func:`count_equal` takes a tensor.

    >>> takes_entries(torch.zeros(3)), takes_entries(torch.zeros(3, 3)[:, 0])
    (True, False)
    """
    return (
        type(tensor) in _PLAIN
        and tensor.dtype in _ELEMENTS
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.is_neg()
        and (
            tensor.is_contiguous()
            or (
                tensor.dim() in _CHANNELS_LAST
                and tensor.is_contiguous(memory_format=_CHANNELS_LAST[tensor.dim()])
            )
        )
    )


def takes_both(entries: Tensor, values: Tensor) -> bool:
    """Whether :func:`count_attained` and :func:`count_gathered` take entries and values.

    >>> x = torch.zeros(3)
    >>> takes_both(x, x), takes_both(x, x.half())
    (True, False)
    """
    alike = entries.dtype == values.dtype
    return alike and takes_entries(entries) and takes_entries(values)


def count_equal(tensor: Tensor, numbers: tuple[float, ...]) -> list[int]:
    """How many entries are equal to each of some numbers, in one pass.

    Args:
        tensor: one that :func:`takes_entries` takes.
        numbers: at most ``MOST_NUMBERS``, each rounded to the type of the tensor.

    >>> count_equal(torch.tensor([0.0, -0.0, 6.0]), (0.0, 6.0))
    [2, 1]
    """
    sought = _as_type(numbers, tensor.dtype)
    found = _extension.count_equal(
        tensor.element_size(),
        tensor.data_ptr(),
        tensor.numel(),
        sought.data_ptr(),
        len(numbers),
        torch.get_num_threads(),
    )
    return list(found[: len(numbers)])


def count_attained(entries: Tensor, values: Tensor) -> int:
    """How many entries are equal to the value that they compete for.

    Args:
        entries: of three dimensions; they compete along the second one.
        values: of the first and the last, without NaN.

    >>> count_attained(torch.tensor([[[1.0], [3.0], [3.0]]]), torch.tensor([[3.0]]))
    2
    """
    return _extension.count_attained(
        entries.element_size(),
        entries.data_ptr(),
        values.data_ptr(),
        entries.shape[0],
        entries.shape[1],
        entries.shape[2],
        torch.get_num_threads(),
    )


def count_gathered(entries: Tensor, values: Tensor, of: Tensor, at: Tensor | None) -> int:
    """How many entries of rows are equal to the value that they compete for.

    Args:
        entries: rows.
        values: rows, without NaN.
        of: the row of values that each row competes for; behind the last for none.
        at: where each row lies among the entries; None if one after the other. Both are contiguous
            tensors of 64 bits.

    >>> entries, values = torch.tensor([[1.0], [3.0], [3.0]]), torch.tensor([[1.0], [3.0]])
    >>> count_gathered(entries, values, torch.tensor([0, 1, 2]), None)
    2
    """
    return _extension.count_gathered(
        entries.element_size(),
        entries.data_ptr(),
        len(of),
        0 if at is None else at.data_ptr(),
        of.data_ptr(),
        len(values),
        values.data_ptr(),
        values.shape[1],
        torch.get_num_threads(),
    )


@lru_cache(maxsize=256)
def _as_type(numbers: tuple[float, ...], dtype: torch.dtype) -> Tensor:
    return torch.tensor(numbers, dtype=dtype)


_LEAST_TABLE = 32  # as in vectors.hpp


@lru_cache(maxsize=256)
def _has(selection: Selection) -> bool:
    return selection.kind in _KINDS or shared(selection)


def _choice(selection: Selection, places: int) -> _extension.Choice:
    seed = selection.seed if isinstance(selection, Random) else 0
    if not shared(selection):
        return _extension.Choice(selection.kind, seed, [], [])
    picked, others = shares(selection, max(places, _LEAST_TABLE)).unbind(1)
    return _extension.Choice("hybrid", seed, picked.tolist(), others.tolist())
