"""What the examples in the docstrings may use without importing it."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch

from kinkcheck.kernels import triton

pytest_plugins = ["command_line"]

# Adapters whose base class comes from a package that need not be there.
collect_ignore = [
    f"src/kinkcheck/monitor/{package}.py"
    for package in ("lightning", "transformers")
    if find_spec(package) is None
]


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any], request: pytest.FixtureRequest) -> None:
    doctest_namespace["torch"] = torch
    if request.node.name.startswith("kinkcheck.kernels.triton.max_pool"):
        if triton.obstacle():
            pytest.skip(triton.obstacle())
        doctest_namespace["device"] = "cuda" if torch.cuda.is_available() else "cpu"
