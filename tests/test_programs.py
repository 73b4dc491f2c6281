"""Programs that compute one function: values, and derivatives against dual numbers in fractions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kinkcheck import programs

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]

# Few values, so that ties abound; products and halved sums are exact in every type.
few = st.integers(-3, 3)
finite = st.floats(-1e3, 1e3, width=16)


@dataclass(frozen=True)
class Dual:
    """A value and its derivative with respect to t."""

    value: Fraction
    slope: Fraction

    def __add__(self, other: Dual) -> Dual:
        return Dual(self.value + other.value, self.slope + other.slope)

    def __sub__(self, other: Dual) -> Dual:
        return Dual(self.value - other.value, self.slope - other.slope)

    def half(self) -> Dual:
        return Dual(self.value / 2, self.slope / 2)

    def relu(self, at_zero: int) -> Dual:
        active = self.value > 0 or (self.value == 0 and at_zero)
        return self if active else Dual(Fraction(0), Fraction(0))


def loop(products: Sequence[Dual]) -> Dual:
    largest = products[0]
    for product in products[1:]:
        if product.value > largest.value:
            largest = product
    return largest


def mean_of_largest(products: Sequence[Dual]) -> Dual:
    largest = max(product.value for product in products)
    slopes = [product.slope for product in products if product.value == largest]
    return Dual(largest, sum(slopes, Fraction(0)) / len(slopes))


def tree(products: Sequence[Dual], at_zero: int) -> Dual:
    def of_two(a: Dual, b: Dual) -> Dual:
        return (a + b).half() + (a - b).half().relu(at_zero) + (b - a).half().relu(0)

    return of_two(of_two(*products[:2]), of_two(*products[2:]))


def in_fractions(t: Fraction, x: Sequence[Fraction]) -> dict[str, Dual]:
    products = [Dual(t * entry, entry) for entry in x]
    return {
        "max1": loop(products),
        "max2": mean_of_largest(products),
        "zero": loop(products) - mean_of_largest(products),
        "zero ReLUs": tree(products, at_zero=0) - tree(products, at_zero=1),
    }


def derivative(program: Callable[[Tensor], Tensor], x: Sequence[float]) -> list[float]:
    at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(program(at), at)
    return gradient.tolist()  # type: ignore[no-any-return]


@given(st.lists(few | finite, min_size=4, max_size=4), st.sampled_from(DTYPES))
def test_max1_and_max2_return_the_largest_entry(x: list[float], dtype: torch.dtype) -> None:
    entries = torch.tensor(x, dtype=dtype)
    assert programs.max1(entries).item() == programs.max2(entries).item() == max(entries.tolist())


@given(st.lists(few | finite, min_size=4, max_size=4), st.sampled_from(DTYPES))
def test_relus_have_one_value(x: list[float], dtype: torch.dtype) -> None:
    entries = torch.tensor(x, dtype=dtype)
    expected = [max(entry, 0.0) for entry in entries.tolist()]
    assert programs.relu1(entries).tolist() == programs.relu2(entries).tolist() == expected


@given(st.lists(few | finite, min_size=4, max_size=4), st.sampled_from(DTYPES))
def test_maxima_of_relus_have_one_value(x: list[float], dtype: torch.dtype) -> None:
    entries = torch.tensor(x, dtype=dtype)
    of_relu1, of_relu2 = (
        programs.max_of_relus(entries, relu).item() for relu in (programs.relu1, programs.relu2)
    )
    assert of_relu1 == of_relu2
    if all(entry == int(entry) and abs(entry) <= 3 for entry in x):
        assert of_relu1 == max(x)


@given(few | finite, st.lists(few | finite, min_size=4, max_size=4), st.sampled_from(DTYPES))
def test_zero_is_zero(t: float, x: list[float], dtype: torch.dtype) -> None:
    at, entries = torch.tensor(t, dtype=dtype), torch.tensor(x, dtype=dtype)
    products = at * entries
    if products.isfinite().all():
        assert programs.zero(at, entries).item() == 0
    if (products.abs() < 1e4).all():  # no overflow in the sums of float16
        assert programs.zero_of_relus(at, entries).item() == 0


@given(few | finite, st.lists(few | finite, min_size=4, max_size=4), st.sampled_from(DTYPES))
def test_exact_derivative_is_that_of_dual_numbers(
    t: float, x: list[float], dtype: torch.dtype
) -> None:
    rounded = torch.tensor([t, *x], dtype=dtype).tolist()
    expected = in_fractions(Fraction(rounded[0]), [Fraction(entry) for entry in rounded[1:]])
    evaluations = programs.evaluate(t, x, dtype)
    assert {e.program: e.exact for e in evaluations} == {
        name: dual.slope for name, dual in expected.items()
    }


@given(few, st.lists(few, min_size=4, max_size=4), st.sampled_from(DTYPES))
def test_derivative_by_ad_is_the_exact_one_up_to_rounding_where_products_are_exact(
    t: int, x: list[int], dtype: torch.dtype
) -> None:
    expected = in_fractions(Fraction(t), [Fraction(entry) for entry in x])
    for evaluation in programs.evaluate(t, x, dtype):
        error = abs(Fraction(evaluation.derivative) - expected[evaluation.program].slope)
        assert evaluation.value == expected[evaluation.program].value
        assert error <= 8 * 3 * torch.finfo(dtype).eps / 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_has_the_published_wrong_derivative_at_zero(dtype: torch.dtype) -> None:
    evaluations = {e.program: e for e in programs.evaluate(0.0, (1.0, 2.0, 3.0, 4.0), dtype)}
    assert evaluations["zero"].derivative == -1.5
    assert evaluations["zero"].exact == Fraction(-3, 2)
    assert evaluations["zero"].value == 0


def test_equal_entries_have_the_published_rounding_error() -> None:
    x = (1.14,) * 4
    for t in (0.0, 0.1, 1.0, -1e-4, -6.0):
        zero = {e.program: e for e in programs.evaluate(t, x, torch.float32)}["zero"]
        assert zero.derivative == 5.960464477539063e-08
        assert zero.exact == 0


def test_programs_follow_the_first_and_the_mean_of_the_largest_entries() -> None:
    x = [2.0, 5.0, 5.0, 5.0]
    assert derivative(programs.max1, x) == [0, 1, 0, 0]
    assert derivative(programs.max2, x) == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3], abs=1e-16)
    assert derivative(lambda at: programs.max_of_relus(at, programs.relu1), x) == [
        0, 0.5, 0.25, 0.25,
    ]  # fmt: skip
    assert derivative(lambda at: programs.max_of_relus(at, programs.relu2), x) == [0, 1, 0, 0]


def test_relus_differ_at_zero_alone() -> None:
    x = [-1.0, -0.0, 0.0, 1.0]
    assert derivative(lambda at: programs.relu1(at).sum(), x) == [0, 0, 0, 1]
    assert derivative(lambda at: programs.relu2(at).sum(), x) == [0, 1, 1, 1]
