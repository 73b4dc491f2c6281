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
from dataclasses import dataclass, field

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

_POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d,
)  # fmt: skip


_POINTWISE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softshrink,
    nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh,
)  # fmt: skip
"""Continuous functions of each entry by itself, without parameters."""

_SHAPE = (nn.Identity, nn.Flatten)


@dataclass(frozen=True)
class Conditions:
    """What the theorems ask of a network and a mini-batch, and what of it is not so.

    Attributes:
        unmet: a phrase for each condition that does not hold, as far as modules tell.
        unknown: the names of modules of which they do not tell.
    """

    unmet: list[str]
    unknown: list[str] = field(default_factory=list)

    @property
    def apply(self) -> bool:
        """Whether the theorems say that the native gradient is right."""
        return not self.unmet and not self.unknown

    def __str__(self) -> str:
        if self.unmet:
            return f"not met: {'; '.join(self.unmet)}"
        return "met" if self.apply else "nothing in the modules speaks against it"


def conditions(model: nn.Module, batch_size: int) -> Conditions:
    """Whether the theorems apply to a network on mini-batches of a size.

    Only modules are looked at, which tell what is not met. That all is met they tell of nothing but
    a :class:`torch.nn.Sequential`, in which each linear layer is called once, and every activation
    on what one returns: a forward method may call a module twice or none, or subtract what it
    returned. Neither the loss nor the inputs are looked at: a linear layer that gets a sequence of
    vectors shares its biases between them.

    Args:
        model: the network.
        batch_size: samples in a mini-batch, which are vectors.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> print(conditions(model, 1))
    met
    >>> print(conditions(nn.RNN(2, 3, nonlinearity="relu"), 1))
    nothing in the modules speaks against it
    >>> print(conditions(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2)), 128))
    not met: a batch of 128, not 1; layer 0 shares its biases between positions; max pooling in
    layer 2 is not pointwise
    """
    batch = [f"a batch of {batch_size}, not 1"] if batch_size != 1 else []
    return Conditions([*batch, *_of_layers(model)], list(_unknown(model)))


def _unknown(model: nn.Module) -> Iterator[str]:
    """The modules that are not known to be what the theorems are about, by name."""
    called: set[int] = set()
    last: nn.Module = model
    for name, module in _in_turn("", model):
        if type(module) in _SHAPE and not _hooked(module):
            continue
        if type(module) is nn.Linear:
            known = id(module) not in called
        else:
            known = type(module) in _POINTWISE and type(last) is nn.Linear
        if not known or _hooked(module):
            yield name
        called.add(id(module))
        last = module


def _in_turn(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules in the order in which they are called, with their names, as far as is known."""
    if type(module) is not nn.Sequential or _hooked(module):
        yield name, module
        return
    for key, child in module._modules.items():  # named_children passes over one that comes again
        if child is not None:
            yield from _in_turn(f"{name}.{key}" if name else key, child)


def _hooked(module: nn.Module) -> bool:
    """Whether what a module does may be another thing than what its class does."""
    hooks = (
        module._forward_hooks, module._forward_pre_hooks,
        module._backward_hooks, module._backward_pre_hooks,
    )  # fmt: skip
    return "forward" in vars(module) or any(hooks)


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
