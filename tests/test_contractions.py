import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kinkcheck.arithmetic.contractions import float32_contractions

UNIT_ROUNDOFF = 2.0**-11


def half(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).half()


CONTRACTIONS = {
    "conv2d": (
        lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1, groups=2),
        (2, 4, 9, 9),
        (6, 2, 3, 3),
        (6,),
    ),
    "conv_transpose1d": (lambda x, w, b: F.conv_transpose1d(x, w, b), (2, 4, 7), (4, 5, 3), (5,)),
    "linear": (F.linear, (3, 17), (5, 17), (5,)),
    "matmul": (lambda x, w, b: x @ w + b, (2, 3, 8, 16), (16, 4), (4,)),
    "einsum": (lambda x, w, b: torch.einsum("nij,njk->nik", x, w) + b, (2, 3, 8), (2, 8, 4), (4,)),
    "mv": (lambda x, w, b: x @ w + b, (3, 9), (9,), (3,)),
}


@pytest.mark.parametrize("name", CONTRACTIONS)
def test_gradients_are_those_of_float64_rounded_once_or_twice(name: str) -> None:
    contraction, *shapes = CONTRACTIONS[name]
    operands = [half(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    narrow = [operand.clone().requires_grad_() for operand in operands]
    wide = [operand.double().requires_grad_() for operand in operands]
    with float32_contractions():
        output = contraction(*narrow)
        grads = torch.autograd.grad(output.float().square().sum(), narrow)
    # The upstream gradient is that of the rounded output, so that each result has its own error.
    exact = contraction(*wide)
    upstream = (2 * output.detach().float()).half().double()
    exact_grads = torch.autograd.grad(exact, wide, upstream)
    # One rounding of the result, and one more of a sum of two contractions or of a bias added
    # afterwards; the float32 error of these short sums is far below.
    for value, reference in zip((output, *grads), (exact, *exact_grads), strict=True):
        bound = 2.5 * UNIT_ROUNDOFF * reference.abs().clamp_min(reference.abs().max() / 8)
        assert ((value.double() - reference).abs() <= bound).all()


def test_a_long_sum_is_rounded_once() -> None:
    # 4096 ones cannot be added in float16: beyond 2048 adding 1 is lost.
    ones = torch.ones(1, 4097, dtype=torch.float16)
    with float32_contractions():
        assert (ones @ ones.T).item() == 4096.0  # 4097 rounded to even, once


def test_convolution_is_torchs_within_the_rounding_of_one_float16_sum() -> None:
    x, weight = half(2, 8, 10, 10), half(4, 8, 3, 3, seed=1)
    with float32_contractions():
        ours = F.conv2d(x, weight)
    terms = F.conv2d(x.double().abs(), weight.double().abs())
    difference = (ours.double() - F.conv2d(x, weight).double()).abs()
    assert (difference <= UNIT_ROUNDOFF * terms).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_other_types_are_left_to_pytorch(dtype: torch.dtype) -> None:
    x, weight = half(2, 3, 8, 8).to(dtype), half(4, 3, 3, 3, seed=1).to(dtype)
    with float32_contractions():
        inside = F.conv2d(x, weight)
    assert torch.equal(inside, F.conv2d(x, weight))


def test_memory_format_is_pytorchs() -> None:
    x = half(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    weight = half(4, 4, 3, 3, seed=1)
    with float32_contractions():
        output = F.conv2d(x, weight)
    assert output.stride() == F.conv2d(x.float(), weight.float()).stride()
    assert output.dtype == torch.float16
