"""The bar of a measurement: of the command line, and in Python on request."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

from kinkcheck.terminal import Terminal

_MUCH = 0.1
"""Of the memory that is free: what is worth a line where no bar is drawn, as in a log."""

_SILENCE = 60.0
"""Seconds between two lines about points where no bar is drawn."""


class Watching(NamedTuple):
    """What a measurement calls.

    Attributes:
        on_memory: before it starts, with how many bytes it takes.
        on_planned: before the first point, with how many there are.
        on_point: after each point, with how many are done and in all.
    """

    on_memory: Callable[[int], None]
    on_planned: Callable[[int], None]
    on_point: Callable[[int, int], None]


@contextmanager
def progress(console: Terminal, device: str, doing: str = "Auditing") -> Iterator[Watching]:
    """A bar, which says how much memory the measurement takes; a line if that is much.

    Args:
        console: where; what is no terminal gets a line, if the measurement takes long, and others
            from time to time.
        device: whose memory it takes.
        doing: what is said of it.

    >>> with progress(Terminal(), "cpu") as watching:
    ...     watching.on_point(1, 2)
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal
    late = console.waiting(f"{doing} ...") if hidden else nullcontext()
    with late, Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(doing, total=None)

        def on_memory(needed: int) -> None:
            bar.update(task, description=f"{doing}, with about {_bytes(needed)} of memory")
            free = _available(device)
            if free is not None and needed > free * _MUCH:
                console.tell(
                    f"kinkcheck: takes about {_bytes(needed)} of memory, and {_bytes(free)} are "
                    f"free{'; smaller mini-batches take less' if needed > free else ''}"
                )

        def on_planned(total: int) -> None:
            bar.update(task, total=total, refresh=True)  # the first point may take long

        said = time.monotonic()

        def on_point(done: int, total: int) -> None:
            nonlocal said
            bar.update(task, completed=done, total=total)
            if hidden and done < total and time.monotonic() - said > _SILENCE:
                said = time.monotonic()
                console.tell(f"kinkcheck: {doing}: {done} of {total}")

        yield Watching(on_memory, on_planned, on_point)


@contextmanager
def watched(
    shown: bool,
    device: str,
    on_memory: Callable[[int], None],
    on_point: Callable[[int, int], None],
    doing: str = "Auditing",
) -> Iterator[Watching]:
    """What a measurement calls: the caller's functions, and those of a bar if one is shown.

    Args:
        shown: whether a bar is shown, on standard error.
        device: whose memory the measurement takes.
        on_memory: the caller's.
        on_point: the caller's.
        doing: what the bar says.

    >>> with watched(False, "cpu", print, print) as watching:
    ...     watching.on_point(1, 2)
    1 2
    """
    if not shown:
        yield Watching(on_memory, lambda total: None, on_point)
        return
    console = Terminal(stderr=True)
    if console.is_jupyter:  # a notebook shows one line that is written anew, as a terminal does
        console = Terminal(stderr=True, force_jupyter=False, force_terminal=True)
    with progress(console, device, doing) as bar:

        def memory(needed: int) -> None:
            bar.on_memory(needed)
            on_memory(needed)

        def point(done: int, total: int) -> None:
            bar.on_point(done, total)
            on_point(done, total)

        yield Watching(memory, bar.on_planned, point)


def _available(device: str) -> int | None:
    """The memory that is free for a device, in bytes; None where that cannot be known."""
    import torch  # not before a command has checked what can be checked without it

    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if torch.device(device).type != "cpu":
        return None
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
