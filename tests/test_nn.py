"""Modules with a fixed selection, and convert()."""

from __future__ import annotations

import copy
import math
import pickle
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import exact
import kinkcheck.nn as knn
from exact import Pooling, assert_same_bits, unit_roundoff
from kinkcheck import record
from kinkcheck.errors import InputError
from kinkcheck.selection import Hybrid, Minimal, parse
from strategies import betas, filled, poolings, seeds, whole_numbers

TWINS: list[tuple[nn.Module, type[nn.Module]]] = [
    (nn.MaxPool1d(2, ceil_mode=True), knn.MaxPool1d),
    (nn.MaxPool2d((2, 3), 1, 1, return_indices=True), knn.MaxPool2d),
    (nn.MaxPool3d(2, dilation=1), knn.MaxPool3d),
    (nn.AdaptiveMaxPool1d(3), knn.AdaptiveMaxPool1d),
    (nn.AdaptiveMaxPool2d((2, None)), knn.AdaptiveMaxPool2d),
    (nn.AdaptiveMaxPool3d(2, return_indices=True), knn.AdaptiveMaxPool3d),
    (nn.ReLU(inplace=True), knn.ReLU),
]
EVERY_MODULE = [
    knn.MaxPool1d(2, selection="minimal"),
    knn.MaxPool2d(2, 1, selection="hybrid:-2.5"),
    knn.MaxPool3d(2, selection="first"),
    knn.AdaptiveMaxPool1d(2, selection="last"),
    knn.AdaptiveMaxPool2d((2, None), selection="random:7"),
    knn.AdaptiveMaxPool3d(2),
    knn.ReLU(True, selection="branch:0.5"),
    knn.NormPool2d(2, 1, selection="branch:1"),
    knn.CompoundMaxPool2d(3.0, 2),
]
by_class = pytest.mark.parametrize("module", EVERY_MODULE, ids=lambda m: type(m).__name__)


def selections_of(model: nn.Module) -> list[str]:
    return [str(m.selection) for m in model.modules() if hasattr(m, "selection")]


