"""Whether a published theorem says of a network that its gradients are right.

Park, Chun and Lee (*What does automatic differentiation compute for neural networks?*, ICLR 2024)
prove that automatic differentiation returns an element of the Clarke subdifferential "for networks
with pointwise activation functions, if the minibatch size is one and all non-differentiable neurons
have distinct bias parameters", and that it need not otherwise. Lee, Park and Aiken (*On the
Correctness of Automatic Differentiation for Neural Networks with Machine-Representable Parameters*,
ICML 2023) prove the same, and that it returns the derivative wherever there is one, at parameters
that are machine numbers, for networks with bias parameters. These are the words of their abstracts;
both papers have more general results, for shared biases and max pooling among others, which are not
looked at here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

_POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d,
)  # fmt: skip


@dataclass(frozen=True)
class Conditions:
    """What the theorems ask of a network and a mini-batch, and what of it is not so.

    Attributes:
        unmet: a phrase for each condition that does not hold; nothing if the theorems apply, as far
            as the modules of the network tell.
    """

    unmet: list[str]

    @property
    def apply(self) -> bool:
        """Whether the theorems say that the native gradient is right."""
        return not self.unmet

    def __str__(self) -> str:
        return f"not met: {'; '.join(self.unmet)}" if self.unmet else "met"


def conditions(model: nn.Module, batch_size: int) -> Conditions:
    """Whether the theorems apply to a network on mini-batches of a size.

    Only modules are looked at: of an operation that the model calls without one nothing is said.

    Args:
        model: the network.
        batch_size: samples in a mini-batch.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> print(conditions(model, 1))
    met
    >>> print(conditions(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2)), 128))
    not met: a batch of 128, not 1; layer 0 shares its biases between positions; max pooling in
    layer 2 is not pointwise
    """
    batch = [f"a batch of {batch_size}, not 1"] if batch_size != 1 else []
    return Conditions([*batch, *_of_layers(model)])


def _of_layers(model: nn.Module) -> Iterator[str]:
    without: list[str] = []
    frozen: list[str] = []
    shared: list[str] = []
    computed: list[str] = []
    normed: list[str] = []
    pooled: list[str] = []
    biases: Counter[int] = Counter()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | _ConvNd):
            if module.bias is None:
                without.append(name)
            elif not module.bias.requires_grad:
                frozen.append(name)
            elif isinstance(module, _ConvNd):
                shared.append(name)
            if module.bias is not None:
                biases[id(module.bias)] += 1
            if parametrize.is_parametrized(module):
                computed.append(name)
        elif isinstance(module, _POOLS):
            pooled.append(name)
        elif isinstance(module, _BatchNorm):
            normed.append(name)
    for names, one, several in (
        (without, "has no bias", "have no bias"),
        (frozen, "does not train its bias", "do not train their biases"),
        (shared, "shares its biases between positions", "share their biases between positions"),
        (computed, "computes its parameters from others", "compute their parameters from others"),
        (normed, "normalises over the batch", "normalise over the batch"),
    ):
        if names:
            yield f"{_layers(names)} {one if len(names) == 1 else several}"
    if pooled:
        yield f"max pooling in {_layers(pooled)} is not pointwise"
    if any(count > 1 for count in biases.values()):
        yield "layers have a bias in common"


def _layers(names: list[str]) -> str:
    return f"layer {names[0]}" if len(names) == 1 else f"{len(names)} layers"
