"""Encoded images and labels in parquet files on disk, read in order or shuffled."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from kinkcheck.data.source import Source
from kinkcheck.errors import InputError
from kinkcheck.extras import require

Row: TypeAlias = tuple[bytes | None, Any]
"""An encoded image and its label, which is not checked yet."""

# Shuffling rows that do not fit into memory needs a window of them; this one holds about 100 MB of
# JPEG.
_WINDOW = 1_000

_IN_TURN = 10  # files that are read at a time when rows are shuffled
_PIECE = 100  # rows of each


@dataclass(frozen=True)
class Files:
    """The rows of the files of a split.

    Attributes:
        source: where they are.
        size: number of rows.
        first: how many of them are read; None for all.
    """

    source: Source
    size: int
    first: int | None = None

    def take(self, count: int) -> Files:
        """The first ``count`` rows, or all if there are fewer."""
        count = min(count, self.size)
        return replace(self, size=count, first=count)

    def rows(self, seed: int | None = None) -> Iterator[Row]:
        """One row after the other.

        Args:
            seed: None for the stored order; else the files are shuffled, ten of them are read in
                turn, and rows are shuffled within a window of 1,000. Of the first so many rows the
                files keep their order.

        Raises:
            InputError: a file cannot be read.
        """
        with _readable(self.source):
            files = self.source.files
            if seed is None or self.first is not None:
                stored = islice(_in_files(files, self.source), self.first)
                yield from stored if seed is None else _shuffled(stored, seed)
                return
            order = list(range(len(files)))
            np.random.default_rng(seed).shuffle(order)
            shares = np.array_split(order, min(len(files), _IN_TURN))
            streams = [_in_files([files[n] for n in share], self.source) for share in shares]
            yield from _shuffled(_in_turn(streams), seed)


def open_files(source: Source) -> Files:
    """The rows of the files of a split, ready to be read.

    Args:
        source: where they are.

    Raises:
        InputError: a file cannot be read or has the wrong columns, or pyarrow is not installed.
    """
    parquet = require("pyarrow.parquet", extra="data")
    types = require("pyarrow.types", extra="data")
    columns = _columns(source)
    size = 0
    for number, file in enumerate(source.files):
        with _readable(source):
            metadata = parquet.read_metadata(file)
            schema = metadata.schema.to_arrow_schema()
        size += metadata.num_rows
        for column in columns:
            if column in schema.names:
                continue
            if number:
                raise InputError(f"{source}: cannot be read: {file.name} has no column {column!r}")
            raise InputError(
                f"{source}: no column {column!r}, which {source.entry.name} needs; "
                f"there are: {', '.join(schema.names)}"
            )
        kind = schema.field(columns[0]).type
        if not types.is_struct(kind) or kind.get_field_index("bytes") < 0:
            raise InputError(f"{source}: column {columns[0]!r} holds {kind}, not images")
    return Files(source, size)


def _columns(source: Source) -> list[str]:
    return [source.entry.image_column, source.entry.label_column]


def _in_files(files: Iterable[Path], source: Source) -> Iterator[Row]:
    parquet = require("pyarrow.parquet", extra="data")
    image, label = _columns(source)
    for file in files:
        with parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(_PIECE, columns=[image, label]):
                images = batch.column(image).to_pylist()
                for each, value in zip(images, batch.column(label).to_pylist(), strict=True):
                    yield each and each["bytes"], value


def _in_turn(streams: Iterable[Iterator[Row]]) -> Iterator[Row]:
    """A piece of each stream, again and again."""
    waiting = deque(streams)
    while waiting:
        stream = waiting.popleft()
        piece = list(islice(stream, _PIECE))
        if piece:
            waiting.append(stream)
        yield from piece


def _shuffled(rows: Iterator[Row], seed: int) -> Iterator[Row]:
    """Half a window of shuffled rows, then the window is filled up again."""
    generator = np.random.default_rng(seed)
    held: list[Row] = []
    full = True
    while full:
        held += islice(rows, _WINDOW - len(held))
        full = len(held) == _WINDOW
        held = [held[n] for n in generator.permutation(len(held))]
        kept = _WINDOW // 2 if full else 0
        yield from held[: len(held) - kept]
        held = held[len(held) - kept :]


@contextmanager
def _readable(source: Source) -> Iterator[None]:
    """Turn every way in which reading fails into one line."""
    arrow = require("pyarrow", extra="data")
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, arrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{source}: cannot be read: {reason}") from error