def gradient_of(module: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    output = module(x * 1)  # modules in place may not write to a leaf
    output = output[0] if isinstance(output, tuple) else output
    return torch.autograd.grad(output, x, whole_numbers(output, 3))[0]


def an_input_for(module: nn.Module) -> Tensor:
    dimensions = next((int(d) for d in "123" if type(module).__name__.endswith(f"{d}d")), 2)
    shape = (2, *(4,) * dimensions)
    return filled(shape, (0.0, 0.0, 1.0, -1.0), torch.float32, 0)


# --- modules --------------------------------------------------------------------------------------


@given(st.data(), poolings, seeds)
def test_a_module_is_the_operation_under_its_selection(data: Any, case: Any, seed: int) -> None:
    pooling, sizes = case
    text = data.draw(st.sampled_from(["minimal", "hybrid:2", "first", "last"]))
    x = filled((1, *sizes), (-1.0, 0.0, 0.0, 1.0), torch.float64, seed).requires_grad_()
    output = pooling.module(text)(x)
    assert_same_bits(output, pooling(x))
    grad_output = whole_numbers(output, seed)
    (gradient,) = torch.autograd.grad(output, x, grad_output)
    expected = exact.gradient(x, grad_output, pooling, parse(text))
    # Weights of at most 3; up to n windows meet at an entry (as in test_max_pool).
    for got, want, (n, total) in zip(
        gradient.flatten().tolist(),
        expected[0],
        exact.magnitudes(x, grad_output, pooling)[0],
        strict=True,
    ):
        assert abs(Fraction(got) - want) <= (n + 6) * unit_roundoff(x.dtype) * 5 * total


@by_class
def test_modules_can_be_copied_and_pickled(module: nn.Module) -> None:
    x = an_input_for(module)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(twin) == repr(module)
        assert_same_bits(gradient_of(twin, x), gradient_of(module, x))


@pytest.mark.parametrize(
    ("module", "expected"),
    zip(
        EVERY_MODULE,
        [
            "MaxPool1d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False, "
            "selection='minimal')",
            "MaxPool2d(kernel_size=2, stride=1, padding=0, dilation=1, ceil_mode=False, "
            "selection='hybrid:-2.5')",
            "MaxPool3d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False, "
            "selection='first')",
            "AdaptiveMaxPool1d(output_size=2, selection='last')",
            "AdaptiveMaxPool2d(output_size=(2, None), selection='random:7')",
            "AdaptiveMaxPool3d(output_size=2, selection='native')",
            "ReLU(inplace=True, selection='branch:0.5')",
            "NormPool2d(kernel_size=2, stride=1, ceil_mode=False, selection='branch:1')",
        ],
        strict=False,
    ),
)
def test_repr_says_arguments_and_selection(module: nn.Module, expected: str) -> None:
    assert repr(module) == expected


def test_repr_of_a_compound_pool_says_beta_and_its_two_poolings() -> None:
    first, beta, minimal, native, last = repr(knn.CompoundMaxPool2d(3.0, 2)).splitlines()
    assert (first, beta.strip(), last) == ("CompoundMaxPool2d(", "beta=3", ")")
    assert "selection='minimal'" in minimal
    assert "selection='native'" in native


def test_a_relu_without_arguments_says_its_selection_alone() -> None:
    assert repr(knn.ReLU()) == "ReLU(selection='native')"


def test_a_selection_can_be_changed() -> None:
    pool = knn.MaxPool1d(2)
    x = torch.zeros(1, 2)
    assert gradient_of(pool, x)[0, 1] == 0
    pool.select("last")
    assert gradient_of(pool, x)[0, 0] == 0
    pool.select(Minimal())
    assert gradient_of(pool, x)[0, 0] == gradient_of(pool, x)[0, 1] != 0


POOL_ACCEPTS = (
    "native, minimal, hybrid:BETA, first, last, random:SEED, every, mix:FACTOR*SELECTION,..., "
    "as:FRAMEWORK, limit:SEED"
)
RELU_ACCEPTS = POOL_ACCEPTS.replace("every", "uniform:SEED, branch:ALPHA, kinks:ALPHA,..., every")


def test_a_selection_that_a_module_does_not_have_is_refused() -> None:
    for make in (lambda: knn.MaxPool2d(2, selection="branch:1"), _select_branch):
        with pytest.raises(InputError) as error:
            make()
        assert str(error.value) == f"max_pool has no selection branch:1; accepted: {POOL_ACCEPTS}"
    with pytest.raises(InputError) as error:
        knn.ReLU(selection="half")
    assert str(error.value) == f"unknown selection 'half'; accepted: {RELU_ACCEPTS}"


def _select_branch() -> None:
    pool = knn.AdaptiveMaxPool1d(2, selection="last")
    try:
        pool.select("branch:1")
    finally:
        assert str(pool.selection) == "last"


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # from torch.compile
def test_modules_give_the_same_when_compiled(backend: str) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 1, 1),
        knn.ReLU(selection="branch:0.5"),
        knn.MaxPool2d(2, selection="minimal"),
        knn.NormPool2d(2, selection="branch:1"),
    )
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(model), backend=backend)
    x = filled((2, 1, 8, 8), (0.0, 0.0, 1.0), torch.float32, 0)
    expected = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    actual = torch.autograd.grad(compiled(x).sum(), list(compiled.parameters()))
    for got, want in zip(actual, expected, strict=True):
        assert_same_bits(got, want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_modules_work_under_autocast(dtype: torch.dtype) -> None:
    x = filled((2, 1, 6, 6), (0.0, 1.0), torch.float32, 0)
    conv = nn.Conv2d(1, 2, 3)
    ours = nn.Sequential(conv, knn.ReLU(), knn.MaxPool2d(2), knn.NormPool2d(2))
    theirs = nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2), nn.LPPool2d(2, 2))
    with torch.autocast("cpu", dtype):
        actual, expected = ours(x), theirs(x)
    assert_same_bits(actual, expected)
    for got, want in zip(
        torch.autograd.grad(actual.sum(), list(conv.parameters())),
        torch.autograd.grad(expected.sum(), list(conv.parameters())),
        strict=True,
    ):
        assert_same_bits(got, want)


