"""How the process gets memory from the system, and how much there is."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # <malloc.h>
_NEVER = -1
_MUCH = 1 << 30  # bytes, beside which giving back and asking anew takes no time

_keeps = False


def keep_large_blocks() -> bool:
    """Let glibc use the memory of large tensors again instead of giving each back at once.

    By default it asks the system for every large block anew, which then clears each page of it:
    that took a sixth of the time of an audit of VGG-11. But the process keeps what it held at its
    peak until :func:`give_back`, and holds more over time, as what is free is in pieces. So this is
    for programs, not for libraries: the command line calls it.

    Returns:
        Whether the allocator took it; False where it is not glibc's.

    >>> keep_large_blocks() in (True, False)
    True
    """
    global _keeps
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    _keeps = bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
    return _keeps


def give_back() -> bool:
    """Give the system the memory that :func:`keep_large_blocks` kept and nothing uses.

    For between two pieces of work: the second should not hold what only the first needed, nor find
    room in pieces of it alone. Where the process holds less than a GiB it does nothing.

    Returns:
        Whether it gave any back.

    >>> give_back() in (True, False)
    True
    """
    return _keeps and _held() >= _MUCH and bool(ctypes.CDLL(None).malloc_trim(0))


def _held() -> int:
    """The memory that the process holds, in bytes; all of it where that cannot be known."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return _MUCH


def available(device: str) -> int | None:
    """The memory that is free for a device, in bytes; None where that cannot be known.

    >>> available("cpu") is None or available("cpu") > 0
    True
    """
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
