"""Which call of PyTorch is which layer over the rationals."""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import product
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kinkcheck.nn as knn
from kinkcheck import ops
from kinkcheck.audit.exact import layers
from kinkcheck.audit.exact.layers import Along, Windows
from kinkcheck.audit.exact.rationals import from_floats
from kinkcheck.audit.exact.record import Record, Variable

Call = Callable[..., Variable]
"""Carries out a call: a record, then what the function of PyTorch takes."""


class Leaves:
    """The tensors of a model, each one variable however often it is met."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = dict(model.named_parameters())
        self._names = {id(parameter): name for name, parameter in self._parameters.items()}
        self._variables: dict[int, Variable] = {}

    def of(self, tensor: Tensor | None) -> Variable | None:
        """The variable of a parameter or buffer."""
        if tensor is None:
            return None
        if id(tensor) not in self._variables:
            name = self._names.get(id(tensor), "model: a buffer")
            self._variables[id(tensor)] = Variable(from_floats(tensor, name))
        return self._variables[id(tensor)]

    def trained(self) -> dict[str, Variable]:
        """The parameters that require a gradient, by name."""
        found = {name: self.of(p) for name, p in self._parameters.items() if p.requires_grad}
        return {name: variable for name, variable in found.items() if variable is not None}


# Layers: the record, then the arguments of PyTorch's function of this name.


def _relu(record: Record, input: Variable, inplace: bool = False) -> Variable:
    return record.kink(ops.ReLU, "relu", input, layers.relu(input.value))


def _linear(
    record: Record, input: Variable, weight: Variable, bias: Variable | None = None
) -> Variable:
    y, for_input, for_weight = layers.linear(input.value, weight.value)
    return _add_bias(record, record.step(y, (input, for_input), (weight, for_weight)), bias, -1)


def _convolution(dimensions: int) -> Call:
    def carry_out(
        record: Record,
        input: Variable,
        weight: Variable,
        bias: Variable | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Variable:
        x = input.value
        sizes, places = x.shape[-dimensions:], weight.value.shape[2:]
        strides, dilations = _each(stride, dimensions), _each(dilation, dimensions)
        over = layers.windows(
            [
                layers.sliding(*geometry)
                for geometry in zip(
                    sizes, places, strides, _around(padding, places, dilations), dilations,
                    strict=True,
                )
            ]
        )  # fmt: skip
        channels = x.shape[-dimensions - 1]
        batched = x.reshape(-1, channels, *sizes)
        y, for_input, for_weight = layers.convolution(batched, weight.value, over, groups)
        shape = y.shape
        output = record.step(
            y.reshape(*x.shape[: -dimensions - 1], *shape[1:]),
            (input, lambda g: for_input(g.reshape(*shape)).reshape(*x.shape)),
            (weight, lambda g: for_weight(g.reshape(*shape))),
        )
        return _add_bias(record, output, bias, -dimensions - 1)

    return carry_out


def _add_bias(record: Record, output: Variable, bias: Variable | None, dimension: int) -> Variable:
    if bias is None:
        return output
    y = output.value
    axis = len(y.shape) + dimension
    return record.step(
        y + layers.per_channel(y, bias.value, axis),
        (output, lambda g: g),
        (bias, lambda g: layers.over_channels(g, axis)),
    )


def _max_pool(dimensions: int) -> Call:
    def carry_out(
        record: Record,
        input: Variable,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Variable:
        over = layers.windows(
            _sliding(input, dimensions, kernel_size, stride, padding, dilation, ceil_mode)
        )
        found = layers.max_pool(input.value, over)
        return record.kink(ops.MaxPool, f"max_pool{dimensions}d", input, found)

    return carry_out


def _adaptive_max_pool(dimensions: int) -> Call:
    def carry_out(
        record: Record, input: Variable, output_size: Any, return_indices: bool = False
    ) -> Variable:
        over = layers.windows(_adaptive(input, dimensions, output_size))
        found = layers.max_pool(input.value, over)
        return record.kink(ops.MaxPool, f"adaptive_max_pool{dimensions}d", input, found)

    return carry_out


def _average_pool(dimensions: int) -> Call:
    def carry_out(
        record: Record,
        input: Variable,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Variable:
        along = _sliding(input, dimensions, kernel_size, stride, padding, 1, ceil_mode)
        over = layers.windows(along)
        divisors = over.inside.sum(axis=1).tolist()
        if count_include_pad:
            # The padding counts, but not what a window reaches beyond it under ceil_mode.
            counts = [
                [min(kernel, each.size + 2 * pad - o * step) for o in range(len(each.places))]
                for each, kernel, step, pad in zip(
                    along,
                    _each(kernel_size, dimensions),
                    _each(stride or kernel_size, dimensions),
                    _each(padding, dimensions),
                    strict=True,
                )
            ]
            divisors = [prod(window) for window in product(*counts)]
        if divisor_override is not None:
            divisors = [divisor_override] * len(divisors)
        return _averaged(record, input, over, divisors)

    return carry_out


def _adaptive_average_pool(dimensions: int) -> Call:
    def carry_out(record: Record, input: Variable, output_size: Any) -> Variable:
        over = layers.windows(_adaptive(input, dimensions, output_size))
        return _averaged(record, input, over, over.inside.sum(axis=1).tolist())

    return carry_out


def _averaged(record: Record, input: Variable, over: Windows, divisors: list[int]) -> Variable:
    y, pull = layers.average_pool(input.value, over, divisors)
    return record.step(y, (input, pull))


def _sliding(
    input: Variable,
    dimensions: int,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> list[Along]:
    arguments = (
        _each(argument, dimensions)
        for argument in (kernel_size, stride or kernel_size, padding, dilation)
    )
    return [
        layers.sliding(size, kernel, step, (pad, pad), apart, ceil_mode)
        for size, kernel, step, pad, apart in zip(
            input.value.shape[-dimensions:], *arguments, strict=True
        )
    ]


def _adaptive(input: Variable, dimensions: int, output_size: Any) -> list[Along]:
    sizes = input.value.shape[-dimensions:]
    return [
        layers.adaptive(size, size if outputs is None else outputs)
        for size, outputs in zip(sizes, _each(output_size, dimensions), strict=True)
    ]


def _add(record: Record, input: Variable, other: Variable) -> Variable:
    def pull(shape: tuple[int, ...]) -> layers.Adjoint:
        return lambda g: layers.summed_to(g, shape)

    x, y = input.value, other.value
    return record.step(x + y, (input, pull(x.shape)), (other, pull(y.shape)))


def _flatten(record: Record, input: Variable, start_dim: int = 0, end_dim: int = -1) -> Variable:
    shape = input.value.shape
    start, end = start_dim % len(shape), end_dim % len(shape)
    return _view(record, input, *shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])


def _view(record: Record, input: Variable, *shape: Any) -> Variable:
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    before = input.value.shape
    return record.step(input.value.reshape(*sizes), (input, lambda g: g.reshape(*before)))


def _reshape(record: Record, input: Variable, shape: Any) -> Variable:
    return _view(record, input, shape)


def _identity(record: Record, input: Variable, *args: Any, **kwargs: Any) -> Variable:
    return input


def _dropout(
    record: Record,
    input: Variable,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Variable:
    return input


def _batch_norm(record: Record, module: Any, leaves: Leaves, input: Variable) -> Variable:
    """(x − mean) · s · weight + bias, s the float64 number 1/√(var + eps)."""
    spread = 1 / module.running_var.double().add(module.eps).sqrt()
    scale, mean = (from_floats(each, "model: a buffer") for each in (spread, module.running_mean))
    x = input.value
    s = layers.per_channel(x, scale, 1)
    standard = record.step((x + -layers.per_channel(x, mean, 1)) * s, (input, lambda g: g * s))
    weight = leaves.of(module.weight)
    if weight is None:
        return _add_bias(record, standard, leaves.of(module.bias), 1 - len(x.shape))
    w, value = layers.per_channel(x, weight.value, 1), standard.value
    scaled = record.step(
        value * w,
        (standard, lambda g: g * w),
        (weight, lambda g: layers.over_channels(g * value, 1)),
    )
    return _add_bias(record, scaled, leaves.of(module.bias), 1 - len(x.shape))


def _each(value: Any, dimensions: int) -> tuple[Any, ...]:
    numbers = tuple(value) if isinstance(value, tuple | list) else (value,)
    return numbers * dimensions if len(numbers) == 1 else numbers


def _around(
    padding: Any, places: tuple[int, ...], dilations: tuple[int, ...]
) -> list[tuple[int, int]]:
    """How much padding is before and behind each dimension."""
    if padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilations, places, strict=True)]
        return [(total // 2, total - total // 2) for total in reach]
    return [(pad, pad) for pad in _each(0 if padding == "valid" else padding, len(places))]


# Which call of PyTorch is which layer.

FUNCTIONS: dict[Any, Call] = {
    F.relu: _relu,
    F.relu_: _relu,
    torch.relu: _relu,
    torch.relu_: _relu,
    "relu": _relu,
    "relu_": _relu,
    F.linear: _linear,
    F.conv1d: _convolution(1),
    F.conv2d: _convolution(2),
    F.max_pool1d: _max_pool(1),
    F.max_pool2d: _max_pool(2),
    torch.max_pool1d: _max_pool(1),
    torch.max_pool2d: _max_pool(2),
    F.adaptive_max_pool1d: _adaptive_max_pool(1),
    F.adaptive_max_pool2d: _adaptive_max_pool(2),
    F.avg_pool1d: _average_pool(1),
    F.avg_pool2d: _average_pool(2),
    F.adaptive_avg_pool1d: _adaptive_average_pool(1),
    F.adaptive_avg_pool2d: _adaptive_average_pool(2),
    operator.add: _add,
    operator.iadd: _add,
    torch.add: _add,
    "add": _add,
    "add_": _add,
    torch.flatten: _flatten,
    "flatten": _flatten,
    "view": _view,
    "reshape": _view,
    torch.reshape: _reshape,
    "contiguous": _identity,
    F.dropout: _dropout,
    F.dropout2d: _dropout,
}
IN_PLACE = {F.relu_, torch.relu_, "relu_", operator.iadd, "add_"}
READERS: dict[Any, Callable[..., Any]] = {
    getattr: lambda shape, name: torch.Size(shape) if name == "shape" else len(shape),
    "size": lambda shape, dim=None: torch.Size(shape) if dim is None else shape[dim],
    "dim": len,
}


def _calling(call: Call, *arguments: str) -> Callable[..., Variable]:
    """A module that calls a function with some of its attributes."""

    def carry_out(record: Record, module: Any, leaves: Leaves, input: Variable) -> Variable:
        given = {name: getattr(module, name) for name in arguments}
        for name in given.keys() & {"weight", "bias"}:
            given[name] = leaves.of(given[name])
        return call(record, input, **given)

    return carry_out


_CONVOLUTION = ("weight", "bias", "stride", "padding", "dilation", "groups")
_MAX_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_AVERAGE_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")

MODULES: dict[type[nn.Module], Callable[..., Variable]] = {
    nn.Linear: _calling(_linear, "weight", "bias"),
    nn.Conv1d: _calling(_convolution(1), *_CONVOLUTION),
    nn.Conv2d: _calling(_convolution(2), *_CONVOLUTION),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: _calling(_relu),
    knn.ReLU: _calling(_relu),
    nn.MaxPool1d: _calling(_max_pool(1), *_MAX_POOL),
    nn.MaxPool2d: _calling(_max_pool(2), *_MAX_POOL),
    knn.MaxPool1d: _calling(_max_pool(1), *_MAX_POOL),
    knn.MaxPool2d: _calling(_max_pool(2), *_MAX_POOL),
    nn.AdaptiveMaxPool1d: _calling(_adaptive_max_pool(1), "output_size"),
    nn.AdaptiveMaxPool2d: _calling(_adaptive_max_pool(2), "output_size"),
    knn.AdaptiveMaxPool1d: _calling(_adaptive_max_pool(1), "output_size"),
    knn.AdaptiveMaxPool2d: _calling(_adaptive_max_pool(2), "output_size"),
    nn.AvgPool1d: _calling(_average_pool(1), *_AVERAGE_POOL),
    nn.AvgPool2d: _calling(_average_pool(2), *_AVERAGE_POOL, "divisor_override"),
    nn.AdaptiveAvgPool1d: _calling(_adaptive_average_pool(1), "output_size"),
    nn.AdaptiveAvgPool2d: _calling(_adaptive_average_pool(2), "output_size"),
    nn.Flatten: _calling(_flatten, "start_dim", "end_dim"),
    nn.Identity: _calling(_identity),
    nn.Dropout: _calling(_identity),
    nn.Dropout1d: _calling(_identity),
    nn.Dropout2d: _calling(_identity),
}
TERMS = {_add}
VIEWS = {_flatten, _view, _reshape, _identity, _dropout}
VIEW_MODULES = {nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d}
