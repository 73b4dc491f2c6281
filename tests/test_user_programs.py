"""Programs as people write them: what is measured is the program that runs, or it is refused."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
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
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_full_backward_hook,
)
from torch.utils.checkpoint import checkpoint

import kinkcheck
from kinkcheck.audit.verdict import verdict
from kinkcheck.errors import InputError
from kinkcheck.exact import evaluate, uncovered
from kinkcheck.measure.zones import Zone
from kinkcheck.tape import as_found

# The exact judge: what it covers is the program, and what its trace cannot show it names.


class Program(nn.Module):
    """Some layers, and a forward pass that a test writes."""

    def __init__(self, body: Callable[[Program, Tensor], Any]) -> None:
        super().__init__()
        self.body = body
        self.one = nn.Conv2d(1, 2, 2)
        self.two = nn.Conv2d(1, 2, 2)
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(2, 1)
        self.drop = nn.Dropout()
        self.head = nn.Linear(8, 3)
        self.register_buffer("offset", torch.full((8,), 0.25))
        self.scale = torch.full((8,), 0.5)
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def usual(m: Program, x: Tensor) -> Tensor:
    scores: Tensor = m.head(m.pool(m.act(m.one(x))).flatten(1))
    return scores


def on_a_grid(body: Callable[[Program, Tensor], Any]) -> tuple[Program, Tensor]:
    """With numbers that float64 carries exactly, and inputs at which pools tie."""
    torch.manual_seed(1)
    model = Program(body)
    for parameter in model.parameters():
        parameter.data = torch.randint(-4, 5, parameter.shape) / 4
    return model, torch.randint(0, 2, (2, 1, 4, 4)) / 2


def assert_as_recorded(model: Program, x: Tensor) -> None:
    """Outputs, sites, ties and gradients are those of a recorded float64 pass, bit for bit."""
    point = evaluate(model, x)
    model.double().scale = model.scale.double()
    with kinkcheck.record(model) as tape:
        output = model(x.double())
        cotangent = torch.randint(-2, 3, output.shape) / 4
        loss = (output * cotangent).sum()
    assert torch.equal(point.output.to_float64(), output)
    assert point.ties == {(s.layer, s.operation, s.call): s.tied for s in tape.sites}
    assert sum(point.ties.values())
    for selection in ("native", "last"):
        gradient = tape.gradient(loss, choose=selection)
        exact = point.gradient(cotangent, selection)
        assert exact.keys() == gradient.keys()
        for name, expected in gradient.items():
            assert torch.equal(exact[name].to_float64(), expected), (selection, name)


def gradients_off(m: Program, x: Tensor) -> Tensor:
    with torch.no_grad():
        constant = m.pool(m.act(m.two(x)))
    scores: Tensor = m.head((m.pool(m.one(x)) + constant).flatten(1))
    return scores


def in_inference_mode(m: Program, x: Tensor) -> Tensor:
    with torch.inference_mode():
        constant = m.pool(m.act(m.two(x)))
    scores: Tensor = m.head((m.pool(m.one(x)) + constant).flatten(1))
    return scores


@torch.no_grad()
def decorated(m: Program, x: Tensor) -> Any:
    with torch.enable_grad():
        again = m.pool(m.one(x))
    return m.act(m.two(x)), again


def partly_off(m: Program, x: Tensor) -> Tensor:
    constant, again = decorated(m, x)
    scores: Tensor = m.head((again + m.pool(constant)).flatten(1))
    return scores


def switched_off(m: Program, x: Tensor) -> Tensor:
    torch.set_grad_enabled(False)
    constant = m.pool(m.two(x))
    torch.set_grad_enabled(True)
    scores: Tensor = m.head((m.pool(m.act(m.one(x))) + constant).flatten(1))
    return scores


def detached(m: Program, x: Tensor) -> Tensor:
    h = m.pool(m.one(x))
    scores: Tensor = m.head((h - torch.detach(m.act(h)) * h.detach()).flatten(1))
    return scores


def the_tensor_itself(m: Program, x: Tensor) -> Tensor:
    h = m.pool(m.act(m.one(x))).flatten(1)
    with torch.no_grad():  # what returns its argument keeps the gradient
        same = m.drop(h.flatten(1))
    scores: Tensor = m.head(same)
    return scores


def a_view_without_gradient(m: Program, x: Tensor) -> Tensor:
    h = m.pool(m.act(m.one(x)))
    with torch.no_grad():
        view = h.view(2, 8)
    scores: Tensor = m.head(view + h.flatten(1))
    return scores


def under_autocast(m: Program, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return usual(m, x)


def by_mode(m: Program, x: Tensor) -> Tensor:
    return usual(m, x) if torch.is_grad_enabled() and not m.training else m.offset


def with_buffers(m: Program, x: Tensor) -> Tensor:
    h = m.pool(m.act(m.one(x))).flatten(1)
    scores: Tensor = m.head((h - m.offset * 2) * m.offset)
    return scores


def weight_in_forward(m: Program, x: Tensor) -> Tensor:
    h = F.conv2d(x, m.one.weight * m.two.weight - m.one.weight, m.two.bias)
    scores: Tensor = m.head(m.pool(m.act(h)).flatten(1))
    return scores


def shared(m: Program, x: Tensor) -> Tensor:
    h = F.conv2d(x, next(m.parameters())) + m.one(x)
    scores: Tensor = m.head(m.pool(m.act(h)).flatten(1))
    return scores


def kept(m: Program, x: Tensor) -> Tensor:
    m.feature = m.act(m.one(x))
    m.calls = getattr(m, "calls", 0) + 1
    scores: Tensor = m.head(m.pool(m.feature).flatten(1))
    return scores


def checkpointed(m: Program, x: Tensor) -> Tensor:
    h = checkpoint(lambda y: m.act(m.one(y)), x, use_reentrant=False)
    scores: Tensor = m.head(m.pool(h).flatten(1))
    return scores


@pytest.mark.parametrize(
    "body",
    [usual, gradients_off, partly_off, switched_off, detached, the_tensor_itself,
     a_view_without_gradient, under_autocast, by_mode, with_buffers, weight_in_forward, shared,
     kept, in_inference_mode, checkpointed],
)  # fmt: skip
def test_what_the_exact_judge_covers_is_the_program(body: Any) -> None:
    assert_as_recorded(*on_a_grid(body))


def test_frozen_parts_and_patched_forwards_are_covered() -> None:
    model, x = on_a_grid(usual)
    model.one.requires_grad_(False)
    assert_as_recorded(model, x)
    model, x = on_a_grid(usual)
    model.act.forward = lambda x: F.relu(x) * 3
    model.pool.forward = functools.partial(F.max_pool2d, kernel_size=(2, 2), stride=1)
    assert_as_recorded(model, x)
    model, x = on_a_grid(usual)
    model.forward = lambda x: usual(model, x) * 2
    assert_as_recorded(model, x)


def test_kinks_without_gradients_change_nothing() -> None:
    """The issue's case: the pool is in a block without gradients, or behind a frozen layer."""

    def block(m: Program, x: Tensor, gradients: bool) -> Tensor:
        with torch.set_grad_enabled(gradients):
            q = m.pool(m.two(x))
        scores: Tensor = m.head((F.avg_pool2d(m.one(x), 2, 1) + q).flatten(1))
        return scores

    one = torch.ones(2, 3)
    for gradients, frozen, agree in (
        (False, False, True),
        (True, True, True),
        (True, False, False),
    ):
        model, x = on_a_grid(functools.partial(block, gradients=gradients))
        model.two.requires_grad_(not frozen)
        point = evaluate(model, x)
        assert list(point.ties) == [("pool", "max_pool2d", 0)]
        assert point.ties["pool", "max_pool2d", 0] > 0
        assert (point.difference(one, "last").l1 == 0) is agree


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.relu()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 2


