"""The store: what it refuses, what it survives, and that readers and writers do not meet."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from kinkcheck import cli
from kinkcheck.errors import InputError
from kinkcheck.study import classification, export, schema, spec
from kinkcheck.study.criteria import ACCURACY
from kinkcheck.study.job import EpochEnd, Outcome, Started
from kinkcheck.study.lock import Lock, holder
from kinkcheck.study.reading import reading
from kinkcheck.study.run import Silent, run
from kinkcheck.study.store import Store
from kinkcheck.study.summary import groups, varied

OLD = Path(__file__).with_name("old_study")

SPEC = """
data = "mnist-sample"
train_images = 96
test_images = 32
network = "lenet5"
max_pool = ["hybrid:0", "hybrid:10"]
seeds = 1
learning_rate = 0.05
epochs = 3
batch_size = 32
"""


def bounded() -> nn.Module:
    layers = (nn.Flatten(), nn.Linear(784, 8), nn.Hardtanh(), nn.MaxPool1d(2), nn.Linear(4, 10))
    return nn.Sequential(*layers)


def broken() -> nn.Module:
    raise ValueError("no such layer")


class Stop(Exception):  # noqa: N818
    """Ends a run where a test wants it."""


class StopAfter(Silent):
    """Stops a study after some epochs, as a kill would."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def epoch(self, settings: Any, record: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stop


def start(folder: Path, text: str = SPEC, epochs: int | None = None, **changes: Any) -> None:
    declared = spec.parse(text, "s.toml")
    arguments = {"threads": 1, **changes}
    if epochs is None:
        run(declared, folder, **arguments)
        return
    with pytest.raises(Stop):
        run(declared, folder, watcher=StopAfter(epochs), **arguments)


