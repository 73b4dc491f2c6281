"""A trial on two devices finds what it finds on one, up to rounding."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import active_children, get_context
from pathlib import Path

import pytest

from kinkcheck.errors import InputError
from kinkcheck.study import parallel, spec
from kinkcheck.study.executor import guarded
from kinkcheck.study.job import EpochEnd, Event, Job, Outcome, Record
from kinkcheck.study.parallel import train_parallel
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


def jobs(text: str = TEXT) -> dict[str, Job]:
    trials = spec.parse(text, "t.toml").trials()
    return {s.precision: Job(s.id, s, 0.05, None, "cpu", 1) for s in trials}


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
    ("precision", "rounding"), [("float32", 1e-4), ("float16", 3e-2), ("mixed", 3e-2)]
)
def test_two_processes_find_what_one_finds(precision: str, rounding: float) -> None:
    job = jobs()[precision]
    two = list(train_parallel(job))
    one = list(train(job))
    assert two[-1] == one[-1] == Outcome("finished")
    for ours, theirs in zip(records(two), records(one), strict=True):
        assert math.isclose(ours.train_loss, theirs.train_loss, rel_tol=rounding)
        assert math.isclose(ours.test_loss, theirs.test_loss, rel_tol=rounding)
        assert abs(ours.test_accuracy - theirs.test_accuracy) <= 2 / 65
        assert ours.learning_rate == theirs.learning_rate


def test_a_last_batch_smaller_than_half_the_processes() -> None:
    text = TEXT.replace("devices = 2", "devices = 3").replace("epochs = 3", "epochs = 1")
    job = jobs(text)["float32"]
    (three, *_), (one, *_) = records(list(train_parallel(job))), records(list(train(job)))
    assert math.isclose(three.train_loss, one.train_loss, rel_tol=1e-4)


def test_a_trial_goes_on_bit_for_bit() -> None:
    job = jobs(TEXT.replace("161", "170").replace("max_pool", "batch_norm = true\nmax_pool"))[
        "float32"
    ]
    whole = list(train_parallel(job))
    first = whole[1]
    assert isinstance(first, EpochEnd)
    rest = list(
        train_parallel(replace(job, state=first.state, accuracies=(first.record.test_accuracy,)))
    )
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
    assert 1e-5 < abs(two.train_loss / one.train_loss - 1) < 0.2


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
    wrong = replace(own, settings=replace(own.settings, network="nets.py:Nothing"))
    with pytest.raises(InputError, match=r"^network: nets.py has no 'Nothing'$"):
        list(train_parallel(wrong))


def test_devices_that_are_not_there_are_refused() -> None:
    job = jobs()["float32"]
    with pytest.raises(InputError, match="devices: 2 are asked for, and there are 0 of CUDA"):
        list(train_parallel(replace(job, device="cuda")))
    with pytest.raises(InputError, match="devices: 2 of meta cannot work together"):
        list(train_parallel(replace(job, device="meta")))
    with pytest.raises(InputError, match=r"devices: 64 are more than batch_size 32"):
        jobs(TEXT.replace("devices = 2", "devices = 64"))
