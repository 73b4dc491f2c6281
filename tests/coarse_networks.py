"""Small random networks on coarse grids, in which ties over the rationals abound."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from torch import Tensor, nn

CLASSES = 3
_PAIRS = ((1, 2), (2, 1))


def coarse_points(
    count: int, seed: int, *, binary: bool = False
) -> Iterator[tuple[nn.Module, Tensor, Tensor]]:
    """Points at which programs agree, compensate and bifurcate.

    Convolution, ReLU, max pooling (overlapping or not), once or twice, then linear layers, in
    float32. Weights are multiples of 1/4 in [-1, 1] and inputs of 1/4 in [0, 1]: float32 and
    float64 carry them exactly through the network. Half of the inputs are flat in blocks of 3 × 3
    pixels, so that tied windows see equal patches, whose choice does not matter over the reals.

    Args:
        count: how many points.
        seed: of all draws.
        binary: pool over two entries, so that the minimal selection is exact in binary too.

    Yields:
        A model in evaluation mode, a batch of inputs (n, channels, s, s), and its targets.
    """
    draw = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        channels, size, batch = draw.choice((1, 2)), draw.randint(7, 9), draw.randint(1, 3)
        filters = draw.randint(1, 3)
        convolution = nn.Conv2d(channels, filters, draw.choice((2, 3)), padding=draw.choice((0, 1)))
        kernel = draw.choice(_PAIRS if binary else ((2, 2), (2, 2), (3, 3), (2, 3)))
        layers = [convolution, nn.ReLU(), nn.MaxPool2d(kernel, draw.choice((None, 1)))]
        if draw.random() < 1 / 3:
            kernel = draw.choice(_PAIRS) if binary else (2, 2)
            layers += [nn.Conv2d(filters, 2, 2, padding=1), nn.ReLU(), nn.MaxPool2d(kernel, 1)]
        layers.append(nn.Flatten())
        inputs = _grid((batch, channels, size, size), 0, 4, generator)
        if draw.random() < 0.5:
            coarse = _grid((batch, channels, 3, 3), 0, 4, generator)
            blocks = coarse.repeat_interleave(3, -1).repeat_interleave(3, -2)
            inputs = blocks[..., :size, :size].contiguous()
        with torch.no_grad():
            features = nn.Sequential(*layers)(inputs).shape[1]
        if draw.random() < 0.5:
            layers += [nn.Linear(features, 4), nn.ReLU()]
            features = 4
        model = nn.Sequential(*layers, nn.Linear(features, CLASSES)).eval()
        for parameter in model.parameters():
            parameter.data = _grid(tuple(parameter.shape), -4, 4, generator)
        yield model, inputs, torch.randint(CLASSES, (batch,), generator=generator)


def _grid(shape: tuple[int, ...], low: int, high: int, generator: torch.Generator) -> Tensor:
    return torch.randint(low, high + 1, shape, generator=generator) / 4
