"""What of a model the exact arbiter covers, along the graph that ``torch.fx`` traces."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from torch import fx, nn

import kinkcheck.nn as knn
from kinkcheck.audit.exact.calls import (
    FUNCTIONS,
    IN_PLACE,
    MODULES,
    READERS,
    TERMS,
    VIEW_MODULES,
    VIEWS,
)
from kinkcheck.errors import InputError


def uncovered(model: nn.Module) -> list[str]:
    """What of a model the exact arbiter does not cover; empty if it covers all.

    Args:
        model: in the mode in which it is to be evaluated.

    Returns:
        A line for each layer or call, naming it and its class or function.

    >>> uncovered(nn.Sequential(nn.Linear(2, 2), nn.Softmax(dim=1)))
    ['1 (Softmax)']
    """
    return _graph_and_objections(model)[1]


def covered_graph(model: nn.Module) -> fx.Graph:
    """The graph of a model that is covered.

    Raises:
        InputError: a layer is not covered; the message names all of them.
    """
    graph, objections = _graph_and_objections(model)
    if graph is None or objections:
        raise InputError(f"model: the exact arbiter does not cover {', '.join(objections)}")
    return graph


def layer_of(node: fx.Node) -> str:
    """The name of the module that makes a call."""
    if node.op == "call_module":
        return str(node.target)
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return type(module).__module__ == knn.__name__ or super().is_leaf_module(module, name)


def _graph_and_objections(model: nn.Module) -> tuple[fx.Graph | None, list[str]]:
    try:
        graph = _Tracer().trace(model)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        return None, [f"{type(model).__name__} (torch.fx cannot trace it: {reason})"]
    numbers = _numbers(graph)
    found = (_objection(node, model, numbers) for node in graph.nodes)
    return graph, list(dict.fromkeys(each for each in found if each is not None))


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


def _objection(node: fx.Node, model: nn.Module, numbers: set[fx.Node]) -> str | None:
    """Why a node is not covered; None if it is."""
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        reason = _objection_to_module(module)
        if reason is None and getattr(module, "inplace", False):
            reason = _used_after(node, model)
        return _described(str(node.target), type(module).__name__, reason)
    if node.op in ("call_function", "call_method") and node not in numbers:
        name = getattr(node.target, "__name__", str(node.target))
        return _described(layer_of(node), name, _objection_to_call(node, model, numbers))
    if node.op == "placeholder" and any(n.op == "placeholder" for n in _before(node)):
        return f"the model itself (a second input {node.target})"
    if node.op == "output" and (not isinstance(node.args[0], fx.Node) or node.args[0] in numbers):
        return "the model itself (an output that is not one tensor)"
    return None


def _described(layer: str, name: str, reason: str | None) -> str | None:
    if reason is None:
        return None
    return f"{layer or 'the model itself'} ({name}{reason and ' ' + reason})"


def _objection_to_module(module: nn.Module) -> str | None:
    """A reason, empty if nothing of the kind is covered; None if it is covered."""
    kind = type(module)
    if kind not in MODULES:
        return ""
    if module._forward_hooks or module._forward_pre_hooks:
        return "with hooks"
    norm = isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    if module.training and (norm or getattr(module, "p", 0) > 0):
        return "in training mode"
    if norm and module.running_mean is None:
        return "without running statistics"
    if getattr(module, "return_indices", False):
        return "with indices"
    if getattr(module, "padding_mode", "zeros") != "zeros":
        return f"with padding_mode {module.padding_mode}"
    return None


def _objection_to_call(node: fx.Node, model: nn.Module, numbers: set[fx.Node]) -> str | None:
    """A reason, empty if nothing of the kind is covered; None if it is covered."""
    if node.target not in FUNCTIONS:
        return ""
    call = FUNCTIONS[node.target]
    try:
        bound = inspect.signature(call).bind(None, *node.args, **node.kwargs)
    except TypeError as error:
        return f"with other arguments: {error}"
    bound.apply_defaults()
    given = bound.arguments
    if call in TERMS and any(
        not isinstance(term, fx.Node) or term in numbers
        for term in (given["input"], given["other"])
    ):
        return "of a number"
    if given.get("training") and given["p"] > 0:
        return "in training mode"
    if given.get("return_indices"):
        return "with indices"
    if node.target in IN_PLACE or given.get("inplace"):
        return _used_after(node, model)
    return None


def _used_after(node: fx.Node, model: nn.Module) -> str | None:
    """An objection to a call in place whose input, or another view of it, is used later."""
    written = node.all_input_nodes[0]
    views, reached = [written], {written}
    while views:
        view = views.pop()
        sources = view.all_input_nodes[:1] if _is_view(view, model) else []
        for other in (*sources, *(user for user in view.users if _is_view(user, model))):
            if other not in reached:
                reached.add(other)
                views.append(other)
    earlier = set(_before(node))
    later = {user for view in reached for user in view.users} - earlier - {node}
    return "in place, of a tensor that is used again" if later else None


def _is_view(node: fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return type(model.get_submodule(str(node.target))) in VIEW_MODULES
    return node.op in ("call_function", "call_method") and FUNCTIONS.get(node.target) in VIEWS


def _before(node: fx.Node) -> Iterator[fx.Node]:
    for other in node.graph.nodes:
        if other is node:
            return
        yield other
