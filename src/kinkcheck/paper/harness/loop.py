"""The plain loop of the experiments that look into a training at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import nn as knn
from kinkcheck.arithmetic.precision import Precision
from kinkcheck.data import Images
from kinkcheck.paper.harness.case import Batch

_RELUS = (nn.ReLU, nn.ReLU6, knn.ReLU, knn.ReLU6, knn.AssignedReLU, knn.AssignedReLU6)


class Score(NamedTuple):
    """What a network does on some images.

    Attributes:
        loss: mean cross entropy.
        accuracy: in per cent; a network of NaN has that of class 0.
    """

    loss: float
    accuracy: float


def endless(images: Images, batch_size: int) -> Iterator[Batch]:
    """Mini-batches of one epoch after the other, each in an order of its own, without an end.

    >>> from itertools import islice
    >>> from kinkcheck.data import load
    >>> [len(labels) for _, labels in islice(endless(load("mnist-sample"), 1500), 3)]
    [1500, 1500, 1500]
    """
    for epoch in count():
        yield from images.batches(batch_size, seed=epoch, drop_last=True)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, pair: Batch, held: Precision) -> float:
    """One training step; the loss before it.

    Args:
        model: in its precision, on its device.
        optimizer: of its parameters.
        pair: images and labels, anywhere.
        held: the precision.

    >>> from kinkcheck.arithmetic.precision import parse
    >>> model = nn.Linear(1, 2)
    >>> pair = torch.zeros(1, 1), torch.tensor([0])
    >>> step(model, torch.optim.SGD(model.parameters(), lr=0.1), pair, parse("32")) > 0
    True
    """
    images, labels, device = *pair, next(model.parameters()).device
    optimizer.zero_grad()
    with held.contractions(device):
        loss = F.cross_entropy(model(held.cast(images, device)), labels.to(device))
        torch.autograd.backward(loss)
    optimizer.step()
    return loss.item()


def tested(model: nn.Module, images: Images, held: Precision) -> Score:
    """Loss and accuracy over a set; the network is left in the mode that it had.

    >>> from kinkcheck import networks
    >>> from kinkcheck.arithmetic.precision import parse
    >>> from kinkcheck.data import load
    >>> digits = load("mnist-sample").take(100)
    >>> model = networks.build("lenet5", in_channels=1, classes=10, image_size=28)
    >>> 0 <= tested(model, digits, parse("32")).accuracy <= 100
    True
    """
    device, training = next(model.parameters()).device, model.training
    model.eval()
    loss, right = 0.0, 0
    with torch.no_grad(), held.contractions(device):
        for x, y in images.batches(256):
            scores = model(held.cast(x, device)).float()
            loss += F.cross_entropy(scores, y.to(device), reduction="sum").item()
            right += int((scores.argmax(1).cpu() == y).sum())
    model.train(training)
    return Score(loss / len(images), 100 * right / len(images))


@contextmanager
def seeing(model: nn.Module, see: Callable[[Tensor], None]) -> Iterator[None]:
    """A context in which every tensor that a ReLU or ReLU6 of a model is given is shown.

    >>> model = nn.Sequential(nn.ReLU())
    >>> with seeing(model, print):
    ...     _ = model(torch.zeros(1))
    tensor([0.])
    """
    hooks = [
        module.register_forward_pre_hook(lambda _, given: see(given[0]))
        for module in model.modules()
        if isinstance(module, _RELUS)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
