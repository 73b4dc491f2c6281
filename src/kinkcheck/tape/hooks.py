"""Whether hooks act on a graph: a pass that leaves parts of it out would leave them out too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils.hooks import RemovableHandle

_own = 0


def registered() -> int:
    """How many hooks have been registered in this process so far, but for kinkcheck's own.

    Every hook that Python registers gets a numbered handle: of a tensor, of a node of the graph,
    of a module, and those that a module with backward hooks puts into the graph at each call.

    >>> import torch
    >>> before = registered()
    >>> handle = torch.ones(1, requires_grad=True).register_hook(print)
    >>> registered() - before
    1
    """
    return RemovableHandle.next_id - _own


def around_modules(enter: Callable[..., Any], leave: Callable[..., Any]) -> ExitStack:
    """Call two functions before and after the forward pass of every module.

    Args:
        enter: called with the module and its arguments.
        leave: called with the module, its arguments and its output, also when it failed.

    Returns:
        What ends it when closed.
    """
    global _own
    _own += 2
    hooks = ExitStack()
    hooks.callback(register_module_forward_pre_hook(enter).remove)
    hooks.callback(register_module_forward_hook(leave, always_call=True).remove)
    return hooks


def look_at(node: Any, see: Callable[[tuple[Tensor | None, ...]], None]) -> None:
    """Call a function with the gradients that arrive at a node, in every pass that runs it.

    It changes nothing, so that a pass may still leave out what it knows.

    Args:
        node: of the graph of a recorded loss.
        see: called with the gradient of every output of the node.

    >>> import torch
    >>> y = 2 * torch.ones(1, requires_grad=True)
    >>> look_at(y.grad_fn, print)
    >>> y.backward()
    (tensor([1.]),)
    """
    global _own
    _own += 1
    node.register_prehook(see)


@contextmanager
def alter(
    node: Any, change: Callable[[tuple[Tensor | None, ...]], tuple[Tensor | None, ...]]
) -> Iterator[None]:
    """A context in which the gradients that arrive at a node are other ones.

    Args:
        node: of the graph of a recorded loss.
        change: what they become.

    >>> x = torch.ones(1, requires_grad=True)
    >>> y = 2 * x
    >>> with alter(y.grad_fn, lambda gradients: (3 * gradients[0],)):
    ...     y.backward()
    >>> x.grad
    tensor([6.])
    """
    with _held(lambda: node.register_prehook(change)):
        yield


@contextmanager
def alter_after(
    node: Any, change: Callable[[tuple[Tensor | None, ...]], tuple[Tensor | None, ...]]
) -> Iterator[None]:
    """A context in which the gradients that a node returns are other ones.

    Args:
        node: of the graph of a recorded loss.
        change: what they become.

    >>> x = torch.ones(1, requires_grad=True)
    >>> y = 2 * x
    >>> with alter_after(y.grad_fn, lambda gradients: (3 * gradients[0], None)):
    ...     y.backward()
    >>> x.grad
    tensor([6.])
    """
    with _held(lambda: node.register_hook(lambda returned, _: change(returned))):
        yield


@contextmanager
def _held(register: Callable[[], Any]) -> Iterator[None]:
    """A context in which a hook of kinkcheck's own is registered."""
    global _own
    _own += 1
    handle = register()
    try:
        yield
    finally:
        handle.remove()