def written_without_gradients(m: Program, x: Tensor) -> Tensor:
    h = m.one(x)
    with torch.no_grad():
        h += 1
    scores: Tensor = m.head(m.pool(h).flatten(1))
    return scores


def written_under_another_name(m: Program, x: Tensor) -> Tensor:
    h = other = m.pool(m.one(x))
    h += 1
    scores: Tensor = m.head((h + other).flatten(1))
    return scores


def hooked_on_the_way(m: Program, x: Tensor) -> Tensor:
    h = m.one(x)
    h.register_hook(lambda g: g * 3)
    scores: Tensor = m.head(m.pool(h).flatten(1))
    return scores


def frozen_on_the_way(m: Program, x: Tensor) -> Tensor:
    m.one.weight.requires_grad_(False)
    h = m.one(x)
    m.one.weight.requires_grad_(True)
    scores: Tensor = m.head(m.pool(h).flatten(1))
    return scores


def frozen_by_a_loop(m: Program, x: Tensor) -> Tensor:
    for parameter in m.one.parameters():
        parameter.requires_grad_(False)
    h = m.one(x)
    for parameter in m.one.parameters():
        parameter.requires_grad_(True)
    scores: Tensor = m.head(m.pool(h).flatten(1))
    return scores


def autocast_number(m: Program, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return usual(m, x) - 0.1


def toggled(m: Program, x: Tensor) -> Tensor:
    m.drop.train()
    h = m.drop(usual(m, x))
    m.drop.eval()
    return h


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (written_without_gradients, "(iadd in place, while gradients are off)"),
        (written_under_another_name, "(iadd in place, of a tensor that is used again)"),
        (lambda m, x: usual(m, x) + m.offset.add_(1)[:3], "(add_ in place, of what the model"),
        (hooked_on_the_way, "(register_hook)"),
        (frozen_on_the_way, "(requires_grad_)"),
        (frozen_by_a_loop, "(freezes parameters, or frees them, on the way)"),
        (autocast_number, "(sub of a number under autocast)"),
        (toggled, "drop (Dropout in training mode)"),
        (lambda m, x: Doubled.apply(usual(m, x)), "(Doubled as a custom autograd function)"),
        (lambda m, x: checkpoint(m.one, x, use_reentrant=True), "(CheckpointFunction as a custom"),
        (lambda m, x: usual(m, x) + torch.ones(3), "(a tensor made in the forward pass, or"),
        (lambda m, x: usual(m, x) * (m.scale * 2).sum(), "(a tensor made in the forward pass, or"),
        (lambda m, x: torch.vmap(m.one)(x), "torch.fx cannot trace it"),
        (lambda m, x: usual(m, x if x.sum() > 0 else -x), "torch.fx cannot trace it"),
        (lambda m, x: torch.func.functional_call(m.head, {"weight": m.scale.expand(3, 8)},
                                                 (m.one(x),)), "(a tensor made in the forward"),
    ],
)  # fmt: skip
def test_what_a_trace_cannot_show_is_named(body: Any, named: str) -> None:
    model, x = on_a_grid(body)
    assert any(named in each for each in uncovered(model)), uncovered(model)
    with pytest.raises(InputError, match="the exact arbiter does not cover"):
        evaluate(model, x)


