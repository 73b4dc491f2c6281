"""Programs that once got a wrong gradient from a tape, or none."""

import pytest
import torch
from torch import Tensor, nn

import kinkcheck
from kinkcheck import InputError, record


def test_a_single_tensor_and_a_generator_are_inputs() -> None:
    model = nn.Linear(3, 3)
    x = torch.ones(3, requires_grad=True)
    with record() as tape:
        loss = torch.relu(model(x) + 10).sum()
    (at_x,) = tape.gradient(loss, x)
    assert torch.equal(at_x, model.weight.sum(0))
    assert len(tape.gradient(loss, model.parameters())) == 2
    with pytest.raises(
        InputError, match="inputs: must be tensors that require a gradient, not str"
    ):
        tape.gradient(loss, "minimal")  # type: ignore[arg-type]


def test_a_tensor_hook_is_applied_once_in_every_pass() -> None:
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    nn.init.eye_(first.weight)
    nn.init.eye_(second.weight)

    def run() -> tuple[kinkcheck.Tape, Tensor]:
        with record() as tape:
            hidden = torch.relu(first(torch.tensor([[0.0, 1.0, 2.0]])))
            hidden.register_hook(lambda gradient: gradient / 2)
            return tape, torch.relu(second(hidden)).sum()

    tape, loss = run()
    tape.gradient(loss, [first.weight])
    fresh, fresh_loss = run()
    later = tape.gradient(loss, [first.weight], choose="branch:1")
    assert torch.equal(later[0], fresh.gradient(fresh_loss, [first.weight], choose="branch:1")[0])


def test_a_loss_changed_in_place_is_another_loss() -> None:
    weight = torch.ones(2, requires_grad=True)
    with record() as tape:
        loss = torch.relu(weight).sum()
        assert tape.gradient(loss, [weight])[0].tolist() == [1, 1]
        loss *= 3
    assert tape.gradient(loss, [weight])[0].tolist() == [3, 3]


class _NestedGraph(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()  # type: ignore[attr-defined]
            ctx.y = torch.relu(ctx.x) * 3  # type: ignore[attr-defined]
        return ctx.y.detach()  # type: ignore[attr-defined, no-any-return]

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(ctx.y, ctx.x, grads[0], retain_graph=True)  # type: ignore[attr-defined]
        return gradient


def test_a_kink_hidden_in_the_graph_of_a_function_runs_again() -> None:
    x = torch.zeros(3, requires_grad=True)
    with record() as tape:
        loss = torch.relu(_NestedGraph.apply(x) + 1).sum()
    assert tape.gradient(loss, [x])[0].tolist() == [0, 0, 0]
    assert tape.gradient(loss, [x], choose="branch:1")[0].tolist() == [3, 3, 3]


def test_an_infinite_gradient_is_not_called_rounding() -> None:
    class Overflow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.weight) * 1e30 * x

    batch = (torch.full((1, 4), 1e30), torch.zeros(1, dtype=torch.int64))
    report = kinkcheck.audit(
        Overflow(),
        [batch],
        loss=lambda output, _: output.sum(),
        selections=["branch:1"],
        reference="branch:1",
    )
    assert report.to_json()["points"][0]["variation"]["l1"] == "nan"


def test_a_lazy_model_is_refused() -> None:
    with (
        pytest.raises(InputError, match="parameters without a shape yet"),
        record(nn.LazyLinear(2)),
    ):
        pass


def test_vmap_inside_a_block_computes_and_is_named() -> None:
    x = torch.randn(3, 1, 4, 4)
    with record() as tape:
        pooled = torch.vmap(lambda image: torch.nn.functional.max_pool2d(image, 2))(x)
    assert torch.equal(pooled, torch.nn.functional.max_pool2d(x, 2))
    assert [unseen.operation for unseen in tape.unseen] == ["max_pool2d"]


def test_a_call_without_gradients_is_named() -> None:
    with record() as tape, torch.no_grad():
        torch.relu(torch.zeros(1))
    assert [unseen.reason for unseen in tape.unseen] == ["called where gradients are off"]


def test_compound_pooling_keeps_its_two_selections() -> None:
    compound = kinkcheck.nn.CompoundMaxPool2d(10, 2)
    model = nn.Sequential(compound, nn.MaxPool2d(2))
    kinkcheck.nn.convert(model, max_pool="last")
    assert [str(compound.minimal.selection), str(compound.native.selection)] == [
        "minimal",
        "native",
    ]
