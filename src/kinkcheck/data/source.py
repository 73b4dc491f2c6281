"""Where a split's encoded images are, on disk or on the hub, and how they are read."""

from __future__ import annotations

import glob
import os
import re
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
from kinkcheck.data.catalogue import CATALOGUE, Entry
from kinkcheck.data.extras import require
from kinkcheck.errors import InputError

Apply: TypeAlias = Callable[..., Iterable[NDArray[np.uint8]]]
"""The type of ``map``, as far as it is used here."""

ENVIRONMENT = "KINKCHECK_DATA_DIR"

# The hub's names: train-00000-of-00002.parquet, in old repositories with a hash behind it.
_SHARD = re.compile(r"(?P<split>\w+?)(-(?P<index>\d+)-of-(?P<total>\d+)(-\w+)?)?\.parquet")

# Shuffling a stream of files needs a window of images; this one holds about 100 MB of JPEG.
_WINDOW = 1_000

_SHOWN = 8  # names of a folder's entries in an error message

_TIMEOUT = 10.0  # seconds for the hub to answer before it is called out of reach


@dataclass(frozen=True)
class Source:
    """One split of a data set, found but not read.

    Attributes:
        entry: the data set.
        split: the split's name.
        files: its parquet files in order; none if it is on the hub.
    """

    entry: Entry
    split: str
    files: tuple[Path, ...] = ()

    def __str__(self) -> str:
        if self.files:
            return f"data_dir {self.files[0].parent}, split {self.split!r}"
        return f"{self.entry.hub} on the hub, split {self.split!r}"

    @property
    def key(self) -> str:
        """Changes when the source does: each file's path, size and time of last change.

        A set on the hub is known by its name alone, since the published sets do not change; so a
        set that was decoded once needs no network any more.
        """
        if not self.files:
            return f"hub {self.entry.hub} {self.entry.config} {self.split}"
        lines = [f"{self.entry.name} {self.split}"]
        for file in self.files:
            try:
                stat = file.stat()
            except OSError as error:  # a dangling link, for one
                raise InputError(f"{self}: cannot be read: {error}") from error
            lines.append(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}")
        return "\n".join(lines)

    def open(self) -> Rows:
        """The rows of the split, ready to be read; nothing is decoded.

        Raises:
            InputError: the files cannot be read or have the wrong columns, the hub cannot be
                reached, or ``datasets`` is not installed.
        """
        datasets = require("datasets", extra="data")
        entry = self.entry
        with _readable(self), _quiet(datasets):
            if self.files:
                size = sum(_rows_in(file) for file in self.files)
                # Streamed also if it is small: otherwise ``datasets`` would keep a copy on disk.
                dataset = datasets.load_dataset(
                    "parquet",
                    data_files={self.split: [glob.escape(str(file)) for file in self.files]},
                    split=self.split,
                    streaming=True,
                )
            else:
                _knock(entry.hub)
                size = entry.splits[self.split]
                dataset = datasets.load_dataset(
                    entry.hub, entry.config or None, split=self.split, streaming=entry.streamed
                )
            columns = dataset.column_names or []
        for column in (entry.image_column, entry.label_column):
            if column not in columns:
                raise InputError(
                    f"{self}: no column {column!r}, which {entry.name} needs; "
                    f"there are: {', '.join(columns)}"
                )
        found = dataset.features[entry.image_column]
        if not isinstance(
            found, datasets.Image | dict
        ):  # dict: bytes and path, not marked as Image
            raise InputError(f"{self}: column {entry.image_column!r} holds {found}, not images")
        if not entry.streamed and not self.files:
            size = len(dataset)
        if size == 0:
            raise InputError(f"{self}: no images")
        kept = dataset.select_columns([entry.image_column, entry.label_column])
        undecoded = kept.cast_column(entry.image_column, datasets.Image(decode=False))
        return Rows(self, undecoded, size)


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