def parameter_hook(m: Program) -> None:
    m.one.weight.register_hook(lambda g: g * 3)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m.one.register_forward_hook(print), "one (Conv2d with a forward hook)"),
        (lambda m: m.register_forward_pre_hook(print), "itself (Program with a forward pre-hook)"),
        (lambda m: m.act.register_full_backward_hook(print), "act (ReLU with a backward hook)"),
        (lambda m: m.pool.register_full_backward_pre_hook(print),
         "pool (MaxPool2d with a backward pre-hook)"),
        (parameter_hook, "one (weight with a tensor hook)"),
        (lambda m: m.head.double(), "(tensors of several types: float32, float64)"),
        (lambda m: setattr(m, "act", torch.jit.script(nn.ReLU())), "act (RecursiveScriptModule"),
        (lambda m: m.one.compile(), "one (Conv2d compiled)"),
        (lambda m: nn.utils.parametrizations.weight_norm(m.head), "head (ParametrizedLinear)"),
        (lambda m: nn.utils.parametrizations.spectral_norm(m.head), "head (ParametrizedLinear)"),
    ],
)  # fmt: skip
def test_what_is_hung_on_a_model_is_named(change: Any, named: str) -> None:
    model, _ = on_a_grid(usual)
    change(model)
    assert any(named in each for each in uncovered(model)), uncovered(model)


@pytest.mark.parametrize(
    "register", [register_module_forward_hook, register_module_full_backward_hook]
)
def test_hooks_of_all_modules_are_named(register: Any) -> None:
    model, _ = on_a_grid(usual)
    handle = register(lambda *_: None)
    try:
        assert any("hook of all modules" in each for each in uncovered(model))
    finally:
        handle.remove()
    assert uncovered(model) == []


def test_hooks_that_do_not_act_are_none() -> None:
    """What gathers into ``.grad`` does not concern a gradient that is returned."""
    model, x = on_a_grid(usual)
    model.one.weight.register_post_accumulate_grad_hook(lambda p: None)
    model.two.register_full_backward_hook(print)
    assert_as_recorded(model, x)


def test_the_exact_judge_leaves_a_model_as_it_is() -> None:
    def body(m: Program, x: Tensor) -> Tensor:
        torch.rand(1)
        return kept(m, x)

    model, x = on_a_grid(body)
    model.feature = None
    before = [(module, dict(vars(module))) for module in model.modules()]
    state = torch.get_rng_state()
    evaluate(model, x)
    assert torch.equal(torch.get_rng_state(), state)
    for module, content in before:
        assert vars(module).keys() == content.keys()
        assert all(vars(module)[name] is value for name, value in content.items())


def asks_what_it_is_given(m: Program, x: Tensor) -> Tensor:
    return usual(m, x * 2 if isinstance(x, Tensor) else x)


def asks_for_another_gradient(m: Program, x: Tensor) -> Tensor:
    """The value is that of the trace."""
    h = m.one(x)
    h = h.detach() if isinstance(x, Tensor) else h
    scores: Tensor = m.head(F.avg_pool2d(m.act(h), 2, 1).flatten(1))
    return scores


@pytest.mark.parametrize("body", [asks_what_it_is_given, asks_for_another_gradient])
def test_a_trace_of_another_program_is_refused(body: Any) -> None:
    model, x = on_a_grid(body)
    batch = (x, torch.zeros(2, 3))
    with pytest.raises(InputError, match=r"the exact trace gives .* where the recorded program"):
        kinkcheck.audit(model, [batch], loss=F.mse_loss, exact=True)
    model, _ = on_a_grid(usual)
    report = kinkcheck.audit(model, [batch], loss=F.mse_loss, exact=True)
    assert {point.lift.precision for point in report.points if point.lift} == {"exact"}


def test_kinks_of_the_loss_are_not_left_out() -> None:
    model, x = on_a_grid(usual)
    batch = (x, torch.zeros(2, 3))
    with pytest.raises(InputError, match=r"calls relu in layer '' \(call 0\).* as in a loss"):
        kinkcheck.audit(model, [batch], loss=lambda o, y: F.relu(o - y).sum(), exact=True)


def test_a_literal_is_the_number_of_the_type() -> None:
    """One float32 program, whether 0.1 is a number or a buffer: at 0.1 over the reals too."""

    class Shifted(nn.Module):
        def __init__(self, by: float | Tensor) -> None:
            super().__init__()
            self.line = nn.Linear(1, 1, bias=False)
            nn.init.constant_(self.line.weight, 0.1)
            self.register_buffer("held", by if isinstance(by, Tensor) else None)
            self.by = by

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.line(x) - (self.by if self.held is None else self.held))

    one = torch.ones(1, 1)
    for by in (0.1, torch.tensor(0.1)):
        point = evaluate(Shifted(by), one)
        assert list(point.ties.values()) == [1]
        assert point.difference(one, "last").l1 == 1


# The tape: what is asked does not depend on what was asked before, and what it cannot switch is
# named for the loss at hand.


