"""ReLU in every spelling, with ReLU'(0) = α."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor, nn

import kinkcheck.nn as knn
from exact import assert_same_bits
from kinkcheck.ops.relu import ReLU
from kinkcheck.selection import parse
from kinkcheck.tape import record
from strategies import DTYPES, dtypes, filled, laid_out, seeds

OUT_OF_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "torch.relu": torch.relu,
    "Tensor.relu": Tensor.relu,
    "nn.ReLU": nn.ReLU(),
    "torch.ops.aten.relu": torch.ops.aten.relu,
    "torch.ops.aten.relu.default": torch.ops.aten.relu.default,
    "kinkcheck.nn.ReLU": knn.ReLU(),
}
IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu inplace": lambda x: F.relu(x, inplace=True),
    "F.relu_": F.relu_,
    "torch.relu_": torch.relu_,
    "Tensor.relu_": Tensor.relu_,
    "nn.ReLU inplace": nn.ReLU(inplace=True),
    "torch.ops.aten.relu_": torch.ops.aten.relu_,
    "torch.ops.aten.relu_.default": torch.ops.aten.relu_.default,
    "kinkcheck.nn.ReLU inplace": knn.ReLU(inplace=True),
}
SPELLINGS = OUT_OF_PLACE | IN_PLACE

VALUES = [-1.0, -0.0, 0.0, 2.0, 0.0, -math.inf, math.inf]
COEFFICIENTS = [3.0, -1.0, 2.0, 5.0, 0.5, 7.0, -2.0]
ALPHAS = (-3.0, 0.0, 0.5, 1.0, 10.0)


def closed_form(alpha: float) -> list[float]:
    """The gradient of Σ c·relu(x) when ReLU'(0) = α."""
    derivative = [1.0 if x > 0 else alpha if x == 0 else 0.0 for x in VALUES]
    return [c * d for c, d in zip(COEFFICIENTS, derivative, strict=True)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_a_site_with_a_derivative_of_choice(
    spelling: str, dtype: torch.dtype
) -> None:
    x = torch.tensor(VALUES, dtype=dtype, requires_grad=True)
    with record() as tape:
        output = SPELLINGS[spelling](x.clone())
        loss = (output * torch.tensor(COEFFICIENTS, dtype=dtype)).sum()
    assert_same_bits(output, torch.relu(x))
    (site,) = tape.sites
    found = (site.operation, site.call, site.windows, site.tied, site.tied_at_zero)
    assert found == ("relu", 0, 7, 3, 3)
    assert tape.unseen == []
    for alpha in ALPHAS:
        (gradient,) = tape.gradient(loss, [x], choose=f"branch:{alpha}")
        assert gradient.tolist() == closed_form(alpha)
    for text, alpha in (("native", 0), ("minimal", 0), ("hybrid:9", 0), ("first", 0), ("last", 1)):
        assert tape.gradient(loss, [x], choose=text)[0].tolist() == closed_form(alpha)


@pytest.mark.parametrize("spelling", IN_PLACE)
def test_in_place_spellings_write_to_their_input(spelling: str) -> None:
    x = torch.tensor(VALUES, requires_grad=True)
    with record() as tape:
        written = x.clone()
        output = IN_PLACE[spelling](written)
        loss = (written * torch.tensor(COEFFICIENTS)).sum()
    assert output is written
    assert_same_bits(written, torch.relu(x))
    assert tape.gradient(loss, [x], choose="branch:0.5")[0].tolist() == closed_form(0.5)


@pytest.mark.parametrize("spelling", IN_PLACE)
def test_in_place_on_a_view_changes_its_base(spelling: str) -> None:
    x = torch.tensor(VALUES, requires_grad=True)
    with record() as tape:
        base = x.clone()
        IN_PLACE[spelling](base[:3])
        loss = (base[:5] * torch.tensor(COEFFICIENTS[:5])).sum()
    assert_same_bits(base, torch.cat([torch.relu(x[:3]), x[3:]]))
    (gradient,) = tape.gradient(loss, [x], choose="branch:0.5")
    assert gradient.tolist() == [0.0, -0.5, 1.0, 5.0, 0.5, 0.0, 0.0]


def _message(call: Callable[[], Any]) -> str:
    with pytest.raises(RuntimeError) as error:
        call()
    return str(error.value)


@pytest.mark.parametrize("spelling", IN_PLACE)
@pytest.mark.parametrize(
    "target",
    [lambda x: x, lambda x: x[:2], lambda x: x.view(7, 1)[1:]],
    ids=["leaf", "view", "views"],
)
def test_a_leaf_is_refused_as_by_pytorch_and_left_alone(
    spelling: str, target: Callable[[Tensor], Tensor]
) -> None:
    x = torch.tensor(VALUES, requires_grad=True)
    expected = _message(lambda: torch.relu_(target(x)))
    assert "leaf Variable that requires grad is being used in an in-place operation" in expected
    with record():
        assert _message(lambda: IN_PLACE[spelling](target(x))) == expected
    assert_same_bits(x, torch.tensor(VALUES))


@pytest.mark.parametrize("spelling", IN_PLACE)
def test_in_place_without_grad_mode_may_change_a_leaf(spelling: str) -> None:
    x = torch.tensor(VALUES, requires_grad=True)
    with record(), torch.no_grad():
        IN_PLACE[spelling](x[1:])
        IN_PLACE[spelling](x)
    assert_same_bits(x, torch.relu(torch.tensor(VALUES)))
    assert x.is_leaf


def test_one_of_several_views_is_refused_as_by_pytorch() -> None:
    def call() -> None:
        torch.relu_(torch.ones(4, requires_grad=True).clone().chunk(2)[0])

    with pytest.raises(RuntimeError, match="output of a function that returns multiple views"):
        call()
    with record(), pytest.raises(RuntimeError, match="a function that returns multiple views"):
        call()


@given(dtypes, seeds, st.integers(0, 2**64 - 1))
def test_what_is_drawn_does_not_depend_on_the_memory_format(
    dtype: torch.dtype, fill: int, seed: int
) -> None:
    x = filled((2, 3, 4, 4), (-1.0, -0.0, 0.0, 0.0, 1.0), dtype, fill)
    for kind in ("random", "uniform"):
        gradient = _in_every_format(knn.ReLU(selection=f"{kind}:{seed}"), x)
        at_zero = gradient[x == 0]
        if kind == "random":
            assert ((at_zero == 0) | (at_zero == 1)).all()
        assert ((at_zero >= 0) & (at_zero <= 1)).all()
        assert torch.equal(gradient[x != 0], (x[x != 0] > 0).to(dtype))


def _in_every_format(relu: nn.Module, x: Tensor) -> Tensor:
    gradients = []
    for memory in ("contiguous", "channels_last", "transposed"):
        leaf = laid_out(x, memory, 2).requires_grad_()
        gradients.append(torch.autograd.grad(relu(leaf).sum(), leaf)[0])
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])
    return gradients[0]


