"""For tests and for the examples in docstrings: one thread, and what examples need not import."""

import signal
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from kinkcheck.atlas.adapters import FRAMEWORKS
from kinkcheck.kernels import triton

pytest_plugins = ["command_line"]

# A shell that runs the tests in the background has interrupts ignored, and tests send some.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Adapters whose base class comes from a package that need not be there.
collect_ignore = [
    f"src/kinkcheck/monitor/{package}.py"
    for package in ("lightning", "transformers")
    if find_spec(package) is None
]
# Other frameworks, each in an environment of its own.
collect_ignore += [
    f"src/kinkcheck/atlas/adapters/{framework}.py"
    for framework in FRAMEWORKS
    if framework != "torch"
]
collect_ignore += ["tests/ported"]  # what was run there


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """One thread: on tensors of a few numbers more of them only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any], request: pytest.FixtureRequest) -> None:
    doctest_namespace["torch"] = torch
    if request.node.name.startswith("kinkcheck.kernels.triton.max_pool"):
        if triton.obstacle():
            pytest.skip(triton.obstacle())
        doctest_namespace["device"] = "cuda" if torch.cuda.is_available() else "cpu"
