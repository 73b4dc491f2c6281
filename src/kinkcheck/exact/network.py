"""The forward pass of a model over the rationals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from kinkcheck.errors import InputError, blaming
from kinkcheck.exact.calls import FUNCTIONS, MODULES, READERS, Leaves
from kinkcheck.exact.coverage import covered
from kinkcheck.exact.rationals import from_floats
from kinkcheck.exact.record import Record, Variable
from kinkcheck.exact.trace import differentiated, layer_of
from kinkcheck.selection import Native
from kinkcheck.tape.as_found import as_found
from kinkcheck.tape.directions import direction


class Network:
    """A model on a batch, with all numbers as they are now.

    Args:
        model: in the mode in which it is to be evaluated.
        inputs: a batch of floating-point numbers of any type.

    Attributes:
        parameters: those that require a gradient, by name.

    Raises:
        InputError: see :func:`kinkcheck.exact.evaluate`.
    """

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        self._calls = covered(model)
        if not inputs.numel():
            raise InputError(f"inputs: must not be empty, as of shape {tuple(inputs.shape)}")
        self._given = Variable(from_floats(inputs, "inputs"))
        _require_accepted(model, inputs)
        leaves = Leaves(model)
        held = {
            node: self._calls.tensor(node)
            for node in self._calls.graph.nodes
            if node.op == "get_attr"
        }
        # They all have one type, or they would not be covered.
        like = next(iter(held.values()), inputs)
        self._dtype, self._device = like.dtype, like.device
        self._held = {node: leaves.of(tensor) for node, tensor in held.items()}
        self.parameters: dict[str, Variable] = leaves.trained()

    def direction(self, seed: int) -> list[Tensor]:
        """The direction that a tape takes for a seed: how each parameter moves."""
        return direction([each.to(self._dtype) for each in self.shapes()], seed)

    def shapes(self) -> list[Tensor]:
        """Zeros in float64 in the shapes of the parameters."""
        return [
            torch.zeros(each.value.shape, dtype=torch.float64) for each in self.parameters.values()
        ]

    def along(self, direction: Sequence[Tensor]) -> dict[Variable, Variable]:
        """The parameters as they begin to move along a direction.

        Returns:
            The moving ones by those at rest.
        """
        return {
            each: Variable(each.value.moving(from_floats(moved)))
            for each, moved in zip(self.parameters.values(), direction, strict=True)
        }

    def carry_out(
        self, others: Mapping[Variable, Variable] = MappingProxyType({})
    ) -> tuple[Record, Variable]:
        """A forward pass: what was done, and the output.

        Args:
            others: what stands in the place of parameters.
        """
        calls, record = self._calls, Record(dtype=self._dtype, device=self._device)
        values: dict[fx.Node, Any] = {}
        for node in calls.graph.nodes:
            args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
            record.layer, record.own = layer_of(node), Native()
            record.differentiates = differentiated(node)
            match node.op:
                case "placeholder":
                    values[node] = self._given
                case "get_attr":
                    held = self._held[node]
                    values[node] = others.get(held, held)
                case "call_module":
                    module = calls.module(node)
                    record.own = getattr(module, "selection", Native())
                    values[node] = MODULES[type(module)](record, module, *args, **kwargs)
                case "call_function" | "call_method":
                    values[node] = _carry_out_function(record, node, args, kwargs)
                case "output":
                    (output,) = args
        return record, output


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
    failed = blaming(f"model: fails on inputs of shape {tuple(inputs.shape)}")
    with failed, as_found(model), torch.no_grad():
        model(inputs.to(like, copy=True))  # a layer in place may write to it
