"""A volume on a Ray cluster is the file that one process writes, whatever happens to workers."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Lock
from typing import Any

import cloudpickle
import pytest
import torch
from torch import Tensor, nn

from command_line import Kinkcheck, processes_with, start
from kinkcheck import data
from kinkcheck.arithmetic.threads import of_threads
from kinkcheck.audit.cluster import Points
from kinkcheck.audit.volume import Volume, estimate_volume
from kinkcheck.cluster import Cluster
from kinkcheck.errors import InputError
from kinkcheck.networks.factory import Named
from kinkcheck.paper.experiments import draws_by_images, norm_pool
from kinkcheck.paper.experiments.norm_pool import NormPooled
from kinkcheck.paper.harness.case import Case, Network, Size
from kinkcheck.paper.harness.experiment import Setup
from kinkcheck.paper.harness.first_hits import first_hits

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("one cluster for all")]

NETS = """
import os, signal, time
from pathlib import Path

import torch
from torch import nn
from beside import CLASSES

# Slow, or at a mini-batch of five it kills its process or fails, if a file says so.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 5)
        self.last = nn.Linear(288, CLASSES)
    def forward(self, x):
        slow, kill, fail = Path("slow"), Path("kill"), Path("fail")
        if slow.exists():
            time.sleep(float(slow.read_text()))
        if len(x) == 5 and kill.exists():
            times = int(kill.read_text()) - 1
            kill.write_text(str(times)) if times else kill.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if len(x) == 5 and fail.exists():
            raise ValueError("first\\nsecond")
        return self.last(torch.max_pool2d(self.conv(x).relu(), 2).flatten(1))

def step(model, batch):
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

def make():
    batches = [{"x": torch.rand(n, 1, 28, 28), "y": torch.arange(n)} for n in (3, 4, 5, 6)]
    return Net(), batches, step
"""


@pytest.fixture(autouse=True)
def nets(folder: Path) -> None:
    (folder / "nets.py").write_text(NETS)
    (folder / "beside.py").write_text("CLASSES = 10")


def measured(out: str, **changes: Any) -> Volume:
    network = changes.pop("network", None) or Named("nets.py:make")
    precisions = ["float16", "float32"]
    return estimate_volume(
        network, **{"draws": 2, "precisions": precisions, "out": Path(out), **changes}
    )


def written(name: str) -> list[bytes]:
    return Path(name).read_bytes().splitlines(keepends=True)


def test_the_file_is_that_of_one_process(cluster: Cluster) -> None:
    here = measured("here.jsonl")
    assert len(here.points) == 2 * 4 * 2
    done: list[int] = []
    there = measured(
        "there.jsonl", executor=Points(cluster), on_point=lambda k, total: done.append(k)
    )
    assert there == here
    assert done == list(range(1, 17))
    assert written("there.jsonl") == written("here.jsonl")


def test_functions_modules_and_slices_reach_the_workers(cluster: Cluster) -> None:
    images, labels = next(data.load("mnist-sample").batches(12, seed=0))
    pairs = list(zip(images.split(4), labels.split(4), strict=True))
    width = 3

    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, width, 9), nn.MaxPool2d(20), nn.Flatten())

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.abs().sum() + targets.sum()

    for changes in ({}, {"network": network(), "draws": 1}):
        arguments: dict[str, Any] = {"network": network, "batches": pairs, "loss": loss, **changes}
        here = measured("here.jsonl", **arguments)
        assert measured("there.jsonl", executor=Points(cluster), **arguments) == here
        assert written("there.jsonl") == written("here.jsonl")
        Path("here.jsonl").unlink()
        Path("there.jsonl").unlink()


def test_what_cannot_be_sent_is_said(cluster: Cluster) -> None:
    lock = Lock()

    def network() -> nn.Module:
        with lock:
            return nn.Linear(784, 10)

    pair = torch.zeros(1, 784), torch.tensor([0])
    with pytest.raises(InputError, match=r"^network: cannot be sent to a worker: .*lock"):
        estimate_volume(network, [pair], draws=2, executor=Points(cluster))


def test_a_killed_worker_leaves_no_trace(cluster: Cluster) -> None:
    here = measured("here.jsonl")
    Path("kill").write_text("2")
    assert measured("there.jsonl", executor=Points(cluster)) == here
    assert not Path("kill").exists()
    assert written("there.jsonl") == written("here.jsonl")


def test_points_whose_workers_all_die_are_named(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured("here.jsonl", draws=1)
    monkeypatch.setattr(Cluster, "DEATHS", 0)
    Path("kill").write_text("1")
    with pytest.raises(InputError, match=r"^--ray: 1 workers in a row died at draw 0, batch 2,"):
        measured("there.jsonl", executor=Points(cluster), draws=1)
    assert written("there.jsonl") == written("here.jsonl")[: 1 + 2 * 2]
    measured("there.jsonl", executor=Points(cluster), draws=1)
    assert written("there.jsonl") == written("here.jsonl")


def test_a_network_that_fails_is_the_same_complaint(cluster: Cluster) -> None:
    Path("fail").touch()
    with pytest.raises(InputError, match=r"draw 0, batch 2\): ValueError: first second") as here:
        measured("here.jsonl")
    with pytest.raises(InputError) as there:
        measured("there.jsonl", executor=Points(cluster))
    assert str(there.value) == str(here.value)
    assert written("there.jsonl") == written("here.jsonl")


def test_a_narrow_interval_stops_a_cluster_too(cluster: Cluster) -> None:
    pair = torch.rand(2, 1, 28, 28), torch.tensor([0, 1])
    arguments: dict[str, Any] = {
        "network": Named("nets.py:Net"), "batches": [pair] * 20, "draws": 1, "until_width": 0.6,
    }  # fmt: skip
    here = measured("here.jsonl", **arguments)
    assert here.visited == 8
    assert measured("there.jsonl", executor=Points(cluster), **arguments) == here
    assert written("there.jsonl") == written("here.jsonl")


def test_an_experiment_of_a_paper_spreads_its_points(cluster: Cluster) -> None:
    case = Case(NormPooled("lenet5"), "mnist-sample", Size(2, 2, 4))
    for name, setup in (
        ("here", Setup(Path("here"))),
        ("there", Setup(Path("there"), cluster=cluster)),
    ):
        Path(name).mkdir()
        assert len(norm_pool.measure(setup, case)) == 2 * 2 * 4 * 2
    assert written("there/2x2x4.jsonl") == written("here/2x2x4.jsonl")


def test_an_experiment_of_a_paper_spreads_its_parts(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they have in common, as their images, is sent once."""
    start, sent = Cluster.start, []

    def counted(self: Cluster, function: Any, measures: Any, *rest: Any, needed: Any) -> Any:
        sent.append(len(cloudpickle.dumps((measures, *rest))))
        return start(self, function, measures, *rest, needed=needed)

    monkeypatch.setattr(Cluster, "start", counted)
    case = Case(Network("mlp"), "mnist-sample", Size(3, 2, 4))
    found = []
    for name, setup in (
        ("here", Setup(Path("here"))),
        ("there", Setup(Path("there"), cluster=cluster)),
    ):
        Path(name).mkdir()
        given = (case, case.images(None), ("float16",), draws_by_images._changes)
        found.append(first_hits(setup, "mlp", *given))
    assert found[0] == found[1]
    for path in Path("here").iterdir():
        assert path.read_bytes() == (Path("there") / path.name).read_bytes()
    assert len(sent) == 3
    assert max(sent) < 10_000