def exports(folder: Path) -> dict[str, bytes]:
    with reading(folder) as study:
        return {t: export.export(study, t, "csv") for t in export.QUERIES if t != "sessions"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole") / "s"
    start(folder)
    return exports(folder)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A study that was stopped after four of its six epochs."""
    folder = tmp_path / "s"
    start(folder, epochs=4)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Every file but those that readers make: an index of the log, and an empty log."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and not file.name.endswith("-shm")
        and file.name != "lock"
        and not (file.name.endswith("-wal") and file.stat().st_size == 0)
    }


def refused(folder: Path, why: str, text: str = SPEC, **changes: Any) -> None:
    before = content(folder)
    with pytest.raises(InputError) as caught:
        start(folder, text, **changes)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert content(folder) == before


# --- going on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", range(1, 7))
def test_a_stopped_study_goes_on(tmp_path: Path, whole: dict[str, bytes], epochs: int) -> None:
    start(tmp_path / "s", epochs=epochs)
    start(tmp_path / "s")
    assert exports(tmp_path / "s") == whole


def test_a_study_that_is_done_does_nothing(tmp_path: Path, whole: dict[str, bytes]) -> None:
    start(tmp_path / "s")
    started = []

    class Watcher(Silent):
        def started(self, settings: Any, first_epoch: int) -> None:
            started.append(settings)

    start(tmp_path / "s", watcher=Watcher())
    assert not started
    assert exports(tmp_path / "s") == whole


def test_a_study_may_grow(begun: Path) -> None:
    larger = SPEC.replace("seeds = 1", "seeds = 2")
    start(begun, larger)
    with reading(begun) as study:
        trials = study.trials()
    assert [(t.seed, t.selections["max_pool"], t.state) for t in trials] == [
        (seed, beta, "finished") for seed in (0, 1) for beta in ("hybrid:0", "hybrid:10")
    ]


def test_tables_of_version_1_are_gone_on_with(begun: Path, whole: dict[str, bytes]) -> None:
    # All that version 2 has besides is what the column "settings" may hold.
    with sqlite3.connect(begun / schema.FILE) as connection:
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    assert exports(begun)["trials"].count(b"hybrid") > 0
    start(begun)
    assert exports(begun) == whole
    with sqlite3.connect(begun / schema.FILE) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (4,)
    connection.close()


def old_study(folder: Path) -> Path:
    """A finished study whose tables are of version 2, with what it had exported then beside it."""
    folder.mkdir()
    connection = sqlite3.connect(folder / schema.FILE)
    connection.executescript((OLD / "study.sql").read_text(encoding="utf-8"))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    return folder


def test_tables_of_version_2_are_read_and_gone_on_with(tmp_path: Path) -> None:
    folder = old_study(tmp_path / "s")
    text = (OLD / "spec.toml").read_text(encoding="utf-8")
    for grown in (False, True):
        if grown:
            start(folder, text)  # nothing is left to do
        with reading(folder) as study:
            for table in ("epochs", "trials", "searches"):
                exported = (OLD / f"{table}.csv").read_bytes()
                assert export.export(study, table, "csv") == exported
            assert (study.criterion, study.shape) == (ACCURACY, schema.IMAGES)
            assert [trial.value for trial in study.trials()] == [0.125, 0.125]
    start(folder, text.replace("seeds = 1", "seeds = 2"))
    with reading(folder) as study:
        trials, searches = study.trials(), study.rows("SELECT * FROM searches")
    assert [(t.seed, t.state) for t in trials] == [(s, "finished") for s in (0, 0, 1, 1)]
    assert [row["learning_rate"] for row in searches] == [trials[3].learning_rate]
    with sqlite3.connect(folder / schema.FILE) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (4,)
    connection.close()


def test_a_spec_of_an_old_study_has_the_trials_that_it_had() -> None:
    text = (OLD / "spec.toml").read_text(encoding="utf-8")
    rows = csv.DictReader(io.StringIO((OLD / "trials.csv").read_text(encoding="utf-8")))
    stored = [(row["trial"], row["settings"]) for row in rows]
    assert [(s.id, s.to_json()) for s in spec.parse(text, "s.toml").trials()] == stored


def test_selections_of_other_families_are_kept(tmp_path: Path) -> None:
    text = SPEC.replace('"lenet5"', f'"{__name__}:bounded"').replace("epochs = 3", "epochs = 2")
    table = '[selections]\nhardtanh = ["native", "branch:1"]\n'
    start(tmp_path / "whole", text + table)
    start(tmp_path / "s", text + table, epochs=3)
    start(tmp_path / "s", text + table)
    assert exports(tmp_path / "s") == exports(tmp_path / "whole")
    with reading(tmp_path / "s") as study:
        trials = study.trials()
        rows = json.loads(export.export(study, "trials", "json"))["rows"]
    expected = [("hybrid:0", "native"), ("hybrid:0", "branch:1"),
                ("hybrid:10", "native"), ("hybrid:10", "branch:1")]  # fmt: skip
    found = [(t.selections["max_pool"], t.selections["hardtanh"]) for t in trials]
    assert found == expected
    assert [(r["max_pool"], json.loads(r["selections"])) for r in rows] == [
        (max_pool, {"hardtanh": hardtanh}) for max_pool, hardtanh in expected
    ]
    # Runs are told apart by them.
    assert [group.runs for group in groups(trials)] == [1, 1, 1, 1]
    assert varied(groups(trials)) == ["max_pool", "hardtanh"]


def test_a_family_without_a_module_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lenet5: hardtanh: the model has no hardtanh module"):
        start(tmp_path / "s", SPEC + '[selections]\nhardtanh = "minimal"')
    assert not (tmp_path / "s").exists()


def test_a_network_that_cannot_be_made_costs_its_own_trials(tmp_path: Path) -> None:
    networks = SPEC.replace('"lenet5"', f'["{__name__}:broken", "lenet5"]')
    start(tmp_path / "s", networks.replace('["hybrid:0", "hybrid:10"]', '"last"'))
    with reading(tmp_path / "s") as study:
        found = {trial.task["network"]: (trial.state, trial.reason) for trial in study.trials()}
    assert found == {
        f"{__name__}:broken": ("failed", "ValueError: no such layer"),
        "lenet5": ("finished", None),
    }


def test_a_trial_that_failed_is_tried_again(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any) -> Any:
        raise MemoryError("out of memory\nsomewhere")

    with monkeypatch.context() as patch:
        patch.setattr("kinkcheck.study.trial.probe", exhausted)
        ended = run(spec.parse(SPEC, "s.toml"), tmp_path / "s", threads=1)
    assert [trial.state for trial in ended] == ["failed", "failed"]
    with reading(tmp_path / "s") as study:
        assert study.trials()[0].reason == "MemoryError: out of memory somewhere"
    start(tmp_path / "s")
    assert exports(tmp_path / "s") == whole


def test_provenance_has_a_row_for_each_start(begun: Path) -> None:
    start(begun)
    with reading(begun) as study:
        rows = study.rows("SELECT * FROM sessions ORDER BY rowid")
    assert [row["first_epoch"] for row in rows] == [1, 1, 2]
    assert rows[0]["torch"]
    assert rows[0]["threads"] == 1
    assert "deterministic_algorithms=True" in rows[0]["flags"]


# --- what is refused -----------------------------------------------------------------------------


def test_a_newer_version(begun: Path) -> None:
    with sqlite3.connect(begun / schema.FILE) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()
    refused(begun, "was written by a newer kinkcheck (tables 5; this one reads up to 4)")


def test_another_database(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / schema.FILE) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    (tmp_path / "checkpoints").mkdir()
    refused(tmp_path, "is not a study; name another folder")


@pytest.mark.parametrize("damage", ["noise", "cut", "empty"])
def test_an_unreadable_file(begun: Path, damage: str) -> None:
    file = begun / schema.FILE
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    whole = file.read_bytes()
    file.write_bytes(
        {"noise": bytes(range(256)) * 64, "cut": whole[: len(whole) // 2], "empty": b""}[damage]
    )
    refused(begun, "s/study.db ")
    with pytest.raises(InputError), reading(begun):
        pass


def test_a_data_set_that_changed(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = classification.digest
    monkeypatch.setattr(
        classification,
        "digest",
        lambda images: digest(images)[::-1] if images.split == "test" else "same",
    )
    start(begun.parent / "other", epochs=1)
    monkeypatch.setattr(classification, "digest", digest)
    refused(
        begun.parent / "other",
        "data mnist-sample train has changed since the study began; name another folder",
    )


def test_another_number_of_threads(begun: Path) -> None:
    refused(begun, "threads is 2, but the study began with 1; name another folder", threads=2)


def test_the_threads_it_began_with_are_the_default(begun: Path, whole: dict[str, bytes]) -> None:
    import torch

    torch.set_num_threads(2)
    try:
        start(begun, threads=None)
    finally:
        torch.set_num_threads(1)
    assert exports(begun) == whole


def test_a_spec_without_some_of_its_trials(begun: Path) -> None:
    refused(
        begun,
        "holds 1 trials that the spec does not have, one of them with max_pool hybrid:10",
        SPEC.replace(', "hybrid:10"', ""),
    )
    refused(begun, "holds 2 trials that the spec does not have, one of them with epochs 3",
            SPEC.replace("epochs = 3", "epochs = 4"))  # fmt: skip


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("")
    with pytest.raises(InputError, match="s cannot be written: "):
        start(tmp_path / "s")


def test_there_is_no_study(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"holds no study: there is no study\.db in it"),
        reading(tmp_path),
    ):
        pass


# --- one writer, many readers --------------------------------------------------------------------


def test_a_second_writer_is_told_of_the_first(begun: Path) -> None:
    with Lock(begun / "lock"):
        refused(begun, f"is being written by process {os.getpid()} on ")
        assert holder(begun / "lock") == os.getpid()
    assert holder(begun / "lock") is None


def test_readers_that_ask_who_writes_do_not_see_each_other(begun: Path) -> None:
    import fcntl

    with open(begun / "lock") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert holder(begun / "lock") is None


def test_a_lock_counts_where_there_is_no_room_to_say_whose_it_is(tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # no file may grow
    try:
        with Lock(tmp_path / "lock"):
            assert holder(tmp_path / "lock") == -1
        assert holder(tmp_path / "lock") is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "lock").read_bytes() == b""


def test_who_may_only_read_is_told_who_writes(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open

    def read_only(path: Any, mode: str = "r", **how: Any) -> Any:
        if mode != "rb":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, mode, **how)

    with Lock(begun / "lock"):
        monkeypatch.setattr("builtins.open", read_only)  # who is root may write whatever it is
        assert holder(begun / "lock") == os.getpid()


def test_the_lock_of_a_dead_process_is_taken_over(begun: Path, whole: dict[str, bytes]) -> None:
    program = (
        "import os, pathlib, signal, sys\n"
        "from kinkcheck.study.lock import Lock\n"
        "with Lock(pathlib.Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    python([program, str(begun / "lock")])
    assert b"pid" in (begun / "lock").read_bytes()
    start(begun)
    assert exports(begun) == whole


def test_readers_read_while_the_writer_writes(tmp_path: Path) -> None:
    seen = []

    class Watcher(Silent):
        def epoch(self, settings: Any, record: Any) -> None:
            with reading(tmp_path / "s") as study:
                seen.append(len(study.rows("SELECT * FROM epochs")))
                assert study.running() == os.getpid()

    start(tmp_path / "s", watcher=Watcher())
    assert seen == [1, 2, 3, 4, 5, 6]


def test_a_store_that_another_program_locks_for_a_while(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    class Watcher(Silent):
        def epoch(self, settings: Any, record: Any) -> None:
            if record.epoch == 2:
                other = sqlite3.connect(
                    tmp_path / "s" / schema.FILE, isolation_level=None, check_same_thread=False
                )
                other.execute("BEGIN IMMEDIATE")
                threading.Timer(0.3, other.rollback).start()

    start(tmp_path / "s", watcher=Watcher())
    assert exports(tmp_path / "s") == whole


def test_a_store_that_stays_locked(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect: Callable[..., Any] = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "timeout": 0.05}))
    others = []

    class Watcher(Silent):
        def epoch(self, settings: Any, record: Any) -> None:
            if record.epoch == 2:
                others.append(connect(tmp_path / "s" / schema.FILE, isolation_level=None))
                others[0].execute("BEGIN IMMEDIATE")

    with pytest.raises(InputError, match="s cannot be written: database is locked"):
        start(tmp_path / "s", watcher=Watcher())
    others[0].close()
    start(tmp_path / "s")
    assert exports(tmp_path / "s") == whole


# --- cut, full, gone -----------------------------------------------------------------------------


def test_a_log_that_was_cut_anywhere(begun: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    # A copy while the writer is open has everything in the write-ahead log, as after a kill.
    copy = tmp_path / "open"

    class Watcher(StopAfter):
        def epoch(self, settings: Any, record: Any) -> None:
            if self.left == 1:
                shutil.copytree(tmp_path / "live", copy)
            super().epoch(settings, record)

    with pytest.raises(Stop):
        run(spec.parse(SPEC, "s.toml"), tmp_path / "live", threads=1, watcher=Watcher(5))
    log = (copy / "study.db-wal").read_bytes()
    assert len(log) > 20_000
    for length in [*range(0, len(log), len(log) // 12), len(log) - 1]:
        folder = tmp_path / f"cut{length}"
        shutil.copytree(copy, folder)
        (folder / "study.db-shm").unlink(missing_ok=True)
        (folder / "study.db-wal").write_bytes(log[:length])
        start(folder)
        assert exports(folder) == whole, length


def test_a_checkpoint_that_is_gone(begun: Path, whole: dict[str, bytes]) -> None:
    (checkpoint,) = (begun / "checkpoints").iterdir()
    checkpoint.unlink()
    start(begun)
    assert exports(begun) == whole


def test_what_trials_no_longer_name_is_removed(begun: Path) -> None:
    (trial, *_) = {file.name.partition("-")[0] for file in (begun / "checkpoints").iterdir()}
    for name in (f".{trial}-1.pt", f"{trial}-0.pt"):  # half written, and the one before
        (begun / "checkpoints" / name).write_bytes(b"x")
    start(begun)
    assert not list((begun / "checkpoints").iterdir())


def test_what_is_not_the_study_s_own_stays(begun: Path) -> None:
    others = ("best_model.pt", "notes-1.pt", "feedfeedfeed-9.pt")
    for name in others:
        (begun / "checkpoints" / name).write_bytes(name.encode())
    start(begun)
    left = sorted(file.name for file in (begun / "checkpoints").iterdir())
    assert left == sorted(others)


@pytest.mark.parametrize("name", ["checkpoints/best_model.pt", "lock", "thesis.tex", "checkpoints"])
def test_a_folder_of_somebody_else_s_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    path = tmp_path / "p" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(InputError, match=rf"p holds {path.relative_to(tmp_path / 'p').parts[0]} "):
        start(tmp_path / "p")
    assert [file for file in (tmp_path / "p").rglob("*") if file.is_file()] == [path]
    assert path.read_text() == "mine"


def test_an_empty_folder_and_what_a_killed_start_left_are_taken(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    folder = tmp_path / "s"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "lock").write_text('{"pid": 1, "host": "h"}')
    (folder / ".study.db.new").write_bytes(b"half")
    start(folder)
    assert exports(folder) == whole


def test_record_and_checkpoint_agree_wherever_a_write_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes]
) -> None:
    for name in ("_add_rows", "_seal", "_remove"):
        folder = tmp_path / name
        original = getattr(Store, name)
        calls = []

        def failing(self: Store, *arguments: Any, original: Any = original,
                    calls: list[Any] = calls) -> Any:  # fmt: skip
            calls.append(arguments)
            if len(calls) == 3:
                raise Stop
            return original(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Store, name, failing)
            with pytest.raises(Stop):
                run(spec.parse(SPEC, "s.toml"), folder, threads=1)
        start(folder)
        assert exports(folder) == whole, name


def test_a_new_file_appears_with_its_write_ahead_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turned on later, a kill meanwhile would leave a journal that no reader may roll back."""
    monkeypatch.setattr(schema, "open_for_writing", Path.read_bytes)
    header: Any = schema.create(tmp_path / schema.FILE, schema.IMAGES)
    assert header[18:20] == b"\2\2"  # SQLite's file format: write and read version, 2 for WAL
    assert [file.name for file in tmp_path.iterdir()] == [schema.FILE]


@pytest.mark.slow
def test_a_full_disk(begun: Path, whole: dict[str, bytes]) -> None:
    program = (
        "import pathlib, resource, sys\n"
        "from kinkcheck.errors import InputError\n"
        "from kinkcheck.study import spec\n"
        "from kinkcheck.study.run import run\n"
        "declared = spec.parse(sys.argv[1], 's.toml')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    run(declared, pathlib.Path(sys.argv[2]), threads=1)\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    done = python([program, SPEC, str(begun)])
    assert "s cannot be written: File too large" in done.stdout
    assert done.stderr == ""
    start(begun)
    assert exports(begun) == whole


def python(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", *arguments],
        capture_output=True, text=True, timeout=300, check=False,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(cli.__file__).parents[2]),
            "OMP_NUM_THREADS": "1",
        },
    )  # fmt: skip


def test_an_event_stream_can_come_from_elsewhere(tmp_path: Path) -> None:
    """A store takes the events of any executor, whoever trained."""
    from kinkcheck.study import trial
    from kinkcheck.study.job import Job

    (first, _) = spec.parse(SPEC, "s.toml").trials()
    events = list(trial.train(Job(first.id, first, 0.05, None, "cpu", 1)))
    with Store(tmp_path / "s", [first], {}, "") as store:
        for event in events:
            if isinstance(event, Started):
                store.start(first.id, event)
            elif isinstance(event, EpochEnd):
                store.add_epoch(first.id, event)
            else:
                assert isinstance(event, Outcome)
                store.end(first.id, event)
        (progress,) = store.progress()
    assert progress.over
    assert len(progress.values) == 3
