"""Random crops and flips of a whole batch at once, on the device where it lies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Augmentation: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""Raw images (N, C, H, W) and a generator to raw images of the same shape, dtype and device."""


def crop_and_flip(images: Tensor, generator: torch.Generator, *, padding: int = 4) -> Tensor:
    """Crop each image at random out of its zero-padded self, and mirror every other one.

    The usual CIFAR training pipeline: torchvision's ``RandomCrop(size, padding=4)``, then
    ``RandomHorizontalFlip()``, then ``Normalize``. The border is therefore black in the raw image,
    not zero after normalisation: give this function raw pixels, and normalise what it returns.

    Args:
        images: (N, C, H, W), any dtype, any device.
        generator: where the offsets and the flips are drawn, on its own device; with a CPU
            generator the result is the same on every device.
        padding: width of the black border on each of the four sides, in pixels.

    Returns:
        (N, C, H, W), same dtype and device. The (2 * padding + 1)² crops are equally likely, a
        flip has probability 1/2, and images are independent of each other.

    Source: K. He et al., "Deep residual learning for image recognition", CVPR 2016, section 4.2.

    >>> pixels = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4)
    >>> crop_and_flip(pixels, torch.Generator().manual_seed(1), padding=1).shape
    torch.Size([1, 1, 4, 4])
    """
    count, channels, height, width = images.shape
    draw = partial(torch.randint, generator=generator, device=generator.device)
    top, left = draw(2 * padding + 1, (2, count, 1)).to(images.device)
    flip = draw(2, (count, 1)).to(images.device).bool()

    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    columns = torch.where(flip, columns.flip(1), columns)
    padded = F.pad(images, (padding,) * 4)
    return padded[
        torch.arange(count, device=images.device)[:, None, None, None],
        torch.arange(channels, device=images.device)[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]
