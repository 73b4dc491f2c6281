"""What lies behind a loss and no tape can switch: kinks, jumps that steer it, what is out of sight.

The programs are small enough to see from their text where they are not smooth.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from kinkcheck import InputError, record

NO_BRANCHES = "kinkcheck does not define its branches"
JUMPS = "it jumps: there is no derivative to choose"
NOT_PYTHON = "called from scripted or C++ code"
EDGE = "its slope is infinite where its domain ends"
MEET = "it has no derivative where singular values or eigenvalues meet"
CUSTOM = "a custom autograd function: its backward pass is its own choice"
STRAIGHT_THROUGH = "rounds; its derivative is a straight-through estimator"

Program = Callable[[Tensor, Tensor], Tensor]


def behind(program: Program, inputs: Any = None) -> list[tuple[str, str]]:
    """What lies behind the sum of what a program makes of the output of a layer, and of noise."""
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 4), torch.randn(3, 4)
    with record(layer) as tape:
        loss = program(layer(x), x).sum()
    return [(u.operation, u.reason) for u in tape.unseen_behind(loss, inputs)]


def assign(h: Tensor, index: Any) -> Tensor:
    h = h.clone()
    h[index] = 0
    return h


def into_view(h: Tensor) -> Tensor:
    h = h.clone()
    h[:2].abs_()
    return h


KINKS: list[tuple[str, str, Program]] = [
    ("_foreach_sqrt", EDGE, lambda h, x: torch._foreach_sqrt([h.exp()])[0]),
    ("rrelu_with_noise", "PyTorch keeps its slopes to itself",
     lambda h, x: torch.ops.aten.rrelu(h, 0.1, 0.3, True)),
    ("sort", NOT_PYTHON, lambda h, x: torch.ops.aten.nanquantile(h, 0.5)),
    ("renorm", NO_BRANCHES, lambda h, x: h.renorm(2, 0, 1.0)),
    ("_linalg_svd", MEET, lambda h, x: torch.linalg.svdvals(h)),
    ("_linalg_svd", MEET, lambda h, x: torch.svd(h)[0]),
    ("_linalg_eigh", MEET, lambda h, x: torch.linalg.eigvalsh(h.T @ h)),
    ("sqrt", EDGE, lambda h, x: h.pow(2).sum().sqrt()),
    ("pow", EDGE, lambda h, x: h.square() ** 0.5),
    ("pow", EDGE, lambda h, x: h.exp() ** h),
    ("round", JUMPS, lambda h, x: h.round()),
    ("sign", JUMPS, lambda h, x: h.sign()),
    ("gt_", JUMPS, lambda h, x: h.clone().gt_(0.0)),
    ("copysign", JUMPS, lambda h, x: x.copysign(h)),
    ("div", JUMPS, lambda h, x: torch.div(h, 2, rounding_mode="floor")),
    ("remainder", JUMPS, lambda h, x: h % 2),
    ("fmod", JUMPS, lambda h, x: h.fmod(2)),
    ("fake_quantize", STRAIGHT_THROUGH,
     lambda h, x: torch.fake_quantize_per_tensor_affine(h, 0.1, 0, 0, 255)),
    ("fake_quantize_channel", STRAIGHT_THROUGH,
     lambda h, x: torch.fake_quantize_per_channel_affine(
         h, torch.ones(4), torch.zeros(4).int(), 1, 0, 255)),
]  # fmt: skip

STEERED: list[tuple[str, str, Program]] = [
    ("where", "a comparison (gt)", lambda h, x: torch.where(h > 0, h, 0 * h)),
    ("where", "a comparison (ge)", lambda h, x: torch.where(h.detach() >= 0, h.exp(), 0)),
    ("mul", "a comparison (gt)", lambda h, x: h * (h > 0)),
    ("mul", "a comparison (gt)", lambda h, x: x.exp() * h * (~((h > 0) | (h > 3))).float()),
    ("mul", "a comparison (gt)", lambda h, x: h.exp() * (h.data > 0)),
    ("mul", "a comparison (ge_)", lambda h, x: h * h.detach().clone().ge_(0.0)),
    ("mul", "a comparison (gt)", lambda h, x: torch.zeros(3, 4).copy_(h > 0) * h),
    ("mul", "a comparison (lt)", lambda h, x: h * (torch.rand_like(h) < h.sigmoid())),
    ("mul", "a comparison (eq)", lambda h, x: h * torch.isclose(h, x)),
    ("masked_fill", "a comparison (lt)", lambda h, x: h.masked_fill(h < 0, 0.0)),
    ("index_put", "a comparison (gt)", lambda h, x: h.index_put((h > 0,), torch.tensor(0.0))),
    ("index", "a comparison (ne)", lambda h, x: h[h != 0]),
    ("index", "a comparison (gt)", lambda h, x: h[(h > 0).nonzero(as_tuple=True)]),
]

INDEXED: list[tuple[str, str, Program]] = [
    ("gather", "max", lambda h, x: h.exp().gather(1, h.max(1, keepdim=True).indices)),
    ("gather", "argmax", lambda h, x: h.gather(1, h.argmax(1, keepdim=True))),
    ("gather", "topk", lambda h, x: h.exp().gather(1, h.topk(2).indices)),
    ("gather", "sort", lambda h, x: h.exp().gather(1, h.argsort(1))),
    ("index", "argmin", lambda h, x: h[torch.arange(3), h.argmin(1)]),
    ("index_select", "argmax", lambda h, x: h.index_select(0, h[:, 0].argmax()[None])),
    ("index_put", "argmax",
     lambda h, x: h.index_put((h[:, 0].argmax()[None],), torch.tensor(0.0))),
    ("embedding", "a conversion to integers",
     lambda h, x: F.embedding(h.sigmoid().long(), h)),
    ("max_unpool2d", "max_pool1d", lambda h, x: unpooled(h)),
]  # fmt: skip

GIVEN: list[tuple[str, str, Program]] = [
    ("add", "round", lambda h, x: h + (h.round() - h).detach()),
    ("mul", "argmax", lambda h, x: h * F.one_hot(h.argmax(1), 4)),
    ("add", "max", lambda h, x: F.gumbel_softmax(h, hard=True)),
    ("mul", "floor_divide", lambda h, x: h * (h.detach() // 2)),
    ("mul", "a conversion to integers", lambda h, x: h * h.int()),
    ("mul", "sign", lambda h, x: h * h.detach().sign()),
]


def unpooled(h: Tensor) -> Tensor:
    pooled, indices = F.max_pool1d(h[None], 2, return_indices=True)
    return F.max_unpool1d(pooled.exp(), indices, 2)


@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")
@pytest.mark.parametrize(("operation", "reason", "program"), KINKS)
def test_kinks_and_jumps_on_the_way_are_named(
    operation: str, reason: str, program: Program
) -> None:
    assert behind(program) == [(operation, reason)]


@pytest.mark.parametrize(("operation", "source", "program"), STEERED)
def test_comparisons_that_steer_are_named(operation: str, source: str, program: Program) -> None:
    assert behind(program) == [(operation, f"steered by {source}")]


@pytest.mark.parametrize(("operation", "source", "program"), INDEXED)
def test_indices_that_jump_are_named(operation: str, source: str, program: Program) -> None:
    assert behind(program) == [(operation, f"indexed by {source}")]


@pytest.mark.parametrize(("operation", "source", "program"), GIVEN)
def test_constants_that_jump_are_named(operation: str, source: str, program: Program) -> None:
    assert behind(program) == [(operation, f"given the result of {source}, which jumps")]


def accuracy_beside(h: Tensor, x: Tensor) -> Tensor:
    (h.argmax(1) == torch.zeros(3)).float().mean().item()
    return h.exp()


def nothing_but_numbers(h: Tensor, x: Tensor) -> Tensor:
    if torch.isnan(h).any() or not torch.isfinite(h).all() or torch.isinf(h).any():
        raise ValueError
    return h


SMOOTH: list[Program] = [
    lambda h, x: F.elu(h),
    lambda h, x: F.elu_(h.clone()),
    lambda h, x: F.celu(h, alpha=0.3),
    lambda h, x: F.leaky_relu(h, negative_slope=1.0),
    lambda h, x: F.gelu(h) + F.silu(h) + F.mish(h) + F.softplus(h),
    lambda h, x: h**2 + h**3 + h**1 + h.exp() ** -0.5 + h.exp() ** 1.5 + 2**h + h / 2,
    lambda h, x: h.var() + h.square().mean().rsqrt(),
    lambda h, x: x.scatter_reduce(0, x.long() * 0, h, "sum"),
    lambda h, x: F.embedding_bag(torch.tensor([[0, 1]]), h),
    lambda h, x: F.dropout(h) + F.layer_norm(h, (4,)) + F.batch_norm(h, None, None, training=True),
    lambda h, x: h * (torch.rand_like(h) < 0.5) + torch.empty_like(h).bernoulli_(0.5) * h,
    lambda h, x: h * (x > 0) + h.masked_fill(x < 0, 0.0) + h[x.argmax(0)][:3],
    lambda h, x: F.cross_entropy(h, torch.tensor([0, 1, -100])),
    lambda h, x: F.binary_cross_entropy_with_logits(h, torch.ones(3, 4)),
    lambda h, x: F.huber_loss(h, x) + F.smooth_l1_loss(h, x) + F.mse_loss(h, x),
    lambda h, x: F.scaled_dot_product_attention(h[None], x[None], x[None], is_causal=True),
    lambda h, x: nn.GRU(4, 4)(h)[0] + nn.MultiheadAttention(4, 2)(h, x, x)[0],
    lambda h, x: torch.logsumexp(h, 1) + (h - h.max(1, keepdim=True).values.detach()).exp().sum(),
    accuracy_beside,
    nothing_but_numbers,
]


@pytest.mark.parametrize("program", SMOOTH)
def test_what_has_neither_kinks_nor_jumps_is_not_named(program: Program) -> None:
    assert behind(program) == []


def test_weight_norm_is_smooth_where_it_is_a_number() -> None:
    layer = weight_norm(nn.Linear(4, 4))
    with record(layer) as tape:
        loss = layer(torch.ones(1, 4)).sum()
    assert tape.unseen_behind(loss) == []
    assert torch._weight_norm(torch.zeros(1, 2), torch.ones(1, 1), 0).isnan().all()


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


def test_only_what_the_gradient_goes_through_counts() -> None:
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    model = nn.ModuleList([one, other])
    x = torch.ones(1, 2, requires_grad=True)
    with record(model) as tape:
        kinked, smooth = one(x).acos().sum(), other(x.sin()).exp().sum()
        index = one(x).argmax(1)
        beside = x.acos().sum()
        loss = kinked + smooth + index.sum() + beside
    names = [(u.operation, u.calls) for u in tape.unseen]
    assert names == [("acos", 2), ("add", 1)]  # the sum of indices is added
    assert tape.unseen_behind(smooth) == []
    assert [(u.operation, u.calls) for u in tape.unseen_behind(kinked)] == [("acos", 1)]
    found = [(u.operation, u.calls) for u in tape.unseen_behind(loss, [x])]
    assert found == [("acos", 2), ("add", 1)]
    (jump,) = tape.unseen_behind(loss, other.parameters())
    assert jump.reason == "given the result of argmax, which jumps"


def test_frozen_layers_count_only_where_a_gradient_passes() -> None:
    model = nn.Sequential(nn.Linear(2, 2), Root(), nn.Linear(2, 2), Root())
    model[0].requires_grad_(False)
    with record(model) as tape:
        loss = model(torch.ones(1, 2)).sum()
    assert [(u.layer, u.operation) for u in tape.unseen_behind(loss)] == [("3", "sqrt")]


def test_inner_tensors_end_the_way() -> None:
    with record() as tape:
        middle = torch.ones(2, requires_grad=True).acos()
        loss = middle.sqrt().sum()
    assert [u.operation for u in tape.unseen_behind(loss, middle)] == ["sqrt"]


def test_layers_and_calls_are_told() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.acos() + x.acos() + torch.where(x > 0, x, 0 * x)

    model = nn.Sequential(nn.Linear(2, 2), Twice(), Root())
    with record(model) as tape:
        loss = model(torch.ones(1, 2)).sum()
    found = [(u.layer, u.operation, u.calls) for u in tape.unseen_behind(loss)]
    assert found == [("1", "acos", 2), ("1", "where", 1), ("2", "sqrt", 1)]


def test_no_gradient_is_an_error() -> None:
    with record(nn.Linear(1, 1)) as tape:
        pass
    with pytest.raises(InputError, match="loss: does not depend on anything"):
        tape.unseen_behind(torch.zeros(()))


# --- what is out of sight -------------------------------------------------------------------------


class Rounding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.relu(x).round()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def test_a_custom_function_is_named_and_its_sites_reach_no_gradient() -> None:
    layer = nn.Linear(2, 2)
    with record(layer) as tape:
        loss = (Rounding.apply(layer(torch.ones(1, 2))) + torch.relu(layer.bias)).sum()
    assert [(u.operation, u.reason) for u in tape.unseen_behind(loss)] == [("Rounding", CUSTOM)]
    assert [site.differentiable for site in tape.sites] == [False, True]


def test_sites_where_gradients_are_off_are_told_and_named_behind_no_loss() -> None:
    layer = nn.Linear(2, 2)
    with record(layer) as tape:
        hidden = layer(torch.ones(1, 2))
        with torch.no_grad():
            scale = torch.relu(hidden)
        loss = (hidden * scale).sum() + torch.relu(torch.ones(1))
    assert [site.differentiable for site in tape.sites] == [False, False]
    assert [u.reason for u in tape.unseen] == ["called where gradients are off"]
    assert tape.unseen_behind(loss) == []


def test_a_custom_operation_is_named() -> None:
    @torch.library.custom_op("kinkcheck_tests::doubled", mutates_args=())
    def doubled(x: Tensor) -> Tensor:
        return 2 * x

    doubled.register_autograd(lambda ctx, gradient: 2 * gradient)
    ((operation, reason),) = behind(lambda h, x: doubled(h))
    assert "kinkcheck_tests_doubled" in operation
    assert reason == CUSTOM


def test_calls_from_other_threads_are_named() -> None:
    def in_thread(h: Tensor, x: Tensor) -> Tensor:
        found: list[Tensor] = []
        thread = threading.Thread(target=lambda: found.append(torch.relu(h) + h.abs()))
        thread.start()
        thread.join()
        return found[0]

    elsewhere = "called in a backward pass, in another thread or outside the block"
    assert sorted(behind(in_thread)) == [
        ("abs", elsewhere), ("relu", elsewhere)
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize("calls", [1, 3])
def test_scripted_functions_are_named(calls: int) -> None:
    @torch.jit.script
    def scripted(x: Tensor) -> Tensor:
        return torch.relu(x) + x.abs()

    operations = {
        operation for operation, _ in behind(lambda h, x: [scripted(h) for _ in range(calls)][-1])
    }
    # From the second call on the graph of the function is one node.
    assert operations == ({"relu", "abs"} if calls == 1 else {"DifferentiableGraphBackward"})


@pytest.mark.filterwarnings("ignore:.*torch.jit.*", "ignore:Using `torch.compile")
def test_scripted_and_compiled_modules_are_named_where_they_are_on_the_way() -> None:
    model = nn.ModuleDict({
        "scripted": torch.jit.script(nn.Linear(2, 2)),
        "compiled": torch.compile(nn.Linear(2, 2), backend="eager"),
    })  # fmt: skip
    x = torch.ones(1, 2)
    with record(model) as tape:
        losses = {name: layer(x).exp().sum() for name, layer in model.items()}
    (scripted,) = tape.unseen_behind(losses["scripted"])
    assert (scripted.layer, scripted.reason) == ("scripted", "scripted module")
    (compiled,) = tape.unseen_behind(losses["compiled"])
    assert compiled.layer == "compiled"
    assert compiled.reason == "compiled module, run uncompiled while recorded"


def test_compiled_functions_are_named() -> None:
    compiled = torch.compile(lambda h: h.exp() * 2, backend="eager")
    reason = "a compiled function, run uncompiled while recorded"
    assert behind(lambda h, x: compiled(h) + h) == [("compile", reason)]
    assert behind(lambda h, x: compiled(x) + h) == []


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_what_was_compiled_before_the_block_is_named() -> None:
    layer = nn.Linear(2, 2)
    compiled = torch.compile(lambda h: h.exp().abs() * 2, backend="aot_eager")
    before = compiled(layer(torch.ones(1, 2)))
    with record(layer) as tape:
        loss = before.sum()
    (unseen,) = tape.unseen_behind(loss)
    assert unseen.reason == "compiled or transformed: what it calls is out of sight"


def test_a_decision_of_python_is_named() -> None:
    def branching(h: Tensor, x: Tensor) -> Tensor:
        return h.exp() if (h > 0).any() else h

    def indexing(h: Tensor, x: Tensor) -> Tensor:
        return h[:, int(h[0].argmax())]

    def comparing(h: Tensor, x: Tensor) -> Tensor:
        return h if torch.equal(h, x) else h.exp()

    after = "is read, and may steer what comes after"
    assert behind(branching) == [("item", f"a comparison (gt) {after}")]
    assert behind(indexing) == [("item", f"argmax {after}")]
    assert behind(lambda h, x: assign(h, h[:, 0].argmax())) == [("item", f"argmax {after}")]
    assert behind(comparing) == [("item", f"a comparison (equal) {after}")]
    assert behind(lambda h, x: h.exp() if (x > 0).any() else h) == []


def test_a_decision_steers_what_comes_after_it_alone() -> None:
    x = torch.ones(2, requires_grad=True)
    with record() as tape:
        before = x.exp().sum()
        if (x > 0).all():
            after = x.exp().sum()
    assert tape.unseen_behind(before, x) == []
    assert [u.operation for u in tape.unseen_behind(after, x)] == ["item"]


def test_what_is_written_where_gradients_are_off_is_named() -> None:
    def clipped(h: Tensor, x: Tensor) -> Tensor:
        h = h.clone()
        with torch.no_grad():
            h.clamp_(min=0)
        return h

    reason = "writes into a tensor of the graph where gradients are off"
    assert behind(clipped) == [("clamp_", reason)]


def test_vmap_is_named() -> None:
    found = behind(lambda h, x: torch.vmap(F.relu)(h))
    assert ("relu", "ties are not counted under torch.func and vmap") in found
    assert behind(lambda h, x: torch.vmap(torch.acos)(h)) == [("acos", EDGE)]


def test_the_derivative_of_a_kink_jumps_where_it_is_differentiated_again() -> None:
    def penalised(h: Tensor, x: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(F.leaky_relu(h).sum(), h, create_graph=True)
        return gradient.exp() + h.exp()

    elsewhere = "called in a backward pass, in another thread or outside the block"
    assert behind(penalised) == [("leaky_relu_backward", f"{JUMPS}; {elsewhere}")]
    forward_mode = behind(lambda h, x: torch.func.jvp(F.leaky_relu, (h,), (h,))[1])
    assert forward_mode == [("leaky_relu", "ties are not counted under torch.func and vmap")]
    assert behind(lambda h, x: torch.func.jvp(torch.sin, (h,), (h,))[1]) == []


@pytest.mark.parametrize("name", ["huber_loss", "smooth_l1_loss"])
def test_the_kinks_of_a_derivative_are_named_where_it_is_differentiated(name: str) -> None:
    h = torch.tensor([0.5, 1.0, 2.0], requires_grad=True)
    with record() as tape:
        loss = getattr(F, name)(h, torch.zeros(3), reduction="sum")
        (slope,) = torch.autograd.grad(loss, h, create_graph=True)
        twice = slope.square().sum()
    assert tape.unseen_behind(loss, h) == []
    assert f"{name}_backward" in {each.operation for each in tape.unseen_behind(twice, h)}


def test_draws_of_counts_jump() -> None:
    h = torch.tensor([0.5, 1.0, 2.0], requires_grad=True)
    with record() as tape:
        loss = (h + torch.poisson(h)).sum()
    assert [each.operation for each in tape.unseen_behind(loss, h)] == ["poisson"]
