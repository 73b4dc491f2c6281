"""Every kernel against PyTorch, against closed forms, and against the reference, bit for bit."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kinkcheck import kernels
from kinkcheck.errors import InputError
from kinkcheck.kernels import reference
from kinkcheck.kernels.windows import AdaptiveWindows, SlidingWindows, Windows
from kinkcheck.selection import (
    Branch,
    First,
    Hybrid,
    Last,
    Minimal,
    Native,
    Random,
    Selection,
)

try:
    from kinkcheck.kernels import cpu
except ImportError as error:
    cpu = None  # type: ignore[assignment]
    WHY = f"the compiled kernels are not installed: {error}"

INSTRUCTIONS = ["baseline", "avx2", "avx512"]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
SANITIZED = "KINKCHECK_SANITIZED" in os.environ
much_memory = pytest.mark.xdist_group("much memory")  # never two of them at once


def every_kernel() -> Iterator[ModuleType]:
    """The reference, then the compiled kernels under each instruction set of this machine."""
    yield reference
    for name in cpu.instruction_sets() if cpu else []:
        yield compiled(name)


def compiled(instructions: str) -> ModuleType:
    if cpu is None:
        pytest.skip(WHY)
    if instructions not in cpu.instruction_sets():
        pytest.skip(f"this machine has no {instructions}")
    cpu.use_instruction_set(instructions)
    return cpu


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    if cpu is not None:
        cpu.use_instruction_set(cpu.instruction_sets()[-1])


@pytest.fixture(params=["reference", *INSTRUCTIONS])
def kernel(request: pytest.FixtureRequest) -> ModuleType:
    return reference if request.param == "reference" else compiled(request.param)


@pytest.fixture(params=INSTRUCTIONS)
def compiled_kernel(request: pytest.FixtureRequest) -> ModuleType:
    return compiled(request.param)


def assert_same_bits(got: Tensor, expected: Tensor) -> None:
    """Equal bit for bit, but any NaN equals any other."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    both_nan = got.isnan() & expected.isnan()
    integer = INTEGERS[got.element_size()]
    differ = (got.contiguous().view(integer) != expected.contiguous().view(integer)) & ~both_nan
    assert not differ.any(), f"{int(differ.sum())} of {got.numel()} differ"


def sliding(
    kernel: int, stride: int, padding: int = 0, dilation: int = 1, *, d: int = 2
) -> Windows:
    return SlidingWindows((kernel,) * d, (stride,) * d, (padding,) * d, (dilation,) * d, False)


# PyTorch's own answers.


def opinfo_samples(d: int, dtype: torch.dtype) -> Iterator[tuple[Tensor, SlidingWindows]]:
    from torch.testing._internal.common_methods_invocations import op_db

    def spread(value: Any) -> tuple[int, ...]:
        return tuple(value) if isinstance(value, (tuple, list)) else (value,) * d

    op = next(op for op in op_db if op.name == f"nn.functional.max_pool{d}d")
    for sample in op.sample_inputs("cpu", dtype):
        kernel, *rest = *sample.args, *[None] * (1 - len(sample.args))
        options = {"kernel_size": kernel, **sample.kwargs} if sample.args else dict(sample.kwargs)
        assert not any(rest)
        size = spread(options["kernel_size"])
        yield (
            sample.input.detach(),
            SlidingWindows(
                size,
                size if options.get("stride") in (None, ()) else spread(options["stride"]),
                spread(options.get("padding", 0)),
                spread(options.get("dilation", 1)),
                bool(options.get("ceil_mode", False)),
            ),
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.slow
def test_opinfo_samples_equal_pytorch(d: int, dtype: torch.dtype) -> None:
    count = 0
    for input, windows in opinfo_samples(d, dtype):
        # Few values: ties abound.
        for x in (input, input.mul(2).round()):
            assert_equals_pytorch(x, windows, every_kernel())
            count += 1
    assert count >= 1000


def assert_equals_pytorch(x: Tensor, windows: Windows, modules: Iterator[ModuleType]) -> None:
    """Value, native gradient and their memory formats."""
    leaf = x.clone().requires_grad_()
    expected = windows.torch_max_pool(leaf)
    grad_output = torch.linspace(-1, 1, expected.numel()).reshape(expected.shape).to(x.dtype)
    (grad,) = torch.autograd.grad(expected, leaf, grad_output)
    batched = x.dim() == windows.dimensions + 2
    for kernel in modules:
        assert kernel is reference or kernel.accepts(x, windows)
        value = kernel.max_pool(x, windows)
        assert_same_bits(value, expected.detach())
        # Without a graph PyTorch pools one dimension in another kernel, always contiguous.
        if batched and windows.dimensions > 1:
            assert value.stride() == expected.stride()
        got = kernel.max_pool_vjp(grad_output, x, windows, Native())
        assert_same_bits(got, grad)
        if batched:
            assert got.stride() == grad.stride()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("d", "geometry"),
    [
        (d, geometry)
        for d in (1, 2, 3)
        for geometry in ((2, 2), (3, 2, 1), (3, 1, 1), (3, 2), (2, 1), (2, 3), (3, 3, 1, 2), (1, 2))
    ],
    ids=str,
)
def test_geometries_of_networks_equal_pytorch(
    d: int, geometry: tuple[int, ...], dtype: torch.dtype, layout: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 19, *(23, 21, 37)[-d:], generator=generator).mul(2).round().to(dtype)
    if layout == "channels_last":
        x = channels_last(x, d)
    windows = sliding(*geometry, d=d)
    assert_equals_pytorch(x, windows, every_kernel())


