"""What a program keeps, and all that can be reached from it, is put back."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import random
import signal
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kinkcheck
from kinkcheck.errors import InputError
from kinkcheck.measure.zones import Zone
from kinkcheck.tape import as_found
from user_programs import gradient_l1, labelled, scaled, small


class Patched(nn.Module):
    """What people hang on a model."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small()
        self.tied = nn.Linear(4, 3)
        self.tied.weight = nn.Parameter(torch.randn(4, 3).t())  # strides of its own
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(3))
        self.register_parameter("narrow", nn.Parameter(torch.ones(3, dtype=torch.bfloat16)))
        self.alias = self.net[0].weight
        self.feat: Tensor | None = None
        self.history: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        self.feat = F.relu(self.net[0](x) * self.alias.sum())
        self.history.append(1.0)
        self.count += 1
        self.mean.mul_(0.9).add_(x.mean(0).detach(), alpha=0.1)
        scores: Tensor = self.net(x) * self.narrow.to(x.dtype) + self.tied(self.feat)
        return scores


def everything(model: Patched) -> dict[str, Any]:
    """All that can be reached from the model, and what a change of it would show."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    found: dict[str, Any] = {}
    for name, tensor in tensors.items():
        found[name] = (
            id(tensor), tensor.dtype, tensor.stride(), tensor.data_ptr(), tensor.requires_grad,
            tensor.tolist(),
            None if tensor.grad is None else (id(tensor.grad), tensor.grad.tolist()),
            id(tensor._backward_hooks),
        )  # fmt: skip
    for name, module in model.named_modules():
        kept = {key: id(value) for key, value in vars(module).items()}
        found[f"module {name}"] = kept, module.training
    found["history"] = list(model.history)
    found["forward hooks"] = [list(m._forward_hooks) for m in model.modules()]
    return found


@pytest.mark.parametrize("how", ["ends", "fails", "is interrupted", "fails the second time"])
def test_nothing_differs_after_an_audit(how: str) -> None:
    model, batch = Patched(), labelled()
    for each in model.parameters():
        each.grad = torch.full_like(each, 0.5)
    model.net[1].register_forward_hook(scaled)
    model.net[0].weight.register_hook(lambda g: 2 * g)
    model.net[0].bias.register_post_accumulate_grad_hook(lambda p: None)
    model.net.forward = lambda x, own=model.net.forward: own(x) + 1
    before, numbers = everything(model), itertools.count(1)  # which no audit puts back

    def step(model: nn.Module, batch: Any) -> Tensor:
        call = next(numbers)
        loss = F.cross_entropy(model(batch[0]), batch[1])
        if how == "is interrupted" and call == 3:
            raise KeyboardInterrupt
        if how == "fails" or (how == "fails the second time" and call == 2):
            raise ValueError("no")
        return loss

    expected = {"ends": (), "is interrupted": KeyboardInterrupt}.get(how, InputError)
    with pytest.raises(expected) if expected else contextlib.nullcontext():
        kinkcheck.audit(model, [batch], step=step, precisions=["16", "32", "64"])
    assert everything(model) == before
    assert [each.tolist() for each in batch] == [each.tolist() for each in labelled()]


class Counter:
    """Counts calls in every place where a program can keep something."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = 0


CALLS = 0


def stateful(where: str) -> Callable[[nn.Module, Any], Tensor]:
    """A step that multiplies its loss by how often it was called."""
    n, slots, place = 0, Counter(), types.SimpleNamespace(deep={"calls": [0]})
    total, array = torch.zeros(()), np.zeros(1)
    generator, numbers, other = torch.Generator(), np.random.default_rng(0), random.Random(0)
    other_model = nn.BatchNorm1d(3, affine=False)

    def count(x: Tensor) -> float | Tensor:
        nonlocal n
        global CALLS
        n += 1
        CALLS += 1
        slots.calls += 1
        place.deep["calls"][0] += 1
        total.add_(1)
        array[0] += 1
        other_model(x)
        values: dict[str, Any] = {
            "closure": n,
            "global": CALLS,
            "slots": slots.calls,
            "object": place.deep["calls"][0],
            "tensor": total.clone(),
            "array": array[0],
            "generator": torch.rand((), generator=generator),
            "numpy": numbers.random(),
            "python": other.random(),
            "module": other_model.num_batches_tracked.clone(),
        }
        return values[where]

    return lambda m, b: F.cross_entropy(m(b[0]), b[1]) * count(b[0])


@pytest.mark.parametrize(
    "where",
    ["closure", "global", "slots", "object", "tensor", "array", "generator", "numpy", "python",
     "module"],
)  # fmt: skip
def test_what_a_step_keeps_is_put_back(where: str) -> None:
    global CALLS
    torch.manual_seed(0)
    model, batch = small(), labelled()
    CALLS = 0
    report = kinkcheck.audit(model, [batch], step=stateful(where), precisions=["32", "bfloat16"])
    assert CALLS == 0
    plain = torch.autograd.grad(stateful(where)(model, batch), [*model.parameters()])
    assert report.points[0].gradient_l1 == pytest.approx(sum(float(g.abs().sum()) for g in plain))
    assert report.left_out == []


def test_an_optimizer_inside_a_step_is_put_back() -> None:
    torch.manual_seed(0)
    model, batch = small(), labelled()
    optimizer = torch.optim.Adam(model.parameters())

    def step(m: nn.Module, b: Any) -> Tensor:
        optimizer.zero_grad()
        F.cross_entropy(m(b[0]), b[1]).backward()
        optimizer.step()
        return F.cross_entropy(m(b[0]), b[1])

    before = copy.deepcopy(model.state_dict())
    report = kinkcheck.audit(model, [batch], step=step)
    assert optimizer.state == {}
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert report.points[0].loss == step(model, batch).item()