def test_module_hooks_act_whatever_was_asked_before() -> None:
    for before in ([], ["native"], ["minimal", "native"]):
        module = nn.ReLU()
        module.register_full_backward_hook(lambda module, into, out: (into[0] * 3,))
        x = torch.zeros(1, requires_grad=True)
        with kinkcheck.record(module) as tape:
            loss = module(x).sum()
        for choose in before:
            assert tape.gradient(loss, [x], choose=choose)[0].item() == 0
        assert tape.gradient(loss, [x], choose="branch:1")[0].item() == 3


class Straight(torch.autograd.Function):
    """A ReLU that lets every gradient through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.relu(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


@pytest.mark.parametrize(
    ("program", "named"),
    [
        (lambda h: torch.where(h > 0, h, 0 * h), {"where"}),
        (lambda h: torch.fake_quantize_per_tensor_affine(h, 0.1, 0, 0, 255),
         {"fake_quantize_per_tensor_affine_cachemask"}),
        (lambda h: h.pow(2).sum().sqrt(), {"sqrt"}),
        (lambda h: torch.maximum(h.abs(), torch.zeros(2)), set()),
        (Straight.apply, {"Straight"}),
        (lambda h: torch.where(h > 0, h.exp().sqrt(), h), {"where", "sqrt"}),
        (lambda h: h.exp().gather(1, h.max(1, keepdim=True).indices), {"gather"}),
        (lambda h: F.elu(h), set()),
        (lambda h: h + h.detach().abs(), set()),
    ],
)  # fmt: skip
def test_what_no_selection_moves_is_named_for_the_loss(
    program: Callable[[Tensor], Tensor], named: set[str]
) -> None:
    layer = nn.Linear(2, 2)
    with kinkcheck.record(layer) as tape:
        loss = program(layer(torch.ones(1, 2))).sum()
        layer(torch.ones(1, 2)).max(1)  # beside the loss
    assert {unseen.operation for unseen in tape.unseen_behind(loss)} == named


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp().sqrt()


def test_layers_that_no_trained_parameter_reaches_are_not_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2), Root(), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    x = torch.ones(1, 2, requires_grad=True)
    with kinkcheck.record(model) as tape:
        loss = model(x).sum()
    assert tape.unseen_behind(loss) == []
    assert [unseen.operation for unseen in tape.unseen_behind(loss, x)] == ["sqrt"]


# The audit: the user's own object, with whatever hangs on it, on whatever batches there are.


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.MaxPool1d(2), nn.Linear(2, 3))


def labelled(count: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, generator=generator), torch.arange(count) % 3


def gradient_l1(model: nn.Module, loss: Tensor) -> float:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return sum(g.abs().sum(dtype=torch.float64).item() for g in found if g is not None)


def test_a_penalty_on_the_parameters_is_part_of_the_program() -> None:
    model, (x, y) = small(), labelled()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        penalty = sum(p.square().sum() for p in model.parameters())
        return F.cross_entropy(outputs, targets) + penalty

    expected = gradient_l1(model, loss(model(x), y))
    without = gradient_l1(model, F.cross_entropy(model(x), y))
    for precision, relative in (("32", 1e-12), ("64", 1e-5)):
        (point,) = kinkcheck.audit(model, [(x, y)], loss=loss, precisions=[precision]).points
        assert point.gradient_l1 == pytest.approx(expected, rel=relative)
        assert abs(expected - without) > 1
        assert point.noise is not None
        assert point.noise.l1 < 1e-5 * expected  # and no half of the batch goes without it


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


def scaled(module: nn.Module, inputs: Any, outputs: Tensor) -> Tensor:
    return 2 * outputs


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


def test_hooks_of_every_kind_act_as_in_training() -> None:
    def program(hooked: bool) -> tuple[nn.Module, float]:
        model, (x, y) = small(), labelled()
        if hooked:
            model[0].register_forward_pre_hook(lambda m, args: (args[0] + 1,))
            model[0].register_forward_hook(scaled)
            model[1].register_full_backward_hook(lambda m, gi, go: (gi[0] * 3,))
            model[3].register_full_backward_pre_hook(lambda m, go: (go[0] * 5,))
            model[0].weight.register_hook(lambda g: g * 7)
        return model, gradient_l1(model, F.cross_entropy(model(x), y))

    model, expected = program(hooked=True)
    (point,) = kinkcheck.audit(model, [labelled()], lifted=True).points
    assert point.gradient_l1 == pytest.approx(expected, rel=1e-12)
    assert abs(expected - program(hooked=False)[1]) > 0.1


@dataclasses.dataclass
class Example:
    inputs: Tensor
    targets: Tensor
    name: str = "an example"


class Graph:
    """A graph as the packages for them have it: attributes, and ``to``."""

    def __init__(self, **parts: Tensor) -> None:
        self.__dict__.update(parts)

    def to(self, device: str) -> Graph:
        return Graph(**{name: part.to(device) for name, part in vars(self).items()})


def wrapped(kind: str, x: Tensor, y: Tensor) -> tuple[Any, Callable[[Any], tuple[Tensor, Tensor]]]:
    from transformers import BatchEncoding
    from transformers.modeling_outputs import ImageClassifierOutput

    Pair = collections.namedtuple("Pair", "inputs targets")
    both = {"inputs": x, "targets": y}
    read_keys = lambda b: (b["inputs"], b["targets"])  # noqa: E731
    read_names = lambda b: (b.inputs, b.targets)  # noqa: E731
    return {
        "tuple": ((x, y), lambda b: (b[0], b[1])),
        "list": ([x, y], lambda b: (b[0], b[1])),
        "nested": ({"a": [(x,)], "b": {"c": y}}, lambda b: (b["a"][0][0], b["b"]["c"])),
        "dict": ({**both, "name": "a"}, read_keys),
        "named tuple": (Pair(x, y), read_names),
        "dataclass": (Example(x, y), read_names),
        "namespace": (types.SimpleNamespace(**both), read_names),
        "graph": (Graph(**both), read_names),
        "encoding": (BatchEncoding(both), read_keys),
        "output": (
            ImageClassifierOutput(logits=x, loss=y),
            lambda b: (b.logits, b["loss"]),
        ),
        "items": (
            [(row, label) for row, label in zip(x, y, strict=True)],
            lambda b: (torch.stack([r for r, _ in b]), torch.stack([label for _, label in b])),
        ),
        "ragged": (
            {"rows": [row[: 1 + i % 3] for i, row in enumerate(x)], "labels": y.tolist()},
            lambda b: (
                torch.stack([F.pad(r, (0, 3 - len(r))) for r in b["rows"]]),
                torch.tensor(b["labels"]),
            ),
        ),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["tuple", "list", "nested", "dict", "named tuple", "dataclass", "namespace", "graph",
     "encoding", "output", "items", "ragged"],
)  # fmt: skip
@pytest.mark.parametrize("precision", ["bfloat16", "32"])
def test_a_batch_is_whatever_the_step_takes(kind: str, precision: str) -> None:
    model = small()
    batch, read = wrapped(kind, *labelled())

    def step(model: nn.Module, batch: Any) -> Tensor:
        x, y = read(batch)
        return F.cross_entropy(model(x), y)

    report = kinkcheck.audit(model, [batch], step=step, precisions=[precision])
    (point,) = report.points
    half = copy.deepcopy(model).to(torch.bfloat16 if precision == "bfloat16" else torch.float32)
    x, y = read(batch)
    expected = gradient_l1(half, F.cross_entropy(half(x.to(half[0].weight.dtype)), y))
    assert point.gradient_l1 == pytest.approx(expected, rel=1e-12)
    assert point.noise is not None  # the samples were found
    assert report.left_out == []


def test_what_cannot_be_looked_into_is_named() -> None:
    batches = [(*labelled(), iter([1])), (*labelled(), iter([2])), labelled()]
    report = kinkcheck.audit(
        small(), batches, step=lambda m, b: F.cross_entropy(m(b[0]), b[1]), lifted=False
    )
    (left_out,) = report.left_out
    assert left_out.what == "what is in a list_iterator of the batch: kinkcheck cannot look into it"
    assert left_out.points == 2


class Times(nn.Module):
    """A recurrent network that takes times first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.LSTM(3, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(F.relu(self.rnn(x)[0][-1]))
        return scores


def test_the_first_dimension_may_be_time() -> None:
    x, y = torch.randn(5, 5, 3), torch.arange(5) % 3
    found = kinkcheck.audit(Times(), [(x, y)])
    assert found.points[0].lift is not None
    assert found.points[0].noise is None
    assert any("no samples were found" in each.what for each in found.left_out)
    declared = kinkcheck.audit(Times(), [(x, y)], samples=(1, 0))
    assert declared.points[0].noise is not None
    assert declared.left_out == []
    assert declared.points[0].gradient_l1 == found.points[0].gradient_l1
    # Seven times are not five samples, which shows at once.
    assert kinkcheck.audit(Times(), [(torch.randn(7, 5, 3), y)]).points[0].noise is None


def test_samples_that_are_none_are_not_believed() -> None:
    x, y = torch.randn(5, 5, 3), torch.arange(5) % 3
    report = kinkcheck.audit(Times(), [(x, y)], samples=(0, 0))
    assert report.points[0].noise is None
    assert report.left_out


def test_a_module_that_keeps_what_it_computed_is_audited() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.feat = F.relu(self.line(x))
            return self.feat

    model, batch = Keeps(), labelled()
    model(batch[0])  # now it holds a tensor with a graph, which no copy takes
    expected = gradient_l1(model, F.cross_entropy(model(batch[0]), batch[1]))
    (point,) = kinkcheck.audit(model, [batch]).points
    assert point.gradient_l1 == pytest.approx(expected, rel=1e-12)


def test_sparse_gradients_are_measured() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.ReLU(), nn.Linear(4, 3))
    batch = torch.tensor([0, 3, 3, 8]), torch.tensor([0, 1, 2, 0])
    dense = copy.deepcopy(model)
    dense[0].sparse = False
    expected = gradient_l1(dense, F.cross_entropy(dense(batch[0]), batch[1]))
    report = kinkcheck.audit(model, [batch], layers=True)
    (point,) = report.points
    assert point.gradient_l1 == pytest.approx(expected, rel=1e-12)
    assert point.zone in (Zone.AGREEMENT, Zone.COMPENSATION)
    assert report.sites[0].variation_l1 == point.variation.l1


