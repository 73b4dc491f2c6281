"""Runs a study in forked processes that are killed at random moments, until it is done.

A process of its own: it imports once, also what PyTorch and the search would import when they are
first used, stays on one thread, and forks, so that a restart takes milliseconds and many kills fit
into a test.

    python study_killer.py SPEC FOLDER KILLS SEED [DATA_DIR]
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import optuna  # noqa: F401
import torch
import torch._dynamo

from kinkcheck.study import run as runs
from kinkcheck.study import spec as specs
from kinkcheck.study.tasks import task_of


def child(spec: specs.Spec, folder: Path, data_dir: Path | None) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            runs.run(spec, folder, data_dir=data_dir, threads=1)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def main(text: str, folder: Path, kills: int, seed: int, data_dir: Path | None) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    spec = specs.parse(text, "killed.toml")
    where = None if data_dir is None else str(data_dir)
    task_of(spec.trials()[0].task, where, str(spec.folder))  # loads the data
    draw = random.Random(seed)
    killed = 0
    an_epoch = 0.1
    while True:
        pid = child(spec, folder, data_dir)
        if killed < kills:
            # Some epochs live, then a moment anywhere in an epoch and in what is written after it.
            began = time.monotonic()
            epochs = draw.choice((0, 0, 1, 1, 2))
            if wait_for(epochs, folder, pid) and epochs:
                an_epoch = min(an_epoch, (time.monotonic() - began) / epochs)
            # Never more than one epoch further: on a slow machine the study would end too soon.
            wait_for(1, folder, pid, draw.uniform(0.0, 1.2 * an_epoch))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            killed += 1
        else:
            print(f"killed={killed} exit={os.WEXITSTATUS(status)}", flush=True)
            sys.exit(os.WEXITSTATUS(status))


def wait_for(epochs: int, folder: Path, pid: int, patience: float = math.inf) -> bool:
    """Whether a process finishes so many epochs before it ends, or before some seconds are over."""
    until = time.monotonic() + patience
    before: set[str] | None = None
    seen: set[str] = set()
    while len(seen) < epochs and time.monotonic() < until:
        there = {file.name for file in (folder / "checkpoints").glob("[!.]*.pt")}
        before = there if before is None else before
        seen |= there - before
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
        time.sleep(0.002)
    return len(seen) >= epochs


if __name__ == "__main__":
    data_dir = Path(sys.argv[5]) if len(sys.argv) > 5 else None
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), data_dir)
