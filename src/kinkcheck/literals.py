"""Python numbers as PyTorch takes them beside a tensor.

A number that is written in a model is a float64, and no tensor of another type ever meets it as
such: ``x - 0.1`` with x in float32 subtracts float32(0.1). Beside 16-bit tensors some operations
take it in float32 and others in the type of the tensor. Which do, depends on the device and on the
version of PyTorch (2.13 on a CPU: multiplication and division in float32, addition and subtraction
in the type of the tensor), so that it is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch


def as_taken(
    number: float, operation: Callable[..., Any], dtype: torch.dtype, device: torch.device
) -> float:
    """A Python number as an elementwise operation takes it beside a tensor.

    Args:
        number: it.
        operation: ``operator.add``, ``sub``, ``mul`` or ``truediv``.
        dtype: of the tensor, a floating-point type.
        device: of the tensor.

    >>> import operator
    >>> as_taken(0.1, operator.sub, torch.float32, torch.device("cpu"))
    0.10000000149011612
    """
    taken = torch.tensor(float(number), dtype=_taken_in(operation, dtype, device))
    return float(taken.item())


@cache
def _taken_in(
    operation: Callable[..., Any], dtype: torch.dtype, device: torch.device
) -> torch.dtype:
    if dtype not in (torch.float16, torch.bfloat16):
        return dtype
    eps = torch.finfo(dtype).eps
    # 1 + 0.4 eps is 1 in this type. Otherwise each operation on one of these tells the two apart.
    x = torch.tensor([-1.0, 1.0, 2.0 - eps], dtype=dtype, device=device)
    same = torch.equal(operation(x, 1 + 0.4 * eps), operation(x, 1.0))
    return dtype if same else torch.float32
