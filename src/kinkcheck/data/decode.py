"""Encoded images (PNG, JPEG) to pixels."""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinkcheck.errors import InputError
from kinkcheck.extras import require

_SHORTER_SIDE = 256  # ImageNet's usual evaluation: resize to this, then crop the centre
_AREAS, _RATIOS = (0.08, 1.0), (3 / 4, 4 / 3)  # and its usual training: of the crop
_TRIES = 10


def exact(encoded: bytes | None, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The pixels of an image that has the right size already.

    Args:
        encoded: the image file's bytes, in any format that Pillow reads.
        shape: (channels, height, width) that the image must have; one channel is grey, three RGB.

    Returns:
        uint8 of that shape.

    Raises:
        InputError: not an image, or of another size, or Pillow is not installed.

    >>> import PIL.Image
    >>> file = io.BytesIO()
    >>> PIL.Image.new("L", (3, 2), color=7).save(file, "png")
    >>> exact(file.getvalue(), (1, 2, 3))
    array([[[7, 7, 7], [7, 7, 7]]], dtype=uint8)
    """
    channels, height, width = shape
    return _pixels(_open(encoded, "L" if channels == 1 else "RGB", (width, height)))


def centre(encoded: bytes | None, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The centre of an RGB photograph, as ImageNet models are evaluated.

    The shorter side is resized to 256 (bilinear with antialiasing), then the centre is cropped:
    torchvision's ``Resize(256)`` and ``CenterCrop(224)`` on a Pillow image, pixel for pixel. As
    there, the camera's orientation tag is not applied.

    Args:
        encoded: the image file's bytes, in any format that Pillow reads.
        shape: (3, height, width) of the crop, at most 256 high and wide.

    Returns:
        uint8 of that shape.

    Raises:
        InputError: not an image, or Pillow is not installed.

    >>> import PIL.Image
    >>> file = io.BytesIO()
    >>> PIL.Image.new("RGB", (640, 480), color=(1, 2, 3)).save(file, "png")
    >>> centre(file.getvalue(), (3, 224, 224))[:, 0, 0]
    array([1, 2, 3], dtype=uint8)
    """
    _, height, width = shape
    image = _open(encoded, "RGB")
    shorter = min(image.size)
    if shorter != _SHORTER_SIDE:
        resized = tuple(_SHORTER_SIDE * side // shorter for side in image.size)
        image = image.resize(resized, require("PIL.Image", extra="data").Resampling.BILINEAR)
    left = round((image.size[0] - width) / 2)
    top = round((image.size[1] - height) / 2)
    return _pixels(image.crop((left, top, left + width, top + height)))


def random_crop(
    encoded: bytes | None, draws: np.random.Generator, shape: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """A part of an RGB photograph at random, as ImageNet models are trained.

    A rectangle of 8 to 100 % of the area (uniform) and of an aspect ratio of 3/4 to 4/3 (uniform in
    its logarithm) anywhere in the image, resized (bilinear with antialiasing), and mirrored with
    probability 1/2: torchvision's ``RandomResizedCrop`` and ``RandomHorizontalFlip``. Where ten
    rectangles do not fit, the largest in the centre whose ratio is in range.

    Args:
        encoded: the image file's bytes, in any format that Pillow reads.
        draws: where the rectangle and the flip are drawn.
        shape: (3, height, width) of the result.

    Returns:
        uint8 of that shape.

    Raises:
        InputError: not an image, or Pillow is not installed.

    Source: C. Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6.

    >>> import PIL.Image
    >>> file = io.BytesIO()
    >>> PIL.Image.new("RGB", (640, 480), color=(1, 2, 3)).save(file, "png")
    >>> random_crop(file.getvalue(), np.random.default_rng(0), (3, 224, 224))[:, 0, 0]
    array([1, 2, 3], dtype=uint8)
    """
    _, height, width = shape
    pillow = require("PIL.Image", extra="data")
    image = _open(encoded, "RGB")
    left, top, wide, high = _rectangle(image.width, image.height, draws)
    part = image.crop((left, top, left + wide, top + high))
    part = part.resize((width, height), pillow.Resampling.BILINEAR)
    if draws.random() < 0.5:
        part = part.transpose(pillow.Transpose.FLIP_LEFT_RIGHT)
    return _pixels(part)


def _rectangle(width: int, height: int, draws: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, width and height."""
    for _ in range(_TRIES):
        area = width * height * draws.uniform(_AREAS[0], _AREAS[1])
        ratio = math.exp(draws.uniform(math.log(_RATIOS[0]), math.log(_RATIOS[1])))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left = int(draws.integers(0, width - wide + 1))
            top = int(draws.integers(0, height - high + 1))
            return left, top, wide, high
    narrow, broad = _RATIOS
    wide, high = min(width, round(height * broad)), min(height, round(width / narrow))
    return (width - wide) // 2, (height - high) // 2, wide, high


def _open(encoded: bytes | None, mode: str, size: tuple[int, int] | None = None) -> Any:
    pillow = require("PIL.Image", extra="data")
    if encoded is None:
        raise InputError("an image is given by a path: expected its bytes, inside the parquet file")
    try:
        # A few bytes can stand for more pixels than there is memory: the header is looked at first.
        with warnings.catch_warnings():
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            image = pillow.open(io.BytesIO(encoded))
        with image:
            if size not in (None, image.size):
                found, expected = (f"{wide} by {high}" for wide, high in (image.size, size))
                raise InputError(f"an image is {found} pixels, expected {expected}")
            return image.convert(mode)
    except InputError:
        raise
    except (pillow.DecompressionBombWarning, pillow.DecompressionBombError) as error:
        raise InputError(f"an image has more than {pillow.MAX_IMAGE_PIXELS:,} pixels") from error
    # Pillow reports a broken PNG as a SyntaxError and some broken headers as a ValueError.
    except Exception as error:
        raise InputError(f"an image cannot be decoded ({type(error).__name__})") from error


def _pixels(image: Any) -> NDArray[np.uint8]:
    pixels = np.array(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
