"""Backward passes that assign α, against the published rule written out, and their experiment."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kinkcheck import check, data
from kinkcheck import nn as knn
from kinkcheck.data import ImageSet
from kinkcheck.errors import InputError
from kinkcheck.paper.experiments.relu_backward_confound import (
    BACKWARD,
    End,
    Step,
    draw,
    measure,
    summarise,
)
from kinkcheck.paper.harness.case import Case, Network, Size
from kinkcheck.paper.harness.experiment import Setup
from kinkcheck.paper.harness.rows import by


def grid() -> Tensor:
    x = torch.tensor([-1.0, -0.0, 0.0, 0.5, 6.0, 7.0, float("inf"), -float("inf")])
    return x.requires_grad_()


@pytest.mark.parametrize("arriving", [1.0, 2**-10, 0.0, -2.0])
def test_what_is_returned_is_what_the_published_code_assigns(arriving: float) -> None:
    x = grid()
    (arriving * knn.AssignedReLU(0.3)(x)).sum().backward()
    # gradient.clone(); gradient[x < 0] = 0; gradient[x == 0] = alpha
    alpha = float(torch.tensor(0.3))
    expected = [0.0, alpha, alpha, *[arriving] * 4, 0.0]
    assert x.grad is not None
    assert x.grad.tolist() == expected

    x = grid()
    module = knn.AssignedReLU6(0.25, -2)
    (arriving * module(x)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 0.25, 0.25, arriving, -2.0, 0.0, 0.0, 0.0]
    assert repr(module) == "AssignedReLU6(alpha=0.25, beta=-2)"


def test_values_are_those_of_pytorch() -> None:
    x = torch.randn(100)
    assert torch.equal(knn.AssignedReLU(1)(x), nn.ReLU()(x))
    assert torch.equal(knn.AssignedReLU6(1, 1)(x), nn.ReLU6()(x))


def test_it_is_the_derivative_of_nothing() -> None:
    """At x = 0 the slopes of relu(x)/1000 are 0 and 1/1000; it returns 1/2."""
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (knn.AssignedReLU(0.5)(x) * float(Fraction(1, 1000))).sum().backward()
    assert x.grad is not None
    assert not 0 <= x.grad.item() <= 1e-3
    assert not check(lambda x: knn.AssignedReLU(0.5)(x) / 1000, [x], raise_exception=False)


def test_the_two_backward_passes_agree_at_alpha_0_and_where_no_zero_is_met() -> None:
    for alpha, at in ((0.0, 0.0), (0.5, 1e-3)):
        found = []
        for make in BACKWARD.values():
            x = torch.full((3,), at, requires_grad=True)
            (make(alpha)(x) * torch.arange(3)).sum().backward()
            assert x.grad is not None
            found.append(x.grad.tolist())
        assert found[0] == found[1]


def test_a_training_is_summed_up() -> None:
    rows: list[Step | End] = [
        Step("n", 0.5, "α itself", 2, step, *said)
        for step, said in enumerate([(0, 1.0, 3.0), (2, 9.0, 2.5), (1, 4.0, 2.0)])
    ]
    rows.append(End("n", 0.5, "α itself", 2, 25.0))
    (found,) = summarise(rows)
    assert (found["steps"], found["with_zeros"], found["first"]) == (3, 2, 1)
    assert (found["norm_there"], found["largest_norm"]) == (9.0, 9.0)
    assert (found["last_loss"], found["accuracy"]) == (2.0, 25.0)
    assert draw(rows).axes


def test_without_images_nothing_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cifar10"):
        measure(Setup(tmp_path, reduced=True, data_dir=tmp_path))
    assert not list(tmp_path.iterdir())


def test_both_backward_passes_see_the_same_steps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load(name: str, split: str = "train", *, data_dir: Path | None = None) -> ImageSet:
        generator = torch.Generator().manual_seed(len(split))
        images = torch.randint(0, 256, (256, 3, 32, 32), generator=generator, dtype=torch.uint8)
        return ImageSet(
            name=name, split=split, classes=10, mean=(0.5,) * 3, std=(0.5,) * 3, images=images,
            labels=torch.arange(256) % 10,
        )  # fmt: skip

    monkeypatch.setattr(data, "load", load)
    setup = Setup(tmp_path, reduced=True)
    cases = [Case(Network("lenet5"), "cifar10", Size(1, 3, 100))]  # the third of another epoch
    rows = measure(setup, cases)
    steps = by((row for row in rows if isinstance(row, Step)), lambda row: row.step)
    assert {step: len(same) for step, same in steps.items()} == dict.fromkeys(range(3), 10)
    assert len({row.loss for row in steps[0]}) == 1  # all start equal
    assert len([row for row in rows if isinstance(row, End)]) == 10
    assert measure(setup, cases) == rows  # kept
