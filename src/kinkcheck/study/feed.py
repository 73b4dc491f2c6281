"""Mini-batches for training and testing: of any samples, and of images that live on the device."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence, Sized
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from kinkcheck import data
from kinkcheck.arithmetic.precision import Precision
from kinkcheck.data import Images, ImageSet
from kinkcheck.errors import blaming
from kinkcheck.measure.batch import tensors
from kinkcheck.study.streams import stream

Batches: TypeAlias = Iterator[tuple[Any, int]]
"""Mini-batches, each with the number of its samples."""

_KEPT_NORMALISED = 1 << 30  # bytes that a normalised set may take on the device
_HASHED = 256  # samples that are put together for a digest


class Feed(ABC):
    """Samples in a precision, on a device, given out in mini-batches."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def epoch(self, batch_size: int, epoch: int, order_seed: int, augment_seed: int) -> Batches:
        """Every sample once, shuffled; the last batch may be smaller.

        Args:
            batch_size: samples a batch.
            epoch: number of the epoch; the order and what is drawn depend on it and on the seeds,
                and on nothing that was drawn before.
            order_seed: of the shuffle.
            augment_seed: of what the samples draw.
        """

    @abstractmethod
    def in_order(self, batch_size: int) -> Batches:
        """Every sample once in stored order; what they draw is the same every time."""


class SampleFeed(Feed):
    """Samples that are put together to mini-batches one by one.

    Args:
        samples: have a length and ``[number]``; where there is one, their ``__getitems__`` is asked
            for the samples of a batch at once, as a ``DataLoader`` does it.
        collate: makes a mini-batch of some.
        ready: takes one to the precision and the device.

    >>> feed = SampleFeed(range(5), torch.tensor, torch.neg)
    >>> list(feed.in_order(3))
    [(tensor([ 0, -1, -2]), 3), (tensor([-3, -4]), 2)]
    >>> sorted(n for batch, _ in feed.epoch(2, 1, order_seed=0, augment_seed=0) for n in batch)
    [tensor(-4), tensor(-3), tensor(-2), tensor(-1), tensor(0)]
    """

    def __init__(
        self,
        samples: Sized,
        collate: Callable[[list[Any]], Any],
        ready: Callable[[Any], Any] = lambda batch: batch,
    ) -> None:
        self._samples: Any = samples
        self._collate = collate
        self._ready = ready

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._samples)

    def epoch(self, batch_size: int, epoch: int, order_seed: int, augment_seed: int) -> Batches:
        """Every sample once, shuffled; see :meth:`Feed.epoch`."""
        order = torch.randperm(len(self), generator=_generator(order_seed, "order", epoch))
        draws = _generator(augment_seed, "augment", epoch).get_state()
        return self._batches(order.tolist(), batch_size, draws)

    def in_order(self, batch_size: int) -> Batches:
        """Every sample once in stored order; see :meth:`Feed.in_order`."""
        draws = torch.Generator().manual_seed(0).get_state()
        return self._batches(range(len(self)), batch_size, draws)

    def _batches(self, order: Sequence[int], batch_size: int, draws: Tensor) -> Batches:
        for start in range(0, len(order), batch_size):
            chosen = list(order[start : start + batch_size])
            # What the samples draw is a stream of its own, beside what the network draws.
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(draws)
                batch = self._collate(self._fetched(chosen))
                draws = torch.get_rng_state()
            yield self._ready(batch), len(chosen)

    def _fetched(self, chosen: list[int]) -> list[Any]:
        if hasattr(self._samples, "__getitems__"):
            return list(self._samples.__getitems__(chosen))
        return [self._samples[number] for number in chosen]


