"""Where the tests find real data."""

import os
from pathlib import Path

import pytest


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
