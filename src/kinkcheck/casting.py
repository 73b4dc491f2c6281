"""Casting in place: the tensors of a program hold other numbers for a while.

A copy of a model is another program: hooks that close over the model, penalties on its parameters,
patched forwards and cached references keep pointing at the original. So the tensors themselves get
other data, in another precision, and their own back afterwards.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from kinkcheck.precision import Precision

_COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}


class InPlace:
    """The tensors of a program, which can hold their numbers in another precision for a while.

    These are the parameters and buffers of the model, and of every other module that the function
    refers to (a loss with weights, a teacher): by closure, by default argument, as its own object,
    or by a global name. Plain tensors that either refers to are *constants*: they are left as they
    are in the precision that is audited, as :meth:`torch.nn.Module.to` leaves them, and cast in a
    lift, which changes none of their values.

    The same :class:`~torch.nn.Parameter` objects stay, with their hooks; ``.grad`` is hidden. Only
    an autograd graph that was recorded before and holds on to the old type of a parameter does not
    notice: take its gradients first.

    Args:
        model: the model; nothing of it is copied but the data of its tensors.
        function: what calls the model.

    >>> from kinkcheck import precision
    >>> model = nn.Linear(1, 1)
    >>> weight = model.weight
    >>> with InPlace(model).at(precision.parse("64")):
    ...     model.weight is weight, weight.dtype
    (True, torch.float64)
    >>> weight.dtype
    torch.float32
    """

    def __init__(self, model: nn.Module, function: Callable[..., Any] | None = None) -> None:
        found = _Found()
        found.module(model)
        if function is not None:
            found.function(function)
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
        follow one another share the copies.

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
        if key not in self._copies:
            audited = [_cast(tensor.data, lower, device) for tensor in self._tensors]
            self._copies[key] = [
                _laid_out(_cast(data, precision, device), channels_last)
                for data in (*audited, *(constant.data for constant in constants))
            ]
        copies = self._copies[key]
        own = [(tensor, tensor.data, tensor.grad) for tensor in tensors]
        versions = [tensor._version for tensor in tensors]
        try:
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.grad = None
                tensor.data = copy
            yield
        finally:
            if versions != [tensor._version for tensor in tensors]:
                del self._copies[key]  # the program has written to them
            _put_back(own)

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


def _put_back(own: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> None:
    """Give tensors their data and gradients, also if interrupted in the midst of it."""
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            for tensor, data, grad in own:
                tensor.data = data
                tensor.grad = grad
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


@dataclass
class _Found:
    """The tensors that modules and functions refer to, each once."""

    tensors: dict[int, Tensor] = field(default_factory=dict)
    constants: dict[int, Tensor] = field(default_factory=dict)
    _seen: dict[int, object] = field(default_factory=dict)

    def module(self, module: nn.Module) -> None:
        for each in module.modules():
            if id(each) in self._seen:
                continue
            self._seen[id(each)] = each
            for tensor in (*each._parameters.values(), *each._buffers.values()):
                if tensor is not None and tensor.is_leaf and not tensor.is_inference():
                    self.tensors[id(tensor)] = tensor
            for value in vars(each).values():
                self._value(value, deep=False)

    def function(self, function: Callable[..., Any]) -> None:
        if id(function) in self._seen:
            return
        self._seen[id(function)] = function
        if isinstance(function, functools.partial):
            for value in (function.func, *function.args, *function.keywords.values()):
                self._value(value)
        elif isinstance(function, MethodType):
            self._value(function.__self__)
            self.function(function.__func__)
        elif isinstance(function, FunctionType):
            closure = inspect.getclosurevars(function)
            names = {**closure.nonlocals, **closure.globals}
            defaults = (function.__defaults__ or ()), (function.__kwdefaults__ or {}).values()
            for value in (*names.values(), *defaults[0], *defaults[1]):
                self._value(value)
        else:
            self._value(function)

    def _value(self, value: object, deep: bool = True) -> None:
        if isinstance(value, nn.Module):
            if deep:
                self.module(value)
        elif isinstance(value, Tensor):
            floating = value.is_floating_point() or value.is_complex()
            if floating and value.is_leaf and not value.is_inference():
                self.constants[id(value)] = value
        elif isinstance(value, list | tuple):
            for item in value:
                self._value(item, deep)
        elif isinstance(value, dict):
            for item in value.values():
                self._value(item, deep)
        elif isinstance(value, FunctionType | MethodType | functools.partial):
            if deep and not str(getattr(value, "__module__", "")).startswith(
                ("torch", "kinkcheck")
            ):
                self.function(value)
        elif deep and callable(value) and not isinstance(value, type):
            self._object(value)

    def _object(self, value: object) -> None:
        if id(value) not in self._seen:
            self._seen[id(value)] = value
            for item in getattr(value, "__dict__", {}).values():
                self._value(item)
