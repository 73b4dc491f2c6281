"""The exact arbiter against pure Python fractions, against exact float64, and against rounding."""

from __future__ import annotations

import copy
import operator
import sys
from collections.abc import Iterable
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

import kinkcheck
import kinkcheck.nn as knn
from coarse_networks import coarse_points
from exact import weights
from kinkcheck import data, networks
from kinkcheck.arithmetic.constants import as_taken
from kinkcheck.errors import InputError
from kinkcheck.exact import ExactSite, Rationals, evaluate, uncovered
from kinkcheck.exact.rationals import from_floats
from kinkcheck.selection import First, Minimal, parse
from strategies import adaptive, filled, seeds, sliding, whole_numbers

WHOLE = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


# An independent evaluation: numbers that remember what they were made of, one by one.


class Number:
    """A fraction, and by how much it changes with each number that it was made of."""

    def __init__(self, value: Fraction, sources: list[tuple[Number, Fraction]] | None = None):
        self.value = value
        self.sources = sources or []
        self.gradient = Fraction(0)

    def __add__(self, other: Number) -> Number:
        return Number(self.value + other.value, [(self, Fraction(1)), (other, Fraction(1))])

    def __mul__(self, other: Number) -> Number:
        return Number(self.value * other.value, [(self, other.value), (other, self.value)])


def total(numbers: Iterable[Number]) -> Number:
    numbers = list(numbers)
    value = sum((n.value for n in numbers), Fraction(0))
    return Number(value, [(n, Fraction(1)) for n in numbers])


def positive_part(x: Number, at_zero: Fraction) -> Number:
    slope = at_zero if x.value == 0 else Fraction(x.value > 0)
    return Number(max(x.value, Fraction(0)), [(x, slope)])


def largest(entries: list[Number], selection: str) -> Number:
    value = max(e.value for e in entries)
    chosen = parse(selection)
    weigh = weights(First() if str(chosen) == "native" else chosen)
    active = weigh([i for i, e in enumerate(entries) if e.value == value])
    return Number(value, [(entries[i], weight) for i, weight in active.items()])


def differentiate(outputs: list[tuple[Number, Fraction]]) -> None:
    order: list[Number] = []
    seen: set[int] = set()

    def visit(number: Number) -> None:
        if id(number) not in seen:
            seen.add(id(number))
            for source, _ in number.sources:
                visit(source)
            order.append(number)

    for number, cotangent in outputs:
        visit(number)
        number.gradient += cotangent
    for number in reversed(order):
        for source, slope in number.sources:
            source.gradient += slope * number.gradient


def numbers_of(tensor: Tensor) -> Any:
    """Nested lists of numbers."""
    if tensor.dim() == 0:
        return Number(Fraction(tensor.item()))
    return [numbers_of(each) for each in tensor]


def flat(nested: Any) -> list[Number]:
    return [nested] if isinstance(nested, Number) else [n for each in nested for n in flat(each)]


