"""Mini-batches for training and testing, from sets that live on the device."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from kinkcheck import data
from kinkcheck.arithmetic import precision
from kinkcheck.arithmetic.precision import Precision
from kinkcheck.data import Images, ImageSet
from kinkcheck.study.streams import stream

Batch = tuple[Tensor, Tensor]

_KEPT_NORMALISED = 1 << 30  # bytes that a normalised set may take on the device


class Feed(ABC):
    """One split of a data set in a precision, on a device, given out in mini-batches.

    Attributes:
        images: the set.
    """

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    @abstractmethod
    def epoch(
        self, batch_size: int, epoch: int, order_seed: int, augment_seed: int | None
    ) -> Iterator[Batch]:
        """Every image once, shuffled; the last batch may be smaller.

        Args:
            batch_size: images a batch.
            epoch: number of the epoch; the order and the augmentation depend on it and on the
                seeds, and on nothing that was drawn before.
            order_seed: of the shuffle.
            augment_seed: of the augmentation; None for none.
        """

    @abstractmethod
    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Every image once in stored order, not augmented."""


class ResidentFeed(Feed):
    """A set that lives on the device; no batch costs a line of Python for each image.

    What is not augmented is normalised once, where it takes no more than a gigabyte; else each
    batch is, from bytes. The batches are those of :meth:`kinkcheck.data.ImageSet.batches`, bit for
    bit.

    >>> feed = ResidentFeed(data.load("mnist-sample"), precision.parse("32"), "cpu")
    >>> x, y = next(feed.epoch(128, 1, order_seed=0, augment_seed=None))
    >>> x.shape, y.shape
    (torch.Size([128, 1, 28, 28]), torch.Size([128]))
    """

    def __init__(self, images: ImageSet, held: Precision, device: torch.device | str) -> None:
        super().__init__(images)
        self._set = images
        self._held = held
        self._raw = images.images.to(device)
        self._labels = images.labels.to(device)
        size = images.images.numel() * torch.finfo(held.storage).bits // 8
        self._keeps = size <= _KEPT_NORMALISED
        self._normalised: Tensor | None = None

    def epoch(
        self, batch_size: int, epoch: int, order_seed: int, augment_seed: int | None
    ) -> Iterator[Batch]:
        """Every image once, shuffled; see :meth:`Feed.epoch`."""
        order = torch.randperm(len(self), generator=_generator(order_seed, "order", epoch))
        order = order.to(self._raw.device)
        draws = None if augment_seed is None else _generator(augment_seed, "augment", epoch)
        for chosen in order.split(batch_size):
            yield self._images(chosen, draws), self._labels[chosen]

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Every image once in stored order; see :meth:`Feed.in_order`."""
        for start in range(0, len(self), batch_size):
            chosen = slice(start, start + batch_size)
            yield self._images(chosen, None), self._labels[chosen]

    def _images(self, chosen: Tensor | slice, draws: torch.Generator | None) -> Tensor:
        if draws is not None and self._set.augmentation is not None:
            return self._ready(self._set.augmentation(self._raw[chosen], draws))
        if not self._keeps:
            return self._ready(self._raw[chosen])
        if self._normalised is None:
            self._normalised = torch.cat([self._ready(part) for part in self._raw.split(1000)])
        return self._normalised[chosen]

    def _ready(self, raw: Tensor) -> Tensor:
        return self._held.cast(self._set.normalise(raw), raw.device)


class StreamedFeed(Feed):
    """A set that is too large for memory and comes from disk batch by batch."""

    def __init__(self, images: Images, held: Precision, device: torch.device | str) -> None:
        super().__init__(images)
        self._held = held
        self._device = device

    def epoch(
        self, batch_size: int, epoch: int, order_seed: int, augment_seed: int | None
    ) -> Iterator[Batch]:
        """Every image once, shuffled; see :meth:`Feed.epoch`."""
        return self._batches(
            batch_size,
            seed=stream(order_seed, "order", epoch),
            augment_seed=None if augment_seed is None else stream(augment_seed, "augment", epoch),
        )

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Every image once in stored order; see :meth:`Feed.in_order`."""
        return self._batches(batch_size, seed=None, augment_seed=None)

    def _batches(
        self, batch_size: int, *, seed: int | None, augment_seed: int | None
    ) -> Iterator[Batch]:
        batches = self.images.batches(
            batch_size,
            seed=seed,
            augment=augment_seed is not None,
            augment_seed=augment_seed,
            device=self._device,
        )
        for x, y in batches:
            yield self._held.cast(x, self._device), y


def feed(
    name: str, split: str, count: int | None, data_dir: str | None, held: str, device: str
) -> Feed:
    """The feed of a split; asked for again it is the same one.

    Args:
        name: of the data set.
        split: the part of it.
        count: only the first so many images; None for all.
        data_dir: see :func:`kinkcheck.data.load`.
        held: name of the precision.
        device: where the batches are wanted.

    Raises:
        InputError: the data cannot be loaded.

    >>> len(feed("mnist-sample", "train", 100, None, "float32", "cpu"))
    100
    """
    return _feed(name, split, count, data_dir, held, device)


# Two splits, in the precisions that take turns in a study.
@lru_cache(maxsize=8)
def _feed(
    name: str, split: str, count: int | None, data_dir: str | None, held: str, device: str
) -> Feed:
    images = load(name, split, count, data_dir)
    kind = ResidentFeed if isinstance(images, ImageSet) else StreamedFeed
    return kind(images, precision.parse(held), device)  # type: ignore[arg-type]


@lru_cache(maxsize=4)
def load(name: str, split: str, count: int | None, data_dir: str | None) -> Images:
    """The first ``count`` images of a split, or all; loaded once in a process."""
    images = data.load(name, split, data_dir=data_dir)
    return images if count is None else images.take(count)


def digest(images: Images) -> str:
    """A digest of a set that changes when its images or labels do.

    Of a set in memory it is SHA-256 of what is in it; of a streamed one, of the names, sizes and
    times of its files.

    >>> digest(data.load("mnist-sample").take(1)) == digest(data.load("mnist-sample").take(2))
    False
    """
    whole = hashlib.sha256()
    if isinstance(images, ImageSet):
        whole.update(repr(tuple(images.images.shape)).encode())
        whole.update(images.images.contiguous().numpy().data)
        whole.update(images.labels.contiguous().numpy().data)
    else:
        rows = getattr(images, "rows", None)
        whole.update(f"{rows.source.key} {len(images)}".encode() if rows else repr(images).encode())
    return whole.hexdigest()


def _generator(seed: int, purpose: str, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream(seed, purpose, epoch))
