"""Where the tests find real data, and how hard Hypothesis searches."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from kinkcheck.cluster import Cluster

_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", max_examples=40, derandomize=True, **_common)
settings.register_profile("explore", max_examples=2000, **_common)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets: KINKCHECK_DATA_DIR, else ../shared/data, else skip."""
    folder = Path(
        os.environ.get("KINKCHECK_DATA_DIR")
        or Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    )
    if not folder.is_dir():
        pytest.skip("no real data: set KINKCHECK_DATA_DIR to a folder in the hub's parquet layout")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A Ray cluster of this machine, with two CPUs."""
    ray: Any = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=2, log_to_driver=False)
    with Cluster() as cluster:
        yield cluster
    assert ray.is_initialized()  # who connects disconnects
    ray.shutdown()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Torture is only for those who ask for it by name."""
    if "torture" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("torture")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
