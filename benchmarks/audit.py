"""How much faster is an audit point than the published procedure?

The published procedure (Boustany 2024) runs two networks that differ in their max pooling, each
forward and backward. An audit point runs one network forward once, and backward twice. Both take
the gradients of native and minimal on the same batch; the ratio of their medians is printed.

    python benchmarks/audit.py
"""

from __future__ import annotations

import copy
import platform
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import kinkcheck
from kinkcheck import networks


def published(native: nn.Module, minimal: nn.Module, x: Tensor, y: Tensor) -> None:
    for network in (native, minimal):
        torch.autograd.grad(F.cross_entropy(network(x), y), list(network.parameters()))


def recorded(network: nn.Module, x: Tensor, y: Tensor) -> None:
    with kinkcheck.record(network) as tape:
        loss = F.cross_entropy(network(x), y)
    for selection in ("native", "minimal"):
        tape.gradient(loss, choose=selection)


def medians(*runs: Callable[[], None], repeats: int) -> list[float]:
    """Median seconds of each run; the runs take turns, so that a busy spell hits all of them."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats + 1):
        for run, measured in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run()
            measured.append(time.perf_counter() - start)
    return [statistics.median(measured[1:]) for measured in seconds]


def measure(name: str, channels: int, size: int, repeats: int) -> list[str]:
    torch.manual_seed(0)
    network = networks.build(name, in_channels=channels, classes=10, image_size=size)
    minimal = kinkcheck.nn.convert(copy.deepcopy(network), max_pool="minimal")
    x, y = torch.randn(128, channels, size, size), torch.randint(0, 10, (128,))
    before, now = medians(
        lambda: published(network, minimal, x, y),
        lambda: recorded(network, x, y),
        repeats=repeats,
    )
    shape = "x".join(map(str, x.shape))
    return [name, shape, f"{before * 1e3:.1f}", f"{now * 1e3:.1f}", f"{before / now:.2f}"]


def main() -> None:
    where = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    table = Table(title=f"Audit point, native against minimal, float32; {where}")
    for heading in ("network", "input"):
        table.add_column(heading)
    for heading in ("published (ms)", "audit point (ms)", "ratio"):
        table.add_column(heading, justify="right")
    table.add_row(*measure("lenet5", channels=1, size=28, repeats=30))
    table.add_row(*measure("vgg11", channels=3, size=32, repeats=5))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
