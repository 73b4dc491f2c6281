"""Max pooling under any selection, by the fastest kernel there is for an input.

The functions are those of :mod:`kinkcheck.kernels.reference`, which specifies them and takes what
no other kernel takes. They work below autograd: a caller that needs gradients of gradients builds
them from :func:`max_pool_vjp` and :func:`max_pool_jvp`.

CPU tensors go to :mod:`kinkcheck.kernels.cpu` if it was compiled, CUDA tensors to
:mod:`kinkcheck.kernels.triton` if Triton is there. The environment variable ``KINKCHECK_KERNELS``
overrides that: ``reference``, or ``cpu`` or ``triton`` to refuse to run without those kernels. It
is read at the first call.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from kinkcheck.errors import InputError, nearest
from kinkcheck.kernels import reference, triton
from kinkcheck.kernels.reference import (
    Ties,
    max_pool_persists,
    max_pool_tied,
    random_bits,
    random_rank,
)
from kinkcheck.kernels.windows import AdaptiveWindows, SlidingWindows, Windows
from kinkcheck.selection import Selection

__all__ = [
    "AdaptiveWindows",
    "InUse",
    "SlidingWindows",
    "Ties",
    "Windows",
    "count_attained",
    "count_equal",
    "count_gathered",
    "in_use",
    "max_pool",
    "max_pool_jvp",
    "max_pool_persists",
    "max_pool_tied",
    "max_pool_ties",
    "max_pool_vjp",
    "max_pool_with_ties",
    "obstacle",
    "random_bits",
    "random_rank",
]

VARIABLE = "KINKCHECK_KERNELS"


@dataclass(frozen=True)
class InUse:
    """What computes max pooling on this machine's CPU.

    Attributes:
        kernels: ``cpu`` or ``reference``.
        instruction_set: ``avx512``, ``avx2`` or ``baseline``; empty for ``reference``.
        threads: how many threads a call may use.
        why: one line: how the kernels were chosen, or why they are not the compiled ones.
    """

    kernels: str
    instruction_set: str
    threads: int
    why: str

    def __str__(self) -> str:
        name = f"{self.kernels} ({self.instruction_set})" if self.instruction_set else self.kernels
        return f"{name}, {self.threads} thread{'s' * (self.threads != 1)}: {self.why}"


def in_use() -> InUse:
    """The kernels that a call on a CPU tensor uses.

    Raises:
        InputError: ``KINKCHECK_KERNELS`` names no kernels, or compiled ones that are not there.

    >>> in_use().threads == torch.get_num_threads()
    True
    """
    compiled = _compiled()
    if compiled is None:
        why = f"{VARIABLE}=reference" if _requested() else _cpu_missing
        return InUse("reference", "", torch.get_num_threads(), why)
    threads = torch.get_num_threads() if compiled.openmp() else 1
    why = f"{VARIABLE}=cpu" if _requested() else "compiled, the fastest this machine runs"
    return InUse("cpu", compiled.instruction_set(), threads, why)


def obstacle() -> str:
    """One line: why there are no compiled kernels for the CPU; empty if there are.

    >>> len(obstacle().splitlines()) <= 1
    True
    """
    return _cpu_missing


def max_pool(input: Tensor, windows: Windows) -> Tensor:
    """The maximum of each window: PyTorch's own forward pass.

    Args:
        input: (N, C, *sizes) or (C, *sizes).
        windows: the geometry.

    Returns:
        The values, of PyTorch's shape, dtype and memory format.

    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool(torch.tensor([[1.0, 3.0, 2.0, 2.0]]), windows)
    tensor([[3., 2.]])
    """
    kernels, windows = _for(input, windows)
    value: Tensor = kernels.max_pool(input, windows)
    return value


def max_pool_with_ties(input: Tensor, windows: Windows) -> tuple[Tensor, Ties]:
    """The maximum of each window and the census of ties, in one pass where there is a kernel.

    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool_with_ties(torch.tensor([[1.0, 3.0, 0.0, 0.0]]), windows)
    (tensor([[3., 0.]]), Ties(windows=2, tied=tensor(1), tied_at_zero=tensor(1)))
    """
    kernels, windows = _for(input, windows)
    if kernels is reference:
        return reference.max_pool(input, windows), reference.max_pool_ties(input, windows)
    both: tuple[Tensor, Ties] = kernels.max_pool_with_ties(input, windows)
    return both


def count_equal(tensor: Tensor, numbers: tuple[float, ...]) -> Sequence[int | Tensor]:
    """How many entries are equal to each of some numbers: numbers, or tensors of one.

    Args:
        tensor: of any type and layout.
        numbers: each is rounded to the type of the tensor, as PyTorch compares them.

    >>> [int(count) for count in count_equal(torch.tensor([0.0, -0.0, 6.0]), (0.0, 6.0))]
    [2, 1]
    """
    compiled = _compiled()
    if (
        compiled is not None
        and len(numbers) <= compiled.MOST_NUMBERS
        and compiled.takes_entries(tensor)
    ):
        found: list[int] = compiled.count_equal(tensor, numbers)
        return found
    return [torch.count_nonzero(tensor == number) for number in numbers]


def count_attained(entries: Tensor, values: Tensor) -> int:
    """How many entries are equal to the value that they compete for.

    Args:
        entries: of three dimensions and any layout; they compete along the second one.
        values: of the first and the last, without NaN.

    >>> count_attained(torch.tensor([[[1.0], [3.0], [3.0]]]), torch.tensor([[3.0]]))
    2
    """
    compiled = _compiled()
    if compiled is not None and compiled.takes_both(entries, values):
        found: int = compiled.count_attained(entries, values)
        return found
    return int(torch.count_nonzero(entries == values.unsqueeze(1)))


def count_gathered(entries: Tensor, values: Tensor, of: Tensor, at: Tensor | None = None) -> int:
    """How many entries of rows are equal to the value that they compete for.

    Args:
        entries: rows, of any layout.
        values: rows, without NaN.
        of: the row of values that each row competes for; one behind the last for none.
        at: where each row lies among the entries; by default one after the other.

    >>> entries, values = torch.tensor([[1.0], [3.0], [3.0]]), torch.tensor([[1.0], [3.0]])
    >>> count_gathered(entries, values, torch.tensor([0, 1, 2]))
    2
    """
    compiled = _compiled()
    if compiled is not None and compiled.takes_both(entries, values):
        at = at if at is None else at.to(torch.int64).contiguous()
        of = of.to(torch.int64).contiguous()
        found: int = compiled.count_gathered(entries, values, of, at)
        return found
    rows = entries if at is None else entries.index_select(0, at)
    none = values.new_full((1, values.shape[1]), torch.nan)
    return int(torch.count_nonzero(rows == torch.cat([values, none]).index_select(0, of)))


def max_pool_ties(input: Tensor, windows: Windows) -> Ties:
    """How many windows are tied, and how many of those at zero.

    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool_ties(torch.tensor([[1.0, 3.0, 0.0, 0.0]]), windows)
    Ties(windows=2, tied=tensor(1), tied_at_zero=tensor(1))
    """
    kernels, windows = _for(input, windows)
    ties: Ties = kernels.max_pool_ties(input, windows)
    return ties


def max_pool_vjp(
    grad_output: Tensor, input: Tensor, windows: Windows, selection: Selection
) -> Tensor:
    """The gradient with respect to the input, under a selection.

    Args:
        grad_output: gradient with respect to the output, of the output's shape and dtype.
        input: the input of the forward pass, (N, C, *sizes) or (C, *sizes).
        windows: the geometry.
        selection: native, minimal, hybrid, first, last, random, every or a mix of them.

    Returns:
        A tensor of the input's shape, dtype and memory format.

    Raises:
        InputError: max pooling has no such selection.

    >>> from kinkcheck.selection import Minimal
    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool_vjp(torch.ones(1, 1), torch.tensor([[2.0, 2.0]]), windows, Minimal())
    tensor([[0.5000, 0.5000]])
    """
    kernels, windows = _for(input, windows)
    grad_input: Tensor = kernels.max_pool_vjp(grad_output, input, windows, selection)
    return grad_input


def max_pool_jvp(tangent: Tensor, input: Tensor, windows: Windows, selection: Selection) -> Tensor:
    """The derivative along a tangent of the input: the adjoint of :func:`max_pool_vjp`.

    Raises:
        InputError: max pooling has no such selection.

    >>> from kinkcheck.selection import Minimal
    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool_jvp(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 2.0]]), windows, Minimal())
    tensor([[2.]])
    """
    kernels, windows = _for(input, windows)
    tangent_output: Tensor = kernels.max_pool_jvp(tangent, input, windows, selection)
    return tangent_output


_cpu: ModuleType | None
try:
    from kinkcheck.kernels import cpu as _cpu
except ModuleNotFoundError:
    _cpu, _cpu_missing = None, "compiled kernels are not installed"
except ImportError as error:
    _cpu, _cpu_missing = None, f"compiled kernels cannot be loaded ({error})"
else:
    _cpu_missing = ""


@lru_cache(maxsize=1)
def _requested() -> str:
    name = os.environ.get(VARIABLE, "")
    if name not in ("", "reference", "cpu", "triton"):
        raise InputError(
            f"{VARIABLE} must be reference, cpu or triton, not {name!r};"
            f"{nearest(name, ('reference', 'cpu', 'triton'))}".rstrip(";")
        )
    if name == "cpu" and _cpu is None:
        raise InputError(f"{VARIABLE}=cpu, but the {_cpu_missing}")
    if name == "triton" and triton.obstacle():
        raise InputError(f"{VARIABLE}=triton, but {triton.obstacle()}")
    return name


@lru_cache(maxsize=1)
def _compiled() -> ModuleType | None:
    """The kernels compiled for the CPU if they are to be used."""
    return None if _requested() == "reference" else _cpu


def _for(input: Tensor, windows: Windows) -> tuple[ModuleType, Windows]:
    """The kernels to use, and the windows in the form in which they take them."""
    fast = triton if input.is_cuda and _requested() != "reference" else _compiled()
    if fast is None:
        return reference, windows
    if isinstance(windows, AdaptiveWindows):
        sliding = _sliding(windows, input.shape)
        # PyTorch's adaptive pooling returns a contiguous tensor in three dimensions.
        if sliding is None or (windows.dimensions == 3 and not input.is_contiguous()):
            return reference, windows
        return (fast, sliding) if fast.accepts(input, sliding) else (reference, windows)
    return (fast, windows) if fast.accepts(input, windows) else (reference, windows)


@lru_cache(maxsize=1024)
def _sliding(windows: AdaptiveWindows, shape: torch.Size) -> SlidingWindows | None:
    """The sliding windows that adaptive ones are if the sizes divide evenly."""
    pooled = windows.dimensions
    if len(shape) <= pooled:
        return None
    kernel = []
    for inputs, outputs in zip(shape[-pooled:], windows.output_size, strict=True):
        outputs = inputs if outputs is None else outputs
        if outputs < 1 or inputs % outputs or not inputs:
            return None
        kernel.append(inputs // outputs)
    size = tuple(kernel)
    return SlidingWindows(size, size, (0,) * pooled, (1,) * pooled, ceil_mode=False)
