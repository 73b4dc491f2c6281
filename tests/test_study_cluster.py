"""Studies on a Ray cluster find what they find here, whatever happens to the workers."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from command_line import Kinkcheck, processes_with, start
from kinkcheck.cluster import Cluster
from kinkcheck.errors import InputError
from kinkcheck.study import export, spec
from kinkcheck.study.cluster import Trials
from kinkcheck.study.job import Beat
from kinkcheck.study.reading import reading
from kinkcheck.study.run import Silent, run
from kinkcheck.study.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("one cluster for all")]

NETWORKS = Path(__file__).with_name("study_networks.py")

SEARCHED = """
data = "mnist-sample"
train_images = 160
test_images = 64
network = "lenet5"
precision = ["16", "32"]
max_pool = ["hybrid:0", "hybrid:1e6"]
forward = ["exact", "compound"]
seeds = 1
epochs = 2
batch_size = 32
[search]
trials = 2
epochs = 1
low = 1e-3
"""
OWN = """
data = "mnist-sample"
train_images = 256
test_images = 64
network = "nets.py:Net"
max_pool = ["hybrid:0", "hybrid:10"]
seeds = 1
learning_rate = 0.1
epochs = 4
batch_size = 32
"""
REGRESSION = """
seeds = 1
selections.relu = ["branch:0", "branch:1"]
epochs = 2
batch_size = 32
[task]
factory = "regression_task.py:Cars"
[search]
trials = 2
epochs = 1
"""
TEXT = """
seeds = 1
selections.max_pool = ["native", "hybrid:100"]
optimizer = "adam"
learning_rate = 0.002
epochs = 2
batch_size = 16
[task]
factory = "text_task.py:Novels"
arguments = { layers = 1 }
"""


def exports(folder: Path) -> dict[str, bytes]:
    with reading(folder) as study:
        tables = [table for table in export.QUERIES if table != "sessions"]
        return {table: export.export(study, table, "csv") for table in tables}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> spec.Spec:
    """A study of a user's own network, in the current folder."""
    shutil.copy(NETWORKS, tmp_path / "nets.py")
    monkeypatch.chdir(tmp_path)
    return spec.parse(OWN, "own.toml")


class Heard(Silent):
    def __init__(self) -> None:
        self.beats: list[Beat] = []
        self.starts: list[int] = []

    def beat(self, settings: Settings, beat: Beat) -> None:
        self.beats.append(beat)

    def started(self, settings: Settings, first_epoch: int) -> None:
        self.starts.append(first_epoch)