def test_a_site_alone_is_switched_where_a_checkpoint_computes_again() -> None:
    class Checkpointed(nn.Module):
        """relu(w x − 0.1) · 0.3 at w = float32(0.1), x = 1: a tie, also in the lift."""

        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(1, 1, bias=False)
            nn.init.constant_(self.line.weight, 0.1)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(
                lambda x: torch.relu(self.line(x) - 0.1) * 0.3, x, use_reentrant=False
            )

    for selection, expected in (("branch:1", 0.3), ("branch:0.5", 0.15), ("minimal", 0.0)):
        report = kinkcheck.audit(
            Checkpointed(), [torch.ones(1, 1)], step=lambda m, x: m(x).sum(),
            selections=[selection], layers=True,
        )  # fmt: skip
        (site,) = report.sites
        assert site.variation_l1 == pytest.approx(expected)
        assert site.lift_variation_l1 == pytest.approx(expected)


class Shift(nn.Module):
    """relu(w x − c) at w = x c, in every way to write c."""

    def __init__(self, c: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.line.weight, 0.1)
        if isinstance(c, Tensor):
            self.register_buffer("c", c)
        else:
            self.c = c

    def forward(self, x: Tensor) -> Tensor:
        c = self.c(x) if callable(self.c) else self.c
        return F.relu(self.line(x) - c)


