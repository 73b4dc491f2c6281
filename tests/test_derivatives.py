"""Second derivatives, forward mode and torch.func, away from ties and at them."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from exact import assert_same_bits
from kinkcheck import ops
from kinkcheck.selection import Selection, parse
from strategies import filled

Function = Callable[[Tensor], Tensor]

_ONE_OF_MANY = ("native", "minimal", "hybrid:10", "first", "last", "random:3")
_CALLS: dict[str, tuple[Any, tuple[int, ...], tuple[Any, ...], tuple[str, ...]]] = {
    # name: function, shape of one input, arguments, selections
    "max_pool1d": (F.max_pool1d, (2, 5), (2, 1), _ONE_OF_MANY),
    "max_pool2d": (F.max_pool2d, (1, 2, 3, 4), ((1, 2), 1), _ONE_OF_MANY),
    "max_pool3d": (F.max_pool3d, (1, 2, 3, 2), ((2, 1, 1), 1), _ONE_OF_MANY),
    "adaptive_max_pool1d": (F.adaptive_max_pool1d, (2, 4), (3,), _ONE_OF_MANY),
    "adaptive_max_pool2d": (F.adaptive_max_pool2d, (2, 3, 4), ((3, 3),), _ONE_OF_MANY),
    "adaptive_max_pool3d": (F.adaptive_max_pool3d, (1, 4, 2, 2), ((3, 2, 2),), _ONE_OF_MANY),
    "relu": (F.relu, (3, 4), (), (*_ONE_OF_MANY, "branch:0.5")),
    "norm_pool2d": (
        F.lp_pool2d, (2, 3, 3), (2.0, 2, 1), ("native", "minimal", "hybrid:10", "branch:0.5"),
    ),
}  # fmt: skip
"""Pooling windows hold one or two entries, so that at ties every weight is a multiple of 1/2."""

CASES = [(name, text) for name, call in _CALLS.items() for text in call[3]]
cases = pytest.mark.parametrize(("name", "text"), CASES)


def under(name: str, selection: Selection) -> Function:
    function, _, arguments, _ = _CALLS[name]

    def call(x: Tensor) -> Tensor:
        result: Tensor = ops.call(ops.operation(function, (x, *arguments), {}), selection)
        return result

    return call


def away_from_kinks(name: str, seed: int = 0) -> Tensor:
    """Distinct values, none of them near zero."""
    shape = _CALLS[name][1]
    order = torch.randperm(prod(shape), generator=torch.Generator().manual_seed(seed))
    return ((order - prod(shape) // 2 + 0.5) / 8).double().reshape(shape).requires_grad_()


def tied(name: str, *batch: int, seed: int = 0) -> Tensor:
    shape = (*batch, *_CALLS[name][1])
    return filled(shape, (0.0, 0.0, 0.0, -1.0, 1.0), torch.float64, seed)


def whole(like: Tensor, seed: int) -> Tensor:
    return filled(tuple(like.shape), (-2.0, -1.0, 1.0, 2.0), like.dtype, seed)


# --- away from kinks every selection is the derivative --------------------------------------------


@cases
def test_gradcheck(name: str, text: str) -> None:
    assert gradcheck(under(name, parse(text)), away_from_kinks(name), check_forward_ad=True)


@cases
def test_gradgradcheck(name: str, text: str) -> None:
    function = under(name, parse(text))
    assert gradgradcheck(
        function, away_from_kinks(name), check_fwd_over_rev=True, check_rev_over_rev=True
    )


# --- at kinks the three linear maps are one -------------------------------------------------------


@cases
def test_forward_mode_is_the_adjoint_of_backward(name: str, text: str) -> None:
    function, x = under(name, parse(text)), tied(name)
    output, vjp = torch.func.vjp(function, x)
    for seed in range(5):
        tangent, grad_output = whole(x, seed), whole(output, seed + 100)
        _, tangent_output = torch.func.jvp(function, (x,), (tangent,))
        forward, backward = (
            (tangent_output * grad_output).sum(),
            (tangent * vjp(grad_output)[0]).sum(),
        )
        if name == "norm_pool2d":
            # Norms are irrational: a sum of fewer than 100 products below 10 in absolute value.
            assert abs(forward - backward) <= 100 * 1000 * torch.finfo(x.dtype).eps
        else:
            assert forward == backward


# PyTorch's own double backward of lp_pool2d is NaN in a window of zeros.
@pytest.mark.parametrize(("name", "text"), [c for c in CASES if c[0] != "norm_pool2d"])
def test_double_backward_is_forward_mode(name: str, text: str) -> None:
    function, x = under(name, parse(text)), tied(name).requires_grad_()
    output = function(x)
    grad_output = whole(output, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(output, x, grad_output, create_graph=True)
    tangent = whole(x, 2)
    (twice,) = torch.autograd.grad(gradient, grad_output, tangent, create_graph=True)
    _, tangent_output = torch.func.jvp(function, (x.detach(),), (tangent,))
    assert_same_bits(twice, tangent_output)
    # And back again: the derivative of the adjoint's adjoint is the gradient.
    probe = tangent.clone().requires_grad_()
    (again,) = torch.autograd.grad(gradient, grad_output, probe, create_graph=True)
    assert torch.equal(torch.autograd.grad(again, probe, grad_output.detach())[0], gradient)


@pytest.mark.parametrize("name", _CALLS)
def test_native_forward_mode_is_pytorch_s(name: str) -> None:
    function, _, arguments, _ = _CALLS[name]
    x = tied(name)
    tangent = whole(x, 1)
    value, derivative = torch.func.jvp(under(name, parse("native")), (x,), (tangent,))
    expected = torch.func.jvp(lambda at: function(at, *arguments), (x,), (tangent,))
    if name == "norm_pool2d":
        # PyTorch's forward mode divides zero by zero in a window of zeros.
        expected = expected[0], torch.where(expected[0] == 0, 0.0, expected[1])
    assert_same_bits(value, expected[0])
    assert torch.equal(derivative, expected[1])


# --- torch.func -----------------------------------------------------------------------------------


def _alone(text: str, name: str) -> bool:
    """Whether the samples of a vmapped call are treated as if each were alone.

    ``random`` draws by the position of a kink in its tensor; for the poolings that is the whole
    batch.
    """
    return not (text.startswith("random") and name != "relu")


alone = pytest.mark.parametrize(("name", "text"), [c for c in CASES if _alone(c[1], c[0])])


def _loop(function: Callable[..., Tensor], *batches: Tensor) -> Tensor:
    return torch.stack([function(*sample) for sample in zip(*batches, strict=True)])


@alone
@pytest.mark.parametrize("dimension", [0, 1, -1])
def test_vmap_is_a_loop(name: str, text: str, dimension: int) -> None:
    function, batch = under(name, parse(text)), tied(name, 3)
    moved = batch.movedim(0, dimension)
    assert_same_bits(torch.func.vmap(function, in_dims=dimension)(moved), _loop(function, batch))


@alone
def test_vmap_of_grad_is_a_loop(name: str, text: str) -> None:
    function, batch = under(name, parse(text)), tied(name, 3)
    output = function(batch[0])
    weights = whole(output, 7)
    grad = torch.func.grad(lambda x: (function(x) * weights).sum())
    assert torch.equal(torch.func.vmap(grad)(batch), _loop(grad, batch))


@alone
def test_vmap_of_jvp_is_a_loop(name: str, text: str) -> None:
    function, batch = under(name, parse(text)), tied(name, 3)
    tangents = whole(batch, 2)

    def jvp(x: Tensor, tangent: Tensor) -> Tensor:
        return torch.func.jvp(function, (x,), (tangent,))[1]

    assert torch.equal(torch.func.vmap(jvp)(batch, tangents), _loop(jvp, batch, tangents))


@alone
def test_vmap_over_tangents_or_gradients_alone_is_a_loop(name: str, text: str) -> None:
    function, x = under(name, parse(text)), tied(name)
    tangents = whole(tied(name, 3), 2)
    jvp = lambda tangent: torch.func.jvp(function, (x,), (tangent,))[1]  # noqa: E731
    assert torch.equal(torch.func.vmap(jvp)(tangents), _loop(jvp, tangents))
    output, vjp = torch.func.vjp(function, x)
    grads = whole(output.expand(3, *output.shape), 3)
    backward = lambda grad: vjp(grad)[0]  # noqa: E731
    assert torch.equal(torch.func.vmap(backward)(grads), _loop(backward, grads))


@alone
def test_jacobians_agree(name: str, text: str) -> None:
    function, x = under(name, parse(text)), tied(name)
    reverse = torch.func.jacrev(function)(x)
    forward = torch.func.jacfwd(function)(x)
    if name == "norm_pool2d":
        # A norm's derivative is a quotient of magnitude at most 1 with a handful of roundings.
        assert (reverse - forward).abs().max() <= 8 * torch.finfo(x.dtype).eps
    else:
        assert torch.equal(reverse, forward)


@pytest.mark.parametrize("name", [name for name in _CALLS if "max_pool" in name])
def test_random_under_vmap_picks_one_active_entry_of_each_window(name: str) -> None:
    """Rows of the Jacobian are zero but for a one, at an entry that has weight under minimal."""
    entries = len(_CALLS[name][1])
    for seed in range(5):
        batch = tied(name, 3, seed=seed)
        random, minimal = (
            torch.func.vmap(torch.func.jacrev(under(name, parse(text))))(batch).flatten(-entries)
            for text in (f"random:{seed}", "minimal")
        )
        assert (random.amax(-1) == 1).all()
        assert (random.count_nonzero(-1) == 1).all()
        assert (minimal[random != 0] > 0).all()
