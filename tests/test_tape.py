"""The tape: gradients under any selection, and a model left as it was found."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import kinkcheck.networks
import kinkcheck.nn as knn
from exact import assert_same_bits
from kinkcheck.errors import InputError
from kinkcheck.tape import Tape, record


class Residual(nn.Module):
    """Convolutions, batch norm, dropout, a shortcut; modules and functions; live and dead ties."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.dropout = nn.Dropout(0.3)
        self.adaptive = nn.AdaptiveMaxPool2d(2)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act(self.norm(self.stem(x))))
        x = x + self.dropout(torch.relu(self.conv(x)))
        x = self.adaptive(x)
        return self.head(F.relu(x).flatten(1))


def residual(seed: int = 0) -> Residual:
    torch.manual_seed(seed)
    return Residual()


def coarse_images(*shape: int) -> Tensor:
    """Images of few values, in which patches and so activations repeat: ties are live."""
    generator = torch.Generator().manual_seed(1)
    small = torch.randint(0, 2, (*shape[:-2], shape[-2] // 4, shape[-1] // 4), generator=generator)
    return small.float().repeat_interleave(4, -1).repeat_interleave(4, -2)


def plain(
    model: nn.Module, x: Tensor, seed: int = 5, loss: Callable[[Tensor], Tensor] | None = None
) -> dict[str, Tensor]:
    """The gradient without a tape, from a copy of the model."""
    model = copy.deepcopy(model)
    torch.manual_seed(seed)
    output = model(x)
    (loss(output) if loss else output.square().sum()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def recorded(model: nn.Module, x: Tensor, seed: int = 5) -> tuple[Tape, Tensor]:
    torch.manual_seed(seed)
    with record(model) as tape:
        loss = model(x).square().sum()
    return tape, loss


def assert_same_gradients(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(actual) == list(expected)
    for name in expected:
        assert_same_bits(actual[name], expected[name])


def differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return any(not torch.equal(one[name], other[name]) for name in one)


# --- native ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_native_gradient_is_the_plain_one(
    dtype: torch.dtype, training: bool, memory_format: torch.memory_format
) -> None:
    model = residual().to(dtype).train(training).to(memory_format=memory_format)
    x = coarse_images(3, 1, 16, 16).to(dtype).contiguous(memory_format=memory_format)
    tape, loss = recorded(model, x)
    assert sum(site.tied - site.tied_at_zero for site in tape.sites) > 0
    assert_same_gradients(tape.gradient(loss), plain(model, x))
    assert differ(tape.gradient(loss), tape.gradient(loss, choose="minimal"))


def test_plain_backward_of_a_recorded_graph_is_native() -> None:
    model, x = residual(), coarse_images(2, 1, 16, 16)
    _, loss = recorded(model, x)
    loss.backward()
    assert_same_gradients({n: p.grad for n, p in model.named_parameters()}, plain(model, x))


def test_native_gradient_is_the_plain_one_under_autocast() -> None:
    model, x = residual(), coarse_images(2, 1, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        expected = plain(model, x)
        tape, loss = recorded(model, x)
    assert_same_gradients(tape.gradient(loss), expected)


_NETWORKS: tuple[str, ...] = getattr(kinkcheck.networks, "NAMES", ())
_IMAGES = {"lenet5": (1, 28), "mlp": (1, 28), "mlp-2048": (1, 28)}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("name", _NETWORKS)
def test_native_gradient_of_every_network_is_the_plain_one(
    name: str, batch_norm: bool, training: bool
) -> None:
    channels, size = _IMAGES.get(name, (3, 32))
    torch.manual_seed(0)
    model = kinkcheck.networks.build(
        name, in_channels=channels, classes=10, image_size=size, batch_norm=batch_norm
    )
    model.train(training)
    x = coarse_images(2, channels, size, size)
    tape, loss = recorded(model, x)
    assert tape.sites
    assert tape.unseen == []
    assert_same_gradients(tape.gradient(loss), plain(model, x))


# --- one forward pass, many backward passes -------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ("pool", "minimal"), ("pool", "hybrid:10"), ("pool", "last"), ("pool", "random:3"),
        ("act", "branch:1"), ("adaptive", "hybrid:-2"),
    ],
)  # fmt: skip
def test_choice_in_a_layer_is_that_layer_converted(layer: str, text: str) -> None:
    model, x = residual(), coarse_images(3, 1, 16, 16)
    tape, loss = recorded(model, x)
    chosen = tape.gradient(loss, choose={layer: text})
    rebuilt = copy.deepcopy(model)
    argument = {"relu" if layer == "act" else "max_pool": text}
    setattr(rebuilt, layer, knn.convert(getattr(rebuilt, layer), **argument))
    assert_same_gradients(chosen, plain(rebuilt, x))
    assert differ(chosen, plain(model, x)) or layer == "act"


def test_choice_everywhere_is_the_model_converted() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2))
    x = coarse_images(2, 1, 18, 18)
    tape, loss = recorded(model, x)
    chosen = tape.gradient(loss, choose="hybrid:5")
    converted = knn.convert(copy.deepcopy(model), max_pool="hybrid:5", relu="hybrid:5")
    assert_same_gradients(chosen, plain(converted, x))
    assert differ(chosen, plain(model, x))


