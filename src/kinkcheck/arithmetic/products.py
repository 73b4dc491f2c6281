"""float64 convolutions of small feature maps as one matrix product for the whole mini-batch.

PyTorch's float64 convolution on a CPU multiplies one image at a time. Where an image has few
places, as in the deep layers of a network, each product is small and takes up to three times as
long as one product of all images. Every entry is still one sum over kernel places and channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_aten = torch.ops.aten

_FEW_PLACES = 32  # of an image of the output, up to which one product was faster
_LARGEST = 1 << 28  # bytes of the unfolded input


def call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call an operation of ATen; a float64 convolution of small images is one product.

    It concerns two-dimensional ones of CPU tensors without groups; others are left to PyTorch.
    Results differ from PyTorch's by the rounding of a sum.

    >>> x, weight = torch.rand(8, 3, 4, 4).double(), torch.rand(5, 3, 3, 3).double()
    >>> how = None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1
    >>> found = call(_aten.convolution.default, (x, weight, *how), {})
    >>> torch.allclose(found, F.conv2d(x, weight, stride=2, padding=1), rtol=1e-14)
    True
    """
    if func is _aten.convolution.default:
        x, weight, bias, *how = args
        if _suits(x, weight, how):
            return _convolve(x, weight, bias, how)
    elif func is _aten.convolution_backward.default:
        grad_output, x, weight, _, *how, wanted = args
        if _suits(x, weight, how):
            return _differentiate(grad_output, x, weight, how, wanted)
    return func(*args, **kwargs)


def _suits(x: Tensor, weight: Tensor, how: Sequence[Any]) -> bool:
    stride, padding, dilation, transposed, _, groups = how
    if transposed or groups != 1 or weight.dim() != 4 or x.dtype != torch.float64 or not x.numel():
        return False
    if x.device.type != "cpu" or weight.dtype != x.dtype:
        return False
    places = 1
    for size, kernel, s, p, d in zip(
        x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
    ):
        places *= (size + 2 * p - d * (kernel - 1) - 1) // s + 1
    unfolded = 8 * len(x) * places * weight[0].numel()
    return 0 < places <= _FEW_PLACES and unfolded <= _LARGEST


def _windows(x: Tensor, kernel: Sequence[int], how: Sequence[Any]) -> Tensor:
    """A view (N, H, W, kernel height, kernel width, C) of a padded (N, H, W, C)."""
    stride, _, dilation = how[:3]
    for axis, (size, s, d) in enumerate(zip(kernel, stride, dilation, strict=True), start=1):
        x = x.unfold(axis, d * (size - 1) + 1, s)[..., ::d]
    return x.permute(0, 1, 2, 4, 5, 3)


def _padded(x: Tensor, how: Sequence[Any]) -> Tensor:
    height, width = how[1]
    return F.pad(x, (width, width, height, height)).permute(0, 2, 3, 1).contiguous()


def _factor(weight: Tensor) -> Tensor:
    """The weight as a matrix of output channels by all else; a view if it is channels_last."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, how: Sequence[Any]) -> Tensor:
    windows = _windows(_padded(x, how), weight.shape[2:], how)
    places = windows.shape[:3]
    factor = _factor(weight)
    product = windows.reshape(-1, factor.shape[1]) @ factor.T
    if bias is not None:
        product += bias
    result = product.view(*places, len(weight)).permute(0, 3, 1, 2)
    # As PyTorch lays it out: a network may take a view of it.
    return result.contiguous() if x.is_contiguous() and weight.is_contiguous() else result


def _differentiate(
    grad_output: Tensor, x: Tensor, weight: Tensor, how: Sequence[Any], wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    grad = grad_output.permute(0, 2, 3, 1).reshape(-1, len(weight))
    padded, kernel = _padded(x, how), weight.shape[2:]
    windows = _windows(padded, kernel, how)
    grad_x = grad_weight = grad_bias = None
    if wanted[0]:
        spread = (grad @ _factor(weight)).view(windows.shape)
        folded = torch.zeros_like(padded)
        into = _windows(folded, kernel, how)
        # Windows overlap, those of one place in the kernel do not.
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                into[:, :, :, i, j].add_(spread[:, :, :, i, j])
        (top, left), (height, width) = how[1], x.shape[2:]
        grad_x = folded[:, top : top + height, left : left + width].permute(0, 3, 1, 2)
    if wanted[1]:
        product = grad.T @ windows.reshape(len(grad), -1)
        grad_weight = product.view(len(weight), *kernel, -1).permute(0, 3, 1, 2)
    if wanted[2]:
        grad_bias = grad.sum(0)
    return grad_x, grad_weight, grad_bias