@pytest.mark.usefixtures("cluster")
def test_an_experiment_that_cannot_be_spread_runs_here(kinkcheck: Kinkcheck) -> None:
    run = kinkcheck("paper", "run", "programs", "--reduced", "--out", ".", "--ray")
    assert run.code == 0
    assert "kinkcheck: programs cannot be spread over a cluster; it runs here\n" in run.err


GARBAGE = """
import gc
import ray
from ray._private.worker import global_worker
from kinkcheck.cluster import Cluster

class CollectsWhileItEnds:
    def __init__(self, worker):
        self.worker = worker
    def __getattr__(self, name):
        return getattr(self.worker, name)
    def shutdown_driver(self):
        self.worker.shutdown_driver()
        gc.collect()

class Cycle:
    def __init__(self, cluster):
        self.itself = self
        self.reference = cluster.put(1)

gc.disable()
with Cluster("local") as cluster:
    Cycle(cluster)
    global_worker.core_worker = CollectsWhileItEnds(global_worker.core_worker)
print("goes on")
"""


def test_a_collection_while_ray_ends_does_not_end_the_process() -> None:
    pytest.importorskip("ray")
    # Ray ends a process in which a reference is given up at that moment: exit code 1, in silence.
    run = subprocess.run(
        [sys.executable, "-c", GARBAGE], capture_output=True, text=True, timeout=600
    )
    assert (run.returncode, run.stdout) == (0, "goes on\n"), run.stderr


def test_a_point_that_fits_nowhere_is_refused(cluster: Cluster) -> None:
    for changes, complaint in (
        ({"threads": 3}, "a point takes 3 CPUs, and no machine"),
        ({"device": "cuda"}, "a point takes 1 CPU and 1 GPU, and no machine"),
    ):
        with (
            of_threads(changes.pop("threads", None)),
            pytest.raises(InputError, match=complaint),
        ):
            measured("v.jsonl", executor=Points(cluster), **changes)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_command_leaves_no_process_and_goes_on(
    sent: signal.Signals, kinkcheck: Kinkcheck, folder: Path
) -> None:
    pytest.importorskip("ray")
    Path("slow").write_text("0.3")
    arguments = ["volume", "nets.py:make", "--draws", "2", "--threads", "1", "--precision", "32"]
    process = start(*arguments, "--ray", "local", "--out", "v.jsonl", KINKCHECK_TEST=str(folder))
    # Neither limit is measured against: they only keep a broken command from hanging the tests.
    deadline = time.monotonic() + 600
    while not Path("v.jsonl").exists() or len(written("v.jsonl")) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(sent)
    _, told = process.communicate(timeout=600)
    assert process.returncode == (130 if sent == signal.SIGINT else -sent), told
    said = told.splitlines()
    assert said[0] == "kinkcheck: starting Ray ..."
    assert ("kinkcheck: interrupted" in said) == (sent == signal.SIGINT)
    while processes_with(f"KINKCHECK_TEST={folder}"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(written("v.jsonl")) < 1 + 2 * 4
    Path("slow").unlink()
    assert kinkcheck(*arguments, "--out", "v.jsonl").code == 0
    assert kinkcheck(*arguments, "--out", "here.jsonl").code == 0
    assert written("v.jsonl") == written("here.jsonl")
