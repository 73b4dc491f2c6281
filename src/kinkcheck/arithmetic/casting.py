"""Casting in place: the tensors of a program hold other numbers for a while.

A copy of a model is another program: hooks that close over the model, penalties on its parameters,
patched forwards and cached references keep pointing at the original. So the tensors themselves get
other data, in another precision, and their own back afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from kinkcheck.arithmetic.precision import Precision
from kinkcheck.interrupts import afterwards
from kinkcheck.reach import fixed, namespaces

_ATOMS = (type(None), bool, int, float, str, bytes)

_COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}


class InPlace:
    """The tensors of a program, which can hold their numbers in another precision for a while.

    These are the parameters and buffers of the model, and of every other module that it or the
    function refers to (a loss with weights, a teacher): by closure, default argument or global
    name, as an attribute, in a list, in a hook. Plain tensors that either refers to are
    *constants*: they are left as they are in the precision that is audited, as
    :meth:`torch.nn.Module.to` leaves them, and cast in a lift, which changes none of their values:
    also where the program itself rounds them, ``c.to(x.dtype)``, which a lift cannot see.

    The same :class:`~torch.nn.Parameter` objects stay, with their hooks, and with a copy of
    ``.grad``. Only an autograd graph that was recorded before and holds on to the old type of a
    parameter does not notice: take its gradients first.

    Args:
        model: the model; nothing of it is copied but the data of its tensors.
        function: what calls the model.

    >>> from kinkcheck.arithmetic import precision
    >>> model = nn.Linear(1, 1)
    >>> weight = model.weight
    >>> with InPlace(model).at(precision.parse("64")):
    ...     model.weight is weight, weight.dtype
    (True, torch.float64)
    >>> weight.dtype
    torch.float32
    """

    def __init__(self, model: nn.Module, function: Callable[..., Any] | None = None) -> None:
        found = _Reached()
        found.look([model, function])
        self._tensors = list(found.tensors.values())
        self._constants = [
            tensor for key, tensor in found.constants.items() if key not in found.tensors
        ]
        self._copies: dict[tuple[Any, ...], list[Tensor]] = {}

    @contextmanager
    def at(
        self,
        precision: Precision,
        device: torch.device | str | None = None,
        *,
        lifted_from: Precision | None = None,
        channels_last: bool = False,
    ) -> Iterator[None]:
        """Let the tensors hold their numbers in a precision until the block ends.

        Going up in precision is exact, going down rounds to nearest. Even where nothing changes the
        block works on copies, so that what it writes is lost with it. Blocks of one object that
        follow one another share the copies, as long as the numbers are those of one precision.

        Args:
            precision: whose storage type floating-point tensors get.
            device: where to put them; None leaves each where it is.
            lifted_from: the precision whose numbers they are to be, exactly; constants are cast as
                well.
            channels_last: lay out tensors of four dimensions so.
        """
        lower = precision if lifted_from is None else lifted_from
        constants = [] if lifted_from is None else self._constants
        tensors = [*self._tensors, *constants]
        key = precision.storage, lower.storage, str(device), channels_last
        # Those of other precisions would only take memory.
        self._copies = {at: copies for at, copies in self._copies.items() if at[1] == key[1]}
        if key not in self._copies:
            audited = (_cast(tensor.data, lower, device) for tensor in self._tensors)
            self._copies[key] = [
                _laid_out(_cast(data, precision, device), channels_last)
                for data in chain(audited, (constant.data for constant in constants))
            ]
        copies = self._copies[key]
        own = [(tensor, tensor.data, tensor.grad) for tensor in tensors]
        versions = [tensor._version for tensor in tensors]

        def put_back() -> None:
            if versions != [tensor._version for tensor in tensors]:
                self._copies.pop(key, None)  # the program has written to them
            for tensor, data, grad in own:
                tensor.data = data
                tensor.grad = grad

        with afterwards(put_back):
            for (tensor, _, grad), copy in zip(own, copies, strict=True):
                tensor.grad = None  # it has to go before the type changes
                tensor.data = copy
                if grad is not None:
                    to = _cast(grad.detach(), lower, device)
                    tensor.grad = _cast(to, precision, device)
            yield

    @property
    def numbers(self) -> int:
        """How many numbers the parameters, buffers and constants have."""
        return sum(tensor.numel() for tensor in (*self._tensors, *self._constants))


def _cast(data: Tensor, precision: Precision, device: torch.device | str | None) -> Tensor:
    """A copy in a precision."""
    dtype = precision.storage if data.is_floating_point() else data.dtype
    if data.is_complex():
        dtype = _COMPLEX.get(precision.storage, data.dtype)
    return data.to(device=device or data.device, dtype=dtype, copy=True)


def _laid_out(data: Tensor, channels_last: bool) -> Tensor:
    if channels_last and data.dim() == 4:
        return data.contiguous(memory_format=torch.channels_last)
    return data


@dataclass
class _Reached:
    """The tensors that modules and functions refer to, each once."""

    tensors: dict[int, Tensor] = field(default_factory=dict)
    constants: dict[int, Tensor] = field(default_factory=dict)
    _seen: dict[int, object] = field(default_factory=dict)

    def look(self, root: object) -> None:
        waiting = [root]
        while waiting:
            value = waiting.pop()
            if id(value) in self._seen or isinstance(value, _ATOMS):
                continue
            self._seen[id(value)] = value
            if isinstance(value, Tensor):
                floating = value.is_floating_point() or value.is_complex()
                if floating and value.is_leaf and not value.is_inference():
                    self.constants[id(value)] = value
            elif isinstance(value, nn.Module):
                for tensor in (*value._parameters.values(), *value._buffers.values()):
                    if tensor is not None and tensor.is_leaf and not tensor.is_inference():
                        self.tensors[id(tensor)] = tensor
                waiting += [*value.children(), *vars(value).values()]
            elif isinstance(value, list | tuple | set | frozenset):
                waiting += value
            else:
                waiting += value.values() if isinstance(value, dict) else ()
                for namespace in namespaces(value):
                    waiting += namespace.values()
                waiting += fixed(value)
