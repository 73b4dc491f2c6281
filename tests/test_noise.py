"""The noise floor: runs that are equal over the reals, made by hand where they can be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import audit, data, networks
from kinkcheck.arithmetic import precision
from kinkcheck.audit import Variation, gradient_variation
from kinkcheck.errors import InputError
from kinkcheck.measure.draws import Draws
from kinkcheck.measure.noise import another_order
from kinkcheck.tape import record

Batch = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def digits() -> Batch:
    return next(data.load("mnist-sample").batches(32, seed=0))


def lenet(batch_norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return networks.build("lenet5", in_channels=1, classes=10, image_size=28, batch_norm=batch_norm)


def noise_of(model: nn.Module, batch: Any, at: str = "32", **options: Any) -> Variation | None:
    (point,) = audit(model, [batch], precisions=[at], **options).points
    return point.noise


def gradient(model: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """A plain backward pass."""
    loss = F.cross_entropy(model(images), targets, reduction="sum") / 32
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))


def test_floor_of_separate_samples_has_the_size_of_two_halves_by_hand(digits: Batch) -> None:
    images, targets = digits
    model = lenet()
    order = another_order(32, seed=0)
    parts = [gradient(model, images[half], targets[half]) for half in order.chunk(2)]
    total = {name: parts[0][name] + parts[1][name] for name in parts[0]}
    by_hand = gradient_variation(total, gradient(model, images, targets))
    floor = noise_of(model, digits)
    assert floor is not None
    assert by_hand.l1 / 2 < floor.l1 < 2 * by_hand.l1


@pytest.mark.parametrize("at", ["16", "bfloat16", "32"])
def test_floor_with_batch_norm_is_that_of_another_order(at: str, digits: Batch) -> None:
    held = precision.parse(at)
    images, targets = held.cast(digits[0], "cpu"), digits[1]
    model = held.cast_model(lenet(batch_norm=True), "cpu")
    order = another_order(32, seed=0)

    def plain(images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        other = copy.deepcopy(model)
        with held.contractions("cpu"):
            loss = F.cross_entropy(other(images), targets)
            gradient = torch.autograd.grad(loss, list(other.parameters()))
        return dict(zip(dict(other.named_parameters()), gradient, strict=True))

    by_hand = gradient_variation(plain(images[order], targets[order]), plain(images, targets))
    assert noise_of(lenet(batch_norm=True), digits, at) == by_hand


class Rows(nn.Module):
    """Takes mini-batches of a multiple of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(x.view(4, -1, 3))).view(-1, 2)


def test_a_program_that_takes_no_halves_runs_in_another_order() -> None:
    torch.manual_seed(0)
    model, x, y = Rows(), torch.randn(20, 3), torch.zeros(20, dtype=torch.long)
    order = another_order(20, seed=0)

    def plain(x: Tensor) -> dict[str, Tensor]:
        loss = F.cross_entropy(model(x), y)
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        return dict(zip(dict(model.named_parameters()), gradient, strict=True))

    assert noise_of(model, (x, y)) == gradient_variation(plain(x[order]), plain(x))


class Sorted(nn.Module):
    """Takes all 20 samples in falling order alone, or up to 8 of them in any."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        falling = bool((x.diff(dim=0) <= 0).all())
        if len(x) > 8 and not (falling and len(x) == 20):
            raise ValueError("samples must fall")
        return torch.relu(self.linear(x))


def test_a_program_that_takes_neither_halves_nor_another_order_has_no_floor() -> None:
    torch.manual_seed(0)
    x, y = torch.arange(20.0).flip(0)[:, None], torch.zeros(20, dtype=torch.long)
    report = audit(Sorted(), [(x, y)], precisions=["32"])
    assert [point.noise for point in report.points] == [None]
    assert [each.points for each in report.left_out if "noise floor" in each.what] == [1]


def test_sums_that_do_not_round_have_no_noise() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
    batch = torch.arange(24.0).reshape(8, 3), torch.zeros(8)
    floor = noise_of(model, batch, loss=lambda outputs, targets: outputs.sum())
    assert floor == Variation(0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("at", ["16", "bfloat16", "32", "64", "mixed"])
def test_floor_shrinks_with_the_precision(at: str, digits: Batch) -> None:
    u = {"16": 2**-11, "bfloat16": 2**-8, "32": 2**-24, "64": 2**-53, "mixed": 2**-11}[at]
    floor = noise_of(lenet(), digits, at)
    assert floor is not None
    assert 0 < floor.relative_l1 < 50 * u


def test_floor_is_repeatable(digits: Batch) -> None:
    assert noise_of(lenet(), digits) == noise_of(lenet(), digits)


@pytest.mark.parametrize("count", [2, 3])
def test_network_that_refuses_a_single_sample_has_a_floor(count: int, digits: Batch) -> None:
    images, targets = digits
    floor = noise_of(lenet(batch_norm=True), (images[:count], targets[:count]))
    assert floor is not None
    assert 0 < floor.relative_l1 < 1e-4


class Pairs(nn.Module):
    """Takes two inputs that do not agree on their first dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(2, 4), nn.ReLU())

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        first, second = inputs
        outputs: Tensor = self.layer(first).sum() + self.layer(second).sum()
        return outputs


def test_what_is_no_list_of_samples_has_no_floor() -> None:
    batch = (torch.ones(3, 2), torch.ones(5, 2)), torch.zeros(1)
    (point,) = audit(Pairs(), [batch], loss=lambda outputs, targets: outputs).points
    assert point.noise is None
    assert point.lift is not None


