"""A recorded model is left as it was found, and what autograd keeps of the block stays valid."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kinkcheck import record


def contents(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """All that can be reached from a value: what it is, and the very objects."""
    seen = {} if seen is None else seen
    if id(value) in seen:
        return "seen", id(value)
    if isinstance(value, Tensor):
        # Bits rather than numbers: zeros have signs.
        bits = value.detach().contiguous().numpy().tobytes()
        where = value.data_ptr(), value.stride(), value.storage_offset()
        return id(value), type(value), value.dtype, value.shape, where, bits, value.requires_grad
    if isinstance(value, nn.Module | dict | list | tuple | set | deque):
        seen[id(value)] = value
    if isinstance(value, nn.Module):
        return id(value), contents(vars(value), seen)
    if isinstance(value, dict):
        return id(value), [(key, contents(entry, seen)) for key, entry in value.items()]
    if isinstance(value, list | tuple | deque):
        return id(value), [contents(entry, seen) for entry in value]
    if isinstance(value, set):
        return id(value), set(value)
    if isinstance(value, torch.Generator):
        return id(value), value.get_state().tolist()
    return id(value), value


def states() -> list[Any]:
    return [torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())]


class Untidy(nn.Module):
    """Keeps things in every place that a module has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("nothing", None)
        self.mean_again = self.mean
        self.mean_start = self.mean[:1]
        self.count = 0
        self.cache = torch.zeros(2, 3)
        self.history: list[Any] = [torch.zeros(1), [1, 2], (torch.ones(1), 3)]
        self.table: dict[str, Any] = {"a": {"b": torch.zeros(1)}, "c": 1}
        self.ordered = OrderedDict(first=1, second=2)
        self.recent: deque[int] = deque([1, 2], maxlen=2)
        self.known = {1, 2}
        self.outside = [nn.BatchNorm1d(3)]
        self.generator = torch.Generator().manual_seed(3)
        self.table["self"] = self.table
        self.unused = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.layer(x))
        self.feat = F.relu(hidden)
        self.mean.add_(hidden.detach().mean(0) + 1)
        self.mean_start.mul_(2)
        assert self.mean_again is self.mean
        assert self.mean_start.data_ptr() == self.mean.data_ptr()
        self.count += 1
        self.cache += 1
        self.nothing = torch.ones(1)
        self.late = nn.Linear(3, 3)
        self.register_buffer("later", torch.ones(1))
        self.register_parameter("latest", nn.Parameter(torch.ones(1)))
        del self.unused
        self.unused = nn.Tanh()
        self.history[0].add_(1)
        self.history[1].append(4)
        self.history[2][0].add_(1)
        self.history.append(hidden)
        self.table["a"]["b"] += 1
        self.table.pop("c", None)
        self.table["d"] = hidden
        self.ordered.move_to_end("first")
        self.recent.append(3)
        self.known.add(3)
        self.outside[0](hidden)
        self.eval()
        noise = torch.rand(3, generator=self.generator) + random.random() + np.random.rand()
        return (self.feat * self.cache.sum() * self.mean + noise * torch.rand(3)).sum()


def plain_gradient(model: nn.Module, x: Tensor) -> list[Tensor]:
    parameters = list(model.parameters())
    return list(torch.autograd.grad(model(x).sum(), parameters, allow_unused=True))


X = torch.tensor([[1.0, 0.0, -1.0], [0.5, 2.0, 1.0]])


def seeded() -> Untidy:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    return Untidy()


def test_everything_is_as_it_was() -> None:
    model = seeded()
    before = contents(model), states()
    with record(model):
        model(X)
        model(X)
    assert (contents(model), states()) == before
    with record(model) as tape:
        loss = model(X)
    assert (contents(model), states()) == before
    found = tape.gradient(loss)
    assert (contents(model), states()) == before
    for name, expected in zip(found, plain_gradient(seeded(), X), strict=True):
        assert torch.equal(found[name], expected), name


def test_everything_is_as_it_was_when_the_block_is_interrupted() -> None:
    model = seeded()
    before = contents(model), states()

    def block() -> None:
        with record(model):
            model(X)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        block()
    assert (contents(model), states()) == before


def test_without_a_model_the_random_states_are_put_back() -> None:
    before = states()
    with record():
        random.random(), np.random.rand(), torch.rand(1)
    assert states() == before


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_scripted_part_is_as_it_was() -> None:
    model = nn.Sequential(torch.jit.script(nn.BatchNorm1d(3)), nn.ReLU())
    before = {name: (id(b), b.clone()) for name, b in model.state_dict(keep_vars=True).items()}
    with record(model):
        model(X)
        model.eval()
    assert model[0].training
    for name, buffer in model.state_dict(keep_vars=True).items():
        assert torch.equal(buffer, before[name][1])


# --- parameters that a forward pass writes --------------------------------------------------------


class Renormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 2, max_norm=1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(torch.tensor([0, 2])).square().sum()


class Writing(nn.Module):
    """Two layers whose backward passes need the weights, which a forward pass writes first."""

    def __init__(self, write: Callable[[nn.Linear], None]) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.one, self.two):
            self.write(layer)
        return torch.relu(self.two(torch.relu(self.one(x)))).square().sum()


def clip(layer: nn.Linear) -> None:
    with torch.no_grad():
        layer.weight.clamp_(-0.1, 0.1)


