"""Gradients checked at kinks: known right and wrong ones, what gradcheck says away from kinks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.autograd.gradcheck import GradcheckError

import kinkcheck
from kinkcheck import GradientError, InputError, check
from kinkcheck.measure.quotients import Slopes, Values
from kinkcheck.testing import assert_gradient

SLOPE = 0.1

Function = Callable[..., Any]


def leaf(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64, requires_grad=True)


def zero(t: Tensor) -> Tensor:
    row = t * torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    return (row.max() - F.max_pool1d(row, 3)).squeeze(1)


def leaky_by_mask(x: Tensor) -> Tensor:
    return x * (x > 0) + SLOPE * x * (x < 0)


def leaky_by_relu(x: Tensor) -> Tensor:
    return torch.relu(x) - SLOPE * torch.relu(-x)


def leaky_by_clamp(x: Tensor) -> Tensor:
    return x.clamp(min=0) + SLOPE * x.clamp(max=0)


def leaky_by_where(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, SLOPE * x)


def leaky_by_maximum(x: Tensor) -> Tensor:
    none = torch.zeros_like(x)
    return torch.maximum(x, none) + SLOPE * torch.minimum(x, none)


class WrongSine(torch.autograd.Function):
    """The derivative is that of another function, everywhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * ctx.saved_tensors[0].sin()


class RightSine(WrongSine):
    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * ctx.saved_tensors[0].cos()


def farthest(x: Tensor) -> Tensor:
    return torch.cdist(x[None], torch.zeros(1, 2, dtype=torch.float64), p=torch.inf).sum()


# --- what is right and what is wrong -------------------------------------------------------------

RIGHT: list[tuple[Function, Tensor, str]] = [
    (torch.relu, leaf(0, 0), "limit"),
    (torch.abs, leaf(0), "subgradient"),
    (torch.max, leaf(1, 1, 1), "subgradient"),
    (torch.median, leaf(0, 0, 0), "subgradient"),
    (torch.linalg.vector_norm, leaf(0, 0), "subgradient"),
    (lambda x: x[x.argmax()], leaf(1, 1), "limit"),
    (lambda x: x[0].abs() - x[1].abs(), leaf(0, 0), "subgradient"),
    (lambda x: leaky_by_where(x[0]) - leaky_by_where(x[1]), leaf(0, 0), "limit"),
    (leaky_by_where, leaf(0), "limit"),
    (leaky_by_maximum, leaf(0), "subgradient"),
    (F.leaky_relu, leaf(0), "limit"),
    (lambda x: torch.relu(x) - torch.relu(-x), leaf(1, -2), "derivative"),
    (lambda x: torch.relu(x).square(), leaf(0), "derivative"),
    (RightSine.apply, leaf(0.3, 1), "derivative"),
    (lambda x: (x * (x > 0)).sum(), torch.zeros(40, dtype=torch.float64, requires_grad=True),
     "limit"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "x", "kind"), RIGHT)
def test_right(function: Function, x: Tensor, kind: str) -> None:
    result = check(function, x)
    assert result
    assert result.kind == kind


# (left, right, gradient) of the first entry and element, by hand.
WRONG: list[tuple[Function, Tensor, tuple[float, float, float], tuple[str, ...]]] = [
    (lambda x: torch.relu(x) - torch.relu(-x), leaf(0, 0), (1, 1, 0), ("relu", "relu")),
    (leaky_by_relu, leaf(0), (0.1, 1, 0), ("relu", "relu")),
    (zero, leaf(0), (0, 0, 1), ("max", "max_pool1d")),
    (leaky_by_mask, leaf(0), (0.1, 1, 0), ("gt", "lt")),
    (lambda x: x.sign() * x.abs(), leaf(0), (1, 1, 0), ("sign",)),
    (lambda x: x * x.detach(), leaf(3), (6, 6, 3), ("detached",)),
    (lambda x: x.detach() * 2, leaf(3), (2, 2, 0), ("detached",)),
    (lambda x: (x * x).sqrt(), leaf(0), (-1, 1, np.nan), ("sqrt",)),
]


