"""What is said of a Ray cluster, against one that is made up here."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from command_line import Kinkcheck
from kinkcheck import cluster
from kinkcheck.arithmetic.precision import parse
from kinkcheck.audit.cluster import Points
from kinkcheck.cluster import Cluster
from kinkcheck.errors import InputError
from kinkcheck.paper.harness.experiment import Setup
from kinkcheck.paper.harness.parts import all_kept
from kinkcheck.study.cluster import Trials


class Lost(Exception):  # noqa: N818
    pass


class Ray:
    """Machines that never have done anything; each time they are waited for, one goes away."""

    exceptions = SimpleNamespace(RayError=Lost, RayTaskError=Lost)

    def __init__(self) -> None:
        self.connected = True
        self.machines = [{"CPU": 1.0}, {"CPU": 4.0}, {"CPU": 4.0}]
        self.cancelled: list[Any] = []

    def is_initialized(self) -> bool:
        return self.connected

    def init(self, **how: Any) -> None:
        self.connected = True

    def shutdown(self) -> None:
        self.connected = False

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": machine} for machine in self.machines]

    def remote(self, **how: Any) -> Any:
        return lambda function: SimpleNamespace(remote=lambda *arguments: function)

    def wait(self, references: Sequence[Any], *, num_returns: int, timeout: float) -> Any:
        assert len(self.machines) > 1, "the machine that is left has no room"
        self.machines.pop()
        return [], references

    def cancel(self, reference: Any, force: bool) -> None:
        assert self.connected, "Ray would start another cluster"
        self.cancelled.append(reference)


class Late(Ray):
    """Does what it is asked to, but has nothing yet the first times that it is waited for."""

    def __init__(self, silences: int) -> None:
        super().__init__()
        self.silences = silences

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **how: Any) -> Any:
        return lambda function: SimpleNamespace(remote=partial(partial, function))

    def wait(self, references: Sequence[Any], *, num_returns: int, timeout: float) -> Any:
        if not self.silences:
            return references[:1], references[1:]
        self.silences -= 1
        return [], references

    def get(self, reference: Any) -> Any:
        return reference()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    made = Ray()
    monkeypatch.setitem(sys.modules, "ray", made)
    monkeypatch.setattr(cluster, "find_spec", lambda name: made)
    return made


def test_work_that_fits_on_no_machine_any_more_is_given_up(ray: Ray) -> None:
    with Cluster() as connected:
        work = connected.start(len, needed=connected.needed("a part", "cpu", threads=2))
        with pytest.raises(InputError, match=r"^--ray: .* takes 2 CPUs, and no machine that is le"):
            connected.first([work])
    assert ray.machines == [{"CPU": 1.0}]


@dataclass(frozen=True)
class Row:
    number: int


def _parts(cluster: Cluster, folder: Path) -> None:
    parts = {f"draw {number}": lambda setup: [Row(2)] for number in range(3)}
    assert list(all_kept(Setup(folder, cluster=cluster), Row, parts).values()) == [[Row(2)]] * 3


def _points(cluster: Cluster, folder: Path) -> None:
    Points(cluster).require([parse("32")], "cpu")


def _trials(cluster: Cluster, folder: Path) -> None:
    Trials(cluster).require(["float32"], "cpu")


@pytest.mark.parametrize("silences", [0, 1, 3])
@pytest.mark.parametrize("work", [_parts, _points, _trials])
def test_whatever_waits_for_a_first_result_says_so_once(
    ray: Ray,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    work: Callable[[Cluster, Path], None],
    silences: int,
) -> None:
    late = Late(silences)
    monkeypatch.setitem(sys.modules, "ray", late)
    said: list[str] = []
    with Cluster(say=said.append) as connected:
        work(connected, tmp_path)
        late.silences = 2  # a later result may take as long as it does
        _trials(connected, tmp_path)
    waits = [text for text in said if text.startswith("waiting for a first result; before it a w")]
    assert len(waits) == min(silences, 1)


@pytest.mark.parametrize(
    ("address", "named", "expected"),
    [
        (None, None, ["connecting to Ray, or starting it ..."]),
        (None, "local", ["starting Ray ..."]),
        ("auto", None, ["connecting to Ray ..."]),
        ("local", None, ["starting Ray ..."]),
    ],
)
@pytest.mark.parametrize("connected", [False, True])
def test_what_ray_does_first_is_said(
    ray: Ray,
    monkeypatch: pytest.MonkeyPatch,
    address: str | None,
    named: str | None,
    expected: list[str],
    connected: bool,
) -> None:
    """Without an address it may do either; where it is connected it does neither."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if named is not None:
        monkeypatch.setenv("RAY_ADDRESS", named)
    ray.connected = connected
    said: list[str] = []
    with Cluster(address, say=said.append):
        assert said == [*([] if connected else expected), "Ray has 9 CPUs on 3 machines"]


def test_what_is_left_of_work_is_not_looked_for_on_another_cluster(ray: Ray) -> None:
    with Cluster() as connected:
        connected.cancel(["first"])
        ray.connected = False
        connected.cancel(["second"])
    assert ray.cancelled == ["first"]


def test_one_is_not_many(ray: Ray) -> None:
    said: list[str] = []
    ray.machines = [{"CPU": 1.0}]
    with Cluster(say=said.append) as connected:
        with pytest.raises(InputError, match="a trial takes 1 CPU and 1 GPU, and no machine of"):
            connected.needed("a trial", "cuda", threads=1)
        with pytest.raises(InputError, match="a trial takes 2 CPUs and 2 GPUs, and no machine of"):
            connected.needed("a trial", "cuda", threads=1, devices=2)
    assert said[-1] == "Ray has 1 CPU on 1 machine"


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("10.0.0..1:6379", "no connection to 10.0.0..1:6379: "),
        ("host:²", "'host:²' is not an address; accepted: HOST:PORT, auto, local"),
        ("127.0.0.1:99999", "no connection to 127.0.0.1:99999: "),
        ("ray://127.0.0.1:1", "'ray://127.0.0.1:1' is not an address; accepted: "),
    ],
)
@pytest.mark.parametrize("given", [None, "auto", "itself"])
def test_an_address_is_looked_at_before_ray_is(
    address: str, complaint: str, given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray takes that of its own variable where none is given, and where it is to find one."""
    monkeypatch.setitem(sys.modules, "ray", None)
    argument = "--ray"
    if given != "itself":
        monkeypatch.setenv("RAY_ADDRESS", address)
        argument = "--ray: RAY_ADDRESS"
    with pytest.raises(InputError) as caught:
        Cluster(address if given == "itself" else given).__enter__()
    assert str(caught.value).startswith(f"{argument}: {complaint}")
    assert "\n" not in str(caught.value)


def test_an_address_where_somebody_listens_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(InputError, match="kinkcheck\\[ray\\]"):
            Cluster("auto").__enter__()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--ray", "--gpu-share", "1e-5"], "--gpu-share must be from 0.0001 to 1, not 1e-05"),
        (["--gpu-share", "0.5"], "--gpu-share: is a part of a GPU of a cluster, and needs --ray"),
    ],
)
def test_a_share_that_means_nothing_is_refused(
    kinkcheck: Kinkcheck, options: list[str], complaint: str
) -> None:
    done = kinkcheck("study", "run", "smoke", "--out", "s", *options)
    assert (done.code, done.err) == (2, f"kinkcheck: {complaint}\n")