def clip_data(layer: nn.Linear) -> None:
    layer.weight.data.clamp_(-0.1, 0.1)


def assign_data(layer: nn.Linear) -> None:
    layer.weight.data = layer.weight.data.sign()


def scale_all(layer: nn.Linear) -> None:
    with torch.no_grad():
        torch._foreach_mul_(list(layer.parameters()), 0.5)


def set_row(layer: nn.Linear) -> None:
    with torch.no_grad():
        layer.weight[0] = 0.25


def write_then_assign(layer: nn.Linear) -> None:
    clip(layer)
    assign_data(layer)
    clip(layer)


WRITES = (clip, clip_data, assign_data, scale_all, set_row, write_then_assign)


def writing(write: Callable[[nn.Linear], None]) -> Writing:
    torch.manual_seed(0)
    return Writing(write)


@pytest.mark.parametrize("write", WRITES)
def test_written_parameters_are_put_back_and_differentiated_as_written(
    write: Callable[[nn.Linear], None],
) -> None:
    model = writing(write)
    before = contents(model)
    with record(model) as tape:
        loss = model(X)
        inside = tape.gradient(loss)
    assert contents(model) == before
    expected = plain_gradient(writing(write), X)
    for choose in ("native", "branch:1", "native"):
        after = tape.gradient(loss, choose=choose)
        assert contents(model) == before
    for (name, found), want in zip(after.items(), expected, strict=True):
        assert torch.equal(found, want), name
        assert torch.equal(inside[name], want), name


@pytest.mark.parametrize("write", [clip, assign_data])
def test_a_backward_pass_that_would_use_other_numbers_is_refused(
    write: Callable[[nn.Linear], None],
) -> None:
    model = writing(write)
    with record(model):
        loss = model(X)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_parameters_that_change_after_the_block_are_left_changed() -> None:
    model = writing(clip)
    with record(model) as tape:
        loss = model(X)
    with torch.no_grad():
        model.one.weight.fill_(7)
    found = tape.gradient(loss)["one.weight"]
    assert model.one.weight.eq(7).all()
    assert torch.equal(found, plain_gradient(writing(clip), X)[0])


def test_the_norms_of_an_embedding_are_put_back() -> None:
    torch.manual_seed(0)
    model = Renormed()
    before = contents(model)
    with record(model) as tape:
        loss = model(X)
    assert loss.item() == pytest.approx(2.0)
    assert contents(model) == before
    (expected,) = plain_gradient(model, X)
    assert torch.equal(tape.gradient(loss)["table.weight"], expected)


def test_nested_blocks_put_parameters_back() -> None:
    model = writing(clip)
    before = contents(model)
    with record(model) as outer:
        model.one.weight.data.mul_(2)
        written = contents(model)
        with record(model) as inner:
            other = model(X)
        assert contents(model) == written
        loss = model(X)
    assert contents(model) == before
    for a, b in zip(outer.gradient(loss).values(), inner.gradient(other).values(), strict=True):
        assert torch.equal(a, b)


def test_a_step_of_an_optimiser_is_undone() -> None:
    model = nn.Linear(3, 1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    before = contents(model)
    with record(model):
        model(X).sum().backward()
        optimiser.step()
    assert contents(model) == before


def test_what_is_not_written_is_neither_copied_nor_touched() -> None:
    model = nn.Linear(3, 3)
    versions = [parameter._version for parameter in model.parameters()]
    with record(model):
        loss = torch.relu(model(X)).sum()
    assert [parameter._version for parameter in model.parameters()] == versions
    loss.backward()  # not refused


def test_a_module_that_keeps_an_activation_is_audited() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.feat = F.relu(self.layer(x))
            return self.feat

    model = Keeping()
    with record(model) as tape:
        loss = model(X).sum()
    assert not hasattr(model, "feat")
    expected = torch.autograd.grad(model(X).sum(), list(model.parameters()))
    with record(model):
        model(X)
    assert model.feat.requires_grad  # from the pass outside of any block
    for found, want in zip(tape.gradient(loss).values(), expected, strict=True):
        assert torch.equal(found, want)


def test_a_hook_that_the_block_registers_stays() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    with record(model) as tape:
        handle = model[1].register_full_backward_hook(lambda m, into, out: (3 * into[0],))
        loss = model(X).sum()
        model.eval()
    expected = plain_gradient(model, X)
    for found, want in zip(tape.gradient(loss).values(), expected, strict=True):
        assert torch.equal(found, want)
    assert model.training
    handle.remove()
    assert not torch.equal(plain_gradient(model, X)[0], expected[0])


class Checkpointed(Untidy):
    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(checkpoint(self.inner, x, use_reentrant=False))
        return hidden.square().sum()

    def inner(self, x: Tensor) -> Tensor:
        self.count += 1
        self.mean += 1
        self.cache = torch.ones(1)
        return F.dropout(self.norm(self.layer(x))).sin()


def test_what_checkpointing_runs_again_changes_nothing() -> None:
    torch.manual_seed(0)
    model = Checkpointed()
    with record(model) as tape:
        loss = model(X)
    before = contents(model), states()
    for choose in ("native", "branch:1"):
        found = tape.gradient(loss, choose=choose)
        assert (contents(model), states()) == before
    for name, expected in zip(found, plain_gradient(model, X), strict=True):
        assert torch.equal(found[name], expected), name
