"""How the process gets memory from the system, and how much there is."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # <malloc.h>
_NEVER = -1


def keep_large_blocks() -> bool:
    """Let glibc use the memory of large tensors again instead of giving each back at once.

    By default it asks the system for every large block anew, which then clears each page of it:
    that took a sixth of the time of an audit of VGG-11. What the process holds at its peak stays
    the same, but it keeps that until it ends. So this is for programs, not for libraries: the
    command line calls it.

    Returns:
        Whether the allocator took it; False where it is not glibc's.

    >>> keep_large_blocks() in (True, False)
    True
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


def give_back() -> bool:
    """Give the system the memory that :func:`keep_large_blocks` kept and nothing uses.

    For between two long pieces of work: the second should not hold what only the first needed.

    Returns:
        Whether there was any; False also where the allocator is not glibc's.

    >>> give_back() in (True, False)
    True
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError, TypeError):
        return False


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