def test_backward_passes_in_any_order_give_the_same_gradients() -> None:
    tape, loss = recorded(residual(), coarse_images(3, 1, 16, 16))
    choices = ["minimal", "native", {"pool": "hybrid:10"}, "random:1", "last", "branch:1"]
    once = [tape.gradient(loss, choose=choice) for choice in choices]
    for i in (5, 3, 0, 4, 1, 2, 0, 5):
        assert_same_gradients(tape.gradient(loss, choose=choices[i]), once[i])
    assert all(differ(once[i], once[1]) for i in (0, 2, 3, 4))


def test_a_failed_backward_pass_leaves_the_sites_alone() -> None:
    x = torch.zeros(2, requires_grad=True)
    with record() as tape:
        loss = torch.relu(x).sum()
        other = torch.zeros(()) * 1
    with pytest.raises(InputError, match="requires a gradient"):
        tape.gradient(other, [x], choose="branch:1")
    assert str(tape.sites[0].selection) == "native"
    assert tape.gradient(loss, [x])[0].tolist() == [0, 0]


def test_choice_by_mapping_of_sites() -> None:
    x = torch.zeros(1, requires_grad=True)
    with record() as tape:
        loss = 2 * torch.relu(x) + 5 * torch.relu(x + 0)
    first, second = tape.sites
    assert tape.gradient(loss, [x], choose={first: "branch:1"})[0].item() == 2
    assert tape.gradient(loss, [x], choose={second: "branch:1"})[0].item() == 5
    both = {first: "branch:3", second: "branch:0.5"}
    assert tape.gradient(loss, [x], choose=both)[0].item() == 8.5
    assert tape.gradient(loss, [x], choose={})[0].item() == 0
    assert tape.gradient(loss, [x], choose={"": "branch:1"})[0].item() == 7


def test_a_selection_that_only_some_sites_have_leaves_the_others_alone() -> None:
    x = torch.zeros(1, 2, requires_grad=True)
    with record() as tape:
        loss = F.max_pool1d(torch.relu(x), 2).sum()
    assert tape.gradient(loss, [x], choose="branch:1")[0].tolist() == [[1, 0]]
    assert tape.gradient(loss, [x], choose="last")[0].tolist() == [[0, 1]]


def test_unused_parameters_get_zeros_and_frozen_ones_nothing() -> None:
    model = nn.ModuleDict({"used": nn.Linear(1, 1), "unused": nn.Linear(2, 1)})
    model["used"].bias.requires_grad_(False)
    with record(model) as tape:
        loss = torch.relu(model["used"](torch.ones(1, 1))).sum()
    gradient = tape.gradient(loss)
    assert list(gradient) == ["used.weight", "unused.weight", "unused.bias"]
    assert gradient["unused.weight"].tolist() == [[0, 0]]
    assert all(parameter.grad is None for parameter in model.parameters())


# --- the model is left as it was found ------------------------------------------------------------


def fingerprint(model: nn.Module) -> list[Any]:
    """Everything that a forward pass may change, by identity where that matters."""
    return [
        [(name, module.training) for name, module in model.named_modules()],
        [
            (name, id(buffer), buffer.data_ptr(), buffer.tolist(), buffer._version)
            for name, buffer in model.named_buffers()
        ],
        [(id(parameter), parameter.data_ptr(), parameter.grad) for parameter in model.parameters()],
        [
            {key: len(value) for key, value in vars(module).items() if key.endswith("_hooks")}
            for module in model.modules()
        ],
        [sorted(vars(module)) for module in model.modules()],
        torch.get_rng_state().tolist(),
        len(torch.nn.modules.module._global_forward_pre_hooks),
        len(torch.nn.modules.module._global_forward_hooks),
        len(torch.nn.modules.module._global_forward_hooks_always_called),
    ]


