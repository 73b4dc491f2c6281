"""Maxima, medians and sorted entries: native is PyTorch's, selections pair tied groups."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import permutations

import pytest
import torch
from torch import Tensor

from kinkcheck import record
from kinkcheck.tape.directions import direction
from strategies import DTYPES, filled

Function = Callable[[Tensor], Tensor]

PALETTE = (-3.0, -1.0, 0.0, -0.0, 0.5, 1.0)
BROKEN = (float("nan"), float("inf"), float("-inf"), 0.0, 1.0)
SHAPE = (4, 6)
OTHER = filled(SHAPE, PALETTE, torch.float32, 7)

CALLS: dict[str, tuple[str, Function]] = {
    "max of all": ("max", lambda x: x.max()),
    "max": ("max", lambda x: x.max(1).values),
    "max kept": ("max", lambda x: torch.max(x, 0, True)[0]),
    "max of two": ("max", lambda x: torch.max(x, OTHER.to(x.dtype))),
    "max along an axis": ("max", lambda x: torch.max(x, axis=1).values),
    "min": ("min", lambda x: torch.min(x, dim=-1)[0]),
    "min of all": ("min", torch.min),
    "fmax": ("fmax", lambda x: torch.fmax(x, OTHER.to(x.dtype))),
    "fmin": ("fmin", lambda x: torch.fmin(x, OTHER.to(x.dtype))),
    "median of all": ("median", torch.median),
    "median": ("median", lambda x: x.median(1).values),
    "nanmedian": ("nanmedian", lambda x: x.nanmedian(0).values),
    "kthvalue": ("kthvalue", lambda x: x.kthvalue(2, 1)[0]),
    "sort": ("sort", lambda x: x.sort(1)[0]),
    "descending": ("sort", lambda x: torch.sort(x, 0, True).values),
    "stable": ("sort", lambda x: x.sort(stable=True, dim=1)[0]),
    "msort": ("msort", torch.msort),
    "topk": ("topk", lambda x: x.topk(3, 1).values),
    "least": ("topk", lambda x: x.topk(2, 0, largest=False, sorted=False).values),
    "cummax": ("cummax", lambda x: x.cummax(1).values),
    "cummin": ("cummin", lambda x: torch.cummin(x, 0)[0]),
    "quantile": ("sort", lambda x: x.quantile(0.3, 1)),
    "quantiles": ("sort", lambda x: torch.quantile(x, x.new_tensor([0.2, 0.5]), 0, True)),
    "midpoint": ("sort", lambda x: x.quantile(0.4, interpolation="midpoint")),
    "nearest": ("sort", lambda x: x.quantile(0.4, keepdim=True, interpolation="nearest")),
    "nanquantile": ("sort", lambda x: x.nanquantile(0.3, 1)),
    "nanquantiles": ("sort", lambda x: torch.nanquantile(x, x.new_tensor([0.2, 0.5]), 0, True)),
}
QUANTILES = ("quantile", "quantiles", "midpoint", "nearest", "nanquantile", "nanquantiles")


def sorts_for_quantiles() -> bool:
    ones = torch.ones(4, requires_grad=True)
    return bool(torch.autograd.grad(torch.quantile(ones, 0.3), ones)[0][0] != 0)


@pytest.mark.parametrize("values", [PALETTE, BROKEN], ids=["ties", "broken"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [*CALLS, "mode"])
def test_value_and_native_gradient_are_pytorch_s(
    name: str, dtype: torch.dtype, values: tuple[float, ...]
) -> None:
    operation, function = CALLS.get(name, ("mode", lambda x: x.mode(1).values))
    if name in QUANTILES and dtype.itemsize == 2:
        pytest.skip("PyTorch has quantiles of float32 and float64 alone")
    if name in QUANTILES and not sorts_for_quantiles():
        pytest.skip("this PyTorch sorts for a quantile only where a mode is active, as in a block")
    x = filled(SHAPE, values, dtype, 0).requires_grad_()
    with record() as tape:
        output = function(x * 1)
        cotangent = filled(tuple(output.shape), (1.0, -2.0), dtype, 3)
        loss = (output * cotangent).sum()
    expected = function(x * 1)
    assert torch.equal(output.nan_to_num(7.0), expected.nan_to_num(7.0))
    assert [site.operation for site in tape.sites] == [operation]
    plain = torch.autograd.grad((expected * cotangent).sum(), x)[0]
    for gradient in (tape.gradient(loss, x)[0], torch.autograd.grad(loss, x)[0]):
        assert torch.equal(gradient.nan_to_num(7.0), plain.nan_to_num(7.0))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CALLS)
def test_a_limit_is_the_derivative_beside_the_tie(name: str, seed: int) -> None:
    function = CALLS[name][1]
    x = filled(SHAPE, PALETTE, torch.float64, seed).requires_grad_()
    with record() as tape:
        output = function(x * 1)
        cotangent = filled(tuple(output.shape), (1.0, -2.0), torch.float64, 3)
        loss = (output * cotangent).sum()
    (found,) = tape.gradient(loss, x, choose=f"limit:{seed}")
    beside = (x + 1e-7 * direction([x], seed)[0]).detach().requires_grad_()
    (expected,) = torch.autograd.grad((function(beside * 1) * cotangent).sum(), beside)
    assert torch.allclose(found, expected, atol=1e-6)


def _gradient(
    function: Function, values: list[float], cotangent: list[float], text: str
) -> list[float]:
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    with record() as tape:
        loss = (function(x * 1) * torch.tensor(cotangent, dtype=torch.float64)).sum()
    found: list[float] = tape.gradient(loss, x, choose=text)[0].tolist()
    return found


def test_a_tied_group_is_paired_with_its_outputs() -> None:
    values, cotangent = [2.0, 1.0, 2.0, 2.0], [1.0, 10.0, 100.0, 1000.0]

    def sort(x: Tensor) -> Tensor:
        return x.sort().values

    assert _gradient(sort, values, cotangent, "first") == [10, 1, 100, 1000]
    assert _gradient(sort, values, cotangent, "last") == [1000, 1, 100, 10]
    assert _gradient(sort, values, cotangent, "minimal") == [370, 1, 370, 370]
    possible = {tuple([p[0], 1, *p[1:]]) for p in permutations([10.0, 100.0, 1000.0])}
    drawn = {tuple(_gradient(sort, values, cotangent, f"random:{seed}")) for seed in range(40)}
    assert drawn == possible


def test_a_group_that_is_cut_shares_what_its_outputs_have() -> None:
    def two(x: Tensor) -> Tensor:
        return x.topk(2).values

    values, cotangent = [0.0, 3.0, 3.0, 3.0], [1.0, 10.0]
    assert _gradient(two, values, cotangent, "first") == [0, 1, 10, 0]
    assert _gradient(two, values, cotangent, "last") == [0, 0, 10, 1]
    third = float(Fraction(11, 3))
    assert _gradient(two, values, cotangent, "minimal") == pytest.approx([0, third, third, third])


def test_the_middle_one_of_equal_entries_may_be_any_of_them() -> None:
    def median(x: Tensor) -> Tensor:
        return x.median()

    values = [5.0, 2.0, 2.0, 0.0]
    assert _gradient(median, values, [1.0], "first") == [0, 1, 0, 0]
    assert _gradient(median, values, [1.0], "last") == [0, 0, 1, 0]
    assert _gradient(median, values, [1.0], "minimal") == [0, 0.5, 0.5, 0]


def test_a_running_maximum_is_any_of_the_entries_up_to_there() -> None:
    def running(x: Tensor) -> Tensor:
        return x.cummax(0).values

    values, cotangent = [2.0, 1.0, 2.0, 2.0, 3.0], [1.0, 10.0, 100.0, 1000.0, 10000.0]
    assert _gradient(running, values, cotangent, "first") == [1111, 0, 0, 0, 10000]
    assert _gradient(running, values, cotangent, "last") == [11, 0, 100, 1000, 10000]
    shared = [11 + 50 + 1000 / 3, 0, 50 + 1000 / 3, 1000 / 3, 10000]
    assert _gradient(running, values, cotangent, "minimal") == pytest.approx(shared)
    drawn = {tuple(_gradient(running, values, cotangent, f"random:{s}")) for s in range(60)}
    one, two = (0, 2), (0, 2, 3)
    possible = set()
    for third in one:
        for fourth in two:
            found = [11.0, 0.0, 0.0, 0.0, 10000.0]
            found[third] += 100
            found[fourth] += 1000
            possible.add(tuple(found))
    assert drawn == possible


def test_a_part_that_is_none_is_refused_by_pytorch() -> None:
    with record(), pytest.raises(RuntimeError, match=r"q must be in the range \[0, 1\]"):
        torch.ones(3).quantile(1.5)
