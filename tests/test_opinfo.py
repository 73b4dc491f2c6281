"""PyTorch's own sample inputs: values, indices and native gradients bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kinkcheck.nn as knn
from exact import assert_same_bits
from kinkcheck.tape import record
from strategies import DTYPES, filled

pytestmark = pytest.mark.slow

_OPERATIONS = {
    f"nn.functional.{name}": (getattr(nn, module), getattr(knn, module))
    for name, module in (
        ("max_pool1d", "MaxPool1d"),
        ("max_pool2d", "MaxPool2d"),
        ("max_pool3d", "MaxPool3d"),
        ("adaptive_max_pool1d", "AdaptiveMaxPool1d"),
        ("adaptive_max_pool2d", "AdaptiveMaxPool2d"),
        ("adaptive_max_pool3d", "AdaptiveMaxPool3d"),
        ("relu", "ReLU"),
    )
}
_STEP = 41
"""Of many samples every 41st is taken, from another start for each type: 41 is prime to the
periods of the parameters, so that every value of each is met."""

_PALETTES = [
    (-1.0, 0.0, -0.0, 1.0),
    (float("nan"), float("inf"), float("-inf"), 0.0, 1.0),
]
"""Beside the values that PyTorch samples: some that tie, and some that are not finite."""


def _info(name: str) -> Any:
    from torch.testing._internal.common_methods_invocations import op_db  # takes seconds

    return next(info for info in op_db if info.name == name)


def _samples(info: Any, dtype: torch.dtype) -> list[Any]:
    samples = list(info.sample_inputs("cpu", dtype, requires_grad=False))
    return samples if len(samples) < 100 else samples[DTYPES.index(dtype) :: _STEP]


def _layouts(x: Tensor, operation: str) -> Iterator[Tensor]:
    yield x
    if x.dim() == 4 and operation.endswith("2d"):
        yield x.contiguous(memory_format=torch.channels_last)
    if x.dim() == 5 and operation.endswith("3d"):
        yield x.contiguous(memory_format=torch.channels_last_3d)


def _first(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


def _assert_same_result(actual: Any, expected: Any) -> None:
    assert type(actual) is type(expected)
    assert_same_bits(_first(actual), _first(expected))
    assert _first(actual).stride() == _first(expected).stride()
    if isinstance(expected, tuple):
        assert torch.equal(actual[1], expected[1])


def _assert_same_gradient(actual: Tensor, expected: Tensor) -> None:
    assert_same_bits(actual, expected)
    assert actual.stride() == expected.stride()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", _OPERATIONS)
def test_value_and_native_gradient(name: str, dtype: torch.dtype) -> None:
    info = _info(name)
    samples = _samples(info, dtype)
    assert samples
    generator = torch.Generator().manual_seed(0)
    for sample in samples:
        shape = tuple(sample.input.shape)
        for x in (sample.input, *(filled(shape, each, dtype, seed=0) for each in _PALETTES)):
            for at in _layouts(x, name):
                _assert_native(info, sample, at.detach().requires_grad_(), generator)


def _assert_native(info: Any, sample: Any, leaf: Tensor, generator: torch.Generator) -> None:
    expected = info.op(leaf, *sample.args, **sample.kwargs)
    grad_output = torch.randn(_first(expected).shape, generator=generator).to(leaf.dtype)
    (gradient,) = torch.autograd.grad(_first(expected), leaf, grad_output)

    module = _OPERATIONS[info.name][1](*sample.args, **sample.kwargs)
    result = module(leaf)
    _assert_same_result(result, expected)
    _assert_same_gradient(torch.autograd.grad(_first(result), leaf, grad_output)[0], gradient)

    with record() as tape:
        result = info.op(leaf, *sample.args, **sample.kwargs)
        loss = (_first(result) * grad_output).sum()
    _assert_same_result(result, expected)
    assert [site.operation for site in tape.sites] == [info.name.removeprefix("nn.functional.")]
    _assert_same_gradient(tape.gradient(loss, [leaf])[0], gradient)
    _assert_same_gradient(torch.autograd.grad(_first(result), leaf, grad_output)[0], gradient)


@pytest.mark.parametrize("name", _OPERATIONS)
def test_modules_say_what_pytorch_s_say(name: str) -> None:
    theirs, ours = _OPERATIONS[name]
    for sample in _samples(_info(name), torch.float32):
        shown = repr(ours(*sample.args, **sample.kwargs, selection="minimal"))
        plain = repr(theirs(*sample.args, **sample.kwargs))
        separator = "" if plain.endswith("()") else ", "
        assert shown == f"{plain[:-1]}{separator}selection='minimal')"
