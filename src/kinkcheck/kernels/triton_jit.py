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

from math import prod
from typing import NamedTuple

import triton
import triton.language as tl

Triple = tuple[int, int, int]


class Geometry(NamedTuple):
    """Sliding windows in three dimensions: (depth, height, width). A constant of a kernel.

    Attributes:
        kernel: as the others, of :class:`kinkcheck.kernels.windows.SlidingWindows`.
        stride: see there.
        padding: see there.
        dilation: see there.
        cover: how many windows can cover an input element, along each dimension.
        places: how many entries a window has, inside the input or not.
        turns: how many windows can cover an input element.
        places_unrolled: how many turns of a loop over places are written out.
        turns_unrolled: the same of a loop over windows.

    >>> windows = Geometry.of((1, 3, 3), (1, 2, 2), (0, 1, 1), (1, 1, 1))
    >>> windows.places, windows.cover, windows.turns
    (9, (1, 2, 2), 4)
    """

    kernel: Triple
    stride: Triple
    padding: Triple
    dilation: Triple
    cover: Triple
    places: int
    turns: int
    places_unrolled: int
    turns_unrolled: int

    @classmethod
    def of(cls, kernel: Triple, stride: Triple, padding: Triple, dilation: Triple) -> Geometry:
        """What these four numbers along each dimension amount to."""
        d, h, w = (
            -(-((k - 1) * d + 1) // s) for k, d, s in zip(kernel, dilation, stride, strict=True)
        )
        places, turns = prod(kernel), d * h * w
        # Written out in full for the windows of most networks.
        unrolled = min(places, 9), min(turns, 9)
        return cls(kernel, stride, padding, dilation, (d, h, w), places, turns, *unrolled)


# Triton indexes a constant tuple; only its newest versions know the names of its parts.
KERNEL, STRIDE, PADDING, DILATION, COVER, PLACES, TURNS, PLACES_UNROLLED, TURNS_UNROLLED = (
    tl.constexpr(part) for part in range(len(Geometry._fields))
)


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
    round_each: tl.constexpr,
    index_type: tl.constexpr,
    computing: tl.constexpr,
    block: tl.constexpr,
):
    """The gradient of each input element: the sum over the windows that cover it, in their order.

    ``value``, ``active`` and ``weights`` are None for a selection of one entry. ``round_each`` says
    whether every addition is rounded to the gradient's type, or the sum alone.
    """
    index = tl.program_id(0).to(index_type) * block + tl.arange(0, block)
    live = index < count
    outer, depth, height, width, channel = _split(index, sizes, inner)
    if weights is not None:
        entry = tl.load(input + index, mask=live, other=0.0).to(computing)
    total = tl.zeros((block,), computing)
    for turn in tl.range(0, windows[TURNS], loop_unroll_factor=windows[TURNS_UNROLLED]):
        turn_d = turn // (windows[COVER][1] * windows[COVER][2])
        turn_h = turn // windows[COVER][2] % windows[COVER][1]
        turn_w = turn % windows[COVER][2]
        window_d, place_d, covers_d = _covering(depth, turn_d, outputs, windows, 0)
        window_h, place_h, covers_h = _covering(height, turn_h, outputs, windows, 1)
        window_w, place_w, covers_w = _covering(width, turn_w, outputs, windows, 2)
        covers = live & covers_d & covers_h & covers_w
        window = _join(outer, window_d, window_h, window_w, channel, outputs, inner)
        place = (place_d * windows[KERNEL][1] + place_h) * windows[KERNEL][2] + place_w
        gradient = tl.load(grad_output + window, mask=covers, other=0.0)
        picked = covers & (tl.load(pick + window, mask=covers, other=0).to(tl.int32) == place)
        if weights is None:
            product = tl.where(picked, gradient.to(computing), 0.0)
        else:
            best = tl.load(value + window, mask=covers, other=0.0).to(computing)
            size = tl.load(active + window, mask=covers, other=0).to(tl.int32)
            product = _product(gradient, picked, covers & (entry == best), size, weights, computing)
        total = total + product
        if round_each:
            total = total.to(grad_input.dtype.element_ty).to(computing)
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
    for place in tl.range(0, windows[PLACES], loop_unroll_factor=windows[PLACES_UNROLLED]):
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
        for place in tl.range(0, windows[PLACES], loop_unroll_factor=windows[PLACES_UNROLLED]):
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
    for place in tl.range(0, windows[PLACES], loop_unroll_factor=windows[PLACES_UNROLLED]):
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
        for place in tl.range(0, windows[PLACES], loop_unroll_factor=windows[PLACES_UNROLLED]):
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
    padded = at + windows[PADDING][along]
    window = padded // windows[STRIDE][along] - (windows[COVER][along] - 1) + turn
    distance = padded - window * windows[STRIDE][along]
    place = distance // windows[DILATION][along]
    covers = (window >= 0) & (window < outputs[along]) & (place < windows[KERNEL][along])
    return window, place, covers & (distance % windows[DILATION][along] == 0)


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
    place_d = place // (windows[KERNEL][1] * windows[KERNEL][2])
    place_h = place // windows[KERNEL][2] % windows[KERNEL][1]
    place_w = place % windows[KERNEL][2]
    depth = window_d * windows[STRIDE][0] + place_d * windows[DILATION][0] - windows[PADDING][0]
    height = window_h * windows[STRIDE][1] + place_h * windows[DILATION][1] - windows[PADDING][1]
    width = window_w * windows[STRIDE][2] + place_w * windows[DILATION][2] - windows[PADDING][2]
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

VERSION: tuple[int, ...] = tuple(map(int, triton.__version__.split(".")[:2]))
"""The version of Triton."""
