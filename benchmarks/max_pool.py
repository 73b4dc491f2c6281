"""Max pooling under hybrid(10) against PyTorch's own, in one run: ratios of medians.

    python benchmarks/max_pool.py          the rows that the project promises
    python benchmarks/max_pool.py --grid   also every other case: none may be slower
    python benchmarks/max_pool.py --cpu-time --threads 1
    python benchmarks/max_pool.py --fresh  large tensors in memory that is fresh at every call

Memory is used again on both sides, unless it is to be ``--fresh``: to
clear fresh pages takes longer than to pool. With ``--cpu-time`` the processor's time is measured
instead of the clock's: on a busy machine, with one thread, it says more. See README.md in this
folder for what limits each case.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kinkcheck import kernels
from kinkcheck.kernels import SlidingWindows
from kinkcheck.selection import Hybrid
from timing import keep_large_blocks, medians, where

POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
HYBRID = Hybrid(10)


@dataclass(frozen=True)
class Case:
    """One geometry, shape, dtype and layout, and how much faster it is promised to be."""

    geometry: tuple[int, int, int, int]
    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool
    promised: float = 1.0

    @property
    def name(self) -> str:
        kernel, stride, padding, dilation = self.geometry
        shape = "×".join(map(str, self.shape))
        layout = "channels_last" if self.channels_last else "contiguous"
        dilated = f" d{dilation}" if dilation > 1 else ""
        dtype = str(self.dtype).removeprefix("torch.")
        return f"k{kernel} s{stride} p{padding}{dilated}  {shape}  {dtype}  {layout}"

    def input(self) -> Tensor:
        """The output of a ReLU: a quarter and more of the windows are tied at zero."""
        x = torch.randn(self.shape).relu_().to(self.dtype)
        if not self.channels_last:
            return x
        if x.dim() == 3:
            return x.transpose(1, 2).contiguous().transpose(1, 2)
        format = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
        return x.contiguous(memory_format=format)


F32, F64, F16, BF16 = torch.float32, torch.float64, torch.float16, torch.bfloat16
TWO, THREE = (2, 2, 0, 1), (3, 2, 1, 1)
SMALL_IMAGE, LARGE_IMAGE = (128, 64, 32, 32), (64, 64, 56, 56)
PROMISED = [
    Case(TWO, SMALL_IMAGE, F32, False, 15),
    Case(TWO, SMALL_IMAGE, F32, True, 2),
    *(Case(TWO, SMALL_IMAGE, dtype, last, 4) for dtype in (F16, BF16) for last in (False, True)),
    Case(THREE, LARGE_IMAGE, F32, False, 5),
    Case(THREE, LARGE_IMAGE, F32, True, 1.5),
]
GRID = [
    Case(geometry, shape, dtype, last)
    for geometry, shape, dtype, last in product(
        [TWO, THREE, (3, 1, 1, 1), (3, 3, 0, 1), (2, 1, 0, 1), (3, 2, 1, 2), (5, 2, 2, 1)],
        [(32, 64, 1024), (32, 64, 28, 28), (32, 256, 8, 8), (4, 32, 16, 28, 28)],
        [F32, F64, F16, BF16],
        [False, True],
    )
]


@dataclass(frozen=True)
class Times:
    """Milliseconds, forward and backward."""

    torch: tuple[float, float]
    ours: tuple[float, float]
    formula: float
    copy: float

    @property
    def faster(self) -> float:
        return sum(self.torch) / sum(self.ours)


def measure(case: Case, clock: Callable[[], float], with_formula: bool) -> Times:
    kernel, stride, padding, dilation = case.geometry
    x = case.input()
    d = x.dim() - 2
    windows = SlidingWindows(
        (kernel,) * d, (stride,) * d, (padding,) * d, (dilation,) * d, ceil_mode=False
    )
    leaf = x.clone().requires_grad_()

    def forward() -> Tensor:
        return POOLS[d](leaf, kernel, stride, padding, dilation)

    def formula() -> None:
        # The published way to weigh ties: two pools with two backward passes.
        value = 10 * forward() + (1 - 10) * forward()
        torch.autograd.grad(value, leaf, gradient)

    value = forward()
    gradient = torch.randn_like(value)
    plain = value.detach()
    runs: list[Callable[[], object]] = [
        forward,
        lambda: torch.autograd.grad(value, leaf, gradient, retain_graph=True),
        lambda: kernels.max_pool(x, windows),
        lambda: kernels.max_pool_vjp(gradient, x, windows, HYBRID),
        lambda: (x.clone(), plain.clone(), x.clone(), plain.clone()),
    ]
    if with_formula:
        runs.append(formula)
    seconds = medians(*runs, repeats=50, enough=0.2 * len(runs), clock=clock)
    milliseconds = [1000 * second for second in seconds]
    return Times(
        torch=(milliseconds[0], milliseconds[1]),
        ours=(milliseconds[2], milliseconds[3]),
        copy=milliseconds[4],
        formula=milliseconds[5] if with_formula else float("nan"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", action="store_true", help="also every other case")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="measure processor time")
    parser.add_argument("--fresh", action="store_true", help="let glibc map large tensors afresh")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    console = Console(width=132)
    console.print(f"{where()}, {kernels.in_use()}")
    reused = not options.fresh and keep_large_blocks()
    console.print(
        "processor time" if options.cpu_time else "wall-clock time",
        f"in ms, medians of runs that take turns, {'reused' if reused else 'fresh'} memory",
    )

    table = Table("case", title="forward + backward, hybrid(10)")
    for heading in ("PyTorch", "kinkcheck", "faster", "promised", "formula", "copies"):
        table.add_column(heading, justify="right")
    for case in PROMISED:
        times = measure(case, clock, with_formula=True)
        table.add_row(
            case.name,
            "{:.2f} + {:.2f}".format(*times.torch),
            "{:.2f} + {:.2f}".format(*times.ours),
            f"{times.faster:.1f}×",
            f"{case.promised:g}×",
            f"{times.formula / sum(times.ours):.0f}×",
            f"{sum(times.ours) / times.copy:.2f}",
        )
    console.print(table)
    console.print("formula: how much faster than two pools, β·a + (1 − β)·b.")
    console.print("copies: time over that of copying input and output twice.")

    if options.grid:
        cases = [(case, measure(case, clock, with_formula=False)) for case in GRID]
        cases.sort(key=lambda item: item[1].faster)
        slower = sum(times.faster < 1 for _, times in cases)
        shown = max(slower, 10)
        table = Table("case", title=f"the grid: {len(cases)} cases, every slower one first")
        for heading in ("PyTorch", "kinkcheck", "faster"):
            table.add_column(heading, justify="right")
        for case, times in cases[:shown]:
            table.add_row(
                case.name,
                "{:.2f} + {:.2f}".format(*times.torch),
                "{:.2f} + {:.2f}".format(*times.ours),
                f"{times.faster:.2f}×",
            )
        console.print(table)
        middle = statistics.median(times.faster for _, times in cases)
        console.print(f"{slower} of {len(cases)} slower than PyTorch; median {middle:.1f}× faster.")


if __name__ == "__main__":
    main()
