"""float64 convolutions as one product against PyTorch's own."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kinkcheck.arithmetic import products
from kinkcheck.arithmetic.constants import ConstantsAs
from kinkcheck.arithmetic.precision import PRECISIONS

CASES = list(
    itertools.product(
        [(1, 1), (3, 3), (2, 3)],  # kernel
        [(1, 1), (2, 1)],  # stride
        [(0, 0), (1, 2)],  # padding
        [(1, 1), (2, 1)],  # dilation
        [True, False],  # bias
    )
)


def derivatives(
    x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple[tuple[int, int], ...]
) -> list[Tensor]:
    """The convolution and the derivatives of a weighted sum of it."""
    inputs = [tensor for tensor in (x, weight, bias) if tensor is not None]
    value = F.conv2d(x, weight, bias, *how)
    seed = torch.Generator().manual_seed(1)
    along = torch.randn(value.shape, generator=seed, dtype=torch.float64)
    return [value, *torch.autograd.grad(value, inputs, along)]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each convolution was computed here."""
    found: list[bool] = []
    suits = products._suits

    def spy(*args: object) -> bool:
        found.append(suits(*args))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr(products, "_suits", spy)
    monkeypatch.setattr(products, "_FEW_PLACES", 64)
    return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_pytorch(case: tuple[tuple[int, int], ...], layout: torch.memory_format,
                        taken: list[bool]) -> None:  # fmt: skip
    kernel, *how, with_bias = case
    seed = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=seed, dtype=torch.float64)
        return drawn.requires_grad_()

    x = leaf(3, 4, 5, 4).detach().to(memory_format=layout).requires_grad_()
    weight, bias = leaf(5, 4, *kernel), leaf(5) if with_bias else None
    expected = derivatives(x, weight, bias, tuple(how))
    assert not taken
    with ConstantsAs(PRECISIONS["float64"]):
        found = derivatives(x, weight, bias, tuple(how))
    # Sums of at most 36 products of numbers of a few units, in any order.
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert found[0].stride() == expected[0].stride()
    assert taken == [True, True]


def test_frozen_inputs_get_no_gradient(taken: list[bool]) -> None:
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    with ConstantsAs(PRECISIONS["float64"]):
        F.conv2d(x, weight).sum().backward()
    assert weight.grad is not None
    (expected,) = torch.autograd.grad(F.conv2d(x, weight).sum(), weight)
    torch.testing.assert_close(weight.grad, expected, rtol=0, atol=1e-12)
    assert taken == [True, True]


@pytest.mark.parametrize(
    ("x", "weight", "options"),
    [
        (torch.zeros(2, 4, 4, 4), torch.zeros(4, 4, 3, 3), {}),
        (torch.zeros(2, 4, 11, 11).double(), torch.zeros(4, 4, 3, 3).double(), {}),
        (torch.zeros(2, 4, 4, 4).double(), torch.zeros(4, 2, 3, 3).double(), {"groups": 2}),
        (torch.zeros(0, 4, 4, 4).double(), torch.zeros(4, 4, 3, 3).double(), {}),
        (torch.zeros(2, 4, 9).double(), torch.zeros(4, 4, 3).double(), {}),
    ],
    ids=["float32", "many places", "groups", "empty", "1 dimension"],
)
def test_others_are_left_to_pytorch(
    x: Tensor, weight: Tensor, options: dict[str, int], taken: list[bool]
) -> None:
    convolution = F.conv1d if x.dim() == 3 else F.conv2d
    with ConstantsAs(PRECISIONS["float64"]):
        value = convolution(x, weight, **options)  # type: ignore[operator]
    assert value.dtype == x.dtype
    assert taken == [False]


def test_unbatched_images(taken: list[bool]) -> None:
    x = torch.randn(3, 4, 4, dtype=torch.float64)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64)
    with ConstantsAs(PRECISIONS["float64"]):
        found = F.conv2d(x, weight)
    torch.testing.assert_close(found, F.conv2d(x, weight), rtol=0, atol=1e-12)
    assert taken == [True]
