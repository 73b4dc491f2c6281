"""Parts of experiments: kept, gone on with, and spread over a cluster that is made up here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from kinkcheck.cluster import Cluster, WorkerDiedError
from kinkcheck.errors import InputError
from kinkcheck.paper.harness.experiment import Setup
from kinkcheck.paper.harness.parts import all_kept
from kinkcheck.seal import KEY, sealed


@dataclass(frozen=True)
class Row:
    number: int


class Workers:
    """As many at a time as there is room for; the last one that was started ends first."""

    DEATHS = 3

    def __init__(self, room: int = 2, deaths: int = 0) -> None:
        self._room, self._deaths = room, deaths
        self.most = 0
        self.cancelled: list[Any] = []
        self._running: dict[int, Callable[[], Any]] = {}

    def needed(self, what: str, device: str, threads: int) -> dict[str, float]:
        return {"num_cpus": float(threads)}

    def room(self, needed: dict[str, float]) -> int:
        return self._room

    def put(self, value: Any) -> Any:
        return value

    def start(self, function: Callable[..., Any], *arguments: Any, needed: Any) -> int:
        number = max(self._running, default=0) + 1
        self._running[number] = partial(function, *arguments)
        self.most = max(self.most, len(self._running))
        return number

    def first(self, references: Sequence[int]) -> int:
        assert set(references) == set(self._running)
        return references[-1]

    def value(self, reference: int) -> Any:
        work = self._running.pop(reference)
        if self._deaths:
            self._deaths -= 1
            raise WorkerDiedError("OutOfMemory")
        return work()

    require_survived = Cluster.require_survived

    def cancel(self, references: Iterable[int]) -> None:
        self.cancelled += references


def measured(number: int, setup: Setup) -> list[Row]:
    return [Row(number), Row(10 * number)]


def refused(setup: Setup) -> list[Row]:
    raise InputError("network: no")


PARTS = {f"draw {number}": partial(measured, number) for number in range(5)}
EXPECTED = {name: [Row(number), Row(10 * number)] for number, name in enumerate(PARTS)}


@pytest.mark.parametrize("deaths", [0, 3])
def test_parts_on_a_cluster_are_those_of_one_process(tmp_path: Path, deaths: int) -> None:
    here, there = Setup(tmp_path / "here"), tmp_path / "there"
    here.work.mkdir()
    there.mkdir()
    workers: Any = Workers(deaths=deaths)
    assert all_kept(here, Row, PARTS) == EXPECTED
    found = all_kept(Setup(there, cluster=workers), Row, PARTS)
    assert (found, list(found)) == (EXPECTED, list(PARTS))
    assert workers.most == 2
    files = sorted(path.name for path in there.iterdir())
    assert files == sorted(path.name for path in here.work.iterdir())
    assert all((there / name).read_bytes() == (here.work / name).read_bytes() for name in files)


def test_which_of_several_devices_a_worker_takes_is_the_clusters_choice(tmp_path: Path) -> None:
    def told(setup: Setup) -> list[Row]:
        return [Row(["cuda", "cuda:1"].index(setup.device))]

    workers: Any = Workers()
    setup = Setup(tmp_path, device="cuda:1", cluster=workers)
    assert all_kept(setup, Row, {"draw 0": told}) == {"draw 0": [Row(0)]}
    assert '"device": "cuda:1"' in (tmp_path / "draw-0.json").read_text()


def test_what_is_kept_is_not_measured_again(tmp_path: Path) -> None:
    workers: Any = Workers()
    setup = Setup(tmp_path, cluster=workers)
    first = {name: PARTS[name] for name in ("draw 1", "draw 3")}
    all_kept(setup, Row, first)
    again = PARTS | dict.fromkeys(first, refused)
    assert all_kept(setup, Row, again) == EXPECTED


def test_what_a_killed_process_left_beside_a_part_is_removed(tmp_path: Path) -> None:
    """It had written the part, and not yet given back the right to."""
    setup = Setup(tmp_path)
    all_kept(setup, Row, PARTS)
    (tmp_path / ".draw-0.json.kinkcheck-lock").write_text("process 1")
    assert all_kept(setup, Row, PARTS) == EXPECTED
    assert not list(tmp_path.glob(".*"))


def test_parts_of_another_number_of_threads_are_refused(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    setup, file = Setup(tmp_path), tmp_path / "draw-0.json"
    try:
        torch.set_num_threads(1)
        all_kept(setup, Row, {"draw 0": PARTS["draw 0"]})
        torch.set_num_threads(2)
        with pytest.raises(InputError, match=r"was measured with threads 1, this is 2; give ano"):
            all_kept(setup, Row, PARTS)
        # One of an earlier version does not say.
        content = json.loads(file.read_text())
        del content["threads"], content[KEY]
        file.write_text(json.dumps(sealed(content)))
        assert all_kept(setup, Row, {**PARTS, "draw 0": refused}) == EXPECTED
    finally:
        torch.set_num_threads(threads)


def test_a_pipe_in_the_place_of_a_part_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "draw-0.json")
    with pytest.raises(InputError, match=r"draw-0.json cannot be read: it is a pipe or a device"):
        all_kept(Setup(tmp_path), Row, PARTS)


def test_a_part_that_fails_ends_the_others_and_leaves_what_was_done(tmp_path: Path) -> None:
    workers: Any = Workers(room=3)
    parts = {"draw 0": refused, "draw 1": PARTS["draw 1"], "draw 2": PARTS["draw 2"]}
    with pytest.raises(InputError, match="network: no"):
        all_kept(Setup(tmp_path, cluster=workers), Row, parts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["draw-1.json", "draw-2.json"]


def test_what_runs_elsewhere_ends_before_the_error_is_heard_of(tmp_path: Path) -> None:
    """Whoever hears of it holds its traceback, and gives the cluster up."""

    def stop(name: str, done: int, total: int) -> None:
        raise InputError("no more")

    workers: Any = Workers(room=3)
    setup = Setup(tmp_path, cluster=workers, on_progress=stop)
    try:
        all_kept(setup, Row, PARTS)
    except InputError:
        assert workers.cancelled == [1, 2]


def test_workers_that_keep_dying_at_a_part_are_given_up(tmp_path: Path) -> None:
    workers: Any = Workers(room=1, deaths=9)
    with pytest.raises(InputError, match=r"4 workers in a row died at draw 0, .*OutOfMemory"):
        all_kept(Setup(tmp_path, cluster=workers), Row, PARTS)
