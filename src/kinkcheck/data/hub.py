"""Encoded images and labels on the Hugging Face hub, read by the package ``datasets``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from kinkcheck.data.source import ENVIRONMENT, Source
from kinkcheck.errors import InputError
from kinkcheck.extras import require

_AT_A_TIME = 100  # rows, which come in batches
_WINDOW = 1_000  # rows that are shuffled at a time, about 100 MB of JPEG

_TIMEOUT = 10.0  # seconds for the hub to answer before it is called out of reach


@dataclass(frozen=True)
class Fetched:
    """The rows of a split on the hub, downloaded or streamed.

    Attributes:
        source: where they are.
        dataset: what ``datasets`` makes of it.
        size: number of rows.
    """

    source: Source
    dataset: Any
    size: int

    def take(self, count: int) -> Fetched:
        """The first ``count`` rows, or all if there are fewer."""
        return replace(self, dataset=self.dataset.take(count), size=min(count, self.size))

    def rows(self, seed: int | None = None) -> Iterator[tuple[bytes | None, Any]]:
        """One encoded image and its label after the other.

        Args:
            seed: None for the stored order; else the files are shuffled, and the rows within a
                window of 1,000.

        Raises:
            InputError: they cannot be fetched.
        """
        entry, dataset = self.source.entry, self.dataset
        with _fetched(self.source):
            if seed is not None:
                dataset = dataset.shuffle(seed=seed, buffer_size=_WINDOW)
            for batch in dataset.iter(batch_size=_AT_A_TIME):
                for image, label in zip(
                    batch[entry.image_column], batch[entry.label_column], strict=True
                ):
                    yield image and image["bytes"], label


def fetch(source: Source) -> Fetched:
    """The rows of a split on the hub, ready to be read; nothing is decoded.

    Args:
        source: where they are.

    Raises:
        InputError: the hub cannot be reached or has the wrong columns, or ``datasets`` is not
            installed.
    """
    datasets = require("datasets", extra="data")
    entry = source.entry
    with _fetched(source), _quiet(datasets):
        _knock(entry.hub)
        dataset = datasets.load_dataset(
            entry.hub, entry.config or None, split=source.split, streaming=entry.streamed
        )
        columns = dataset.column_names or []
    needed = [entry.image_column, entry.label_column]
    for column in needed:
        if column not in columns:
            raise InputError(
                f"{source}: no column {column!r}, which {entry.name} needs; "
                f"there are: {', '.join(columns)}"
            )
    found = dataset.features[entry.image_column]
    if not isinstance(found, datasets.Image | dict):  # dict: bytes and path, not marked as Image
        raise InputError(f"{source}: column {entry.image_column!r} holds {found}, not images")
    size = entry.splits[source.split] if entry.streamed else len(dataset)
    undecoded = dataset.select_columns(needed).cast_column(
        entry.image_column, datasets.Image(decode=False)
    )
    return Fetched(source, undecoded, size)


def _knock(repository: str) -> None:
    """Fail at once if the hub is out of reach; ``datasets`` would retry for half a minute."""
    hub = require("huggingface_hub", extra="data")
    # With HF_HUB_OFFLINE set, the hub's own cache may still hold the set.
    with suppress(hub.errors.OfflineModeIsEnabled):
        hub.HfApi().dataset_info(repository, timeout=_TIMEOUT)


@contextmanager
def _fetched(source: Source) -> Iterator[None]:
    """Turn every way in which fetching fails into one line that says what to do."""
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
