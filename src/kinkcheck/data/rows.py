"""The encoded images of a split, from disk or from the hub, decoded batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kinkcheck.data import decode, hub, parquet
from kinkcheck.data.source import Source
from kinkcheck.errors import InputError

Apply: TypeAlias = Callable[..., Iterable[NDArray[np.uint8]]]
"""The type of ``map``, as far as it is used here."""


class Stored(Protocol):
    """Encoded images and labels, wherever they lie."""

    @property
    def size(self) -> int:
        """Number of rows."""

    def take(self, count: int) -> Self:
        """The first ``count`` rows, or all if there are fewer."""

    def rows(self, seed: int | None = None) -> Iterator[tuple[bytes | None, Any]]:
        """One row after the other, in stored order or shuffled."""


def read(source: Source) -> Rows:
    """The rows of a split, ready to be read; nothing is decoded.

    Args:
        source: where they are.

    Raises:
        InputError: they cannot be read or fetched, have the wrong columns, or there are none; or a
            package is not installed.
    """
    # Local files need nothing of ``datasets``, whose import takes seconds and whose streams sleep.
    stored: Stored = parquet.open_files(source) if source.files else hub.fetch(source)
    if stored.size == 0:
        raise InputError(f"{source}: no images")
    return Rows(source, stored)


@dataclass(frozen=True)
class Rows:
    """Encoded images and labels, read in order.

    Attributes:
        source: where they come from.
        stored: the same rows, one by one.
    """

    source: Source
    stored: Stored

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.stored.size

    def take(self, count: int) -> Rows:
        """The first ``count`` rows, or all if there are fewer."""
        return replace(self, stored=self.stored.take(count))

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        augment_seed: int | None = None,
        apply: Apply = map,
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Images and their labels, decoded ``batch_size`` at a time.

        Args:
            batch_size: number of rows; the last batch may have fewer.
            seed: None for the stored order; else, for a streamed set, the files are shuffled, and
                the images within a window of 1,000.
            augment_seed: of a streamed set, decode a part of each image at random; image number n
                of the epoch draws from a generator of its own. None for the centre.
            apply: calls the decoder on every image, in order; a thread pool's ``map``, say.

        Returns:
            Pairs of uint8 (batch_size, C, H, W) and int64 (batch_size,).

        Raises:
            InputError: the rows cannot be read or decoded, or a label is not an integer from 0 to
                classes - 1.
        """
        entry = self.source.entry
        decoder = decode.centre if entry.streamed else decode.exact
        number = 0
        rows = self.stored.rows(seed)
        while batch := list(islice(rows, batch_size)):
            encoded, labels = zip(*batch, strict=True)
            try:
                if augment_seed is None:
                    decoded = apply(partial(decoder, shape=entry.shape), encoded)
                else:
                    draws = [
                        np.random.default_rng((augment_seed, number + n))
                        for n in range(len(encoded))
                    ]
                    decoded = apply(partial(decode.random_crop, shape=entry.shape), encoded, draws)
                images = np.stack(list(decoded))
            except InputError as error:
                raise InputError(f"{self.source}: {error}") from error
            number += len(encoded)
            yield images, self._labels(labels)

    def _labels(self, values: Sequence[Any]) -> NDArray[np.int64]:
        classes = self.source.entry.classes
        for value in values:
            if not isinstance(value, int) or not 0 <= value < classes:
                raise InputError(
                    f"{self.source}: label {value!r}, expected integers from 0 to {classes - 1}"
                )
        return np.array(values, dtype=np.int64)
