"""Encoded images (PNG, JPEG) to pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinkcheck.data.extras import require
from kinkcheck.errors import InputError

_SHORTER_SIDE = 256  # ImageNet's usual evaluation: resize to this, then crop the centre


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
    image = _open(encoded, "L" if channels == 1 else "RGB")
    if image.size != (width, height):
        found = f"{image.size[0]} by {image.size[1]}"
        raise InputError(f"an image is {found} pixels, expected {width} by {height}")
    return _pixels(image)


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


def _open(encoded: bytes | None, mode: str) -> Any:
    pillow = require("PIL.Image", extra="data")
    if encoded is None:
        raise InputError("an image is given by a path: expected its bytes, inside the parquet file")
    try:
        with pillow.open(io.BytesIO(encoded)) as image:
            return image.convert(mode)
    # Pillow reports a broken PNG as a SyntaxError and some broken headers as a ValueError.
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"an image cannot be decoded ({type(error).__name__})") from error


def _pixels(image: Any) -> NDArray[np.uint8]:
    pixels = np.array(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
