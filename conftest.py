"""What the examples in the docstrings may use without importing it."""

from typing import Any

import pytest
import torch

from kinkcheck.kernels import triton

pytest_plugins = ["command_line"]


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any], request: pytest.FixtureRequest) -> None:
    doctest_namespace["torch"] = torch
    if request.node.name.startswith("kinkcheck.kernels.triton.max_pool"):
        if triton.obstacle():
            pytest.skip(triton.obstacle())
        doctest_namespace["device"] = "cuda" if torch.cuda.is_available() else "cpu"
