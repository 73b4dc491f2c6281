"""Norm pooling: PyTorch's lp_pool2d bit for bit, and α times the ones at a window of zeros."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

import kinkcheck.nn as knn
from exact import Pooling, assert_same_bits, unit_roundoff
from kinkcheck import ops
from kinkcheck.errors import InputError
from kinkcheck.selection import Branch
from kinkcheck.tape import record
from strategies import (
    betas,
    dtypes,
    filled,
    inputs,
    nonfinite_palettes,
    seeds,
    whole_numbers,
)


@st.composite
def norm_poolings(draw: Any) -> tuple[Pooling, tuple[int, int], tuple[Any, ...]]:
    """Windows in exact form, sizes of an input, and the arguments of lp_pool2d."""
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    ceil_mode = draw(st.booleans())
    sizes = (kernel[0] + draw(st.integers(0, 3)), kernel[1] + draw(st.integers(0, 3)))
    pooling = Pooling(
        2,
        {
            "kernel_size": kernel,
            "stride": stride,
            "padding": (0, 0),
            "dilation": (1, 1),
            "ceil_mode": ceil_mode,
        },
    )
    assume(all(pooling.windows(sizes)))
    return pooling, sizes, (kernel, stride, ceil_mode)


palettes = st.sampled_from([(0.0, 0.0, 1.0), (-0.0, 0.0), (0.0, 3.0, -4.0)]) | nonfinite_palettes


@given(st.data(), norm_poolings(), dtypes, palettes, betas)
def test_value_and_native_gradient_are_those_of_lp_pool2d(
    data: Any, case: Any, dtype: torch.dtype, palette: Any, beta: float
) -> None:
    _, sizes, arguments = case
    x = data.draw(inputs(sizes, dtype, palette))
    expected = F.lp_pool2d(x, 2.0, *arguments)
    grad_output = whole_numbers(expected, 1)
    (gradient,) = torch.autograd.grad(expected, x, grad_output)

    output = knn.NormPool2d(*arguments)(x)
    assert_same_bits(output, expected)
    assert_same_bits(torch.autograd.grad(output, x, grad_output)[0], gradient)

    with record() as tape:
        output = nn.LPPool2d(2, *arguments)(x)
        loss = (output * grad_output).sum()
    assert_same_bits(output, expected)
    assert [site.operation for site in tape.sites] == ["norm_pool2d"]
    for text in ("native", "minimal", f"hybrid:{beta}", "branch:0"):
        assert_same_bits(tape.gradient(loss, [x], choose=text)[0], gradient)


@given(norm_poolings(), dtypes, seeds, betas)
def test_at_zero_windows_alone_the_gradient_is_a_sum_of_whole_numbers(
    case: Any, dtype: torch.dtype, seed: int, alpha: float
) -> None:
    pooling, sizes, arguments = case
    x = torch.zeros(2, *sizes, dtype=dtype, requires_grad=True)
    output = knn.NormPool2d(*arguments, selection=Branch(alpha))(x)
    grad_output = filled(tuple(output.shape), (-1.0, 1.0), dtype, seed)
    (gradient,) = torch.autograd.grad(output, x, grad_output)
    expected = [[Fraction(0)] * x[0].numel() for _ in range(2)]
    for row, grads in zip(expected, grad_output.flatten(1).tolist(), strict=True):
        for window, g in zip(pooling.windows(sizes), grads, strict=True):
            for i in window:
                row[i] += Fraction(alpha) * Fraction(g)
    # At most nine windows meet; |α| is at most 8 and a multiple of 1/8, so that a sum needs
    # ten bits and one of bfloat16 (eight bits) is rounded at most eight times.
    slack = 0 if dtype != torch.bfloat16 else 8 * 72 * unit_roundoff(dtype)
    for got, want in zip(gradient.flatten(1).tolist(), expected, strict=True):
        for g, w in zip(got, want, strict=True):
            assert abs(Fraction(g) - w) <= slack


@given(norm_poolings(), seeds, betas)
def test_other_windows_keep_pytorch_s_gradient(case: Any, seed: int, alpha: float) -> None:
    pooling, sizes, arguments = case
    x = filled((2, *sizes), (0.0, 0.0, 0.0, 3.0, -4.0), torch.float64, seed).requires_grad_()
    expected_output = F.lp_pool2d(x, 2.0, *arguments)
    grad_output = whole_numbers(expected_output, seed)
    (native,) = torch.autograd.grad(expected_output, x, grad_output)
    output = knn.NormPool2d(*arguments, selection=Branch(alpha))(x)
    (gradient,) = torch.autograd.grad(output, x, grad_output)
    for channel in range(2):
        values = x[channel].flatten().tolist()
        expected = [Fraction(v) for v in native[channel].flatten().tolist()]
        for window, g in zip(
            pooling.windows(sizes), grad_output[channel].flatten().tolist(), strict=True
        ):
            if all(values[i] == 0 for i in window):
                for i in window:
                    expected[i] += Fraction(alpha) * Fraction(g)
        for got, want in zip(gradient[channel].flatten().tolist(), expected, strict=True):
            # The multiples of 1/8 are added exactly; adding the native part rounds once.
            assert abs(Fraction(got) - want) <= unit_roundoff(x.dtype) * abs(want)


@given(st.data(), norm_poolings(), dtypes)
def test_zero_windows_are_counted(data: Any, case: Any, dtype: torch.dtype) -> None:
    pooling, sizes, arguments = case
    x = data.draw(inputs(sizes, dtype, (0.0, -0.0, 0.0, 1.0)))
    ties = ops.operation(F.lp_pool2d, (x, 2.0, *arguments), {}).ties()
    zero = sum(
        all(values[i] == 0 for i in window)
        for values in x.detach().reshape(-1, sizes[0] * sizes[1]).tolist()
        for window in pooling.windows(sizes)
    )
    channels = x.numel() // (sizes[0] * sizes[1])
    found = (ties.windows, int(ties.tied), int(ties.tied_at_zero))
    assert found == (channels * len(pooling.windows(sizes)), zero, zero)


def test_a_norm_that_underflows_is_tied_but_not_at_zero() -> None:
    x = torch.tensor([[[1e-30, 0.0], [0.0, 0.0]]], requires_grad=True)
    ties = ops.operation(F.lp_pool2d, (x, 2.0, 2), {}).ties()
    assert (ties.windows, int(ties.tied), int(ties.tied_at_zero)) == (1, 1, 0)
    output = knn.NormPool2d(2, selection="branch:1")(x)
    assert torch.autograd.grad(output.sum(), x)[0].tolist() == [[[1, 1], [1, 1]]]


def test_the_sum_of_magnitudes_is_no_site_and_is_named() -> None:
    x = torch.ones(1, 2, 2, requires_grad=True)
    with record() as tape:
        F.lp_pool2d(x, 1.0, 2)
    assert tape.sites == []
    assert {unseen.operation for unseen in tape.unseen} == {"sign", "abs", "relu"}


@pytest.mark.parametrize("text", ["first", "last", "random:1"])
def test_selections_of_single_branches_are_refused(text: str) -> None:
    with pytest.raises(InputError) as error:
        knn.NormPool2d(2, selection=text)
    assert str(error.value) == (
        f"norm_pool has no selection {text}; accepted: native, minimal, hybrid:BETA, branch:ALPHA, "
        "mix:FACTOR*SELECTION,..., as:FRAMEWORK, limit:SEED"
    )


def test_keyword_arguments_are_read_as_by_pytorch() -> None:
    x: Tensor = torch.rand(1, 5, 5, generator=torch.Generator().manual_seed(0))
    with record() as tape:
        output = F.lp_pool2d(input=x, norm_type=2, kernel_size=2, stride=None, ceil_mode=True)
    assert_same_bits(output, F.lp_pool2d(x, 2, 2, ceil_mode=True))
    assert tape.sites[0].windows == 9
