"""Max pooling under every selection, against exact arithmetic and PyTorch's own operators."""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binom
from torch import Tensor

import exact
from exact import Pooling, assert_same_bits, unit_roundoff
from kinkcheck import ops
from kinkcheck.errors import InputError
from kinkcheck.selection import (
    Branch,
    First,
    Hybrid,
    Last,
    Minimal,
    Native,
    Random,
    Selection,
)
from strategies import (
    betas,
    dtypes,
    filled,
    inputs,
    laid_out,
    nonfinite_palettes,
    poolings,
    seeds,
    sliding,
    whole_numbers,
)

selections = st.sampled_from([Minimal(), First(), Last()]) | betas.map(Hybrid)


def pooled(x: Tensor, pooling: Pooling, selection: Selection) -> Tensor:
    function = getattr(torch.nn.functional, pooling.name)
    return ops.call(ops.operation(function, (x,), pooling.arguments), selection)


def vjp(x: Tensor, pooling: Pooling, selection: Selection, grad_output: Tensor) -> Tensor:
    return torch.autograd.grad(pooled(x, pooling, selection), x, grad_output)[0]


def windows_of(pooling: Pooling, x: Tensor) -> list[list[int]]:
    return pooling.windows(tuple(x.shape[-pooling.dimensions :]))


def rows(tensor: Tensor, pooling: Pooling) -> Tensor:
    """One row an image and channel."""
    return tensor.detach().reshape(-1, prod(tensor.shape[-pooling.dimensions :]))


def one_hot_at_a_window(data: Any, output: Tensor) -> tuple[Tensor, int]:
    window = data.draw(st.integers(0, output.numel() - 1))
    hot = torch.zeros(output.numel(), dtype=output.dtype)
    hot[window] = 1
    return hot.reshape(output.shape), window


def chosen_entries(data: Any, selection: Selection) -> tuple[dict[int, float], list[int], Tensor]:
    """The gradient of one window: its nonzero entries, its active set, and the input."""
    pooling, sizes = data.draw(poolings)
    x = data.draw(inputs(sizes, data.draw(dtypes)))
    output = pooled(x, pooling, selection)
    hot, window = one_hot_at_a_window(data, output)
    (gradient,) = torch.autograd.grad(output, x, hot)
    row, of = divmod(window, len(windows_of(pooling, x)))
    active = list(exact.active_sets(x, pooling))[row][of]
    everything = rows(gradient, pooling)
    assert everything.count_nonzero() == everything[row].count_nonzero()
    found = {i: w for i, w in enumerate(everything[row].tolist()) if w != 0}
    return found, active, x


# --- the definition, in exact arithmetic ----------------------------------------------------------


@given(st.data(), poolings, dtypes, selections, seeds)
def test_gradient_is_the_rational_one_within_rounding(
    data: Any, case: Any, dtype: torch.dtype, selection: Selection, seed: int
) -> None:
    pooling, sizes = case
    x = data.draw(inputs(sizes, dtype))
    grad_output = whole_numbers(pooling(x), seed)
    actual = vjp(x, pooling, selection, grad_output)
    assert actual.dtype == x.dtype
    assert actual.shape == x.shape
    expected = exact.gradient(x, grad_output, pooling, selection)
    # A weight is at most 1 + 2|β| and known to 6 roundings; n terms are added with n - 1 more.
    scale = 1 + 2 * abs(Fraction(getattr(selection, "beta", 0)))
    u = unit_roundoff(dtype)
    for got, want, size in zip(
        rows(actual, pooling).tolist(),
        expected,
        exact.magnitudes(x, grad_output, pooling),
        strict=True,
    ):
        for g, w, (n, total) in zip(got, want, size, strict=True):
            assert abs(Fraction(g) - w) <= (n + 6) * u * scale * total


@given(st.data(), poolings, dtypes, st.sampled_from([First(), Last()]), seeds)
def test_first_and_last_are_exact(
    data: Any, case: Any, dtype: torch.dtype, selection: Selection, seed: int
) -> None:
    pooling, sizes = case
    x = data.draw(inputs(sizes, dtype))
    grad_output = whole_numbers(pooling(x), seed)
    actual = rows(vjp(x, pooling, selection, grad_output), pooling)
    assert actual.tolist() == exact.gradient(x, grad_output, pooling, selection)


