"""Batches, steps and losses of every form are measured, or refused by name."""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kinkcheck
from kinkcheck.errors import InputError
from user_programs import gradient_l1, labelled, small


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


def test_one_batch_that_is_no_list_of_batches_is_refused() -> None:
    batch = collections.UserDict(x=torch.rand(3, 4))  # as of Hugging Face's tokenizers
    with pytest.raises(InputError, match="batches: must be a list of batches, not one UserDict"):
        kinkcheck.audit(nn.Linear(4, 2), batch, step=lambda m, b: m(b["x"]).sum())


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
        (
            lambda m, x: types.SimpleNamespace(loss=m(x).sum()),
            "not SimpleNamespace: return its .loss",
        ),
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
