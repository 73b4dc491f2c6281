"""Decoded images kept on disk, so that a data set is decoded once and not at every start."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kinkcheck.errors import InputError
from kinkcheck.files import write_whole_bytes

Arrays: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images uint8 (N, C, H, W) and labels int64 (N,)."""

# Part of every key: to be raised when what is written under a key changes meaning.
_FORMAT = 1


def cache_dir() -> Path:
    """The folder of decoded images: ``$KINKCHECK_CACHE_DIR``, else ``~/.cache/kinkcheck``.

    It may be deleted at any time; its files are decoded again when they are needed.

    >>> from unittest import mock
    >>> with mock.patch.dict(os.environ, KINKCHECK_CACHE_DIR="decoded"):
    ...     print(cache_dir())
    decoded
    """
    return Path(os.environ.get("KINKCHECK_CACHE_DIR") or Path.home() / ".cache" / "kinkcheck")


def remember(stem: str, key: str, decode: Callable[[], Arrays]) -> Arrays:
    """What ``decode()`` returns, from the cache if it was decoded before.

    The file is written under a temporary name and then renamed, so that it appears whole or not
    at all, also when several processes decode the same set. A file that cannot be read back (its
    checksum is verified) is decoded again and replaced. A cache that cannot be written costs a
    warning, not the data.

    Args:
        stem: the start of the file's name, for people who look into the folder.
        key: identifies the source; another key is another file.
        decode: reads the source.

    Returns:
        Images uint8 (N, C, H, W) and labels int64 (N,).

    >>> from unittest import mock
    >>> arrays = np.zeros((2, 1, 4, 4), np.uint8), np.array([0, 1])
    >>> with mock.patch.dict(os.environ, KINKCHECK_CACHE_DIR=str(getfixture("tmp_path"))):
    ...     _ = remember("tiny", "source 1", lambda: arrays)
    ...     images, labels = remember("tiny", "source 1", lambda: 1 / 0)  # is not called
    >>> images.shape, labels
    ((2, 1, 4, 4), array([0, 1]))
    """
    digest = hashlib.sha256(f"{_FORMAT}\n{key}".encode()).hexdigest()[:16]
    file = cache_dir() / f"{stem}-{digest}.npz"
    kept = _read(file)
    if kept is not None:
        return kept
    arrays = decode()
    try:
        _write(file, arrays)
    except OSError as error:
        warnings.warn(f"decoded images are not kept in {file.parent}: {error}", stacklevel=2)
    return arrays


def _read(file: Path) -> Arrays | None:
    try:
        if not file.is_file():  # a pipe has no end
            return None
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            images, labels = stored["images"], stored["labels"]
    except Exception:
        # A damaged archive fails in as many ways as there are bytes to damage (bad checksum,
        # unknown compression, encrypted flag, ...); whichever it is, it has to be decoded again.
        return None
    return images, labels


def _write(file: Path, arrays: Arrays) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and not file.is_file():  # a pipe would wait for a reader
        raise OSError(errno.EEXIST, "it is no file", str(file))
    images, labels = arrays
    content = io.BytesIO()
    np.savez(content, images=images, labels=labels)
    with suppress(InputError):  # another process keeps the same
        write_whole_bytes(file, content.getvalue())