@given(st.data())
def test_minimal_lies_in_the_hull_of_the_active_branches(data: Any) -> None:
    found, active, x = chosen_entries(data, Minimal())
    assert set(found) == set(active)
    assert all(weight > 0 for weight in found.values())
    # Each of the m weights 1/m is rounded at most three times.
    total = sum(Fraction(weight) for weight in found.values())
    assert abs(total - 1) <= 4 * unit_roundoff(x.dtype)


@given(st.data(), betas)
def test_norm_of_hybrid_has_the_closed_form(data: Any, beta: float) -> None:
    found, active, x = chosen_entries(data, Hybrid(beta))
    m, b = len(active), Fraction(beta)
    squared = sum(Fraction(weight) ** 2 for weight in found.values())
    # 6 roundings of weights of at most 1 + 2|β|, squared and added exactly.
    weight = 1 + 2 * abs(b)
    slack = 6 * unit_roundoff(x.dtype) * weight
    assert abs(squared - (Fraction(1, m) + (1 - b) ** 2 * (1 - Fraction(1, m)))) <= m * slack * (
        2 * weight + slack
    )


@given(st.data(), sliding(overlap=False), dtypes, seeds)
def test_minimal_is_the_gradient_of_amax_where_windows_do_not_overlap(
    data: Any, case: Any, dtype: torch.dtype, seed: int
) -> None:
    pooling, sizes = case
    pooling.arguments["ceil_mode"] = False
    x = data.draw(inputs(sizes, dtype))
    unfolded = x
    for dimension in range(pooling.dimensions):
        unfolded = unfolded.unfold(
            x.dim() - pooling.dimensions + dimension,
            pooling.arguments["kernel_size"][dimension],
            pooling.arguments["stride"][dimension],
        )
    amax = unfolded.amax(dim=tuple(range(-pooling.dimensions, 0)))
    # Products with powers of two are exact, so that 1/m is rounded alike.
    grad_output = filled(tuple(amax.shape), (-2.0, 1.0, 0.5), dtype, seed)
    (expected,) = torch.autograd.grad(amax, x, grad_output)
    assert torch.equal(vjp(x, pooling, Minimal(), grad_output), expected)


@given(st.data(), dtypes, betas, seeds)
def test_hybrid_is_affine_in_beta(data: Any, dtype: torch.dtype, beta: float, seed: int) -> None:
    # Windows of one or two entries: weights are eighths of whole numbers, and all is exact.
    dimensions = data.draw(st.integers(1, 3))
    kernel = data.draw(st.permutations([2] + [1] * (dimensions - 1)))
    ones = (1,) * dimensions
    pooling = Pooling(
        dimensions,
        {
            "kernel_size": tuple(kernel),
            "stride": ones,
            "padding": (0,) * dimensions,
            "dilation": ones,
            "ceil_mode": False,
        },
    )
    x = data.draw(inputs((4,) * dimensions, dtype))
    grad_output = filled(tuple(pooling(x).shape), (-1.0, 1.0), dtype, seed)
    native, minimal, hybrid = (
        vjp(x, pooling, selection, grad_output).double()
        for selection in (Native(), Minimal(), Hybrid(beta))
    )
    assert torch.equal(hybrid, native + beta * (minimal - native))


# --- native ---------------------------------------------------------------------------------------


def _agree_bit_for_bit(data: Any, case: Any, x: Tensor, one: Selection, other: Selection) -> None:
    pooling, _ = case
    output = pooling(x)
    grad_output = torch.randn(
        output.shape, generator=torch.Generator().manual_seed(data.draw(seeds))
    ).to(x.dtype)
    assert_same_bits(vjp(x, pooling, one, grad_output), vjp(x, pooling, other, grad_output))


@given(st.data(), poolings, dtypes, st.sampled_from([First(), Hybrid(0)]))
def test_native_is_first_and_hybrid_zero(
    data: Any, case: Any, dtype: torch.dtype, selection: Selection
) -> None:
    x = data.draw(inputs(case[1], dtype))
    _agree_bit_for_bit(data, case, x, selection, Native())


@given(st.data(), poolings, dtypes, nonfinite_palettes, st.sampled_from([First(), Hybrid(0)]))
def test_native_is_first_and_hybrid_zero_on_nan_and_infinity(
    data: Any, case: Any, dtype: torch.dtype, palette: Any, selection: Selection
) -> None:
    pooling, sizes = case
    x = data.draw(inputs(sizes, dtype, palette))
    # The documented exception: PyTorch's channels_last_3d kernel in windows of -inf alone.
    all_minus_inf = bool((pooling(x) == float("-inf")).any())
    assume(x.dim() < 5 or x.is_contiguous() or not all_minus_inf)
    _agree_bit_for_bit(data, case, x, selection, Native())