# --- the exact forward pass and the compound formula ----------------------------------------------


@given(seeds, betas, st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
def test_compound_value_is_the_formula(seed: int, beta: float, dtype: torch.dtype) -> None:
    x = filled((2, 4, 4), (-0.3, 0.1, 2.7, 100.0), dtype, seed)
    maximum = nn.MaxPool2d(2)(x)
    expected = beta * maximum + (1 - beta) * maximum
    assert_same_bits(knn.CompoundMaxPool2d(beta, 2)(x), expected)


@given(seeds, betas)
def test_compound_gradient_is_hybrid_within_rounding(seed: int, beta: float) -> None:
    arguments = {"kernel_size": 2, "stride": 1, "padding": 1, "ceil_mode": True}
    pooling = Pooling(
        2,
        {
            "kernel_size": (2, 2),
            "stride": (1, 1),
            "padding": (1, 1),
            "dilation": (1, 1),
            "ceil_mode": True,
        },
    )
    x = filled((2, 4, 5), (-1.0, 0.0, 0.0, 1.0), torch.float64, seed).requires_grad_()
    output = knn.CompoundMaxPool2d(beta, **arguments)(x)
    grad_output = whole_numbers(output, seed)
    (gradient,) = torch.autograd.grad(output, x, grad_output)
    expected = exact.gradient(x, grad_output, pooling, Hybrid(beta))
    sizes = exact.magnitudes(x, grad_output, pooling)
    for got, want, size in zip(gradient.flatten(1).tolist(), expected, sizes, strict=True):
        for g, w, (n, total) in zip(got, want, size, strict=True):
            # Two sums of n terms, their factors |β| and |1 - β| together at most 1 + 2|β|.
            scale = 1 + 2 * abs(Fraction(beta))
            assert abs(Fraction(g) - w) <= (2 * n + 6) * unit_roundoff(x.dtype) * scale * total


def test_forward_is_exact_at_float16_and_beta_1000_where_the_compound_one_is_not() -> None:
    x = filled((1, 8, 8), (0.1, 70.0, 300.3), torch.float16, 0)
    expected = nn.MaxPool2d(2)(x)
    assert_same_bits(knn.MaxPool2d(2, selection="hybrid:1000")(x), expected)
    compound = knn.CompoundMaxPool2d(1000, 2)(x)
    assert compound.isnan().any()
    assert math.isfinite(expected.sum())


# --- convert() ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("theirs", "ours"), TWINS, ids=lambda v: getattr(v, "__name__", None))
def test_convert_gives_a_module_its_namesake(theirs: nn.Module, ours: type[nn.Module]) -> None:
    model = nn.Sequential(copy.deepcopy(theirs))
    argument = "relu" if ours is knn.ReLU else "max_pool"
    assert knn.convert(model, **{argument: "hybrid:3"}) is model
    assert type(model[0]) is ours
    assert selections_of(model) == ["hybrid:3"]
    assert model[0].extra_repr() == f"{theirs.extra_repr()}, selection='hybrid:3'"
    x = an_input_for(theirs)
    for got, want in zip(model(x.clone()), theirs(x.clone()), strict=True):
        assert torch.equal(got, want)


def test_a_converted_root_is_returned() -> None:
    pool = nn.MaxPool2d(2)
    converted = knn.convert(pool, max_pool="minimal")
    assert type(converted) is knn.MaxPool2d
    assert type(pool) is nn.MaxPool2d
    again = knn.convert(converted, max_pool="last")
    assert selections_of(again) == ["last"]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(1, 1, 1), self.act), self.act])
        self.norm = knn.NormPool2d(1, selection="branch:1")
        self.also_pool = self.pool


