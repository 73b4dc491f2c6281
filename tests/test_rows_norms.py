"""Norms and distances: PyTorch's own away from kinks, closed forms at them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product
from math import inf
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kinkcheck import record
from kinkcheck.errors import InputError
from kinkcheck.tape import Tape
from kinkcheck.tape.directions import direction

POWERS = (1.0, 1.5, 2.0, 3.0, inf)

Differences = list[list[tuple[tuple[int, tuple[int, ...]], ...]]]
"""For each output its entries: an element of the inputs, or two of which one is taken away."""


def rows(x: Tensor) -> Differences:
    return [[((0, (i, j)),) for j in range(x.shape[1])] for i in range(len(x))]


def columns(x: Tensor) -> Differences:
    return [[((0, (i, j)),) for i in range(len(x))] for j in range(x.shape[1])]


def whole(x: Tensor) -> Differences:
    return [[((0, at),) for at in product(*map(range, x.shape))]]


def difference(x: Tensor, y: Tensor) -> Differences:
    return [[((0, at), (1, at[-1:])) for at in product(*map(range, x.shape))]]


def each_with_each(x: Tensor, y: Tensor) -> Differences:
    return [
        [((0, (i, k)), (1, (j, k))) for k in range(x.shape[1])]
        for i, j in product(range(len(x)), range(len(y)))
    ]


def pairs(x: Tensor) -> Differences:
    return [
        [((0, (i, k)), (0, (j, k))) for k in range(x.shape[1])]
        for i, j in combinations(range(len(x)), 2)
    ]


CASES: dict[str, tuple[Callable[..., Tensor], Callable[..., Differences], tuple[Any, ...]]] = {
    "torch.norm": (lambda p, x: torch.norm(x, p, 1), rows, ((9, 2),)),
    "Tensor.norm": (lambda p, x: x.norm(p, -1, keepdim=True), rows, ((9, 2),)),
    "vector_norm": (lambda p, x: torch.linalg.vector_norm(x, p, 0), columns, ((2, 9),)),
    "whole": (lambda p, x: torch.linalg.vector_norm(x, ord=p), whole, ((2, 1, 3),)),
    "number": (lambda p, x: x.norm(p), whole, ((),)),
    "linalg.norm": (lambda p, x: torch.linalg.norm(x, p, 1), rows, ((9, 2),)),
    "dtype": (lambda p, x: x.float().norm(p, dim=(1,), dtype=torch.float64), rows, ((9, 2),)),
    "aten": (lambda p, x: torch.ops.aten.linalg_vector_norm(x, p, [1]), rows, ((9, 2),)),
    "dist": (lambda p, x, y: torch.dist(x, y, p), difference, ((2, 3), (3,))),
    "cdist": (lambda p, x, y: torch.cdist(x, y, p), each_with_each, ((4, 2), (5, 2))),
    "cdist of many": (lambda p, x, y: torch.cdist(x, y, p), each_with_each, ((2, 2), (26, 2))),
    "pdist": (lambda p, x: F.pdist(x, p), pairs, ((5, 2),)),
    "pairwise": (
        lambda p, x, y: F.pairwise_distance(x, y, p, eps=0.0),
        lambda x, y: [[((0, (i, k)), (1, (k,))) for k in range(2)] for i in range(len(x))],
        ((9, 2), (2,)),
    ),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Any:
    return CASES[request.param]


def some(shapes: tuple[Any, ...], seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(-1, 2, shape, generator=generator).double().requires_grad_()
        for shape in shapes
    ]


def recorded(function: Callable[..., Tensor], inputs: list[Tensor]) -> tuple[Tape, Tensor, Tensor]:
    with record() as tape:
        output = function(*inputs)
        start = torch.arange(1.0, output.numel() + 1).reshape(output.shape)
        loss = (output * start).sum()
    return tape, output, loss


@pytest.mark.parametrize("power", POWERS)
def test_value_and_native_gradient_are_pytorch_s(case: Any, power: float) -> None:
    function, _, shapes = case
    inputs = some(shapes)
    expected = function(power, *inputs)
    start = torch.arange(1.0, expected.numel() + 1).reshape(expected.shape)
    native = torch.autograd.grad((expected * start).sum(), inputs)
    tape, output, loss = recorded(lambda *x: function(power, *x), inputs)
    assert torch.equal(output, expected)
    assert output.stride() == expected.stride()
    assert all(map(torch.equal, tape.gradient(loss, inputs), native))
    suffix = {1.0: "_1", inf: "_inf"}.get(power, "")
    assert len(tape.sites) == 1
    assert tape.sites[0].operation.removesuffix(suffix) in ("norm", "dist", "cdist", "pdist")
    assert tape.unseen_behind(loss, inputs) == []


def at_kinks(power: float, entries: list[float], text: str) -> list[float]:
    """The derivative of one norm by its entries under a selection, in closed form."""
    largest = max(map(abs, entries))
    if power == 1:
        slope = {"first": -1.0, "last": 1.0, "minimal": 0.0}[text]
        return [slope if each == 0 else 1.0 if each > 0 else -1.0 for each in entries]
    if power < inf and largest == 0:
        return [{"branch:0.25": 0.25, "minimal": 0.0}[text]] * len(entries)
    if power < inf:
        norm = sum(abs(each) ** power for each in entries) ** (1 / power)
        return [(1 if each > 0 else -1) * (abs(each) / norm) ** (power - 1) for each in entries]
    # Each entry is two: itself and its negative.
    active = [(i, sign) for i, each in enumerate(entries) for sign in (1, -1)
              if sign * each == largest]  # fmt: skip
    chosen = {"first": active[:1], "last": active[-1:], "minimal": active}[text]
    found = [0.0] * len(entries)
    for i, sign in chosen:
        found[i] += sign / len(chosen)
    return found


@pytest.mark.parametrize(
    ("power", "text"),
    [
        *product((1.0, inf), ("first", "last", "minimal")),
        *product((2.0, 3.0), ("branch:0.25", "minimal")),
    ],
)
def test_choices_are_those_of_closed_forms(case: Any, power: float, text: str) -> None:
    function, differences, shapes = case
    inputs = some(shapes)
    tape, _, loss = recorded(lambda *x: function(power, *x), inputs)
    expected = [torch.zeros_like(each) for each in inputs]
    kinks = 0
    for number, made in enumerate(differences(*inputs)):
        values = []
        for entry in made:
            (first, at), *second = entry
            value = inputs[first][at].item()
            values.append(value - sum(inputs[other][place].item() for other, place in second))
        if power == 1:
            kinks += values.count(0)
        elif power < inf:
            kinks += not any(values)
        else:
            largest = max(map(abs, values))
            kinks += sum(abs(value) == largest for value in values) > 1 or largest == 0
        for entry, slope in zip(made, at_kinks(power, values, text), strict=True):
            for (which, at), sign in zip(entry, (1, -1), strict=False):
                expected[which][at] += sign * slope * (number + 1)
    assert tape.sites[0].tied == kinks
    for got, want in zip(tape.gradient(loss, inputs, choose=text), expected, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, inf])
def test_a_limit_is_the_gradient_at_a_point_nearby(case: Any, power: float) -> None:
    function, _, shapes = case
    inputs = some(shapes)
    tape, _, loss = recorded(lambda *x: function(power, *x), inputs)
    found = tape.gradient(loss, inputs, choose="limit:5")
    moved = [
        (each.detach().double() + 1e-6 * along.double()).requires_grad_()
        for each, along in zip(inputs, direction(inputs, 5), strict=True)
    ]
    output = function(power, *moved)
    start = torch.arange(1.0, output.numel() + 1).reshape(output.shape)
    nearby = torch.autograd.grad((output * start).sum(), moved)
    for got, want in zip(found, nearby, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["fro", 1, -1, inf, -inf])
@pytest.mark.parametrize("keepdim", [False, True])
def test_norms_of_matrices_are_pytorch_s(dtype: torch.dtype, name: Any, keepdim: bool) -> None:
    x = some(((3, 4, 5),))[0].detach().to(dtype).requires_grad_()
    for function in (torch.linalg.norm, torch.linalg.matrix_norm):
        for dim in ((0, 2), (2, 1)):
            expected = function(x, name, dim, keepdim)
            (native,) = torch.autograd.grad(expected.sum(), x)
            with record() as tape:
                output = function(x, ord=name, dim=dim, keepdim=keepdim)
                loss = output.sum()
            assert torch.equal(output, expected)
            assert torch.equal(tape.gradient(loss, [x])[0], native)
            sites = [site.operation for site in tape.sites]
            extreme = "amax" if name in (1, inf) else "amin"
            assert sites == (["norm"] if name == "fro" else ["norm_1", extreme])
            assert tape.unseen_behind(loss, x) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_similarity_of_cosines_is_pytorch_s(dtype: torch.dtype) -> None:
    x, y = (each.detach().to(dtype).requires_grad_() for each in some(((9, 2), (2,))))
    expected = F.cosine_similarity(x, y)
    native = torch.autograd.grad(expected.sum(), [x, y])
    with record() as tape:
        output = F.cosine_similarity(x, y)
        loss = output.sum()
    for got, want in zip((output, *tape.gradient(loss, [x, y])), (expected, *native), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
    assert [site.operation for site in tape.sites] == ["norm", "norm"]
    assert [each.operation for each in tape.unseen_behind(loss, x)] == ["clamp_min_"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.std(),
        lambda x: x.std(1),
        lambda x: x.std(False),
        lambda x: torch.std(x, dim=(0, -1), unbiased=False, keepdim=True),
        lambda x: torch.std(x, 1, correction=2, keepdim=True),
        lambda x: torch.std_mean(x, 1)[0],
        lambda x: sum(torch.std_mean(x, dim=0, correction=0)),
        lambda x: torch.ops.aten.std.correction(x, [1], correction=1),
    ],
)
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_standard_deviation_has_a_kink_where_all_are_equal(function: Any, scale: float) -> None:
    x = (some(((3, 4, 2),))[0].detach() * scale + 1).requires_grad_()
    expected = function(x)
    (native,) = torch.autograd.grad(expected.sum(), x)
    tape, output, _ = recorded(function, [x])
    assert torch.equal(output, expected)
    (site,) = tape.sites
    assert site.tied == (expected.numel() if scale == 0 else 0)
    assert tape.unseen_behind(output.sum(), x) == []
    for choice in ("native", "minimal"):
        assert torch.equal(tape.gradient(output.sum(), [x], choose=choice)[0], native)
    moved = (x.detach() + 1e-6 * direction([x], 5)[0]).requires_grad_()
    (nearby,) = torch.autograd.grad(function(moved).sum(), moved)
    limit = tape.gradient(output.sum(), [x], choose="limit:5")[0]
    torch.testing.assert_close(limit, nearby, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("power", [1, 2, inf])
def test_norms_of_lists_are_sites(power: float) -> None:
    tensors = some(((2, 3), (4,), ()))
    expected = torch._foreach_norm(tensors, power)
    native = torch.autograd.grad(sum(expected, torch.zeros(())), tensors)
    with record() as tape:
        output = torch._foreach_norm(tensors, power)
        loss = sum(output, torch.zeros(()))
    assert all(map(torch.equal, output, expected))
    assert all(map(torch.equal, tape.gradient(loss, tensors), native))
    assert len(tape.sites) == 3
    assert tape.unseen_behind(loss, tensors) == []


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (lambda z: z.abs(), "abs_complex"),
        (lambda z: torch.absolute(z), "abs_complex"),
        (lambda z: z[0, 0].abs(), "abs_complex"),
        (lambda z: z.norm(dim=1), "norm"),
        (lambda z: torch.linalg.vector_norm(z, 2, (0, -1), True), "norm"),
        (lambda z: torch.linalg.norm(z[:, 0]), "norm"),
        (lambda z: z[0, 0].norm(), "norm"),
        (lambda z: torch.dist(z, 2 * z[:1]), "dist"),
        (lambda z: torch.linalg.matrix_norm(z), "norm"),
    ],
)
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_complex_numbers_have_the_norm_of_their_parts(
    function: Any, operation: str, scale: float
) -> None:
    parts = (each.detach() * scale for each in some(((5, 3), (5, 3))))
    z = torch.complex(*parts).requires_grad_()
    expected = function(z)
    (native,) = torch.autograd.grad(expected.sum(), z)
    tape, output, loss = recorded(lambda z: function(z), [z])
    assert torch.equal(output, expected)
    (site,) = tape.sites
    assert (site.operation, site.tied) == (operation, int((expected == 0).sum()))
    assert tape.unseen_behind(loss, z) == []
    assert torch.equal(tape.gradient(output.sum(), [z])[0], native)
    assert torch.equal(tape.gradient(output.sum(), [z], choose="minimal")[0], native)
    moved = (z.detach() + 1e-6 * direction([z], 5)[0]).requires_grad_()
    (nearby,) = torch.autograd.grad(function(moved).sum(), moved)
    limit = tape.gradient(output.sum(), [z], choose="limit:5")[0]
    torch.testing.assert_close(limit, nearby, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x.norm(0.5), "its slope is infinite where an entry is 0"),
        (lambda x: torch.cdist(x, x, 0.5), "its slope is infinite where an entry is 0"),
        (lambda x: torch.linalg.vector_norm(x, 0), "it jumps: there is no derivative to choose"),
        (lambda x: x.norm(-inf), "kinkcheck does not define its branches"),
        (lambda x: torch.complex(x, x).norm(1), "called with a complex tensor"),
        (lambda x: torch.hypot(x, x), "PyTorch's derivative at 0 is not a number"),
        (lambda x: torch.ops.aten.norm_except_dim(x), "called from scripted or C++ code"),
    ],
)
def test_what_has_no_branches_is_named(function: Any, reason: str) -> None:
    (x,) = some(((3, 4),))
    with record() as tape:
        loss = function(x).sum()
    assert tape.sites == []
    assert [each.reason for each in tape.unseen_behind(loss, x)] == [reason]


@pytest.mark.parametrize(
    "refused",
    [
        lambda x: torch.cdist(x[0], x[0]),
        lambda x: F.pdist(x[0]),
        lambda x: torch.linalg.matrix_norm(x[0]),
        lambda x: torch.linalg.norm(x, "fro", 0),
        lambda x: torch.linalg.norm(x[None], 2),
        lambda x: x.norm(2, 5),
        lambda x: x.long().norm(),
    ],
)
def test_what_pytorch_refuses_is_refused_in_its_words(refused: Any) -> None:
    (x,) = some(((3, 4),))
    with pytest.raises((RuntimeError, IndexError)) as expected:
        refused(x)
    with record(), pytest.raises(expected.type) as error:
        refused(x)
    assert str(error.value) == str(expected.value)


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_norms_of_nothing(power: float, shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape, requires_grad=True)
    if power == inf and not shape[-1]:
        pytest.skip("PyTorch refuses the largest of nothing")
    with record() as tape:
        loss = torch.linalg.vector_norm(x, power, -1).sum()
    for choice in ("native", "minimal", "limit:0"):
        assert tape.gradient(loss, [x], choose=choice)[0].shape == x.shape


def test_a_limit_through_what_pytorch_differentiates_once_and_no_row_knows_is_refused() -> None:
    x = torch.zeros(3, 2, requires_grad=True)
    with record() as tape:
        loss = torch.cdist(x.relu(), torch.ones(2, 2), p=0.5).sum()
    message = r"^tangents: the program cannot be differentiated in forward mode: .*$"
    with pytest.raises(InputError, match=message):
        tape.gradient(loss, x, choose="limit:5")
