"""Conventions of other frameworks: gradients of six small networks, here and there.

What JAX and TensorFlow return was written by the scripts in ``tests/ported``.
"""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import InputError, audit, record
from kinkcheck import nn as knn
from kinkcheck.atlas import read
from kinkcheck.audit.verdict import verdict
from kinkcheck.ops.conventions import Form, installed, meaning
from kinkcheck.ops.table import BY_NAME, ROWS
from kinkcheck.selection import As, Native

PORTED = Path(__file__).resolve().parent / "ported"
GIVEN = runpy.run_path(str(PORTED / "given.py"))

Parts = dict[str, Tensor]


def _linear(p: Parts) -> Tensor:
    return p["input"] @ p["weights"] + p["biases"]


def clipped(p: Parts) -> Tensor:
    return _linear(p).clamp(-0.5, 0.5)


def halves(p: Parts) -> Tensor:
    one, other = _linear(p).abs().chunk(2, 1)
    return torch.maximum(one, other) + torch.minimum(one, 2 * other)


def filtered(p: Parts) -> Tensor:
    found = F.conv2d(p["input"], p["weights"])
    found = F.relu6(found + p["biases"][:, None, None]) + 0.5 * F.relu(found)
    return F.max_pool2d(found, 2)


def bent(p: Parts) -> Tensor:
    x = _linear(p)
    return F.leaky_relu(x, 0.25) + F.hardtanh(2 * x) + F.selu(x)


def extreme(p: Parts) -> Tensor:
    x = _linear(p)
    return x.max(1).values * (x * x).min(1).values + x.max()


def ordered(p: Parts) -> Tensor:
    x = _linear(p)
    return x.topk(3, 1).values + x.sort(1).values[:, :3]


NETWORKS: list[Callable[[Parts], Tensor]] = [clipped, halves, filtered, bent, extreme, ordered]


def gradients(network: Callable[[Parts], Tensor], choose: Any) -> Parts:
    given = GIVEN["given"](network.__name__)
    parts = {name: torch.from_numpy(each).requires_grad_() for name, each in given.items()}
    with record() as tape:
        output = network(parts)
        loss = (output * torch.from_numpy(GIVEN["counted"](tuple(output.shape)))).sum()
    assert all(site.tied for site in tape.sites)
    return dict(zip(parts, tape.gradient(loss, parts.values(), choose=choose), strict=True))


