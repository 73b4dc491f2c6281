"""Writes that go wrong, files that are damaged, and Ctrl-C: nothing is lost, nothing is silent.

After each fault either the same thing is found, once the command has gone on, or one line refuses.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fault_runs import EXPERIMENT, SPEC
from kinkcheck import audit, cli, load
from kinkcheck.audit.journal import Journal
from kinkcheck.data import cache
from kinkcheck.errors import InputError
from kinkcheck.measure.records import Found
from kinkcheck.paper.harness.experiment import Setup
from kinkcheck.paper.harness.running import run as run_experiment
from kinkcheck.study import export, spec
from kinkcheck.study.executor import Inline
from kinkcheck.study.job import Event, Job
from kinkcheck.study.reading import reading
from kinkcheck.study.run import run

HOW = ("kill", "tear", "full", "io")


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(Path(cli.__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }


def faults(subject: str, folder: Path, how: str, step: int) -> list[dict[str, Any]]:
    """What came of each fault, see ``fault_runs.py``."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("fault_runs.py")), subject, str(folder), how,
         "1", str(step)],
        capture_output=True, text=True, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def require_nothing_lost(found: list[dict[str, Any]], how: str) -> None:
    for each in found:
        for run_ in (each["once"], each["again"]):
            assert "Traceback" not in run_["said"], each
        assert each["once"]["code"] == (-signal.SIGKILL if how in ("kill", "tear") else 2), each
        assert each["again"]["code"] == 0, each
        assert each["same"], each
        assert not each["left"], each


@pytest.mark.slow
@pytest.mark.parametrize(
    ("subject", "how", "step"),
    [
        ("study", "kill", 7),
        ("study", "io", 9),
        ("volume", "full", 5),
        ("paper", "tear", 5),
        ("paper", "full", 5),
    ],
)
def test_some_writes_that_go_wrong(subject: str, how: str, step: int, tmp_path: Path) -> None:
    found = faults(subject, tmp_path / "f", how, step)
    assert len(found) > 1
    require_nothing_lost(found, how)


