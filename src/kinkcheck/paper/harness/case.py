"""A network, data, and a size to measure it at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

from torch import Tensor, nn

from kinkcheck import data, networks
from kinkcheck.audit.points import Factory
from kinkcheck.data import Images
from kinkcheck.errors import InputError
from kinkcheck.networks import MLP

Batch: TypeAlias = tuple[Tensor, Tensor]
"""Images and their labels."""

M = TypeVar("M", bound=nn.Module)


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        draws: parameter draws.
        batches: mini-batches; None for as many whole ones as the images make.
        batch_size: images in each.
    """

    draws: int
    batches: int | None
    batch_size: int = 128

    def __str__(self) -> str:
        """As a part of a file's name.

        >>> str(Size(2, 3)), str(Size(1, None, 64))
        ('2x3x128', '1xallx64')
        """
        return f"{self.draws}x{'all' if self.batches is None else self.batches}x{self.batch_size}"


@dataclass(frozen=True)
class Network:
    """A network of the papers, to be built for a set of images.

    Attributes:
        name: as in :mod:`kinkcheck.networks`.
        batch_norm: whether it has batch norm.
        init: how its parameters are drawn.
    """

    name: str
    batch_norm: bool = False
    init: str = "default"

    def __str__(self) -> str:
        """The network in words.

        >>> str(Network("vgg11", batch_norm=True))
        'vgg11, batch norm'
        """
        return f"{self.name}{', batch norm' * self.batch_norm}"

    def build(self, images: Images) -> nn.Module:
        """The network, its parameters drawn from torch's global generator.

        >>> type(Network("lenet5").build(data.load("mnist-sample"))).__name__
        'LeNet5'
        """
        return networks.build(
            self.name,
            in_channels=images.channels,
            classes=images.classes,
            image_size=images.image_size[0],
            batch_norm=self.batch_norm,
            init=self.init,
        )


@dataclass(frozen=True)
class Mlp(Network):
    """A fully connected network; the defaults are those of [B21], whose volumes vary one of them.

    Attributes:
        layers: hidden layers.
        neurons: neurons in each.
    """

    name: str = "mlp"
    layers: int = 3
    neurons: int = 256

    def __str__(self) -> str:
        """The network in words.

        >>> str(Mlp(layers=2))
        'mlp-2x256'
        """
        return f"{self.name}-{self.layers}x{self.neurons}"

    def build(self, images: Images) -> nn.Module:
        """The network for a set of images."""
        return MLP(
            self.neurons,
            self.layers,
            in_channels=images.channels,
            classes=images.classes,
            image_size=images.image_size[0],
        )


@dataclass(frozen=True)
class Case:
    """A network on a set of images, and how much of both is measured.

    Attributes:
        network: the network.
        data: the image set.
        size: draws of the parameters, and mini-batches.
        split: of the image set.
    """

    network: Network
    data: str
    size: Size
    split: str = "train"

    def images(self, data_dir: Path | None) -> Images:
        """The image set.

        Args:
            data_dir: see :func:`kinkcheck.data.load`.

        Raises:
            InputError: it is not there.

        >>> len(Case(Network("lenet5"), "mnist-sample", Size(1, 2)).images(None))
        4000
        """
        return data.load(self.data, self.split, data_dir=data_dir)

    def factory(self, images: Images) -> Factory:
        """What builds the network for these images."""
        return partial(self.network.build, images)

    def batches(self, images: Images) -> list[Batch]:
        """The mini-batches that are measured: see :func:`take`.

        >>> case = Case(Network("lenet5"), "mnist-sample", Size(1, 2, 64))
        >>> [len(labels) for _, labels in case.batches(case.images(None))]
        [64, 64]
        """
        return take(images, self.size.batch_size, self.size.batches)


def replaced(model: nn.Module, kind: type[M], make: Callable[[M], nn.Module]) -> nn.Module:
    """The same model, each layer of a kind in it replaced.

    >>> replaced(nn.Sequential(nn.ReLU()), nn.ReLU, lambda layer: nn.Tanh())
    Sequential(
      (0): Tanh()
    )
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                setattr(parent, name, make(child))
    return model


def take(images: Images, batch_size: int, count: int | None, seed: int = 0) -> list[Batch]:
    """The first mini-batches of a shuffled set.

    Args:
        images: the set.
        batch_size: images in each.
        count: how many; None for all whole ones.
        seed: of the shuffle.

    Raises:
        InputError: there are fewer.

    >>> from kinkcheck.data import load
    >>> [len(labels) for _, labels in take(load("mnist-sample"), 1500, None)]
    [1500, 1500]
    """
    whole = len(images) // batch_size
    count = whole if count is None else count
    if not 1 <= count <= whole:
        raise InputError(
            f"batches: {count} of {batch_size} images each: {images.name} has {len(images):,} "
            f"images, enough for {whole}"
        )
    batches: Iterator[Batch] = images.batches(batch_size, seed=seed, drop_last=True)
    return [next(batches) for _ in range(count)]
