"""Quantisation-aware training: 4-bit weights and 8-bit activations of a network that reads digits.

Weights are rounded to steps and clamped to their range, as libraries for quantisation do it. Of
those that are rounded to the last step each lies exactly on the bound, where clamping has a kink,
in float32 too: up to PyTorch 2.13 the gradient passes there, from 2.14 on it does not, and such a
weight stays where it is. Which share of the weights that is, and how far the gradient moves::

    kinkcheck audit examples/quantised.py:make --reference as:torch-2.13 --selection as:torch-2.14
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
        weight = rounded(self.weight / step).clamp(-8, 7) * step
        return F.linear(input, weight, self.bias)


def rounded(input: Tensor) -> Tensor:
    """The nearest whole numbers; the gradient passes straight through."""
    return torch.fake_quantize_per_tensor_affine(input, 1.0, 0, -128, 127)


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
