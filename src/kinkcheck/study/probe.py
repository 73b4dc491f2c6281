"""Ties and gradient norm of one mini-batch, measured without moving the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kinkcheck.arithmetic.precision import Precision
from kinkcheck.measure.forward import Forward
from kinkcheck.nn import CompoundMaxPool2d


@dataclass(frozen=True)
class Ties:
    """How many windows of one pool are tied on the probe batch.

    Attributes:
        layer: name of the pool.
        windows: how many it has, over all its calls.
        tied: how many have more than one active branch.
    """

    layer: str
    windows: int
    tied: int

    @property
    def rate(self) -> float:
        """Share of windows that are tied.

        >>> Ties("features.2", 8, 2).rate
        0.25
        """
        return self.tied / self.windows if self.windows else 0.0


@dataclass(frozen=True)
class Probe:
    """What one mini-batch says about a network.

    Attributes:
        ties: of each max pool, in the order of their first calls.
        gradient_norm: 2-norm of the gradient of the mean loss, under the network's own selections;
            it is computed in float64 from the gradient in the precision of the run.
    """

    ties: tuple[Ties, ...]
    gradient_norm: float


def probe(model: nn.Module, loss: Callable[[], Tensor], held: Precision) -> Probe:
    """Measure a network on a mini-batch; mode, statistics and random state stay as they are.

    Args:
        model: the network, in the precision of the run.
        loss: that of the mini-batch: calls the network.
        held: the precision to compute in.

    >>> from kinkcheck import networks
    >>> from kinkcheck.arithmetic import precision
    >>> lenet = networks.build("lenet5", in_channels=1, classes=10, image_size=28)
    >>> zeros = torch.zeros(4, 1, 28, 28)
    >>> probed = probe(lenet, lambda: lenet(zeros).square().mean(), precision.parse("32"))
    >>> [(ties.layer, ties.rate) for ties in probed.ties]
    [('features.2', 1.0), ('features.6', 1.0)]
    """
    training = model.training
    device = next(model.parameters()).device
    model.train()
    try:
        with held.contractions(device):
            with held.computation(device):
                forward = Forward(model, loss)
            gradients = forward.gradient({})
    finally:
        model.train(training)
    norms = torch.stack([gradient.double().norm() for gradient in gradients.values()])
    compound = {
        name for name, module in model.named_modules() if isinstance(module, CompoundMaxPool2d)
    }
    ties: dict[str, Ties] = {}
    for site in forward.tape.sites:
        if site.row.family == "max_pool":
            parent, _, child = site.layer.rpartition(".")
            if parent in compound and child == "native":
                continue  # the other of its two pools has equal ties
            layer = parent if parent in compound else site.layer
            before = ties.get(layer, Ties(layer, 0, 0))
            ties[layer] = Ties(layer, before.windows + site.windows, before.tied + site.tied)
    return Probe(tuple(ties.values()), norms.norm().item())
