"""Parts of an experiment, kept as they are done: an interrupted run goes on after the last."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from kinkcheck.errors import InputError
from kinkcheck.files import write_whole
from kinkcheck.paper.experiment import Row


def kept(path: Path, measure: Callable[[], list[Row]]) -> list[Row]:
    """The rows of a part: those in its file, or measured and written there.

    Args:
        path: the file, whose name has to tell sizes apart: a reduced run and a full one share a
            folder.
        measure: the rows.

    Raises:
        InputError: the file cannot be written.

    >>> file = getfixture("tmp_path") / "draw-0.json"
    >>> kept(file, lambda: [{"D": 0.5}]), kept(file, lambda: [{"D": 0.7}])
    ([{'D': 0.5}], [{'D': 0.5}])
    """
    if not path.exists():
        rows = measure()
        try:
            write_whole(path, json.dumps(rows))
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from error
        return rows
    found: list[Row] = json.loads(path.read_text(encoding="utf-8"))
    return found
