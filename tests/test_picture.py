"""The picture of one image's ties: causes and places worked out by hand."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import networks
from kinkcheck.audit.picture import TiesPicture, ties_picture

LEFT, RIGHT = (0, 0, 2, 2), (0, 2, 2, 4)


def weighted(weights: list[float], *after: nn.Module) -> nn.Sequential:
    """A convolution that weighs channels, and what follows it."""
    convolution = nn.Conv2d(len(weights), 1, 1, bias=False)
    convolution.weight = nn.Parameter(torch.tensor(weights).reshape(1, -1, 1, 1))
    return nn.Sequential(convolution, *after)


def image(*rows: list[float]) -> Tensor:
    return torch.tensor([rows], dtype=torch.float32)


def drawn(model: nn.Module, x: Tensor, at: str = "32") -> dict[str, list[tuple[float, ...]]]:
    picture = ties_picture(model, x, at)
    assert picture is not None
    return {
        cause: windows
        for cause in ("dead", "exact", "rounding", "tied")
        if (windows := getattr(picture, cause))
    }


def test_tie_that_persists_is_exact() -> None:
    x = image([3, 3, 1, 2], [0, 1, 0, 0])
    assert drawn(weighted([1.0], nn.MaxPool2d(2)), x) == {"exact": [LEFT]}


def test_tie_that_float64_parts_is_rounding() -> None:
    # 1 + 2^-12 is 1 in float16, whose spacing there is 2^-10; float32 has both.
    x = torch.tensor([[[1.0, 1, 1, 1], [0, 0, 0, 0]], [[1.0, 0, 1, 1], [0, 0, 0, 0]]])
    model = weighted([1.0, 2.0**-12], nn.MaxPool2d(2))
    assert drawn(model, x, "16") == {"rounding": [LEFT], "exact": [RIGHT]}
    assert drawn(model, x, "32") == {"exact": [RIGHT]}


def test_only_active_entries_have_to_stay_equal() -> None:
    x = image([3, 3, 2, 2], [1, 2, 0, 1])
    assert drawn(weighted([1 / 3], nn.MaxPool2d(2)), x, "bfloat16") == {"exact": [LEFT, RIGHT]}


def test_zeros_of_a_relu_are_dead() -> None:
    x = image([-3, -1, 2, 2], [-2, -1, 0, 0])
    model = weighted([1.0], nn.ReLU(), nn.MaxPool2d(2))
    assert drawn(model, x) == {"dead": [LEFT], "exact": [RIGHT]}


def test_zeros_of_anything_else_live() -> None:
    assert drawn(weighted([1.0], nn.MaxPool2d(2)), image([0, 0], [0, 0])) == {"exact": [LEFT]}


def test_what_is_blocked_above_is_dead() -> None:
    # Negated and put through a ReLU, 3 passes no gradient and -3 does.
    negated = weighted([-1.0], nn.ReLU())
    x = image([3, 3, -3, -3], [1, 1, -4, -4])
    assert drawn(weighted([1.0], nn.MaxPool2d(2), negated), x) == {"dead": [LEFT], "exact": [RIGHT]}


def test_in_float64_only_the_tie_is_known() -> None:
    assert drawn(weighted([1.0], nn.MaxPool2d(2)), image([3, 3], [1, 1]), "64") == {"tied": [LEFT]}


def test_gravest_cause_of_the_channels_counts() -> None:
    # Channel 0: a ReLU's zeros everywhere. Channel 1: left an exact tie, right none.
    convolution = nn.Conv2d(1, 2, 1, bias=False)
    convolution.weight = nn.Parameter(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1))
    model = nn.Sequential(convolution, nn.ReLU(), nn.MaxPool2d(2))
    assert drawn(model, image([5, 5, 7, 8], [1, 1, 1, 1])) == {"exact": [LEFT], "dead": [RIGHT]}


@pytest.mark.parametrize(
    ("pool", "windows"),
    [
        (nn.MaxPool2d(3, stride=2, padding=1), [
            (0, 0, 2, 2), (0, 1, 2, 4), (1, 0, 4, 2), (1, 1, 4, 4)
        ]),
        (nn.AdaptiveMaxPool2d(3), [
            (top, left, top + 2, left + 2) for top in range(3) for left in range(3)
        ]),
        (nn.MaxPool2d(2, dilation=2), [(0, 0, 3, 3)]),
    ],
)  # fmt: skip
def test_windows_lie_where_pytorch_puts_them(
    pool: nn.Module, windows: list[tuple[float, ...]]
) -> None:
    assert drawn(weighted([1.0], pool), torch.ones(1, 4, 4)) == {"exact": windows}


def test_smaller_feature_map_is_stretched_to_the_image() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 2, stride=2), nn.MaxPool2d(2))
    assert drawn(model, torch.ones(1, 8, 4)) == {"exact": [(0, 0, 4, 4), (4, 0, 8, 4)]}


def test_image_is_grey_between_0_and_1() -> None:
    model = nn.Sequential(nn.Conv2d(2, 1, 1), nn.MaxPool2d(2))
    picture = ties_picture(model, torch.tensor([[[-1.0, 1], [3, 5]], [[-1.0, 1], [3, 9]]]))
    assert picture is not None
    assert picture.image == [[0, 0.25], [0.5, 1]]
    assert (picture.precision, picture.layer) == ("float32", "1")
    assert (picture.height, picture.width) == (2, 2)
    flat = ties_picture(model, torch.full((2, 2, 2), 7.0))
    assert flat is not None
    assert flat.image == [[1, 1], [1, 1]]


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = weighted([1.0], nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(x), self.body(x)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.ReLU()), torch.ones(1, 2, 2)),
        (nn.Sequential(nn.Linear(4, 4), nn.MaxPool1d(2)), torch.ones(4)),
        (nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(1, 1, 1)), torch.ones(1, 2, 2)),
        (Pair(), torch.ones(1, 2, 2)),
    ],
    ids=["no pooling", "no image", "no parameter below", "no tensor"],
)
def test_nothing_to_draw(model: nn.Module, x: Tensor) -> None:
    assert ties_picture(model, x) is None


@pytest.mark.parametrize("at", ["16", "32", "mixed"])
def test_places_are_those_that_unfolding_finds_tied(at: str) -> None:
    torch.manual_seed(0)
    model = networks.build("lenet5", in_channels=1, classes=10, image_size=28, batch_norm=True)
    x = torch.zeros(1, 28, 28)
    x[:, 8:20, 8:20] = torch.randn(12, 12)
    before = copy.deepcopy(model.state_dict())
    picture = ties_picture(model, x, at)
    assert isinstance(picture, TiesPicture)
    if at == "32":
        with torch.no_grad():
            entries = F.unfold(model.features[:2](x[None]), 2, stride=2).reshape(6, 4, 144)
        tied = (entries == entries.amax(1, keepdim=True)).sum(1).gt(1).any(0).sum()
        assert len(picture.dead + picture.exact + picture.rounding) == tied > 0
    assert picture.tied == []
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
