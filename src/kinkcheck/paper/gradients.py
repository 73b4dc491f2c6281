"""What the experiments that audit share: networks, mini-batches, and gradients without a choice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import networks
from kinkcheck.arithmetic import precision
from kinkcheck.audit.points import Factory
from kinkcheck.data import Images
from kinkcheck.measure.batch import Samples
from kinkcheck.measure.noise import noise
from kinkcheck.measure.runs import Runs, pairs
from kinkcheck.measure.variation import Variation, gradient_variation
from kinkcheck.selection import Selection
from kinkcheck.tape import Site, Tape

Batch = tuple[Tensor, Tensor]
"""Images and their labels."""


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        draws: parameter draws.
        batches: mini-batches.
        batch_size: images in each.

    >>> Size(2, 3).points
    6
    """

    draws: int
    batches: int
    batch_size: int = 128

    @property
    def points(self) -> int:
        """Pairs of a draw and a mini-batch."""
        return self.draws * self.batches

    def __str__(self) -> str:
        """As a part of a file's name."""
        return f"{self.draws}x{self.batches}x{self.batch_size}"


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

        >>> from kinkcheck.data import load
        >>> type(Network("lenet5").build(load("mnist-sample"))).__name__
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


def largest(values: Iterable[float]) -> float:
    """The largest of some numbers; not a number if one of them is none.

    >>> largest([1.0, math.nan, 0.5])
    nan
    """
    found = list(values)
    return math.nan if any(map(math.isnan, found)) else max(found)


def drawn(network: Factory, seed: int) -> nn.Module:
    """A network with the parameters of a seed, as an audit draws them; the generator is left alone.

    >>> def network():
    ...     return nn.Linear(1, 1)
    >>> bool(drawn(network, 0).weight == drawn(network, 0).weight)
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = network()
        return model


def take(images: Images, batch_size: int, count: int | None, seed: int = 0) -> list[Batch]:
    """The first mini-batches of a shuffled set; all whole ones if there are fewer.

    Args:
        images: the set.
        batch_size: images in each.
        count: how many; None for all.
        seed: of the shuffle.

    >>> from kinkcheck.data import load
    >>> [len(labels) for _, labels in take(load("mnist-sample"), 1500, None)]
    [1500, 1500]
    """
    whole = len(images) // batch_size
    batches: Iterator[Batch] = images.batches(batch_size, seed=seed, drop_last=True)
    return [next(batches) for _ in range(whole if count is None else min(count, whole))]


def repeated(model: nn.Module, pair: Batch, at: str, device: str) -> Variation:
    """How far two runs of one program are apart: forward and backward twice, nothing changed.

    Args:
        model: in any precision.
        pair: images and labels.
        at: name of the precision.
        device: where to run.

    >>> pair = torch.rand(4, 3), torch.tensor([0, 1, 0, 1])
    >>> repeated(nn.Linear(3, 2), pair, "float32", "cpu").l1
    0.0
    """
    runs = _runs(model, pair, at, device)
    with runs.audited():
        return gradient_variation(runs.plain(), runs.plain())


def reordered(
    model: nn.Module, pair: Batch, at: str, device: str, *, meet: bool, seed: int = 0
) -> Variation:
    """How far runs are apart that are equal over the reals: another order, or two halves.

    Args:
        model: in any precision.
        pair: images and labels.
        at: name of the precision.
        device: where to run.
        meet: whether samples meet in the network, as in batch norm; then no halves are added.
        seed: of the order.

    >>> pair = torch.rand(8, 3), torch.tensor([0, 1] * 4)
    >>> reordered(nn.Linear(3, 2), pair, "float32", "cpu", meet=False).relative_l1 < 1e-5
    True
    """
    runs, samples = _runs(model, pair, at, device), Samples(len(pair[1]))
    with runs.audited():
        whole = runs.forward()
        return noise(
            lambda order: runs.forward(samples, order),
            samples.count,
            whole.gradient(_native),
            _native,
            bottleneck=None if meet else (0, whole.output_gradient()),
            seed=seed,
        )


def against_native(
    model: nn.Module, pair: Batch, at: str, device: str, family: str, selection: Selection
) -> Variation:
    """How far the gradient under a selection of one family is from the native one.

    Args:
        model: in any precision.
        pair: images and labels.
        at: name of the precision.
        device: where to run.
        family: of the operations that are switched, ``max_pool`` or ``relu``.
        selection: what they are switched to.

    >>> from kinkcheck.selection import Branch
    >>> pair = torch.zeros(2, 3), torch.tensor([0, 1])
    >>> model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU())
    >>> against_native(model, pair, "float32", "cpu", "relu", Branch(1.0)).l1
    0.0
    """

    def chosen(tape: Tape) -> dict[Site, Selection]:
        return {site: selection for site in tape.sites if site.row.family == family}

    runs = _runs(model, pair, at, device)
    with runs.audited():
        forward = runs.forward()
        return gradient_variation(forward.gradient(chosen), forward.gradient(_native))


def _runs(model: nn.Module, pair: Batch, at: str, device: str) -> Runs:
    return Runs(model, pairs(F.cross_entropy), pair, precision.parse(at), device, where=at)


def _native(tape: Tape) -> dict[Site, Selection]:
    """Every site as PyTorch has it."""
    return {}