@pytest.mark.parametrize(
    "c",
    [
        0.1,
        torch.tensor(0.1),
        lambda x: torch.tensor(0.1, dtype=x.dtype),
        lambda x: x.new_tensor(0.1),
        lambda x: x.new_full((), 0.1),
        lambda x: torch.full_like(x, 0.1),
        lambda x: torch.zeros_like(x).fill_(0.1),
        lambda x: torch.zeros_like(x) + 0.1,
        lambda x: torch.where(x > 2, x, 0.1),
        lambda x: x.clamp(max=0.1),
    ],
)
@pytest.mark.parametrize("precision", ["32", "16", "bfloat16"])
def test_a_constant_is_lifted_as_the_precision_takes_it(c: Any, precision: str) -> None:
    batch = torch.ones(1, 1), torch.zeros(1, 1)
    (point,) = kinkcheck.audit(
        Shift(c, torch.float32), [batch], precisions=[precision], selections=["branch:1"],
        loss=lambda o, t: o.sum(),
    ).points  # fmt: skip
    assert point.variation.l1 == 1  # at 0 ReLU's derivative is 0, or 1
    assert point.zone is Zone.BIFURCATION  # over the reals too: it is at 0


@pytest.mark.parametrize(
    "fill",
    [
        lambda x: x.masked_fill(x > 0, torch.finfo(x.dtype).min),
        lambda x: torch.where(x > 0, torch.finfo(x.dtype).min, x),
        lambda x: torch.where(x > 0, torch.full_like(x, torch.finfo(x.dtype).min), x),
        lambda x: torch.where(x > 0, torch.full((), torch.finfo(x.dtype).min, dtype=x.dtype), x),
        lambda x: torch.where(x > 0, torch.tensor(torch.finfo(x.dtype).min, dtype=x.dtype), x),
    ],
)
@pytest.mark.parametrize("precision", ["32", "16", "bfloat16"])
def test_the_least_number_of_a_type_is_lifted(fill: Any, precision: str) -> None:
    """As masks of attention have it, also where all is masked."""
    model, x = nn.Linear(3, 3), torch.rand(2, 3)

    def step(m: nn.Module, x: Tensor) -> Tensor:
        return (m(x) * fill(x).softmax(1)).sum()

    (point,) = kinkcheck.audit(model, [x], step=step, precisions=[precision]).points
    assert point.lift is not None
    assert point.lift.error_reference_l1 is not None
    assert point.lift.error_reference_l1 < 0.02 * point.gradient_l1


class Drawing(nn.Module):
    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.draw = small(), draw

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(self.draw(x))
        return scores


def layerdrop(x: Tensor) -> Tensor:
    return x if torch.rand([]) >= 0.0 else x * 0


@pytest.mark.parametrize(
    "draw",
    [
        layerdrop,
        lambda x: F.dropout(x, 0.5),
        lambda x: torch.native_dropout(x, 0.5, True)[0],  # what dropout calls on CUDA
        lambda x: x + torch.randn_like(x),
        lambda x: x + torch.randn(x.shape, dtype=x.dtype),
        lambda x: x * (1 + random.random()),
        lambda x: x * torch.tensor(np.random.rand(), dtype=x.dtype),
        lambda x: x[:, torch.randperm(3)],
        lambda x: F.scaled_dot_product_attention(
            *3 * [x[:, None, :, None].expand(-1, 1, 3, 2)], dropout_p=0.5
        )[:, 0, :, 0],
    ],
)
def test_draws_are_the_same_numbers_in_the_lift(draw: Callable[[Tensor], Tensor]) -> None:
    model, batch = Drawing(draw), labelled()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    (point,) = kinkcheck.audit(model, [batch]).points
    assert point.lift is not None
    assert point.lift.error_reference_l1 is not None
    assert point.lift.error_reference_l1 < 1e-4 * point.gradient_l1
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_lift_on_cuda_drops_the_same() -> None:
    model = Drawing(lambda x: F.dropout(x, 0.5))
    (point,) = kinkcheck.audit(model, [labelled()], device="cuda").points
    assert point.lift is not None
    assert point.lift.error_reference_l1 is not None
    assert point.lift.error_reference_l1 < 1e-4 * point.gradient_l1
    assert point.noise is not None