class Tiny(nn.Module):
    """Overlapping pools, a strided and padded convolution, a sum, an average over three."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 2, stride=1, padding=1)
        self.second = nn.Conv2d(2, 2, (1, 2), stride=(1, 2), bias=False)
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.first(x)), 2, stride=1)
        x = self.second(x) + F.max_pool2d(x, (1, 2), stride=(1, 2))
        x = F.avg_pool2d(x, (3, 1)).relu()
        scores: Tensor = self.last(x.view(x.size(0), -1))
        return scores


def tiny_by_hand(
    model: Tiny, image: Tensor, selection: str, at_zero: Fraction
) -> tuple[list[Number], dict[str, Any]]:
    """The definition of :class:`Tiny`, window by window, on one image of 3 × 6 pixels."""
    p = {name: numbers_of(parameter) for name, parameter in model.named_parameters()}
    zero = Number(Fraction(0))
    x = numbers_of(image[0])
    height, width = image.shape[-2:]

    def at(i: int, j: int) -> Number:
        return x[i][j] if 0 <= i < height and 0 <= j < width else zero

    def convolved(f: int, i: int, j: int) -> Number:
        terms = [at(i + a - 1, j + b - 1) * p["first.weight"][f][0][a][b]
                 for a, b in product(range(2), repeat=2)]  # fmt: skip
        return positive_part(total([*terms, p["first.bias"][f]]), at_zero)

    one = [[[convolved(f, i, j) for j in range(width + 1)] for i in range(height + 1)]
           for f in range(2)]  # fmt: skip
    pooled = [[[largest([c[i][j], c[i][j + 1], c[i + 1][j], c[i + 1][j + 1]], selection)
                for j in range(width)] for i in range(height)] for c in one]  # fmt: skip
    halves = range(width // 2)
    summed = [[[total(pooled[c][i][2 * j + b] * p["second.weight"][f][c][0][b]
                      for c, b in product(range(2), repeat=2))
                + largest(pooled[f][i][2 * j : 2 * j + 2], selection)
                for j in halves] for i in range(height)] for f in range(2)]  # fmt: skip
    third = Number(Fraction(1, 3))
    features = [
        positive_part(total(channel[3 * i + a][j] for a in range(3)) * third, at_zero)
        for channel in summed for i in range(height // 3) for j in halves
    ]  # fmt: skip
    scores = [
        total([*(v * w for v, w in zip(features, row, strict=True)), bias])
        for row, bias in zip(p["last.weight"], p["last.bias"], strict=True)
    ]
    return scores, p


@given(seeds, st.sampled_from(("native", "minimal", "hybrid:-1.5", "first", "last", "branch:0.1")))
def test_values_ties_and_gradients_are_those_of_fractions(seed: int, selection: str) -> None:
    torch.manual_seed(seed)
    model = Tiny()
    for parameter in model.parameters():
        parameter.data = torch.randint(-2, 3, parameter.shape) / 4
    image = torch.randint(0, 3, (1, 3, 6)) / 2
    at_zero = {"last": Fraction(1), "branch:0.1": Fraction(0.1)}.get(selection, Fraction(0))
    of_pool = "native" if selection.startswith("branch") else selection
    scores, parameters = tiny_by_hand(model, image, of_pool, at_zero)
    cotangent = torch.randint(-2, 3, (1, 2)) / 8
    differentiate(list(zip(scores, map(Fraction, cotangent[0].tolist()), strict=True)))

    point = evaluate(model, image[None])
    assert point.output.fractions() == [score.value for score in scores]
    gradient = point.gradient(cotangent, selection)
    assert gradient.keys() == parameters.keys()
    for name, exact in gradient.items():
        assert exact.fractions() == [number.gradient for number in flat(parameters[name])]


@given(seeds)
def test_the_exact_forward_needs_no_grid(seed: int) -> None:
    torch.manual_seed(seed)
    model = Tiny()
    for parameter in model.parameters():
        parameter.data *= 2.0 ** torch.randint(-40, 41, parameter.shape)
    image = torch.randn(1, 3, 6)
    scores, _ = tiny_by_hand(model, image, "native", Fraction(0))
    assert evaluate(model, image[None]).output.fractions() == [s.value for s in scores]


@st.composite
def convolutions(draw: Any) -> tuple[nn.Module, Tensor]:
    dimensions, groups = draw(st.integers(1, 2)), draw(st.integers(1, 3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(dimensions))

    kernel, stride, dilation = each(1, 3), each(1, 3), each(1, 2)
    padding: Any = draw(st.sampled_from(("same", "valid", each(0, 3), each(0, 3))))
    if padding == "same":
        stride = (1,) * dimensions
    channels = groups * draw(st.integers(1, 2))
    layer = (nn.Conv1d, nn.Conv2d)[dimensions - 1](
        channels, groups * draw(st.integers(1, 2)), kernel, stride, padding, dilation, groups,
        bias=draw(st.booleans()), dtype=torch.float64,
    )  # fmt: skip
    sizes = tuple(
        d * (k - 1) + 1 + draw(st.integers(0, 3)) for d, k in zip(dilation, kernel, strict=True)
    )
    for parameter in layer.parameters():
        parameter.data = filled(tuple(parameter.shape), WHOLE, torch.float64, draw(seeds))
    batch = draw(st.sampled_from(((), (1,), (2,))))
    return layer, filled((*batch, channels, *sizes), WHOLE, torch.float64, draw(seeds))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@given(convolutions(), seeds)
def test_convolutions_are_pytorchs(drawn: tuple[nn.Module, Tensor], seed: int) -> None:
    """On whole numbers float64 does not round."""
    assert_as_autograd(*drawn, seed)


@given(sliding() | adaptive(), st.integers(1, 2), seeds)
def test_max_pools_are_pytorchs(drawn: Any, channels: int, seed: int) -> None:
    pooling, sizes = drawn
    assume(pooling.dimensions < 3)
    # A weight for each entry, since only parameters are differentiated.
    layer = nn.Conv2d if pooling.dimensions == 2 else nn.Conv1d
    scale = layer(channels, channels, 1, groups=channels, dtype=torch.float64)
    for parameter in scale.parameters():
        parameter.data = filled(tuple(parameter.shape), WHOLE, torch.float64, seed)
    x = filled((2, channels, *sizes), WHOLE, torch.float64, seed)
    point = assert_as_autograd(nn.Sequential(scale, pooling.module()), x, seed)
    with kinkcheck.record() as tape:
        pooling(scale(x))
    assert list(point.ties.values()) == [tape.sites[0].tied]
    assert list(point.windows.values()) == [tape.sites[0].windows]


@given(adaptive(), seeds)
def test_adaptive_average_pools_are_pytorchs(drawn: Any, seed: int) -> None:
    pooling, sizes = drawn
    assume(pooling.dimensions < 3)
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)[pooling.dimensions - 1]
    layer = pool(pooling.arguments["output_size"])
    x = filled((2, 1, *sizes), WHOLE, torch.float64, seed)
    torch.testing.assert_close(evaluate(layer, x).output.to_float64(), layer(x))


@given(sliding(), st.booleans(), st.sampled_from((None, 1, 4)), seeds)
def test_average_pools_are_pytorchs(
    drawn: Any, count_include_pad: bool, divisor: int | None, seed: int
) -> None:
    pooling, sizes = drawn
    assume(pooling.dimensions < 3)
    arguments = {k: v for k, v in pooling.arguments.items() if k != "dilation"}
    arguments["count_include_pad"] = count_include_pad
    if pooling.dimensions == 2:
        arguments["divisor_override"] = divisor
    pool = (nn.AvgPool1d, nn.AvgPool2d)[pooling.dimensions - 1](**arguments)
    x = filled((2, 1, *sizes), WHOLE, torch.float64, seed)
    try:
        expected = pool(x)
    except RuntimeError:
        assume(False)  # sizes were drawn for a dilation
    torch.testing.assert_close(evaluate(pool, x).output.to_float64(), expected)


def assert_as_autograd(model: nn.Module, x: Tensor, seed: int) -> Any:
    """Outputs and gradients equal PyTorch's float64, on numbers that it does not round."""
    expected = model(x)
    cotangent = whole_numbers(expected.detach(), seed)
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(expected, list(parameters.values()), cotangent)
    point = evaluate(model, x)
    assert torch.equal(point.output.to_float64(), expected)
    exact = point.gradient(cotangent)
    for name, gradient in zip(parameters, gradients, strict=True):
        assert torch.equal(exact[name].to_float64(), gradient), name
    return point


