"""Runs a command again and again, each time with one write that goes wrong, and goes on after it.

A process of its own: it imports once and forks, so that a run takes a moment. What is written goes
through ``os.write``, ``os.fsync``, ``os.replace`` and ``os.rename``; the n-th of these calls in a
child is the one that goes wrong.

    python fault_runs.py SUBJECT FOLDER HOW FIRST STEP

    kill   the process is killed there
    tear   half is written, then the process is killed
    full   half is written, then there is no space left
    io     the call fails

For every n = FIRST, FIRST + STEP, ... that a run comes to, a line of JSON says what came of it.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from kinkcheck import cli
from kinkcheck.paper.harness.comparison import Sample
from kinkcheck.paper.harness.experiment import Experiment, Setup
from kinkcheck.paper.harness.parts import kept
from kinkcheck.paper.harness.running import run as run_experiment
from kinkcheck.study import export
from kinkcheck.study.reading import reading

SPEC = """
data = "mnist-sample"
train_images = 64
test_images = 32
network = "lenet5"
max_pool = ["hybrid:0", "hybrid:10"]
seeds = 1
learning_rate = 0.05
epochs = 2
batch_size = 32
"""


@dataclass(frozen=True)
class Subject:
    """Something that writes.

    Attributes:
        run: does it in the folder where it stands, or goes on; the exit code.
        found: what it found there, by name.
    """

    run: Callable[[], int]
    found: Callable[[], dict[str, bytes]]


def command(*words: str) -> int:
    sys.argv = ["kinkcheck", *words]
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    raise AssertionError("a command exits")


def study() -> int:
    Path("study.toml").write_text(SPEC, encoding="utf-8")
    return command("study", "run", "study.toml", "--out", "s", "--threads", "1")


def exports() -> dict[str, bytes]:
    tables = [table for table in export.QUERIES if table != "sessions"]
    with reading(Path("s")) as opened:
        return {table: export.export(opened, table, "csv") for table in tables}


def tiny(setup: Setup) -> list[Sample]:
    rows: list[Sample] = []
    for number in range(3):
        rows += kept(setup, f"draw {number}", Sample, lambda n=number: [Sample(n / 7, 0.1, n)])  # type: ignore[misc]
    return rows


EXPERIMENT: Experiment[Any] = Experiment(
    name="tiny", source="", shows="", cost="", cost_reduced="", reduced_cannot="", row=Sample,
    measure=tiny, draw=lambda rows: Figure(figsize=(0.1, 0.1)),
)  # fmt: skip


def paper() -> int:
    try:
        run_experiment(EXPERIMENT, Path(), Setup(Path("work")))
    except ValueError as error:
        print(f"kinkcheck: {error}", file=sys.stderr)
        return 2
    return 0


def texts(*names: str) -> Callable[[], dict[str, bytes]]:
    return lambda: {name: Path(name).read_bytes() for name in names}


def numbers() -> dict[str, bytes]:
    """An audit without the moment when it was made."""
    found = json.loads(Path("a.json").read_bytes())
    return {"a.json": json.dumps(found | {"date": None, "digest": None}).encode()}


GRID = ("lenet5", "--batches", "2", "--batch-size", "2", "--no-lift")
SUBJECTS = {
    "study": Subject(study, exports),
    "volume": Subject(
        lambda: command("volume", *GRID[:-1], "--draws", "2", "--out", "v.jsonl"), texts("v.jsonl")
    ),
    "paper": Subject(paper, texts("tiny.json", "tiny.csv")),
    "audit": Subject(lambda: command("audit", *GRID, "--json", "a.json"), numbers),
}


def fail(how: str, at: int) -> None:
    """Make the n-th call go wrong; later ones as well, where a disk is full."""
    calls = 0

    def faulty(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls < at or (calls > at and how != "full"):
                return real(*arguments, **named)
            if name == "write" and how in ("tear", "full"):
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            if how in ("kill", "tear"):
                os.kill(os.getpid(), signal.SIGKILL)
            code = errno.EIO if how == "io" else errno.ENOSPC
            raise OSError(code, os.strerror(code))

        return call

    for name in ("write", "fsync", "replace", "rename"):
        setattr(os, name, faulty(name))
    HIT.append(lambda: calls >= at)


HIT: list[Callable[[], bool]] = []


def attempt(
    subject: Subject, folder: Path, fault: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Run in a forked process; how it ended, what it said, whether the fault was met."""
    folder.mkdir(exist_ok=True)
    said = folder.with_suffix(".said")
    pid = os.fork()
    if pid == 0:
        os.chdir(folder)
        with open(said, "w") as file:
            os.dup2(file.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        fault()
        code = 70
        try:
            code = subject.run()
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stderr.flush()
        os._exit(100 + code if HIT and HIT[0]() else code)
    _, status = os.waitpid(pid, 0)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    met = code < 0 or 100 <= code < 128
    return {
        "code": code - 100 if code >= 100 and met else code,
        "met": met,
        "said": said.read_text(),
    }


def found(subject: Subject, folder: Path) -> dict[str, bytes]:
    here = Path.cwd()
    os.chdir(folder)
    try:
        return subject.found()
    finally:
        os.chdir(here)


def main(name: str, folder: Path, how: str, first: int, step: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    subject = SUBJECTS[name]
    assert attempt(subject, folder / "whole")["code"] == 0
    whole = found(subject, folder / "whole")
    at = first
    while True:
        place = folder / f"{how}{at}"
        once = attempt(subject, place, lambda at=at: fail(how, at))  # type: ignore[misc]
        if not once["met"]:
            return
        again = attempt(subject, place)
        left = [path.name for path in place.rglob(".*")]
        same = found(subject, place) == whole if again["code"] == 0 else False
        print(json.dumps({"at": at, "once": once, "again": again, "left": left, "same": same}))
        sys.stdout.flush()
        at += step


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve(), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
