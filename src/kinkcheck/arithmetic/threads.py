"""How many threads PyTorch computes with on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kinkcheck.ranges import require_threads


@contextmanager
def of_threads(number: int | None) -> Iterator[None]:
    """Compute with so many threads while the block runs; None for as many as there are.

    Sums round otherwise with another number, in float32 and below.

    Raises:
        InputError: so many cannot be had.

    >>> with of_threads(1):
    ...     torch.get_num_threads()
    1
    """
    require_threads(number)
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
