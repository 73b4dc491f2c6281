"""Fake quantisation that first observes the range of its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def fused_moving_avg_obs_fake_quant(
    input: Tensor,
    observer_on: Tensor,
    fake_quant_on: Tensor,
    running_min: Tensor,
    running_max: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    averaging_const: float,
    quant_min: int,
    quant_max: int,
    ch_axis: int,
    per_row_fake_quant: bool = False,
    symmetric_quant: bool = False,
) -> Tensor:
    """Update the scale and the zero point in place, then round and clamp.

    >>> on, scale, zero = torch.tensor([1]), torch.tensor([1.0]), torch.tensor([0]).int()
    >>> low, high = torch.tensor(-1.0), torch.tensor(1.0)
    >>> fused_moving_avg_obs_fake_quant(
    ...     torch.tensor([-2.0, 2.0]), on, on, low, high, scale, zero, 0.0, -4, 4, -1
    ... )
    tensor([-1.,  1.])
    """
    observed = (running_min, running_max, scale, zero_point, averaging_const, quant_min, quant_max)
    with torch.no_grad(), torch._C.DisableTorchFunction():
        torch.fused_moving_avg_obs_fake_quant(
            input.detach(), observer_on, fake_quant_on, *observed, ch_axis, per_row_fake_quant,
            symmetric_quant,
        )  # fmt: skip
    if not input.numel() or not fake_quant_on.item():
        return input.clone()
    if per_row_fake_quant:
        return torch.fake_quantize_per_channel_affine(
            input, scale, zero_point, ch_axis, quant_min, quant_max
        )
    return torch.fake_quantize_per_tensor_affine(input, scale, zero_point, quant_min, quant_max)


COMPOSITIONS: dict[Any, Any] = {
    torch.fused_moving_avg_obs_fake_quant: fused_moving_avg_obs_fake_quant
}
"""What PyTorch's function is written as."""
