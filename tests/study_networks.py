"""Networks for studies under test, and what happens to the processes that train them.

A study names them by a path relative to the current folder, where files say what is to happen, so
that a study with and one without have the same trials.
"""

import os
import signal
import time
from pathlib import Path

from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(784, 8)
        self.pool = nn.MaxPool1d(2)
        self.last = nn.Linear(4, 10)
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        if self.training:
            happen(self.steps)
        return self.last(self.pool(self.first(x.flatten(1)).relu()))


def happen(step: int) -> None:
    slow, kill, fail = Path("slow"), Path("kill"), Path("fail")
    if slow.exists():
        time.sleep(float(slow.read_text()))
    if kill.exists() and step == 20:
        times = int(kill.read_text()) - 1
        kill.write_text(str(times)) if times else kill.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if fail.exists() and step == 20:
        raise ValueError("first\nsecond")