class Everything(nn.Module):
    """Every kind of layer that is covered."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding="same")
        self.norm = nn.BatchNorm2d(4)
        self.block = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1)
        )
        self.pool = nn.AdaptiveMaxPool2d((4, 5))
        self.mean = nn.AdaptiveAvgPool2d((3, 6))
        self.drop = nn.Dropout()
        self.line = nn.Conv1d(12, 3, 2)
        self.head = nn.Linear(15, 2)
        self.scale = nn.Parameter(torch.randn(2, 15))
        self.unused = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        out = self.block(x)
        out += x
        x = torch.relu(torch.add(self.mean(self.pool(out)), self.mean(x)))
        x = self.line(x.reshape(x.shape[0], 12, 6)).relu_()
        x = F.dropout(self.drop(x).flatten(1), training=self.training)
        return self.head(x) + F.linear(x, self.scale)


def test_every_layer_that_is_covered_agrees_with_float64() -> None:
    torch.manual_seed(0)
    model = Everything().double()
    model(torch.randn(16, 1, 8, 7, dtype=torch.float64))  # running statistics
    nn.init.normal_(model.norm.weight)
    nn.init.normal_(model.norm.bias)
    assert_close_to_float64(model.eval(), torch.randn(2, 1, 8, 7, dtype=torch.float64))


@pytest.mark.parametrize("selection", ["branch:2", "native", "hybrid:4"])
def test_a_site_without_the_selection_keeps_its_own(selection: str) -> None:
    """The pool of this program is minimal, and branch is no selection of pools."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.ReLU(), knn.MaxPool2d((1, 2), selection="minimal"), nn.Flatten()
    ).double()
    for parameter in model.parameters():
        parameter.data = torch.randint(-1, 2, parameter.shape).double()
    x = torch.randint(0, 2, (3, 1, 7, 7)).double()
    with kinkcheck.record(model) as tape:
        loss = model(x).sum()
    expected = tape.gradient(loss, choose=selection)
    point = evaluate(model, x)
    assert sum(point.ties.values()) == sum(site.tied for site in tape.sites) > 0
    exact = point.gradient(torch.ones(3, 36), selection)
    for name, gradient in expected.items():
        assert torch.equal(exact[name].to_float64(), gradient)