@pytest.mark.parametrize(("function", "x", "slopes", "names"), WRONG)
@pytest.mark.parametrize("fast_mode", [False, True])
def test_wrong(
    function: Function, x: Tensor, slopes: tuple[float, ...], names: tuple[str, ...],
    fast_mode: bool,
) -> None:  # fmt: skip
    result = check(function, x, raise_exception=False, fast_mode=fast_mode)
    assert not result
    assert result.kind == "wrong"
    worst = result.failed[0]
    assert worst.misfit is not None
    assert worst.misfit.element is not None
    found = np.array([worst.misfit.left, worst.misfit.right, worst.misfit.slope])
    if not fast_mode:
        assert worst.index == worst.misfit.element.index == (0,)
        np.testing.assert_allclose(found, slopes, atol=1e-5)
    text = str(result)
    assert all(name in text for name in names)
    with pytest.raises(GradientError, match="Jacobian mismatch for output 0") as raised:
        check(function, x, fast_mode=fast_mode)
    assert str(raised.value) == text


def test_clamp_is_wrong_in_every_version() -> None:
    """1.1 up to PyTorch 2.13, and 0 since: neither is in [0.1, 1]."""
    (entry,) = check(leaky_by_clamp, leaf(0), raise_exception=False).failed
    assert entry.kind == "wrong"
    assert entry.misfit is not None
    assert entry.misfit.slope in (1.1, 0.0)
    assert entry.dependent
    assert entry.met == ["clamp (call 0)", "clamp (call 1)"]


def test_wrong_though_it_fits_each_element_alone() -> None:
    """PyTorch returns (1, 1) for a distance whose subdifferential holds sums of 1."""
    x = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(farthest(x), x)
    if gradient.tolist() != [[1, 1]]:
        pytest.skip("this version of PyTorch returns another gradient")
    (entry,) = check(farthest, x, raise_exception=False).failed
    assert entry.kind == "wrong"
    assert entry.misfit is not None
    assert entry.misfit.element is None
    assert "cdist" in str(entry)


def test_gradcheck_fails_where_only_the_kink_is_at_fault() -> None:
    with pytest.raises(GradcheckError):
        gradcheck(torch.relu, leaf(0))
    check(torch.relu, leaf(0))


def test_gradcheck_passes_by_luck() -> None:
    """Each entry alone does not move the median of three zeros; all of them do, by 1."""

    def median(x: Tensor) -> Tensor:
        return torch.relu(x.median()) - torch.relu(-x.median())

    x = leaf(0, 0, 0)
    assert gradcheck(median, x)
    (entry,) = check(median, x, raise_exception=False).failed
    assert entry.kind == "wrong"
    assert entry.misfit is not None
    assert entry.misfit.element is None
    assert entry.misfit.slope == 0
    assert {"relu (call 0)", "relu (call 1)"} <= set(entry.met)


# --- selections ----------------------------------------------------------------------------------


def test_each_selection_is_checked() -> None:
    chosen = ["native", "branch:0.5", "branch:1", "branch:2"]
    result = check(torch.relu, leaf(0), selections=chosen, raise_exception=False)
    assert [e.kind for e in result.entries] == ["limit", "subgradient", "limit", "wrong"]
    assert [e.selection for e in result.entries] == chosen
    assert result.failed[0].met == ["relu (call 0)"]
    assert not result.failed[0].dependent


