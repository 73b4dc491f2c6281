"""What reaches the dispatcher without passing the tape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kinkcheck.ops import kind_of
from kinkcheck.ops.jumps import on_jump
from kinkcheck.ops.unseen import NOT_PYTHON, Argument, Row, key, unseen_row
from kinkcheck.tape.jumps import COMPARISONS, GET_DATA, Jumps, only_tells_finite
from kinkcheck.tape.memory import tensors_in
from kinkcheck.tape.notes import Notes
from kinkcheck.tape.parameters import Parameters

Draw = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""Carries out an operation of ATen, given its arguments."""


class Watcher(TorchDispatchMode):
    """Notes operations of ATen that have kinks or jumps, or that a jump steers.

    Args:
        notes: where to note them.
        jumps: what jumped in the tensors of the block.
        parameters: what is told before they are written.
        layer: tells the layer that is being called.
        draw: carries out what draws random numbers; None if nothing has to.
    """

    def __init__(
        self,
        notes: Notes,
        jumps: Jumps,
        parameters: Parameters,
        layer: Callable[[], str],
        draw: Draw | None = None,
    ) -> None:
        super().__init__()
        self._parameters = parameters
        self._notes = notes
        self._jumps = jumps
        self._layer = layer
        self._draw = draw
        self._away = False
        self._checking = False

    def see(self, function: Any, args: tuple[Any, ...]) -> None:
        """See what Python is about to call."""
        self._checking = function is F.one_hot  # reads the classes, to see that none is negative
        if function is GET_DATA:
            self._jumps.leaves_graph(args[0])

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        """While the tape carries out an operation that it knows."""
        self._away = True
        try:
            yield
        finally:
            self._away = False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        # Below autograd there is nothing left to intercept.
        with torch._C.DisableTorchFunction():
            kwargs = kwargs or {}
            self._parameters.about_to_call(func, args, kwargs)
            if self._away or torch._C._current_autograd_node() is not None:
                return self._call(func, args, kwargs)
            return self._watch(func, args, kwargs)

    def _call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._draw is not None and torch.Tag.nondeterministic_seeded in func.tags:
            return self._draw(func, args, kwargs)
        return func(*args, **kwargs)

    def _watch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = func.overloadpacket.__name__
        inputs = tensors_in((*args, *kwargs.values()))
        argument = _arguments(func, args, kwargs)
        # The bools that a comparison makes have no node; what they steer is named.
        row = None if name in COMPARISONS else unseen_row(key(name), argument)
        decided = None if self._checking else self._jumps.decided(name, inputs)
        if decided:
            reason = f"{decided} is read, and may steer what comes after"
            self._notes.from_here(self._layer(), "item", reason)
        elif torch.is_grad_enabled():
            if any(tensor.requires_grad for tensor in inputs):
                self._note(name, row, inputs, argument)
        elif name.endswith("_") and inputs and inputs[0].grad_fn is not None:
            self._note_hidden(name, row, inputs)
        if name.endswith("_") and name[:-1] in COMPARISONS:
            compared = (args[0].clone(), *args[1:])
        else:
            compared = args
        output = self._call(func, args, kwargs)
        if not only_tells_finite(name, args):
            made = args if output is None else output  # _foreach_*_ returns nothing
            self._jumps.made(made, inputs, name, row is not None and row.jumps, compared)
        return output

    def _note(self, name: str, row: Row | None, inputs: list[Tensor], argument: Argument) -> None:
        """Note a call that autograd differentiates."""
        if row is not None:
            met = on_jump(name, argument) if row.jumps else None
            self._notes.call(self._layer(), name, _reason(row, inputs[0]), met)
        steered = self._jumps.steering(inputs, name)
        if steered:
            self._notes.steered(self._layer(), name, steered, self._jumps.on_jump(inputs))

    def _note_hidden(self, name: str, row: Row | None, inputs: list[Tensor]) -> None:
        """Note a call that writes into a tensor of the graph where gradients are off."""
        if row is not None or self._jumps.steering(inputs, name):
            reason = "writes into a tensor of the graph where gradients are off"
            self._notes.from_here(self._layer(), name, reason)


def _arguments(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Argument:
    """The arguments of a call by name."""

    def argument(name: str) -> Any:
        for index, declared in enumerate(func._schema.arguments):
            if declared.name == name:
                return (
                    args[index] if index < len(args) else kwargs.get(name, declared.default_value)
                )
        return None

    return argument


def _reason(row: Row, input: Tensor) -> str:
    kind = kind_of(input)
    if row.reason == NOT_PYTHON and kind != "dense":
        return f"called with a {kind} tensor"
    return row.reason
