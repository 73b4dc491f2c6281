"""Image data sets: found, decoded once, normalised as published, given out in seeded batches.

>>> digits = load("mnist-sample")
>>> digits
ImageSet('mnist-sample', 'train', 4000 images of 1x28x28, 10 classes)
>>> x, y = next(digits.batches(128, seed=0))
>>> x.shape, x.dtype, y.shape, y.dtype
(torch.Size([128, 1, 28, 28]), torch.float32, torch.Size([128]), torch.int64)

Every set answers to the same names (:class:`Images`), whether it lies in memory
(:class:`ImageSet`) or is streamed from disk or network (:class:`StreamedImages`, ImageNet).
"""

from typing import TYPE_CHECKING

from kinkcheck.data.catalogue import NAMES
from kinkcheck.lazy import import_when_used

if TYPE_CHECKING:
    from kinkcheck.data.augment import Augmentation, crop_and_flip
    from kinkcheck.data.images import Images, ImageSet, StreamedImages, normalise
    from kinkcheck.data.loading import load

__all__ = [
    "NAMES",
    "Augmentation",
    "ImageSet",
    "Images",
    "StreamedImages",
    "crop_and_flip",
    "load",
    "normalise",
]

import_when_used(
    __name__,
    "kinkcheck.data.augment:Augmentation",
    "kinkcheck.data.augment:crop_and_flip",
    "kinkcheck.data.images:ImageSet",
    "kinkcheck.data.images:Images",
    "kinkcheck.data.images:StreamedImages",
    "kinkcheck.data.images:normalise",
    "kinkcheck.data.loading:load",
)
