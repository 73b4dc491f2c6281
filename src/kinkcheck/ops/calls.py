"""Which calls of PyTorch are which nonsmooth operation."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from kinkcheck.ops import max_pool, relu
from kinkcheck.ops.declared import Declared
from kinkcheck.ops.operation import Choice, Operation
from kinkcheck.ops.row import Row
from kinkcheck.ops.table import ROWS

_Reader = Callable[[tuple[Any, ...], dict[str, Any]], Operation | None]

_NAMESPACES = (F, torch, Tensor, torch._C._nn)


def operation(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operation | None:
    """The nonsmooth operation that a call of a PyTorch function is, or None.

    None also for tensors that kinkcheck's autograd functions do not take: of integers, sparse,
    nested, quantised and meta tensors, and where a tensor to write to is given (``out=``), which
    PyTorch does not differentiate.

    >>> call = operation(F.relu, (torch.zeros(3),), {"inplace": True})
    >>> call.name, call.ties().windows
    ('relu', 3)
    >>> operation(torch.exp, (torch.zeros(3),), {}) is None
    True
    """
    if kwargs.get("out") is not None:
        return None
    for read in _READERS.get(function, {}).values():
        found = read(args, kwargs)
        if found is not None and all(
            kind_of(each) == "dense" and each.is_floating_point() for each in found.inputs
        ):
            return found
    return None


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
    if tensor.is_meta:
        return "meta"
    return "complex" if tensor.is_complex() else "dense"


def call(operation: Operation, choice: Choice) -> Any:
    """Carry out an operation; a recording tape sees the call and may choose otherwise.

    Args:
        operation: the call of a nonsmooth operation.
        choice: whom to ask for the selection at backward time.

    >>> from kinkcheck.ops import ReLU
    >>> from kinkcheck.selection import Branch
    >>> x = torch.zeros(1, requires_grad=True)
    >>> call(ReLU(x), Branch(0.5)).backward()
    >>> x.grad
    tensor([0.5000])
    """
    if has_torch_function_unary(operation.inputs[0]):
        return handle_torch_function(call, operation.inputs, operation, choice)
    return operation.apply(choice)


def _declared(
    row: Row, compute: Any, in_place: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Operation | None:
    """The call of an operation that a row declares; ``compute`` is PyTorch's, out of place."""
    assert row.read is not None
    original = None if in_place is None else partial(in_place, *args, **kwargs)
    place = _FLAG.get(row)
    if place is not None and in_place is None:
        flagged = kwargs.get("inplace", args[place] if len(args) > place else False)
        original = partial(compute, *args, **kwargs) if flagged else None
        args = args[:place]
        kwargs = {name: value for name, value in kwargs.items() if name != "inplace"}
    if "input" in kwargs:
        args, kwargs = (kwargs["input"],), {n: v for n, v in kwargs.items() if n != "input"}
    try:
        branches = row.read(*args, **kwargs)
    except (IndexError, RuntimeError, TypeError, ValueError):
        return None  # PyTorch refuses such a call in its own words
    if branches is None or (original is not None and not args[0].is_floating_point()):
        return None
    return Declared(row, branches, compute, args, kwargs, original)


def functions(row: Row) -> Iterator[tuple[Any, Any, Any]]:
    """What PyTorch has of a row: a function to read, the same out of place, and itself if in."""
    for name in row.spellings.split():
        if "." in name:
            module, _, name = name.rpartition(".")
            yield from _in(operator.attrgetter(module)(torch), name)
            continue
        for namespace in _NAMESPACES:
            yield from _in(namespace, name)
        packet = getattr(torch.ops.aten, name, None)
        if packet is not None:
            yield from ((each, each, None) for each in _overloads(packet))
            if hasattr(torch.ops.aten, f"{name}_"):
                written = getattr(torch.ops.aten, f"{name}_")
                yield from ((each, packet, each) for each in _overloads(written))


def _in(namespace: Any, name: str) -> Iterator[tuple[Any, Any, Any]]:
    plain, in_place = (getattr(namespace, name + suffix, None) for suffix in ("", "_"))
    if plain is not None:
        yield plain, plain, None
    if plain is not None and in_place is not None:
        yield in_place, plain, in_place


def _overloads(packet: Any) -> list[Any]:
    return [packet, *(getattr(packet, each) for each in packet.overloads())]


_FLAG = {
    row: list(inspect.signature(row.read).parameters).index("inplace")
    for row in ROWS
    if row.read and "inplace" in inspect.signature(row.read).parameters
}
"""Where among its arguments an operation is told to write to its input."""

_READERS: dict[Any, dict[Row | None, _Reader]] = {}
"""The readers of each function of PyTorch, by row; one at most finds its operation in a call."""

for _row in ROWS:
    if _row.read is not None:
        for _function, _compute, _in_place in functions(_row):
            _reader = partial(_declared, _row, _compute, _in_place)
            _READERS.setdefault(_function, {})[_row] = _reader


def _fast(read: Callable[..., Operation | None]) -> _Reader:
    return lambda args, kwargs: read(*args, **kwargs)


for _table in (max_pool.READERS, relu.READERS):
    _READERS |= {function: {None: _fast(read)} for function, read in _table.items()}
