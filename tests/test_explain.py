"""Gradients from elsewhere: of programs that make the other choice by hand, and of JAX."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kinkcheck
from command_line import Kinkcheck
from kinkcheck import InputError
from kinkcheck.explain import Cause, Explanation

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

Step = Callable[[nn.Module, Any], Tensor]
Relu = Callable[[Tensor], Tensor]


class Net(nn.Module):
    """Filters of few numbers, a ReLU, pooling and a layer: many sums are 0, or equal."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv2d(1, 4, 3)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Linear(36, 5)
        nn.init.zeros_(self.filters.bias)
        with torch.no_grad():
            self.filters.weight.copy_(torch.randint(-1, 2, (4, 1, 3, 3)) / 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.pool(self.relu(self.filters(images))).flatten(1))


def subject(seed: int = 0) -> tuple[Net, tuple[Tensor, Tensor]]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Net()
        images = F.pad(torch.randint(0, 2, (4, 1, 4, 4)).float(), (2, 2, 2, 2))
        return model, (images, torch.arange(4))


def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def plain(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """What plain PyTorch returns."""
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))


def shared(input: Tensor) -> Tensor:
    """Pooling that shares ties equally: of ``amax``."""
    return input.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2).amax(-1)


def last(input: Tensor) -> Tensor:
    """Pooling that takes the last of tied entries."""
    return F.max_pool2d(input.flip(-1, -2), 2).flip(-1, -2)


def masked(input: Tensor) -> Tensor:
    """Pooling that gives every tied entry the whole gradient, as a comparison with the maximum."""
    windows = input.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
    best = windows.amax(-1, keepdim=True).detach()
    moving = (windows - windows.detach()) * (windows == best)
    return best.squeeze(-1) + moving.sum(-1)


def with_slope(slope: float) -> Relu:
    """A ReLU of some slope at 0."""

    def relu(input: Tensor) -> Tensor:
        moving = input - input.detach()
        return torch.relu(input.detach()) + moving * ((input > 0) + slope * (input == 0))

    return relu


def differently(relu: Relu = torch.relu, pool: Relu = lambda x: F.max_pool2d(x, 2)) -> Any:
    """The gradient of the same network with another ReLU and other pooling, by plain PyTorch."""
    model, (images, labels) = subject()
    output = model.last(pool(relu(model.filters(images))).flatten(1))
    return plain(model, F.cross_entropy(output, labels))


def explained(other: Any) -> Explanation:
    model, batch = subject()
    return kinkcheck.explain(model, step, batch, other)


def found(explanation: Explanation) -> dict[str, str]:
    return {each.layer: each.selection for each in explanation.chosen}


@pytest.mark.parametrize(
    ("other", "expected", "cause"),
    [
        (differently(pool=shared), {"pool": "minimal"}, Cause.CHOICE),
        (differently(pool=last), {"pool": "last"}, Cause.CHOICE),
        (differently(lambda x: torch.maximum(x, torch.zeros(()))), {"relu": "branch:0.5"},
         Cause.CHOICE),
        (differently(with_slope(1.0)), {"relu": "last"}, Cause.CHOICE),
        (differently(with_slope(0.375)), {"relu": "branch:0.375"}, Cause.CHOICE),
        # What one lets through the other shares out: the two choices multiply.
        (differently(with_slope(0.5), shared), {"relu": "branch:0.5", "pool": "minimal"},
         Cause.CHOICE),
        (differently(with_slope(1.0), last), {"relu": "last", "pool": "last"}, Cause.CHOICE),
        (differently(with_slope(2.0)), {"relu": "branch:2"}, Cause.OUTSIDE),
        (differently(with_slope(-1.0)), {"relu": "branch:-1"}, Cause.OUTSIDE),
        (differently(with_slope(1.0), masked), {"relu": "last", "pool": "every"}, Cause.OUTSIDE),
    ],
)  # fmt: skip
def test_other_choices_are_found_and_named(
    other: dict[str, Tensor], expected: dict[str, str], cause: Cause
) -> None:
    explanation = explained(other)
    assert (found(explanation), explanation.cause) == (expected, cause)
    assert all(each.allowed for each in explanation.chosen) == (cause is Cause.CHOICE)
    assert explanation.remainder < explanation.rounding < 1e-3 * explanation.difference
    # The choices are those of the other program: the tape replays its gradient.
    model, batch = subject()
    with kinkcheck.record(model) as tape:
        loss = step(model, batch)
    for name, gradient in tape.gradient(loss, choose=expected).items():
        torch.testing.assert_close(gradient, other[name])
    for layer in expected:
        assert f"`{layer}`" in explanation.answer