# These two come first: those that follow share a connection, and then no address is looked at.
def test_without_ray_one_line_says_how_to_get_it(
    kinkcheck: Kinkcheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = kinkcheck("study", "run", "smoke", "--out", "s", "--ray")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert 'pip install "kinkcheck[ray]"' in done.err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--ray", "127.0.0.1:1"], "--ray: no connection to 127.0.0.1:1: "),
        (["--ray", "ray://127.0.0.1:1"], "accepted: HOST:PORT, auto, local"),
        (["--ray", "nobody"], "accepted: HOST:PORT, auto, local"),
        (["--ray", "--gpu-share", "1.5"], "--gpu-share must be from 0.0001 to 1, not 1.5"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    kinkcheck: Kinkcheck, options: list[str], complaint: str
) -> None:
    pytest.importorskip("ray")
    done = kinkcheck("study", "run", "smoke", "--out", "s", *options)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert complaint in done.err


def test_a_cluster_finds_what_this_process_finds(tmp_path: Path, cluster: Cluster) -> None:
    declared = spec.parse(SEARCHED, "s.toml")
    run(declared, tmp_path / "here", threads=1)
    ended = run(declared, tmp_path / "there", threads=1, executor=Trials(cluster))
    assert {trial.state for trial in ended} == {"finished", "diverged"}
    assert exports(tmp_path / "there") == exports(tmp_path / "here")


@pytest.mark.parametrize("text", [REGRESSION, TEXT], ids=["regression", "text"])
def test_a_worker_makes_a_user_s_own_task_again(
    tmp_path: Path, cluster: Cluster, text: str
) -> None:
    if text is TEXT:
        pytest.importorskip("transformers", exc_type=ImportError, reason="the example's model")
    examples = Path(__file__).parents[1] / "examples"
    declared = spec.parse(text, "s.toml", examples)
    run(declared, tmp_path / "here", threads=1)
    run(declared, tmp_path / "there", threads=1, executor=Trials(cluster))
    assert exports(tmp_path / "there") == exports(tmp_path / "here")


def test_a_killed_worker_loses_no_epoch_and_leaves_no_trace(
    own: spec.Spec, cluster: Cluster
) -> None:
    run(own, Path("here"), threads=1)
    Path("kill").write_text("1")
    Path("slow").write_text("0.08")
    heard = Heard()
    run(own, Path("there"), threads=1, executor=Trials(cluster), watcher=heard)
    assert not Path("kill").exists()
    assert sorted(heard.starts) == [1, 1, 3]  # step 20 is in the third epoch
    assert {beat.steps for beat in heard.beats} == {8}
    assert exports(Path("there")) == exports(Path("here"))
    assert not list(Path("there/checkpoints").iterdir())


def test_a_trial_whose_workers_all_die_fails(
    own: spec.Spec, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cluster, "DEATHS", 0)
    Path("kill").write_text("1")
    Path("slow").write_text("0.08")  # so that the second epoch has arrived when the worker dies
    states = [trial.state for trial in run(own, Path("s"), threads=1, executor=Trials(cluster))]
    assert sorted(states) == ["failed", "finished"]
    with reading(Path("s")) as study:
        (failed,) = (trial for trial in study.trials() if trial.state == "failed")
    assert failed.done == 2
    assert failed.reason is not None
    assert "died within one epoch" in failed.reason


def test_an_exception_in_a_trial_is_its_outcome(own: spec.Spec, cluster: Cluster) -> None:
    Path("fail").touch()
    ended = run(own, Path("s"), threads=1, executor=Trials(cluster))
    assert [trial.state for trial in ended] == ["failed", "failed"]
    with reading(Path("s")) as study:
        assert {trial.reason for trial in study.trials()} == {"ValueError: first second"}


def test_bad_input_on_a_worker_is_raised_here(
    own: spec.Spec, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where this machine has what the worker's has not.
    monkeypatch.setattr("kinkcheck.study.model.require_modules", lambda trials, images: None)
    wrong = own.model_copy(update={"network": ("nets.py:Nothing",)})
    with pytest.raises(InputError, match=r"^network: nets.py has no 'Nothing'; "):
        run(wrong, Path("s"), threads=1, executor=Trials(cluster))


def test_a_trial_that_fits_nowhere_is_refused(own: spec.Spec, cluster: Cluster) -> None:
    with pytest.raises(InputError, match="a trial takes 3 CPUs, and no machine"):
        run(own, Path("s"), threads=3, executor=Trials(cluster))
    with pytest.raises(InputError, match="a trial takes 1 CPU and 1 GPU, and no machine"):
        run(own, Path("s"), threads=1, device="cuda", executor=Trials(cluster))


def test_an_interrupted_study_leaves_no_process_and_goes_on(own: spec.Spec, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    Path("own.toml").write_text(OWN)
    Path("slow").write_text("0.1")
    arguments = ["study", "run", "own.toml", "--out", "s", "--threads", "1", "--ray", "local"]
    process = start(*arguments, KINKCHECK_TEST=str(tmp_path))
    # Neither limit is measured against: they only keep a broken study from hanging the tests.
    deadline = time.monotonic() + 600
    while not list(tmp_path.glob("s/checkpoints/*-1.pt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=600)
    assert process.returncode == 130
    # Ray may have a word of its own about the stream that was left.
    assert {
        "kinkcheck: stopped; the same command goes on from here",
        "kinkcheck: interrupted",
    } <= set(told.splitlines())
    assert not processes_with(f"KINKCHECK_TEST={tmp_path}")
    Path("slow").unlink()
    run(own, Path("s"), threads=1)
    run(own, Path("here"), threads=1)
    assert exports(Path("s")) == exports(Path("here"))