def channels_last(x: Tensor, d: int) -> Tensor:
    """The same values, channels next to each other in memory."""
    if d == 1:
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    return x.contiguous(memory_format=CHANNELS_LAST[d])


# A search over geometries, layouts and special values.

SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.0, float("inf"), -float("inf"), 1e-41, 6e-8]
SELECTIONS: list[Selection] = [
    Native(),
    Minimal(),
    Hybrid(10),
    Hybrid(2),
    Hybrid(-3.7),
    Hybrid(1e39),
    First(),
    Last(),
    Random(7),
    Random(2**64 - 1),
]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, SlidingWindows, int]:
    """An input, a gradient of the output, a tangent, windows, and a number of threads."""
    d = draw(st.integers(1, 3))
    per_dimension = st.lists(st.integers(1, 4), min_size=d, max_size=d).map(tuple)
    kernel, stride = draw(per_dimension), draw(per_dimension)
    dilation = draw(st.lists(st.sampled_from([1, 1, 2, 3]), min_size=d, max_size=d).map(tuple))
    reach = [(k - 1) * s + 1 for k, s in zip(kernel, dilation, strict=True)]
    # PyTorch's limit; and no window without an entry, whose derivative PyTorch does not define.
    padding = tuple(
        draw(st.integers(0, min(r, k) // 2)) for r, k in zip(reach, kernel, strict=True)
    )
    size = [r + draw(st.sampled_from([0, 1, 2, 7, 40 if d < 3 else 9])) for r in reach]
    windows = SlidingWindows(kernel, stride, padding, dilation, draw(st.booleans()))
    leading = draw(st.sampled_from([(1, 1), (2, 3), (1, 17), (3, 33), (1,), (18,), (0, 2)]))
    seed = draw(st.integers(0, 2**31))
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(seed)

    def tensor(shape: torch.Size, special: list[float]) -> Tensor:
        if special:
            at = torch.randint(len(special), shape, generator=generator)
            return torch.tensor(special, dtype=torch.float64)[at].to(dtype)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    shape = torch.Size((*leading, *size))
    values = draw(st.lists(st.sampled_from(SPECIAL), max_size=5))
    x = tensor(shape, values)
    if draw(st.booleans()):
        holes = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.001, 0.3]))
        x = torch.where(holes, float("nan"), x)
    layout = draw(st.sampled_from(["contiguous", "channels_last", "transposed", "every second"]))
    if layout == "channels_last" and len(leading) == 2:
        x = channels_last(x, d)
    elif layout == "channels_last" and d == 3:
        x = channels_last(x[None], d)[0]
    elif layout == "transposed":
        x = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    elif layout == "every second":
        x = x.repeat_interleave(2, -1)[..., ::2]
    output = windows.torch_max_pool(x.contiguous()).shape
    specials = draw(st.sampled_from([[], [*SPECIAL, float("nan")]]))
    threads = draw(st.sampled_from([1, 2, 3]))
    return x, tensor(output, specials), tensor(shape, specials), windows, threads


