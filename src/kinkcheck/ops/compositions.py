"""Functions of PyTorch that are written with others, of which some are nonsmooth.

PyTorch carries them out in one call, out of sight. Here each is written once more as PyTorch
writes it, so that value and native derivative are its own bit for bit, and the nonsmooth operations
inside are sites.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The smallest and the largest entry.

    >>> aminmax(torch.tensor([1.0, 3.0]))
    torch.return_types.aminmax(
    min=tensor(1.),
    max=tensor(3.))
    """
    over = () if dim is None else dim
    extremes = torch.amin(input, over, keepdim), torch.amax(input, over, keepdim)
    return torch.return_types.aminmax(extremes)


COMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.aminmax: aminmax,
    Tensor.aminmax: aminmax,
}
"""What each function of PyTorch is written as."""