@pytest.mark.torture
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("subject", ["study", "volume", "paper", "audit"])
def test_every_write_that_can_go_wrong(
    subject: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = faults(subject, tmp_path / "f", how, 1)
    require_nothing_lost(found, how)
    with capsys.disabled():
        print(f"\n{subject}: {len(found)} faults of kind {how}, nothing lost")


# --- damage ---------------------------------------------------------------------------------------


def damages(content: bytes, cuts: int, flips: int) -> Iterator[bytes]:
    """A file cut short, and with one bit flipped, at places that are spread over it."""
    draw = random.Random(0)
    for at in range(0, len(content), max(1, len(content) // cuts)):
        yield content[:at]
    for at in range(0, len(content), max(1, len(content) // flips)):
        yield content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]


Check = Callable[[bytes], bool]
"""Damages a file in this way, and goes on: whether it was refused. It fails on a wrong result."""


def json_of_an_audit(folder: Path) -> tuple[bytes, Check]:
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    with torch.no_grad():  # two neurons at 1, so that the gradient is not 0, and one at 0
        network[0].weight.copy_(torch.eye(3, 4))
        network[0].bias.copy_(torch.tensor([0.0, 0.0, -1.0]))
    report = audit(network, [(torch.ones(2, 4), torch.ones(2).long())])
    path = folder / "a.json"
    report.save(path)
    whole = load(path)

    def check(damaged: bytes) -> bool:
        path.write_bytes(damaged)
        try:
            assert load(path) == whole
        except InputError:
            return True
        return False

    return path.read_bytes(), check


def part_of_an_experiment(folder: Path) -> tuple[bytes, Check]:
    return of_experiment(folder, folder / "work" / "draw-1.json", remove=folder / "tiny.json")


def numbers_of_an_experiment(folder: Path) -> tuple[bytes, Check]:
    return of_experiment(folder, folder / "tiny.json")


def of_experiment(folder: Path, path: Path, remove: Path | None = None) -> tuple[bytes, Check]:
    setup = Setup(folder / "work")
    run_experiment(EXPERIMENT, folder, setup)
    whole, numbers = path.read_bytes(), (folder / "tiny.json").read_bytes()

    def check(damaged: bytes) -> bool:
        path.write_bytes(damaged)
        if remove is not None:
            remove.unlink(missing_ok=True)
        try:
            run_experiment(EXPERIMENT, folder, setup)
        except InputError:
            path.write_bytes(whole)
            return True
        assert read_rows(folder / "tiny.json") == read_rows_of(numbers)
        for aside in path.parent.glob("*.damaged*"):
            aside.unlink()
        return False

    return whole, check


def read_rows(path: Path) -> Any:
    return read_rows_of(path.read_bytes())


def read_rows_of(content: bytes) -> Any:
    return json.loads(content)["rows"]


def file_of_points(folder: Path) -> tuple[bytes, Check]:
    path = folder / "v.jsonl"
    sentences = [f"point {number}" for number in range(4)]
    with Journal(path, {"seed": 0}) as journal:
        for sentence in sentences:
            journal.append(Found([], [], [], [sentence]))

    def check(damaged: bytes) -> bool:
        path.write_bytes(damaged)
        try:
            with Journal(path, {"seed": 0}) as journal:
                there = [sentence for found in journal.found for sentence in found.left_out]
        except InputError:
            assert path.read_bytes() == damaged
            return True
        assert [each for each in sentences if each in there] == there
        assert not journal.whole or there == sentences[: len(there)]
        for aside in folder.glob("*.damaged*"):
            aside.unlink()
        return False

    return path.read_bytes(), check


def decoded_images(folder: Path) -> tuple[bytes, Check]:
    arrays = np.arange(2 * 49, dtype=np.uint8).reshape(2, 1, 7, 7), np.array([3, 5])

    def images() -> cache.Arrays:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KINKCHECK_CACHE_DIR", str(folder))
            return cache.remember("digits", "source", lambda: arrays)

    images()
    (path,) = folder.iterdir()

    def check(damaged: bytes) -> bool:
        path.write_bytes(damaged)
        for found, right in zip(images(), arrays, strict=True):
            assert np.array_equal(found, right)
        return False

    return path.read_bytes(), check


STORED = [
    json_of_an_audit,
    part_of_an_experiment,
    numbers_of_an_experiment,
    file_of_points,
    decoded_images,
]


@pytest.mark.parametrize("stored", STORED)
def test_damage_is_noticed(stored: Callable[[Path], tuple[bytes, Check]], tmp_path: Path) -> None:
    content, check = stored(tmp_path)
    for damaged in damages(content, 12, 24):
        check(damaged)


@pytest.mark.torture
@pytest.mark.parametrize("stored", STORED)
def test_all_damage_is_noticed(
    stored: Callable[[Path], tuple[bytes, Check]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content, check = stored(tmp_path)
    small = stored in (json_of_an_audit, file_of_points, decoded_images)
    refused = [
        check(damaged)
        for damaged in damages(content, len(content) if small else 60, len(content) // 64)
    ]
    with capsys.disabled():
        print(
            f"\n{stored.__name__}: {len(refused)} damages, {sum(refused)} refused, the rest "
            "computed again or without consequence; no wrong number"
        )


class StopHereError(Exception):
    """Leaves a study where it is."""


class Stopping(Inline):
    """Trains until so many epochs are done."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def run(self, jobs: Any, on_beat: Any) -> Generator[tuple[Job, Event]]:
        for number, (job, event) in enumerate(super().run(jobs, on_beat)):
            if number > self.epochs:
                raise StopHereError
            yield job, event


def exports(folder: Path) -> dict[str, bytes]:
    tables = [table for table in export.QUERIES if table != "sessions"]
    with reading(folder) as study:
        return {table: export.export(study, table, "csv") for table in tables}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in the midst of its first trial."""
    folder = tmp_path_factory.mktemp("study") / "s"
    with pytest.raises(StopHereError):
        run(spec.parse(SPEC, "s.toml"), folder, threads=1, executor=Stopping(1))
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "s"
    run(spec.parse(SPEC, "s.toml"), folder, threads=1)
    return folder


def go_on(begun: Path, folder: Path, name: str, damaged: bytes) -> Path:
    shutil.copytree(begun, folder)
    (folder / name).write_bytes(damaged)
    run(spec.parse(SPEC, "s.toml"), folder, threads=1)
    return folder


def checkpoint_of(folder: Path) -> str:
    (path,) = (folder / "checkpoints").iterdir()
    return str(path.relative_to(folder))


def require_checkpoint_repaired(stopped: Path, whole: Path, folder: Path, damaged: bytes) -> None:
    name = checkpoint_of(stopped)
    ended = go_on(stopped, folder, name, damaged)
    assert exports(ended) == exports(whole)
    if damaged != (stopped / name).read_bytes():
        assert (ended / f"{name}.damaged").read_bytes() == damaged
        with reading(ended) as study:
            ((said,),) = ((row["value"],) for row in study.rows(
                "SELECT value FROM study WHERE key LIKE 'damage %'"))  # fmt: skip
        assert said.endswith(".pt.damaged")


@pytest.mark.parametrize("number", range(3))
def test_a_damaged_checkpoint_is_set_aside_and_its_trial_trained_again(
    number: int, stopped: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = (stopped / checkpoint_of(stopped)).read_bytes()
    flipped = content[:9000] + bytes([content[9000] ^ 1]) + content[9001:]
    damaged = (flipped, content[:9000], b"")[number]
    require_checkpoint_repaired(stopped, whole, tmp_path / "s", damaged)
    (said,) = caplog.messages
    assert ".pt is damaged; it lies in " in said


def tables(folder: Path) -> bytes:
    """The file of the tables, without a log beside it."""
    with reading(folder):
        pass
    return (folder / "study.db").read_bytes()


def require_no_wrong_table(
    begun: Path, whole: dict[str, bytes], folder: Path, damaged: bytes, *, again: bool
) -> bool:
    """Read a damaged file, and go on with it if asked; whether reading was refused."""
    shutil.copytree(begun, folder)
    (folder / "study.db").write_bytes(damaged)
    refused = False
    try:
        assert exports(folder) == whole
    except InputError:
        refused = True
    if again:
        try:
            run(spec.parse(SPEC, "s.toml"), folder, threads=1)
        except InputError:
            pass
        else:
            assert exports(folder) == whole
    shutil.rmtree(folder)
    return refused


def test_damaged_tables_are_never_a_wrong_table(whole: Path, tmp_path: Path) -> None:
    content, right = tables(whole), exports(whole)
    for damaged in damages(content, 6, 40):
        require_no_wrong_table(whole, right, tmp_path / "s", damaged, again=False)


def test_a_layout_of_tables_that_is_no_text_is_refused(whole: Path, tmp_path: Path) -> None:
    """SQLite's own message then holds bytes that are no text either."""
    content = tables(whole)
    damaged = content.replace(b"CREATE TABLE epochs", b"CREATE TABLE ep\xccchs")
    damaged = damaged.replace(b"tableepochs", b"tableep\xccchs")
    assert damaged != content
    assert require_no_wrong_table(whole, exports(whole), tmp_path / "s", damaged, again=True)


def test_rows_that_are_damaged_are_computed_again(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    right = exports(whole)
    for statement in (
        "UPDATE epochs SET test_accuracy = test_accuracy + 1e-9 WHERE epoch = 2",
        "UPDATE trials SET state = 'diverged' WHERE position = 1",
        "DELETE FROM epochs WHERE epoch = 1",
        "UPDATE trials SET trial = 'x' || trial WHERE position = 0",
        "UPDATE seals SET digest = 'x' || digest WHERE name LIKE 'trial %'",
        "UPDATE seals SET name = 'x' || name WHERE name LIKE 'trial %'",
    ):
        folder = tmp_path / "s"
        shutil.copytree(whole, folder)
        with sqlite3.connect(folder / "study.db") as connection:
            connection.execute(statement)
        connection.close()
        with pytest.raises(InputError, match=r"study.db is damaged: \w+"):
            exports(folder)
        caplog.clear()
        run(spec.parse(SPEC, "s.toml"), folder, threads=1)
        assert exports(folder) == right, statement
        assert caplog.messages
        assert (folder / "study.db.damaged").exists()
        shutil.rmtree(folder)


@pytest.mark.torture
def test_all_damage_of_a_study_is_noticed(
    stopped: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, right = tables(whole), exports(whole)
    done = [
        require_no_wrong_table(whole, right, tmp_path / "s", damaged, again=number % 16 == 0)
        for number, damaged in enumerate(damages(content, 200, len(content) // 64))
    ]
    checkpoint = (stopped / checkpoint_of(stopped)).read_bytes()
    several = list(damages(checkpoint, 10, 40))
    for damaged in several:
        require_checkpoint_repaired(stopped, whole, tmp_path / "s", damaged)
        shutil.rmtree(tmp_path / "s")
    with capsys.disabled():
        print(
            f"\ntables of a study: {len(done)} damages, {sum(done)} refused by readers, the rest "
            f"without consequence; checkpoints: {len(several)} damages, all trained again"
        )


# --- Ctrl-C ---------------------------------------------------------------------------------------


# Tells when the command begins to import what it needs, from where on it hears Ctrl-C.
HEARS = """
import signal, sys
from kinkcheck.__main__ import main
class Tell:
    def find_spec(self, name, path=None, target=None):
        if name == "kinkcheck.cli":
            print(flush=True)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Tell())
main()
"""


def interrupt(folder: Path, after: float) -> tuple[int, float]:
    """Start a study, interrupt it after some seconds; its exit code, and how long that took."""
    (folder / "s.toml").write_text(SPEC, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-c", HEARS,
         "study", "run", "s.toml", "--out", "s", "--threads", "1"],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, said = process.communicate(timeout=60)
    took = time.monotonic() - sent
    assert "Traceback" not in said
    if process.returncode in (0, -signal.SIGINT):  # the study had ended, and so did Python
        assert "interrupted" not in said
        with reading(folder / "s") as study:
            assert {trial.state for trial in study.trials()} == {"finished"}
        return 0, 0.0
    assert process.returncode == 130, said
    assert said.endswith("kinkcheck: interrupted\n")
    if (folder / "s" / "study.db").exists():
        with reading(folder / "s") as study:
            assert "failed" not in {trial.state for trial in study.trials()}
    return 130, took


@pytest.mark.slow
def test_ctrl_c_stops_a_study_at_any_moment(tmp_path: Path, whole: Path) -> None:
    for number in range(10):
        interrupt(tmp_path, number * 0.7)
    run(spec.parse(SPEC, "s.toml"), tmp_path / "s", threads=1)
    assert exports(tmp_path / "s") == exports(whole)


@pytest.mark.torture
def test_a_hundred_interrupts(
    tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(0)
    ended = []
    for _ in range(100):
        shutil.rmtree(tmp_path / "s", ignore_errors=True)
        ended.append(interrupt(tmp_path, draw.uniform(0, 5)))
    run(spec.parse(SPEC, "s.toml"), tmp_path / "s", threads=1)
    assert exports(tmp_path / "s") == exports(whole)
    with capsys.disabled():
        stopped = sorted(took for code, took in ended if code)
        print(
            f"\nCtrl-C: {len(stopped)} of 100 hit a study that ran; exit 130, nothing failed; "
            f"median {stopped[len(stopped) // 2]:.2f} s, longest {stopped[-1]:.2f} s"
        )
