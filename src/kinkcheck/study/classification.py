"""The task of the papers: a network that classifies images, by cross entropy and accuracy."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import networks
from kinkcheck.arithmetic.precision import Precision
from kinkcheck.data import Images, ImageSet
from kinkcheck.data.catalogue import lookup
from kinkcheck.errors import InputError
from kinkcheck.networks.factory import load_factory
from kinkcheck.study.criteria import ACCURACY, Metric
from kinkcheck.study.feed import Feed, digest, image_feed, load
from kinkcheck.study.settings import Classification
from kinkcheck.study.task import Task

Batch = tuple[Tensor, Tensor]


def _share(right: Tensor) -> float:
    return int(right.sum()) / len(right)


class ImageClassification(Task):
    """A network that classifies images.

    Args:
        settings: of the images and the network.
        train, test: the images.
        folder: from which the path of a network's file is told.

    >>> from kinkcheck.study.spec import shipped
    >>> task = classification(shipped("smoke").trials()[0].task, None, "")
    >>> task.train, task.metrics[0].name
    (ImageSet('mnist-sample', 'train', 512 images of 1x28x28, 10 classes), 'accuracy')
    """

    metrics = (Metric(**asdict(ACCURACY), of=_share),)

    def __init__(self, settings: Classification, train: Images, test: Images, folder: str) -> None:
        self.train: Images = train
        self.test: Images = test
        self._settings = settings
        self._folder = Path(folder)

    def network(self) -> nn.Module:
        """The network that the settings name, for images like these."""
        model = self._drawn()
        if self.train.channels == 1:
            # Grey images are channels_last as they are, and a step of LeNet-5 gets a third faster.
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def step(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross entropy, and which images are classified rightly.

        An image with a score that is not a number is not.
        """
        x, y = batch
        scores = model(x)
        loss = F.cross_entropy(scores, y)
        return loss, (scores.argmax(1) == y) & ~scores.isnan().any(1)

    def feed(self, part: str, held: Precision, device: torch.device | str) -> Feed:
        """The images of a part, kept on the device where they fit into memory."""
        images = self.train if part == "train" else self.test
        return image_feed(images, held, device, part == "train" and self._settings.augment)

    def digests(self) -> dict[str, str]:
        """A digest of each split: of as many images as are used of it."""
        name, first, second = self._settings.data, self.train, self.test
        if first.split == second.split:
            largest = max(first, second, key=len)
            return {f"{name} {largest.split}": digest(largest)}
        return {f"{name} {images.split}": digest(images) for images in (first, second)}

    def _drawn(self) -> nn.Module:
        name = self._settings.network
        if ":" in name:
            model = load_factory(name, self._folder)()
            if not isinstance(model, nn.Module):
                raise InputError(
                    f"network: {name} must return an nn.Module, not {type(model).__name__}"
                )
            return model
        return networks.build(
            name,
            in_channels=self.train.channels,
            classes=self.train.classes,
            image_size=self.train.image_size[0],
            batch_norm=self._settings.batch_norm,
            init=self._settings.init,
        )


def classification(
    settings: Classification, data_dir: str | None, folder: str
) -> ImageClassification:
    """The task that a trial names, with its images.

    Args:
        settings: of the images and the network.
        data_dir: see :func:`kinkcheck.data.load`.
        folder: from which the path of a network's file is told.

    Raises:
        InputError: the images cannot be loaded.
    """
    train = load(settings.data, settings.train_split, settings.train_images, data_dir)
    test = load(settings.data, settings.test_split, settings.test_images, data_dir)
    return ImageClassification(settings, train, test, folder)


def random_classification(settings: Classification, count: int, folder: str) -> ImageClassification:
    """The same task with random images of the same kind, which need not be loaded.

    Args:
        settings: of the images and the network.
        count: how many images.
        folder: from which the path of a network's file is told.

    >>> from kinkcheck.study.spec import shipped
    >>> random_classification(shipped("cifar10-vgg11").trials()[0].task, 4, "").train
    ImageSet('cifar10', 'train', 4 images of 3x32x32, 10 classes)
    """
    entry = lookup(settings.data)
    images = ImageSet(
        name=entry.name,
        split=settings.train_split,
        classes=entry.classes,
        mean=entry.mean,
        std=entry.std,
        images=torch.randint(256, (count, *entry.shape), dtype=torch.uint8),
        labels=torch.randint(entry.classes, (count,)),
    )
    return ImageClassification(settings, images, images, folder)