def assert_close_to_float64(model: nn.Module, x: Tensor) -> None:
    expected = model(x)
    cotangent = torch.randn(expected.shape)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(
        expected, list(parameters.values()), cotangent.double(), materialize_grads=True
    )
    point = evaluate(model, x)
    torch.testing.assert_close(point.output.to_float64(), expected.detach(), rtol=1e-11, atol=1e-13)
    exact = point.gradient(cotangent)
    assert exact.keys() == parameters.keys()
    for name, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(exact[name].to_float64(), gradient, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_lenet_on_real_digits_agrees_with_the_float64_tape(batch_norm: bool) -> None:
    torch.manual_seed(0)
    build = networks.build(
        "lenet5", in_channels=1, classes=10, image_size=28, batch_norm=batch_norm
    )
    model = build.double().eval()
    digits = data.load("mnist-sample")
    x = digits.normalise(digits.images[:2]).double()
    cotangent = torch.randn(2, 10, dtype=torch.float64)
    with kinkcheck.record(model) as tape:
        loss = (model(x) * cotangent).sum()
    point = evaluate(model, x)
    for selection in ("native", "minimal", "hybrid:10"):
        expected = tape.gradient(loss, choose=selection)
        exact = point.gradient(cotangent, selection)
        assert exact.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(exact[name].to_float64(), gradient, rtol=1e-10, atol=1e-12)


def test_black_pixels_tie_but_do_not_matter() -> None:
    """Where every entry of a window sees the same patch, the choice matters only to rounding."""
    torch.manual_seed(0)
    model = networks.build("lenet5", in_channels=1, classes=10, image_size=28)
    digits = data.load("mnist-sample")
    point = evaluate(model, digits.normalise(digits.images[:1]))
    assert point.ties[ExactSite("features.2", "max_pool2d", 0)] > 100
    assert point.difference(torch.randn(1, 10), "minimal", "native").l1 == 0


PAIRS = [("minimal", "native"), ("last", "first"), ("hybrid:0.5", "last"), ("branch:0.5", "native"),
         ("hybrid:-3", "branch:2")]  # fmt: skip


def test_differences_are_those_of_float64_where_it_does_not_round() -> None:
    apart = {pair: 0 for pair in PAIRS}
    points = 0
    for model, inputs, _ in coarse_points(120, seed=1, binary=True):
        model, inputs = model.double(), inputs.double()
        with kinkcheck.record(model) as tape:
            output = model(inputs)
            cotangent = whole_numbers(output.detach(), points)
            loss = (output * cotangent).sum()
        point = evaluate(model, inputs)
        assert torch.equal(point.output.to_float64(), output)
        assert point.ties == {ExactSite(s.layer, s.operation, s.call): s.tied for s in tape.sites}
        assert point.windows.keys() == point.ties.keys()
        for selection, reference in PAIRS:
            base = {s: reference for s in tape.sites if accepts(s, reference)}
            chosen = base | {s: selection for s in tape.sites if accepts(s, selection)}
            g, h = tape.gradient(loss, choose=chosen), tape.gradient(loss, choose=base)
            difference = point.difference(cotangent, selection, reference)
            assert difference.by_parameter.keys() == g.keys()
            for name, exact in difference.by_parameter.items():
                assert torch.equal(exact.to_float64(), g[name] - h[name]), (points, name)
            l1 = sum(sum(map(Fraction, (g[n] - h[n]).abs().flatten().tolist())) for n in g)
            assert difference.l1 == l1
            apart[selection, reference] += l1 != 0
        points += 1
    assert points == 120
    assert all(20 < count < 120 for count in apart.values()), apart


def accepts(site: kinkcheck.Site, selection: str) -> bool:
    return isinstance(parse(selection), site.row.accepted)


def test_thirds_differ_from_float64_by_rounding_only() -> None:
    for model, inputs, _ in coarse_points(40, seed=2):
        model, inputs = model.double(), inputs.double()
        with kinkcheck.record(model) as tape:
            output = model(inputs)
            loss = output.sum()
        g, h = (tape.gradient(loss, choose=choice) for choice in ("minimal", "native"))
        difference = evaluate(model, inputs).difference(torch.ones_like(output)).by_parameter
        for name, exact in difference.items():
            torch.testing.assert_close(
                exact.to_float64(), g[name] - h[name], rtol=1e-12, atol=1e-10
            )


def test_random_follows_the_tape() -> None:
    for model, inputs, _ in coarse_points(20, seed=3):
        model, inputs = model.double(), inputs.double()
        with kinkcheck.record(model) as tape:
            output = model(inputs)
            loss = output.sum()
        expected = tape.gradient(loss, choose="random:5")
        exact = evaluate(model, inputs).gradient(torch.ones_like(output), "random:5")
        for name, gradient in expected.items():
            assert torch.equal(exact[name].to_float64(), gradient)


@given(st.integers(1, 4), st.integers(2, 3), st.integers(1, 3))
def test_ties_of_a_constant_image_are_all_windows(side: int, kernel: int, stride: int) -> None:
    """(⌊(s − k) / t⌋ + 1)² windows in each of two channels, all tied, and no ReLU at 0."""
    size = kernel + side
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.MaxPool2d(kernel, stride))
    nn.init.ones_(model[0].weight)
    nn.init.ones_(model[0].bias)
    windows = 2 * (side // stride + 1) ** 2
    for image, at_zero in ((torch.ones(1, 1, size, size), 0), (-torch.ones(1, 1, size, size), 1)):
        point = evaluate(model, image)
        assert point.ties == {
            ExactSite("1", "relu", 0): at_zero * 2 * size**2,
            ExactSite("2", "max_pool2d", 0): windows,
        }


def test_a_tie_through_rounding_is_none() -> None:
    """In float32 1 + 2⁻³⁰ is 1."""
    model = nn.Sequential(nn.Linear(1, 2), nn.MaxPool1d(2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.0], [2.0**-30]]))
        model[0].bias.fill_(1.0)
    x = torch.ones(1, 1)
    with kinkcheck.record(model) as tape:
        model(x)
    assert tape.sites[0].tied == 1
    point = evaluate(model, x)
    assert point.ties == {ExactSite("1", "max_pool1d", 0): 0}
    assert point.output.fractions() == [1 + Fraction(1, 2**30)]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5))
