"""Where a split's encoded images are, on disk or on the hub; nothing is read yet."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kinkcheck.data.catalogue import CATALOGUE, Entry
from kinkcheck.errors import InputError
from kinkcheck.files import require_readable

ENVIRONMENT = "KINKCHECK_DATA_DIR"

# The hub's names: train-00000-of-00002.parquet, in old repositories with a hash behind it.
_SHARD = re.compile(r"(?P<split>\w+?)(-(?P<index>\d+)-of-(?P<total>\d+)(-\w+)?)?\.parquet")

_SHOWN = 8  # names of a folder's entries in an error message


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


def find(entry: Entry, split: str, data_dir: str | os.PathLike[str] | None) -> Source:
    """Find a split in a local folder, or name its place on the hub.

    Args:
        entry: the data set; the bundled sample lies in no folder.
        split: the split's name.
        data_dir: a folder that holds one folder a data set, or the data set's own folder; None
            for the environment variable KINKCHECK_DATA_DIR, and the hub if that is not set.

    Raises:
        InputError: the folder does not exist or is laid out differently, or the split is not
            there.
    """
    given = os.fspath(data_dir) if data_dir is not None else os.environ.get(ENVIRONMENT)
    if not given or not entry.hub:
        entry.require_split(split)
        return Source(entry, split)
    named = f"data_dir {given}" if data_dir is not None else f"{ENVIRONMENT}={given}"
    root = Path(given).expanduser()
    try:
        is_folder = root.is_dir()
    except OSError:  # the name is too long, say
        is_folder = False
    if not is_folder:
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
    paths = tuple(files[0].parent / shard.string for shard in shards)
    for path in paths:
        require_readable(path)
    return paths