@given(st.data(), poolings, dtypes)
def test_minimal_is_hybrid_one(data: Any, case: Any, dtype: torch.dtype) -> None:
    x = data.draw(inputs(case[1], dtype))
    _agree_bit_for_bit(data, case, x, Minimal(), Hybrid(1))


@given(
    st.data(), poolings, dtypes, st.sampled_from([Minimal(), Hybrid(7), First(), Last(), Random(3)])
)
def test_a_window_with_nan_sends_its_gradient_to_the_last_nan(
    data: Any, case: Any, dtype: torch.dtype, selection: Selection
) -> None:
    pooling, sizes = case
    x = data.draw(inputs(sizes, dtype, (float("nan"), 0.0, 0.0)))
    grad_output = whole_numbers(pooling(x), data.draw(seeds))
    actual = rows(vjp(x, pooling, selection, grad_output), pooling)
    expected = torch.zeros_like(actual)
    channels = zip(rows(x, pooling), rows(grad_output, pooling), strict=True)
    for channel, (values, grads) in enumerate(channels):
        for window, g in zip(windows_of(pooling, x), grads, strict=True):
            nans = [i for i in window if values[i].isnan()]
            if nans:
                expected[channel, nans[-1]] += g
            else:
                assume(all(values[i] != values[j] for i in window for j in window if i < j))
                expected[channel, window[0]] += g
    assert torch.equal(actual, expected)


# --- random ---------------------------------------------------------------------------------------


@given(st.data(), st.integers(0, 2**64 - 1))
def test_random_picks_one_active_entry(data: Any, seed: int) -> None:
    found, active, _ = chosen_entries(data, Random(seed))
    ((entry, weight),) = found.items()
    assert entry in active
    assert weight == 1


@given(st.data(), poolings, dtypes, seeds)
def test_random_depends_on_the_seed_and_not_on_the_memory_format(
    data: Any, case: Any, dtype: torch.dtype, seed: int
) -> None:
    pooling, sizes = case
    x = data.draw(inputs(sizes, dtype))
    grad_output = whole_numbers(pooling(x), seed)
    once = vjp(x, pooling, Random(seed), grad_output)
    for memory in ("contiguous", "channels_last", "transposed"):
        again = laid_out(x.detach(), memory, len(sizes)).requires_grad_()
        assert torch.equal(vjp(again, pooling, Random(seed), grad_output), once)


_TRIALS = 4096
_ERROR = 1e-9  # the chance that a fair draw fails one comparison


def _fair(count: int, probability: float) -> bool:
    low = binom.cdf(count, _TRIALS, probability)
    high = binom.sf(count - 1, _TRIALS, probability)
    return min(low, high) > _ERROR / 2


def _draws(m: int, seed: int) -> Tensor:
    """The entry that each of many windows of m equal entries picks."""
    x = torch.zeros(1, _TRIALS * m, requires_grad=True)
    pooling = Pooling(1, {"kernel_size": m})
    picked = vjp(x, pooling, Random(seed), torch.ones(1, _TRIALS)).reshape(_TRIALS, m)
    assert torch.equal(picked.sum(1), torch.ones(_TRIALS))
    return picked.argmax(1)


@pytest.mark.parametrize("m", [2, 3, 4, 9])
@pytest.mark.parametrize("seed", [0, 1, 7, 2**32, 2**64 - 1])
def test_random_is_unbiased_and_neighbours_are_independent(m: int, seed: int) -> None:
    draws = _draws(m, seed)
    for entry in range(m):
        assert _fair(int((draws == entry).sum()), 1 / m)
    for lag in (1, 2, 3, 32):
        assert _fair(int((draws == draws.roll(lag)).sum()), 1 / m)


@pytest.mark.parametrize("other", [1, 2, 2**32, 2**63])
def test_random_draws_with_two_seeds_are_independent(other: int) -> None:
    assert _fair(int((_draws(4, 0) == _draws(4, other)).sum()), 1 / 4)


def test_random_is_unbiased_over_seeds_at_one_place() -> None:
    x = torch.zeros(1, 4, requires_grad=True)
    pooling = Pooling(1, {"kernel_size": 2})
    output = [pooled(x, pooling, Random(seed)) for seed in range(_TRIALS)]
    picked = torch.stack([torch.autograd.grad(y, x, torch.ones(1, 2))[0][0] for y in output])
    assert _fair(int(picked[:, 0].sum()), 1 / 2)
    assert _fair(int(picked[:, 2].sum()), 1 / 2)
    assert _fair(int((picked[:, 0] == picked[:, 2]).sum()), 1 / 2)


