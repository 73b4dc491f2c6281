"""Pointwise rows: native is PyTorch's bit for bit, a limit is the derivative beside the kink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization import (
    FusedMovingAvgObsFakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)

import kinkcheck.nn as knn
from kinkcheck import record
from kinkcheck.tape.directions import direction
from strategies import DTYPES, filled

Function = Callable[[Tensor], Tensor]

PALETTE = (-3.0, -1.0, -0.5, 0.0, -0.0, 0.5, 1.0, 3.0, 6.0, 2.0)
SHAPE = (8, 2, 3)


def _bound(x: Tensor, *values: float) -> Tensor:
    return torch.tensor(values, dtype=x.dtype)


# The function, the operation of the site, and slopes that meet at kinks: (at, left, right).
KINKS: dict[str, tuple[Function, str, list[tuple[float, float, float]]]] = {
    "clamp": (lambda x: x.clamp(-1, 1), "clamp", [(-1, 0, 1), (1, 1, 0)]),
    "clip": (lambda x: torch.clip(x, max=3.0), "clamp", [(3, 1, 0)]),
    "clamp_min": (lambda x: x.clamp_min(0.5), "clamp_min", [(0.5, 0, 1)]),
    "clamp_max_": (lambda x: x.clone().clamp_max_(1), "clamp_max", [(1, 1, 0)]),
    "no room": (lambda x: x.clamp(1, 1), "clamp", [(1, 0, 0)]),
    "hardtanh": (F.hardtanh, "hardtanh", [(-1, 0, 1), (1, 1, 0)]),
    "relu6": (F.relu6, "relu6", [(0, 0, 1), (6, 1, 0)]),
    "relu6 module": (nn.ReLU6(inplace=True), "relu6", [(0, 0, 1), (6, 1, 0)]),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.25), "leaky_relu", [(0, 0.25, 1)]),
    "hardswish": (F.hardswish, "hardswish", [(-3, 0, -0.5), (3, 1.5, 1)]),
    "hardswish_": (lambda x: F.hardswish(x.clone(), True), "hardswish", [(3, 1.5, 1)]),
    "hardsigmoid": (F.hardsigmoid, "hardsigmoid", [(-3, 0, 1 / 6), (3, 1 / 6, 0)]),
    "prelu": (lambda x: F.prelu(x, _bound(x, 0.5)), "prelu", [(0, 0.5, 1)]),
    "rrelu": (lambda x: F.rrelu(x, 0.25, 0.75), "rrelu", [(0, 0.5, 1)]),
    "elu": (lambda x: F.elu(x, 0.5), "elu", [(0, 0.5, 1)]),
    "softshrink": (F.softshrink, "softshrink", [(-0.5, 1, 0), (0.5, 0, 1)]),
    "softshrink by 0": (lambda x: F.softshrink(x, 0.0), "softshrink", [(0, 1, 1)]),
    "threshold": (lambda x: F.threshold(x, 1, 1), "threshold", [(1, 0, 1)]),
    "abs": (torch.abs, "abs", [(0, -1, 1)]),
    "abs_": (lambda x: x.clone().abs_(), "abs", [(0, -1, 1)]),
    "aten": (lambda x: torch.ops.aten.abs.default(x), "abs", [(0, -1, 1)]),
}
BETWEEN: dict[str, Function] = {
    "clamp": lambda x: torch.clamp(x, _bound(x, -1.0, 0.0, 1.0), _bound(x, 0.0, 0.5, 3.0)),
    "clamp_min": lambda x: x.clamp_min(_bound(x, -1.0, 0.0, 1.0)),
    "clamp_max": lambda x: torch.clamp(x, max=_bound(x, 1.0)),
    "prelu by channel": lambda x: F.prelu(x, _bound(x, 0.5, -0.25)),
}
QUANTISED: dict[str, Function] = {
    "tensor": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.5, 0, -2, 6),
    "parameters": lambda x: torch.fake_quantize_per_tensor_affine(
        x, torch.tensor(0.5), torch.tensor(0), -2, 6
    ),
    "channel": lambda x: torch.fake_quantize_per_channel_affine(
        x, torch.tensor([0.5, 1.0]), torch.zeros(2), 1, -1, 1
    ),
}


def _written(call: Callable[..., None], tensors: list[Tensor], *others: Any) -> Tensor:
    call(tensors, *others)
    return torch.stack(tensors)


TARGET = filled(SHAPE, PALETTE, torch.float32, 9)
SIGN = filled(SHAPE, (-1.0, 1.0), torch.float32, 8)
LOSSES: dict[str, Function] = {
    "l1": lambda x: F.l1_loss(x, TARGET.to(x.dtype)),
    "l1 of each": lambda x: F.l1_loss(x, TARGET.to(x.dtype), reduction="none"),
    "l1 module": lambda x: nn.L1Loss(reduction="sum")(x, TARGET.to(x.dtype)),
    "smooth_l1": lambda x: F.smooth_l1_loss(x, TARGET.to(x.dtype), beta=0.0),
    "hinge": lambda x: F.hinge_embedding_loss(x, SIGN.to(x.dtype)),
    "ranking": lambda x: F.margin_ranking_loss(x, TARGET.to(x.dtype), SIGN.to(x.dtype), 0.5),
    "ranking by number": lambda x: torch.margin_ranking_loss(
        x, TARGET.to(x.dtype), SIGN.to(x.dtype)
    ),
    "hinge summed": lambda x: nn.HingeEmbeddingLoss(reduction="sum")(x, SIGN.to(x.dtype)),
    "cosine": lambda x: F.cosine_embedding_loss(
        x[:, 0], TARGET[:, 0].to(x.dtype), SIGN[:, 0, 0].to(x.dtype)
    ),
    "triplet": lambda x: F.triplet_margin_loss(
        x, TARGET.to(x.dtype), -TARGET.to(x.dtype), p=1, eps=0, swap=True, reduction="none"
    ),
    "triplet by distance": lambda x: F.triplet_margin_with_distance_loss(
        x, TARGET.to(x.dtype), -TARGET.to(x.dtype), distance_function=F.l1_loss
    ),
    "normalize": lambda x: F.normalize(x, p=1, dim=2),
    "foreach": lambda x: torch.stack(torch._foreach_abs([x, 2 * x])),
    "foreach bounds": lambda x: torch.stack(torch._foreach_clamp_min([x, 2 * x], [0.0, 1.0])),
    "foreach numbers": lambda x: torch.stack(torch._foreach_minimum([x, 2 * x], 0.5)),
    "foreach in place": lambda x: _written(torch._foreach_maximum_, [x.clone(), 2 * x], [1 - x, x]),
}
EVERY = {
    **{f"row {name}": case[0] for name, case in KINKS.items()},
    **{f"between {name}": function for name, function in BETWEEN.items()},
    **{f"loss {name}": function for name, function in LOSSES.items()},
}


def _input(dtype: torch.dtype, seed: int = 0) -> Tensor:
    return filled(SHAPE, PALETTE, dtype, seed).requires_grad_()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [*EVERY, *(f"quantised {name}" for name in QUANTISED)])
def test_value_and_native_gradient_are_pytorch_s(name: str, dtype: torch.dtype) -> None:
    function = EVERY.get(name) or QUANTISED[name.removeprefix("quantised ")]
    if name.startswith("quantised") and dtype == torch.float64:
        pytest.skip("PyTorch fake-quantises no float64")
    x = _input(dtype)
    with record() as tape:
        output = function(x * 1)
        gradient = filled(tuple(output.shape), (1.0, -2.0), dtype, 3)
        loss = (output * gradient).sum()
    expected = function(x * 1)
    assert torch.equal(output, expected)
    assert sum(site.tied for site in tape.sites) > 0
    plain = torch.autograd.grad((expected * gradient).sum(), x)[0]
    assert torch.equal(tape.gradient(loss, x)[0], plain)
    assert torch.equal(torch.autograd.grad(loss, x)[0], plain)


@pytest.mark.parametrize("name", KINKS)
def test_selections_take_the_slopes_that_meet(name: str) -> None:
    function, operation, kinks = KINKS[name]
    x = torch.tensor([float(at) for at, _, _ in kinks], dtype=torch.float64)
    x = x.expand(2, len(kinks)).clone().requires_grad_()
    with record() as tape:
        loss = function(x * 1).sum()
    assert [(site.operation, site.tied) for site in tape.sites] == [(operation, x.numel())]

    def slopes(choice: str) -> list[float]:
        return tape.gradient(loss, x, choose=choice)[0][0].tolist()

    assert slopes("first") == pytest.approx([left for _, left, _ in kinks])
    assert slopes("last") == pytest.approx([right for _, _, right in kinks])
    middle = [0.25 * left + 0.75 * right for _, left, right in kinks]
    assert slopes("branch:0.75") == pytest.approx(middle)
    least = [min(max(0.0, min(kink[1:])), max(kink[1:])) for kink in kinks]
    assert slopes("minimal") == pytest.approx(least)
    native = slopes("native")
    hybrid = [n + 3 * (m - n) for n, m in zip(native, least, strict=True)]
    assert slopes("hybrid:3") == pytest.approx(hybrid)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", EVERY)
def test_a_limit_is_the_derivative_beside_the_kink(name: str, seed: int) -> None:
    x = _input(torch.float64, seed)
    with record() as tape:
        loss = (EVERY[name](x * 1) * 3).sum()
    (found,) = tape.gradient(loss, x, choose=f"limit:{seed}")
    beside = (x + 1e-7 * direction([x], seed)[0]).detach().requires_grad_()
    (expected,) = torch.autograd.grad((EVERY[name](beside * 1) * 3).sum(), beside)
    assert torch.allclose(found, expected, atol=1e-5)


def test_rounded_values_on_the_bound_are_counted_and_the_surrogate_is_named() -> None:
    x = torch.tensor([-2.0, -0.9, 0.1, 2.9, 3.0, 9.0], requires_grad=True)
    with record() as tape:
        loss = torch.fake_quantize_per_tensor_affine(x, 0.5, 0, -2, 6).sum()
    (site,) = tape.sites
    assert (site.windows, site.tied) == (6, 3)  # -0.9, 2.9 and 3.0 are rounded to the bounds
    assert tape.gradient(loss, x)[0].tolist() == [0, 1, 1, 1, 1, 0]
    assert tape.gradient(loss, x, choose="minimal")[0].tolist() == [0, 0, 1, 0, 0, 0]
    (named,) = tape.unseen_behind(loss, x)
    assert named.reason == "rounds; its derivative is a straight-through estimator"


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_slopes_that_are_drawn_are_pytorch_s(dtype: torch.dtype, inplace: bool) -> None:
    x = _input(dtype)
    torch.manual_seed(0)
    expected = F.rrelu(x * 1, training=True)
    drawn_next = torch.rand(1)
    torch.manual_seed(0)
    with record() as tape:
        output = F.rrelu(x * 1, training=True, inplace=inplace)
        loss = output.sum()
        then = torch.rand(1)
    assert torch.equal(output, expected)
    assert torch.equal(then, drawn_next)
    (native,) = torch.autograd.grad(expected.sum(), x)
    assert torch.equal(tape.gradient(loss, x)[0], native)
    kink = x == 0
    assert tape.sites[0].tied == kink.sum() > 0
    assert (tape.gradient(loss, x, choose="last")[0][kink] == 1).all()
    assert torch.equal(tape.gradient(loss, x, choose="first")[0], native)


@pytest.mark.parametrize("by_channel", [False, True])
def test_fake_quantisation_that_observes_is_a_site(by_channel: bool) -> None:
    def quantiser() -> FusedMovingAvgObsFakeQuantize:
        return FusedMovingAvgObsFakeQuantize(
            MovingAveragePerChannelMinMaxObserver if by_channel else MovingAverageMinMaxObserver,
            quant_min=-8,
            quant_max=7,
            dtype=torch.qint8,
            qscheme=torch.per_channel_symmetric if by_channel else torch.per_tensor_symmetric,
        )

    x = filled((4, 5), PALETTE, torch.float32, 2).requires_grad_()
    plain, recorded = quantiser(), quantiser()
    expected = plain(x)
    with record() as tape:
        output = recorded(x)
        loss = (output**2).sum()
    assert torch.equal(output, expected)
    (native,) = torch.autograd.grad((expected**2).sum(), x)
    assert torch.equal(tape.gradient(loss, x)[0], native)
    for name, there in plain.state_dict().items():
        assert torch.equal(recorded.state_dict()[name], there), name
    (site,) = tape.sites
    steps = torch.round(x.detach() / (plain.scale[:, None] if by_channel else plain.scale))
    assert site.tied == int(((steps == -8) | (steps == 7)).sum()) > 0


@pytest.mark.parametrize(
    ("theirs", "argument"),
    [
        (nn.PReLU(), "prelu"),
        (nn.ELU(0.5), "elu"),
        (nn.SELU(), "selu"),
        (nn.Hardswish(), "hardswish"),
        (nn.Hardsigmoid(), "hardsigmoid"),
        (nn.Softshrink(), "softshrink"),
        (nn.ReLU6(), "hardtanh"),
        (nn.Hardtanh(), "hardtanh"),
        (nn.LeakyReLU(), "leaky_relu"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_modules_have_namesakes(theirs: nn.Module, argument: str) -> None:
    x = _input(torch.float32)
    expected = theirs(x)
    plain = torch.autograd.grad(expected.sum(), x)[0]
    converted = knn.convert(nn.Sequential(theirs), **{argument: "native"})
    output = converted(x)
    assert torch.equal(output, expected)
    assert torch.equal(torch.autograd.grad(output.sum(), x)[0], plain)
    knn.convert(converted, **{argument: "last"})
    with record() as tape:
        loss = theirs(x).sum()
    wanted = tape.gradient(loss, x, choose="last")[0]
    assert torch.equal(torch.autograd.grad(converted(x).sum(), x)[0], wanted)


@pytest.mark.parametrize("loss", [F.l1_loss, F.cosine_similarity], ids=lambda each: each.__name__)
def test_what_autocast_computes_in_float32_stays_so(loss: Callable[..., Tensor]) -> None:
    x = filled((4, 3), (0.125, 1.0, -3.0), torch.bfloat16, 0).requires_grad_()
    y = filled((4, 3), (0.5, 1.0, 0.1), torch.bfloat16, 1)
    with torch.autocast("cpu", torch.bfloat16):
        expected = loss(x, y)
        with record() as tape:
            found = loss(x, y)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
    assert tape.sites or tape.unseen_behind(found.sum(), x)


def test_cosines_of_two_types_are_pytorch_s() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    y = torch.tensor([[0.1, 0.2, 0.7]]).half()
    with record():
        found = F.cosine_similarity(x, y)
    assert torch.equal(found, F.cosine_similarity(x, y))


def test_integers_are_not_written_where_pytorch_refuses_to() -> None:
    with record(), pytest.raises(RuntimeError, match="can't be cast"):
        torch.ones(2, dtype=torch.long).clamp_(min=torch.zeros(()))
