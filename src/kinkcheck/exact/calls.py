"""Which call of PyTorch is which layer over the rationals."""

from __future__ import annotations

import operator
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kinkcheck.nn as knn
from kinkcheck.errors import InputError
from kinkcheck.exact import declared, kinks, layers
from kinkcheck.exact.layers import Along, Windows
from kinkcheck.exact.rationals import from_floats, rational
from kinkcheck.exact.record import Record, Variable
from kinkcheck.ops.calls import functions
from kinkcheck.ops.conventions import Form

Call = Callable[..., Variable]
"""Carries out a call: a record, then what the function of PyTorch takes."""
Term = Variable | float


class Leaves:
    """The tensors of a model, each one variable however often it is met."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = dict(model.named_parameters())
        self._names = {id(parameter): name for name, parameter in self._parameters.items()}
        self._variables: dict[int, Variable] = {}

    def of(self, tensor: Tensor) -> Variable:
        """The variable of what the model holds."""
        if id(tensor) not in self._variables:
            name = self._names.get(id(tensor), "model: a buffer")
            self._variables[id(tensor)] = Variable(from_floats(tensor, name))
        return self._variables[id(tensor)]

    def trained(self) -> dict[str, Variable]:
        """The parameters that require a gradient, by name."""
        return {name: self.of(p) for name, p in self._parameters.items() if p.requires_grad}


# Layers: the record, then the arguments of PyTorch's function of this name.


def _relu(record: Record, input: Variable, inplace: bool = False) -> Variable:
    zero = Fraction(0)
    found = kinks.sides(input.value, [(zero, zero, Fraction(1))], zero, [zero])
    return record.kink(Form("relu"), [input], found)


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
        return record.kink(Form(f"max_pool{dimensions}d"), [input], found)

    return carry_out


def _adaptive_max_pool(dimensions: int) -> Call:
    def carry_out(
        record: Record, input: Variable, output_size: Any, return_indices: bool = False
    ) -> Variable:
        over = layers.windows(_adaptive(input, dimensions, output_size))
        found = layers.max_pool(input.value, over)
        return record.kink(Form(f"adaptive_max_pool{dimensions}d"), [input], found)

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


def _terms(
    record: Record, operation: Callable[..., Any], input: Term, other: Term
) -> tuple[Variable, Variable]:
    x, y = (
        each if isinstance(each, Variable) else record.number(each, operation)
        for each in (input, other)
    )
    return x, y


def _to(x: Variable) -> layers.Adjoint:
    """The adjoint of broadcasting a variable."""
    return lambda g: layers.summed_to(g, x.value.shape)


def _add(record: Record, input: Term, other: Term) -> Variable:
    x, y = _terms(record, operator.add, input, other)
    return record.step(x.value + y.value, (x, _to(x)), (y, _to(y)))


def _subtract(record: Record, input: Term, other: Term) -> Variable:
    x, y = _terms(record, operator.sub, input, other)
    return record.step(x.value - y.value, (x, _to(x)), (y, lambda g: -_to(y)(g)))


def _multiply(record: Record, input: Term, other: Term) -> Variable:
    x, y = _terms(record, operator.mul, input, other)
    return record.step(
        x.value * y.value,
        (x, lambda g: _to(x)(g * y.value)),
        (y, lambda g: _to(y)(g * x.value)),
    )


def _divide(record: Record, input: Variable, other: float) -> Variable:
    x, divisor = _terms(record, operator.truediv, input, other)
    (number,) = divisor.value.fractions()
    if not number:
        raise InputError("model: divides by 0")
    share = rational(1 / number)
    return record.step(x.value * share, (x, lambda g: g * share))


def _negate(record: Record, input: Variable) -> Variable:
    return record.step(-input.value, (input, lambda g: -g))


def _clone(record: Record, input: Variable) -> Variable:
    return record.step(input.value, (input, lambda g: g))


def _detach(record: Record, input: Variable) -> Variable:
    return record.step(input.value)


def _flatten(record: Record, input: Variable, start_dim: int = 0, end_dim: int = -1) -> Variable:
    shape = input.value.shape
    start, end = start_dim % len(shape), end_dim % len(shape)
    if start == end:
        return input  # the tensor itself, whose gradient passes also where gradients are off
    return _view(record, input, *shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])


def _view(record: Record, input: Variable, *shape: Any) -> Variable:
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    before = input.value.shape
    return record.step(input.value.reshape(*sizes), (input, lambda g: g.reshape(*before)))


def _reshape(record: Record, input: Variable, shape: Any) -> Variable:
    return _view(record, input, shape)


def _contiguous(record: Record, input: Variable) -> Variable:
    return input


def _dropout(
    record: Record,
    input: Variable,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Variable:
    return input


def _batch_norm(
    record: Record,
    input: Variable,
    running_mean: Variable,
    running_var: Variable,
    weight: Variable | None = None,
    bias: Variable | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
) -> Variable:
    """(x − mean) · s · weight + bias, s the float64 number 1/√(var + eps)."""
    # Beside anything but float64 PyTorch adds eps in float32: of 16-bit types it computes
    # statistics in float32.
    taken = torch.tensor(
        eps, dtype=record.dtype if record.dtype == torch.float64 else torch.float32
    )
    spread = 1 / (running_var.value.to_float64() + taken.double()).sqrt()
    x = input.value
    s = layers.per_channel(x, from_floats(spread, "model: a spread of batch norm"), 1)
    mean = layers.per_channel(x, running_mean.value, 1)
    standard = record.step((x - mean) * s, (input, lambda g: g * s))
    if weight is None:
        return _add_bias(record, standard, bias, 1 - len(x.shape))
    w, value = layers.per_channel(x, weight.value, 1), standard.value
    scaled = record.step(
        value * w,
        (standard, lambda g: g * w),
        (weight, lambda g: layers.over_channels(g * value, 1)),
    )
    return _add_bias(record, scaled, bias, 1 - len(x.shape))


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
    torch.flatten: _flatten,
    "flatten": _flatten,
    "view": _view,
    "reshape": _view,
    torch.reshape: _reshape,
    "contiguous": _contiguous,
    torch.clone: _clone,
    "clone": _clone,
    torch.detach: _detach,
    "detach": _detach,
    operator.neg: _negate,
    torch.neg: _negate,
    "neg": _negate,
    F.batch_norm: _batch_norm,
    F.dropout: _dropout,
    F.dropout1d: _dropout,
    F.dropout2d: _dropout,
}
_ARITHMETIC: list[tuple[Call, tuple[str, ...], tuple[Any, Any]]] = [
    (_add, ("add",), (operator.add, operator.iadd)),
    (_subtract, ("sub", "subtract"), (operator.sub, operator.isub)),
    (_multiply, ("mul", "multiply"), (operator.mul, operator.imul)),
    (_divide, ("div", "divide", "true_divide"), (operator.truediv, operator.itruediv)),
]
IN_PLACE: set[Any] = {F.relu_, torch.relu_, "relu_"}
for _call, _names, (_operator, _in_place) in _ARITHMETIC:
    FUNCTIONS |= {_operator: _call, _in_place: _call}
    IN_PLACE.add(_in_place)
    for _name in _names:
        FUNCTIONS |= {getattr(torch, _name): _call, _name: _call, f"{_name}_": _call}
        IN_PLACE.add(f"{_name}_")
READERS: dict[Any, Callable[..., Any]] = {
    getattr: lambda shape, name: torch.Size(shape) if name == "shape" else len(shape),
    "size": lambda shape, dim=None: torch.Size(shape) if dim is None else shape[dim],
    "dim": len,
}


for _row in declared.ROWS:
    _carry_out = declared.call(_row)
    for _function, _, _in_place in functions(_row):
        FUNCTIONS[_function] = _carry_out
    for _name in _row.spellings.split():
        FUNCTIONS |= {name: _carry_out for name in (_name, f"{_name}_") if hasattr(Tensor, name)}
        IN_PLACE |= {f"{_name}_", getattr(F, f"{_name}_", None), getattr(torch, f"{_name}_", None)}

TERMS = {call for call, _, _ in _ARITHMETIC}
DIVISION = _divide
AS_IT_IS = _contiguous
VIEWS: set[Call] = {_flatten, _view, _reshape, _contiguous, _dropout, _detach}

# Modules: those that call the functions above, and those that have a selection.

THROUGH: set[type[nn.Module]] = {
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.ReLU,
    nn.ReLU6,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
}


def _calling(call: Call, *arguments: str) -> Callable[..., Variable]:
    """A module that calls a function with some of its attributes."""

    def carry_out(record: Record, module: Any, input: Variable) -> Variable:
        return call(record, input, **{name: getattr(module, name) for name in arguments})

    return carry_out


_MAX_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

MODULES: dict[type[nn.Module], Callable[..., Variable]] = {
    knn.ReLU: _calling(_relu),
    knn.ReLU6: _calling(FUNCTIONS[F.hardtanh], "min_val", "max_val"),
    knn.Hardtanh: _calling(FUNCTIONS[F.hardtanh], "min_val", "max_val"),
    knn.LeakyReLU: _calling(FUNCTIONS[F.leaky_relu], "negative_slope"),
    knn.MaxPool1d: _calling(_max_pool(1), *_MAX_POOL),
    knn.MaxPool2d: _calling(_max_pool(2), *_MAX_POOL),
    knn.AdaptiveMaxPool1d: _calling(_adaptive_max_pool(1), "output_size"),
    knn.AdaptiveMaxPool2d: _calling(_adaptive_max_pool(2), "output_size"),
}
