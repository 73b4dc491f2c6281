"""The exact judge: what it covers is the program, and what its trace cannot show it names."""

from __future__ import annotations

import functools
from typing import Any

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
from kinkcheck.errors import InputError
from kinkcheck.exact import evaluate, uncovered
from user_programs import Program, on_a_grid, usual


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
