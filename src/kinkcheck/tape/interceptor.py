"""Nonsmooth calls are taken over above autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kinkcheck import ops
from kinkcheck.ops import Choice, Operation
from kinkcheck.selection import Native


class Interceptor(TorchFunctionMode):
    """Hands every nonsmooth call to the tape, above autograd."""

    def __init__(
        self,
        meet: Callable[[Operation, Choice], Any],
        see_retain_grad: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._meet = meet
        self._see_retain_grad = see_retain_grad

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.retain_grad:
            self._see_retain_grad()
        own: Choice = Native()
        if func is ops.call:
            known, own = args
        else:
            known = ops.operation(func, args, kwargs)
        return func(*args, **kwargs) if known is None else self._meet(known, own)


def run_again(operation: Operation, own: Choice) -> Any:
    """Carry out an operation so that it saves what it did as a site, without a new site."""
    with torch._C.DisableTorchFunction():
        return operation.apply(own)
