"""Programs as people write them: what is measured is the program that runs, or it is refused.

One test, or a few, for each kind. Their siblings are in the other files of this name.
"""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import kinkcheck
from kinkcheck.audit.verdict import verdict
from kinkcheck.errors import InputError
from kinkcheck.exact import evaluate
from kinkcheck.measure.zones import Zone
from user_programs import Function, Program, gradient_l1, labelled, on_a_grid, scaled, small


def test_kinks_without_gradients_change_nothing() -> None:
    """The pool is in a block without gradients, or behind a frozen layer."""

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
         {"fake_quantize"}),
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


def step_of_either(model: nn.Module, batch: Any) -> Tensor:
    x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
    return F.cross_entropy(model(x), y)


def test_the_first_dimension_may_be_time() -> None:
    x, y = torch.randn(5, 5, 3), torch.arange(5) % 3
    found = kinkcheck.audit(Times(), [(x, y)])
    assert found.points[0].lift is not None
    assert found.points[0].noise is None
    assert any("no samples were found" in each.what for each in found.left_out)
    by_name = [{"x": x, "y": y, "weight": torch.rand(3)}]
    for batches, samples in (
        ([(x, y)], (1, 0)),
        ([[x, y]], [1, 0]),
        (by_name, {"x": 1, "y": 0, "weight": None}),
    ):
        declared = kinkcheck.audit(Times(), batches, step=step_of_either, samples=samples)
        assert declared.points[0].noise is not None
        assert declared.left_out == []
        assert declared.points[0].gradient_l1 == found.points[0].gradient_l1
    # Seven times are not five samples, which shows at once.
    assert kinkcheck.audit(Times(), [(torch.randn(7, 5, 3), y)]).points[0].noise is None


@pytest.mark.parametrize("times", [3, 5, 7, 10])  # of 5 samples
def test_where_time_comes_first_samples_keep_what_was_drawn_for_them(times: int) -> None:
    class Dropping(Times):
        def forward(self, x: Tensor) -> Tensor:
            hidden = F.dropout(F.relu(self.rnn(F.dropout(x))[0]), 0.3)
            scores: Tensor = self.head(F.dropout(hidden[-1], 0.2))  # samples first
            return scores

    batch = torch.randn(times, 5, 3), torch.arange(5) % 3
    report = kinkcheck.audit(Dropping(), [batch], samples=(1, 0))
    (point,) = report.points
    assert point.noise is not None
    assert point.noise.l1 < 1e-5 * point.gradient_l1
    assert report.left_out == []


def test_samples_are_declared_for_each_part_of_a_batch() -> None:
    weights = torch.tensor([0.1, 0.2, 0.7])
    batch = {"x": torch.randn(4, 5, 3), "y": torch.arange(5) % 3, "weights": weights}

    def step(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch["x"]), batch["y"], weight=batch["weights"])

    declared = {"x": 1, "y": 0, "weights": None}
    report = kinkcheck.audit(Times(), [batch], step=step, samples=declared)
    assert report.left_out == []
    pair = batch["x"], batch["y"]
    with pytest.raises(InputError, match=r"^samples: \(1, 0, 0\) has 3 entries for .* has 2; give"):
        kinkcheck.audit(Times(), [pair], samples=(1, 0, 0))


def test_samples_that_are_none_are_not_believed() -> None:
    x, y = torch.randn(5, 5, 3), torch.arange(5) % 3
    report = kinkcheck.audit(Times(), [(x, y)], samples=(0, 0))
    assert report.points[0].noise is None
    assert report.left_out
    assert report.batch_size is None
    assert kinkcheck.audit(Times(), [(x, y)], samples=(1, 0)).batch_size == 5


def test_rows_that_each_have_their_own_weight_are_no_samples() -> None:
    def step(model: nn.Module, batch: Tensor) -> Tensor:
        return (model(batch).flatten() * torch.arange(5.0)).sum()

    found = kinkcheck.audit(nn.Linear(3, 1), [torch.randn(5, 3)], step=step)
    assert any("no samples were found" in each.what for each in found.left_out)
    assert found.to_json()["batch_size"] is None


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


def hand_relu(h: Tensor) -> Tensor:
    return torch.where(h > 0, h, 0 * h)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (hand_relu, ["where"]),
        (lambda h: h * (h > 0), ["mul"]),
        (lambda h: h.masked_fill(h < 0, 0.0), ["masked_fill"]),
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


@pytest.mark.parametrize("rounding", [0.0, 1e-6], ids=["steady", "adds in no fixed order"])
def test_a_program_that_is_recorded_otherwise_than_it_runs_is_refused(rounding: float) -> None:
    """Whether Python looks at what carries out a call, say."""

    class Suspicious(nn.Module):
        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            recorded = bool(torch.overrides._get_current_function_mode_stack())
            Suspicious.calls += 1
            outputs: Tensor = self.line(x) * (1 + rounding * Suspicious.calls)
            return 2 * outputs if recorded else outputs

    with pytest.raises(InputError, match=r"not the one that plain autograd returns.*against"):
        kinkcheck.audit(Suspicious(), [labelled()])


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


def test_fake_quantisation_is_switched_at_its_bounds_and_named_a_surrogate() -> None:
    model = nn.Sequential(
        nn.Linear(3, 4),
        Function(lambda h: torch.fake_quantize_per_tensor_affine(h, 0.1, 0, -8, 7)),
        nn.Linear(4, 3),
    )
    report = kinkcheck.audit(model, [labelled()])
    assert [site.operation for site in report.sites] == ["fake_quantize"]
    (unseen,) = report.unseen
    assert unseen.reason == "rounds; its derivative is a straight-through estimator"
    assert "fake_quantize" in verdict(report)
