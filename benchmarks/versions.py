"""How fast is an audit against that of another version, and how much memory does it take?

A process for each version in turn, so that a busy spell hits both; the first point is not counted,
nor is what is done once an audit.

    python benchmarks/versions.py ../landed/src

The argument is the folder of the other version's package, with its compiled kernels.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CASES = [
    ("lenet5", 1, 28, "float32", 20),
    ("lenet5", 1, 28, "float16", 5),
    ("vgg11", 3, 32, "float32", 2),
]
REPEATS = 3


def measured(name: str, channels: int, size: int, precision: str, batches: int) -> dict[str, Any]:
    """Seconds of a point, with and without the lift, in this process."""
    import resource

    import torch

    import kinkcheck
    from kinkcheck import networks
    from timing import keep_large_blocks

    keep_large_blocks()
    torch.manual_seed(0)
    network = networks.build(name, in_channels=channels, classes=10, image_size=size)
    points = [
        (torch.randn(128, channels, size, size), torch.randint(0, 10, (128,)))
        for _ in range(1 + batches)
    ]
    found: dict[str, Any] = {}
    for lifted in (False, True):
        ends: list[float] = []
        kinkcheck.audit(
            network,
            points,
            precisions=[precision],
            lifted=lifted,
            on_point=lambda done, total, ends=ends: ends.append(time.perf_counter()),
        )
        found["lifted" if lifted else "not"] = (ends[-1] - ends[0]) / batches
        found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found


def in_turn(case: tuple[Any, ...], folders: list[Path]) -> list[dict[str, float]]:
    """Medians of each version."""
    runs: list[list[dict[str, float]]] = [[] for _ in folders]
    for _ in range(REPEATS):
        for folder, found in zip(folders, runs, strict=True):
            out = subprocess.run(
                [sys.executable, __file__, "--one", json.dumps(case)],
                env={**os.environ, "PYTHONPATH": str(folder)},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            found.append(json.loads(out))
    return [{key: statistics.median(r[key] for r in found) for key in found[0]} for found in runs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("other", nargs="?", type=Path, help="folder of the other version's package")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(*json.loads(given.one))))
        return
    if given.other is None:
        parser.error("name the folder of the other version's package")
    from rich.console import Console

    from timing import table, where

    here = Path(__file__).resolve().parent.parent / "src"
    rows = table(
        f"An audited point, batch of 128, against another version; {where()}",
        ["network", "precision"],
        ["other (ms)", "this (ms)", "ratio", "lifted", "this", "ratio", "peak (MB)", "this"],
    )
    for case in CASES:
        other, this = in_turn(case, [given.other, here])
        numbers = []
        for key in ("not", "lifted"):
            numbers += [f"{1e3 * other[key]:.1f}", f"{1e3 * this[key]:.1f}"]
            numbers += [f"{other[key] / this[key]:.2f}"]
        numbers += [f"{other['peak'] / 1e6:.0f}", f"{this['peak'] / 1e6:.0f}"]
        rows.add_row(case[0], case[3], *numbers)
    Console(width=120).print(rows)


if __name__ == "__main__":
    main()
