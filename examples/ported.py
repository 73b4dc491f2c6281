"""A network that was ported to JAX, and whose gradient is another one there.

Images with a black border meet filters whose biases are 0 at first, so that many sums are 0: there
the clamp, the magnitude, the maximum and the pooling have ties. ``ported_jax.py`` is the same
network in JAX; ``ported_jax.npz`` holds its gradient at the same weights and images, by the names
of the parameters here. Is the port wrong, is it rounding, or does JAX choose another derivative::

    kinkcheck explain examples/ported.py:make --gradient examples/ported_jax.npz
    kinkcheck audit examples/ported.py:make --precision 32
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


class Clip(nn.Module):
    """Numbers between 0 and 1."""

    def forward(self, input: Tensor) -> Tensor:
        return input.clamp(0, 1)


class Larger(nn.Module):
    """The larger of the magnitudes of one half of the channels and the other."""

    def forward(self, input: Tensor) -> Tensor:
        one, other = input.abs().chunk(2, dim=1)
        return torch.maximum(one, other)


class Ported(nn.Module):
    """Two layers of filters and a linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.clip = Clip()
        self.pool = nn.MaxPool2d(2)
        self.second = nn.Conv2d(4, 8, 3)
        self.larger = Larger()
        self.last = nn.Linear(324, 10)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.pool(self.clip(self.first(images)))
        return self.last(self.larger(self.second(pooled)).flatten(1))


def numbers(*shape: int, seed: int) -> Tensor:
    """Multiples of 1/64 between −1/2 and 1/2 that look drawn, the same in every framework."""
    count = torch.Size(shape).numel()
    return (((torch.arange(count) * 7919 + seed) ** 2 % 65 - 32) / 64).reshape(shape)


def make() -> tuple[nn.Module, list[Batch], Callable[[nn.Module, Batch], Tensor]]:
    """The network, a mini-batch of eight images with a black border, and the step."""
    model = Ported()
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.copy_(numbers(*parameter.shape, seed=seed) if parameter.dim() > 1 else 0)
    images = F.pad(numbers(8, 1, 8, 8, seed=9).abs(), (8, 8, 8, 8))
    return model, [(images, torch.arange(8))], step


def step(model: nn.Module, batch: Batch) -> Tensor:
    """The loss of a mini-batch."""
    images, labels = batch
    return F.cross_entropy(model(images), labels)
