"""The settings of PyTorch under which a trial gives the same numbers every time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_memory: Any = torch.utils.deterministic  # its attribute is not declared


@contextmanager
def deterministic(device: str, threads: int, seed: int) -> Iterator[None]:
    """Deterministic algorithms, a number of threads and a random state; all put back at the end.

    Sums are split among threads, so another number of threads rounds otherwise. On CUDA, operations
    that have no deterministic algorithm warn once and stay as they are; none of the built-in
    networks has one.

    Args:
        device: where the work is done.
        threads: of the CPU.
        seed: of PyTorch's global generators, for networks that draw in their forward pass.

    >>> with deterministic("cpu", 1, seed=0):
    ...     torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    (1, True)
    """
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.get_num_threads()
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filling = _memory.fill_uninitialized_memory
    cudnn = torch.backends.cudnn
    flags = cudnn.flags(
        enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=cudnn.allow_tf32
    )
    with torch.random.fork_rng(), flags:
        try:
            torch.manual_seed(seed)
            if threads != before:
                torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(True, warn_only=True)
            # Filling memory that is about to be overwritten costs time and changes no result.
            _memory.fill_uninitialized_memory = False
            yield
        finally:
            if threads != before:
                torch.set_num_threads(before)
            torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
            _memory.fill_uninitialized_memory = filling


def flags(device: str) -> dict[str, Any]:
    """What :func:`deterministic` sets on a device, for the record.

    >>> flags("cpu")
    {'deterministic_algorithms': True, 'cudnn_benchmark': False, 'cublas_workspace': None}
    """
    on_cuda = torch.device(device).type == "cuda"
    return {
        "deterministic_algorithms": True,
        "cudnn_benchmark": False,
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG") if on_cuda else None,
    }
