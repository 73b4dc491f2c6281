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
from kinkcheck.selection import Minimal
from timing import keep_large_blocks, medians, table, where

PROMISED = 1.3

CASES: dict[str, Callable[[Tensor, Tensor], partial[Any]]] = {
    "relu": lambda x, _: partial(F.relu, x),
    "hardtanh": lambda x, _: partial(F.hardtanh, x, -1.0, 1.0),
    "relu6": lambda x, _: partial(F.relu6, x),
    "leaky_relu": lambda x, _: partial(F.leaky_relu, x, 0.01),
    "abs": lambda x, _: partial(torch.abs, x),
    "amax": lambda x, _: partial(torch.amax, x, -1),
    "amin": lambda x, _: partial(torch.amin, x, -1),
    "maximum": lambda x, other: partial(torch.maximum, x, other),
    "minimum": lambda x, other: partial(torch.minimum, x, other),
    "median": lambda x, _: partial(torch.median, x, -1),
    "sort": lambda x, _: partial(torch.sort, x, -1),
    "topk": lambda x, _: partial(torch.topk, x, 4),
    "cummax": lambda x, _: partial(torch.cummax, x, -1),
    "max_pool2d": lambda x, _: partial(F.max_pool2d, x, 2),
    "norm_pool2d": lambda x, _: partial(F.lp_pool2d, x, 2.0, 2),
    "norm": lambda x, _: partial(torch.norm, x, 2, -1),
    "norm_1": lambda x, _: partial(torch.norm, x, 1, -1),
    "norm_inf": lambda x, _: partial(torch.norm, x, float("inf"), -1),
    "dist": lambda x, other: partial(torch.dist, x, other),
    "cdist": lambda x, _: partial(torch.cdist, *_points(x), 2.0),
    "cdist_1": lambda x, _: partial(torch.cdist, *_points(x), 1.0),
    "cdist_inf": lambda x, _: partial(torch.cdist, *_points(x), float("inf")),
    "scatter_reduce": lambda x, _: partial(torch.scatter_reduce, *_brought(x), "amax"),
    "index_reduce": lambda x, _: partial(torch.index_reduce, *_brought(x), "amax"),
    "segment_reduce": lambda x, _: partial(
        torch.segment_reduce, _columns(x), "max", lengths=torch.full((1024,), 16)
    ),
    "embedding_bag": lambda x, _: partial(
        F.embedding_bag, torch.arange(16384).reshape(1024, 16), _columns(x), mode="max"
    ),
}
"""A call of PyTorch's function on a tensor, and on another one."""


def smooth(shift: float) -> Tensor:
    """Rows of 64 distinct numbers in random order, also in float16, none of them at a kink."""
    order = torch.rand(16, 16, 64, 64).argsort(-1)
    return (order - 31.7) / 8 + shift


def _points(x: Tensor) -> tuple[Tensor, Tensor]:
    """Two times 1,024 points, so that there are a million distances."""
    return x.reshape(-1, 64)[:1024], torch.rand(1024, 64).to(x.dtype)


def _brought(x: Tensor) -> tuple[Tensor, int, Tensor, Tensor]:
    """All entries to where those of their row go, in random order."""
    order = torch.randperm(x.numel())
    start = x.new_full((x.numel() // 64,), -100.0)
    return start, 0, order // 64, x.flatten()[order]


def _columns(x: Tensor) -> Tensor:
    """Rows of 64 entries; in every column, 64 of them have distinct ones."""
    return x.transpose(-1, -2).reshape(-1, 64)


def measured(name: str, dtype: torch.dtype, clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds of PyTorch's function and of the row, forward and backward."""
    case = CASES[name](smooth(0.0).to(dtype), smooth(0.04).to(dtype))
    args = [_leaf(each) for each in case.args]
    plain = partial(case.func, *args, **case.keywords)
    leaves = [each for each in args if isinstance(each, Tensor) and each.requires_grad]
    gradient = torch.randn(_first(plain()).shape).to(dtype)

    def run(compute: Callable[[], Any]) -> None:
        torch.autograd.grad(_first(compute()), leaves, gradient)

    def declared() -> Any:
        operation = ops.operation(plain.func, plain.args, plain.keywords)
        assert operation is not None
        return ops.call(operation, Minimal())

    theirs, ours = medians(
        partial(run, plain), partial(run, declared), repeats=31, enough=4, clock=clock
    )
    return theirs, ours


def _leaf(given: Any) -> Any:
    is_real = isinstance(given, Tensor) and given.is_floating_point()
    return given.detach().clone().requires_grad_() if is_real else given


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
            try:
                plain, ours = measured(name, dtype, clock)
            except NotImplementedError:  # PyTorch has it in other types alone
                continue
            ratio = ours / plain
            shown = f"{ratio:.2f}" if ratio <= PROMISED else f"[bold red]{ratio:.2f}[/]"
            kind = str(dtype).removeprefix("torch.")
            rows.add_row(name, kind, f"{1e3 * plain:.2f}", f"{1e3 * ours:.2f}", shown)
    Console().print(rows)


if __name__ == "__main__":
    main()
