"""The readable kernels: the specification of max pooling under any selection, and the fallback.

Every kernel computes the same three linear maps. Write ``x`` for the input, ``A_o`` for the active
set of window ``o`` (the entries that attain its maximum), ``m = |A_o|``, and ``w_{o,i}`` for the
weight that the selection gives to entry ``i`` of ``A_o``:

* value            y_o  = max_i x_i
* vjp (backward)   g_i  = Σ_o w_{o,i} g_o
* jvp (its adjoint) t_o = Σ_i w_{o,i} t_i

Weights (Boustany 2024, section 2; i* is the first active entry in scan order):

* hybrid(β): ``(m − β(m − 1)) / m`` for i*, ``β / m`` for the others; minimal is β = 1
* first, last, random: 1 for one active entry, 0 for the others
* native: PyTorch's own backward. It is β = 0, with one exception: in a window whose entries are all
  −∞, PyTorch's channels_last_3d kernel on the CPU forgets the depth and picks an entry of another
  window (seen in 2.13).

A window that holds a NaN has no order. Its only active entry is the one PyTorch picks: the last
NaN scanned.

Arithmetic, so that other kernels can agree bit for bit: weights are computed in float64 and rounded
to the computing type (float64 for float64, float32 for every smaller type); a product of weight and
gradient is taken in the computing type and rounded to the tensor's type; a zero weight contributes
nothing, also against an infinite gradient; the contributions to one sum are added one by one in the
tensor's type, in scan order of the windows (vjp) or of the entries (jvp), starting from zero.
That is the order of PyTorch's CPU kernels. On a GPU the sums of the vjp are taken in the computing
type and rounded once, as PyTorch's kernels do there in one and two dimensions; in three they add
in the tensor's type, in an order that changes from run to run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from kinkcheck.errors import InputError
from kinkcheck.kernels.shares import shared, shares
from kinkcheck.kernels.windows import Windows
from kinkcheck.selection import First, Last, Mix, Native, Random, Selection


@dataclass(frozen=True)
class Ties:
    """How many kinks an operation met: the census of a site.

    Attributes:
        windows: how many windows (elements, for a pointwise operation) there are.
        tied: how many of them have more than one active branch; an integer tensor of shape ().
        tied_at_zero: how many of the tied ones have every entry equal to zero.
    """

    windows: int
    tied: Tensor
    tied_at_zero: Tensor


def max_pool(input: Tensor, windows: Windows) -> Tensor:
    """The maximum of each window: PyTorch's own forward pass.

    >>> from kinkcheck.kernels.windows import SlidingWindows
    >>> from kinkcheck.selection import Minimal
    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool(torch.tensor([[1.0, 3.0, 2.0, 2.0]]), windows)
    tensor([[3., 2.]])
    """
    value: Tensor = windows.torch_max_pool(input)
    return value


def max_pool_vjp(
    grad_output: Tensor, input: Tensor, windows: Windows, selection: Selection
) -> Tensor:
    """The gradient with respect to the input, under a selection.

    Args:
        grad_output: gradient with respect to the output, of the output's shape.
        input: the input of the forward pass, (N, C, *sizes) or (C, *sizes).
        windows: the geometry.
        selection: native, minimal, hybrid, first, last or random.

    Returns:
        A tensor of the input's shape, dtype and memory format.

    >>> from kinkcheck.kernels.windows import SlidingWindows
    >>> from kinkcheck.selection import Minimal
    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool_vjp(torch.ones(1, 1), torch.tensor([[2.0, 2.0]]), windows, Minimal())
    tensor([[0.5000, 0.5000]])
    """
    if isinstance(selection, Native):
        return windows.torch_max_pool_backward(grad_output, input)
    active = _ActiveSet(input, windows)
    weights = _Weights(active, selection)
    adding = weights.computing if input.is_cuda else input.dtype
    grad_input = torch.zeros_like(input, dtype=adding)
    for place in reversed(range(len(active.places))):
        of, at = active.places[place]
        grad_input[at] += weights.times(grad_output[of], place)
    return grad_input.to(input.dtype)


def max_pool_jvp(tangent: Tensor, input: Tensor, windows: Windows, selection: Selection) -> Tensor:
    """The derivative along a tangent of the input: the adjoint of :func:`max_pool_vjp`.

    >>> from kinkcheck.kernels.windows import SlidingWindows
    >>> from kinkcheck.selection import Minimal
    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool_jvp(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 2.0]]), windows, Minimal())
    tensor([[2.]])
    """
    if isinstance(selection, Native):
        _, picked = windows.torch_max_pool(input, return_indices=True)
        flat = tangent.flatten(-windows.dimensions)
        return flat.gather(-1, picked.flatten(-windows.dimensions)).reshape(picked.shape)
    active = _ActiveSet(input, windows)
    weights = _Weights(active, selection)
    tangent_output = torch.zeros_like(active.value)
    for place, (of, at) in enumerate(active.places):
        tangent_output[of] += weights.times(tangent[at], place)
    return tangent_output


def max_pool_ties(input: Tensor, windows: Windows) -> Ties:
    """How many windows are tied, and how many of those at zero.

    >>> from kinkcheck.kernels.windows import SlidingWindows
    >>> from kinkcheck.selection import Minimal
    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool_ties(torch.tensor([[1.0, 3.0, 0.0, 0.0]]), windows)
    Ties(windows=2, tied=tensor(1), tied_at_zero=tensor(1))
    """
    active = _ActiveSet(input, windows)
    tied = active.size > 1
    at_zero = tied & (active.value == 0)
    for of, at in active.places:
        at_zero[of] &= input[at] == 0
    return Ties(active.value.numel(), tied.sum(), at_zero.sum())


def max_pool_tied(input: Tensor, windows: Windows) -> Tensor:
    """Which windows are tied: a bool tensor of the output's shape.

    >>> from kinkcheck.kernels.windows import SlidingWindows
    >>> from kinkcheck.selection import Minimal
    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> max_pool_tied(torch.tensor([[1.0, 3.0, 0.0, 0.0]]), windows)
    tensor([[False,  True]])
    """
    value = max_pool(input, windows)
    once = torch.zeros_like(value, dtype=torch.bool)
    tied = torch.zeros_like(once)
    for of, at in _places(input, value, windows):
        attains = input[at] == value[of]  # never true of a NaN, which is alone in its window
        tied[of] |= once[of] & attains
        once[of] |= attains
    return tied


def max_pool_persists(input: Tensor, windows: Windows, lifted: Tensor) -> Tensor:
    """Which windows hold one value at all their active entries in another input as well.

    Args:
        input: the input whose active entries are meant.
        windows: the geometry.
        lifted: an input of the same shape.

    >>> from kinkcheck.kernels.windows import SlidingWindows
    >>> from kinkcheck.selection import Minimal
    >>> windows = SlidingWindows((2,), (2,), (0,), (1,), ceil_mode=False)
    >>> x, lifted = torch.tensor([[2.0, 2.0, 3.0, 3.0]]), torch.tensor([[2.0, 2.1, 3.0, 3.0]])
    >>> max_pool_persists(x, windows, lifted)
    tensor([[False,  True]])
    """
    value = max_pool(input, windows)
    chosen = torch.zeros_like(value, dtype=lifted.dtype)
    once = torch.zeros_like(value, dtype=torch.bool)
    differs = torch.zeros_like(once)
    for of, at in _places(input, value, windows):
        attains, entry = input[at] == value[of], lifted[at]
        differs[of] |= attains & once[of] & (entry != chosen[of])
        chosen[of] = torch.where(attains, entry, chosen[of])
        once[of] |= attains
    return ~differs


def _places(input: Tensor, value: Tensor, windows: Windows) -> list[tuple[Any, Any]]:
    """For every place of a window, which windows have it and where in the input it is then."""
    pooled = windows.dimensions
    return [
        ((..., *of), (..., *at))
        for of, at in windows.entries(input.shape[-pooled:], value.shape[-pooled:])
    ]


class _ActiveSet:
    """The active entries of every window, one place of the window at a time.

    Attributes:
        value: the maximum of each window.
        size: m, the number of active entries of each window (int64).
        first: the place of the first active entry (int64); of the last NaN in a window with NaN.
    """

    def __init__(self, input: Tensor, windows: Windows) -> None:
        self.value = max_pool(input, windows)
        self.places = _places(input, self.value, windows)
        self._input = input
        self.size = torch.zeros_like(self.value, dtype=torch.int64)
        self.first = torch.full_like(self.size, len(self.places))
        for place, (of, at) in reversed(list(enumerate(self.places))):
            attains = input[at] == self.value[of]
            self.size[of] += attains
            self.first[of] = torch.where(attains, place, self.first[of])
        self._single_out_nan()

    def _single_out_nan(self) -> None:
        nan = self.value.isnan()
        if not nan.any():
            self._nan = None
            return
        for place, (of, at) in enumerate(self.places):
            self.first[of] = torch.where(self._input[at].isnan(), place, self.first[of])
        self.size = torch.where(nan, 1, self.size)
        self._nan = nan

    def attains(self, place: int) -> Tensor:
        """Which windows have an active entry at this place."""
        of, at = self.places[place]
        attains = self._input[at] == self.value[of]
        if self._nan is not None:
            attains |= self._nan[of] & (self.first[of] == place)
        return attains


class _Weights:
    """The weight that a selection gives to each active entry.

    Attributes:
        computing: the type in which weights and products are taken.
    """

    def __init__(self, active: _ActiveSet, selection: Selection) -> None:
        self._active = active
        dtype = active.value.dtype
        self.computing = torch.float64 if dtype == torch.float64 else torch.float32
        self._parts: list[tuple[float, _Weights]] = []
        match selection:
            case _ if shared(selection):
                self._by_size(shares(selection, len(active.places)))
            case Mix(parts):
                self._parts = [(factor, _Weights(active, part)) for factor, part in parts]
            case First() | Native():
                self._one_entry(torch.zeros_like(active.size))
            case Last():
                self._one_entry(active.size - 1)
            case Random(seed):
                self._one_entry(random_rank(active.size, seed))
            case _:
                raise InputError(
                    f"max pooling has no selection {selection}; accepted: native, minimal, "
                    "hybrid:BETA, first, last, random:SEED, every, mix:FACTOR*SELECTION,..., "
                    "limit:SEED"
                )

    def _by_size(self, table: Tensor) -> None:
        chosen, other = table.to(self._active.size.device, self.computing).unbind(1)
        self._chosen, self._other = chosen[self._active.size], other[self._active.size]
        self._pick = self._active.first

    def _one_entry(self, rank: Tensor) -> None:
        pick = self._active.first.clone()
        for place, (of, _) in enumerate(self._active.places):
            attains = self._active.attains(place)
            pick[of] = torch.where(attains & (rank[of] == 0), place, pick[of])
            rank[of] -= attains.to(rank.dtype)
        self._pick = pick
        self._chosen = torch.ones_like(pick, dtype=self.computing)
        self._other = torch.zeros_like(self._chosen)

    def times(self, gradient: Tensor, place: int) -> Tensor:
        """Weight × gradient of the entries at a place, rounded to the gradient's type."""
        weight = self._weight(place)
        product = (weight * gradient.to(self.computing)).to(gradient.dtype)
        return torch.where(weight == 0, 0.0, product)

    def _weight(self, place: int) -> Tensor:
        """The weight of the entries at a place."""
        of, _ = self._active.places[place]
        attains = self._active.attains(place)
        if not self._parts:
            weight = torch.where(self._pick[of] == place, self._chosen[of], self._other[of])
            return torch.where(attains, weight, 0.0)
        weight = torch.zeros(attains.shape, dtype=self.computing, device=attains.device)
        for factor, part in self._parts:
            weight += factor * part._weight(place)
        # What attains a value alone has all of the gradient, whatever the factors sum to.
        return torch.where(self._active.size[of] == 1, attains.to(weight.dtype), weight)


