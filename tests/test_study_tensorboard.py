"""A study's TensorBoard logs hold what its store holds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from command_line import Kinkcheck
from kinkcheck.report.tensorboard import TensorBoard, run_name
from kinkcheck.study.criteria import ACCURACY
from kinkcheck.study.job import Outcome, Record, Score
from kinkcheck.study.reading import reading
from kinkcheck.study.spec import parse

SPEC = """
data = "mnist-sample"
train_images = 64
test_images = 32
network = "lenet5"
max_pool = ["hybrid:0", "hybrid:10"]
seeds = 1
epochs = 2
batch_size = 32
learning_rate = 0.02
"""


def logged(folder: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars(tag)]


def test_a_run_a_trial(kinkcheck: Kinkcheck, folder: Path) -> None:
    pytest.importorskip("tensorboard")
    (folder / "s.toml").write_text(SPEC)
    run = kinkcheck("study", "run", "s.toml", "--out", "s", "--tensorboard", "logs/s")
    assert run.code == 0, run.err
    with reading(folder / "s") as study:
        trials = study.trials()
        kept = study.rows("SELECT trial, epoch, test_accuracy FROM epochs ORDER BY trial, epoch")
    assert len(trials) == 2
    runs = {path.name.rpartition("-")[2]: path for path in (folder / "logs" / "s").iterdir()}
    assert set(runs) == {trial.trial for trial in trials}
    for trial, path in runs.items():
        expected = [(row["epoch"], row["test_accuracy"]) for row in kept if row["trial"] == trial]
        assert logged(path, "accuracy/test") == expected
        assert len(logged(path, "ties/features.2")) == 2


def test_a_trial_that_goes_on_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    settings = parse(SPEC, "s.toml").trials()[0]
    for first, last in ((1, 3), (3, 4)):
        watcher = TensorBoard(tmp_path / "logs")
        watcher.started(settings, first)
        for epoch in range(first, last + 1):
            train, test = Score(2.0, {ACCURACY: 0.5}), Score(1.5, {ACCURACY: epoch / 8})
            watcher.epoch(settings, Record(epoch, 0.1, train, test, seconds=1.0))
        if first > 1:
            watcher.ended(settings, Outcome("diverged", 7, "features.0"))
    expected = [(epoch, epoch / 8) for epoch in (1, 2, 3, 4)]
    assert logged(tmp_path / "logs" / run_name(settings), "accuracy/test") == expected


def test_a_missing_package_is_named(
    kinkcheck: Kinkcheck, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    run = kinkcheck("study", "run", "smoke", "--out", "s", "--tensorboard", "logs")
    assert run.code == 2
    assert run.err.startswith("kinkcheck: tensorboard is needed (")
    assert 'pip install "kinkcheck[tensorboard]"' in run.err
    assert not (folder / "s").exists()


def test_a_folder_that_cannot_be_made(kinkcheck: Kinkcheck, folder: Path) -> None:
    pytest.importorskip("tensorboard")
    (folder / "logs").write_text("a file")
    run = kinkcheck("study", "run", "smoke", "--out", "s", "--tensorboard", "logs")
    assert run.code == 2
    assert run.err == "kinkcheck: --tensorboard: logs cannot be written: File exists\n"
