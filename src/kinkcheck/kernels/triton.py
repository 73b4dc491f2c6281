"""Max pooling on a GPU, in Triton: the answers of :mod:`kinkcheck.kernels.reference`, bit for bit.

The functions are those of the reference and take sliding windows over a float16, bfloat16, float32
or float64 CUDA tensor (see :func:`accepts`). They work below autograd: what they return has no
graph. A channels_last tensor stays one; any other that is not contiguous is copied first, as
PyTorch does.

Every kernel is deterministic: each element of a result is written once, by one program, and no
operation is atomic. ``native`` is what the reference defines, the first active entry (the last NaN)
with contributions added in the order of the windows; PyTorch's own CUDA kernels add them so in one
and two dimensions, and in three in an order that changes from run to run.

Triton is imported when it is first needed: without it this module can be imported, and takes
nothing. With ``TRITON_INTERPRET=1`` in the environment Triton interprets the kernels, slowly, and
they take CPU tensors; its interpreter cannot compute in bfloat16.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinkcheck.kernels import reference
from kinkcheck.kernels.reference import Ties
from kinkcheck.kernels.shares import shared, shares
from kinkcheck.kernels.windows import SlidingWindows, Windows
from kinkcheck.selection import Random, Selection

if TYPE_CHECKING:
    from kinkcheck.kernels.triton_jit import Geometry, Triple


@lru_cache(maxsize=1)
def obstacle() -> str:
    """One line: what keeps these kernels from running here; empty if nothing does.

    >>> obstacle()
    '...'
    """
    try:
        code = _code()
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    if code.VERSION < _OLDEST:
        return f"Triton {'.'.join(map(str, code.VERSION))} is older than 3.4"
    if not (code.INTERPRETED or torch.cuda.is_available()):
        return "PyTorch sees no CUDA device"
    return ""


def accepts(input: Tensor, windows: Windows) -> bool:
    """Whether these kernels take an input; the reference takes every other.

    Not taken: adaptive windows, tensors that are not on a GPU, other element types, and tensors
    without memory of their own (fake and wrapped ones). A geometry that PyTorch refuses is taken,
    and fails with PyTorch's own message.

    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> accepts(torch.zeros(1, 4, dtype=torch.int64), windows)
    False
    """
    return (
        isinstance(windows, SlidingWindows)
        and type(input) in _PLAIN
        and input.dtype in _FLOATS
        and input.layout is torch.strided
        and (input.is_cuda or (input.device.type == "cpu" and "TRITON_INTERPRET" in os.environ))
        and input.dim() in (windows.dimensions + 1, windows.dimensions + 2)
        and not obstacle()
        and (input.is_cuda or _code().INTERPRETED)
    )


def max_pool(input: Tensor, windows: Windows) -> Tensor:
    """The maximum of each window.

    Args:
        input: (N, C, *sizes) or (C, *sizes), one that :func:`accepts` takes.
        windows: the geometry.

    Returns:
        The values, of PyTorch's shape, dtype and memory format.

    Raises:
        RuntimeError: PyTorch refuses the geometry.

    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool(torch.tensor([[1.0, 3.0, 2.0, 2.0]], device=device), windows).tolist()
    [[3.0, 2.0]]
    """
    arranged, form = _arrange(input, windows)
    value = form.empty_output(arranged)
    form.summarise(arranged, value=value)
    return form.trim(value)


def max_pool_with_ties(input: Tensor, windows: Windows) -> tuple[Tensor, Ties]:
    """The maximum of each window and the census of ties, in one pass over the input.

    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> x = torch.tensor([[1.0, 3.0, 0.0, 0.0]], device=device)
    >>> value, ties = max_pool_with_ties(x, windows)
    >>> value.tolist(), ties.tied.item()
    ([[3.0, 0.0]], 1)
    """
    arranged, form = _arrange(input, windows)
    value = form.empty_output(arranged)
    ties = _ties(arranged, form, value)
    return form.trim(value), ties


def max_pool_ties(input: Tensor, windows: Windows) -> Ties:
    """How many windows are tied, and how many of those at zero; on the input's device.

    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool_ties(torch.tensor([[1.0, 3.0, 0.0, 0.0]], device=device), windows)
    Ties(windows=2, tied=tensor(1...), tied_at_zero=tensor(1...))
    """
    arranged, form = _arrange(input, windows)
    return _ties(arranged, form, None)


def max_pool_vjp(
    grad_output: Tensor, input: Tensor, windows: Windows, selection: Selection
) -> Tensor:
    """The gradient with respect to the input, under a selection.

    Windows that do not overlap are read and written in one pass. Of others, a first pass keeps the
    maximum, the picked place and the number of active entries, 1 byte or 4 each, and a second one
    adds up what reaches each input element.

    Args:
        grad_output: gradient with respect to the output, of the output's shape and dtype.
        input: the input of the forward pass, one that :func:`accepts` takes.
        windows: the geometry.
        selection: native, minimal, hybrid, first, last or random.

    Returns:
        A tensor of the input's shape, dtype and memory format.

    Raises:
        InputError: max pooling has no such selection.
        RuntimeError: PyTorch refuses the geometry.

    >>> from kinkcheck.selection import Minimal
    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> x, grad = torch.tensor([[2.0, 2.0]], device=device), torch.ones(1, 1, device=device)
    >>> max_pool_vjp(grad, x, windows, Minimal()).tolist()
    [[0.5, 0.5]]
    """
    arranged, form = _arrange(input, windows)
    if not _has(selection) or not _fits(grad_output, form.output_shape, input):
        return reference.max_pool_vjp(grad_output, input, windows, selection)
    gradient = form.arrange(grad_output)
    weights = _weights_of(selection, form, input)
    grad_input = form.empty_input(arranged)
    if form.apart:
        if not form.tiled:
            grad_input.zero_()
        form.over_windows(
            "spread",
            arranged,
            selection,
            grad_output=gradient,
            weights=weights,
            grad_input=grad_input,
        )
        return form.trim(grad_input)
    value = active = None
    if weights is not None:
        value, active = form.empty_output(arranged), form.empty_output(arranged, form.counts)
    pick = form.empty_output(arranged, form.counts)
    form.summarise(arranged, selection, value=value, pick=pick, active=active)
    form.over_inputs(
        "gather",
        arranged,
        grad_output=gradient,
        value=value,
        pick=pick,
        active=active,
        weights=weights,
        grad_input=grad_input,
    )
    return form.trim(grad_input)


def max_pool_jvp(tangent: Tensor, input: Tensor, windows: Windows, selection: Selection) -> Tensor:
    """The derivative along a tangent of the input: the adjoint of :func:`max_pool_vjp`.

    Args:
        tangent: of the input's shape and dtype.
        input: the input of the forward pass, one that :func:`accepts` takes.
        windows: the geometry.
        selection: native, minimal, hybrid, first, last or random.

    Returns:
        A tensor of the output's shape, dtype and memory format.

    Raises:
        InputError: max pooling has no such selection.
        RuntimeError: PyTorch refuses the geometry.

    >>> from kinkcheck.selection import Minimal
    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> x, tangent = torch.tensor([[[2.0, 2.0]], [[1.0, 3.0]]], device=device)
    >>> max_pool_jvp(tangent, x, windows, Minimal()).tolist()
    [[2.0]]
    """
    arranged, form = _arrange(input, windows)
    if not _has(selection) or not _fits(tangent, input.shape, input):
        return reference.max_pool_jvp(tangent, input, windows, selection)
    tangent_output = form.empty_output(arranged)
    form.over_windows(
        "push",
        arranged,
        selection,
        tangent=form.arrange(tangent),
        weights=_weights_of(selection, form, input),
        tangent_output=tangent_output,
    )
    return form.trim(tangent_output)


_PLAIN = (Tensor, torch.nn.Parameter)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_KINDS = ("native", "first", "last", "random")


def _has(selection: Selection) -> bool:
    return selection.kind in _KINDS or shared(selection)


_OLDEST = (3, 4)  # the first Triton that takes a tuple for a constant
_BLOCK = 256  # elements of a program: two a thread
_WARPS = 4
_NARROW = 2**30  # up to how many elements 32 bits hold an offset and the sums on the way to it


@lru_cache(maxsize=1)
def _code() -> ModuleType:
    """The kernels, for which Triton is imported."""
    from kinkcheck.kernels import triton_jit

    return triton_jit


@dataclass(frozen=True)
class _Form:
    """A geometry applied to one shape and memory layout.

    The kernels take tensors completed to (N, C, H, W) or (N, C, D, H, W).

    Attributes:
        output_shape: of the output, as the caller knows it.
        added: the dimensions of size 1 that complete a tensor.
        layout: of completed tensors, a ``torch.memory_format``.
        geometry: in three dimensions.
        apart: whether no two windows share an entry.
        tiled: whether they also hold every input element.
        common: what every kernel is launched with.
    """

    output_shape: torch.Size
    added: tuple[int, ...]
    layout: torch.memory_format
    geometry: Geometry
    apart: bool
    tiled: bool
    common: dict[str, Any]

    def arrange(self, tensor: Tensor) -> Tensor:
        """The tensor completed and in the layout, copied only if it is in another."""
        full = _complete(tensor.detach().resolve_neg(), self.added)
        return full.contiguous(memory_format=self.layout)

    def trim(self, full: Tensor) -> Tensor:
        """A completed tensor as the caller knows it."""
        return full.squeeze(self.added)

    def empty_input(self, like: Tensor) -> Tensor:
        """A tensor for the gradient of an arranged input."""
        return torch.empty_like(like, memory_format=self.layout)

    def empty_output(self, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """A completed tensor with one element a window, of the type of ``like`` or another."""
        shape = list(self.output_shape)
        for dimension in self.added:
            shape.insert(dimension, 1)
        return torch.empty(
            shape, dtype=dtype or like.dtype, device=like.device, memory_format=self.layout
        )

    @property
    def counts(self) -> torch.dtype:
        """An integer type that holds the number of places of a window."""
        return torch.uint8 if self.geometry.places < 2**8 else torch.int32

    def programs(self) -> int:
        """How many programs take the windows."""
        return -(-self.output_shape.numel() // _BLOCK)

    def summarise(
        self,
        input: Tensor,
        selection: Selection | None = None,
        *,
        value: Tensor | None = None,
        pick: Tensor | None = None,
        active: Tensor | None = None,
        ties: Tensor | None = None,
    ) -> None:
        """Run the kernel that describes windows, for what is not None."""
        self.over_windows(
            "summarise", input, selection, value=value, pick=pick, active=active, ties=ties
        )

    def over_windows(
        self, kernel: str, input: Tensor, selection: Selection | None, **arguments: Tensor | None
    ) -> None:
        """Run a kernel whose programs take windows."""
        kind = selection.kind if selection else "native"
        seed = selection.seed if isinstance(selection, Random) else 0
        self._launch(
            kernel,
            self.programs(),
            input=input,
            count=self.output_shape.numel(),
            seed_low=_signed(seed & 0xFFFFFFFF),
            seed_high=_signed(seed >> 32),
            rule=kind if kind in ("native", "last", "random") else "first",
            **arguments,
        )

    def over_inputs(self, kernel: str, input: Tensor, **arguments: Tensor | None) -> None:
        """Run a kernel whose programs take elements of the input."""
        elements = input.numel()
        self._launch(
            kernel,
            -(-elements // _BLOCK),
            input=input,
            count=elements,
            round_each=not input.is_cuda,
            **arguments,
        )

    def _launch(self, kernel: str, programs: int, *, input: Tensor, **arguments: Any) -> None:
        # Triton launches on the current device.
        with torch.cuda.device_of(input):  # type: ignore[no-untyped-call]
            getattr(_code(), kernel)[(programs,)](input=input, **arguments, **self.common)


def _arrange(input: Tensor, windows: Windows) -> tuple[Tensor, _Form]:
    """The input as the kernels take it, and the form of the geometry there."""
    pooled = windows.dimensions
    batched = input.dim() == pooled + 2
    added = (0,) * (not batched) + (2,) * (pooled == 1)
    # In one and two dimensions PyTorch takes an input without a batch for a contiguous one.
    channels_last = (batched or pooled == 3) and _is_channels_last(_complete(input, added))
    form = _form(windows, input.shape, input.dtype, added, channels_last)
    return form.arrange(input), form


@lru_cache(maxsize=4096)
def _form(
    windows: SlidingWindows,
    shape: torch.Size,
    dtype: torch.dtype,
    added: tuple[int, ...],
    channels_last: bool,
) -> _Form:
    pooled = windows.dimensions
    # PyTorch tells the sizes, or what is wrong with the geometry, from an empty batch.
    empty = windows.torch_max_pool(torch.empty(0, *shape[-pooled - 1 :], device="cpu"))
    output_shape = torch.Size((*shape[:-pooled], *empty.shape[-pooled:]))
    sizes, outputs = _three(shape[-pooled:]), _three(output_shape[-pooled:])
    code = _code()
    geometry = code.Geometry.of(
        _three(windows.kernel),
        _three(windows.stride),
        _three(windows.padding, missing=0),
        _three(windows.dilation),
    )
    apart = geometry.turns == 1
    # The windows leave no gaps, and reach to the end.
    tiled = geometry.kernel == geometry.stride and all(
        output * stride - padding >= size
        for output, stride, padding, size in zip(
            outputs, geometry.stride, geometry.padding, sizes, strict=True
        )
    )
    layout = torch.contiguous_format
    if channels_last:
        layout = torch.channels_last_3d if pooled == 3 else torch.channels_last
    tl = code.tl
    return _Form(
        output_shape=output_shape,
        added=added,
        layout=layout,
        geometry=geometry,
        apart=apart,
        tiled=apart and tiled,
        common={
            "sizes": sizes,
            "outputs": outputs,
            "inner": shape[-pooled - 1] if channels_last else 1,
            "windows": geometry,
            "index_type": (
                tl.int32 if max(shape.numel(), output_shape.numel()) <= _NARROW else tl.int64
            ),
            "computing": tl.float64 if dtype == torch.float64 else tl.float32,
            "block": _BLOCK,
            "num_warps": _WARPS,
            "enable_fp_fusion": False,  # a product is rounded before it is added
        },
    )


def _complete(tensor: Tensor, added: tuple[int, ...]) -> Tensor:
    for dimension in added:
        tensor = tensor.unsqueeze(dimension)
    return tensor


def _three(numbers: Sequence[int], missing: int = 1) -> Triple:
    """One number for each of depth, height and width."""
    depth, height, width = (missing,) * (3 - len(numbers)) + tuple(numbers)
    return depth, height, width


def _is_channels_last(full: Tensor) -> bool:
    """Whether PyTorch pools a tensor of 4 or 5 dimensions as channels_last.

    That is its ``suggest_memory_format``, which looks at the strides alone.
    """
    size, stride = full.shape, full.stride()
    if stride[1] == 0:
        return False
    least = 0
    for dimension in (1, *range(full.dim() - 1, 1, -1), 0):
        if size[dimension] == 0 or stride[dimension] < least:
            return False
        if dimension == 0 and least == stride[1]:
            return False
        least = stride[dimension] * size[dimension]
    return True


def _fits(tensor: Tensor, shape: torch.Size, input: Tensor) -> bool:
    """Whether a tensor has this shape, and the kind of the input otherwise."""
    return (
        tensor.shape == shape
        and tensor.dtype == input.dtype
        and tensor.device == input.device
        and tensor.layout is torch.strided
        and type(tensor) in _PLAIN
    )


def _ties(input: Tensor, form: _Form, value: Tensor | None) -> Ties:
    """The census of ties, and the maximum of each window if there is a tensor for it."""
    partial = torch.empty((form.programs(), 2), dtype=torch.int32, device=input.device)
    form.summarise(input, value=value, ties=partial)
    tied, tied_at_zero = partial.sum(0)
    return Ties(form.output_shape.numel(), tied, tied_at_zero)


def _weights_of(selection: Selection, form: _Form, input: Tensor) -> Tensor | None:
    """The table of weights that entries share; None for a selection of one entry."""
    if not shared(selection):
        return None
    computing = torch.float64 if input.dtype == torch.float64 else torch.float32
    return _table(selection, form.geometry.places, computing, input.device)


@lru_cache(maxsize=256)
def _table(selection: Selection, places: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return shares(selection, places).to(dtype).to(device)


def _signed(word: int) -> int:
    """The number that 32 bits mean with a sign: Triton gives all of these one type."""
    return (word ^ 0x80000000) - 0x80000000
