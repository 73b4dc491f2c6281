"""What the benchmarks share: medians of runs that take turns, and tables that say where."""

from __future__ import annotations

import ctypes
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.table import Table

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # <malloc.h>
_NEVER = -1


def keep_large_blocks() -> bool:
    """Let glibc use the memory of large tensors again instead of giving each back at once.

    By default it asks the system for every block above 32 MiB anew, which then clears each page.
    That was a seventh of the time of an audit of VGG-11, and nothing that a benchmark of kernels
    asks for. A long audit that did so held twice the memory that it used, in pieces.

    Returns:
        Whether the allocator took it; False where it is not glibc's.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


def medians(
    *runs: Callable[[], object],
    repeats: int,
    enough: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Median seconds of each run; the runs take turns, so that a busy spell hits all of them.

    Args:
        runs: what to measure. The first turn is not counted.
        repeats: how many turns to count.
        enough: seconds after which three turns are enough.
        clock: what tells the time.
    """
    seconds: list[list[float]] = [[] for _ in runs]
    begin = time.perf_counter()
    for turn in range(repeats + 1):
        if turn > 3 and time.perf_counter() - begin > enough:
            break
        for run, measured in zip(runs, seconds, strict=True):
            start = clock()
            run()
            measured.append(clock() - start)
    return [statistics.median(measured[1:]) for measured in seconds]


def where() -> str:
    """Processor, threads and version, for the title of a table."""
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def table(title: str, left: list[str], right: list[str]) -> Table:
    """An empty table with columns of text and columns of numbers."""
    empty = Table(title=title, title_justify="left")
    for heading in left:
        empty.add_column(heading)
    for heading in right:
        empty.add_column(heading, justify="right")
    return empty


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
