"""What runs on the GPU: the kernels that :mod:`kinkcheck.kernels.triton` launches.

A tensor is read in the order of its memory, as (outer, depth, height, width, inner): a contiguous
(N, C, ...) tensor has outer = N·C and inner = 1, a channels_last one outer = N and inner = C. A
program takes ``block`` consecutive elements, and writes what belongs to them and nothing else: no
kernel needs an atomic operation, and every result is the same in every run.

Arguments that kernels share:

* ``count``: of the windows, or of the input elements, that the programs take.
* ``sizes``, ``outputs``: (depth, height, width) of the input and of the output; ``inner``.
* ``windows``: a :class:`Geometry`. A *place* numbers the entries of a window in scan order.
* ``rule``: which active entry is singled out: ``first`` (``native``), ``last`` or ``random``.
* ``weights``: for minimal and hybrid, the weight of that entry and of the others for each number of
  active entries; None for a selection of one entry.
* ``index_type``, ``computing``: the types of an offset and of the arithmetic. A number that has the
  type of the tensor is kept in the computing type, and rounded after each operation.
* ``block``: how many elements a program takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import triton
import triton.language as tl

Triple = tuple[int, int, int]

UNROLLED = tl.constexpr(9)
"""How many turns of a loop are written out: all of them for the windows of most networks."""


@dataclass(frozen=True)
class Geometry:
    """Sliding windows in three dimensions: (depth, height, width). A constant of a kernel.

    >>> windows = Geometry((1, 3, 3), (1, 2, 2), (0, 1, 1), (1, 1, 1))
    >>> windows.places, windows.cover, windows.apart
    (9, (1, 2, 2), False)
    """

    kernel: Triple
    stride: Triple
    padding: Triple
    dilation: Triple

    @property
    def reach(self) -> Triple:
        """From the first entry of a window to behind its last."""
        d, h, w = ((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        return d, h, w

    @property
    def places(self) -> int:
        """How many entries a window has, inside the input or not."""
        return prod(self.kernel)

    @property
    def cover(self) -> Triple:
        """How many windows can cover an input element, along each dimension."""
        d, h, w = (-(-reach // s) for reach, s in zip(self.reach, self.stride, strict=True))
        return d, h, w

    @property
    def turns(self) -> int:
        """How many windows can cover an input element."""
        return prod(self.cover)

    @property
    def apart(self) -> bool:
        """Whether no two windows share an entry."""
        return self.turns == 1


@triton.jit(do_not_specialize=["seed_low", "seed_high"])
def summarise(
    input,
    value,
    pick,
    active,
    ties,
    count,
    seed_low,
    seed_high,
    sizes,
    outputs,
    inner,
    windows: tl.constexpr,
    rule: tl.constexpr,
    index_type: tl.constexpr,
    computing: tl.constexpr,
    block: tl.constexpr,
):
    """Maximum, picked place and number of active entries of each window; ties of each program.

    Each of ``value``, ``pick``, ``active`` and ``ties`` may be None.
    """
    index = tl.program_id(0).to(index_type) * block + tl.arange(0, block)
    live = index < count
    window = _split(index, outputs, inner)
    best, size, first, last, entries = _scan(
        input, window, live, sizes, inner, windows, computing, block
    )
    if value is not None:
        tl.store(value + index, best.to(value.dtype.element_ty), mask=live)
    if active is not None:
        tl.store(active + index, size.to(active.dtype.element_ty), mask=live)
    if pick is not None:
        picked = _pick(
            input, window, live, best, size, first, last, seed_low, seed_high,
            sizes, outputs, inner, windows, rule, computing,
        )  # fmt: skip
        tl.store(pick + index, picked.to(pick.dtype.element_ty), mask=live)
    if ties is not None:
        tied = size > 1
        # The maximum is 0, so entries that do not attain it are below 0.
        at_zero = tied & (best == 0) & (size == entries)
        tl.store(ties + tl.program_id(0) * 2, tl.sum(tied.to(tl.int32), 0))
        tl.store(ties + tl.program_id(0) * 2 + 1, tl.sum(at_zero.to(tl.int32), 0))


@triton.jit
def gather(
    input,
    grad_output,
    value,
    pick,
    active,
    weights,
    grad_input,
    count,
    sizes,
    outputs,
    inner,
    windows: tl.constexpr,
    index_type: tl.constexpr,
    computing: tl.constexpr,
    block: tl.constexpr,
):
    """The gradient of each input element: the sum over the windows that cover it, in their order.

    ``value``, ``active`` and ``weights`` are None for a selection of one entry.
    """
    index = tl.program_id(0).to(index_type) * block + tl.arange(0, block)
    live = index < count
    outer, depth, height, width, channel = _split(index, sizes, inner)
    if weights is not None:
        entry = tl.load(input + index, mask=live, other=0.0).to(computing)
    total = tl.zeros((block,), computing)
    for turn in tl.range(0, windows.turns, loop_unroll_factor=min(windows.turns, UNROLLED)):
        turn_d = turn // (windows.cover[1] * windows.cover[2])
        turn_h = turn // windows.cover[2] % windows.cover[1]
        turn_w = turn % windows.cover[2]
        window_d, place_d, covers_d = _covering(depth, turn_d, outputs, windows, 0)
        window_h, place_h, covers_h = _covering(height, turn_h, outputs, windows, 1)
        window_w, place_w, covers_w = _covering(width, turn_w, outputs, windows, 2)
        covers = live & covers_d & covers_h & covers_w
        window = _join(outer, window_d, window_h, window_w, channel, outputs, inner)
        place = (place_d * windows.kernel[1] + place_h) * windows.kernel[2] + place_w
        gradient = tl.load(grad_output + window, mask=covers, other=0.0)
        picked = covers & (tl.load(pick + window, mask=covers, other=0).to(tl.int32) == place)
        if weights is None:
            product = tl.where(picked, gradient.to(computing), 0.0)
        else:
            best = tl.load(value + window, mask=covers, other=0.0).to(computing)
            size = tl.load(active + window, mask=covers, other=0).to(tl.int32)
            product = _product(gradient, picked, covers & (entry == best), size, weights, computing)
        total = (total + product).to(grad_input.dtype.element_ty).to(computing)
    tl.store(grad_input + index, total.to(grad_input.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["seed_low", "seed_high"])
def spread(
    input,
    grad_output,
    weights,
    grad_input,
    count,
    seed_low,
    seed_high,
    sizes,
    outputs,
    inner,
    windows: tl.constexpr,
    rule: tl.constexpr,
    index_type: tl.constexpr,
    computing: tl.constexpr,
    block: tl.constexpr,
):
    """The gradient of the entries of each window, for windows that do not overlap."""
    index = tl.program_id(0).to(index_type) * block + tl.arange(0, block)
    live = index < count
    window = _split(index, outputs, inner)
    best, size, first, last, _ = _scan(input, window, live, sizes, inner, windows, computing, block)
    pick = _pick(
        input, window, live, best, size, first, last, seed_low, seed_high,
        sizes, outputs, inner, windows, rule, computing,
    )  # fmt: skip
    gradient = tl.load(grad_output + index, mask=live, other=0.0)
    for place in tl.range(0, windows.places, loop_unroll_factor=min(windows.places, UNROLLED)):
        at, inside = _entry(window, place, live, sizes, inner, windows)
        picked = inside & (pick == place)
        if weights is None:
            product = tl.where(picked, gradient.to(computing), 0.0)
        else:
            entry = tl.load(input + at, mask=inside, other=0.0).to(computing)
            product = _product(gradient, picked, inside & (entry == best), size, weights, computing)
        total = _without_minus_zero(product)
        tl.store(grad_input + at, total.to(grad_input.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["seed_low", "seed_high"])
def push(
    input,
    tangent,
    weights,
    tangent_output,
    count,
    seed_low,
    seed_high,
    sizes,
    outputs,
    inner,
    windows: tl.constexpr,
    rule: tl.constexpr,
    index_type: tl.constexpr,
    computing: tl.constexpr,
    block: tl.constexpr,
):
    """The tangent of each window: the sum over its entries, in the order of the scan."""
    index = tl.program_id(0).to(index_type) * block + tl.arange(0, block)
    live = index < count
    window = _split(index, outputs, inner)
    best, size, first, last, _ = _scan(input, window, live, sizes, inner, windows, computing, block)
    pick = _pick(
        input, window, live, best, size, first, last, seed_low, seed_high,
        sizes, outputs, inner, windows, rule, computing,
    )  # fmt: skip
    if weights is None:
        at, inside = _entry(window, pick, live, sizes, inner, windows)
        total = tl.load(tangent + at, mask=inside, other=0.0).to(computing)
        if rule != "native":  # which is PyTorch's: it copies the tangent, and −0 stays −0
            total = _without_minus_zero(total)
    else:
        total = tl.zeros((block,), computing)
        for place in tl.range(0, windows.places, loop_unroll_factor=min(windows.places, UNROLLED)):
            at, inside = _entry(window, place, live, sizes, inner, windows)
            entry = tl.load(input + at, mask=inside, other=0.0).to(computing)
            along = tl.load(tangent + at, mask=inside, other=0.0)
            product = _product(
                along, inside & (pick == place), inside & (entry == best), size, weights, computing
            )
            total = (total + product).to(tangent_output.dtype.element_ty).to(computing)
    tl.store(tangent_output + index, total.to(tangent_output.dtype.element_ty), mask=live)


@triton.jit
def _scan(
    input,
    window,
    live,
    sizes,
    inner,
    windows: tl.constexpr,
    computing: tl.constexpr,
    block: tl.constexpr,
):
    """Maximum of each window, number, first and last place of its active entries, and its entries.

    The active entry of a window that holds a NaN is the last NaN.
    """
    best = tl.full((block,), float("-inf"), computing)
    active = tl.zeros((block,), tl.int32)
    first = tl.zeros((block,), tl.int32)
    last = tl.zeros((block,), tl.int32)
    entries = tl.zeros((block,), tl.int32)
    for place in tl.range(0, windows.places, loop_unroll_factor=min(windows.places, UNROLLED)):
        at, inside = _entry(window, place, live, sizes, inner, windows)
        entry = tl.load(input + at, mask=inside, other=0.0).to(computing)
        # Nothing is greater than a NaN, and the first entry is better than none even if it is −∞.
        better = inside & ((entry > best) | (entry != entry) | (active == 0))
        attains = better | (inside & (entry == best))
        active = tl.where(better, 1, active + attains.to(tl.int32))
        best = tl.where(better, entry, best)
        first = tl.where(better, place, first)
        last = tl.where(attains, place, last)
        entries += inside.to(tl.int32)
    return best, active, first, last, entries


@triton.jit
def _pick(
    input,
    window,
    live,
    best,
    active,
    first,
    last,
    seed_low,
    seed_high,
    sizes,
    outputs,
    inner,
    windows: tl.constexpr,
    rule: tl.constexpr,
    computing: tl.constexpr,
):
    """The place of the one active entry of each window that a selection singles out."""
    pick = first
    if rule == "last":
        pick = last
    if rule == "random":
        rank = _random_rank(window, active, seed_low, seed_high, outputs, inner)
        for place in tl.range(0, windows.places, loop_unroll_factor=min(windows.places, UNROLLED)):
            at, inside = _entry(window, place, live, sizes, inner, windows)
            entry = tl.load(input + at, mask=inside, other=0.0).to(computing)
            attains = inside & (entry == best)  # never in a window with a NaN: there pick is first
            pick = tl.where(attains & (rank == 0), place, pick)
            rank -= attains.to(tl.int32)
    return pick


@triton.jit
def _product(gradient, picked, attains, size, weights, computing: tl.constexpr):
    """Weight × gradient, rounded to the gradient's type.

    ``weights`` holds two for each number of active entries: that of the pick, that of the others.
    """
    chosen = tl.load(weights + 2 * size)
    other = tl.load(weights + 2 * size + 1)
    weight = tl.where(picked, chosen, tl.where(attains, other, 0.0))
    product = (weight * gradient.to(computing)).to(gradient.dtype).to(computing)
    return tl.where(weight == 0, 0.0, product)  # also against an infinite gradient


@triton.jit
def _without_minus_zero(x):
    """What a sum is that starts at +0 and adds one number."""
    return tl.where(x == 0, 0.0, x)


@triton.jit
def _random_rank(window, size, seed_low, seed_high, outputs, inner):
    """:func:`kinkcheck.kernels.reference.random_rank` of each window."""
    outer, depth, height, width, channel = window
    plane = outer.to(tl.int64) * inner + channel
    position = ((plane * outputs[0] + depth) * outputs[1] + height) * outputs[2] + width
    key = _stir(_stir(seed_low.to(tl.uint32)) ^ seed_high.to(tl.uint32))
    stirred = _stir(_stir(position.to(tl.uint32) ^ key) ^ (position >> 32).to(tl.uint32))
    return tl.umulhi(stirred, size.to(tl.uint32)).to(tl.int32)


@triton.jit
def _stir(x):
    """A 32-bit finaliser (two rounds of xor-shift and multiply), on unsigned integers."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _covering(at, turn, outputs, windows: tl.constexpr, along: tl.constexpr):
    """Along one dimension: a window that may cover an element, its place there, whether it does.

    The last turn is the last window that starts at the element or before it.
    """
    padded = at + windows.padding[along]
    window = padded // windows.stride[along] - (windows.cover[along] - 1) + turn
    distance = padded - window * windows.stride[along]
    place = distance // windows.dilation[along]
    covers = (window >= 0) & (window < outputs[along]) & (place < windows.kernel[along])
    return window, place, covers & (distance % windows.dilation[along] == 0)


