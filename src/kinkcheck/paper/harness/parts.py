"""Parts of an experiment, kept as they are done: an interrupted run goes on after the last.

They are measured one after the other, or on a cluster as many at a time as it has room for. One
process, this one, writes what is kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import Any, TypeAlias, TypeVar

import torch

from kinkcheck.cluster import WorkerDiedError, kind_of, settle
from kinkcheck.errors import InputError
from kinkcheck.files import Claim, require_readable, set_aside, write_whole
from kinkcheck.paper.harness.experiment import Setup, silent
from kinkcheck.paper.harness.rows import decoded, line
from kinkcheck.seal import KEY, require_intact, say_damaged, sealed

R = TypeVar("R")

Measure: TypeAlias = Callable[[Setup], list[R]]
"""What measures a part, and can travel to another process."""


def all_kept(
    setup: Setup, row: type[R] | UnionType, parts: Mapping[str, Measure[R]]
) -> dict[str, list[R]]:
    """The rows of parts: those in their files, or measured and written there.

    Args:
        setup: where; a part that was measured on another device, by other versions or with another
            number of threads is refused.
        row: the type of a row, as in :class:`kinkcheck.paper.harness.experiment.Experiment`.
        parts: what measures each, by its name, which has to tell it apart from all that share a
            folder, and of all sizes.

    Returns:
        The rows by the names, in the same order.

    Raises:
        InputError: a part cannot be measured; or a file cannot be read or written, or holds what
            was measured otherwise.

    >>> from kinkcheck.paper.harness.comparison import Sample
    >>> parts = {name: lambda setup: [Sample(0.5, None, 1)] for name in ("draw 0", "draw 1")}
    >>> all_kept(Setup(getfixture("tmp_path")), Sample, parts)["draw 1"]
    [Sample(mean=0.5, deviation=None, runs=1)]
    """
    found: dict[str, list[R]] = {}
    # What is measured elsewhere ends with this, however this ends.
    with closing((_here if setup.cluster is None else _spread)(setup, parts)) as measured:
        for name, measure in measured:
            setup.on_progress(name, len(found), len(parts))
            found[name] = kept(setup, name, row, measure)
    setup.on_progress("all parts", len(parts), len(parts))
    return {name: found[name] for name in parts}


def _here(
    setup: Setup, parts: Mapping[str, Measure[R]]
) -> Generator[tuple[str, Callable[[], list[R]]]]:
    for name, measure in parts.items():
        yield name, partial(measure, setup)


def _spread(
    setup: Setup, parts: Mapping[str, Measure[R]]
) -> Generator[tuple[str, Callable[[], list[R]]]]:
    """The parts in the order in which a cluster has done them; those first that are kept."""
    cluster = setup.cluster
    assert cluster is not None
    threads = torch.get_num_threads()
    needed = cluster.needed("a part", setup.device, threads)
    there = replace(setup, device=kind_of(setup.device), cluster=None, on_progress=silent)
    if setup.data_dir is not None:
        there = replace(there, data_dir=setup.data_dir.resolve())
    waiting = [name for name in parts if not _path(setup, name).exists()]
    for name in parts:
        if name not in waiting:
            yield name, partial(parts[name], setup)
    # Sent once, all together: parts have their images in common.
    measures = cluster.put({name: parts[name] for name in waiting}) if waiting else None
    running: dict[Any, str] = {}
    deaths = dict.fromkeys(waiting, 0)
    try:
        while waiting or running:
            while waiting and len(running) < max(1, cluster.room(needed)):
                name = waiting.pop(0)
                started = cluster.start(
                    _on_worker, measures, name, there, os.getcwd(), threads, needed=needed
                )
                running[started] = name
            ready = cluster.first(list(running))
            name = running.pop(ready)
            try:
                rows = cluster.value(ready)
            except WorkerDiedError as error:
                deaths[name] += 1
                cluster.require_survived(deaths[name], name, error)
                waiting.insert(0, name)
                continue
            yield name, partial(_given, rows)
    finally:
        cluster.cancel(running)


def _on_worker(
    measures: Mapping[str, Measure[R]], name: str, setup: Setup, folder: str, threads: int
) -> list[R]:
    settle(folder, threads)
    return measures[name](setup)


def _given(rows: list[R]) -> list[R]:
    return rows


def kept(
    setup: Setup, name: str, row: type[R] | UnionType, measure: Callable[[], list[R]]
) -> list[R]:
    """The rows of a part: those in its file, or measured and written there.

    Args:
        setup: where; a part that was measured on another device, by other versions or with another
            number of threads is refused.
        name: of the part, which has to tell all apart that share a folder, and their sizes.
        row: the type of a row, as in :class:`kinkcheck.paper.harness.experiment.Experiment`.
        measure: the rows.

    Raises:
        InputError: the file cannot be read or written, or holds what was measured otherwise. One
            that is damaged is set aside, and its part is measured again.

    >>> from kinkcheck.paper.harness.comparison import Sample
    >>> setup = Setup(getfixture("tmp_path"))
    >>> [kept(setup, "draw 0", Sample, lambda: [Sample(mean, None, 1)]) for mean in (0.5, 0.7)]
    [[Sample(mean=0.5, deviation=None, runs=1)], [Sample(mean=0.5, deviation=None, runs=1)]]
    """
    path = _path(setup, name)
    how = {
        "device": setup.device,
        "kinkcheck": version("kinkcheck"),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
    }
    content = _read(path, set(how)) if path.exists() else None
    if content is None:
        rows = measure()
        try:
            write_whole(path, json.dumps(sealed({**how, "rows": [line(row) for row in rows]})))
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
        return rows
    with suppress(InputError, OSError), Claim(path):
        pass  # what a killed process left beside it goes
    for key, value in how.items():
        if content.get(key, value) != value:
            raise InputError(
                f"{path} was measured with {key} {content[key]}, this is {value}; give another "
                "--out, or delete it"
            )
    try:
        return decoded(row, content["rows"], str(path))
    except InputError as error:
        raise InputError(f"{error}; delete it to measure that part again") from None


def _path(setup: Setup, name: str) -> Path:
    return setup.work / f"{name.replace(', ', '-').replace(' ', '-')}.json"


def _read(path: Path, keys: set[str]) -> dict[str, Any] | None:
    """What a file holds; None if that is damaged, and it has been set aside."""
    require_readable(path)
    try:
        content = json.loads(path.read_bytes())
        # Without the threads is one that was measured before they were kept.
        if isinstance(content, dict) and {*content, KEY, "threads"} == {*keys, "rows", KEY}:
            require_intact(content, str(path))
            return content
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError):
        pass
    say_damaged(str(path), set_aside(path))
    return None
