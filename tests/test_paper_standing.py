"""The experiments that ask what is right: spellings, networks, and public architectures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import binomtest
from torch import nn

from kinkcheck import data
from kinkcheck.data import ImageSet
from kinkcheck.errors import InputError
from kinkcheck.measure.standing.records import Kind
from kinkcheck.paper.experiments import spelled, spellings, standing, zoo
from kinkcheck.paper.experiments.spelled import FUNCTIONS, Spelled, Vector
from kinkcheck.paper.harness.case import Case, Network, Size
from kinkcheck.paper.harness.experiment import Setup
from kinkcheck.paper.harness.parts import kept
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


@pytest.mark.slow
def test_the_standing_is_that_of_the_closed_form() -> None:
    rows = {(row.function, row.kink, row.spelling): row for row in spellings.judged()}
    decided = 0
    for function in FUNCTIONS:
        for place, limits in function.kinks.items():
            for name, spelling in function.spellings.items():
                row = rows[function.name, spelled.vector_text(place), name]
                x = torch.tensor(place, dtype=torch.float64, requires_grad=True)
                (gradient,) = torch.autograd.grad(spelling(x).sum(), x)
                if row.standing == "undecided":
                    assert function.name == "norm"
                    continue
                decided += 1
                assert (row.standing != "wrong") == in_hull(tuple(gradient.tolist()), limits)
    assert decided > 60


@pytest.mark.slow
def test_wrong_spellings_of_one_leaky_relu_are_called_so() -> None:
    rows = [row for row in spellings.judged() if row.function.startswith("leaky")]
    standings = {row.spelling: row.standing for row in rows}
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
    found = [row for row in rows if isinstance(row, spellings.Training)]
    assert len(found) == 2 * 5 * len(spellings.TRAINED)
    for row in found:
        assert (row.apart == 0) == (row.spelling == spellings.TRAINED[0])
        # 144 places see the border or not; biases start at 0, and then move.
        assert row.met_first > 20
        if row.setting == "float32":
            assert row.met < row.met_first
    picture = save(lambda: spellings.draw(rows), "svg").decode()
    assert "relu(x) - a*relu(-x)" in picture
    assert spellings.measure(Setup(tmp_path, reduced=True)) == rows  # kept


# --- networks ------------------------------------------------------------------------------------


def test_a_part_that_fails_says_why(tmp_path: Path) -> None:
    def fails() -> list[standing.Row]:
        raise InputError("the network is too small")

    with pytest.raises(InputError, match="too small"):
        kept(Setup(tmp_path), "part", standing.Row, fails)


def test_every_gradient_of_a_network_is_a_row(digits: None, tmp_path: Path) -> None:
    case = Case(Network("lenet5"), "mnist", Size(1, 2, 4))
    part = standing.Part(case, ("float32",), ("minimal",))
    rows = standing.measure(Setup(tmp_path), [part])
    assert [(row.batch, row.selection) for row in rows] == [
        (batch, selection) for batch in (0, 1) for selection in ("native", "minimal")
    ]
    assert all(row.ties == row.flat + row.kinks for row in rows)
    assert standing.measure(Setup(tmp_path), [part]) == rows  # kept
    assert "lenet5, 4 images, float32" in save(lambda: standing.draw(rows), "svg").decode()


def judged(kinds: Sequence[Kind]) -> list[standing.Row]:
    return [
        standing.Row(
            "a", "lenet5", "mnist", 4, None, "float32", 0, batch, "native", str(kind), None, 0.0, 1,
            0, 1, None, None, None,
        )
        for batch, kind in enumerate(kinds)
    ]  # fmt: skip


@given(st.lists(st.sampled_from(list(Kind)), min_size=1, max_size=12))
def test_shares_are_those_of_clopper_and_pearson(kinds: list[Kind]) -> None:
    (found,) = standing.by_setting(judged(kinds))
    right = sum(kind in (Kind.DERIVATIVE, Kind.LIMIT, Kind.SUBGRADIENT) for kind in kinds)
    expected = binomtest(right, len(kinds)).proportion_ci(0.95, "exact")
    assert found.right == pytest.approx(100 * right / len(kinds))
    assert [found.low / 100, found.high / 100] == pytest.approx(
        [expected.low, expected.high], abs=1e-9
    )


def test_what_is_not_right_is_said() -> None:
    rows = judged([Kind.DERIVATIVE, Kind.LIMIT, Kind.WRONG])
    (found,) = standing.summarise(rows)
    assert (found["native"], found["kinked"], found["theorem"]) == ("2 of 3, 1 wrong", 3, None)
    (found,) = standing.summarise([replace(row, theorem="not met: bias") for row in rows])
    assert found["theorem"] == "not met"


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_network_has_few_values(bits: int) -> None:
    torch.manual_seed(0)
    model = standing.quantised(nn.Sequential(nn.Linear(64, 64), nn.ReLU()), bits)
    weight = model[0].weight
    step = weight.abs().amax() / (2 ** (bits - 1) - 1)
    torch.testing.assert_close(weight / step, (weight / step).round(), atol=1e-4, rtol=0)
    assert len(model(torch.randn(500, 64)).unique()) <= 2 ** (bits - 1)


# --- zoo -----------------------------------------------------------------------------------------


def test_models_need_transformers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"kinkcheck\[transformers\]"):
        zoo.measure(Setup(tmp_path, reduced=True))


def test_a_figure_of_models_names_every_standing_that_was_told() -> None:
    rows = [
        zoo.Row("ViT", "as it is", None, precision, "relu 1", kind, None, 0.1, 0.2, None)
        for precision, kind in (("bfloat16", "undecided"), ("float32", "limit"))
    ]
    rows.append(replace(rows[0], model="Swin", standing=None))
    picture = save(lambda: zoo.draw(rows), "svg").decode()
    assert "ViT: undecided or limit" in picture
    assert "Swin: not told" in picture


@pytest.mark.slow
def test_tangents_pass_attention_by_the_plain_formula_alone(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (opt,) = (each for each in zoo.ARCHITECTURES if each.name == "OPT")
    model, batch = opt.build(True), zoo.texts(2)
    assert "flash_attention" in str(zoo.refusal(model, "as it is", batch))
    assert zoo.refusal(model, "math kernel", batch) is None
    values = [zoo.step(how, model, batch) for how in ("as it is", "math kernel")]
    torch.testing.assert_close(*values)


@pytest.mark.slow
def test_the_loss_of_detr_is_its_own() -> None:
    pytest.importorskip("transformers")
    (detr,) = (each for each in zoo.ARCHITECTURES if each.name == "Detr")
    torch.manual_seed(0)
    model = detr.build(True).eval()
    pixels, labels = torch.rand(2, 3, 32, 32), torch.tensor([3, 7])
    whole = torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    objects = [{"class_labels": label[None], "boxes": whole} for label in labels]
    own = model(pixel_values=pixels, labels=objects).loss
    torch.testing.assert_close(zoo.step("as it is", model, (pixels, labels)), own)


@pytest.mark.slow
def test_sounds_are_taken_as_sounds() -> None:
    pytest.importorskip("transformers")
    (heard,) = (each for each in zoo.ARCHITECTURES if each.takes == "sounds")
    model, labels = heard.build(True), torch.arange(2)
    own = model(input_values=zoo.sounds(2), labels=labels).loss
    torch.testing.assert_close(zoo.step("as it is", model, (zoo.sounds(2), labels)), own)