def test_a_transformer_in_training_mode_is_lifted() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(40, 3))
    batch = torch.randn(4, 5, 8), torch.arange(4) % 3
    (point,) = kinkcheck.audit(model, [batch]).points
    assert point.lift is not None
    assert point.lift.error_reference_l1 is not None
    assert point.lift.error_reference_l1 < 1e-4 * point.gradient_l1
    assert point.noise is not None


def test_an_operation_without_float64_is_named_with_what_works() -> None:
    class Narrow(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            if x.dtype == torch.float64:
                raise NotImplementedError("expected float32")
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return grads[0]

    model, batch = nn.Sequential(small()), labelled()
    model.append(Function(Narrow.apply))
    with pytest.raises(InputError, match=r"cannot be lifted to float64.*expected float32.*no-lift"):
        kinkcheck.audit(model, [batch])
    assert kinkcheck.audit(model, [batch], lifted=False).points


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def hand_relu(h: Tensor) -> Tensor:
    return torch.where(h > 0, h, 0 * h)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (hand_relu, ["where"]),
        (lambda h: h * (h > 0), ["mul"]),
        (lambda h: h.masked_fill(h < 0, 0.0), ["masked_fill"]),
        (lambda h: torch.fake_quantize_per_tensor_affine(h, 0.1, 0, -8, 7), ["fake_quantize"]),
        (lambda h: (0 * h).pow(2).sum(1, keepdim=True).sqrt() + h, ["sqrt"]),
        (lambda h: h.round() + h, ["round"]),
        (lambda h: h - h.gather(1, h.argmax(1, keepdim=True)), ["gather"]),
    ],
)
def test_what_is_not_switched_is_never_called_harmless(body: Any, named: list[str]) -> None:
    model = nn.Sequential(nn.Linear(3, 4), Function(body), nn.Linear(4, 3))
    report = kinkcheck.audit(model, [labelled()])
    found = " ".join(each.operation for each in report.unseen)
    text = verdict(report)
    for name in named:
        assert name in found
        assert name in text
    assert "does not matter" not in text
    assert "No nonsmooth operation was met" not in text
    assert text.startswith(("No kink that kinkcheck recognises", "Nothing is known"))


def test_the_choice_of_a_custom_function_is_its_own() -> None:
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return F.relu(x)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return grads[0] * (x >= 0)

    model = nn.Sequential(nn.Linear(3, 4), Function(Own.apply), nn.Linear(4, 3))
    nn.init.zeros_(model[0].weight), nn.init.zeros_(model[0].bias)
    report = kinkcheck.audit(model, [labelled()], selections=["branch:1"])
    assert [each.operation for each in report.unseen] == ["Own"]
    assert "does not matter" not in verdict(report)
    assert "Own" in verdict(report)


def test_where_numbers_stop_being_finite_and_whether_float64_helps() -> None:
    model = nn.Sequential(
        nn.Linear(3, 4), Function(lambda h: torch.where(h > 0, h.sqrt(), h)), nn.Linear(4, 3)
    )
    nn.init.zeros_(model[0].weight), nn.init.constant_(model[0].bias, -1.0)
    report = kinkcheck.audit(model, [labelled()])
    (point,) = report.points
    assert (point.zone, point.non_finite_layer) == (Zone.NON_FINITE, "0")
    assert (point.non_finite_operation, point.non_finite_lifted) == ("sqrt", True)
    text = verdict(report)
    assert text.startswith("Nothing is known of the choice at kinks: no gradient is finite.")
    assert "higher precision cannot help" in text
    assert "recognises" not in text
    # 1e5 is more than float16 has.
    large = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))
    nn.init.constant_(large[0].bias, 1e5)
    report = kinkcheck.audit(large, [labelled()], precisions=["16"])
    assert report.points[0].non_finite_lifted is True  # the parameter itself is infinite there
    nn.init.constant_(large[0].bias, 6e4)
    nn.init.constant_(large[2].weight, 2.0)
    report = kinkcheck.audit(large, [labelled()], precisions=["16"])
    assert report.points[0].non_finite_lifted is False
    assert "in float64 it is: scale the loss" in verdict(report)