def test_the_first_line_says_what_the_other_gradient_does() -> None:
    assert explained(differently(pool=shared)).answer == (
        "The difference is explained by the choice at `pool` (max_pool2d): the other gradient "
        "shares ties equally there."
    )
    assert explained(differently(with_slope(2.0))).answer == (
        "The difference is explained by the weights of ties at `relu` (relu), which no choice "
        "between branches gives: the other gradient has the slope 2 at 0 there."
    )


@pytest.mark.parametrize("beta", [0.25, 1.2])
def test_a_choice_between_two_others_is_found(beta: float) -> None:
    one, other = differently(), differently(pool=shared)
    between = {name: (1 - beta) * one[name] + beta * other[name] for name in one}
    assert found(explained(between)) == {"pool": f"hybrid:{beta}"}
    # Up to four entries tie: 4/3 is as far as the subdifferential goes.
    assert explained(between).cause is Cause.CHOICE


@pytest.mark.parametrize("first", [0.25, 1.0, -1.0])
def test_what_each_of_two_tensors_has_is_found(first: float) -> None:
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.ones(2, 1))
        model.bias.zero_()

    def larger(model: nn.Module, x: Tensor) -> Tensor:
        return torch.maximum(*model(x).unbind(1)).sum()

    other = {"weight": [[2 * first], [2 * (1 - first)]], "bias": [first, 1 - first]}
    explanation = kinkcheck.explain(model, larger, torch.tensor([[2.0]]), other)
    (chosen,) = explanation.chosen
    assert chosen.selection == {0.25: "mix:0.25*first,0.75*last", 1.0: "first",
                                -1.0: "mix:-1*first,2*last"}[first]  # fmt: skip
    assert chosen.allowed == (first >= 0)


def test_another_order_of_sums_is_rounding() -> None:
    model, (images, labels) = subject()
    order = torch.tensor([2, 0, 3, 1])
    losses = F.cross_entropy(model(images[order]), labels[order], reduction="none")
    explanation = explained(plain(model, losses.flip(0).sum() / 4))
    assert explanation.cause is Cause.ROUNDING
    assert explanation.answer == "The difference is explained by rounding."
    assert 0 < explanation.difference < explanation.rounding


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_choice_is_told_where_rounding_is_larger(dtype: torch.dtype) -> None:
    model, (images, labels) = subject()
    model, images = model.to(dtype), images.to(dtype)
    pooled = shared(torch.relu(model.filters(images)))
    other = plain(model, F.cross_entropy(model.last(pooled.flatten(1)), labels))
    explanation = kinkcheck.explain(model, step, (images, labels), other)
    assert (found(explanation), explanation.cause) == ({"pool": "minimal"}, Cause.CHOICE)
    assert explanation.precision == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_never_a_choice(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    other = {
        name: each * (1 + 1e-7 * torch.randn(each.shape, generator=generator))
        for name, each in differently().items()
    }
    assert explained(other).cause is Cause.ROUNDING


def test_a_mistake_is_not_explained_away() -> None:
    model, batch = subject()
    penalty = 1e-2 * model.last.weight.square().sum()
    explanation = explained(plain(model, step(model, batch) + penalty))
    assert explanation.cause is Cause.UNEXPLAINED
    assert list(explanation.remainders) == ["last.weight"]
    assert "More than rounding remains at last.weight (" in str(explanation)


def test_a_small_tensor_is_not_lost_beside_large_ones() -> None:
    other = differently()
    other["filters.bias"] = other["filters.bias"] + 1e-4 * other["filters.bias"].abs().mean()
    explanation = explained(other)
    assert explanation.cause is Cause.UNEXPLAINED
    assert list(explanation.remainders) == ["filters.bias"]


def test_a_sum_in_place_of_a_mean_is_told() -> None:
    model, (images, labels) = subject()
    explanation = explained(plain(model, F.cross_entropy(model(images), labels, reduction="sum")))
    assert explanation.cause is Cause.UNEXPLAINED
    assert explanation.scale == pytest.approx(4)
    assert "The other gradient is 4" in str(explanation)


def test_both_bounds_of_a_clamp_have_slopes_of_their_own() -> None:
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(1)
        model.bias.fill_(0)
    x = torch.tensor([[-1.0], [0.0], [1.0], [3.0]])

    def clamped(model: nn.Module, x: Tensor) -> Tensor:
        return (model(x).clamp(0, 1) * torch.tensor([[1.0], [2.0], [5.0], [9.0]])).sum()

    # The slope 1/2 at 0 and 1/4 at 1.
    other = {"weight": [[5 * 0.25]], "bias": [2 * 0.5 + 5 * 0.25]}
    (chosen,) = kinkcheck.explain(model, clamped, x, other).chosen
    assert (chosen.selection, chosen.words) == (
        "kinks:0.5,0.75", "has the slope 0.5 at 0 and 0.25 at 1",
    )  # fmt: skip


def test_of_equal_entries_in_order_another_one_is_taken() -> None:
    model = nn.Linear(1, 3)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.tensor([1.0, 1.0, 0.0]))

    def running(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).cummax(1).values.sum()

    # The largest so far is the first at every place; PyTorch takes the last that equals it.
    other = {"weight": [[6.0], [0.0], [0.0]], "bias": [3.0, 0.0, 0.0]}
    explanation = kinkcheck.explain(model, running, torch.tensor([[2.0]]), other)
    assert {each.operation: each.selection for each in explanation.chosen} == {"cummax": "first"}