def test_random_takes_both_branches_equally_often() -> None:
    x = torch.zeros(4096, requires_grad=True)
    for seed in range(5):
        relu = knn.ReLU(selection=f"random:{seed}")
        ones = int(torch.autograd.grad(relu(x).sum(), x)[0].sum())
        # Six standard deviations: a fair coin leaves them once in 5e8 trials.
        assert abs(ones - 2048) <= 6 * 32


def test_uniform_weights_are_uniform_and_of_their_seed_alone() -> None:
    x = torch.zeros(100, 200, dtype=torch.float64, requires_grad=True)
    drawn = {}
    for seed in range(4):
        with record() as tape:
            loss = F.relu(x).sum()
        (gradient,) = tape.gradient(loss, [x], choose=f"uniform:{seed}")
        module = knn.ReLU(selection=f"uniform:{seed}")
        assert torch.equal(gradient, torch.autograd.grad(module(x).sum(), x)[0])
        # A true uniform law is rejected once in a million trials.
        assert kstest(gradient.flatten().numpy(), "uniform").pvalue > 1e-6
        drawn[seed] = gradient
    assert not torch.equal(drawn[0], drawn[1])
    assert abs(np.corrcoef(drawn[0].flatten(), drawn[1].flatten())[0, 1]) < 6 / 20_000**0.5


@pytest.mark.parametrize("text", ["first", "last", "random:5", "uniform:5"])
def test_slopes_that_float32_rounds_are_kept(text: str) -> None:
    x = torch.zeros(64, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(knn.LeakyReLU(0.1, selection=text)(x).sum(), x)
    share = knn.ReLU(selection=text)
    (right,) = torch.autograd.grad(share(x).sum(), x)
    assert torch.equal(gradient, (1 - right) * 0.1 + right)


@pytest.mark.parametrize("text", ["native", "branch:0", "random:1", "hybrid:-4"])
def test_a_zero_weight_contributes_nothing_to_an_infinite_gradient(text: str) -> None:
    x = torch.zeros(64, requires_grad=True)
    output = knn.ReLU(selection=parse(text))(x)
    (gradient,) = torch.autograd.grad(output, x, torch.full((64,), math.inf))
    assert not gradient.isnan().any()
    assert (gradient == 0).any()


@pytest.mark.parametrize("inplace", [False, True])
def test_what_is_kept_without_the_input_tells_the_same_of_ties(inplace: bool) -> None:
    x = torch.tensor([[-2.0, -0.0, 0.0, 3.0], [-math.inf, math.inf, math.nan, 0.0]])
    whole, call = ReLU(x), ReLU(x.clone(), inplace)
    kept = call.kept(lean=True)
    value = call.apply_counting(parse("native"))[0]
    known, tangent = kept(value), (torch.randn(x.shape),)
    torch.testing.assert_close(known.tied(), x == 0)
    assert known.ties().tied == 3
    torch.testing.assert_close(known.persists(whole, value), x == 0)
    torch.testing.assert_close(whole.persists(known, value), x == 0)
    for name in ("of", "tangent", "wins", "contest"):
        mine, its = (getattr(each.rivals(value, tangent), name) for each in (known, whole))
        assert torch.equal(mine, its)
    (again,) = known.inputs
    torch.testing.assert_close(torch.relu(again), torch.relu(x), equal_nan=True)
    assert torch.equal(again == 0, x == 0)
    assert torch.equal(again > 0, x > 0)
    assert torch.equal(again < 0, x < 0)