def test_a_program_that_is_recorded_otherwise_than_it_runs_is_refused() -> None:
    """Whether Python looks at what carries out a call, say."""

    class Suspicious(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            recorded = bool(torch.overrides._get_current_function_mode_stack())
            outputs: Tensor = self.line(x)
            return 2 * outputs if recorded else outputs

    with pytest.raises(InputError, match=r"not the one that plain autograd returns.*against"):
        kinkcheck.audit(Suspicious(), [labelled()])


def test_a_step_may_take_gradients_itself() -> None:
    model, (x, y) = small(), labelled()
    model[1] = nn.Softplus()  # whose second derivative is not 0

    def step(model: nn.Module, batch: Any) -> Tensor:
        x = batch[0].requires_grad_()
        loss = F.cross_entropy(model(x), batch[1])
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        return loss + slope.square().sum()

    expected = gradient_l1(model, step(model, (x.clone(), y)))
    (point,) = kinkcheck.audit(model, [(x, y)], step=step).points
    assert point.gradient_l1 == pytest.approx(expected, rel=1e-12)
    assert point.lift is not None
    assert point.lift.error_reference_l1 is not None
    assert point.lift.error_reference_l1 < 1e-4 * point.gradient_l1
    assert not x.requires_grad


def test_what_the_loss_holds_goes_with_the_model() -> None:
    model, (x, y) = small(), labelled()
    weights = torch.tensor([0.1, 0.2, 0.7])
    criterion = nn.CrossEntropyLoss(weight=weights.clone())
    expected = gradient_l1(model, criterion(model(x), y))
    losses = [
        criterion,
        lambda o, t: criterion(o, t),
        lambda o, t: F.cross_entropy(o, t, weight=weights),
        functools.partial(F.cross_entropy, weight=weights),
    ]
    for loss in losses:
        (point,) = kinkcheck.audit(model, [(x, y)], loss=loss).points
        assert point.gradient_l1 == pytest.approx(expected, rel=1e-12)
        assert point.lift is not None
    for loss in losses[:2]:
        assert kinkcheck.audit(model, [(x, y)], loss=loss, precisions=["16"]).points[0].lift
    assert criterion.weight is not None
    assert torch.equal(criterion.weight, weights)
    assert weights.dtype == criterion.weight.dtype == torch.float32


def ragged(layout: torch.layout) -> Tensor:
    return torch.nested.nested_tensor([torch.rand(2, 4), torch.rand(3, 4)], layout=layout)


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.rand(3, 4).to_sparse(),
        lambda: torch.rand(3, 4).to_sparse_csr(),
        lambda: ragged(torch.strided),
        lambda: ragged(torch.jagged),
    ],
)
def test_tensors_of_every_layout_are_measured(make: Callable[[], Tensor]) -> None:
    model, batch = nn.Linear(4, 2), make()

    def step(m: nn.Module, x: Tensor) -> Tensor:
        dense = x.to_padded_tensor(0.0) if x.is_nested else x.to_dense()
        return F.relu(m(dense)).square().mean()

    report = kinkcheck.audit(model, [batch], step=step)
    plain = torch.autograd.grad(step(model, batch), [*model.parameters()])
    assert report.points[0].gradient_l1 == pytest.approx(float(sum(g.abs().sum() for g in plain)))


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3 + 4j, 0]))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu((self.weight * x).real) + F.relu((self.weight * x).imag)


def test_complex_parameters_are_measured() -> None:
    (point,) = kinkcheck.audit(
        Complex(), [torch.ones(2)], step=lambda m, x: m(x).sum(), selections=["branch:0.5"]
    ).points
    # Of the first entry it is 1 + i; of the second, which is 0, half of that under the selection.
    assert point.gradient_l1 == pytest.approx(2**0.5)
    assert point.variation.l1 == pytest.approx(2**0.5 / 2)


def test_losses_of_every_form_are_measured_or_refused_by_name() -> None:
    model = nn.Linear(4, 2)
    batch = torch.rand(3, 4)
    one = kinkcheck.audit(model, [batch], step=lambda m, x: m.bias[:1])
    assert one.points[0].gradient_l1 == 1
    itself = Complex()
    itself.weight = nn.Parameter(torch.tensor(2.0))
    assert kinkcheck.audit(itself, [batch], step=lambda m, x: m.weight).points[0].loss == 2
    for made, named in (
        (lambda m, x: {"loss": m(x).sum()}, "not dict"),
        (lambda m, x: m(x).sum().item(), "not float"),
        (lambda m, x: m(x).sum(1), r"not of shape \(3,\)"),
    ):
        with pytest.raises(InputError, match=f"loss: must be a single number in a tensor, {named}"):
            kinkcheck.audit(model, [batch], step=made)


def test_a_scripted_model_is_measured() -> None:
    model = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    report = kinkcheck.audit(model, [torch.rand(3, 4)], step=lambda m, x: m(x).square().sum())
    assert [each.operation for each in report.unseen][-1] == "RecursiveScriptModule"


def test_forward_mode_inside_a_program_is_measured() -> None:
    def step(m: nn.Module, x: Tensor) -> Tensor:
        _, tangent = torch.func.jvp(m, (x,), (torch.ones_like(x),))
        return tangent.square().sum()

    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    batch = torch.rand(3, 4)
    plain = torch.autograd.grad(step(model, batch), [*model.parameters()])
    report = kinkcheck.audit(model, [batch], step=step)
    assert report.points[0].gradient_l1 == pytest.approx(float(sum(g.abs().sum() for g in plain)))


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


def test_a_lift_of_another_function_is_refused() -> None:
    model = nn.Sequential(small(), Function(lambda x: x * (3 if x.dtype == torch.float64 else 1)))
    with pytest.raises(InputError, match=r"its loss is \S+ in float32 and \S+ in float64"):
        kinkcheck.audit(model, [labelled()])
    assert kinkcheck.audit(model, [labelled()], lifted=False).points


def test_passes_that_run_again_in_part_are_compared_with_a_whole_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))
    nn.init.zeros_(model[0].weight), nn.init.zeros_(model[0].bias)  # every kink is met
    audit = functools.partial(kinkcheck.audit, model, [labelled()], selections=["branch:1"])
    assert audit().points[0].variation.l1 > 0
    # As if a part were remembered that has changed.
    monkeypatch.setattr(
        "kinkcheck.tape.segments.Segments._later_pass", lambda self, chosen: list(self._leaves)
    )
    with pytest.raises(InputError, match="ran again in part is not a whole one"):
        audit()
