"""The experiments that ask what is right: spellings, networks, and public architectures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from kinkcheck import data
from kinkcheck.data import ImageSet
from kinkcheck.paper import spelled, spellings
from kinkcheck.paper.experiment import Setup
from kinkcheck.paper.spelled import FUNCTIONS, Spelled, Vector
from kinkcheck.report.ink import save

FUNCTION = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda each: each.name)


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up digits, with a black border, in the place of every data set."""

    def load(name: str, split: str = "train", *, data_dir: Path | None = None) -> ImageSet:
        generator = torch.Generator().manual_seed(len(split))
        images = torch.zeros(128, 1, 28, 28, dtype=torch.uint8)
        images[..., 6:22, 6:22] = torch.randint(0, 256, (128, 1, 16, 16), generator=generator)
        labels = torch.arange(128) % 10
        return ImageSet(
            name=name, split=split, classes=10, mean=(0.5,), std=(0.5,), images=images,
            labels=labels,
        )  # fmt: skip

    monkeypatch.setattr(data, "load", load)


# --- spellings -----------------------------------------------------------------------------------


def in_hull(vector: Vector, limits: tuple[Vector, ...] | None) -> bool:
    """Whether a vector is a convex combination of others, or in the unit ball."""
    if not np.isfinite(vector).all():
        return False
    if limits is None:
        return float(np.linalg.norm(vector)) <= 1
    conditions = np.vstack([np.array(limits).T, np.ones(len(limits))])
    found = linprog(np.zeros(len(limits)), A_eq=conditions, b_eq=[*vector, 1])
    return bool(found.status == 0)


@FUNCTION
def test_all_spellings_are_one_function(function: Spelled) -> None:
    (size,) = {len(place) for place in function.kinks}
    first, *others = function.spellings.values()
    places = torch.randn(200, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for x in [*(2 * places), *map(torch.tensor, function.kinks)]:
        x = x.double()
        expected = first(x).reshape(-1)
        for other in others:
            torch.testing.assert_close(other(x).reshape(-1), expected, atol=1e-14, rtol=1e-14)


@FUNCTION
def test_limits_are_the_slopes_of_differences_near_the_kink(function: Spelled) -> None:
    value, *_ = function.spellings.values()
    generator = torch.Generator().manual_seed(0)
    for place, limits in function.kinks.items():
        found = set()
        for _ in range(40):
            away = torch.randn(len(place), dtype=torch.float64, generator=generator)
            near = torch.tensor(place, dtype=torch.float64) + 1e-3 * away
            steps = 1e-6 * torch.eye(len(place), dtype=torch.float64)
            slopes = [float((value(near + s) - value(near - s)).sum()) / 2e-6 for s in steps]
            if limits is None:
                assert np.linalg.norm(slopes) == pytest.approx(1, abs=1e-4)
            else:
                found.add(tuple(np.round(slopes, 4) + 0.0))
        if limits is not None:
            assert found == {tuple(np.round(limit, 4) + 0.0) for limit in limits}


def test_the_standing_is_that_of_the_closed_form() -> None:
    rows = {(row["function"], row["kink"], row["spelling"]): row for row in spellings.judged()}
    decided = 0
    for function in FUNCTIONS:
        for place, limits in function.kinks.items():
            for name, spelling in function.spellings.items():
                row = rows[function.name, spelled.vector_text(place), name]
                x = torch.tensor(place, dtype=torch.float64, requires_grad=True)
                (gradient,) = torch.autograd.grad(spelling(x).sum(), x)
                if row["standing"] == "undecided":
                    assert function.name == "norm"
                    continue
                decided += 1
                assert (row["standing"] != "wrong") == in_hull(tuple(gradient.tolist()), limits)
    assert decided > 60


def test_wrong_spellings_of_one_leaky_relu_are_called_so() -> None:
    rows = [row for row in spellings.judged() if str(row["function"]).startswith("leaky")]
    standings = {str(row["spelling"]): row["standing"] for row in rows}
    assert standings["where(x > 0, x, a*x)"] == "limit"
    assert standings["maximum(x, 0) + a*minimum(x, 0)"] == "subgradient"
    for name in ("relu(x) - a*relu(-x)", "x*(x > 0) + a*x*(x < 0)"):
        assert standings[name] == "wrong"
    # 1.1 up to PyTorch 2.13, 0 after it: neither is in [0.1, 1].
    assert standings["clamp(x, min=0) + a*clamp(x, max=0)"] == "wrong"


def test_networks_in_two_spellings_differ_in_the_gradient_alone() -> None:
    x = torch.zeros(4, 1, 28, 28)
    x[..., 6:22, 6:22] = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    values, gradients = [], []
    for name in spellings.TRAINED:
        torch.manual_seed(0)
        model = spellings.network(spelled.LEAKY_RELU[name])
        value = model(x)
        values.append(value)
        gradients.append(torch.autograd.grad(value.square().sum(), model[0].bias)[0])
    assert all(torch.equal(value, values[0]) for value in values)
    assert not any(torch.allclose(each, gradients[0]) for each in gradients[1:])


@pytest.mark.slow
def test_trainings_in_each_spelling(digits: None, tmp_path: Path) -> None:
    rows = spellings.measure(Setup(tmp_path, reduced=True))
    found = [row for row in rows if row["part"] == "training"]
    assert len(found) == 2 * 5 * len(spellings.TRAINED)
    for row in found:
        assert (row["apart"] == 0) == (row["spelling"] == spellings.TRAINED[0])
        # 144 places see the border or not; biases start at 0, and then move.
        assert float(row["met_first"] or 0) > 20
        if row["setting"] == "float32":
            assert float(row["met"] or 0) < float(row["met_first"] or 0)
    picture = save(lambda: spellings.draw(rows), "svg").decode()
    assert "relu(x) - a*relu(-x)" in picture
    assert spellings.measure(Setup(tmp_path, reduced=True)) == rows  # kept
