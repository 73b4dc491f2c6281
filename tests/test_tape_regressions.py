"""Programs that once got a wrong gradient from a tape, or none."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

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


@pytest.mark.parametrize("segments", [False, True])
def test_reentrant_checkpointing_is_refused(segments: bool) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU())
    x = torch.zeros(1, 3, requires_grad=True)
    with record(model) as tape:
        if segments:
            loss = checkpoint_sequential(model, 2, x, use_reentrant=True).sum()
        else:
            loss = checkpoint(model, x, use_reentrant=True).sum()
    for inputs in (None, [x]):
        with pytest.raises(InputError) as error:
            tape.gradient(loss, inputs)  # type: ignore[arg-type]
        assert str(error.value) == (
            "loss: activation checkpointing with use_reentrant=True hides part of its graph; "
            "checkpoint with use_reentrant=False"
        )


def test_checkpointed_segments_of_a_sequence_are_differentiated() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 3), nn.ReLU())
    x = torch.zeros(1, 3)
    with record(model) as tape:
        loss = checkpoint_sequential(model, 2, x + 1, use_reentrant=False).sum()
    expected = torch.autograd.grad(model(x + 1).sum(), list(model.parameters()))
    for actual, want in zip(tape.gradient(loss).values(), expected, strict=True):
        assert torch.equal(actual, want)


SPECIAL = {
    "sparse_coo": lambda: torch.eye(2).to_sparse(),
    "sparse_csr": lambda: torch.eye(2).to_sparse_csr(),
    "mkldnn": lambda: torch.eye(2).to_mkldnn(),
    "nested": lambda: torch.nested.nested_tensor([torch.eye(2)]),
    "jagged": lambda: torch.nested.nested_tensor([torch.eye(2)], layout=torch.jagged),
    "meta": lambda: torch.eye(2, device="meta"),
    "quantised": lambda: torch.quantize_per_tensor(torch.eye(2), 0.5, 0, torch.quint8),
}


@pytest.mark.filterwarnings("ignore:.*(nested tensors|Sparse CSR|TypedStorage|quantiz):UserWarning")
@pytest.mark.parametrize("kind", SPECIAL)
def test_tensors_that_are_not_dense_are_left_to_pytorch(kind: str) -> None:
    plain = torch.relu(SPECIAL[kind]())
    with record() as tape:
        recorded = torch.relu(SPECIAL[kind]())
    assert (recorded.layout, recorded.dtype) == (plain.layout, plain.dtype)
    assert tape.sites == []


def test_a_relu_of_a_sparse_tensor_is_named_and_differentiated() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, -1.0]], requires_grad=True)
    with record() as tape:
        loss = torch.relu(x.to_sparse()).to_dense().sum()
    assert [(u.operation, u.reason) for u in tape.unseen] == [
        ("relu", "called with a sparse_coo tensor")
    ]
    (plain,) = torch.autograd.grad(torch.relu(x.to_sparse()).to_dense().sum(), x)
    assert torch.equal(tape.gradient(loss, [x])[0], plain)


@pytest.mark.parametrize("functional", [False, True])
def test_sparse_gradients_of_an_embedding(functional: bool) -> None:
    embedding = nn.Embedding(4, 3, sparse=True)
    tokens = torch.tensor([1, 1, 2])

    def run(relu: Callable[[Tensor], Tensor]) -> Tensor:
        # Doubled, so that a node of the graph may get a sparse gradient.
        weight = 2 * embedding.weight
        embedded = (
            torch.nn.functional.embedding(tokens, weight, sparse=True)
            if functional
            else embedding(tokens)
        )
        return relu(relu(embedded)).sum()

    with record(embedding) as tape:
        loss = run(torch.relu)
    (plain,) = torch.autograd.grad(run(torch.relu), embedding.weight)
    for choose in ("native", "branch:1", "native"):
        found = tape.gradient(loss, choose=choose)["weight"]
        assert found.is_sparse == plain.is_sparse
        assert torch.equal(found.to_dense(), plain.to_dense())


def test_a_call_in_place_on_a_view_is_switched_after_another_pass() -> None:
    x = torch.zeros(2, requires_grad=True)
    with record() as tape:
        loss = (x * 1).view(2).relu_().sum()
    for choice, slope in (("native", 0.0), ("branch:1", 1.0), ("branch:0.5", 0.5), ("native", 0.0)):
        (gradient,) = tape.gradient(loss, [x], choose=choice)
        assert gradient.tolist() == [slope, slope]
