"""Studies that are killed, cut, locked and resumed find what they would have found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kinkcheck import cli
from kinkcheck.study import export, spec
from kinkcheck.study.reading import reading
from kinkcheck.study.run import run

pytestmark = pytest.mark.slow

SAME = [table for table in export.QUERIES if table != "sessions"]

SEARCHED = """
data = "mnist-sample"
train_images = 160
test_images = 64
network = "lenet5"
batch_norm = true
precision = ["16", "32", "mixed"]
max_pool = ["hybrid:10"]
seeds = 1
epochs = 4
batch_size = 32
[search]
trials = 7
epochs = 3
low = 1e-3
"""
DIVERGENCE = """
experiment = "weight-divergence"
data = "mnist-sample"
train_images = 160
test_images = 64
network = "lenet5"
max_pool = ["hybrid:0", "hybrid:100", "hybrid:0"]
seeds = 4
learning_rate = { low = 0.05, high = 0.1 }
momentum = 0
weight_decay = 0
schedule = "constant"
epochs = 10
batch_size = 32
"""
AUGMENTED = """
data = "cifar10"
train_images = 160
test_images = 64
network = "lenet5"
forward = ["exact", "compound"]
optimizer = ["sgd", "adam"]
max_pool = ["hybrid:0", "hybrid:10"]
seeds = 2
learning_rate = [0.01, 0.001]
schedule = "step"
step_size = 2
epochs = 4
batch_size = 32
"""
REGRESSION = f"""
precision = ["16", "32"]
selections.relu = ["branch:0", "branch:1"]
seeds = 2
learning_rate = 0.02
epochs = 5
batch_size = 16
[task]
factory = "{Path(__file__).parents[1] / "examples" / "regression_task.py"}:Cars"
"""


def exports(folder: Path) -> dict[str, bytes]:
    with reading(folder) as study:
        return {table: export.export(study, table, "csv") for table in SAME}


def kill(text: str, folder: Path, kills: int, seed: int, *data_dir: Path) -> int:
    """Run a study to its end through kills; how many hit it."""
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("study_killer.py")),
            *map(str, (text, folder, kills, seed, *data_dir)),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(cli.__file__).parents[2]),
            "OMP_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"killed=(\d+)", done.stdout)
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize(
    ("text", "seed"),
    [(SEARCHED, 0), (DIVERGENCE, 1), (REGRESSION, 3)],
    ids=["searched", "divergence", "regression"],
)
def test_a_killed_study_finds_what_an_uninterrupted_one_finds(
    tmp_path: Path, text: str, seed: int
) -> None:
    run(spec.parse(text, "whole.toml"), tmp_path / "whole", threads=1)
    killed = kill(text, tmp_path / "killed", 25, seed)
    assert killed >= 20
    assert exports(tmp_path / "killed") == exports(tmp_path / "whole")
    with reading(tmp_path / "killed") as study:
        sessions = study.rows("SELECT trial, count(*) AS n FROM sessions GROUP BY trial")
    assert max(row["n"] for row in sessions) > 1
    assert not list((tmp_path / "killed" / "checkpoints").iterdir())


def test_augmentation_goes_on_where_it_was(tmp_path: Path, data_dir: Path) -> None:
    run(spec.parse(AUGMENTED, "whole.toml"), tmp_path / "whole", data_dir=data_dir, threads=1)
    assert kill(AUGMENTED, tmp_path / "killed", 25, 2, data_dir) >= 20
    assert exports(tmp_path / "killed") == exports(tmp_path / "whole")
