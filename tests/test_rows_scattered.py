"""Extremes that indices gather: entries compete as loops over the indices say."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import record
from kinkcheck.tape.directions import direction

Places = tuple[int, ...]
Entries = Iterator[tuple[Places, int, Places]]


@dataclass
class Case:
    """A function of tensors of some shapes, and its entries.

    Attributes:
        function: of PyTorch.
        entries: where an output is, the number of an input and the place of an entry there; in
            the order in which they are scanned.
        shapes: of the inputs.
        left_out: where an entry of the first input is left out.
    """

    function: Callable[..., Tensor]
    entries: Callable[[], Entries]
    shapes: tuple[Places, ...]
    left_out: tuple[Places, ...] = ()

    def inputs(self, scale: int = 3) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        return [
            torch.randint(scale, shape, generator=generator).float().requires_grad_()
            for shape in self.shapes
        ]


def everywhere(shape: Places) -> Iterator[Places]:
    return product(*map(range, shape))


def brought(
    function: Callable[..., Tensor],
    shapes: tuple[Places, Places],
    to: list[Places],
    include_self: bool,
) -> Case:
    """Entries of a tensor, and those that are brought to some places."""
    met = () if include_self else tuple(dict.fromkeys(to))

    def entries() -> Entries:
        for place in everywhere(shapes[0]):
            if place not in met:
                yield place, 0, place
        yield from zip(to, [1] * len(to), everywhere(shapes[1]), strict=True)

    return Case(function, entries, shapes, met)


def scattered(
    reduce: str, shapes: tuple[Places, Places], index: Tensor, dim: int, include_self: bool
) -> Case:
    def function(x: Tensor, y: Tensor) -> Tensor:
        return x.scatter_reduce(dim, index, y, reduce, include_self=include_self)

    to = [(*at[:dim], int(index[at]), *at[dim + 1 :]) if at else () for at in everywhere(shapes[1])]
    return brought(function, shapes, to, include_self)


def indexed(
    reduce: str, shapes: tuple[Places, Places], index: Tensor, dim: int, include_self: bool
) -> Case:
    def function(x: Tensor, y: Tensor) -> Tensor:
        return x.index_reduce(dim, index, y, reduce, include_self=include_self)

    to = [(*at[:dim], int(index[at[dim]]), *at[dim + 1 :]) for at in everywhere(shapes[1])]
    return brought(function, shapes, to, include_self)


def segments(reduce: str, shape: Places, lengths: list[Any], by_offsets: bool) -> Case:
    sizes = torch.tensor(lengths)
    axis = sizes.dim() - 1
    ends = sizes.cumsum(-1)

    def entries() -> Entries:
        for at in everywhere(shape):
            segment = int((ends[at[:axis]] <= at[axis]).sum())
            yield (*at[:axis], segment, *at[axis + 1 :]), 0, at

    offsets = torch.cat([torch.zeros_like(ends[..., :1]), ends], -1)
    how = {"offsets": offsets} if by_offsets else {"lengths": sizes}
    return Case(lambda x: torch.segment_reduce(x, reduce, axis=axis, **how), entries, (shape,))


def bags(lists: list[list[int]], padding: int | None, functional: bool) -> Case:
    indices = torch.tensor([index for bag in lists for index in bag])
    offsets = torch.tensor([0, *map(len, lists[:-1])]).cumsum(0)

    def entries() -> Entries:
        for number, bag in enumerate(lists):
            for row, column in product(dict.fromkeys(bag), range(3)):
                if row != padding:
                    yield (number, column), 0, (row, column)

    def function(weight: Tensor) -> Tensor:
        if functional:
            return F.embedding_bag(indices, weight, offsets, mode="max", padding_idx=padding)
        given = (offsets, False, 2, False, None, False, padding)
        found: Tensor = torch.embedding_bag(weight, indices, *given)[0]
        return found

    return Case(function, entries, ((5, 3),))


GENERATOR = torch.Generator().manual_seed(0)


def indices(bound: int, *shape: int) -> Tensor:
    return torch.randint(bound, shape, generator=GENERATOR)


CASES = {
    **{
        f"{of.__name__} {reduce} {shapes} {include_self}": of(
            reduce, shapes, index, dim, include_self
        )
        for of, shapes, index, dim in [
            (scattered, ((4,), (7,)), indices(4, 7), 0),
            (scattered, ((), ()), torch.tensor(0), 0),
            (scattered, ((3, 4, 2), (3, 5, 2)), indices(4, 3, 5, 2), 1),
            (scattered, ((2, 1, 3, 1, 2), (2, 1, 4, 1, 2)), indices(3, 2, 1, 4, 1, 2), 2),
            (scattered, ((3, 2), (0, 2)), indices(3, 0, 2), 0),
            (indexed, ((4,), (7,)), indices(4, 7), 0),
            (indexed, ((2, 3, 4), (2, 5, 4)), indices(3, 5), 1),
        ]
        for reduce in ("amax", "amin")
        for include_self in (True, False)
    },
    **{
        f"segments {reduce} {shape} {by_offsets}": segments(reduce, shape, lengths, by_offsets)
        for shape, lengths in [
            ((7,), [2, 0, 5]),
            ((5, 2, 3), [3, 2]),
            ((2, 5, 3), [[2, 2, 1], [1, 0, 4]]),
        ]
        for reduce in ("max", "min")
        for by_offsets in (True, False)
    },
    **{
        f"bags {padding} {functional}": bags(
            [[0, 1, 2], [], [2, 4, 4, 2], [3]], padding, functional
        )
        for padding in (None, 2)
        for functional in (True, False)
    },
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def active(case: Case, inputs: list[Tensor], output: Tensor) -> dict[Places, list[Any]]:
    """The entries that attain each output, by loops."""
    found: dict[Places, list[Any]] = {place: [] for place in everywhere(output.shape)}
    for place, number, at in case.entries():
        if inputs[number][at] == output[place]:
            found[place].append((number, at))
    return found


def test_choices_are_those_of_loops_over_the_entries(case: Case) -> None:
    inputs = case.inputs()
    expected = case.function(*inputs)
    start = torch.randint(-3, 4, expected.shape, generator=torch.Generator().manual_seed(2)).float()
    native = torch.autograd.grad(expected, inputs, start, materialize_grads=True)
    with record() as tape:
        output = case.function(*inputs)
        loss = (output * start).sum()
    assert torch.equal(output, expected)
    competing = active(case, inputs, output)
    (site,) = tape.sites
    # PyTorch gives a part of the gradient to an entry that it leaves out, and drops it.
    lost = {place for place in case.left_out if inputs[0][place] == output[place]}
    tied = {place for place, entries in competing.items() if len(entries) > 1}
    assert site.tied == len(tied | lost)
    assert site.windows == output.numel()
    assert tape.unseen_behind(loss, inputs) == []
    found = {
        choice: tape.gradient(loss, inputs, choose=choice)
        for choice in ("native", "first", "last", "minimal")
    }
    assert all(map(torch.equal, found["native"], native))
    for choice, chosen in (
        ("first", slice(1)),
        ("last", slice(-1, None)),
        ("minimal", slice(None)),
    ):
        wanted = [torch.zeros_like(each) for each in inputs]
        for place, entries in competing.items():
            for number, at in entries[chosen]:
                wanted[number][at] += start[place] / len(entries[chosen])
        for got, want in zip(found[choice], wanted, strict=True):
            torch.testing.assert_close(got, want)


def test_a_limit_is_the_gradient_at_a_point_nearby(case: Case) -> None:
    inputs = case.inputs()
    with record() as tape:
        output = case.function(*inputs)
        start = torch.arange(1.0, output.numel() + 1).reshape(output.shape)
        loss = (output * start).sum()
    found = tape.gradient(loss, inputs, choose="limit:5")
    moved = [
        (each.detach().double() + 1e-6 * along.double()).requires_grad_()
        for each, along in zip(inputs, direction(inputs, 5), strict=True)
    ]
    nearby = torch.autograd.grad((case.function(*moved) * start).sum(), moved)
    for got, want in zip(found, nearby, strict=True):
        torch.testing.assert_close(got, want.float())


@pytest.mark.parametrize("reduce", ["amax", "amin"])
def test_a_source_may_be_larger_than_its_indices(reduce: str) -> None:
    x, source = torch.zeros(3, 4), torch.randint(-1, 2, (5, 6)).float()
    index = indices(3, 3, 2)
    expected = x.scatter_reduce(0, index, source, reduce)
    with record() as tape:
        output = x.scatter_reduce(0, index, source, reduce)
    assert torch.equal(output, expected)
    near = x.scatter_reduce(0, index, source[:3, :2].contiguous(), reduce)
    tied = [
        int(near[i, j] == 0) + sum(
            int(index[k, j]) == i and bool(source[k, j] == near[i, j]) for k in range(3)
        ) > 1
        for i, j in product(range(3), range(2))
    ]  # fmt: skip
    assert tape.sites[0].tied == sum(tied)


def test_every_spelling_is_a_site() -> None:
    x, index = torch.zeros(3, requires_grad=True), torch.tensor([0, 0, 2])
    source = torch.zeros(3, requires_grad=True)
    aten = torch.ops.aten
    bag = nn.EmbeddingBag(3, 2, mode="max")
    with record() as tape, warnings.catch_warnings(action="ignore"):
        written = [
            torch.scatter_reduce(x, 0, index, source, "amax"),
            x.clone().scatter_reduce_(0, index, source, "amin"),
            aten.scatter_reduce.two(x, 0, index, source, "amax", include_self=False),
            torch.index_reduce(x, 0, index, source, "amax"),
            x.clone().index_reduce_(0, index, source, "amin"),
            aten.index_reduce_.default(x.clone(), 0, index, source, "amin"),
            aten.segment_reduce(x, "max", lengths=torch.tensor([3])),
            bag(torch.tensor([[0, 1]]))[0],
            torch.ops.aten.embedding_bag(bag.weight, index, torch.tensor([0]), False, 2)[0],
        ]
        loss = sum(each.sum() for each in written)
        smooth = x.scatter_reduce(0, index, source, "sum") + x.scatter_reduce(
            0, index, source, "mean"
        )
        nn.EmbeddingBag(3, 2, mode="mean")(torch.tensor([[0, 1]]))
    assert len(tape.sites) == len(written)
    for each in (loss, smooth.sum()):
        assert tape.unseen_behind(each, [x, source]) == []