def test_without_ties_nothing_is_said_of_choices() -> None:
    model = nn.Linear(1, 1)
    other = {"weight": [[2.0]], "bias": [1.0]}
    explanation = kinkcheck.explain(model, lambda m, x: m(x).sum(), torch.ones(1, 1), other)
    assert explanation.answer.startswith("The difference is not explained: no tie was met")


def test_the_model_is_left_as_it_was() -> None:
    model, batch = subject()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    kinkcheck.explain(model, step, batch, differently(pool=shared))
    for name, each in model.state_dict().items():
        assert torch.equal(each, before[name])
    assert all(parameter.grad is None for parameter in model.parameters())


# --- files and complaints -------------------------------------------------------------------------


def test_files_of_both_kinds_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    other = differently(pool=shared)
    np.savez(tmp_path / "other.npz", **{name: each.numpy() for name, each in other.items()})
    save_file({name: each.bfloat16() for name, each in other.items()}, tmp_path / "o.safetensors")
    for name in ("other.npz", "o.safetensors"):
        assert found(explained(tmp_path / name)) == {"pool": "minimal"}


def _without(name: str) -> dict[str, Tensor]:
    return {key: each for key, each in differently().items() if key != name}


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (differently() | {"filters.wieght": torch.zeros(1)},
         "other: unknown parameter 'filters.wieght'; did you mean 'filters.weight'? accepted: "),
        (_without("last.bias"), "other: has no gradient of 'last.bias'; it has "),
        (differently() | {"last.weight": torch.zeros(36, 5)},
         "other: the gradient of 'last.weight' has shape (36, 5), the parameter (5, 36); trans"),
        (differently() | {"last.bias": torch.full((5,), torch.nan)},
         "other: the gradient of 'last.bias' has 5 entries that are not finite, of 5"),
        (differently() | {"last.bias": torch.zeros(5, dtype=torch.int64)}, "not of floats"),
        (differently() | {"last.bias": "none"}, "other: the gradient of 'last.bias' is no array"),
        ([1.0], "other: must be a gradient by parameter name or a file of one, not list"),
        ("nowhere.npz", "nowhere.npz cannot be read: No such file or directory"),
        ("other.pt", "other.pt: must be a file of the kinds .npz or .safetensors"),
    ],
)  # fmt: skip
def test_a_gradient_that_cannot_be_compared_is_refused(other: Any, complaint: str) -> None:
    with pytest.raises(InputError) as error:
        explained(other)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_a_broken_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"broken.{kind}"
    path.write_bytes(b"no such thing")
    with pytest.raises(InputError, match=f"broken.{kind}: cannot be read as .{kind}: ") as error:
        explained(path)
    assert "pickle" not in str(error.value)  # what NumPy takes any other file for