def test_modules_keep_their_selection() -> None:
    x = torch.ones(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    assert check(kinkcheck.nn.MaxPool2d(2, selection="minimal"), x)
    assert not check(kinkcheck.nn.MaxPool2d(2, selection="hybrid:10"), x, raise_exception=False)


# --- surrogates, jumps, what cannot be told ------------------------------------------------------


def test_a_declared_surrogate_is_named() -> None:
    def quantised(x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127)

    result = check(quantised, leaf(0.33))
    assert result.entries[0].surrogates == ["fake_quantize"]
    assert "surrogate of fake_quantize" in str(result)
    # Nothing could tell that the rest is wrong.
    mixed = check(lambda x: quantised(x) + WrongSine.apply(x), leaf(0.33), raise_exception=False)
    assert mixed.kind == "undecided"
    assert "WrongSine" in str(mixed)


def test_a_custom_function_with_another_derivative_is_a_surrogate_or_wrong() -> None:
    result = check(WrongSine.apply, leaf(np.pi / 2), raise_exception=False)
    assert result.kind == "undecided"
    text = str(result)
    assert "numerical: 0 on the left, 0 on the right\nanalytical: 1 (native)" in text
    assert "a custom autograd function (WrongSine)" in text
    assert "a surrogate" in text
    with pytest.raises(GradientError, match="Jacobian mismatch"):
        check(WrongSine.apply, leaf(np.pi / 2))


def test_what_is_not_known_is_named_where_it_is_right_too() -> None:
    assert "where (steered by a comparison (gt))" in str(check(leaky_by_where, leaf(0)))
    assert "RightSine (a custom autograd function" in str(check(RightSine.apply, leaf(1)))


@pytest.mark.parametrize(
    ("function", "x", "why"),
    [
        (torch.sign, 0.0, "not bounded"),
        (torch.sqrt, 0.0, "not bounded"),
        (lambda x: x.round() * x, 0.5, "not bounded"),
        (lambda x: x.detach() + 1e12, 0.0, "rounding"),
    ],
)
def test_what_cannot_be_told_is_undecided(function: Function, x: float, why: str) -> None:
    result = check(function, leaf(x), raise_exception=False)
    assert not result
    assert result.kind == "undecided"
    assert why in str(result)
    with pytest.raises(GradientError, match="undecided"):
        check(function, leaf(x))


# --- any function --------------------------------------------------------------------------------


def test_several_inputs_and_outputs() -> None:
    def function(x: Tensor, factor: float, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return factor * x, torch.relu(y) - torch.relu(-y), x.argmax()

    inputs = [leaf(1, 2), 2.0, leaf(1, 0, 2)]
    result = check(function, inputs, raise_exception=False)
    assert len(result.entries) == 5
    (entry,) = result.failed
    assert (entry.output, entry.index) == (1, (1,))
    assert entry.misfit is not None
    assert entry.misfit.element is not None
    assert (entry.misfit.element.tensor, entry.misfit.element.index) == (2, (1,))
    assert "output 1 with respect to input 2," in str(entry)


def test_lower_precision_is_lifted() -> None:
    x = torch.zeros(2, requires_grad=True)
    assert check(lambda x, w: torch.relu(x * w), [x, torch.ones(2)])
    assert x.grad is None


def test_outputs_that_do_not_depend_on_inputs() -> None:
    assert check(lambda x: torch.ones(2, dtype=torch.float64), leaf(1)).kind == "derivative"


def test_numbers_far_from_1() -> None:
    assert check(lambda x: 1e8 * x.square(), leaf(1e8, 0)).kind == "derivative"
    assert check(torch.relu, leaf(1e12, 1e-7, -3e-7)).kind == "derivative"
    (entry,) = check(lambda x: x + x.detach(), leaf(1e10), raise_exception=False).failed
    assert entry.misfit is not None
    np.testing.assert_allclose(entry.misfit.left, 2, rtol=1e-6)


def test_a_module_in_training_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.ReLU()).double()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    drawn = torch.get_rng_state()
    assert check(net, x, fast_mode=True)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not torch.equal(state, drawn)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def counting() -> Function:
    calls = itertools.count()
    return lambda x: x * next(calls)


@pytest.mark.parametrize(
    ("function", "inputs", "options", "words"),
    [
        (torch.relu, torch.zeros(2), {}, "inputs: at least one tensor has to require a gradient"),
        (torch.relu, 3.0, {}, "inputs: must be a tensor or a sequence of some, not float"),
        (torch.relu, leaf(np.nan), {}, "inputs: number 0 has entries that are not finite"),
        (
            torch.abs,
            torch.zeros(1, dtype=torch.complex128, requires_grad=True),
            {},
            "inputs: number 0 is complex",
        ),
        (
            torch.relu,
            torch.zeros(2, 2, dtype=torch.float64).to_sparse().requires_grad_(),
            {},
            "inputs: number 0 is of layout torch.sparse_coo",
        ),
        (torch.argmax, leaf(1, 2), {}, "function: returns no real numbers"),
        (lambda x: 3, leaf(1), {}, "function: must return tensors; output 0 is of type int"),
        (lambda x: x + 1j, leaf(1), {}, "function: output 0 is complex"),
        (lambda x: x / x, leaf(1, 0), {}, "function: output 0 is not finite: nan at (1,)"),
        (lambda x: x[x > 0], leaf(1e-9), {}, "function: returns 0 numbers where its inputs"),
        (lambda x: x.float(), leaf(1), {}, "function: computes in less than float64"),
        (lambda x: x.float().double(), leaf(1), {}, "function: computes in less than float64"),
        (counting(), leaf(1), {}, "function: returns other values each time"),
        (nn.Linear(1, 1), torch.ones(1, requires_grad=True), {}, "function: fails on its inputs"),
        (torch.relu, leaf(0), {"eps": 0}, "eps: must be a number above 0, not 0"),
        (torch.relu, leaf(0), {"eps": "a"}, "eps: must be a number above 0, not 'a'"),
        (torch.relu, leaf(0), {"atol": None}, "atol: must be a number above 0, not None"),
        (torch.relu, leaf(0), {"selections": ["hybird:1"]}, "unknown selection 'hybird:1'"),
        (torch.relu, leaf(0), {"selections": "native"}, "selections: must be a list, not 'native'"),
        (torch.relu, leaf(0), {"selections": []}, "selections: at least one is needed"),
    ],
)
def test_complaints(function: Function, inputs: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as raised:
        check(function, inputs, **options)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_tensor_inside_of_an_input_is_not_passed_over() -> None:
    """relu(y) - relu(-y) is y, whose derivative 1 autograd takes for 0."""

    def wrong(x: Tensor, ys: list[Tensor]) -> Tensor:
        return x + torch.relu(ys[0]) - torch.relu(-ys[0])

    x, y = leaf(0), leaf(0)
    for nested in ([y], {"y": (y,)}):
        with pytest.raises(InputError, match=r"^inputs: number 1, a (list|dict), holds a tensor"):
            check(wrong, [x, nested])
    assert check(wrong, [x, [y.detach() + 1]])
    assert not check(lambda x, y: wrong(x, [y]), [x, y], raise_exception=False)


def test_errors_of_the_function_are_its_own() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        check(lambda x: x.view(5), leaf(1, 2))


# --- assertions ----------------------------------------------------------------------------------


def test_assertion() -> None:
    assert_gradient(torch.relu, leaf(0))
    with pytest.raises(AssertionError, match="numerical: 1 on the left, 1 on the right") as raised:
        assert_gradient(lambda x: torch.relu(x) - torch.relu(-x), leaf(0))
    # What pytest shows ends at the line of the test.
    shown = [str(entry.path) for entry in raised.traceback.filter(raised)]
    assert shown == [__file__]


# --- properties ----------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 3))
def test_away_from_kinks_as_gradcheck(seed: int, inputs: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    first, second, bias = drawn(4, inputs), drawn(outputs, 4), drawn(4)

    def function(x: Tensor) -> Tensor:
        return second @ torch.relu(first @ x + bias)

    def wrong(x: Tensor) -> Tensor:
        return function(x) + x.detach().sum()

    x = drawn(inputs).requires_grad_()
    if bool(((first @ x + bias).abs() < 1e-4).any()):
        return
    assert gradcheck(function, x)
    assert check(function, x).kind == "derivative"
    assert not gradcheck(wrong, x, raise_exception=False)
    assert check(wrong, x, raise_exception=False, fast_mode=True).kind == "wrong"


@given(st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0]), min_size=2, max_size=6))
def test_sums_of_rectifiers_by_their_two_slopes(weights: list[float]) -> None:
    """The slopes of Σ aᵢ relu(bᵢ x) at 0 are sums; autograd returns 0 there."""
    pairs = list(zip(weights[::2], weights[1::2], strict=False))
    right = sum(a * max(b, 0) for a, b in pairs)
    left = sum(a * min(b, 0) for a, b in pairs)

    def function(x: Tensor) -> Tensor:
        return sum((a * torch.relu(b * x) for a, b in pairs), torch.zeros_like(x))

    result = check(function, leaf(0), raise_exception=False)
    assert bool(result) == (min(left, right) <= 0 <= max(left, right))
    assert result.kind != "undecided"


@given(
    st.lists(st.integers(-3, 3), min_size=2, max_size=4), st.lists(st.integers(-3, 3), max_size=4)
)
def test_quotients_alone_judge_a_maximum(values: list[int], gradient: list[int]) -> None:
    """The subdifferential of max at x is the simplex of the entries that attain it."""
    g = np.array((gradient + [0] * len(values))[: len(values)]) / 3
    x = torch.tensor(values, dtype=torch.float64)
    active = x.numpy() == max(values)
    inside = (g >= 0).all() and abs(g.sum() - 1) < 1e-9 and (g[~active] == 0).all()
    slopes = Slopes(
        Values(lambda x: x.max().reshape(1), x, 1e-6), torch.ones(1).double(), 1e-5, 1e-3
    )
    kind = slopes.judge(g * np.maximum(1, np.abs(values))).kind
    expected = "wrong" if not inside else "limit" if g.max() == 1 else "subgradient"
    if expected == "limit" and active.sum() == 1:
        expected = "derivative"
    assert kind == expected
