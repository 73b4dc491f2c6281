"""Networks by name."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from torch import nn

from kinkcheck.errors import InputError, unknown
from kinkcheck.networks.catalogue import NAMES
from kinkcheck.networks.densenet import DenseNet121
from kinkcheck.networks.initialisation import initialise
from kinkcheck.networks.lenet import LeNet5
from kinkcheck.networks.mlp import MLP
from kinkcheck.networks.resnet import ResNet
from kinkcheck.networks.vgg import VGG


class _Constructor(Protocol):
    def __call__(
        self, *, in_channels: int, classes: int, image_size: int, batch_norm: bool
    ) -> nn.Module: ...


# In the order of the names; a test compares them.
_CONSTRUCTORS: dict[str, _Constructor] = {
    "lenet5": LeNet5,
    "vgg9": partial(VGG, 9),
    "vgg11": partial(VGG, 11),
    "vgg13": partial(VGG, 13),
    "vgg16": partial(VGG, 16),
    "vgg19": partial(VGG, 19),
    "resnet18": partial(ResNet, 18),
    "resnet34": partial(ResNet, 34),
    "resnet50": partial(ResNet, 50),
    "densenet121": DenseNet121,
    "densenet121-published": partial(DenseNet121, published=True),
    "mlp": partial(MLP, 256, 3),
    "mlp-2048": partial(MLP, 2048, 3),
}


def build(
    name: str,
    *,
    in_channels: int,
    classes: int,
    image_size: int,
    batch_norm: bool = False,
    init: str = "default",
) -> nn.Module:
    """Build a network by name and draw its parameters from torch's global generator.

    Args:
        name: One of :data:`kinkcheck.networks.NAMES`.
        in_channels: Channels of an image, 1 or more.
        classes: Length of an output, 1 or more.
        image_size: Side s of an image in pixels, such as 28, 32 or 224. LeNet and MLP size their
            first linear layer from it; ResNet and DenseNet have the ImageNet stem above 64.
        batch_norm: Whether the network has batch norms.
        init: One of :data:`kinkcheck.networks.INITIALISATIONS`: PyTorch's ``"default"``, or the
            ``"kaiming"`` of the volume experiments; see :mod:`kinkcheck.networks.initialisation`.

    Returns:
        A module in training mode, of torch's default type and device:
        (batch, in_channels, s, s) → (batch, classes).

    Raises:
        InputError: If an argument is not accepted.

    >>> import torch
    >>> network = build("vgg11", in_channels=3, classes=10, image_size=32, init="kaiming")
    >>> network(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    >>> build("vgg11", in_channels=1, classes=10, image_size=28)
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: image_size must be 32 to 63 for vgg11, not 28
    """
    if name not in _CONSTRUCTORS:
        raise unknown("network", name, NAMES)
    for argument, value in {"in_channels": in_channels, "classes": classes}.items():
        if value < 1:
            raise InputError(f"{argument} must be 1 or more for {name}, not {value}")
    network = _CONSTRUCTORS[name](
        in_channels=in_channels, classes=classes, image_size=image_size, batch_norm=batch_norm
    )
    initialise(network, init)
    return network