def test_every_float64_is_taken_as_it_is(values: list[float]) -> None:
    exact = from_floats(torch.tensor(values, dtype=torch.float64))
    assert exact.fractions() == [Fraction(value) for value in values]
    assert exact.to_float64().tolist() == values


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_floats_are_taken_as_they_are(dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    values = torch.tensor([limits.max, limits.tiny * limits.eps, -1 / 3, 0.0, -0.0], dtype=dtype)
    assert from_floats(values).fractions() == [Fraction(v) for v in values.tolist()]


def test_beyond_float64_is_infinite() -> None:
    large = Rationals(from_floats(torch.tensor([1.0, -1.0])).numerators * 2**1100)
    assert large.to_float64().tolist() == [float("inf"), float("-inf")]


class Reused(nn.Module):
    """One module called twice, a call in place, and weights used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.two = nn.Linear(3, 3)
        self.two.weight = self.one.weight
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.act(self.two(self.act(self.one(x)))))


def test_a_layer_called_twice_is_two_sites_and_shared_weights_one_parameter() -> None:
    torch.manual_seed(0)
    twice = Reused()
    model = nn.Sequential(twice, nn.Sequential(Reused()), twice).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    with kinkcheck.record(model) as tape:
        model(x)
    point = evaluate(model, x)
    assert list(point.ties) == [(s.layer, s.operation, s.call) for s in tape.sites]
    assert_close_to_float64(model, x)


def test_the_inputs_are_left_alone() -> None:
    x = -torch.ones(1, 2)
    assert evaluate(nn.Sequential(nn.ReLU(inplace=True)), x).output.fractions() == [0, 0]
    assert torch.equal(x, -torch.ones(1, 2))


def test_what_a_model_keeps_is_left_as_it_was() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.seen: list[Any] = []
            self.last: dict[str, Any] = {"output": None}

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(x)
            self.last["output"] = self.output = self.linear(x)
            return self.output

    model = Keeping()
    evaluate(model, torch.ones(1, 2))
    assert (model.seen, model.last, hasattr(model, "output")) == ([], {"output": None}, False)


def test_a_frozen_parameter_has_no_gradient() -> None:
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    point = evaluate(model, torch.ones(1, 2))
    assert point.gradient(torch.ones(1, 2)).keys() == {"bias"}


class Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def overwritten(x: Tensor) -> Tensor:
    return torch.flatten(x, 1).relu_() + torch.flatten(x, 1)


def hooked() -> nn.Module:
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(lambda module, inputs, output: output * 2)
    return layer


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.Softmax(dim=1), "1 (Softmax)"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), "1 (Conv2d calling pad)"),
        (nn.Dropout(0.5), "1 (Dropout in training mode)"),
        (nn.BatchNorm1d(2), "1 (BatchNorm1d in training mode)"),
        (nn.BatchNorm1d(2, track_running_stats=False).eval(), "1 (BatchNorm1d without running"),
        (nn.MaxPool1d(2, return_indices=True), "1 (MaxPool1d calling max_pool1d_with_indices)"),
        (knn.MaxPool1d(2, return_indices=True), "1 (MaxPool1d with indices)"),
        (knn.CompoundMaxPool2d(1.0, 2), "1 (CompoundMaxPool2d)"),
        (nn.ConvTranspose2d(1, 1, 2), "1 (ConvTranspose2d)"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "1 (ParametrizedLinear)"),
        (Function(torch.exp), "1 (exp)"),
        (Function(lambda x: x + 1j), "1 (add of something that is neither a tensor nor a real"),
        (Function(lambda x: x / x), "1 (truediv by a tensor)"),
        (Function(lambda x: F.relu(x.data)), "1 (data)"),
        (Function(lambda x: x.detach_()), "1 (detach_)"),
        (Function(lambda x: torch.add(x, x, alpha=2)), "1 (add with other arguments"),
        (Function(lambda x: x.acos()), "1 (acos)"),
        (Function(lambda x: x[0]), "1 (getitem)"),
        (Function(lambda x: F.dropout(x, 0.5)), "1 (dropout in training mode)"),
        (Function(lambda x: F.relu(input=x, inplace=True) + x), "1 (relu in place, of a tensor"),
        (Function(overwritten), "1 (relu_ in place, of a tensor that is used again)"),
        (Function(lambda x: F.relu(x) if x.sum() > 0 else x), "torch.fx cannot trace it"),
        (Function(lambda x: (x, x)), "an output that is not one tensor"),
        (hooked(), "1 (Linear with a forward hook)"),
    ],
)
def test_what_is_not_covered_is_named(layer: nn.Module, named: str) -> None:
    model = nn.Sequential(nn.Identity(), layer)
    missing = uncovered(model)
    assert len(missing) == 1
    assert named in missing[0]
    with pytest.raises(InputError) as complaint:
        evaluate(model, torch.ones(1, 2))
    assert missing[0] in str(complaint.value)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "vgg11", "resnet18", "resnet50"])
def test_kinkchecks_networks_are_covered_in_evaluation_mode(name: str) -> None:
    with torch.device("meta"):
        model = networks.build(name, in_channels=3, classes=10, image_size=32, batch_norm=True)
    assert uncovered(model.eval()) == []
    assert uncovered(model.train()) != []


def test_inputs_that_cannot_be_used() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.MaxPool1d(2))
    with pytest.raises(InputError, match=r"inputs: a number is not finite"):
        evaluate(model, torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(InputError, match=r"inputs: must hold floating-point numbers"):
        evaluate(model, torch.ones(1, 2, dtype=torch.int64))
    with pytest.raises(InputError, match=r"inputs: must not be empty"):
        evaluate(model, torch.ones(0, 2))
    with pytest.raises(InputError, match=r"model: fails on inputs of shape \(1, 3\)"):
        evaluate(model, torch.ones(1, 3))
    point = evaluate(model, torch.ones(1, 2))
    with pytest.raises(InputError, match=r"max_pool has no selection branch:0\.5"):
        point.difference(torch.ones(1, 1), "branch:0.5")
    with pytest.raises(InputError, match=r"cotangent: must have the shape of the output"):
        point.gradient(torch.ones(2))
    model[0].requires_grad_(False)
    nn.init.constant_(model[0].bias, float("inf"))
    with pytest.raises(InputError, match=r"0\.bias: a number is not finite"):
        evaluate(model, torch.ones(1, 2))


def test_without_flint_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from kinkcheck.exact import rationals

    rationals._flint.cache_clear()
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(InputError, match=r'pip install "kinkcheck\[exact\]"'):
        evaluate(nn.Linear(1, 1), torch.ones(1, 1))


def test_an_audit_asks_for_flint_before_it_builds_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    def network() -> nn.Module:
        pytest.fail("it was built")

    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(InputError, match=r'^flint is needed .*: pip install "kinkcheck\[exact\]"$'):
        kinkcheck.audit(network, [(torch.ones(1, 1), torch.zeros(1))], exact=True)


def test_coarse_points_are_repeatable_and_lie_in_every_zone() -> None:
    once, twice = (list(coarse_points(30, seed=0)) for _ in range(2))
    for (model, x, y), (again, x2, y2) in zip(once, twice, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
        for p, q in zip(model.parameters(), again.parameters(), strict=True):
            assert torch.equal(p, q)
    zones = [evaluate(m, x).difference(torch.randn(len(x), 3)).l1 != 0 for m, x, _ in once]
    assert 5 < sum(zones) < 25
    tied = [sum(evaluate(m, x).ties.values()) for m, x, _ in once]
    assert sum(count > 0 for count in tied) > 25


def test_minimal_weighs_a_tie_of_three_by_thirds() -> None:
    model = nn.Sequential(nn.Linear(1, 3), nn.MaxPool1d(3))
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    gradient = evaluate(model, torch.ones(1, 1)).gradient(torch.ones(1, 1), Minimal())
    assert gradient["0.bias"].fractions() == [Fraction(1, 3)] * 3


# Numbers written in a model: the same program has them in a buffer, as its type takes them.


class Numbers(nn.Module):
    """Every spelling of arithmetic with numbers, the numbers given."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.arithmetic(self.line(x), 0.1, 0.7, 3)

    def arithmetic(self, h: Tensor, a: Any, b: Any, c: Any) -> Tensor:
        h = F.relu(h - a) + b * h
        h = torch.sub(h, a).mul(c) / b
        h = (c - h).add_(a).div_(c)
        h += b
        return torch.neg(a + h) - h.clone()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_are_those_of_the_type(dtype: torch.dtype) -> None:
    """Against float64 at the numbers rounded by torch.tensor."""
    torch.manual_seed(0)
    model = Numbers().to(dtype)
    x, cotangent = torch.randn(2, 3, dtype=dtype), torch.randn(2, 3)
    point = evaluate(model, x)
    a, b, c = (torch.tensor(n, dtype=dtype).item() for n in (0.1, 0.7, 3))
    model.double()
    expected = model.arithmetic(model.line(x.double()), a, b, c)
    torch.testing.assert_close(point.output.to_float64(), expected, rtol=1e-13, atol=1e-14)
    weights = torch.autograd.grad(expected, model.line.weight, cotangent.double())
    exact = point.gradient(cotangent)["line.weight"].to_float64()
    torch.testing.assert_close(exact, weights[0], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("operation", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_numbers_are_taken_as_pytorch_takes_them(operation: Any, dtype: torch.dtype) -> None:
    """Rounded once from the exact result at the number that was taken, to the type."""
    torch.manual_seed(0)
    x = torch.randn(100_000, dtype=torch.float64).to(dtype)
    for number in torch.rand(20, dtype=torch.float64).tolist():
        taken = as_taken(number, operation, dtype, x.device)
        assert torch.equal(operation(x, number), operation(x.double(), taken).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_eps_of_batch_norm_is_that_of_the_type(dtype: torch.dtype) -> None:
    """On channels of variance 0 the output is x / √eps, in which eps alone is rounded."""
    model = nn.BatchNorm1d(1, eps=0.1, affine=False).to(dtype).eval()
    nn.init.zeros_(model.running_var)
    (found,) = evaluate(model, torch.ones(1, 1, dtype=dtype)).output.fractions()
    eps = Fraction(torch.tensor(0.1, dtype=dtype).item())
    assert abs(found * found * eps - 1) < Fraction(1, 2**50)


def test_a_number_beside_sizes_and_tensors() -> None:
    model = Function(lambda x: x / x.shape[1] * x + x.size(0) ** 2)
    assert evaluate(model, torch.tensor([[2.0, -4.0]])).output.fractions() == [3, 9]


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (lambda x: x / 0, "model: divides by 0"),
        (lambda x: x * float("inf"), "the number inf: a number is not finite"),
    ],
)
def test_numbers_that_cannot_be_used(function: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        evaluate(Function(function), torch.ones(1, 2))


# The self-check.


def agreement(model: nn.Module, x: Tensor, selection: str = "native") -> dict[str, Any]:
    """What :meth:`ExactPoint.require_agreement` takes, from a float64 copy of the model."""
    model = copy.deepcopy(model).double()
    with kinkcheck.record(model) as tape:
        output = model(x.double())
        cotangent = whole_numbers(output.detach(), 3)
        loss = (output * cotangent).sum()
    return {
        "output": output,
        "ties": {(s.layer, s.operation, s.call): s.tied for s in tape.sites},
        "cotangent": cotangent,
        "gradient": tape.gradient(loss, choose=selection),
        "selection": selection,
    }


def test_a_program_agrees_with_itself() -> None:
    for model, inputs, _ in coarse_points(20, seed=4):
        for selection in ("native", "minimal"):
            evaluate(model, inputs).require_agreement(**agreement(model, inputs, selection))


def test_another_output_is_refused_with_both_numbers() -> None:
    model, x = nn.Linear(1, 1, bias=False), torch.ones(1, 1)
    nn.init.constant_(model.weight, 0.5)
    recorded = agreement(model, x)
    with torch.no_grad():
        recorded["output"] = recorded["output"] * 3
    with pytest.raises(
        InputError, match=r"trace gives 0\.5 where the recorded program gives 1\.5 \(output, entry"
    ):
        evaluate(model, x).require_agreement(**recorded)
    recorded["output"] = torch.full((1, 1), float("nan"))
    with pytest.raises(InputError, match="gives nan"):
        evaluate(model, x).require_agreement(**recorded)
    recorded["output"] = torch.ones(1, 2)
    with pytest.raises(InputError, match=r"shape \(1, 1\) in the exact trace and \(1, 2\)"):
        evaluate(model, x).require_agreement(**recorded)


def test_another_gradient_is_refused_with_both_numbers() -> None:
    model, x = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()), torch.ones(1, 1)
    nn.init.ones_(model[0].weight)
    recorded = agreement(model, x)
    recorded["cotangent"] = torch.full((1, 1), 2.0)
    recorded["gradient"] = {"0.weight": torch.full((1, 1), 2.5)}
    with pytest.raises(
        InputError, match=r"gives 2\.0 where .* gives 2\.5 \(0\.weight, entry \(0, 0\)\)"
    ):
        evaluate(model, x).require_agreement(**recorded)


def test_gradients_are_those_of_other_branches_where_ties_differ() -> None:
    """x·w + b is 0 over the reals and, as its product is rounded, 2⁻⁶⁰ or so in float64."""
    model = nn.Sequential(nn.Linear(3, 1), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2.0**-60, -1.0]]))
        model[0].bias.fill_(-(2.0**-60))
    point = evaluate(model, torch.ones(1, 3))
    assert list(point.ties.values()) == [1]
    one = torch.ones(1, 1)
    recorded = {"output": torch.zeros(1, 1), "ties": {("1", "relu", 0): 0}, "cotangent": one}
    other = {"0.weight": torch.ones(1, 3), "0.bias": torch.ones(1)}
    point.require_agreement(**recorded, gradient=other)
    recorded["ties"] = {("1", "relu", 0): 1}
    with pytest.raises(InputError, match="judges another program"):
        point.require_agreement(**recorded, gradient=other)


def test_sites_that_only_one_of_both_has_are_named() -> None:
    model, x = nn.Sequential(nn.Linear(1, 1), nn.ReLU()), torch.ones(1, 1)
    recorded = agreement(model, x)
    ties = recorded["ties"]
    recorded["ties"] = ties | {("", "relu", 0): 0}
    with pytest.raises(InputError, match=r"the recorded program calls relu in layer '' \(call 0\)"):
        evaluate(model, x).require_agreement(**recorded)
    recorded["ties"] = {}
    with pytest.raises(InputError, match="the exact trace calls relu in layer '1'"):
        evaluate(model, x).require_agreement(**recorded)
