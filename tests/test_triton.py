"""The Triton kernels against the reference, bit for bit, and against PyTorch.

Triton decides when it is imported whether it interprets a kernel. The search over geometries needs
its interpreter, so one test runs this file again in a process where that is switched on. Without a
GPU the kernels are compiled as well, to see that they can be, and what they are made of; with one
they run on it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from math import inf, nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kinkcheck.errors import InputError
from kinkcheck.kernels import reference, triton
from kinkcheck.kernels.windows import AdaptiveWindows, SlidingWindows
from kinkcheck.selection import Branch, First, Hybrid, Last, Minimal, Native, Random, Selection
from strategies import MEMORY, filled, laid_out, seeds, sliding

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
INSTALLED = importlib.util.find_spec("triton") is not None
GPU = torch.cuda.is_available() and not INTERPRETED

installed = pytest.mark.skipif(not INSTALLED, reason="Triton is not installed")
interpreted = pytest.mark.skipif(
    not INTERPRETED, reason="runs in the process of test_under_the_interpreter"
)
compiled = pytest.mark.skipif(
    INTERPRETED or not INSTALLED, reason="Triton is not installed, or interprets"
)
gpu = pytest.mark.skipif(not GPU, reason="PyTorch sees no CUDA device")

# NumPy, in which Triton interprets, warns of 0 · ∞ and of what float16 cannot hold.
pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
]

SELECTIONS = [Native(), Minimal(), Hybrid(10), First(), Last(), Random(7)]
PALETTES = [
    (0.0,),
    (-0.0, 0.0),
    (-1.0, 0.0, 1.0),
    (-0.0, 0.0, -1.0),
    (-inf,),
    (-inf, inf),
    (-inf, -1.0, 0.0),
    (nan, 0.0, 1.0),
    (nan, -inf, inf, 1.0),
]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Equal bit for bit, where every NaN is the same."""
    assert actual.dtype == expected.dtype
    assert actual.device == expected.device
    assert actual.shape == expected.shape
    same = (actual == expected) & (actual.signbit() == expected.signbit())
    different = ~(same | (actual.isnan() & expected.isnan()))
    assert not different.any(), f"{actual[different]} instead of {expected[different]}"


def numbers(like: Tensor, seed: int) -> Tensor:
    """Gradients that round, ±0 and ±∞ among them."""
    palette = (0.1, -0.3, 1.0, 1 / 3, -7.7, 1e-4, 0.0, -0.0, inf, -inf)
    return filled(tuple(like.shape), palette, like.dtype, seed).to(like.device)


def assert_equals_reference(
    x: Tensor, windows: SlidingWindows, selection: Selection, seed: int
) -> None:
    """Value, ties, vjp and jvp."""
    value = reference.max_pool(x, windows)
    assert_same(triton.max_pool(x, windows), value)
    expected = reference.max_pool_ties(x, windows)
    both, ties = triton.max_pool_with_ties(x, windows)
    assert_same(both, value)
    for actual in (ties, triton.max_pool_ties(x, windows)):
        assert actual.windows == expected.windows
        assert actual.tied.item() == expected.tied.item()
        assert actual.tied_at_zero.item() == expected.tied_at_zero.item()
    grad_output, tangent = numbers(value, seed), numbers(x, seed + 1)
    assert_same(
        triton.max_pool_vjp(grad_output, x, windows, selection),
        reference.max_pool_vjp(grad_output, x, windows, by_definition(selection, x)),
    )
    pushed = triton.max_pool_jvp(tangent, x, windows, selection)
    if x.is_cuda:  # where PyTorch's kernels for channels_last take a window of −∞ for another
        x = x.contiguous()
    assert_same(pushed, reference.max_pool_jvp(tangent, x, windows, selection))


def by_definition(selection: Selection, x: Tensor) -> Selection:
    """The selection that tells what native is, where PyTorch's kernels do something else."""
    if isinstance(selection, Native) and (x.is_cuda or x.isneginf().any()):
        return First()
    return selection


# --- without a GPU --------------------------------------------------------------------------------


@pytest.mark.skipif(INTERPRETED, reason="this is the process that it starts")
@installed
@pytest.mark.slow
def test_under_the_interpreter() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    assert triton.__file__ is not None
    files = [__file__, triton.__file__, str(Path(triton.__file__).with_name("triton_jit.py"))]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    run = subprocess.run(
        command, env=environment, cwd=Path(__file__).parent.parent, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"\d\d passed", run.stdout), run.stdout


