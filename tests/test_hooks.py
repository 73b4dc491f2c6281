"""Hooks act as without a tape, whatever was asked before.

Every kind of hook is put on a small network by a program that knows nothing of kinkcheck. What it
gives under a selection is told by plain PyTorch: the same program, where modules with a fixed
selection or an autograd function written by hand stand in the place of ReLU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_full_backward_hook,
    register_module_full_backward_pre_hook,
)

import kinkcheck


class ReluAt0(torch.autograd.Function):
    """ReLU with a fixed slope at 0, by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        slope = torch.where(x > 0, 1.0, torch.where(x == 0, ctx.slope, 0.0))
        return grads[0] * slope, None


class Net(nn.Module):
    """Two ReLUs at exact zeros, with room for hooks everywhere."""

    def __init__(self, relu: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.relu = relu
        self.one, self.other = Activation(relu), Activation(relu)
        self.between: list[Callable[[Tensor], None]] = []
        nn.init.constant_(self.first.weight, 1.5)
        nn.init.constant_(self.second.weight, -2.0)
        self.middle: Tensor

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.one(self.first(x))
        middle = 3 * hidden
        for act in self.between:
            act(middle)
        self.middle = middle
        return self.other(self.second(middle)).sum()


class Activation(nn.Module):
    def __init__(self, relu: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x)


def thrice(gradient: Tensor) -> Tensor:
    return 3 * gradient


def thrice_all(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(g if g is None else 3 * g for g in gradients)


def on_middle(act: Callable[[Tensor], None]) -> Callable[[Net], Any]:
    def put(net: Net) -> AbstractContextManager[None]:
        net.between.append(act)
        return nullcontext()

    return put


def on_module(register: str, hook: Callable[..., Any]) -> Callable[[Net], Any]:
    def put(net: Net) -> AbstractContextManager[None]:
        for module in (net.one, net.other, net.second):
            getattr(module, register)(hook)
        return nullcontext()

    return put


def globally(register: Callable[..., Any], hook: Callable[..., Any]) -> Callable[[Net], Any]:
    @contextmanager
    def put(net: Net) -> Iterator[None]:
        handle = register(hook)
        try:
            yield
        finally:
            handle.remove()

    return put


def on_parameter(net: Net) -> AbstractContextManager[None]:
    net.first.weight.register_hook(thrice)
    return nullcontext()


def multi(tensor: Tensor) -> None:
    """A hook of one tensor alone that torch registers on several."""
    torch.autograd.graph.register_multi_grad_hook([tensor], lambda gradients: None)
    tensor.register_hook(thrice)


def edit_in_place(gradient: Tensor) -> Tensor:
    return gradient.clone().mul_(3)


HOOKS: dict[str, Callable[[Net], AbstractContextManager[None]]] = {
    "none": lambda net: nullcontext(),
    "tensor": on_middle(lambda t: [t.register_hook(thrice)]),  # type: ignore[arg-type, return-value]
    "two of a tensor": on_middle(
        lambda t: [t.register_hook(thrice), t.register_hook(edit_in_place)]  # type: ignore[arg-type, return-value]
    ),
    "multi": on_middle(multi),
    "node": on_middle(lambda t: t.grad_fn.register_hook(lambda into, out: thrice_all(into))),
    "node before": on_middle(lambda t: t.grad_fn.register_prehook(thrice_all)),
    "full backward": on_module(
        "register_full_backward_hook", lambda module, into, out: thrice_all(into)
    ),
    "full backward before": on_module(
        "register_full_backward_pre_hook", lambda module, out: thrice_all(out)
    ),
    "global full backward": globally(
        register_module_full_backward_hook, lambda module, into, out: thrice_all(into)
    ),
    "global full backward before": globally(
        register_module_full_backward_pre_hook, lambda module, out: thrice_all(out)
    ),
    "parameter": on_parameter,
    "retain_grad": on_middle(lambda t: t.retain_grad()),
}
CHOICES: list[Any] = [
    "native",
    "branch:1",
    {"one": "branch:1"},
    {"other": "branch:0.5", "one": "branch:2"},
]


def slopes(choose: Any) -> tuple[float, float]:
    if isinstance(choose, str):
        choose = {"one": choose, "other": choose}
    return tuple(float(choose.get(name, "branch:0").replace("native", "branch:0")[7:])
                 for name in ("one", "other"))  # type: ignore[return-value]  # fmt: skip


# All activations are exact zeros. Hooks of all modules want an input with a gradient.
X = torch.tensor([[1.0, -1.0], [2.0, -2.0]], requires_grad=True)


def expected(put: Callable[[Net], AbstractContextManager[None]], choose: Any) -> list[Tensor]:
    net = Net(torch.relu)
    with put(net):
        for module, slope in zip((net.one, net.other), slopes(choose), strict=True):
            module.relu = lambda x, slope=slope: ReluAt0.apply(x, slope)
        loss = net(X)
    return list(torch.autograd.grad(loss, [net.first.weight, net.second.weight]))


@pytest.mark.parametrize("kind", HOOKS)
def test_every_order_of_asking_gives_what_plain_pytorch_gives(kind: str) -> None:
    put = HOOKS[kind]
    want = [expected(put, choose) for choose in CHOICES]
    if kind not in ("none", "retain_grad"):
        plain = expected(HOOKS["none"], CHOICES[1])
        assert not all(torch.equal(a, b) for a, b in zip(plain, want[1], strict=True))
    for order in itertools.permutations(range(len(CHOICES))):
        net = Net(torch.relu)
        with put(net), kinkcheck.record(net) as tape:
            loss = net(X)
        for index in (*order, *order[:1]):
            got = tape.gradient(loss, choose=CHOICES[index])
            for a, b in zip(got.values(), want[index], strict=True):
                assert torch.equal(a, b), (order, index)


def test_a_module_hook_acts_whatever_was_asked_before() -> None:
    for choices in (["branch:1"], ["native", "branch:1"], ["native", "minimal", "branch:1"]):
        module = nn.ReLU()
        module.register_full_backward_hook(lambda module, into, out: (into[0] * 3,))
        x = torch.zeros(1, requires_grad=True)
        with kinkcheck.record(module) as tape:
            loss = module(x).sum()
        assert [tape.gradient(loss, [x], choose=c)[0].item() for c in choices][-1] == 3


@pytest.mark.parametrize("kind", ["tensor", "node", "node before"])
def test_hooks_that_come_after_the_first_gradient_act(kind: str) -> None:
    want = [expected(HOOKS[kind], choose) for choose in CHOICES]
    for first, then in itertools.product(range(len(CHOICES)), repeat=2):
        net = Net(torch.relu)
        with kinkcheck.record(net) as tape:
            loss = net(X)
            middle = net.middle
        tape.gradient(loss, choose=CHOICES[first])
        HOOKS[kind](net)
        net.between[0](middle)
        got = tape.gradient(loss, choose=CHOICES[then])
        for a, b in zip(got.values(), want[then], strict=True):
            assert torch.equal(a, b), (first, then)


@pytest.mark.parametrize("register", ["register_hook", "register_prehook", "tensor"])
def test_hooks_from_before_the_block_act_until_they_are_removed(register: str) -> None:
    for first, last in itertools.permutations(("native", "branch:1"), 2):
        weight = torch.zeros(2, requires_grad=True)
        before = 2 * weight
        target: Any = before if register == "tensor" else before.grad_fn
        handle = {
            "tensor": lambda target: target.register_hook(thrice),
            "register_hook": lambda node: node.register_hook(lambda into, out: thrice_all(into)),
            "register_prehook": lambda node: node.register_prehook(thrice_all),
        }[register](target)
        with kinkcheck.record() as tape:
            loss = torch.relu(before).sum()
        slope = {"native": 0, "branch:1": 1}
        for choose in (first, last, first):
            assert (
                tape.gradient(loss, [weight], choose=choose)[0].tolist() == [6 * slope[choose]] * 2
            )
        handle.remove()
        for choose in (first, last, first):
            assert (
                tape.gradient(loss, [weight], choose=choose)[0].tolist() == [2 * slope[choose]] * 2
            )


def test_a_hook_of_an_input_acts_until_it_is_removed() -> None:
    weight = torch.zeros(2, requires_grad=True)
    handle = weight.register_hook(thrice)
    with kinkcheck.record() as tape:
        loss = torch.relu(weight).sum()
    assert tape.gradient(loss, [weight], choose="branch:1")[0].tolist() == [3, 3]
    assert tape.gradient(loss, [weight])[0].tolist() == [0, 0]
    handle.remove()
    assert tape.gradient(loss, [weight], choose="branch:1")[0].tolist() == [1, 1]


def test_two_losses_of_one_hooked_graph() -> None:
    for order in itertools.permutations(range(4)):
        net = Net(torch.relu)
        net.one.register_full_backward_hook(lambda module, into, out: thrice_all(into))
        with kinkcheck.record(net) as tape:
            first = net(X)
            second = 5 * first + net.first.weight.sum()
        asked = list(itertools.product((first, second), ("native", "branch:1")))
        for index in order:
            loss, choose = asked[index]
            at_first = tape.gradient(loss, choose=choose)["first.weight"]
            plain = expected(
                lambda net: (
                    HOOKS["none"](net)
                    if net.one.register_full_backward_hook(lambda m, into, out: thrice_all(into))
                    else nullcontext()
                ),
                choose,
            )[0]
            assert torch.equal(at_first, plain if loss is first else 5 * plain + 1)


def test_retained_gradients_add_up_as_in_pytorch() -> None:
    x = torch.zeros(2, requires_grad=True)
    with kinkcheck.record() as tape:
        inner = 2 * x
        inner.retain_grad()
        loss = torch.relu(inner).sum()
    total = 0
    for choose, slope in (("native", 0), ("branch:1", 1), ("native", 0), ("branch:1", 1)):
        tape.gradient(loss, [x], choose=choose)
        total += slope
        assert inner.grad is not None
        assert inner.grad.tolist() == [total] * 2


def test_blocks_around_later_gradients_do_not_count_as_hooks() -> None:
    passed = []

    class Count(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            passed.append(1)
            return grads[0]

    x = torch.zeros(2, requires_grad=True)
    with kinkcheck.record() as tape:
        loss = Count.apply(torch.relu(x)).sum()
    tape.gradient(loss, [x])
    with kinkcheck.record(nn.ReLU()):
        pass
    tape.gradient(loss, [x], choose="branch:1")
    assert len(passed) == 1
