"""What a tape meets and cannot record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kinkcheck.ops import kind_of
from kinkcheck.ops.unseen import WHY_UNSEEN


@dataclass(frozen=True)
class Unseen:
    """Something that may have kinks and whose derivative the tape cannot choose.

    Attributes:
        layer: name of the module in which it was met.
        operation: name of the ATen operation, or of the class of the module.
        reason: why it is out of reach.
        calls: how often it was met.
    """

    layer: str
    operation: str
    reason: str
    calls: int


class Watcher(TorchDispatchMode):
    """Reports nonsmooth ATen operations that reach the dispatcher without passing the tape."""

    def __init__(self, miss: Callable[[str, str], None]) -> None:
        super().__init__()
        self._miss = miss
        self._away = False

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
        packet = func.overloadpacket
        watching = not self._away and not _in_backward_pass()
        if watching and packet in WHY_UNSEEN and _differentiated(args):
            kind = kind_of(args[0]) if isinstance(args[0], Tensor) else "dense"
            reason = WHY_UNSEEN[packet] if kind == "dense" else f"called with a {kind} tensor"
            self._miss(packet.__name__, reason)
        # Below autograd there is nothing left to intercept.
        with torch._C.DisableTorchFunction():
            return func(*args, **(kwargs or {}))


def _in_backward_pass() -> bool:
    return torch._C._current_autograd_node() is not None


def _differentiated(args: tuple[Any, ...]) -> bool:
    return torch.is_grad_enabled() and any(
        isinstance(arg, Tensor) and arg.requires_grad for arg in args
    )