# --- JAX, and the command line --------------------------------------------------------------------


def test_the_gradient_of_jax_is_explained(kinkcheck: Kinkcheck, tmp_path: Path) -> None:
    file = tmp_path / "explained.json"
    run = kinkcheck(
        "explain", f"{EXAMPLES}/ported.py:make", "--gradient", f"{EXAMPLES}/ported_jax.npz",
        "--json", str(file),
    )  # fmt: skip
    assert (run.code, run.err) == (0, "")
    assert run.text.startswith(
        "The difference is explained by the choices at `clip` (clamp) and `larger` (abs)."
    )
    held = json.loads(file.read_text(encoding="utf-8"))
    # What JAX 0.10.2 has: 1/2 where clip meets a bound, 1 for abs at 0.
    chosen = {each["operation"]: each["words"] for each in held["chosen"]}
    assert chosen == {"clamp": "has the slope 0.5 at 0", "abs": "has the slope 1 at 0"}
    assert any(name.startswith("as:jax-") for name in held["conventions"])
    assert not any(name.startswith("as:torch-") for name in held["conventions"])
    # Pooling and maximum have ties too, where JAX chooses as PyTorch does.
    assert (held["ties"], held["cause"], held["schema"]) == (4, "choice", 1)


def test_what_is_not_explained_has_another_exit_code(kinkcheck: Kinkcheck, tmp_path: Path) -> None:
    with np.load(EXAMPLES / "ported_jax.npz") as held:
        other = {name: held[name] for name in held.files}
    other["first.bias"] = other["first.bias"] + np.float32(0.5)
    np.savez(tmp_path / "wrong.npz", **other)
    program = f"{EXAMPLES}/ported.py:make"
    run = kinkcheck("explain", program, "--gradient", str(tmp_path / "wrong.npz"))
    assert run.code == 1
    assert run.text.startswith("The difference is not explained: it is more than rounding")
    assert "remains at" in run.text
    run = kinkcheck("explain", program, "--gradient", str(tmp_path / "wrong.npz"), "--batch", "1")
    assert (run.code, run.out) == (2, "")
    assert "--batch: " in run.err
    assert "has batches 0 to 0, not 1" in run.err


def test_the_other_gradient_is_not_written_over(kinkcheck: Kinkcheck, tmp_path: Path) -> None:
    other = tmp_path / "g.npz"
    other.write_bytes((EXAMPLES / "ported_jax.npz").read_bytes())
    (tmp_path / "same.npz").symlink_to(other)
    for name in ("g.npz", "same.npz"):
        run = kinkcheck(
            "explain", f"{EXAMPLES}/ported.py:make", "--gradient", str(other),
            "--json", str(tmp_path / name),
        )  # fmt: skip
        complaint = f"--json: {tmp_path / name} is the file that is read; name another"
        assert (run.code, run.out, run.err) == (2, "", f"kinkcheck: {complaint}\n")
    assert other.read_bytes() == (EXAMPLES / "ported_jax.npz").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_a_program_without_batches_is_refused(kinkcheck: Kinkcheck, tmp_path: Path) -> None:
    (tmp_path / "none.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Linear(1, 1), [], print\n"
    )
    program = f"{tmp_path}/none.py:make"
    run = kinkcheck("explain", program, "--gradient", str(EXAMPLES / "ported_jax.npz"))
    assert (run.code, run.out) == (2, "")
    assert run.err == f"kinkcheck: PROGRAM: {program} has no batches\n"


def test_the_example_has_the_numbers_of_its_port() -> None:
    ported = runpy.run_path(str(EXAMPLES / "ported.py"))
    source = (EXAMPLES / "ported_jax.py").read_text(encoding="utf-8")
    assert "* 7919 + seed) ** 2 % 65 - 32) / 64" in source
    numbers = ported["numbers"](65, seed=3)
    expected = [((n * 7919 + 3) ** 2 % 65 - 32) / 64 for n in range(65)]
    assert numbers.tolist() == expected