class ResidentFeed(Feed):
    """Images that live on the device; no batch costs a line of Python for each of them.

    What is not augmented is normalised once, where it takes no more than a gigabyte; else each
    batch is, from bytes. The batches are those of :meth:`kinkcheck.data.ImageSet.batches`, bit for
    bit.

    Args:
        images: the set.
        held: the precision.
        device: where they live.
        augment: whether an epoch has them augmented.

    >>> from kinkcheck.arithmetic import precision
    >>> feed = ResidentFeed(data.load("mnist-sample"), precision.parse("32"), "cpu", False)
    >>> (x, y), images = next(feed.epoch(128, 1, order_seed=0, augment_seed=0))
    >>> x.shape, y.shape, images
    (torch.Size([128, 1, 28, 28]), torch.Size([128]), 128)
    """

    def __init__(
        self, images: ImageSet, held: Precision, device: torch.device | str, augment: bool
    ) -> None:
        self._set = images
        self._augment = augment
        self._held = held
        self._raw = images.images.to(device)
        self._labels = images.labels.to(device)
        size = images.images.numel() * torch.finfo(held.storage).bits // 8
        self._keeps = size <= _KEPT_NORMALISED
        self._normalised: Tensor | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self._set)

    def epoch(self, batch_size: int, epoch: int, order_seed: int, augment_seed: int) -> Batches:
        """Every image once, shuffled; see :meth:`Feed.epoch`."""
        order = torch.randperm(len(self), generator=_generator(order_seed, "order", epoch))
        order = order.to(self._raw.device)
        draws = _generator(augment_seed, "augment", epoch) if self._augment else None
        for chosen in order.split(batch_size):
            yield (self._images(chosen, draws), self._labels[chosen]), len(chosen)

    def in_order(self, batch_size: int) -> Batches:
        """Every image once in stored order; see :meth:`Feed.in_order`."""
        for start in range(0, len(self), batch_size):
            chosen = slice(start, start + batch_size)
            labels = self._labels[chosen]
            yield (self._images(chosen, None), labels), len(labels)

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
    """Images that are too many for memory and come from disk batch by batch."""

    def __init__(
        self, images: Images, held: Precision, device: torch.device | str, augment: bool
    ) -> None:
        self._set = images
        self._held = held
        self._device = device
        self._augment = augment

    def __len__(self) -> int:
        """Number of images."""
        return len(self._set)

    def epoch(self, batch_size: int, epoch: int, order_seed: int, augment_seed: int) -> Batches:
        """Every image once, shuffled; see :meth:`Feed.epoch`."""
        return self._batches(
            batch_size,
            seed=stream(order_seed, "order", epoch),
            augment_seed=stream(augment_seed, "augment", epoch) if self._augment else None,
        )

    def in_order(self, batch_size: int) -> Batches:
        """Every image once in stored order; see :meth:`Feed.in_order`."""
        return self._batches(batch_size, seed=None, augment_seed=None)

    def _batches(self, batch_size: int, *, seed: int | None, augment_seed: int | None) -> Batches:
        batches = self._set.batches(
            batch_size,
            seed=seed,
            augment=augment_seed is not None,
            augment_seed=augment_seed,
            device=self._device,
        )
        for x, y in batches:
            yield (self._held.cast(x, self._device), y), len(y)


# Two splits, in the precisions that take turns in a study.
@lru_cache(maxsize=8)
def image_feed(
    images: Images, held: Precision, device: torch.device | str, augment: bool
) -> ResidentFeed | StreamedFeed:
    """The feed of a set of images; asked for again it is the same one.

    >>> from kinkcheck.arithmetic import precision
    >>> len(image_feed(data.load("mnist-sample"), precision.parse("16"), "cpu", False))
    4000
    """
    kind = ResidentFeed if isinstance(images, ImageSet) else StreamedFeed
    return kind(images, held, device, augment)  # type: ignore[arg-type]


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


def digest_of_samples(samples: Sized, collate: Callable[[list[Any]], Any]) -> str:
    """A digest of any samples, which changes when the tensors and texts in them do.

    Args:
        samples: as in :class:`SampleFeed`.
        collate: likewise.

    Raises:
        InputError: there are none, or they cannot be put together.

    >>> digest_of_samples(range(3), torch.tensor) == digest_of_samples(range(4), torch.tensor)
    False
    >>> digest_of_samples([(1, 23)], list) == digest_of_samples([(12, 3)], list)
    False
    """
    whole = hashlib.sha256()
    with blaming("task: a mini-batch cannot be made"):
        for batch, count in SampleFeed(samples, collate).in_order(_HASHED):
            whole.update(f"{count} ".encode())
            for leaf in tree_leaves(batch):
                if isinstance(leaf, str | bytes | int | float | complex):
                    whole.update(f"{leaf!r} ".encode())
                for tensor in tensors(leaf):
                    whole.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
                    numbers = tensor.detach().cpu().contiguous().reshape(-1)
                    whole.update(numbers.view(torch.uint8).numpy().data)
    return whole.hexdigest()


def _generator(seed: int, purpose: str, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream(seed, purpose, epoch))