class Classwide(nn.Linear):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        Classwide.calls += 1
        return super().forward(x) * Classwide.calls


def test_a_program_that_is_another_one_each_time_is_refused() -> None:
    with pytest.raises(
        InputError, match="has another gradient each time that it runs on one batch"
    ):
        kinkcheck.audit(Classwide(3, 3), [(torch.rand(2, 3), torch.tensor([0, 1]))])


def test_a_loader_that_shuffles_leaves_the_random_state() -> None:
    model, data = small(), torch.utils.data.TensorDataset(*labelled())
    before = torch.get_rng_state()
    kinkcheck.audit(model, torch.utils.data.DataLoader(data, batch_size=2, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)


def teachers() -> dict[str, Callable[[nn.Module, nn.Module], Callable[[nn.Module, Any], Tensor]]]:
    """Steps that hold a second network in every way."""

    def distil(m: nn.Module, b: Any, teacher: Callable[[Tensor], Tensor]) -> Tensor:
        return F.mse_loss(m(b[0]), teacher(b[0]).detach())

    class Held:
        def __init__(self, teacher: nn.Module) -> None:
            self.inside = {"teacher": [teacher]}

        def __call__(self, m: nn.Module, b: Any) -> Tensor:
            return distil(m, b, self.inside["teacher"][0])

    def attribute(m: nn.Module, t: nn.Module) -> Any:
        m.teachers = [t]
        return lambda m, b: distil(m, b, m.teachers[0])

    def patched(m: nn.Module, t: nn.Module) -> Any:
        forward = m.forward
        m.forward = lambda x: forward(x) - t(x).detach()
        return lambda m, b: m(b[0]).square().mean()

    def hooked(m: nn.Module, t: nn.Module) -> Any:
        m.register_forward_hook(lambda _, args, made: made - t(args[0]).detach())
        return lambda m, b: m(b[0]).square().mean()

    return {
        "object": lambda m, t: Held(t),
        "method": lambda m, t: Held(t).__call__,
        "partial": lambda m, t: functools.partial(distil, teacher=t),
        "attribute": attribute,
        "patched": patched,
        "hooked": hooked,
    }


@pytest.mark.parametrize("how", sorted(teachers()))
def test_a_second_network_goes_with_the_first(how: str) -> None:
    torch.manual_seed(0)
    model, teacher, batch = small(), small(), labelled()
    before = [parameter.data_ptr() for parameter in teacher.parameters()]
    wanted = F.mse_loss(model(batch[0]), teacher(batch[0]).detach())
    plain = torch.autograd.grad(wanted, [*model.parameters()])
    step = teachers()[how](model, teacher)
    points = kinkcheck.audit(model, [batch], step=step, precisions=["32", "bfloat16"]).points
    assert points[0].gradient_l1 == pytest.approx(sum(float(g.abs().sum()) for g in plain))
    assert all(point.lift is not None for point in points)
    assert [parameter.data_ptr() for parameter in teacher.parameters()] == before


@pytest.mark.parametrize("method", ["_copy", "_put_back"])
@pytest.mark.parametrize("call", [1, 2, 5])
def test_ctrl_c_waits_until_all_is_put_back(
    method: str, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch, numbers = Patched(), labelled(), itertools.count(1)
    before, random_state = everything(model), torch.get_rng_state()
    own = getattr(as_found._Found, method)

    def interrupted(found: Any) -> None:
        if next(numbers) == call:
            signal.raise_signal(signal.SIGINT)
        own(found)

    monkeypatch.setattr(as_found._Found, method, interrupted)
    with pytest.raises(KeyboardInterrupt):
        kinkcheck.audit(model, [batch])
    assert everything(model) == before
    assert torch.equal(torch.get_rng_state(), random_state)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_gradients_may_be_off_around_an_audit_or_after_a_step() -> None:
    def step(m: nn.Module, b: Any) -> Tensor:
        loss = F.cross_entropy(m(b[0]), b[1])
        torch.set_grad_enabled(False)
        return loss

    model, batch = small(), labelled()
    wanted = gradient_l1(model, F.cross_entropy(model(batch[0]), batch[1]))
    with torch.no_grad():
        point = kinkcheck.audit(model, [batch], step=step).points[0]
    assert point.gradient_l1 == pytest.approx(wanted)
    assert torch.is_grad_enabled()


def test_gradients_that_a_step_reads_are_there() -> None:
    model, (x, y) = small(), labelled()
    for each in model.parameters():
        each.grad = torch.full_like(each, 0.5)
    held = [each.grad for each in model.parameters()]

    def step(model: nn.Module, batch: Any) -> Tensor:
        met = sum(p.grad.abs().sum() for p in model.parameters() if p.grad is not None)
        return F.cross_entropy(model(batch[0]), batch[1]) * (1 + met)

    expected = gradient_l1(model, step(model, (x, y)))
    for precision, relative in (("32", 1e-12), ("64", 1e-5)):
        (point,) = kinkcheck.audit(model, [(x, y)], step=step, precisions=[precision]).points
        assert point.gradient_l1 == pytest.approx(expected, rel=relative)
        assert point.zone in (Zone.AGREEMENT, Zone.COMPENSATION)
    assert all(p.grad is g for p, g in zip(model.parameters(), held, strict=True))
