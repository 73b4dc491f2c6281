"""Where the tests find real data, and how hard Hypothesis searches."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

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
