"""The forward pass of a model over the rationals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from kinkcheck.errors import InputError
from kinkcheck.exact.calls import FUNCTIONS, MODULES, READERS, Leaves
from kinkcheck.exact.coverage import covered
from kinkcheck.exact.rationals import from_floats
from kinkcheck.exact.record import Record, Variable
from kinkcheck.exact.trace import differentiated, layer_of
from kinkcheck.selection import Native
from kinkcheck.tape.as_found import as_found


def carry_out(model: nn.Module, inputs: Tensor) -> tuple[Record, Variable, dict[str, Variable]]:
    """A forward pass: what was done, the output, and the parameters that require a gradient."""
    calls = covered(model)
    if not inputs.numel():
        raise InputError(f"inputs: must not be empty, as of shape {tuple(inputs.shape)}")
    given = Variable(from_floats(inputs, "inputs"))
    _require_accepted(model, inputs)
    nodes = calls.graph.nodes
    # They all have one type, or they would not be covered.
    like = next((calls.tensor(node) for node in nodes if node.op == "get_attr"), inputs)
    record = Record(dtype=like.dtype, device=like.device)
    leaves = Leaves(model)
    values: dict[fx.Node, Any] = {}
    for node in nodes:
        args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
        record.layer, record.own = layer_of(node), Native()
        record.differentiates = differentiated(node)
        match node.op:
            case "placeholder":
                values[node] = given
            case "get_attr":
                values[node] = leaves.of(calls.tensor(node))
            case "call_module":
                module = calls.module(node)
                record.own = getattr(module, "selection", Native())
                values[node] = MODULES[type(module)](record, module, *args, **kwargs)
            case "call_function" | "call_method":
                values[node] = _carry_out_function(record, node, args, kwargs)
            case "output":
                (output,) = args
    return record, output, leaves.trained()


def _carry_out_function(
    record: Record, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    on_tensors = any(isinstance(each, Variable) for each in (*args, *kwargs.values()))
    target: Any = node.target
    if on_tensors and target in READERS:
        return READERS[target](args[0].value.shape, *args[1:], **kwargs)
    if on_tensors:
        return FUNCTIONS[target](record, *args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], target)(*args[1:], **kwargs)
    return target(*args, **kwargs)


def _require_accepted(model: nn.Module, inputs: Tensor) -> None:
    """What PyTorch refuses is refused, so that no shape is broadcast that it would not."""
    like = next((p for p in model.parameters() if p.is_floating_point()), inputs)
    try:
        with as_found(model), torch.no_grad():
            model(inputs.to(like, copy=True))  # a layer in place may write to it
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"model: fails on inputs of shape {tuple(inputs.shape)}: {reason}"
        ) from error