# --- value, ties, errors --------------------------------------------------------------------------


@given(st.data(), poolings, dtypes, selections)
def test_value_and_indices_do_not_depend_on_the_selection(
    data: Any, case: Any, dtype: torch.dtype, selection: Selection
) -> None:
    pooling, sizes = case
    x = data.draw(inputs(sizes, dtype))
    value, indices = pooling(x, return_indices=True)
    module = pooling.module(selection, return_indices=True)
    assert_same_bits(module(x)[0], value)
    assert torch.equal(module(x)[1], indices)
    assert_same_bits(pooled(x, pooling, selection), value)


@given(st.data(), poolings, dtypes)
def test_gradient_has_the_memory_format_of_the_input(
    data: Any, case: Any, dtype: torch.dtype
) -> None:
    pooling, sizes = case
    x = data.draw(inputs(sizes, dtype))
    gradient = vjp(x, pooling, Minimal(), torch.ones_like(pooling(x)))
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for memory_format in (torch.contiguous_format, formats.get(x.dim())):
        if memory_format is not None and x.is_contiguous(memory_format=memory_format):
            assert gradient.is_contiguous(memory_format=memory_format)


@given(st.data(), poolings, dtypes)
def test_ties_are_counted(data: Any, case: Any, dtype: torch.dtype) -> None:
    pooling, sizes = case
    x = data.draw(inputs(sizes, dtype))
    function = getattr(torch.nn.functional, pooling.name)
    ties = ops.operation(function, (x,), pooling.arguments).ties()
    windows = windows_of(pooling, x)
    tied = tied_at_zero = 0
    for values, actives in zip(
        rows(x, pooling).tolist(), exact.active_sets(x, pooling), strict=True
    ):
        for window, active in zip(windows, actives, strict=True):
            tied += len(active) > 1
            tied_at_zero += len(active) > 1 and all(values[i] == 0 for i in window)
    found = (ties.windows, int(ties.tied), int(ties.tied_at_zero))
    assert found == (pooling(x).numel(), tied, tied_at_zero)


@pytest.mark.parametrize(
    ("name", "shape", "arguments"),
    [
        ("max_pool1d", (2, 7), (2,)),
        ("max_pool2d", (2, 5, 6), ((2, 3),)),
        ("max_pool2d", (2, 5, 6), ([3], [2], [1])),
        ("max_pool2d", (2, 5, 6), (2, None)),
        ("max_pool2d", (2, 5, 6), (2, [])),
        ("max_pool3d", (1, 4, 4, 4), (2, 1, 1, 1, True)),
        ("adaptive_max_pool1d", (2, 7), (3,)),
        ("adaptive_max_pool2d", (2, 5, 6), (3,)),
        ("adaptive_max_pool2d", (2, 5, 6), ([2, None],)),
        ("adaptive_max_pool3d", (1, 4, 5, 6), ((2, 3, None),)),
    ],
)
def test_arguments_are_read_as_by_pytorch(name: str, shape: Any, arguments: Any) -> None:
    function = getattr(torch.nn.functional, name)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    value = ops.call(ops.operation(function, (x, *arguments), {}), Minimal())
    assert_same_bits(value, function(x, *arguments))


def test_a_zero_weight_contributes_nothing_to_an_infinite_gradient() -> None:
    x = torch.tensor([[1.0, 1.0, 0.0]], requires_grad=True)
    pooling = Pooling(1, {"kernel_size": 3})
    infinite = torch.tensor([[float("inf")]])
    assert vjp(x, pooling, First(), infinite).tolist() == [[float("inf"), 0, 0]]
    assert vjp(x, pooling, Hybrid(2), infinite).tolist() == [[0, float("inf"), 0]]


def test_branch_is_refused_with_the_accepted_selections() -> None:
    x = torch.zeros(1, 2, requires_grad=True)
    output = pooled(x, Pooling(1, {"kernel_size": 2}), Branch(0.5))
    with pytest.raises(InputError) as error:
        output.sum().backward()
    assert str(error.value) == (
        "max pooling has no selection branch:0.5; accepted: native, minimal, hybrid:BETA, first, "
        "last, random:SEED, every, mix:FACTOR*SELECTION,..., limit:SEED"
    )