@triton.jit
def _entry(
    window,
    place,
    live,
    sizes,
    inner,
    windows: tl.constexpr,
):
    """Where the entry at a place of each window lies, and whether it is inside the input."""
    outer, window_d, window_h, window_w, channel = window
    place_d = place // (windows.kernel[1] * windows.kernel[2])
    place_h = place // windows.kernel[2] % windows.kernel[1]
    place_w = place % windows.kernel[2]
    depth = window_d * windows.stride[0] + place_d * windows.dilation[0] - windows.padding[0]
    height = window_h * windows.stride[1] + place_h * windows.dilation[1] - windows.padding[1]
    width = window_w * windows.stride[2] + place_w * windows.dilation[2] - windows.padding[2]
    inside = live & (depth >= 0) & (depth < sizes[0])
    inside = inside & (height >= 0) & (height < sizes[1])
    inside = inside & (width >= 0) & (width < sizes[2])
    return _join(outer, depth, height, width, channel, sizes, inner), inside


@triton.jit
def _split(index, sizes, inner):
    """The coordinates of elements, from their order in memory."""
    channel = index % inner
    index = index // inner
    width = index % sizes[2]
    index = index // sizes[2]
    height = index % sizes[1]
    index = index // sizes[1]
    return index // sizes[0], index % sizes[0], height, width, channel


@triton.jit
def _join(outer, depth, height, width, channel, sizes, inner):
    """The order of elements in memory, from their coordinates."""
    return (((outer * sizes[0] + depth) * sizes[1] + height) * sizes[2] + width) * inner + channel


INTERPRETED: bool = not isinstance(summarise, triton.JITFunction)
"""Whether Triton was told to interpret the kernels, which runs them on CPU tensors."""