def test_the_module_can_be_imported_without_triton() -> None:
    program = """
import sys
sys.modules["triton"] = None
import torch
from kinkcheck.kernels import triton, windows
print(triton.obstacle())
pooling = windows.SlidingWindows((2,), (2,), (0,), (1,), False)
assert not triton.accepts(torch.zeros(1, 4), pooling)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("Triton cannot be imported")


@pytest.mark.skipif(INTERPRETED or GPU, reason="there is no obstacle here")
def test_without_a_gpu_nothing_is_accepted() -> None:
    windows = SlidingWindows((2,), (2,), (0,), (1,), False)
    assert triton.obstacle()
    assert not triton.accepts(torch.zeros(1, 4), windows)


# --- interpreted ----------------------------------------------------------------------------------


@pytest.fixture(
    params=[(256, 2**30), (32, 0)], ids=["one program", "many programs, 64-bit offsets"]
)
def _launches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    block, narrow = request.param
    monkeypatch.setattr(triton, "_BLOCK", block)
    monkeypatch.setattr(triton, "_NARROW", narrow)
    triton._form.cache_clear()
    yield
    triton._form.cache_clear()


selections = (
    st.sampled_from(SELECTIONS)
    | st.floats(-1e6, 1e6).map(Hybrid)
    | st.integers(0, 2**64 - 1).map(Random)
)


def sliding_windows(arguments: dict[str, Any]) -> SlidingWindows:
    return SlidingWindows(
        *(arguments[name] for name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode"))
    )


@interpreted
@pytest.mark.usefixtures("_launches")
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.data(), sliding() | sliding(overlap=False), selections, seeds)
def test_equals_the_reference(
    data: Any, case: tuple[Any, tuple[int, ...]], selection: Selection, seed: int
) -> None:
    pooling, sizes = case
    # The interpreter cannot compute in bfloat16.
    dtype = data.draw(st.sampled_from([torch.float16, torch.float32, torch.float64]))
    leading = data.draw(st.sampled_from([(1,), (3,), (1, 1), (2, 3), (3, 1), (0, 2)]))
    x = filled((*leading, *sizes), data.draw(st.sampled_from(PALETTES)), dtype, seed)
    x = laid_out(x, data.draw(st.sampled_from(MEMORY)), pooling.dimensions)
    windows = sliding_windows(pooling.arguments)
    assert triton.accepts(x, windows)
    assert_equals_reference(x, windows, selection, seed)


@interpreted
@pytest.mark.usefixtures("_launches")
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(st.data(), sliding() | sliding(overlap=False), seeds)
def test_native_equals_pytorch(data: Any, case: tuple[Any, tuple[int, ...]], seed: int) -> None:
    pooling, sizes = case
    dtype = data.draw(st.sampled_from([torch.float16, torch.float32, torch.float64]))
    palette = data.draw(st.sampled_from([p for p in PALETTES if -inf not in p]))
    x = laid_out(
        filled((2, 3, *sizes), palette, dtype, seed),
        data.draw(st.sampled_from(MEMORY)),
        pooling.dimensions,
    ).requires_grad_()
    windows = sliding_windows(pooling.arguments)
    value = pooling(x)
    grad_output = numbers(value, seed)
    (expected,) = torch.autograd.grad(value, x, grad_output)
    actual = triton.max_pool(x, windows)
    assert_same(actual, value.detach())
    assert not actual.requires_grad
    gradient = triton.max_pool_vjp(grad_output, x, windows, Native())
    assert_same(gradient, expected)
    for got, want in ((actual, value), (gradient, expected)):
        assert got.stride() == want.stride() or 1 in want.shape or not want.numel()


@interpreted
@pytest.mark.parametrize("selection", [Hybrid(10), Last(), Random(7)], ids=str)
@pytest.mark.parametrize(
    ("sizes", "windows"),
    [
        ((9, 7, 11), SlidingWindows((2, 2, 2), (3, 2, 4), (1, 0, 1), (1, 1, 2), True)),
        ((1, 3), SlidingWindows((1, 3), (1, 1), (0, 1), (1, 2), False)),
        ((1, 2), SlidingWindows((1, 2), (1, 1), (0, 1), (1, 3), False)),
    ],
    ids=["gaps", "never full", "without an entry"],
)
def test_sparse_windows(
    sizes: tuple[int, ...], windows: SlidingWindows, selection: Selection
) -> None:
    x = filled((2, 2, *sizes), (0.0, 0.0, 1.0, -1.0), torch.float32, 3)
    assert_equals_reference(x, windows, selection, seed=1)


@interpreted
def test_windows_with_more_places_than_a_byte_can_count() -> None:
    windows = SlidingWindows((16, 17), (10, 8), (8, 0), (1, 1), True)
    x = filled((1, 2, 18, 35), (0.0, 0.0, 0.0, -1.0), torch.float32, 3)
    x[:, 0] = 0
    grad_output = numbers(reference.max_pool(x, windows), 1)
    assert_same(
        triton.max_pool_vjp(grad_output, x, windows, Hybrid(10)),
        reference.max_pool_vjp(grad_output, x, windows, Hybrid(10)),
    )


@interpreted
def test_expanded_and_sliced_tensors() -> None:
    windows = SlidingWindows((2, 2), (1, 2), (1, 0), (1, 1), False)
    x = filled((4, 3, 9, 10), (0.0, 1.0), torch.float32, 0)[::2, :, 1:, ::2]
    value = reference.max_pool(x, windows)
    grad_output = torch.tensor(3.0).expand(value.shape)
    for selection in SELECTIONS:
        assert_same(
            triton.max_pool_vjp(grad_output, x, windows, selection),
            reference.max_pool_vjp(grad_output, x, windows, selection),
        )


@interpreted
def test_what_is_not_accepted() -> None:
    windows = SlidingWindows((2,), (2,), (0,), (1,), False)
    x = torch.zeros(2, 4)
    assert triton.accepts(x, windows)
    assert not triton.accepts(x, AdaptiveWindows((2,)))
    assert not triton.accepts(x.int(), windows)
    assert not triton.accepts(x.to("meta"), windows)
    assert not triton.accepts(x.to_sparse(), windows)
    assert not triton.accepts(torch.zeros(4), windows)


@interpreted
def test_what_fails() -> None:
    x = torch.zeros(2, 4)
    with pytest.raises(RuntimeError, match="at most half"):
        triton.max_pool(x, SlidingWindows((2,), (2,), (2,), (1,), False))
    windows = SlidingWindows((2,), (2,), (0,), (1,), False)
    for derivative, argument in (
        (triton.max_pool_vjp, torch.zeros(2, 2)),
        (triton.max_pool_jvp, torch.zeros(2, 4)),
    ):
        with pytest.raises(InputError, match="max pooling has no selection branch"):
            derivative(argument, x, windows, Branch(0.5))


# --- compiled, not run ----------------------------------------------------------------------------


@pytest.fixture
def compile_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], list[Any]]:
    """Have calls compile their kernels for a GPU that need not be there, and run nothing."""
    import triton as compiler
    from triton.backends.compiler import GPUTarget

    from kinkcheck.kernels import triton_jit

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    def prepare(capability: int) -> list[Any]:
        launched: list[Any] = []
        driver = SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", capability, 32),
            get_current_device=lambda: -capability,  # no key of a device that is there
            get_current_stream=lambda device: 0,
        )
        monkeypatch.setattr(compiler.runtime.driver, "_active", driver)

        def launch(form: Any, kernel: str, programs: int, **arguments: Any) -> None:
            function = getattr(triton_jit, kernel)
            launched.append(function.warmup(**arguments, **form.common, grid=(programs,)))

        monkeypatch.setattr(triton._Form, "_launch", launch)
        return launched

    return prepare


@compiled
@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        (80, torch.float16),
        (80, torch.bfloat16),
        (90, torch.bfloat16),
        (90, torch.float32),
        (90, torch.float64),
    ],
    ids=str,
)
@pytest.mark.slow
def test_compiled_kernels_round_every_operation_and_are_not_atomic(
    compile_for: Callable[[int], list[Any]], capability: int, dtype: torch.dtype
) -> None:
    launched = compile_for(capability)
    x = torch.zeros(2, 3, 64, 64, dtype=dtype)
    grad_output = torch.zeros(2, 3, 32, 32, dtype=dtype)
    for kernel, padding in ((2, 0), (3, 1)):
        windows = SlidingWindows((kernel,) * 2, (2, 2), (padding,) * 2, (1, 1), False)
        for selection in (Hybrid(10), Random(7)):
            triton.max_pool_vjp(grad_output, x, windows, selection)
        triton.max_pool_jvp(x, x, windows, Hybrid(10))
    triton.max_pool_with_ties(x, windows)
    assert len(launched) == 9
    for kernel in launched:
        code = kernel.asm["ptx"]
        # Capability 80 has no addition in bfloat16: it takes fma.rn.bf16 with a factor of 1.
        assert not re.search(r"\bfma\.rn\.f|\bmad\.\S*f\d\d|\.ftz|\batom|\bred\.", code)


# --- on a GPU -------------------------------------------------------------------------------------

GEOMETRIES = [
    ((32, 64, 56, 56), SlidingWindows((2, 2), (2, 2), (0, 0), (1, 1), False)),
    ((32, 64, 57, 55), SlidingWindows((2, 2), (2, 2), (0, 0), (1, 1), True)),
    ((32, 64, 57, 55), SlidingWindows((2, 2), (3, 2), (0, 0), (1, 1), False)),
    ((32, 64, 56, 56), SlidingWindows((3, 3), (2, 2), (1, 1), (1, 1), False)),
    ((8, 32, 40, 40), SlidingWindows((5, 5), (1, 1), (2, 2), (1, 1), False)),
    ((8, 32, 40, 40), SlidingWindows((3, 2), (2, 1), (1, 0), (2, 3), True)),
    ((64, 30, 30), SlidingWindows((3, 3), (2, 2), (1, 1), (1, 1), False)),
    ((16, 64, 1000), SlidingWindows((4,), (3,), (2,), (1,), False)),
    ((4, 16, 17, 18, 19), SlidingWindows((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1), False)),
    ((0, 16, 17, 18, 19), SlidingWindows((2, 2, 2), (2, 2, 2), (0, 0, 0), (1, 1, 1), False)),
]


@gpu
@pytest.mark.parametrize(
    ("dtype", "memory"),
    [*((dtype, "contiguous") for dtype in DTYPES), *((torch.bfloat16, m) for m in MEMORY[1:])],
    ids=str,
)
@pytest.mark.parametrize(("shape", "windows"), GEOMETRIES, ids=str)
def test_gpu_equals_the_reference(
    shape: tuple[int, ...], windows: SlidingWindows, dtype: torch.dtype, memory: str
) -> None:
    for palette in ((-1.0, 0.0, 0.0, 1.0), (nan, -inf, -inf, -inf, -inf, 1.0, -0.0, 0.0)):
        x = laid_out(filled(shape, palette, dtype, 0).cuda(), memory, windows.dimensions)
        assert triton.accepts(x, windows)
        for selection in SELECTIONS:
            assert_equals_reference(x, windows, selection, seed=1)


@gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("memory", MEMORY, ids=str)
@pytest.mark.parametrize(
    ("shape", "windows"), [case for case in GEOMETRIES if case[1].dimensions < 3], ids=str
)
def test_gpu_native_is_pytorch_s(
    shape: tuple[int, ...], windows: SlidingWindows, dtype: torch.dtype, memory: str
) -> None:
    x = filled(shape, (-1.0, 0.0, 0.0, 1.0), dtype, 0).cuda()
    x = laid_out(x, memory, windows.dimensions).requires_grad_()
    value = windows.torch_max_pool(x)
    grad_output = torch.randn_like(value)
    (expected,) = torch.autograd.grad(value, x, grad_output)
    assert_same(triton.max_pool_vjp(grad_output, x, windows, Native()), expected)


@gpu
@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_gpu_gives_the_same_every_time(selection: Selection) -> None:
    windows = SlidingWindows((3, 3), (1, 1), (1, 1), (1, 1), False)
    x = filled((64, 64, 56, 56), (0.0, 1.0), torch.float32, 0).cuda()
    grad_output = torch.randn_like(x)
    first = triton.max_pool_vjp(grad_output, x, windows, selection)
    for _ in range(5):
        assert torch.equal(triton.max_pool_vjp(grad_output, x, windows, selection), first)


@gpu
@pytest.mark.skipif(
    not GPU or torch.cuda.get_device_properties(0).total_memory < 40 * 2**30,
    reason="needs 40 GiB of GPU memory",
)
@pytest.mark.parametrize("kernel", [2, 3], ids=["apart", "overlapping"])
def test_gpu_takes_more_than_32_bits_of_elements(kernel: int) -> None:
    windows = SlidingWindows((kernel,), (2,), (0,), (1,), False)
    x = torch.randint(0, 3, (3, 2**30), dtype=torch.int8, device="cuda").half()
    value = triton.max_pool(x, windows)
    grad_input = triton.max_pool_vjp(value, x, windows, Minimal())
    for channel in range(3):
        one = slice(channel, channel + 1)
        expected = triton.max_pool(x[one], windows)
        assert torch.equal(value[one], expected)
        assert torch.equal(
            grad_input[one], triton.max_pool_vjp(expected, x[one], windows, Minimal())
        )
