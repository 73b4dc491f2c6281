"""What of a model the exact arbiter covers, along the calls that it makes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.autograd import Function

from kinkcheck.errors import InputError
from kinkcheck.exact.calls import (
    AS_IT_IS,
    DIVISION,
    FUNCTIONS,
    IN_PLACE,
    MODULES,
    READERS,
    TERMS,
    THROUGH,
    VIEWS,
)
from kinkcheck.exact.trace import (
    Trace,
    autocast,
    differentiated,
    kind_of,
    layer_of,
    trace,
)


def uncovered(model: nn.Module) -> list[str]:
    """What of a model the exact arbiter does not cover; empty if it covers all.

    Args:
        model: in the mode in which it is to be evaluated.

    Returns:
        A line for each layer or call, naming it and its class or function.

    >>> uncovered(nn.Sequential(nn.Linear(2, 2), nn.Softmax(dim=1)))
    ['1 (Softmax)']
    """
    return _trace_and_objections(model)[1]


def covered(model: nn.Module) -> Trace:
    """The calls of a model that is covered.

    Raises:
        InputError: a layer is not covered; the message names all of them.
    """
    calls, objections = _trace_and_objections(model)
    if calls is None or objections:
        raise InputError(f"model: the exact arbiter does not cover {', '.join(objections)}")
    return calls


def _trace_and_objections(model: nn.Module) -> tuple[Trace | None, list[str]]:
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            return None, [_described(name, type(module).__name__, "scripted")]
        if module._compiled_call_impl is not None:
            return None, [_described(name, type(module).__name__, "compiled")]
    try:
        calls = trace(model, THROUGH)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        reason = " ".join(str(error).split())[:200]
        return None, [f"{type(model).__name__} (torch.fx cannot trace it: {reason})"]
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    found = [
        *(_described(name, kinds[name], f"with {hooks}") for name, hooks in calls.hooked.items()),
        *_objections(calls),
        *_objections_to_types(calls),
        *(["the model itself (freezes parameters, or frees them, on the way)"] * calls.refrozen),
    ]
    return calls, list(dict.fromkeys(found))


def _objections(calls: Trace) -> Iterator[str]:
    numbers = _numbers(calls.graph)
    for node in calls.graph.nodes:
        named = node.args[1] if node.target is getattr else node.target
        name = getattr(named, "__name__", str(named))
        reason: str | None = None
        if node.op == "call_module":
            name, reason = kind_of(node).__name__, _objection_to_module(calls.module(node))
        elif node.op in ("call_function", "call_method") and node not in numbers:
            reason = _objection_to_call(node, numbers)
            # A layer of PyTorch's is known by its class.
            if reason is not None and kind_of(node) in THROUGH:
                name, reason = kind_of(node).__name__, reason or f"calling {name}"
        elif node.op == "get_attr":
            layer, _, name = str(node.target).partition(".")[2].rpartition(".")
            if (reason := _objection_to_leaf(node, calls)) is not None:
                yield _described(layer, name or "a tensor", reason)
            continue
        elif node.op == "output":
            if not isinstance(node.args[0], fx.Node) or node.args[0] in numbers:
                yield "the model itself (an output that is not one tensor)"
            continue
        if reason is not None:
            yield _described(layer_of(node), name, reason)


def _objections_to_types(calls: Trace) -> Iterator[str]:
    """Beside tensors of several types PyTorch rounds some of them first."""
    leaves = (calls.tensor(node) for node in calls.graph.nodes if node.op == "get_attr")
    types = {str(leaf.dtype).removeprefix("torch.") for leaf in leaves if isinstance(leaf, Tensor)}
    if len(types) > 1:
        yield f"the model itself (tensors of several types: {', '.join(sorted(types))})"


def _numbers(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that are no tensors but sizes, and what is computed from them."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        reads = node.target in READERS and (
            node.target is not getattr or node.args[1] in ("shape", "ndim")
        )
        sources = node.all_input_nodes
        calls = node.op in ("call_function", "call_method")
        if calls and (reads or (sources and found.issuperset(sources))):
            found.add(node)
    return found


def _described(layer: str, name: str, reason: str) -> str:
    return f"{layer or 'the model itself'} ({name}{reason and ' ' + reason})"


def _objection_to_module(module: nn.Module) -> str | None:
    """A reason, empty if nothing of the kind is covered; None if it is covered."""
    if type(module) not in MODULES:
        return ""
    return "with indices" if getattr(module, "return_indices", False) else None


def _objection_to_leaf(node: fx.Node, calls: Trace) -> str | None:
    """Why a tensor that no call made is not covered; None if it is."""
    if not calls.held(node):
        return "made in the forward pass, or from outside the model"
    tensor = calls.tensor(node)
    if not isinstance(tensor, Tensor):
        return "that is no tensor"
    if tensor._backward_hooks:
        return "with a tensor hook"
    if tensor.grad_fn is not None:
        return "computed from others before the forward pass"
    return None


def _objection_to_call(node: fx.Node, numbers: set[fx.Node]) -> str | None:
    """A reason, empty if nothing of the kind is covered; None if it is covered."""
    if isinstance(node.target, type) and issubclass(node.target, Function):
        return "as a custom autograd function"
    if node.target not in FUNCTIONS:
        return ""
    call = FUNCTIONS[node.target]
    try:
        bound = inspect.signature(call).bind(None, *node.args, **node.kwargs)
    except TypeError as error:
        return f"with other arguments: {error}"
    bound.apply_defaults()
    given = bound.arguments
    if call in TERMS:
        terms = [given["input"], given["other"]]
        plain = [term for term in terms if not isinstance(term, fx.Node) or term in numbers]
        if any(not isinstance(term, int | float | fx.Node) for term in plain):
            return "of something that is neither a tensor nor a real number"
        if plain and autocast(node):
            return "of a number under autocast"
        if call is DIVISION and given["other"] not in plain:
            return "by a tensor"
    if "running_var" in given and given["running_var"] is None:
        return "without running statistics"
    if given.get("training") and given.get("p", 1) > 0:
        return "in training mode"
    if given.get("return_indices"):
        return "with indices"
    if call is AS_IT_IS and not differentiated(node):
        return "while gradients are off, where they pass if nothing is copied"
    if node.target in IN_PLACE or given.get("inplace"):
        return _objection_in_place(node)
    return None


def _objection_in_place(node: fx.Node) -> str | None:
    """Why a call in place is not covered: its input, or a view of it, is seen elsewhere."""
    if not differentiated(node):
        return "in place, while gradients are off"  # they pass it as if it were not there
    written = node.all_input_nodes[0]
    views, reached = [written], {written}
    while views:
        view = views.pop()
        sources = view.all_input_nodes[:1] if _is_view(view) else []
        for other in (*sources, *(user for user in view.users if _is_view(user))):
            if other not in reached:
                reached.add(other)
                views.append(other)
    if any(view.op == "get_attr" for view in reached):
        return "in place, of what the model holds"
    earlier = set(_before(node))
    later = {user for view in reached for user in view.users} - earlier - {node}
    return "in place, of a tensor that is used again" if later else None


def _is_view(node: fx.Node) -> bool:
    return node.op in ("call_function", "call_method") and FUNCTIONS.get(node.target) in VIEWS


def _before(node: fx.Node) -> Iterator[fx.Node]:
    for other in node.graph.nodes:
        if other is node:
            return
        yield other
