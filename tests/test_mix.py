"""Sums of selections, and every branch at once: against programs that are written so by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import InputError, record
from kinkcheck import nn as knn
from kinkcheck.exact import evaluate


def _tied(*sizes: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 3, sizes, generator=generator).double().requires_grad_()


def _of_tape(x: Tensor, choose: str, weigh: Tensor) -> Tensor:
    with record() as tape:
        loss = (F.max_pool2d(x, 2) * weigh).sum()
    return tape.gradient(loss, x, choose=choose)[0]


def _by_hand(x: Tensor, weigh: Tensor, shared: bool) -> Tensor:
    """Each entry that attains the maximum of its window has its gradient, or an equal part."""
    spread = F.interpolate(F.max_pool2d(x, 2).detach(), scale_factor=2)
    attains = (x == spread).double()
    many = F.interpolate(F.avg_pool2d(attains, 2) * 4, scale_factor=2)
    given = F.interpolate(weigh, scale_factor=2)
    return attains * given / (many if shared else 1)


@pytest.mark.parametrize(
    ("choose", "every", "share"), [("every", 1, 0), ("mix:2*every,-1*minimal", 2, -1)]
)
def test_every_tied_entry_has_the_whole_gradient(choose: str, every: float, share: float) -> None:
    x, weigh = _tied(2, 3, 8, 8), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    expected = every * _by_hand(x, weigh, False) + share * _by_hand(x, weigh, True)
    torch.testing.assert_close(_of_tape(x, choose, weigh), expected)


def test_factors_that_do_not_sum_to_one_leave_what_is_not_tied_alone() -> None:
    x, weigh = _tied(1, 1, 8, 8), torch.ones(1, 1, 4, 4, dtype=torch.float64)
    native = _of_tape(x, "native", weigh)
    many = F.interpolate(
        F.avg_pool2d((x == F.interpolate(F.max_pool2d(x, 2), scale_factor=2)).double(), 2) * 4,
        scale_factor=2,
    )
    expected = torch.where(many > 1, 3 * native, native)
    assert (many == 1).any()
    assert (many > 1).any()
    for text in ("mix:3*native", "mix:3*first", "mix:1*native,2*first"):
        torch.testing.assert_close(_of_tape(x, text, weigh), expected)


def test_a_clamp_whose_tie_is_counted_twice() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    with record() as tape:
        loss = x.clamp(0.0).sum()
    by_hand = torch.autograd.grad((x * (x >= 0)).sum() + (x * (x == 0)).sum(), x)[0]
    assert tape.gradient(loss, x, choose="mix:2*last")[0].tolist() == by_hand.tolist() == [0, 2, 1]


def test_a_module_has_a_sum_and_says_so() -> None:
    module = knn.ReLU(selection="mix:0.25*first,0.75*last")
    x = torch.zeros(1, requires_grad=True)
    module(x).backward()
    assert x.grad is not None
    assert x.grad.item() == 0.75
    assert repr(module) == "ReLU(selection='mix:0.25*first,0.75*last')"
    with pytest.raises(InputError, match=r"max_pool has no selection mix:1\*branch:1; accepted"):
        knn.MaxPool2d(2, selection="mix:1*branch:1")


@pytest.mark.parametrize(
    ("choose", "slopes"),
    [("kinks:1,0", [1, 1]), ("kinks:0,1", [0, 0]), ("kinks:0.5,0.25", [0.5, 0.75])],
)
def test_each_kink_has_a_weight_of_its_own(choose: str, slopes: list[float]) -> None:
    x = torch.tensor([-2.0, 0.0, 1.0, 6.0, 7.0], requires_grad=True)
    given = torch.autograd.grad(knn.ReLU6(selection=choose)(x).sum(), x)[0]
    assert given.tolist() == [0, slopes[0], 1, slopes[1], 0]
    with record() as tape:
        loss = x.clamp(0, 6).sum()
    assert tape.gradient(loss, x, choose=choose)[0].tolist() == [0, slopes[0], 1, slopes[1], 0]
    with record() as tape:
        loss = F.relu6(x).sum()
    assert tape.gradient(loss, x, choose=choose)[0].tolist() == [0, slopes[0], 1, slopes[1], 0]


@pytest.mark.parametrize("alpha", [-0.5, 0.25, 1.0, 2.0])
@pytest.mark.parametrize("slope", [0.0, 0.1, 0.5])
def test_a_leaky_relu_has_any_slope_at_0(slope: float, alpha: float) -> None:
    """LeakyReLUAlpha(slope, alpha) of the published code: alpha times the gradient at 0."""
    choose = f"branch:{(alpha - slope) / (1 - slope)!r}"
    x = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    weigh = torch.tensor([3.0, 5.0, 7.0], dtype=torch.float64)
    expected = weigh * torch.tensor([slope, alpha, 1.0], dtype=torch.float64)
    module = knn.LeakyReLU(slope, selection=choose)
    given = torch.autograd.grad((module(x) * weigh).sum(), x)[0]
    torch.testing.assert_close(given, expected, rtol=1e-15, atol=1e-15)
    with record() as tape:
        loss = (F.leaky_relu(x, slope) * weigh).sum()
    assert torch.equal(tape.gradient(loss, [x], choose=choose)[0], given)


def test_weights_for_another_number_of_kinks_are_refused() -> None:
    x = torch.zeros(1, requires_grad=True)
    with pytest.raises(InputError, match=r"kinks:1,0: the call has 1 kink$"):
        knn.ReLU(selection="kinks:1,0")(x).backward()


@pytest.mark.parametrize("call", ["maximum", "max_pool2d", "max"])
def test_factors_keep_the_bits_of_float64(call: str) -> None:
    x = torch.zeros(1, 1, 1, 2, dtype=torch.float64, requires_grad=True)
    with record() as tape:
        match call:
            case "maximum":
                loss = torch.maximum(*x.flatten())
            case "max_pool2d":
                loss = F.max_pool2d(x, (1, 2)).sum()
            case "max":
                loss = x.flatten().max(0).values
    found = tape.gradient(loss, x, choose="mix:0.3*first,0.7*last")[0]
    assert found.flatten().tolist() == [0.3, 0.7]


@pytest.mark.parametrize(
    "choose",
    ["kinks:0.25,0.5", "every", "mix:0.25*first,-2*last", "mix:2*native,0.5*hybrid:3", "as:mlx"],
)
def test_exact_arithmetic_has_the_same(choose: str) -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.ReLU6(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-1, 2, parameter.shape, generator=generator))
        model[0].weight.mul_(6)
        model[0].bias.zero_()
    x = torch.randint(0, 2, (3, 1, 5, 5), generator=generator).double()
    with record(model) as tape:
        output = model(x)
        loss = output.sum()
    assert all(site.tied for site in tape.sites)
    exact = evaluate(model, x).gradient(torch.ones_like(output), choose)
    for name, gradient in tape.gradient(loss, choose=choose).items():
        assert torch.equal(exact[name].to_float64(), gradient)


@pytest.mark.parametrize("convention", ["as:torch-2.14", "as:jax", "as:mlx"])
def test_exact_arithmetic_has_the_convention_of_one_bound(convention: str) -> None:
    class Bounded(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).clamp(min=0) + super().forward(x).clamp(max=0)

    model = Bounded(2, 2).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    x = torch.ones(1, 2).double()
    with record(model) as tape:
        output = model(x)
        loss = output.sum()
    exact = evaluate(model, x).gradient(torch.ones_like(output), convention)
    for name, gradient in tape.gradient(loss, choose=convention).items():
        assert torch.equal(exact[name].to_float64(), gradient)
