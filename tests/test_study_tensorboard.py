"""A study's TensorBoard logs hold what its store holds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from command_line import Kinkcheck
from kinkcheck.study.reading import reading

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
        expected = [(epoch, accuracy) for name, epoch, accuracy in kept if name == trial]
        assert logged(path, "accuracy/test") == pytest.approx(expected)
        assert len(logged(path, "ties/features.2")) == 2


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