def find(entry: Entry, split: str, data_dir: str | os.PathLike[str] | None) -> Source:
    """Find a split in a local folder, or name its place on the hub.

    Args:
        entry: the data set.
        split: the split's name.
        data_dir: a folder that holds one folder a data set, or the data set's own folder; None
            for the environment variable KINKCHECK_DATA_DIR, and the hub if that is not set.

    Raises:
        InputError: the folder does not exist or is laid out differently, or the split is not
            there.
    """
    given = os.fspath(data_dir) if data_dir is not None else os.environ.get(ENVIRONMENT)
    if not given:
        entry.require_split(split)
        return Source(entry, split)
    named = f"data_dir {given}" if data_dir is not None else f"{ENVIRONMENT}={given}"
    root = Path(given).expanduser()
    if not root.is_dir():
        raise InputError(
            f"{named} is not a folder: give one that holds {entry.folders[0]}/, "
            "with files such as train-00000-of-00001.parquet"
        )
    return Source(entry, split, _shards(entry, _files(entry, root, named), split, named))


def found_in(folder: Path) -> list[str]:
    """The names of the data sets of which a folder holds at least one split.

    >>> found_in(Path("no-such-folder"))
    []
    """
    names = []
    for name, entry in CATALOGUE.items():
        for split in entry.splits if entry.hub else ():
            with suppress(InputError):
                find(entry, split, folder)
                names.append(name)
                break
    return names


def _files(entry: Entry, root: Path, named: str) -> list[Path]:
    """The parquet files of a data set, from the first folder of the layout that has some."""
    bases = [root / name for name in entry.folders if (root / name).is_dir()]
    # The root may be the set's own folder, but not one that bears another set's name: MNIST read
    # as KMNIST would go unnoticed.
    others = {name for other in CATALOGUE.values() if other != entry for name in other.folders}
    if not bases and root.resolve().name not in others:
        bases = [root]
    for base in bases:
        for folder in (base, base / "data", base / entry.config):
            files = [
                file for file in sorted(folder.glob("*.parquet")) if _SHARD.fullmatch(file.name)
            ]
            if files:
                return files
    below = ("", "data/", f"{entry.config}/" if entry.config else "")
    looked_in = dict.fromkeys(
        f"{folder}{sub}" or "./" for folder in ("", f"{entry.folders[0]}/") for sub in below
    )
    place = bases[0] if bases else root
    found = sorted(path.name + "/" * path.is_dir() for path in place.iterdir())
    shown = ", ".join(found[:_SHOWN]) + ", ..." * (len(found) > _SHOWN)
    inside = "" if place == root else f" in {place.name}/"
    raise InputError(
        f"{named} does not hold {entry.name} in the hub's layout: looked for "
        f"<split>-00000-of-00001.parquet in {', '.join(looked_in)}; "
        f"there is{inside}: {shown or 'nothing'}"
    )


def _shards(entry: Entry, files: list[Path], split: str, named: str) -> tuple[Path, ...]:
    """The files of one split, all of them."""
    by_split: dict[str, list[re.Match[str]]] = {}
    for file in files:
        if shard := _SHARD.fullmatch(file.name):
            by_split.setdefault(shard["split"], []).append(shard)
    if split not in by_split:
        raise InputError(
            f"{named}: no split {split!r} of {entry.name}; there are: {', '.join(by_split)}"
        )
    shards = by_split[split]
    totals = {int(shard["total"] or 1) for shard in shards}
    missing = set(range(max(totals))) - {int(shard["index"] or 0) for shard in shards}
    # A part of a data set must not pass for the whole.
    if missing:
        lost = f"{split}-{min(missing):05d}-of-{max(totals):05d}.parquet"
        raise InputError(
            f"{named}: {len(missing)} files of split {split!r} are missing: {lost}, ..."
        )
    if len(shards) > max(totals):
        there = ", ".join(shard.string for shard in shards[:_SHOWN])
        raise InputError(f"{named}: split {split!r} has files of several versions: {there}")
    return tuple(files[0].parent / shard.string for shard in shards)


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
