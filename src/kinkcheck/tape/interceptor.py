"""Nonsmooth calls are taken over above autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._C._dynamo.eval_frame import set_eval_frame
from torch.overrides import TorchFunctionMode

from kinkcheck import ops
from kinkcheck.ops import Choice, Operation
from kinkcheck.ops.compositions import COMPOSITIONS
from kinkcheck.selection import Native


class Interceptor(TorchFunctionMode):
    """Hands every nonsmooth call to the tape, above autograd.

    Args:
        meet: carries out a nonsmooth operation; called with it and the choice of the program.
        look: called with every function and its arguments before it is called.
    """

    def __init__(
        self,
        meet: Callable[[Operation, Choice], Any],
        look: Callable[[Any, tuple[Any, ...]], None] = lambda function, args: None,
    ) -> None:
        super().__init__()
        self._meet = meet
        self._look = look

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        self._look(func, args)
        own: Choice = Native()
        # Under autocast PyTorch computes some of them in another type than what they are written
        # with.
        as_written = not any(map(torch.is_autocast_enabled, ("cpu", "cuda")))
        if func in COMPOSITIONS and as_written and kwargs.get("out") is None:
            with self:
                return COMPOSITIONS[func](*args, **kwargs)
        if func is ops.call:
            known, own = args
        else:
            known = ops.operation(func, args, kwargs)
        return func(*args, **kwargs) if known is None else self._meet(known, own)


def run_again(operation: Operation, own: Choice) -> Any:
    """Carry out an operation so that it saves what it did as a site, without a new site."""
    with torch._C.DisableTorchFunction():
        return operation.apply(own)


def in_compiled_function() -> bool:
    """Whether the code that runs was passed to ``torch.compile``.

    >>> in_compiled_function()
    False
    """
    # Asked by setting it twice: what merely gets it is wrong by a reference in PyTorch 2.6.
    callback = set_eval_frame(None)
    set_eval_frame(callback)
    return callback is not None


def under_saved_tensor_hooks() -> bool:
    """Whether tensors for the backward pass are kept in another way: by computing them again.

    >>> with torch.autograd.graph.save_on_cpu():
    ...     print(under_saved_tensor_hooks())
    True
    """
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks("asked"):  # raises if there are any
            return False
    except RuntimeError:
        return True