def test_convert_keeps_shared_modules_shared_and_everything_else() -> None:
    model = Model().eval()
    before, keys = {k: v.data_ptr() for k, v in model.state_dict().items()}, list(model._modules)
    knn.convert(model, max_pool="minimal", relu="branch:0.5")
    assert model.act is model.blocks[1] is model.blocks[0][1]
    assert model.pool is model.also_pool
    assert (type(model.act), type(model.pool)) == (knn.ReLU, knn.MaxPool2d)
    assert selections_of(model) == ["branch:0.5", "minimal", "branch:1"]
    assert {k: v.data_ptr() for k, v in model.state_dict().items()} == before
    assert list(model._modules) == keys
    assert not any(module.training for module in model.modules())


def test_convert_keeps_hooks_mode_and_attributes() -> None:
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    model[1].eval()
    model[1].note = "mine"
    seen: list[str] = []
    model[0].register_forward_hook(lambda *_: seen.append("forward"))
    model[0].register_full_backward_hook(lambda *_: seen.append("backward"))
    knn.convert(model, max_pool="last", relu="branch:1")
    assert (model[0].training, model[1].training, model[1].note) == (True, False, "mine")
    model(torch.zeros(1, 2, 2, requires_grad=True)).sum().backward()
    assert seen == ["forward", "backward"]


def test_convert_leaves_what_it_is_not_told_about() -> None:
    model = nn.Sequential(nn.ReLU(), nn.MaxPool1d(2))
    assert knn.convert(model) is model
    knn.convert(model, relu="branch:1")
    assert (type(model[0]), type(model[1])) == (knn.ReLU, nn.MaxPool1d)
    assert model(torch.zeros(1, 2)).shape == (1, 1)


def test_convert_changes_the_selection_of_modules_that_have_one() -> None:
    model = nn.Sequential(knn.ReLU(selection="branch:1"), knn.MaxPool1d(2), knn.NormPool2d(1))
    knn.convert(model, relu=parse("branch:0.25"), max_pool=Hybrid(2))
    assert selections_of(model) == ["branch:0.25", "hybrid:2", "native"]


def test_a_call_is_converted_where_a_module_with_a_namesake_makes_it() -> None:
    class Mine(nn.ReLU):
        pass

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.mine, self.chosen = nn.ReLU6(), Mine(), knn.ReLU()
            self.again = self.act

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.chosen(self.mine(self.act(x)) + self.again(x)))

    model = Net()
    with record(model) as tape:
        model(torch.zeros(1))
    found = [knn.converts(model, site.layer, site.operation) for site in tape.sites]
    assert found == [True, False, True, True, False]
    knn.convert(model, relu="branch:1", hardtanh="last")
    with record(model) as tape:
        model(torch.zeros(1))
    chosen = [str(site.selection) for site in tape.sites]
    assert chosen == ["last", "native", "last", "branch:1", "native"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"max_pool": "branch:1"},
            f"max_pool has no selection branch:1; accepted: {POOL_ACCEPTS}",
        ),
        (
            {"max_pool": "minimal"},
            "max_pool: the model has no max_pool module to give minimal to; functional calls "
            "cannot be converted",
        ),
        (
            {"abs": "minimal"},
            "abs: the model has no abs module to give minimal to; functional calls cannot be "
            "converted",
        ),
        ({"relu": "most"}, f"unknown selection 'most'; accepted: {RELU_ACCEPTS}"),
    ],
)
def test_convert_refuses_what_cannot_be_done(arguments: dict[str, str], message: str) -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    with pytest.raises(InputError) as error:
        knn.convert(model, **arguments)
    assert str(error.value) == message
    assert type(model[1]) is nn.ReLU


def test_convert_does_nothing_when_one_of_two_things_cannot_be_done() -> None:
    model = nn.Sequential(nn.ReLU(), nn.MaxPool1d(2))
    with pytest.raises(InputError):
        knn.convert(model, max_pool="minimal", relu="most")
    assert [type(module) for module in model] == [nn.ReLU, nn.MaxPool1d]
