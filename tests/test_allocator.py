"""Memory that is kept and given back, as the system counts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MEASURED = """
import torch
from kinkcheck.arithmetic.allocator import give_back, keep_large_blocks

def resident():
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * 4096

def use(blocks):
    tensors = [torch.ones(64 << 20, dtype=torch.uint8) for _ in range(blocks)]
    del tensors
    return resident() - before

print(give_back(), keep_large_blocks(), end=" ")
before = resident()
print(use(2), give_back(), use(18), give_back(), resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not count so")
def test_memory_is_kept_until_it_is_given_back() -> None:
    run = subprocess.run(
        [sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True
    )
    asked_before, kept, few, given_of_few, many, given_of_many, left = run.stdout.split()
    if kept == "False":
        pytest.skip("the allocator is not glibc's")
    megabyte = 1 << 20
    assert int(few) > 100 * megabyte
    assert (asked_before, given_of_few, given_of_many) == ("False", "False", "True")
    assert int(many) > 1000 * megabyte
    assert int(left) < 50 * megabyte