@settings(
    max_examples=30 if SANITIZED else 100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(problem=problems(), selection=st.sampled_from(SELECTIONS))
def test_search_finds_no_bit_unlike_the_reference(
    compiled_kernel: ModuleType,
    problem: tuple[Tensor, Tensor, Tensor, SlidingWindows, int],
    selection: Selection,
) -> None:
    x, grad_output, tangent, windows, threads = problem
    torch.set_num_threads(threads)
    assert_equals_reference(compiled_kernel, x, grad_output, tangent, windows, selection)


def assert_equals_reference(
    kernel: ModuleType,
    x: Tensor,
    grad_output: Tensor,
    tangent: Tensor,
    windows: SlidingWindows,
    selection: Selection,
) -> None:
    value = reference.max_pool(x, windows)
    assert_same_bits(kernel.max_pool(x, windows), value)
    ties = reference.max_pool_ties(x, windows)
    assert kernel.max_pool_ties(x, windows) == ties
    both = kernel.max_pool_with_ties(x, windows)
    assert_same_bits(both[0], value)
    assert both[1] == ties
    for name, given_ in (("max_pool_vjp", grad_output), ("max_pool_jvp", tangent)):
        assert_same_bits(
            getattr(kernel, name)(given_, x, windows, selection),
            getattr(reference, name)(given_, x, windows, selection),
        )


def of_special_values(
    shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator
) -> Tensor:
    special = torch.tensor(SPECIAL, dtype=torch.float64).to(dtype)
    return special[torch.randint(len(SPECIAL), tuple(shape), generator=generator)]


def assert_selections_equal(
    kernel: ModuleType,
    x: Tensor,
    windows: SlidingWindows,
    selections: Iterator[Selection],
    generator: torch.Generator,
) -> None:
    """The next two selections, under a gradient of special values."""
    grad_output = of_special_values(windows.torch_max_pool(x).shape, x.dtype, generator)
    for selection in itertools.islice(selections, 2):
        assert_equals_reference(kernel, x, grad_output, x, windows, selection)


@pytest.mark.parametrize("ceil_mode", [False, True], ids=["floor", "ceil"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.slow
def test_windows_of_three_at_a_stride_of_two_equal_the_reference_at_every_width(
    compiled_kernel: ModuleType, dtype: torch.dtype, ceil_mode: bool
) -> None:
    # They have kernels of their own, which the search hardly ever meets.
    generator = torch.Generator().manual_seed(0)
    selections = itertools.cycle([Native(), Minimal(), Hybrid(10), Hybrid(2), Hybrid(1e39)])
    widths = range(3, 40, 4 if SANITIZED else 1)
    for width, padding in itertools.product(widths, itertools.product((0, 1), repeat=2)):
        windows = SlidingWindows((3, 3), (2, 2), padding, (1, 1), ceil_mode)
        height = (1 if padding[0] else 3) + width % 4
        x = of_special_values((3, 2, height, width), dtype, generator)
        if width % 3 == 0:
            x[1, 0, -1, width // 2] = float("nan")
        assert_selections_equal(compiled_kernel, x, windows, selections, generator)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.slow
def test_windows_of_three_that_tile_equal_the_reference_at_every_width(
    compiled_kernel: ModuleType, dtype: torch.dtype, layout: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    selections = itertools.cycle([Native(), Minimal(), Hybrid(10), Last(), Hybrid(1e39)])
    for d, width in itertools.product((1, 2, 3), range(3, 60, 8 if SANITIZED else 3)):
        windows = sliding(3, 3, d=d)
        x = of_special_values((2, 9, *(7, 4)[3 - d :], width), dtype, generator)
        if width % 2 == 0:
            x[0, 3].flatten()[-1] = float("nan")
        if layout == "channels_last":
            x = channels_last(x, d)
        assert_selections_equal(compiled_kernel, x, windows, selections, generator)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("length", [7, 100, 1030, 9001])
def test_lines_equal_the_reference(
    compiled_kernel: ModuleType, dtype: torch.dtype, length: int
) -> None:
    # Long ones are cut, and their parts overlap.
    generator = torch.Generator().manual_seed(length)
    selections = itertools.cycle([Native(), Minimal(), Hybrid(10), Last(), Random(3), Hybrid(1e39)])
    geometries = [(2, 1), (2, 3), (3, 1, 1), (3, 2, 1), (3, 2, 1, 2), (4, 1, 2, 2), (3, 5), (7, 2)]
    for geometry in geometries[:: 3 if SANITIZED else 1]:
        windows = sliding(*geometry, d=1)
        untied = torch.rand((2, 3, length), generator=generator).to(dtype)
        for x in (untied, of_special_values((2, 3, length), dtype, generator)):
            assert_selections_equal(compiled_kernel, x, windows, selections, generator)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_windows_that_overlap_equal_the_reference(
    compiled_kernel: ModuleType, dtype: torch.dtype, layout: str
) -> None:
    # Their values are found one dimension after the other: the last NaN must be that of the scan.
    generator = torch.Generator().manual_seed(0)
    for kernel, shape in [((9,), (70,)), ((5, 5), (12, 17)), ((3, 4, 4), (5, 6, 9))]:
        ones, padding = (1,) * len(kernel), tuple(size // 2 for size in kernel)
        windows = SlidingWindows(kernel, ones, padding, ones, ceil_mode=True)
        x = of_special_values((2, 10, *shape), dtype, generator)
        x = torch.where(torch.rand(x.shape, generator=generator) < 0.01, float("nan"), x)
        x[1, 3:] = torch.nan_to_num(x[1, 3:], nan=0.5)
        if layout == "channels_last":
            x = channels_last(x, len(kernel))
        grad_output = of_special_values(windows.torch_max_pool(x).shape, dtype, generator)
        assert_equals_reference(compiled_kernel, x, grad_output, x, windows, Hybrid(10))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_nan_that_no_window_holds_is_nowhere(compiled_kernel: ModuleType, d: int) -> None:
    # With a dilation of the stride, every second place along a dimension is in no window.
    windows = sliding(3, 2, 1, 2, d=d)
    x = channels_last(torch.randn(2, 300, *(9,) * d), d)
    expected = windows.torch_max_pool(x)
    grad_output = torch.randn_like(expected)
    grad = reference.max_pool_vjp(grad_output, x, windows, Hybrid(10))
    x[..., ::2] = float("nan")
    assert_same_bits(compiled_kernel.max_pool(x, windows), expected)
    assert_same_bits(compiled_kernel.max_pool_vjp(grad_output, x, windows, Hybrid(10)), grad)
    x[1, 7, ..., 1] = float("nan")
    assert_equals_reference(compiled_kernel, x, grad_output, x, windows, Hybrid(10))


@pytest.mark.parametrize("channels", [8, 15, 17, 33, 40, 150])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.slow
def test_small_windows_of_many_channels_equal_the_reference(
    compiled_kernel: ModuleType, dtype: torch.dtype, channels: int
) -> None:
    # Channels_last: windows of 2 to 6, 8 and 9 entries, and as many at the borders, are
    # unrolled; what is left of the channels after whole vectors goes another way.
    generator = torch.Generator().manual_seed(channels)
    selections = [Minimal(), Hybrid(2), Last(), Native(), Hybrid(10), Random(3)]
    if SANITIZED:
        del selections[3:]
    for kernel in [(3,), (5,), (2, 2), (2, 3), (3, 3), (2, 2, 2), (5, 5)]:
        ones = (1,) * len(kernel)
        windows = SlidingWindows(
            kernel, ones, tuple(size // 2 for size in kernel), ones, ceil_mode=False
        )
        shape = (1 if channels > 100 else 2, *(4,) * len(kernel), channels)
        untied = torch.rand(shape, generator=generator).to(dtype)
        for x in (untied, of_special_values(shape, dtype, generator)):
            x = x.movedim(-1, 1)
            if channels == 33:
                x[0, 17] = float("nan")
            output = windows.torch_max_pool(x).shape
            grad_output = of_special_values(output, dtype, generator)
            for selection in selections:
                assert_equals_reference(compiled_kernel, x, grad_output, x, windows, selection)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_windows_of_more_entries_than_16_bits_count(
    compiled_kernel: ModuleType, dtype: torch.dtype
) -> None:
    windows = SlidingWindows((257, 257), (1, 1), (0, 0), (1, 1), ceil_mode=False)
    x = torch.zeros(1, 257, 257, 40, dtype=dtype).movedim(-1, 1)
    x[0, :20, 255, 5] = 1  # entry 65,540; the other channels are tied 66,049 times
    grad_output = torch.ones(1, 40, 1, 1, dtype=dtype)
    native = torch.zeros_like(x)
    native[0, :20, 255, 5] = 1
    minimal = native.clone()
    native[0, 20:, 0, 0] = 1
    minimal[0, 20:] = torch.tensor(1 / 66_049).to(dtype)
    for selection, expected in ((Native(), native), (Minimal(), minimal)):
        got = compiled_kernel.max_pool_vjp(grad_output, x, windows, selection)
        assert_same_bits(got, expected)


def test_slices_of_minus_infinity_in_one_channel_equal_pytorch(
    compiled_kernel: ModuleType,
) -> None:
    # PyTorch forgets the depth of such windows if the tensor counts as channels_last_3d.
    x = torch.full((2, 1, 9, 1, 21), -float("inf"))
    x = x.to(memory_format=torch.channels_last_3d)
    windows = SlidingWindows((3, 1, 3), (2, 1, 2), (1, 0, 1), (1, 1, 1), ceil_mode=False)
    grad_output = torch.ones(windows.torch_max_pool(x).shape)
    assert_equals_reference(compiled_kernel, x, grad_output, x, windows, Native())


# What the mathematics says.


def few_valued(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_hybrid_has_the_norm_of_its_closed_form(kernel: ModuleType) -> None:
    x, windows = few_valued(4, 5, 12, 12), sliding(2, 2)
    blocks = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    m = (blocks == blocks.amax(-1, keepdim=True)).sum(-1).double()
    for beta in (0, 0.5, 1, 2, 10, -3):
        grad = kernel.max_pool_vjp(torch.ones(m.shape).double(), x, windows, Hybrid(beta))
        squares = (grad**2).unfold(2, 2, 2).unfold(3, 2, 2).sum((-1, -2))
        torch.testing.assert_close(squares, 1 / m + (1 - beta) ** 2 * (1 - 1 / m))


def test_minimal_lies_in_the_hull_of_the_active_entries(kernel: ModuleType) -> None:
    x, windows = few_valued(3, 7, 9, 10), sliding(3, 3)
    value = kernel.max_pool(x, windows)
    grad = kernel.max_pool_vjp(torch.ones_like(value), x, windows, Minimal())
    weights = grad.unfold(2, 3, 3).unfold(3, 3, 3)
    entries = x.unfold(2, 3, 3).unfold(3, 3, 3)
    assert (weights >= 0).all()
    assert (weights[entries != value[..., None, None]] == 0).all()
    torch.testing.assert_close(weights.sum((-1, -2)), torch.ones_like(value))


@pytest.mark.parametrize(("selection", "side"), [(First(), 0), (Last(), -1)], ids=str)
def test_first_and_last_pick_one_end_of_the_active_set(
    kernel: ModuleType, selection: Selection, side: int
) -> None:
    x, windows = few_valued(3, 7, 8, 12), sliding(2, 2)
    grad = kernel.max_pool_vjp(torch.ones(3, 7, 4, 6).double(), x, windows, selection)
    weights = grad.unfold(2, 2, 2).unfold(3, 2, 2).reshape(-1, 4).tolist()
    for entries, weight in zip(
        x.unfold(2, 2, 2).unfold(3, 2, 2).reshape(-1, 4).tolist(), weights, strict=True
    ):
        pick = [i for i, entry in enumerate(entries) if entry == max(entries)][side]
        assert weight == [float(i == pick) for i in range(4)]


def test_random_picks_each_active_entry_as_often(kernel: ModuleType) -> None:
    windows = sliding(2, 2)
    ones = torch.ones(1, 16, 64, 64)
    counts = sum(
        kernel.max_pool_vjp(ones, torch.zeros(1, 16, 128, 128), windows, Random(seed))
        .unfold(2, 2, 2)
        .unfold(3, 2, 2)
        .sum((0, 1, 2, 3))
        for seed in range(4)
    ).flatten()
    assert counts.sum() == 4 * ones.numel()
    # Five standard deviations of a binomial count.
    expected = ones.numel()
    assert ((counts - expected).abs() < 5 * (expected * 0.75) ** 0.5).all()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("geometry", [(2, 2), (3, 2, 1), (3, 1, 1), (2, 3, 0, 2)], ids=str)
def test_jvp_is_the_adjoint_of_vjp(
    kernel: ModuleType, geometry: tuple[int, ...], layout: str
) -> None:
    x = few_valued(2, 5, 14, 15)
    if layout == "channels_last":
        x = channels_last(x, 2)
    windows = sliding(*geometry)
    tangent = few_valued(*x.shape, seed=1)
    cotangent = few_valued(*kernel.max_pool(x, windows).shape, seed=2)
    # 2520 = lcm(1, ..., 9): weights times 2520 are integers, up to rounding far below one half.
    for selection in (Native(), First(), Last(), Random(3), Minimal(), Hybrid(10)):
        forward = kernel.max_pool_jvp(tangent * 2520, x, windows, selection).round()
        backward = kernel.max_pool_vjp(cotangent * 2520, x, windows, selection).round()
        assert (forward * cotangent).sum() == (tangent * backward).sum()


def test_ties_are_counted_as_by_hand(kernel: ModuleType) -> None:
    x = few_valued(2, 3, 8, 8).relu()
    blocks = x.unfold(2, 2, 2).unfold(3, 2, 2).reshape(-1, 4).tolist()
    tied = [block for block in blocks if block.count(max(block)) > 1]
    ties = kernel.max_pool_ties(x, sliding(2, 2))
    assert ties.windows == len(blocks)
    assert ties.tied == len(tied)
    assert ties.tied_at_zero == sum(block == [0, 0, 0, 0] for block in tied)


def test_zero_weight_stops_an_infinite_gradient(kernel: ModuleType) -> None:
    x = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    infinite = torch.full((1, 1, 1, 1), float("inf"))
    # With two active entries the first has weight (2 − 2)/2 = 0.
    grad = kernel.max_pool_vjp(infinite, x, sliding(2, 2), Hybrid(2))
    assert grad.flatten().tolist() == [0.0, float("inf"), 0.0, 0.0]


@pytest.mark.parametrize("selection", [Native(), Hybrid(10), Last(), Random(1)], ids=str)
def test_the_last_nan_is_the_only_active_entry(kernel: ModuleType, selection: Selection) -> None:
    nan = float("nan")
    x = torch.tensor([[[[nan, 5.0], [nan, 7.0]]]])
    assert kernel.max_pool(x, sliding(2, 2)).isnan().all()
    grad = kernel.max_pool_vjp(torch.ones(1, 1, 1, 1), x, sliding(2, 2), selection)
    assert grad.flatten().tolist() == [0.0, 0.0, 1.0, 0.0]


# What a user may hand in.


@pytest.mark.parametrize("selection", [Native(), Hybrid(10), Random(1)], ids=str)
def test_answers_do_not_depend_on_the_number_of_threads(
    kernel: ModuleType, selection: Selection
) -> None:
    x, windows = few_valued(4, 24, 33, 35, dtype=torch.float32), sliding(3, 2, 1)
    grad_output = torch.randn(reference.max_pool(x, windows).shape)
    answers = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        answers.append(kernel.max_pool_vjp(grad_output, x, windows, selection))
    assert_same_bits(answers[1], answers[0])
    assert_same_bits(answers[2], answers[0])


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, :, ::2, 1::3],
        lambda x: x.transpose(0, 1),
        lambda x: x.transpose(2, 3),
        lambda x: x[1:, 1:, 1:, 1:],
        lambda x: x[:1].expand(4, -1, -1, -1),
        lambda x: torch.view_as_complex(torch.stack([x, x], -1)).conj().imag,
        lambda x: torch.nn.Parameter(x),
    ],
    ids=["strided", "batch", "image", "offset", "expanded", "negated", "parameter"],
)
def test_views_are_read_as_they_are(kernel: ModuleType, view: Any) -> None:
    x, windows = view(few_valued(4, 6, 16, 18, dtype=torch.float32)), sliding(3, 2, 1)
    dense = x.detach().clone(memory_format=torch.contiguous_format).resolve_neg()
    value = F.max_pool2d(dense, 3, 2, 1)
    assert_same_bits(kernel.max_pool(x, windows).detach(), value)
    grad_output = torch.ones(()).expand(value.shape)
    assert_same_bits(
        kernel.max_pool_vjp(grad_output, x, windows, Native()),
        reference.max_pool_vjp(grad_output, dense, windows, Native()),
    )


@pytest.mark.parametrize("d", [1, 2, 3])
def test_empty_batches_give_empty_answers(kernel: ModuleType, d: int) -> None:
    x = torch.empty(0, 3, *(8,) * d)
    for windows, size in ((sliding(2, 2, d=d), 4), (sliding(5, 1, 2, d=d), 8)):
        value = kernel.max_pool(x, windows)
        assert value.shape == (0, 3, *(size,) * d)
        assert kernel.max_pool_vjp(value, x, windows, Minimal()).shape == x.shape
        assert kernel.max_pool_ties(x, windows).windows == 0


def test_windows_of_one_element_copy(kernel: ModuleType) -> None:
    x = torch.randn(2, 3, 5, 7)
    assert_same_bits(kernel.max_pool(x, sliding(1, 1)), x)
    assert_same_bits(kernel.max_pool_vjp(x, x, sliding(1, 1), Minimal()), x + 0.0)


@pytest.mark.slow
@much_memory
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_more_than_two_to_the_31_bytes(dtype: torch.dtype) -> None:
    """About 6 GB: input and gradient of 2.2 GB each, and a copy of neither."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if free < 8 * 2**30:
        pytest.skip(f"needs 8 GB of free memory, there are {free / 2**30:.1f}")
    if SANITIZED:
        pytest.skip("too slow under a sanitizer")
    kernel = compiled(cpu.instruction_sets()[-1] if cpu else "baseline")
    side = 1024
    planes = 2**31 // (side * side * dtype.itemsize) + 65
    x = torch.zeros(1, planes, side, side, dtype=dtype)
    x[0, -1, -2:, -2:] = torch.tensor([[1.0, 2.0], [2.0, 0.0]])
    assert x.numel() * x.element_size() > 2**31
    windows = sliding(2, 2)
    value, ties = kernel.max_pool_with_ties(x, windows)
    assert value[0, -1, -1, -1] == 2
    assert value.sum() == 2
    assert (ties.tied, ties.tied_at_zero) == (value.numel(), value.numel() - 1)
    value.zero_()[0, -1, -1, -1] = 8
    grad = kernel.max_pool_vjp(value, x, windows, Minimal())
    assert grad[0, -1, -2:, -2:].tolist() == [[0, 4], [4, 0]]
    assert grad.count_nonzero() == 2


@pytest.mark.slow
@much_memory
def test_more_than_two_to_the_31_elements() -> None:
    """One row of 2.2 billion float16: 4.3 GB, and half of that for the values."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if free < 8 * 2**30:
        pytest.skip(f"needs 8 GB of free memory, there are {free / 2**30:.1f}")
    if SANITIZED:
        pytest.skip("too slow under a sanitizer")
    kernel = compiled(cpu.instruction_sets()[-1] if cpu else "baseline")
    x = torch.zeros(1, 1, 2**31 + 64, dtype=torch.float16)
    x[0, 0, -1] = 3
    value = kernel.max_pool(x, sliding(4, 4, d=1))
    assert value[0, 0, -1] == 3
    assert value.count_nonzero() == 1


# The dispatch.


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("d", "sizes"), [(1, (4,)), (2, (3, 2)), (2, (1, 1)), (2, (5, 4)), (3, (2, 3, 1))], ids=str
)
@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_adaptive_windows_equal_the_reference(
    d: int, sizes: tuple[int, ...], layout: str, selection: Selection
) -> None:
    x = few_valued(2, 18, *(6, 12, 8)[-d:], dtype=torch.float32)
    if layout == "channels_last":
        x = channels_last(x, d)
    windows = AdaptiveWindows(sizes)
    value = reference.max_pool(x, windows)
    assert_same_bits(kernels.max_pool(x, windows), value)
    grad_output = torch.randn(value.shape)
    assert_same_bits(
        kernels.max_pool_vjp(grad_output, x, windows, selection),
        reference.max_pool_vjp(grad_output, x, windows, selection),
    )


def test_what_no_kernel_takes_goes_to_the_reference() -> None:
    whole = torch.arange(16).reshape(1, 1, 4, 4)
    assert kernels.max_pool(whole, sliding(2, 2)).tolist() == [[[[5, 7], [13, 15]]]]
    with pytest.raises(RuntimeError, match="pad should be"):
        kernels.max_pool(torch.zeros(1, 1, 4, 4), sliding(2, 2, 2))
    with pytest.raises(InputError, match="max pooling has no selection branch:1"):
        kernels.max_pool_vjp(
            torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 4, 4), sliding(2, 2), Branch(1)
        )


def test_empty_windows_hold_minus_infinity(compiled_kernel: ModuleType) -> None:
    # The only window holds places −1 and 3 of an input of size 3.
    windows = SlidingWindows((2,), (1,), (1,), (4,), ceil_mode=False)
    x = torch.ones(1, 1, 3)
    assert_same_bits(compiled_kernel.max_pool(x, windows), reference.max_pool(x, windows))
    for selection in (Native(), Minimal(), Random(0)):
        grad = compiled_kernel.max_pool_vjp(torch.ones(1, 1, 1), x, windows, selection)
        assert grad.tolist() == [[[0.0, 0.0, 0.0]]]


def run_with(variable: str, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, kernels.VARIABLE: variable}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


IN_USE = "from kinkcheck import kernels; print(kernels.in_use())"


def test_the_reference_can_be_requested() -> None:
    assert run_with("reference", IN_USE).stdout.startswith("reference, ")


def test_unknown_kernels_are_refused() -> None:
    assert "must be reference, cpu or triton, not 'gpu'" in run_with("gpu", IN_USE).stderr


def test_requested_kernels_that_are_missing_are_refused() -> None:
    hidden = f"import sys; sys.modules['kinkcheck.kernels.cpu._extension'] = None; {IN_USE}"
    assert run_with("", hidden).stdout.startswith("reference, ")
    assert "the compiled kernels are not installed" in run_with("cpu", hidden).stderr


def test_the_doctor_says_how_to_get_kernels_that_are_missing() -> None:
    show = "from kinkcheck import doctor; print(dict(doctor.findings())['kernels'])"
    hidden = f"import sys; sys.modules['kinkcheck.kernels.cpu._extension'] = None; {show}"
    for requested in ("", "cpu"):
        assert "make kernels" in run_with(requested, hidden).stdout
    assert ("make kernels" in run_with("", show).stdout) == (cpu is None)


def test_kernels_and_reference_have_the_same_functions() -> None:
    for module, name in itertools.product(
        [kernels, *([cpu] if cpu else [])],
        ["max_pool", "max_pool_vjp", "max_pool_jvp", "max_pool_ties"],
    ):
        theirs, ours = getattr(module, name), getattr(reference, name)
        assert theirs.__annotations__ == ours.__annotations__


@pytest.mark.skipif(cpu is None, reason="compiled kernels are not installed")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0, 1, 7, 8191, 8193, 100_003])
def test_entries_equal_to_numbers_are_counted(size: int, dtype: torch.dtype, threads: int) -> None:
    assert cpu is not None
    values = torch.tensor([0.0, -0.0, 0.1, 6.0, -1.0, float("nan"), float("inf")], dtype=dtype)
    generator = torch.Generator().manual_seed(size)
    x = values[torch.randint(len(values), (size,), generator=generator)]
    numbers = (0.0, 0.1, float("inf"), -1.0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for some in (numbers, numbers[:1], numbers[2:]):
            assert cpu.takes_entries(x)
            expected = [int((x == torch.tensor(each, dtype=dtype)).sum()) for each in some]
            assert cpu.count_equal(x, some) == expected
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(cpu is None, reason="compiled kernels are not installed")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "shape", [(3, 64, 1), (1, 100_003, 1), (70_001, 2, 1), (2, 3, 8193), (5, 700, 31), (1, 2, 0)]
)
def test_entries_equal_to_the_value_they_compete_for_are_counted(
    shape: tuple[int, int, int], dtype: torch.dtype, threads: int
) -> None:
    assert cpu is not None
    palette = torch.tensor([0.0, -0.0, 0.1, 6.0, -1.0, float("inf")], dtype=dtype)
    generator = torch.Generator().manual_seed(sum(shape))
    x = palette[torch.randint(len(palette), shape, generator=generator)]
    values = palette[torch.randint(len(palette), (shape[0], shape[2]), generator=generator)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert cpu.takes_entries(x)
        assert cpu.takes_entries(values)
        expected = int((x == values[:, None]).sum())
        assert cpu.count_attained(x, values) == expected
        assert kernels.count_attained(x.transpose(0, 2), values.t()) == expected
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(cpu is None, reason="compiled kernels are not installed")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "inner"), [(100_003, 1), (3, 8193), (2_000, 31), (0, 4)])
def test_entries_equal_to_the_gathered_value_they_compete_for_are_counted(
    rows: int, inner: int, dtype: torch.dtype, threads: int
) -> None:
    assert cpu is not None
    palette = torch.tensor([0.0, -0.0, 0.1, 6.0, -1.0, float("inf")], dtype=dtype)
    generator = torch.Generator().manual_seed(rows)
    x = palette[torch.randint(len(palette), (rows + 1, inner), generator=generator)]
    values = palette[torch.randint(len(palette), (17, inner), generator=generator)]
    of = torch.randint(18, (rows,), generator=generator)
    at = torch.randint(rows + 1, (rows,), generator=generator)
    competes = of < 17
    expected = {
        None: int((x[:-1][competes] == values[of[competes]]).sum()),
        at: int((x[at[competes]] == values[of[competes]]).sum()),
    }
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for where, count in expected.items():
            assert cpu.count_gathered(x, values, of, where) == count
            assert kernels.count_gathered(x, values, of.to(torch.int32), where) == count
            apart = torch.empty(*x.shape, 2, dtype=dtype)[..., 0].copy_(x)
            apart = apart if where is not None else apart[:-1]
            assert kernels.count_gathered(apart, values, of, where) == count
    finally:
        torch.set_num_threads(before)


def test_entries_of_other_layouts_are_counted_too() -> None:
    x = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    images = torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    for each, zeros in ((x[:, 0], 2), (x.t(), 3), (images, 96), (x.to(torch.int64), 3)):
        (count,) = kernels.count_equal(each, (0.0,))
        assert int(count) == zeros
