"""Quantisation-aware training: 4-bit weights and 8-bit activations of a network that reads digits.

Rounded weights saturate exactly on the bound of their range, where clamping has a kink: the
gradient of each of them is a choice, in float32 too. PyTorch lets it through; the choice of least
norm does not. The sites count them::

    kinkcheck audit examples/quantised.py:make --precision 32 --layers
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import data

Batch = tuple[Tensor, Tensor]


class Quantised(nn.Linear):
    """A layer whose weights are rounded to −8, ..., 7 steps, the largest fifth of them clamped."""

    def forward(self, input: Tensor) -> Tensor:
        step = self.weight.detach().abs().quantile(0.8) / 7
        weight = torch.fake_quantize_per_tensor_affine(self.weight, step, ZERO, -8, 7)
        return F.linear(input, weight, self.bias)


class Activation(nn.Module):
    """A ReLU6 rounded to 255 steps."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(F.relu6(input), 6 / 255, 0, 0, 255)


ZERO = torch.tensor(0, dtype=torch.int32)


def make() -> tuple[nn.Module, list[Batch], Callable[[nn.Module, Batch], Tensor]]:
    """The network, two mini-batches of digits, and the step."""
    model = nn.Sequential(nn.Flatten(), Quantised(784, 32), Activation(), Quantised(32, 10))
    digits = data.load("mnist-sample").batches(32, seed=0)
    return model, [(images, labels) for images, labels in islice(digits, 2)], step


def step(model: nn.Module, batch: Batch) -> Tensor:
    """The loss of a mini-batch."""
    images, labels = batch
    return F.cross_entropy(model(images), labels)