@pytest.mark.parametrize("training", [True, False])
def test_model_is_left_as_found(training: bool) -> None:
    model = residual().train(training)
    before = fingerprint(model)
    with record(model) as tape:
        loss = model(coarse_images(2, 1, 16, 16)).sum()
        model.train(not training)
        model(coarse_images(2, 1, 16, 16))
        tape.gradient(loss, choose="minimal")
        assert model.norm.running_mean.count_nonzero() == 4
    tape.gradient(loss, choose="hybrid:10")
    assert fingerprint(model) == before


@pytest.mark.parametrize("where", ["block", "module"])
def test_model_is_left_as_found_when_the_block_raises(where: str) -> None:
    model = residual()
    before = fingerprint(model)

    def block() -> None:
        with record(model):
            model(coarse_images(2, 1, 16, 16))
            model.eval()
            if where == "module":
                model.head(torch.zeros(1, 5))
            raise KeyError("raised")

    with pytest.raises(KeyError if where == "block" else RuntimeError):
        block()
    assert fingerprint(model) == before
    tape, loss = recorded(model, coarse_images(2, 1, 16, 16))
    assert [site.layer for site in tape.sites] == ["act", "pool", "", "adaptive", ""]
    assert tape.gradient(loss)


class Counting(nn.Module):
    """A buffer that is assigned anew, one that appears, and one that two modules share."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("nothing", None)
        self.inner = nn.Module()
        self.inner.register_buffer("shared", torch.zeros(2))
        self.register_buffer("shared", self.inner.shared)

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        self.nothing = torch.ones(1)
        self.shared.add_(1)
        self.register_buffer("late", torch.ones(1))
        return torch.relu(x) * self.inner.shared.sum()


def test_buffers_assigned_anew_are_restored() -> None:
    model = Counting()
    before, shared = fingerprint(model), model.shared
    with record(model):
        assert model(torch.ones(1)).item() == 2
    assert fingerprint(model) == before
    assert model.shared is model.inner.shared is shared
    assert model.nothing is None
    assert not hasattr(model, "late")


def test_batch_norm_in_both_modes_keeps_what_its_backward_pass_needs() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), nn.ReLU(), nn.MaxPool2d(2))
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    other = copy.deepcopy(model)
    with record(model) as tape:
        model(x)
        loss = model.eval()(x).square().sum()
    other(x)
    other.eval()(x).square().sum().backward()
    assert_same_gradients(tape.gradient(loss), {n: p.grad for n, p in other.named_parameters()})


def test_random_state_is_restored_so_that_two_blocks_draw_the_same_mask() -> None:
    model, x = nn.Sequential(nn.Dropout(0.5), nn.ReLU()), torch.ones(64)
    torch.manual_seed(3)
    with record(model):
        one = model(x)
    with record(model):
        other = model(x)
    assert torch.equal(one, other)
    torch.manual_seed(3)
    assert torch.equal(model(x), one)


def test_nothing_is_recorded_after_the_block() -> None:
    x = torch.zeros(1, requires_grad=True)
    with record() as tape:
        torch.relu(x)
    torch.relu(x)
    x.abs()
    assert len(tape.sites) == 1
    assert tape.unseen == []


# --- gradients inside the block, several tapes ----------------------------------------------------


def test_gradient_inside_the_block_adds_no_site() -> None:
    model, x = residual(), coarse_images(2, 1, 16, 16)
    expected = plain(model, x)
    torch.manual_seed(5)
    with record(model) as tape:
        loss = model(x).square().sum()
        sites = list(tape.sites)
        inside = [tape.gradient(loss, choose=choice) for choice in ("native", "minimal")]
        torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        assert tape.sites == sites
    assert tape.unseen == []
    assert_same_gradients(inside[0], expected)
    assert_same_gradients(inside[1], tape.gradient(loss, choose="minimal"))


def test_plain_backward_inside_the_block_adds_no_site() -> None:
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    with record() as tape:
        (F.max_pool2d(x, 2) + F.lp_pool2d(x, 2.0, 2) + torch.relu(x)[..., :2, :2]).sum().backward()
    assert [site.operation for site in tape.sites] == ["max_pool2d", "norm_pool2d", "relu"]
    assert tape.unseen == []
    assert x.grad.sum() == 4


def test_of_nested_tapes_either_can_choose() -> None:
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    with record() as outer:
        before = torch.relu(x)
        with record() as inner:
            loss = (F.max_pool2d(before, 2) + F.lp_pool2d(x, 2.0, 2)).sum()
    assert [site.operation for site in outer.sites] == ["relu", "max_pool2d", "norm_pool2d"]
    assert [site.operation for site in inner.sites] == ["max_pool2d", "norm_pool2d"]
    for tape in (outer, inner):
        (gradient,) = tape.gradient(loss, [x], choose={tape.sites[-1]: "branch:0.5"})
        assert gradient.tolist() == torch.full_like(x, 0.5).tolist()
    relu, pool, _ = outer.sites
    (gradient,) = outer.gradient(loss, [x], choose={relu: "branch:1", pool: "minimal"})
    assert gradient.tolist() == torch.full_like(x, 0.25).tolist()
    assert outer.gradient(loss, [x])[0].count_nonzero() == 0


def test_two_tapes_of_one_model_are_independent() -> None:
    model, x = residual(), coarse_images(2, 1, 16, 16)
    (one, first), (other, second) = recorded(model, x), recorded(model, 1 - x)
    minimal = other.gradient(second, choose="minimal")
    assert_same_gradients(one.gradient(first), plain(model, x))
    assert_same_gradients(other.gradient(second, choose="minimal"), minimal)
    assert not set(one.sites) & set(other.sites)


# --- sites ----------------------------------------------------------------------------------------


def test_sites_name_layers_operations_and_calls() -> None:
    tape, _ = recorded(residual(), coarse_images(3, 1, 16, 16))
    found = [(site.layer, site.operation, site.call, site.windows) for site in tape.sites]
    assert found == [
        ("act", "relu", 0, 3 * 4 * 16 * 16),
        ("pool", "max_pool2d", 0, 3 * 4 * 8 * 8),
        ("", "relu", 0, 3 * 4 * 8 * 8),
        ("adaptive", "adaptive_max_pool2d", 0, 3 * 4 * 2 * 2),
        ("", "relu", 1, 3 * 4 * 2 * 2),
    ]


class Recovering(nn.Module):
    """A child that fails, one that works, and a call of its own after each."""

    def __init__(self) -> None:
        super().__init__()
        self.works = nn.ReLU()
        self.fails = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        with contextlib.suppress(RuntimeError):
            self.fails(x)
        return torch.relu(self.works(torch.relu(x)))


def test_calls_after_a_child_belong_to_their_own_module() -> None:
    model = nn.Sequential(nn.Identity(), Recovering())
    with record(model) as tape:
        model(torch.zeros(1, 2))
    assert [site.layer for site in tape.sites] == ["1", "1.works", "1"]


def test_a_module_called_twice_makes_two_sites_of_one_layer() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()
            self.scale = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.scale * x) + 10 * self.act(self.scale * x)

    model = Twice()
    with record(model) as tape:
        loss = model(torch.ones(1))
    assert [(site.layer, site.call) for site in tape.sites] == [("act", 0), ("act", 1)]
    assert tape.gradient(loss, choose={"act": "branch:1"})["scale"].item() == 11
    assert tape.gradient(loss, choose={tape.sites[1]: "branch:1"})["scale"].item() == 10


def test_without_a_model_each_outermost_module_names_its_layers() -> None:
    one = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    other = nn.Sequential(nn.Sequential(nn.ReLU()), nn.MaxPool1d(2))
    with record() as tape:
        x = torch.relu(torch.zeros(1, 2))
        other(one(x))
    found = [(site.layer, site.operation) for site in tape.sites]
    # The second tree goes under the name of its class: no two layers share a name.
    assert found == [
        ("", "relu"), ("1", "relu"), ("Sequential.0.0", "relu"), ("Sequential.1", "max_pool1d"),
    ]  # fmt: skip


def test_modules_with_a_selection_keep_it_unless_another_is_chosen() -> None:
    model = nn.Sequential(
        knn.ReLU(selection="branch:1"), knn.MaxPool2d(2, selection="minimal"), knn.NormPool2d(1)
    )
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    with record(model) as tape:
        loss = (model[1](model[0](x)) + model[2](x).sum()).sum()
    assert [str(site.selection) for site in tape.sites] == ["branch:1", "minimal", "native"]
    quarter = torch.full((4,), 0.25)
    (own,) = torch.autograd.grad(loss, x, retain_graph=True)
    assert torch.equal(own.flatten(), quarter)
    assert torch.equal(tape.gradient(loss, [x], choose={})[0].flatten(), quarter)
    assert tape.gradient(loss, [x], choose="native")[0].count_nonzero() == 0
    (last,) = tape.gradient(loss, [x], choose={"1": "last"})
    assert last.flatten().tolist() == [0, 0, 0, 1]


# --- what cannot be seen --------------------------------------------------------------------------


def unseen_of(model: nn.Module, x: Tensor) -> list[tuple[str, str, str, int]]:
    with record(model) as tape:
        model(x)
    return [(u.layer, u.operation, u.reason, u.calls) for u in tape.unseen]


NO_BRANCHES = "kinkcheck does not define its branches"
NOT_PYTHON = "called from scripted or C++ code"


EDGE = "its slope is infinite where its domain ends"


class Bounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.renorm(2, 0, 1.0)


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.acos() + torch.acos(x)


@pytest.mark.parametrize(
    ("kink", "expected"),
    [
        (Bounded(), [("1", "renorm", NO_BRANCHES, 1)]),
        (Twice(), [("1", "acos", EDGE, 2)]),
        (nn.GELU(), []),
    ],
)
def test_unknown_kinks_are_named(kink: nn.Module, expected: Any) -> None:
    assert unseen_of(nn.Sequential(nn.Linear(2, 2), kink), torch.ones(1, 2)) == expected


def test_a_kink_without_a_gradient_is_not_named() -> None:
    with record() as tape, torch.no_grad():
        torch.ones(1, requires_grad=True).abs()
    with record() as tape:
        torch.ones(1).abs()
    assert tape.unseen == []


def test_a_recurrent_network_with_relu_is_named() -> None:
    found = unseen_of(nn.Sequential(nn.RNN(2, 2, nonlinearity="relu")), torch.ones(3, 1, 2))
    assert found == [("0", "relu", NOT_PYTHON, 3)]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_scripted_module_is_named_and_left_as_found() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.BatchNorm1d(2), nn.ReLU()))
    model = nn.Sequential(nn.Linear(2, 2), scripted)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = unseen_of(model, torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
    assert ("1", type(scripted).__name__, "scripted module", 1) in found
    assert ("relu", NOT_PYTHON) in {(operation, reason) for _, operation, reason, _ in found}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.filterwarnings("ignore:Using `torch.compile")
def test_a_compiled_module_is_named_and_recorded_uncompiled() -> None:
    compiled = torch.compile(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), backend="eager")
    model, x = nn.Sequential(compiled, nn.ReLU()), torch.ones(1, 2)
    with record(model) as tape:
        loss = model(x).sum()
    (unseen,) = tape.unseen
    assert (unseen.layer, unseen.operation) == ("0", "OptimizedModule")
    assert unseen.reason == "compiled module, run uncompiled while recorded"
    assert [site.layer for site in tape.sites] == ["0._orig_mod.1", "1"]
    expected = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    for actual, want in zip(tape.gradient(loss).values(), expected, strict=True):
        assert_same_bits(actual, want)


# --- checkpointing --------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [False, True])
def test_activation_checkpointing(inside: bool) -> None:
    class Checkpointed(Residual):
        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(super().forward, x, use_reentrant=False)

    model, x = residual().eval(), coarse_images(2, 1, 16, 16)
    checkpointed = Checkpointed().eval()
    checkpointed.load_state_dict(model.state_dict())
    reference, its_loss = recorded(model, x)
    choices = ("native", "minimal", {"pool": "hybrid:10"}, {"act": "branch:1"})
    expected = [reference.gradient(its_loss, choose=choice) for choice in choices]
    with record(checkpointed) as tape:
        loss = checkpointed(x).square().sum()
        if inside:
            actual = [tape.gradient(loss, choose=choice) for choice in choices]
    if not inside:
        actual = [tape.gradient(loss, choose=choice) for choice in choices]
    for got, want in zip(actual, expected, strict=True):
        assert_same_gradients(got, want)
    assert len(tape.sites) == len(reference.sites)


@pytest.mark.parametrize("maximum", [lambda x: x.amax(1), lambda x: F.max_pool1d(x, 2)[:, 0]])
def test_a_limit_leaves_outputs_that_one_entry_attains(maximum: Any) -> None:
    x = torch.tensor([[1.0, 1.0], [2.0, 1.0]], requires_grad=True)
    with record() as tape:
        loss = maximum(x).sum()
    (gradient,) = tape.gradient(loss, [x], choose="limit:0")
    assert gradient[0].tolist() in ([1.0, 0.0], [0.0, 1.0])
    assert gradient[1].tolist() == [1.0, 0.0]


# --- errors ---------------------------------------------------------------------------------------


@pytest.fixture
def pooled() -> tuple[Tape, Tensor]:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.MaxPool2d(2), nn.MaxPool2d(2))
    with record(model) as tape:
        loss = model(torch.zeros(1, 1, 4, 4)).sum()
    return tape, loss


POOL_ACCEPTS = (
    "native, minimal, hybrid:BETA, first, last, random:SEED, every, mix:FACTOR*SELECTION,..., "
    "as:FRAMEWORK, limit:SEED"
)


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        ("branch:1", f"max_pool has no selection branch:1; accepted: {POOL_ACCEPTS}"),
        ({"1": "branch:1"}, f"max_pool has no selection branch:1; accepted: {POOL_ACCEPTS}"),
        ({"3": "minimal"}, "choose: no site in layer '3'; layers with sites: 1, 2"),
        (
            {"1": "maximal"},
            "unknown selection 'maximal'; did you mean 'minimal'? "
            "accepted: native, minimal, hybrid:BETA, first, last, random:SEED, uniform:SEED, "
            "branch:ALPHA, kinks:ALPHA,..., every, mix:FACTOR*SELECTION,..., as:FRAMEWORK, "
            "limit:SEED",
        ),
    ],
)
def test_a_wrong_choice_is_explained(
    pooled: tuple[Tape, Tensor], choose: Any, message: str
) -> None:
    tape, loss = pooled
    with pytest.raises(InputError) as error:
        tape.gradient(loss, choose=choose)
    assert str(error.value) == message
    assert [str(site.selection) for site in tape.sites] == ["native", "native"]


def test_a_site_of_another_tape_is_refused(pooled: tuple[Tape, Tensor]) -> None:
    tape, loss = pooled
    with record() as other:
        torch.relu(torch.zeros(1))
    with pytest.raises(InputError) as error:
        tape.gradient(loss, choose={other.sites[0]: "branch:1"})
    assert str(error.value) == (
        "choose: no site in layer Site(layer='', operation='relu', call=0); layers with sites: 1, 2"
    )


def test_a_loss_that_is_no_number_is_refused(pooled: tuple[Tape, Tensor]) -> None:
    with pytest.raises(InputError) as error:
        pooled[0].gradient(torch.zeros(2, 3))
    assert str(error.value) == "loss: must be a single number, not a tensor of shape (2, 3)"


def test_parameters_must_come_from_somewhere() -> None:
    x = torch.zeros(1, requires_grad=True)
    with record() as tape:
        loss = torch.relu(x)
    with pytest.raises(InputError) as error:
        tape.gradient(loss)
    assert str(error.value) == (
        "inputs: needed when nothing was passed to record(); pass the tensors to differentiate "
        "with respect to, or record(model)"
    )
    with record(nn.ReLU()) as tape:
        loss = torch.relu(x)
    with pytest.raises(InputError) as error:
        tape.gradient(loss)
    assert str(error.value) == "inputs: no parameter of the recorded model requires a gradient"


def test_a_layer_is_refused_where_nothing_was_recorded() -> None:
    with record() as tape:
        loss = torch.ones((), requires_grad=True) * 1
    with pytest.raises(InputError) as error:
        tape.gradient(loss, [loss], choose={"": "minimal"})
    assert str(error.value) == "choose: no site in layer ''; layers with sites: none"
    assert tape.gradient(loss, [loss], choose="minimal")[0].item() == 1


def test_a_limit_is_along_one_direction() -> None:
    x = torch.zeros(1, requires_grad=True)
    with record() as tape:
        loss = (torch.relu(x) + x.abs()).sum()
    one, other = tape.sites
    with pytest.raises(InputError) as error:
        tape.gradient(loss, x, choose={one: "limit:1", other: "limit:0"})
    message = "choose: a limit is along one direction, not several (limit:0, limit:1)"
    assert str(error.value) == message
    assert tape.gradient(loss, x, choose={one: "limit:1"})[0].item() in (0, 1)


def test_a_limit_goes_through_activation_checkpointing() -> None:
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    with record() as tape:
        again = checkpoint(torch.relu, x * 1, use_reentrant=False).sum()
        plain = torch.relu(x * 1).sum()
    for seed in range(4):
        (expected,) = tape.gradient(plain, x, choose=f"limit:{seed}")
        assert torch.equal(tape.gradient(again, x, choose=f"limit:{seed}")[0], expected)
