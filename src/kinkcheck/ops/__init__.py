"""Nonsmooth operations: their branches, their native and minimal choice, their derivative.

One file an operation family. :func:`operation` tells which calls of PyTorch are one of them; a new
operation is a new file and its line in the table below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from kinkcheck.families import require_accepted
from kinkcheck.ops import max_pool, norm_pool, relu
from kinkcheck.ops.max_pool import MaxPool
from kinkcheck.ops.norm_pool import NormPool
from kinkcheck.ops.operation import Choice, Operation
from kinkcheck.ops.relu import ReLU

__all__ = [
    "OPERATIONS",
    "Choice",
    "MaxPool",
    "NormPool",
    "Operation",
    "ReLU",
    "call",
    "kind_of",
    "operation",
    "require_accepted",
]

OPERATIONS: tuple[type[Operation], ...] = (MaxPool, ReLU, NormPool)
"""The nonsmooth operations that kinkcheck knows."""

_READERS: dict[Any, Callable[..., Operation | None]] = {
    F.max_pool1d: max_pool.sliding(1),
    F.max_pool2d: max_pool.sliding(2),
    F.max_pool3d: max_pool.sliding(3),
    F.max_pool1d_with_indices: max_pool.sliding(1, with_indices=True),
    F.max_pool2d_with_indices: max_pool.sliding(2, with_indices=True),
    F.max_pool3d_with_indices: max_pool.sliding(3, with_indices=True),
    torch.max_pool1d: max_pool.sliding(1),
    torch.max_pool2d: max_pool.sliding(2),
    torch.max_pool3d: max_pool.sliding(3),
    torch.max_pool1d_with_indices: max_pool.sliding(1, with_indices=True),
    F.adaptive_max_pool1d: max_pool.adaptive(1),
    F.adaptive_max_pool2d: max_pool.adaptive(2),
    F.adaptive_max_pool3d: max_pool.adaptive(3),
    F.adaptive_max_pool1d_with_indices: max_pool.adaptive(1, with_indices=True),
    F.adaptive_max_pool2d_with_indices: max_pool.adaptive(2, with_indices=True),
    F.adaptive_max_pool3d_with_indices: max_pool.adaptive(3, with_indices=True),
    torch.adaptive_max_pool1d: max_pool.adaptive(1, with_indices=True),
    F.relu: relu.read,
    F.relu_: relu.read_inplace,
    torch.relu: relu.read,
    torch.relu_: relu.read_inplace,
    Tensor.relu: relu.read,
    Tensor.relu_: relu.read_inplace,
    F.lp_pool2d: norm_pool.read,
}
_ATEN_READERS: dict[str, Callable[..., Operation | None]] = {
    "max_pool1d": max_pool.sliding(1),
    "max_pool2d": max_pool.sliding(2),
    "max_pool3d": max_pool.sliding(3),
    "max_pool1d_with_indices": max_pool.sliding(1, with_indices=True),
    "max_pool2d_with_indices": max_pool.sliding(2, with_indices=True),
    "max_pool3d_with_indices": max_pool.sliding(3, with_indices=True),
    "adaptive_max_pool1d": max_pool.adaptive(1, with_indices=True),
    "adaptive_max_pool2d": max_pool.adaptive(2, with_indices=True),
    "adaptive_max_pool3d": max_pool.adaptive(3, with_indices=True),
    "relu": relu.read,
    "relu_": relu.read_inplace,
}
for _name, _reader in _ATEN_READERS.items():
    _packet = getattr(torch.ops.aten, _name)
    _READERS |= {_packet: _reader, _packet.default: _reader}


def operation(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operation | None:
    """The nonsmooth operation that a call of a PyTorch function is, or None.

    None also for tensors that kinkcheck's autograd functions do not take: sparse, nested,
    quantised and meta tensors.

    >>> call = operation(F.relu, (torch.zeros(3),), {"inplace": True})
    >>> call.name, call.ties().windows
    ('relu', 3)
    >>> operation(torch.exp, (torch.zeros(3),), {}) is None
    True
    """
    read = _READERS.get(function)
    found = None if read is None else read(*args, **kwargs)
    return found if found is not None and kind_of(found.input) == "dense" else None


def kind_of(tensor: Tensor) -> str:
    """How a tensor keeps its entries.

    >>> [kind_of(tensor) for tensor in (torch.eye(2), torch.eye(2).to_sparse())]
    ['dense', 'sparse_coo']
    """
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return str(tensor.layout).removeprefix("torch.").removeprefix("_")
    if tensor.is_quantized:
        return "quantised"
    return "meta" if tensor.is_meta else "dense"


def call(operation: Operation, choice: Choice) -> Any:
    """Carry out an operation; a recording tape sees the call and may choose otherwise.

    Args:
        operation: the call of a nonsmooth operation.
        choice: whom to ask for the selection at backward time.

    >>> from kinkcheck.selection import Branch
    >>> x = torch.zeros(1, requires_grad=True)
    >>> call(ReLU(x), Branch(0.5)).backward()
    >>> x.grad
    tensor([0.5000])
    """
    if has_torch_function_unary(operation.input):
        return handle_torch_function(call, (operation.input,), operation, choice)
    return operation.apply(choice)
