"""What runs on the GPU: the kernels that :mod:`kinkcheck.kernels.triton` launches.

A tensor is read in the order of its memory, as (outer, depth, height, width, inner): a contiguous
(N, C, ...) tensor has outer = N·C and inner = 1, a channels_last one outer = N and inner = C. A
program takes ``BLOCK`` consecutive elements, and writes what belongs to them and nothing else: no
kernel needs an atomic operation, and every result is the same in every run.

Arguments that kernels share:

* ``sizes``, ``outputs``: (depth, height, width) of the input and of the output; ``inner``.
* ``KERNEL``, ``STRIDE``, ``PADDING``, ``DILATION``: the geometry, one number per dimension. A
  *place* numbers the entries of a window in the order of the scan.
* ``INDEX``, ``COMPUTE``: the types of an offset and of the arithmetic. A number that has the type of
  the tensor is kept in the computing type and rounded after each operation.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["seed_low", "seed_high"])
def summarise(
    input,
    value,
    pick,
    active,
    ties,
    windows,
    seed_low,
    seed_high,
    sizes,
    outputs,
    inner,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    RULE: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Maximum, picked place and number of active entries of each window; ties of each program.

    Each of ``value``, ``pick``, ``active`` and ``ties`` may be None.
    """
    index = tl.program_id(0).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    live = index < windows
    window = _split(index, outputs, inner)
    best, size, first, last, entries = _scan(
        input, window, live, sizes, inner, KERNEL, STRIDE, PADDING, DILATION, COMPUTE, BLOCK
    )
    if value is not None:
        tl.store(value + index, best.to(value.dtype.element_ty), mask=live)
    if active is not None:
        tl.store(active + index, size.to(active.dtype.element_ty), mask=live)
    if pick is not None:
        picked = _pick(
            input, window, live, best, size, first, last, seed_low, seed_high,
            sizes, outputs, inner, KERNEL, STRIDE, PADDING, DILATION, RULE, COMPUTE,
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
    elements,
    sizes,
    outputs,
    inner,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    COVER: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient of each input element: the sum over the windows that cover it, in their order.

    ``COVER`` is how many windows can cover an element along each dimension. ``value``, ``active``
    and ``weights`` are None for a selection of one entry.
    """
    index = tl.program_id(0).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    live = index < elements
    outer, depth, height, width, channel = _split(index, sizes, inner)
    if weights is not None:
        entry = tl.load(input + index, mask=live, other=0.0).to(COMPUTE)
    total = tl.zeros((BLOCK,), COMPUTE)
    for turn in tl.range(0, COVER[0] * COVER[1] * COVER[2]):
        window_d, place_d, covers_d = _covering(
            depth, turn // (COVER[1] * COVER[2]), outputs[0],
            KERNEL[0], STRIDE[0], PADDING[0], DILATION[0], COVER[0],
        )  # fmt: skip
        window_h, place_h, covers_h = _covering(
            height, turn // COVER[2] % COVER[1], outputs[1],
            KERNEL[1], STRIDE[1], PADDING[1], DILATION[1], COVER[1],
        )  # fmt: skip
        window_w, place_w, covers_w = _covering(
            width, turn % COVER[2], outputs[2],
            KERNEL[2], STRIDE[2], PADDING[2], DILATION[2], COVER[2],
        )  # fmt: skip
        covers = live & covers_d & covers_h & covers_w
        window = _join(outer, window_d, window_h, window_w, channel, outputs, inner)
        place = (place_d * KERNEL[1] + place_h) * KERNEL[2] + place_w
        gradient = tl.load(grad_output + window, mask=covers, other=0.0)
        picked = covers & (tl.load(pick + window, mask=covers, other=0).to(tl.int32) == place)
        if weights is None:
            product = tl.where(picked, gradient.to(COMPUTE), 0.0)
        else:
            best = tl.load(value + window, mask=covers, other=0.0).to(COMPUTE)
            size = tl.load(active + window, mask=covers, other=0).to(tl.int32)
            product = _product(gradient, picked, covers & (entry == best), size, weights, COMPUTE)
        total = (total + product).to(grad_input.dtype.element_ty).to(COMPUTE)
    tl.store(grad_input + index, total.to(grad_input.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["seed_low", "seed_high"])
def spread(
    input,
    grad_output,
    weights,
    grad_input,
    windows,
    seed_low,
    seed_high,
    sizes,
    outputs,
    inner,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    RULE: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient of the entries of each window, for windows that do not overlap."""
    index = tl.program_id(0).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    live = index < windows
    window = _split(index, outputs, inner)
    best, size, first, last, _ = _scan(
        input, window, live, sizes, inner, KERNEL, STRIDE, PADDING, DILATION, COMPUTE, BLOCK
    )
    pick = _pick(
        input, window, live, best, size, first, last, seed_low, seed_high,
        sizes, outputs, inner, KERNEL, STRIDE, PADDING, DILATION, RULE, COMPUTE,
    )  # fmt: skip
    gradient = tl.load(grad_output + index, mask=live, other=0.0)
    for place in tl.range(0, KERNEL[0] * KERNEL[1] * KERNEL[2]):
        at, inside = _entry(window, place, live, sizes, inner, KERNEL, STRIDE, PADDING, DILATION)
        picked = inside & (pick == place)
        if weights is None:
            product = tl.where(picked, gradient.to(COMPUTE), 0.0)
        else:
            entry = tl.load(input + at, mask=inside, other=0.0).to(COMPUTE)
            product = _product(gradient, picked, inside & (entry == best), size, weights, COMPUTE)
        total = _without_minus_zero(product)
        tl.store(grad_input + at, total.to(grad_input.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["seed_low", "seed_high"])
def push(
    input,
    tangent,
    weights,
    tangent_output,
    windows,
    seed_low,
    seed_high,
    sizes,
    outputs,
    inner,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    RULE: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The tangent of each window: the sum over its entries, in the order of the scan."""
    index = tl.program_id(0).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    live = index < windows
    window = _split(index, outputs, inner)
    best, size, first, last, _ = _scan(
        input, window, live, sizes, inner, KERNEL, STRIDE, PADDING, DILATION, COMPUTE, BLOCK
    )
    pick = _pick(
        input, window, live, best, size, first, last, seed_low, seed_high,
        sizes, outputs, inner, KERNEL, STRIDE, PADDING, DILATION, RULE, COMPUTE,
    )  # fmt: skip
    if weights is None:
        at, inside = _entry(window, pick, live, sizes, inner, KERNEL, STRIDE, PADDING, DILATION)
        total = tl.load(tangent + at, mask=inside, other=0.0).to(COMPUTE)
        if RULE != "native":  # which is PyTorch's: it copies the tangent, and −0 stays −0
            total = _without_minus_zero(total)
    else:
        total = tl.zeros((BLOCK,), COMPUTE)
        for place in tl.range(0, KERNEL[0] * KERNEL[1] * KERNEL[2]):
            at, inside = _entry(
                window, place, live, sizes, inner, KERNEL, STRIDE, PADDING, DILATION
            )
            entry = tl.load(input + at, mask=inside, other=0.0).to(COMPUTE)
            along = tl.load(tangent + at, mask=inside, other=0.0)
            product = _product(
                along, inside & (pick == place), inside & (entry == best), size, weights, COMPUTE
            )
            total = (total + product).to(tangent_output.dtype.element_ty).to(COMPUTE)
    tl.store(tangent_output + index, total.to(tangent_output.dtype.element_ty), mask=live)


@triton.jit
def _scan(
    input,
    window,
    live,
    sizes,
    inner,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Maximum of each window, number, first and last place of its active entries, and its entries.

    The active entry of a window that holds a NaN is the last NaN.
    """
    best = tl.full((BLOCK,), float("-inf"), COMPUTE)
    active = tl.zeros((BLOCK,), tl.int32)
    first = tl.zeros((BLOCK,), tl.int32)
    last = tl.zeros((BLOCK,), tl.int32)
    entries = tl.zeros((BLOCK,), tl.int32)
    for place in tl.range(0, KERNEL[0] * KERNEL[1] * KERNEL[2]):
        at, inside = _entry(window, place, live, sizes, inner, KERNEL, STRIDE, PADDING, DILATION)
        entry = tl.load(input + at, mask=inside, other=0.0).to(COMPUTE)
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
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    RULE: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """The place of the one active entry of each window that a selection singles out."""
    pick = first
    if RULE == "last":
        pick = last
    if RULE == "random":
        rank = _random_rank(window, active, seed_low, seed_high, outputs, inner)
        for place in tl.range(0, KERNEL[0] * KERNEL[1] * KERNEL[2]):
            at, inside = _entry(
                window, place, live, sizes, inner, KERNEL, STRIDE, PADDING, DILATION
            )
            entry = tl.load(input + at, mask=inside, other=0.0).to(COMPUTE)
            attains = inside & (entry == best)  # never in a window with a NaN: there pick is first
            pick = tl.where(attains & (rank == 0), place, pick)
            rank -= attains.to(tl.int32)
    return pick


@triton.jit
def _product(gradient, picked, attains, size, weights, COMPUTE: tl.constexpr):
    """Weight × gradient, rounded to the gradient's type.

    ``weights`` holds two for each number of active entries: that of the pick, that of the others.
    """
    chosen = tl.load(weights + 2 * size)
    other = tl.load(weights + 2 * size + 1)
    weight = tl.where(picked, chosen, tl.where(attains, other, 0.0))
    product = (weight * gradient.to(COMPUTE)).to(gradient.dtype).to(COMPUTE)
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
def _covering(
    at,
    turn,
    outputs,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    COVER: tl.constexpr,
):
    """Along one dimension: a window that may cover an element, its place there, whether it does.

    The last turn is the last window that starts at the element or before it.
    """
    window = (at + PADDING) // STRIDE - (COVER - 1) + turn
    distance = at + PADDING - window * STRIDE
    place = distance // DILATION
    inside = (window >= 0) & (window < outputs) & (place < KERNEL)
    return window, place, inside & (distance % DILATION == 0)


@triton.jit
def _entry(
    window,
    place,
    live,
    sizes,
    inner,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
):
    """Where the entry at a place of each window lies, and whether it is inside the input."""
    outer, window_d, window_h, window_w, channel = window
    place_d = place // (KERNEL[1] * KERNEL[2])
    place_h = place // KERNEL[2] % KERNEL[1]
    place_w = place % KERNEL[2]
    depth = window_d * STRIDE[0] - PADDING[0] + place_d * DILATION[0]
    height = window_h * STRIDE[1] - PADDING[1] + place_h * DILATION[1]
    width = window_w * STRIDE[2] - PADDING[2] + place_w * DILATION[2]
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
