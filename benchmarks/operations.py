"""Declared operations away from ties against PyTorch's own, forward and backward, in one run.

    python benchmarks/operations.py                    every row
    python benchmarks/operations.py --only hardtanh    one of them
    python benchmarks/operations.py --cpu-time         the processor's time on one thread

Each row is called on tensors of a million entries under ``minimal`` (``ops.call``, as a module of
kinkcheck.nn does it), and PyTorch's function on the same. The promise is a ratio of at most 1.3.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from kinkcheck import ops
from kinkcheck.arithmetic.allocator import keep_large_blocks
from kinkcheck.selection import Minimal
from timing import medians, table, where

PROMISED = 1.3

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "relu": (F.relu, ()),
    "hardtanh": (F.hardtanh, (-1.0, 1.0)),
    "relu6": (F.relu6, ()),
    "leaky_relu": (F.leaky_relu, (0.01,)),
    "abs": (torch.abs, ()),
    "amax": (torch.amax, (-1,)),
    "amin": (torch.amin, (-1,)),
    "maximum": (torch.maximum, ("other",)),
    "minimum": (torch.minimum, ("other",)),
    "max_pool2d": (F.max_pool2d, (2,)),
    "norm_pool2d": (F.lp_pool2d, (2.0, 2)),
    "norm": (torch.norm, (2, -1)),
    "norm_1": (torch.norm, (1, -1)),
    "norm_inf": (torch.norm, (float("inf"), -1)),
    "dist": (torch.dist, ("other",)),
}
"""Function of PyTorch and its other arguments; ``other`` stands for a second tensor."""


def smooth(shift: float) -> Tensor:
    """Rows of 64 distinct numbers in random order, also in float16, none of them at a kink."""
    order = torch.rand(16, 16, 64, 64).argsort(-1)
    return (order - 31.7) / 8 + shift


def measured(
    function: Any, arguments: tuple[Any, ...], dtype: torch.dtype, clock: Callable[[], float]
) -> tuple[float, float]:
    """Seconds of PyTorch's function and of the row, forward and backward."""
    x, other = (smooth(shift).to(dtype).requires_grad_() for shift in (0.0, 0.04))
    given = (x, *(other if each == "other" else each for each in arguments))
    output = _first(function(*given))
    gradient = torch.randn(output.shape).to(dtype)

    def run(compute: Callable[[], Any]) -> None:
        torch.autograd.grad(_first(compute()), x, gradient)

    def declared() -> Any:
        operation = ops.operation(function, given, {})
        assert operation is not None
        return ops.call(operation, Minimal())

    plain, ours = medians(
        partial(run, partial(function, *given)),
        partial(run, declared),
        repeats=31,
        enough=4,
        clock=clock,
    )
    return plain, ours


def _first(result: Any) -> Tensor:
    first: Tensor = result[0] if isinstance(result, tuple) else result
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=CASES, help="one row")
    parser.add_argument("--cpu-time", action="store_true", help="for a busy machine")
    given = parser.parse_args()
    if given.cpu_time:
        torch.set_num_threads(1)
    clock = time.process_time if given.cpu_time else time.perf_counter
    keep_large_blocks()
    torch.manual_seed(0)
    rows = table(
        f"Forward and backward on 16×16×64×64 entries, minimal; {where()}",
        ["row", "dtype"],
        ["PyTorch (ms)", "row (ms)", "ratio"],
    )
    for name in [given.only] if given.only else CASES:
        for dtype in (torch.float32, torch.float16):
            plain, ours = measured(*CASES[name], dtype, clock)
            ratio = ours / plain
            shown = f"{ratio:.2f}" if ratio <= PROMISED else f"[bold red]{ratio:.2f}[/]"
            kind = str(dtype).removeprefix("torch.")
            rows.add_row(name, kind, f"{1e3 * plain:.2f}", f"{1e3 * ours:.2f}", shown)
    Console().print(rows)


if __name__ == "__main__":
    main()