@pytest.mark.parametrize("samples", [1, 2, 3, 64])
def test_another_order_is_another_order_of_the_same_samples(samples: int) -> None:
    order = another_order(samples, seed=3)
    assert sorted(order.tolist()) == list(range(samples))
    assert samples == 1 or order.tolist() != list(range(samples))
    assert torch.equal(order, another_order(samples, seed=3))


# --- what is drawn -------------------------------------------------------------------------------

DROPOUTS = [F.dropout, F.dropout1d, F.dropout2d, F.dropout3d]


def drawn(function: Callable[[], Tensor]) -> tuple[Draws, Tensor]:
    draws = Draws()
    torch.manual_seed(0)
    with record(draw=draws.keep):
        return draws, function()


def test_what_is_drawn_is_kept_where_the_program_puts_the_random_state_back() -> None:
    def forked(x: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return torch.rand_like(x)

    x = torch.ones(64, dtype=torch.float16)
    draws, first = drawn(lambda: forked(x))
    assert not torch.equal(forked(x.double()), first.double())
    with draws.given().forward():
        assert torch.equal(forked(x.double()), first.double())


@pytest.mark.parametrize("dropout", DROPOUTS)
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_samples_keep_what_they_lose_in_the_whole(
    dropout: Any, inplace: bool, dtype: torch.dtype
) -> None:
    shape = {F.dropout1d: (6, 4, 5), F.dropout3d: (6, 4, 2, 3, 2)}.get(dropout, (6, 4, 3, 5))
    x = torch.rand(shape, dtype=torch.float32) + 1
    order = torch.tensor([4, 0, 3])
    draws, whole = drawn(lambda: dropout(x, 0.3))
    torch.manual_seed(0)
    assert torch.equal(whole, dropout(x, 0.3))
    lost = whole == 0
    assert 0 < lost.sum() < whole.numel()
    channels_last = x.transpose(1, -1).contiguous().transpose(1, -1)
    for samples in (x, channels_last):
        part = samples[order].to(dtype)
        torch.manual_seed(1)
        with draws.given(order, samples=6).forward():
            found = dropout(part, 0.3, inplace=inplace)
        assert torch.equal(found == 0, lost[order])
        assert (found is part) == inplace


def test_samples_keep_what_a_fused_dropout_drops() -> None:
    x, order = torch.rand(6, 4) + 1, torch.tensor([4, 0, 3])
    draws, whole = drawn(lambda: torch.native_dropout(x, 0.3, True)[0])
    part = x[order].double().requires_grad_()
    torch.manual_seed(1)
    with draws.given(order, samples=6).forward():
        found, mask = torch.native_dropout(part, 0.3, True)
    assert torch.equal(mask, whole[order] != 0)
    torch.testing.assert_close(found, part * mask / 0.7)
    (gradient,) = torch.autograd.grad(found.sum(), part)
    torch.testing.assert_close(gradient, mask / torch.tensor(0.7).double())


@pytest.mark.parametrize(
    "draw",
    [
        lambda like: torch.rand(3, 4, dtype=like.dtype),
        lambda like: torch.rand_like(like),
        lambda like: torch.randn(3, 4, dtype=like.dtype),
        lambda like: torch.empty_like(like).uniform_(-1, 1),
        lambda like: torch.empty_like(like).normal_(),
        lambda like: torch.empty_like(like).exponential_(),
        lambda like: torch.normal(like, torch.ones_like(like)),
        lambda like: torch.bernoulli(torch.full_like(like, 0.25)),
        lambda like: torch.multinomial(torch.ones_like(like), 2),
        lambda like: torch.randperm(5),
        lambda like: torch.distributions.Normal(like, 1.0).rsample(),
        lambda like: torch.rand(3, 4, dtype=like.dtype, generator=torch.Generator()),
    ],
)
def test_every_draw_is_given_again_in_another_precision(draw: Callable[[Tensor], Tensor]) -> None:
    draws, first = drawn(lambda: draw(torch.zeros(3, 4)))
    torch.manual_seed(1)
    with draws.given().forward():
        again = draw(torch.zeros(3, 4, dtype=torch.float64))
    assert torch.equal(again, first.to(again.dtype))


@pytest.mark.parametrize(
    "other",
    [
        lambda: torch.rand(2),
        lambda: torch.randn(3),
        lambda: torch.zeros(3),
        lambda: torch.rand(3) + torch.rand(3),
    ],
)
def test_a_run_that_draws_otherwise_is_refused(other: Callable[[], Tensor]) -> None:
    draws, _ = drawn(lambda: torch.rand(3))
    with (
        pytest.raises(InputError, match="draws random numbers otherwise"),
        draws.given().forward(),
    ):
        other()


def test_what_activation_checkpointing_draws_again_is_what_it_drew() -> None:
    from torch.utils.checkpoint import checkpoint

    def backward(x: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
        y = checkpoint(
            lambda x: F.dropout(F.dropout(x.sin(), 0.5).exp(), 0.5), x, use_reentrant=False
        )
        return y, lambda: torch.autograd.grad(y.sum(), x)[0]

    x = torch.rand(64, requires_grad=True)
    draws, (first, differentiate) = drawn(lambda: backward(x))
    expected = differentiate()
    wide = x.detach().double().requires_grad_()
    given = draws.given()
    torch.manual_seed(3)
    with given.forward():
        again, differentiate = backward(wide)
    with given.backward():
        found = differentiate()
    assert torch.equal(again == 0, first == 0)
    torch.testing.assert_close(found.float(), expected)


def test_an_operation_that_draws_for_itself_is_refused_in_another_precision() -> None:
    draws, _ = drawn(lambda: F.rrelu(-torch.ones(3), training=True))
    with pytest.raises(InputError, match="inside rrelu_with_noise"), draws.given().forward():
        F.rrelu(-torch.ones(3).double(), training=True)
