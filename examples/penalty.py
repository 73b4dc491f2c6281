"""A loss with a penalty on parameters, through a closure.

What is audited is the program that trains, on the network's own parameters: the gradient holds that
of the penalty, which knows them by closure. To audit it at 16 and 32 bits::

    kinkcheck audit examples/penalty.py:make --precision 16 32
"""

from collections.abc import Callable
from itertools import islice

import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import data

Batch = tuple[Tensor, Tensor]


def make() -> tuple[nn.Module, list[Batch], Callable[[nn.Module, Batch], Tensor]]:
    """A convolutional network, three mini-batches of handwritten digits, and the step."""
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]

    def penalised(outputs: Tensor, labels: Tensor) -> Tensor:
        penalty = sum(weight.square().sum() for weight in weights)
        return F.cross_entropy(outputs, labels) + 1e-2 * penalty

    def step(model: nn.Module, batch: Batch) -> Tensor:
        images, labels = batch
        return penalised(model(images), labels)

    batches = islice(data.load("mnist-sample").batches(32, seed=0), 3)
    return model, list(batches), step
