"""Tangents through operations whose derivative PyTorch cannot differentiate: points moved a little.

What a limit decides behind such an operation depends on how its output moves.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import record
from kinkcheck.errors import InputError
from kinkcheck.tape.directions import direction
from kinkcheck.tape.tangents import edge_of
from strategies import filled

BAGS, STARTS = torch.tensor([0, 1, 2, 2, 4, 4, 3, 0, 3]), torch.tensor([0, 3, 3, 6])

CALLS: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "hardsigmoid": (lambda x: F.hardsigmoid(3 * x), ((4, 5),)),
    "hardsigmoid in place": (lambda x: F.hardsigmoid(3 * x, inplace=True), ((4, 5),)),
    "segment_reduce max": (
        lambda x: torch.segment_reduce(x, "max", lengths=torch.tensor([3, 1, 4])),
        ((8, 3),),
    ),
    "segment_reduce min": (
        lambda x: torch.segment_reduce(x, "min", lengths=torch.tensor([5, 3]), initial=0.0),
        ((8, 3),),
    ),
    "embedding_bag": (lambda w: F.embedding_bag(BAGS, w, STARTS, mode="max"), ((5, 3),)),
    **{f"cdist {p}": (lambda x, y, p=p: torch.cdist(x, y, p), ((2, 3, 2), (4, 2)))
       for p in (1.0, 1.5, 2.0, 3.0, inf)},
    **{f"pdist {p}": (lambda x, p=p: F.pdist(x, p), ((5, 2),)) for p in (1.0, 1.5, 2.0, 3.0, inf)},
}  # fmt: skip


def inputs_of(name: str, seed: int) -> list[Tensor]:
    palette = (-1.0, 1.0) if "dist" in name else (-1.0, 0.0, 1.0)
    return [
        filled(shape, palette, torch.float64, seed + place).requires_grad_()
        for place, shape in enumerate(CALLS[name][1])
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CALLS)
def test_a_limit_behind_them_is_the_gradient_beside_the_point(name: str, seed: int) -> None:
    function, inputs = CALLS[name][0], inputs_of(name, seed)
    at = function(*inputs).detach()
    weights = torch.arange(1.0, at.numel() + 1, dtype=torch.float64).reshape(at.shape)

    def program(*given: Tensor) -> Tensor:
        # All outputs are at the kink of ReLU.
        return (F.relu(function(*given) - at) * weights).sum()

    with record() as tape:
        loss = program(*inputs)
    assert tape.sites[0].tied > 0
    assert tape.sites[1].tied == at.numel()
    found = tape.gradient(loss, inputs, choose=f"limit:{seed}")
    moved = [
        (x + 1e-10 * d).detach().requires_grad_()
        for x, d in zip(inputs, direction(inputs, seed), strict=True)
    ]
    beside = torch.autograd.grad(program(*moved), moved)
    assert any(bool(each.any()) for each in beside)
    for got, want in zip(found, beside, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-3)
    # PyTorch's own gradient is what it was.
    native = torch.autograd.grad(program(*inputs), inputs)
    assert all(map(torch.equal, tape.gradient(loss, inputs), native))


class Points(nn.Module):
    """A call of parameters."""

    def __init__(self, name: str, scale: float) -> None:
        super().__init__()
        self.function = CALLS[name][0]
        self.points = nn.ParameterList(scale * each.detach() for each in inputs_of(name, 0))

    def forward(self) -> Tensor:
        return self.function(*self.points)


@pytest.mark.parametrize("name", CALLS)
def test_tangents_without_ties_are_difference_quotients(name: str) -> None:
    model = Points(name, 0.5)
    for number, each in enumerate(model.points):
        each.data += filled(tuple(each.shape), tuple(torch.rand(50).tolist()), each.dtype, number)
    drawn = direction(list(model.points), 1)
    with record(model) as tape:
        output = model()
        loss = output.square().sum()
    assert not any(site.tied for site in tape.sites)
    edge = edge_of(output)
    assert edge is not None
    traced = tape.trace(loss, [drawn], [edge])
    plain = torch.autograd.grad(model().square().sum(), list(model.points))
    assert all(map(torch.equal, traced.gradients, plain))
    ends = []
    for step in (1e-6, -2e-6):
        for each, d in zip(model.points, drawn, strict=True):
            each.data += step * d
        ends.append(model().detach())
    torch.testing.assert_close(traced.moved[0][edge], (ends[0] - ends[1]) / 2e-6)


@pytest.mark.parametrize("name", CALLS)
def test_gradients_of_a_pass_that_carries_tangents_are_those_of_another(name: str) -> None:
    model = Points(name, 1.0)
    drawn = direction(list(model.points), 3)
    with record(model) as tape:
        loss = (F.relu(model() - 0.5) * 2).sum()
    assert tape.sites[0].tied
    choices = ["minimal", "limit:3"]
    if "cdist" in name or "pdist" in name:
        choices += ["native", "hybrid:0.5"] if "inf" not in name else []
    for choice in choices:
        gradient = tape.gradient(loss, choose=choice)
        if choice == "limit:3":
            _, found = tape.limit(loss, drawn, directions=[drawn])
        else:
            found = tape.trace(loss, [drawn], choose=choice)
        for got, want in zip(found.gradients, gradient.values(), strict=True):
            torch.testing.assert_close(got, want)


def test_what_pytorch_alone_knows_at_ties_is_refused() -> None:
    model = Points("segment_reduce max", 1.0)
    with record(model) as tape:
        loss = model().sum()
    with pytest.raises(InputError, match=r"^tangents: .* cannot be differentiated in forward mode"):
        tape.trace(loss, [direction(list(model.points), 0)], choose="native")


def test_a_second_derivative_of_the_program_itself_stays_pytorch_s() -> None:
    x, y = filled((30, 2), (-1.0, 0.5, 1.0), torch.float64, 1).requires_grad_(), torch.ones(30, 2)

    def penalty() -> Tensor:
        distances = torch.cdist(x, y.double() + 2)  # by a product of matrices
        (gradient,) = torch.autograd.grad(distances.sum(), x, create_graph=True)
        return gradient[:, 0].square().sum()

    (plain,) = torch.autograd.grad(penalty(), x)
    with record() as tape:
        loss = penalty()
    assert [site.operation for site in tape.sites] == ["cdist"]
    assert torch.equal(tape.gradient(loss, x)[0], plain)
