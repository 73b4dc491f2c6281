"""How long does the command line take to answer what needs no PyTorch?

Help, the version and complaints, each in a process of its own; and, with a folder that holds
ImageNet or a part of it, the first batch of its photographs, which are read without the package
``datasets``. Beside each time its ratio to that of ``python -c "import torch"`` in the same run.

    python benchmarks/startup.py [--data-dir DIR]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

from rich.console import Console

from timing import medians, table, where

ASKED = (
    "--help",
    "--version",
    "audit --help",
    "study run --help",
    "odit",
    "audit lenet",
    "audit lenet5 --data minst",
    "audit lenet5 --precision 8",
    "audit none.py:make",
    "study run smok --out s",
)

BATCH = """
from kinkcheck import data
next(data.load("imagenet", "validation", data_dir={folder!r}).batches(32, seed=0))
"""


def python(*arguments: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *arguments], capture_output=True, check=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", metavar="DIR", help="holds imagenet/ or imagenet-sample/")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()

    runs = {f"kinkcheck {line}": python("-m", "kinkcheck", *line.split()) for line in ASKED}
    if arguments.data_dir:
        batch = BATCH.format(folder=arguments.data_dir)
        runs["32 photographs, shuffled"] = python("-c", batch)
    torch, nothing, *seconds = medians(
        python("-c", "import torch"), python("-c", ""), *runs.values(), repeats=arguments.repeats
    )
    shown = table(
        f"a process each, {where()}", ["what"], ["seconds", 'over that of "import torch"']
    )
    rows = {"import torch": torch, "nothing": nothing, **dict(zip(runs, seconds, strict=True))}
    for name, took in rows.items():
        shown.add_row(name, f"{took:.2f}", f"{took / torch:.2f}")
    Console().print(shown)


if __name__ == "__main__":
    main()