def random_bits(like: Tensor, seed: int) -> Tensor:
    """A number h from 0 to 2³² − 1 for each element, from seed and position alone.

    The position of an element is its index in row-major order, whatever the memory format. Its low
    and high 32 bits are stirred with those of the seed by a 32-bit integer hash.

    Args:
        like: of the shape and on the device.
        seed: from 0 to 2⁶⁴ − 1.

    >>> random_bits(torch.zeros(3), seed=7).dtype
    torch.int64
    """
    position = torch.arange(like.numel(), device=like.device).reshape(like.shape)
    key = _stir(_stir(seed & _MASK) ^ (seed >> 32))
    return _stir(_stir((position & _MASK) ^ key) ^ (position >> 32))


def random_rank(size: Tensor, seed: int) -> Tensor:
    """A number drawn from 0, ..., size − 1 for each element, from seed and position alone.

    It is ⌊h · size / 2³²⌋ with the h of :func:`random_bits`, whose bias is below size / 2³².

    Args:
        size: int64, at least 1 and below 2³¹.
        seed: from 0 to 2⁶⁴ − 1.

    >>> random_rank(torch.full((8,), 4), seed=7).tolist()
    [...]
    """
    return (random_bits(size, seed) * size) >> 32


_MASK = 0xFFFFFFFF
_Integer = TypeVar("_Integer", int, Tensor)


def _stir(x: _Integer) -> _Integer:
    """A 32-bit finaliser (two rounds of xor-shift and multiply), on integers below 2³²."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)
