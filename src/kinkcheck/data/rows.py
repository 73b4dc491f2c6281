"""How the encoded images of a split are read, from disk or from the hub."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kinkcheck.data import decode
from kinkcheck.data.extras import require
from kinkcheck.data.source import ENVIRONMENT, Source
from kinkcheck.errors import InputError

Apply: TypeAlias = Callable[..., Iterable[NDArray[np.uint8]]]
"""The type of ``map``, as far as it is used here."""

# Shuffling a stream of files needs a window of images; this one holds about 100 MB of JPEG.
_WINDOW = 1_000

_TIMEOUT = 10.0  # seconds for the hub to answer before it is called out of reach


def read(source: Source) -> Rows:
    """The rows of a split, ready to be read; nothing is decoded.

    Args:
        source: where they are.

    Raises:
        InputError: the files cannot be read or have the wrong columns, the hub cannot be
            reached, or ``datasets`` is not installed.
    """
    datasets = require("datasets", extra="data")
    entry = source.entry
    with _readable(source), _quiet(datasets):
        if source.files:
            size = sum(_rows_in(file) for file in source.files)
            # Streamed also if it is small: otherwise ``datasets`` would keep a copy on disk.
            dataset = datasets.load_dataset(
                "parquet",
                data_files={source.split: [glob.escape(str(file)) for file in source.files]},
                split=source.split,
                streaming=True,
            )
        else:
            _knock(entry.hub)
            size = entry.splits[source.split]
            dataset = datasets.load_dataset(
                entry.hub, entry.config or None, split=source.split, streaming=entry.streamed
            )
        columns = dataset.column_names or []
    for column in (entry.image_column, entry.label_column):
        if column not in columns:
            raise InputError(
                f"{source}: no column {column!r}, which {entry.name} needs; "
                f"there are: {', '.join(columns)}"
            )
    found = dataset.features[entry.image_column]
    if not isinstance(found, datasets.Image | dict):  # dict: bytes and path, not marked as Image
        raise InputError(f"{source}: column {entry.image_column!r} holds {found}, not images")
    if not entry.streamed and not source.files:
        size = len(dataset)
    if size == 0:
        raise InputError(f"{source}: no images")
    kept = dataset.select_columns([entry.image_column, entry.label_column])
    undecoded = kept.cast_column(entry.image_column, datasets.Image(decode=False))
    return Rows(source, undecoded, size)


@dataclass(frozen=True)
class Rows:
    """Encoded images and labels, read in order.

    Attributes:
        source: where they come from.
        dataset: what the ``datasets`` library makes of it.
        size: number of rows.
    """

    source: Source
    dataset: Any
    size: int

    def take(self, count: int) -> Rows:
        """The first ``count`` rows."""
        return Rows(self.source, self.dataset.take(count), min(count, self.size))

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
        entry, dataset = self.source.entry, self.dataset
        decoder = decode.centre if entry.streamed else decode.exact
        number = 0
        if seed is not None:
            dataset = dataset.shuffle(seed=seed, buffer_size=_WINDOW)
        batches = iter(dataset.iter(batch_size=batch_size))
        while True:
            with _readable(self.source):
                batch = next(batches, None)
            if batch is None:
                return
            encoded = [image and image["bytes"] for image in batch[entry.image_column]]
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
            yield images, self._labels(batch[entry.label_column])

    def _labels(self, values: list[Any]) -> NDArray[np.int64]:
        classes = self.source.entry.classes
        for value in values:
            if not isinstance(value, int) or not 0 <= value < classes:
                raise InputError(
                    f"{self.source}: label {value!r}, expected integers from 0 to {classes - 1}"
                )
        return np.array(values, dtype=np.int64)


def _rows_in(file: Path) -> int:
    metadata = require("pyarrow.parquet", extra="data").read_metadata(file)
    return int(metadata.num_rows)


def _knock(repository: str) -> None:
    """Fail at once if the hub is out of reach; ``datasets`` would retry for half a minute."""
    hub = require("huggingface_hub", extra="data")
    # With HF_HUB_OFFLINE set, the hub's own cache may still hold the set.
    with suppress(hub.errors.OfflineModeIsEnabled):
        hub.HfApi().dataset_info(repository, timeout=_TIMEOUT)


@contextmanager
def _readable(source: Source) -> Iterator[None]:
    """Turn every way in which reading fails into one line that says what to do."""
    arrow = require("pyarrow", extra="data")
    hub = require("huggingface_hub.errors", extra="data")
    datasets = require("datasets.exceptions", extra="data")
    # ``datasets`` reports columns of unexpected types and unknown configurations as TypeError and
    # ValueError. The bases of the hub's error include that of its HTTP client's errors, whichever
    # client this version of it has.
    failures = (
        OSError,
        TypeError,
        ValueError,
        arrow.ArrowException,
        datasets.DatasetsError,
        *hub.HfHubHTTPError.__bases__,
    )
    try:
        yield
    except InputError:
        raise
    except failures as error:
        reason = " ".join(str(error.__cause__ or error).split())
        if source.files:
            raise InputError(f"{source}: cannot be read: {reason}") from error
        raise InputError(
            f"{source}: cannot be fetched: {reason}; give a local copy with data_dir (--data-dir) "
            f"or {ENVIRONMENT}"
        ) from error


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Without the progress bars of ``datasets`` and of the hub."""
    libraries = [datasets.utils, require("huggingface_hub.utils", extra="data")]
    shown = [library for library in libraries if not library.are_progress_bars_disabled()]
    with warnings.catch_warnings():
        # They warn, and do nothing, if the user's environment asks for the bars.
        warnings.simplefilter("ignore")
        for library in shown:
            library.disable_progress_bars()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bars()
