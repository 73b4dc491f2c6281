"""Sets of labelled images, in memory or streamed, behind one interface."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from kinkcheck.data.augment import Augmentation
from kinkcheck.data.rows import Rows
from kinkcheck.errors import InputError


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(p / 255 - mean) / std, channel by channel, in float32.

    The order of operations is torchvision's (``ToTensor``, then ``Normalize``), so the result is
    the same bit for bit.

    Args:
        images: uint8 (N, C, H, W), on any device.
        mean: C numbers, of pixels scaled to [0, 1].
        std: C numbers, of pixels scaled to [0, 1].

    Returns:
        float32 (N, C, H, W), on the same device.

    >>> black_and_white = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)
    >>> normalise(black_and_white, (0.5,), (0.5,)).flatten()
    tensor([-1.,  1.])
    """
    tensor = partial(torch.tensor, dtype=torch.float32, device=images.device)
    # CUDA would multiply by the rounded reciprocal of a plain number; a tensor it divides by.
    scaled = images.to(torch.float32).div_(tensor(255))
    return scaled.sub_(tensor(mean)[:, None, None]).div_(tensor(std)[:, None, None])


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Images(ABC):
    """A set of labelled images, wherever it lies.

    Attributes:
        name: the data set.
        split: the part of it.
        classes: number of classes; labels are 0, 1, ..., classes - 1.
        mean: per channel, of pixels scaled to [0, 1].
        std: per channel, of pixels scaled to [0, 1].
        augmentation: what ``batches(augment=True)`` does to raw images; None if there is none, or
            if it is done where they are decoded.

    >>> issubclass(ImageSet, Images), issubclass(StreamedImages, Images)
    (True, True)
    """

    name: str
    split: str
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation | None = None

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def take(self, count: int) -> Images:
        """The first ``count`` images in stored order, or all if there are fewer."""

    @abstractmethod
    def _raw_batches(
        self, batch_size: int, generator: torch.Generator | None, augment_seed: int | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Images uint8 and labels int64 on the CPU, shuffled if there is a generator.

        With ``augment_seed`` those are augmented that are augmented where they are decoded.
        """

    @property
    def augments(self) -> bool:
        """Whether ``batches(augment=True)`` is possible."""
        return self.augmentation is not None

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return self.shape[0]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.shape[1:]

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        return (
            f"{type(self).__name__}({self.name!r}, {self.split!r}, {len(self)} images of {size}, "
            f"{self.classes} classes)"
        )

    def normalise(self, images: Tensor) -> Tensor:
        """Raw images uint8 (N, C, H, W) to float32, by this set's mean and std.

        >>> from kinkcheck.data import load
        >>> digits = load("mnist-sample")
        >>> digits.normalise(digits.images[:2]).aminmax()
        torch.return_types.aminmax(
        min=tensor(-1.),
        max=tensor(1.))
        """
        return normalise(images, self.mean, self.std)

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        drop_last: bool = False,
        augment: bool = False,
        augment_seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch: every image once, in normalised mini-batches.

        The same arguments give the same batches, every time and on every device. For another
        order in every epoch give every epoch its own seed.

        Args:
            batch_size: images a batch; the last batch has fewer if they do not come out even.
            seed: None for the stored order, else the seed of the shuffle and, unless it has its
                own, of the augmentation.
                An :class:`ImageSet` draws a uniform permutation; :class:`StreamedImages` shuffles
                its files, and the images within a window of 1,000.
            drop_last: leave out a last batch that has fewer images.
            augment: apply the set's augmentation to the raw images; needs a seed.
            augment_seed: a seed of its own for the augmentation.
            device: where the batches are wanted. They travel as bytes; augmentation and
                normalisation happen there.

        Returns:
            Pairs of images float32 (batch_size, C, H, W) and labels int64 (batch_size,).

        Raises:
            InputError: an argument is out of range, or the set has no augmentation; while
                iterating, if a streamed image cannot be read.

        >>> from kinkcheck.data import load
        >>> digits = load("mnist-sample", "test")
        >>> [len(y) for x, y in digits.batches(400)]
        [400, 400, 200]
        >>> [len(y) for x, y in digits.batches(400, drop_last=True)]
        [400, 400]
        """
        # Checked here and not in the generator, where it would wait for the first batch.
        _require_count("batch_size", batch_size)
        for name, given in (("seed", seed), ("augment_seed", augment_seed)):
            if given is not None and (not isinstance(given, int) or not 0 <= given < 2**63):
                raise InputError(
                    f"{name} must be None or an integer from 0 to 2**63 - 1, not {given!r}"
                )
        if augment and not self.augments:
            raise InputError(f"augment: {self.name} has no augmentation; accepted: False")
        if augment and seed is None and augment_seed is None:
            raise InputError("augment draws at random: give a seed, not None")
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        draws = None
        if augment:
            # Without a seed of its own the augmentation draws on from where the shuffle ended.
            draws = generator
            if augment_seed is not None:
                draws = torch.Generator().manual_seed(augment_seed)
        return self._epoch(batch_size, generator, drop_last, draws, torch.device(device))

    def _epoch(
        self,
        batch_size: int,
        generator: torch.Generator | None,
        drop_last: bool,
        draws: torch.Generator | None,
        device: torch.device,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        augment_seed = None if draws is None else draws.initial_seed()
        for images, labels in self._raw_batches(batch_size, generator, augment_seed):
            if drop_last and len(labels) < batch_size:
                return
            images, labels = images.to(device), labels.to(device)
            if draws is not None and self.augmentation is not None:
                images = self.augmentation(images, draws)
            yield self.normalise(images), labels


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ImageSet(Images):
    """Images in memory, as raw bytes.

    Attributes:
        images: uint8 (N, C, H, W), on the CPU.
        labels: int64 (N,), on the CPU.

    Raises:
        InputError: shapes or types do not fit together, or a label is not in [0, classes).

    >>> tiny = ImageSet(
    ...     name="tiny", split="train", classes=2, mean=(0.5,), std=(0.5,),
    ...     images=torch.zeros(3, 1, 8, 8, dtype=torch.uint8), labels=torch.tensor([0, 1, 0]),
    ... )
    >>> tiny, tiny.channels, tiny.image_size
    (ImageSet('tiny', 'train', 3 images of 1x8x8, 2 classes), 1, (8, 8))
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            found = f"{self.images.dtype} {tuple(self.images.shape)}"
            raise InputError(f"images must be uint8 (N, C, H, W), not {found}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            found = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise InputError(f"labels must be int64 ({len(self.images)},), not {found}")
        if not len(self.mean) == len(self.std) == self.channels:
            raise InputError(
                f"mean and std must have {self.channels} numbers, one a channel, "
                f"not {len(self.mean)} and {len(self.std)}"
            )
        outside = self.labels[(self.labels < 0) | (self.labels >= self.classes)]
        if len(outside):
            raise InputError(
                f"labels must be integers from 0 to {self.classes - 1}, not {outside[0].item()}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def take(self, count: int) -> ImageSet:
        """The first ``count`` images in stored order, or all if there are fewer.

        Raises:
            InputError: ``count`` is not a positive integer.

        >>> from kinkcheck.data import load
        >>> load("mnist-sample").take(100)
        ImageSet('mnist-sample', 'train', 100 images of 1x28x28, 10 classes)
        """
        _require_count("count", count)
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def _raw_batches(
        self, batch_size: int, generator: torch.Generator | None, augment_seed: int | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(self)
        stored = generator is None
        order = torch.arange(count) if stored else torch.randperm(count, generator=generator)
        for start in range(0, count, batch_size):
            # An index, unlike a slice, copies: the caller's labels are not the set's own.
            chosen = order[start : start + batch_size]
            yield self.images[chosen], self.labels[chosen]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StreamedImages(Images):
    """Photographs that stay on disk or on the hub and are decoded batch by batch.

    Memory holds one batch and, when shuffled, a window of 1,000 encoded images. Photographs are
    resized to 256 pixels on the shorter side and cropped to their centre; augmented, a part at
    random is resized and mirrored (see :func:`kinkcheck.data.decode.random_crop`).

    Attributes:
        rows: the encoded images.

    >>> from kinkcheck.data import load
    >>> for x, y in load("imagenet", "validation").batches(32):  # doctest: +SKIP
    ...     print(x.shape, x.dtype)
    torch.Size([32, 3, 224, 224]) torch.float32
    """

    rows: Rows = field(repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        return self.rows.source.entry.shape

    def __len__(self) -> int:
        """Number of images."""
        return self.rows.size

    def take(self, count: int) -> StreamedImages:
        """The first ``count`` images in stored order, or all if there are fewer.

        Raises:
            InputError: ``count`` is not a positive integer.
        """
        _require_count("count", count)
        return replace(self, rows=self.rows.take(count))

    @property
    def augments(self) -> bool:
        """Always: a part of each photograph can be decoded at random."""
        return True

    def _raw_batches(
        self, batch_size: int, generator: torch.Generator | None, augment_seed: int | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        seed = None if generator is None else generator.initial_seed()
        # Threads help: Pillow releases the interpreter's lock while it decodes and resizes.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for images, labels in self.rows.batches(
                batch_size, seed=seed, augment_seed=augment_seed, apply=pool.map
            ):
                yield torch.from_numpy(images), torch.from_numpy(labels)


def _require_count(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise InputError(f"{name} must be an integer of at least 1, not {value!r}")
