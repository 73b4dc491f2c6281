"""The kernels as PyTorch operators: opaque calls whose results have known shapes.

That is what ``torch.compile``, ``torch.export`` and fake tensors need. An operator's arguments are
plain values, so that windows travel as a list of integers and a selection as its text form. The
operators have no autograd formula of their own; :mod:`kinkcheck.ops` gives them one.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from kinkcheck import kernels
from kinkcheck.kernels.windows import AdaptiveWindows, SlidingWindows, Windows
from kinkcheck.selection import Selection, parse

torch.library.define("kinkcheck::max_pool", "(Tensor input, SymInt[] windows) -> Tensor")
torch.library.define(
    "kinkcheck::max_pool_vjp",
    "(Tensor grad_output, Tensor input, SymInt[] windows, str selection) -> Tensor",
)
torch.library.define(
    "kinkcheck::max_pool_jvp",
    "(Tensor tangent, Tensor input, SymInt[] windows, str selection) -> Tensor",
)


def max_pool(input: Tensor, windows: Windows) -> Tensor:
    """``kinkcheck::max_pool``: see :func:`kinkcheck.kernels.max_pool`.

    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool(torch.tensor([[1.0, 3.0, 2.0, 2.0]]), windows)
    tensor([[3., 2.]])
    """
    value: Tensor = torch.ops.kinkcheck.max_pool.default(input, _numbers(windows))
    return value


def max_pool_vjp(
    grad_output: Tensor, input: Tensor, windows: Windows, selection: Selection
) -> Tensor:
    """``kinkcheck::max_pool_vjp``: see :func:`kinkcheck.kernels.max_pool_vjp`.

    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool_vjp(torch.ones(1, 1), torch.tensor([[2.0, 2.0]]), windows, parse("minimal"))
    tensor([[0.5000, 0.5000]])
    """
    grad_input: Tensor = torch.ops.kinkcheck.max_pool_vjp.default(
        grad_output, input, _numbers(windows), str(selection)
    )
    return grad_input


def max_pool_jvp(tangent: Tensor, input: Tensor, windows: Windows, selection: Selection) -> Tensor:
    """``kinkcheck::max_pool_jvp``: see :func:`kinkcheck.kernels.max_pool_jvp`.

    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> tangent, input = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 2.0]])
    >>> max_pool_jvp(tangent, input, windows, parse("minimal"))
    tensor([[2.]])
    """
    tangent_output: Tensor = torch.ops.kinkcheck.max_pool_jvp.default(
        tangent, input, _numbers(windows), str(selection)
    )
    return tangent_output


def _numbers(windows: Windows) -> list[int]:
    """Windows as a list of integers: five groups for sliding windows, one for adaptive ones."""
    if isinstance(windows, SlidingWindows):
        sizes = (windows.kernel, windows.stride, windows.padding, windows.dilation)
        return [number for size in sizes for number in size] + [int(windows.ceil_mode)]
    assert isinstance(windows, AdaptiveWindows)
    return [-1 if size is None else size for size in windows.output_size]


@lru_cache(maxsize=1024)
def _windows(numbers: tuple[int, ...]) -> Windows:
    dimensions = len(numbers) // 4
    if dimensions == 0:
        return AdaptiveWindows(tuple(None if size == -1 else size for size in numbers))
    kernel, stride, padding, dilation = (
        tuple(numbers[first : first + dimensions]) for first in range(0, 4 * dimensions, dimensions)
    )
    return SlidingWindows(kernel, stride, padding, dilation, ceil_mode=bool(numbers[-1]))


_parse = lru_cache(maxsize=1024)(parse)


@torch.library.impl("kinkcheck::max_pool", "CompositeExplicitAutograd")
def _max_pool(input: Tensor, windows: list[int]) -> Tensor:
    return kernels.max_pool(input, _windows(tuple(windows)))


@torch.library.impl("kinkcheck::max_pool_vjp", "CompositeExplicitAutograd")
def _max_pool_vjp(grad_output: Tensor, input: Tensor, windows: list[int], selection: str) -> Tensor:
    return kernels.max_pool_vjp(grad_output, input, _windows(tuple(windows)), _parse(selection))


@torch.library.impl("kinkcheck::max_pool_jvp", "CompositeExplicitAutograd")
def _max_pool_jvp(tangent: Tensor, input: Tensor, windows: list[int], selection: str) -> Tensor:
    return kernels.max_pool_jvp(tangent, input, _windows(tuple(windows)), _parse(selection))


def _fake_max_pool(input: Tensor, windows: list[int]) -> Tensor:
    value: Tensor = _windows(tuple(windows)).torch_max_pool(input)
    return value


torch.library.register_fake("kinkcheck::max_pool", _fake_max_pool)
torch.library.register_fake(
    "kinkcheck::max_pool_vjp",
    lambda grad_output, input, windows, selection: torch.empty_like(input),
)
torch.library.register_fake(
    "kinkcheck::max_pool_jvp",
    lambda tangent, input, windows, selection: torch.empty_like(_fake_max_pool(input, windows)),
)