@pytest.mark.parametrize("framework", ["jax", "tensorflow"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_gradient_is_that_of_the_framework(
    network: Callable[[Parts], Tensor], framework: str
) -> None:
    found = gradients(network, f"as:{framework}")
    with np.load(PORTED / f"{framework}.npz") as held:
        for name, gradient in found.items():
            there = torch.from_numpy(held[f"{network.__name__}.{name}"])
            torch.testing.assert_close(gradient, there, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("framework", ["jax", "tensorflow"])
def test_native_is_another_one(framework: str) -> None:
    """Else the test above would not tell."""
    other = set()
    with np.load(PORTED / f"{framework}.npz") as held:
        for network in NETWORKS:
            for name, gradient in gradients(network, "native").items():
                there = torch.from_numpy(held[f"{network.__name__}.{name}"])
                if not torch.allclose(gradient, there, atol=1e-5):
                    other.add(network.__name__)
    assert {"halves", "bent", "extreme"} <= other


@pytest.mark.parametrize("network", NETWORKS)
def test_the_convention_of_the_installed_version_is_native(
    network: Callable[[Parts], Tensor],
) -> None:
    native, found = gradients(network, "native"), gradients(network, f"as:{installed()}")
    assert all(torch.equal(found[name], native[name]) for name in native)


def test_every_operation_is_native_under_the_installed_version() -> None:
    convention = As(installed())
    for row in ROWS:
        assert meaning(convention, Form(row.name)).selection == Native()


@pytest.mark.parametrize(
    ("version", "slopes"),
    [("torch-2.13", [0, 1, 1, 1, 0]), ("torch-2.14", [0, 0, 1, 0, 0]),
     ("tensorflow", [0, 1, 1, 1, 0]), ("jax", [0, 0.5, 1, 0.5, 0])],
)  # fmt: skip
def test_a_clamp_has_one_bound_or_two(version: str, slopes: list[float]) -> None:
    x = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], requires_grad=True)
    with record() as tape:
        both, lower, upper = x.clamp(-1, 1).sum(), x.clamp(min=-1).sum(), x.clamp(max=1).sum()
    of = {"both": both, "lower": lower, "upper": upper}
    found = {
        name: tape.gradient(loss, x, choose=f"as:{version}")[0].tolist()
        for name, loss in of.items()
    }
    assert found["both"] == slopes
    assert found["lower"] == [*slopes[:3], 1, 1]
    assert found["upper"] == [1, 1, *slopes[2:]]


def test_forms_of_one_operation_are_told_apart() -> None:
    x = torch.ones(1, 3, requires_grad=True)
    with record() as tape:
        losses = x.max(1).values.sum(), x.max(), torch.max(x, x.detach() + 0).sum()
    shared = [[1 / 3] * 3]
    expected = {
        "tensorflow": [shared, shared, [[1.0] * 3]],
        "jax": [shared, shared, [[0.5] * 3]],
    }
    for framework, values in expected.items():
        for loss, value in zip(losses, values, strict=True):
            (found,) = tape.gradient(loss, x, choose=f"as:{framework}")
            torch.testing.assert_close(found, torch.tensor(value))


def test_what_a_framework_lacks_stays_native_and_is_named() -> None:
    x = torch.ones(1, 2, 4, 4, requires_grad=True)
    with record() as tape:
        loss = F.adaptive_max_pool2d(x, 2).sum() + x.norm(dim=1).sum() * 0
    native = tape.gradient(loss, x, choose="native")[0]
    assert torch.equal(tape.gradient(loss, x, choose="as:tensorflow")[0], native)
    held = meaning(As("tensorflow"), Form("adaptive_max_pool2d"))
    assert held.why.startswith("tensorflow-")
    assert held.why.endswith(" has no adaptive_max_pool2d")
    assert meaning(As("jax"), Form("norm")).why.endswith(" returns NaN at norm")


def test_every_convention_means_something_at_every_operation() -> None:
    from kinkcheck.atlas import table

    for name in table.read().columns:
        for row in ROWS:
            held = meaning(As(name), Form(row.name))
            assert BY_NAME[row.name].has(held.selection)
            assert not held.why or held.selection == Native()


def test_modules_have_the_convention() -> None:
    x = torch.zeros(2, requires_grad=True)
    model = knn.convert(nn.Sequential(nn.LeakyReLU(0.25)), leaky_relu="as:jax")
    (found,) = torch.autograd.grad(model(x).sum(), x)
    assert found.tolist() == [1, 1]
    assert "selection='as:jax-" in repr(model)
    assert "(native: tensorflow-2" in repr(knn.AdaptiveMaxPool2d(2, selection="as:tensorflow"))
    with pytest.raises(InputError, match="unknown framework 'jaxx'; did you mean 'jax'"):
        knn.ReLU(selection="as:jaxx")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("framework", sorted({each.split("-")[0] for each in read().columns}))
def test_modules_choose_as_the_tape_does_in_each_type(framework: str, dtype: torch.dtype) -> None:
    """tinygrad's hard sigmoid has other bounds in float32, TensorFlow's pooling in float16."""
    x = torch.tensor([-3.0, 3.0], dtype=dtype, requires_grad=True)
    volume = torch.zeros(1, 1, 2, 2, 2, dtype=dtype, requires_grad=True)
    choose = f"as:{framework}"
    for module, call, input in (
        (knn.Hardsigmoid(selection=choose), F.hardsigmoid, x),
        (knn.MaxPool3d(2, selection=choose), lambda each: F.max_pool3d(each, 2), volume),
    ):
        with record() as tape:
            loss = call(input).sum()
        (expected,) = tape.gradient(loss, input, choose=choose)
        (found,) = torch.autograd.grad(module(input).sum(), input)
        assert torch.equal(found, expected)


def test_an_audit_names_what_stays_native() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten())
    batch = torch.ones(2, 1, 6, 6), torch.tensor([0, 1])
    report = audit(model, [batch], selections=["as:tensorflow", "minimal"], lifted=False)
    said = verdict(report)
    assert re.search(r"Under as:tensorflow-\S+ some ties stay native: tensorflow-\S+ has no ", said)
    # A file of it is read again with the version that was measured.
    assert report.selections[0].startswith("as:tensorflow-2.")


def test_an_audit_names_a_form_that_stays_native() -> None:
    """Dr.Jit has the largest of all entries and of two tensors, and none along a dimension."""
    model, batch = nn.Linear(3, 4), torch.ones(2, 3)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    said = {}
    for name, largest in (("along", lambda y: y.max(1).values.sum()), ("all", torch.max)):
        step = lambda model, x, largest=largest: largest(model(x))  # noqa: E731
        report = audit(model, [batch], step=step, selections=["as:drjit", "last"], lifted=False)
        said[name] = verdict(report)
    assert re.search(r"some ties stay native: drjit-\S+ has no max\.", said["along"])
    assert "stay native" not in said["all"]
