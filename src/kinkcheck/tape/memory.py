"""Tensors among other things, and the memory that they share."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def address(tensor: Tensor) -> int | None:
    """What tensors that share memory have in common; None where a tensor has none of its own.

    >>> import torch
    >>> x = torch.ones(2, 2)
    >>> address(x) == address(x[0]), address(x) == address(x.clone())
    (True, False)
    """
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse tensors, those of torch.func
        return None


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors among arguments or results, also of lists.

    >>> import torch
    >>> len(tensors_in((torch.ones(1), 2, [torch.ones(1), None])))
    2
    """
    found: list[Tensor] = []
    for value in values if isinstance(values, list | tuple) else (values,):
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_in(value)
    return found
