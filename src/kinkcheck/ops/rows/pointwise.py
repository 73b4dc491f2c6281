"""Functions of one number, element by element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kinkcheck import ops
from kinkcheck.ops.row import OF_PICKS, OF_SIDES, Row

if TYPE_CHECKING:
    from torch import Tensor

    from kinkcheck.ops.branches import Branches
    from kinkcheck.ops.picks import Wins

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def _clamp(input: Tensor, min: Any = None, max: Any = None) -> Branches | None:
    bounds = [each for each in (min, max) if each is not None]
    if any(map(ops.is_tensor, bounds)):
        return None
    if len(bounds) == 2 and min >= max:
        return ops.Sides(input, [(max, 0.0, 0.0)])  # a constant, of whatever derivative
    kinks = [] if min is None else [(min, 0.0, 1.0)]
    return ops.Sides(input, [*kinks, *([] if max is None else [(max, 1.0, 0.0)])])


def _clamp_between(input: Tensor, min: Any = None, max: Any = None) -> Branches | None:
    bounds = [each for each in (min, max) if each is not None]
    if not any(map(ops.is_tensor, bounds)):
        return None
    tensors = ops.competing(input, *bounds)
    wins: Wins = "clamped" if len(bounds) == 2 else "smallest" if min is None else "largest"
    return ops.Picks(tensors, ops.Between.of(*tensors), wins)


def _hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Branches | None:
    return None if (min_val, max_val) == (0, 6) else _clamp(input, min_val, max_val)


def _hardtanh_as_relu6(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Branches | None:
    return _clamp(input, 0, 6) if (min_val, max_val) == (0, 6) else None


def _elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Branches | None:
    return None if alpha == 1 else ops.Sides(input, [(0.0, alpha, 1.0)])


def _prelu(input: Tensor, weight: Tensor) -> Branches:
    channels = weight.reshape(-1, *(1,) * (input.dim() - 2)) if input.dim() > 1 else weight
    return ops.Sides(input, [(0.0, channels, 1.0)], left=True)


def _rrelu(
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Any = None,
) -> Branches | None:
    # In training each element has a slope of its own, which PyTorch keeps to itself.
    return None if training else ops.Sides(input, [(0.0, (lower + upper) / 2, 1.0)])


def _softshrink(input: Tensor, lambd: float = 0.5) -> Branches:
    if lambd == 0:
        return ops.Sides(input, [(0.0, 1.0, 1.0)])  # the identity, of which PyTorch has 0 there
    return ops.Sides(input, [(-lambd, 1.0, 0.0), (lambd, 0.0, 1.0)])


def _threshold(
    input: Tensor, threshold: float, value: float, inplace: bool = False
) -> Branches | None:
    # With a gap it jumps.
    return ops.Sides(input, [(threshold, 0.0, 1.0)]) if threshold == value else None


def _quantised(
    input: Tensor, scale: Any, zero_point: Any, quant_min: int, quant_max: int
) -> Branches:
    rounded = ops.rounded(input, scale, zero_point)
    return ops.Sides(input, [(quant_min, 0.0, 1.0), (quant_max, 1.0, 0.0)], rounded)


def _quantised_by_channel(
    input: Tensor, scale: Any, zero_point: Any, axis: int, quant_min: int, quant_max: int
) -> Branches:
    shape = [1] * input.dim()
    shape[axis] = -1
    return _quantised(input, scale.reshape(shape), zero_point.reshape(shape), quant_min, quant_max)


_STRAIGHT_THROUGH = "rounds; its derivative is a straight-through estimator"

POINTWISE: tuple[Row, ...] = (
    Row("relu", OF_SIDES, least=True),
    Row("hardtanh", OF_SIDES, _hardtanh, least=True),
    Row("relu6", OF_SIDES, lambda input, inplace=False: _clamp(input, 0, 6), "hardtanh",
        least=True),
    # What torch.nn.ReLU6 calls.
    Row("relu6", OF_SIDES, _hardtanh_as_relu6, "hardtanh", "hardtanh", least=True),
    Row("leaky_relu", OF_SIDES, lambda input, negative_slope=0.01, inplace=False: ops.Sides(
        input, [(0.0, negative_slope, 1.0)])),
    Row("prelu", OF_SIDES, _prelu),
    Row("prelu_kernel", OF_SIDES, lambda input, weight: ops.Sides(
        input, [(0.0, weight, 1.0)], left=True), "prelu", "_prelu_kernel"),
    Row("rrelu", OF_SIDES, _rrelu),
    Row("clamp", OF_SIDES, _clamp, spellings="clamp clip"),
    Row("clamp_min", OF_SIDES, lambda input, min: _clamp(input, min), "clamp"),
    Row("clamp_max", OF_SIDES, lambda input, max: _clamp(input, None, max), "clamp"),
    Row("clamp_between", OF_PICKS, _clamp_between, "clamp", "clamp clip"),
    Row("clamp_min_between", OF_PICKS, lambda input, min: _clamp_between(input, min), "clamp",
        "clamp_min"),
    Row("clamp_max_between", OF_PICKS, lambda input, max: _clamp_between(input, None, max), "clamp",
        "clamp_max"),
    Row("hardswish", OF_SIDES, lambda input, inplace=False: ops.Sides(
        input, [(-3.0, 0.0, -0.5), (3.0, 1.5, 1.0)])),
    Row("hardsigmoid", OF_SIDES, lambda input, inplace=False: ops.Sides(
        input, [(-3.0, 0.0, 1 / 6), (3.0, 1 / 6, 0.0)]), once="HardsigmoidBackward0",
        least=True),
    Row("elu", OF_SIDES, _elu, spellings="nn.functional.elu"),
    Row("selu", OF_SIDES, lambda input, inplace=False: ops.Sides(
        input, [(0.0, _SELU_SCALE * _SELU_ALPHA, _SELU_SCALE)])),
    Row("softshrink", OF_SIDES, _softshrink),
    Row("threshold", OF_SIDES, _threshold),
    Row("abs", OF_SIDES, lambda input: ops.Sides(input, [(0.0, -1.0, 1.0)]), "", "abs absolute",
        least=True),
    Row("fake_quantize", OF_SIDES, _quantised, "", "fake_quantize_per_tensor_affine",
        _STRAIGHT_THROUGH),
    Row("fake_quantize_channel", OF_SIDES, _quantised_by_channel, "fake_quantize",
        "fake_quantize_per_channel_affine", _STRAIGHT_THROUGH),
)  # fmt: skip
