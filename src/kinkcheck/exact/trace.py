"""The calls that a model makes on one input, along the graph that ``torch.fx`` traces.

What ``torch.fx`` by itself does not show is made visible here: each node knows whether gradients
were on and whether autocast was when it was made, operations in place are told from others, the
model is called as anybody calls it (patched forwards act, also its own), and hooks and custom
autograd functions become objections instead of passing unseen.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from types import FunctionType
from typing import Any

import torch
from torch import fx, nn
from torch.autograd import Function
from torch.nn.modules import module as module_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import checkpoint

import kinkcheck.nn as knn
from kinkcheck.tape.as_found import as_found

_HOOKS = {
    "_forward_hooks": "a forward hook",
    "_forward_pre_hooks": "a forward pre-hook",
    "_backward_hooks": "a backward hook",
    "_backward_pre_hooks": "a backward pre-hook",
}
# What checkpointing keeps its inputs with, up to PyTorch 2.9: no output depends on it.
_INPUT_SAVER = getattr(checkpoint, "_NoopSaveInputs", None)
_IN_PLACE_OPERATORS = [
    name for name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "imatmul",
                      "iand", "ior", "ixor", "ilshift", "irshift")
]  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """What a model calls.

    Attributes:
        graph: the calls.
        hooked: each module whose hooks were left out, and which hooks these are.
        refrozen: whether ``requires_grad`` of a parameter changed on the way.
    """

    graph: fx.Graph
    hooked: dict[str, str]
    refrozen: bool
    _root: nn.Module

    def tensor(self, node: fx.Node) -> Any:
        """What a ``get_attr`` node stands for; None if the model does not hold it."""
        return operator.attrgetter(str(node.target))(self._root)

    def held(self, node: fx.Node) -> bool:
        """Whether the model holds it, as a parameter, a buffer or an attribute of a module."""
        return "." in str(node.target)

    def module(self, node: fx.Node) -> nn.Module:
        """The module of a ``call_module`` node."""
        return self._root.get_submodule(str(node.target))


def trace(model: nn.Module, through: set[type[nn.Module]]) -> Trace:
    """The calls of a model on one tensor, in the mode that it is in.

    Modules, what they hold, and the random state are as they were afterwards. Autocast is as it is
    around the call; gradients are on, as where a program is differentiated.

    Args:
        model: the model.
        through: modules of :mod:`torch.nn` that appear as the functions that they call.

    Raises:
        Exception: of any kind, where the model cannot be traced.
    """
    root = _Caller(model)
    tracer = _Tracer(root, through)
    with as_found(model), _custom_functions(tracer), torch.enable_grad():
        graph = tracer.trace(root)
    return Trace(graph, tracer.hooked, tracer.refrozen, root)


def layer_of(node: fx.Node) -> str:
    """The name of the module that makes a call, or that is called; empty for the model itself."""
    return _innermost(node)[0]


def kind_of(node: fx.Node) -> type[nn.Module]:
    """The class of that module."""
    return _innermost(node)[1]


def differentiated(node: fx.Node) -> bool:
    """Whether gradients were on when a call was made."""
    return bool(node.meta["differentiated"])


def autocast(node: fx.Node) -> bool:
    """Whether a call was made under autocast, so that the types of its tensors are not known."""
    return bool(node.meta["autocast"])


class _Caller(nn.Module):
    """``torch.fx`` calls ``type(root).forward``, past what an instance has of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input: Any) -> Any:
        return self.model(input)


class _Proxy(fx.Proxy):
    """Tells ``x += y``, which changes what else is x, from ``x + y``."""


def _in_place(name: str) -> Callable[[_Proxy, Any], Any]:
    def method(self: _Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", getattr(operator, name), (self, other), {})

    return method


for _name in _IN_PLACE_OPERATORS:
    setattr(_Proxy, f"__{_name}__", _in_place(_name))


class _Tracer(fx.Tracer):
    # What is computed from buffers is computed exactly too, and not here, in floats.
    proxy_buffer_attributes = True

    def __init__(self, root: nn.Module, through: set[type[nn.Module]]) -> None:
        super().__init__()
        self.hooked: dict[str, str] = {}
        self.refrozen = False
        self._through = through
        self._trained = [(each, each.requires_grad) for each in root.parameters()]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if "forward" in vars(m):
            return False
        known = type(m).__module__ == knn.__name__
        return known or (
            type(m) not in self._through and super().is_leaf_module(m, module_qualified_name)
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        if hooks := _hooks(m):
            # They would see what is traced, and keep it; and what they do backwards is not shown.
            self.hooked[_named(self.path_of_module(m))] = hooks
            forward = m.forward
        if type(m).forward is _BATCH_NORM and "forward" not in vars(m):
            forward = _batch_norm(m)
        return super().call_module(m, forward, args, kwargs)

    def create_arg(self, a: Any) -> Any:
        # What takes a function is not covered: it is to be named, instead of fx refusing all.
        return repr(a) if isinstance(a, FunctionType) else super().create_arg(a)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        self.refrozen |= any(each.requires_grad is not was for each, was in self._trained)
        node.meta["differentiated"] = torch.is_grad_enabled()
        node.meta["autocast"] = any(map(torch.is_autocast_enabled, ("cpu", "cuda")))
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


_BATCH_NORM = _BatchNorm.forward


def _batch_norm(module: Any) -> Callable[[Any], Any]:
    """Its forward pass without its question for the number of dimensions, which fx refuses."""

    def forward(input: Any) -> Any:
        mean, variance = module.running_mean, module.running_var
        training = module.training or mean is None
        return nn.functional.batch_norm(
            input, mean, variance, module.weight, module.bias, training, eps=module.eps
        )

    return forward


@contextmanager
def _custom_functions(tracer: fx.Tracer) -> Iterator[None]:
    """Custom autograd functions become calls of their class.

    ``torch.fx`` would trace what their forward does, and lose their backward.
    """
    original = vars(Function)["apply"]

    def apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        if cls is _INPUT_SAVER:
            return torch.empty(0)
        traced = tuple(each for each in args if isinstance(each, fx.Proxy))
        return tracer.create_proxy("call_function", cls, traced, {})

    setattr(Function, "apply", classmethod(apply))  # noqa: B010 - mypy refuses the assignment
    try:
        yield
    finally:
        setattr(Function, "apply", original)  # noqa: B010


def _hooks(module: nn.Module) -> str:
    """The kinds of hooks that act when a module is called."""
    found = [name for attribute, name in _HOOKS.items() if getattr(module, attribute)]
    everywhere = [
        f"{name} of all modules"
        for attribute, name in _HOOKS.items()
        if getattr(module_hooks, f"_global{attribute}")
    ]
    return " and ".join(chain(found, everywhere))


def _innermost(node: fx.Node) -> tuple[str, type[nn.Module]]:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    if not stack:
        return "", nn.Module
    path, kind = stack[-1]
    return _named(str(path)), kind


def _named(path: str) -> str:
    """The name that the model has for what the caller of the model knows by this path."""
    return path.partition(".")[2]
