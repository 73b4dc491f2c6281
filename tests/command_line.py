"""The command line for tests: in this process as the fixture ``kinkcheck``, or in its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from kinkcheck import cli, terminal

NETS = """
import os, signal
import torch
from torch import nn
from some_sibling import CLASSES

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(784, CLASSES)
    def forward(self, x):
        return self.linear(x.flatten(1)).relu()

class Failing(Net):
    def forward(self, x): raise ValueError("first\\nsecond")
class Infinite(Net):
    def forward(self, x): return super().forward(x) * float("inf")
class Detached(Net):
    def forward(self, x): return super().forward(x).detach()
class Interrupted(Net):
    def forward(self, x): raise KeyboardInterrupt
class Signalled(Net):
    def forward(self, x):
        os.kill(os.getpid(), signal.SIGINT)
        return super().forward(x)
class Rooted(Net):
    def forward(self, x): return super().forward(x).exp().sqrt()

class Outputs(Net):
    def forward(self, x): return {"scores": super().forward(x)}
class Statistics(Net):
    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.norm = nn.BatchNorm1d(1, track_running_stats=False)
        self.linear = nn.Linear(196, CLASSES)
    def forward(self, x):
        pooled = self.pool(x)
        return self.linear(self.norm(pooled.flatten(2).mean(2)) * pooled.flatten(1)).relu()
class Lazy(Net):
    def __init__(self):
        super().__init__()
        self.linear = nn.LazyLinear(CLASSES)

class Fixed(Net):
    def __init__(self):
        super().__init__()
        nn.init.normal_(self.linear.weight, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(self.linear.bias)

def smooth(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
def raises(): raise ValueError("first\\nsecond")
def stops(): raise SystemExit(7)
def three(): return 3
def wants(an_argument): return Net()
def wrong_shape(): return nn.Sequential(nn.Linear(3, 3), nn.ReLU())
"""


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """What was printed, without the line breaks of a narrow terminal."""
        return " ".join(self.out.split())


Kinkcheck = Callable[..., Run]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a user's networks in ``my_nets.py``."""
    (tmp_path / "my_nets.py").write_text(NETS)
    (tmp_path / "some_sibling.py").write_text("CLASSES = 10")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in ("my_nets", "some_sibling"):
        if name not in before:
            sys.modules.pop(name, None)


@pytest.fixture
def kinkcheck(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Kinkcheck:
    """Runs the command line in this process, in a terminal of 80 columns without colours."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(terminal, "PATIENCE", 3600.0)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "KINKCHECK_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["kinkcheck", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return Run(stop.value.code or 0, out, err)  # type: ignore[arg-type]

    return run


def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Begins the command line in a process of its own, with some variables in its environment."""
    # What a shell starts with & ignores interrupts, and so do its children, unless they say.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from kinkcheck import terminal; terminal.PATIENCE = 3600.0; "
        "from kinkcheck.cli import main; main()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={
            **os.environ,
            "PYTHONPATH": str(Path(cli.__file__).parents[2]),  # the code that is tested here
            "PYTHONIOENCODING": "utf-8",
            "COLUMNS": "80",
            "OMP_NUM_THREADS": "1",
            **variables,
        },
    )


def processes_with(variable: str) -> list[str]:
    """Processes with a variable in their environment."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if variable.encode() in file.read_bytes().split(b"\0"):
                found.append((file.parent / "cmdline").read_text().replace("\0", " "))
    return found


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process of its own, to its end."""
    with start(*arguments) as process:
        try:
            out, err = process.communicate(timeout=300)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def fits(text: str) -> bool:
    return all(len(line) <= 80 for line in text.splitlines()) and "…" not in text
