"""Parts of an experiment, kept as they are done: an interrupted run goes on after the last."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version

import torch

from kinkcheck.errors import InputError
from kinkcheck.files import write_whole
from kinkcheck.paper.experiment import Row, Setup


def kept(setup: Setup, name: str, measure: Callable[[], list[Row]]) -> list[Row]:
    """The rows of a part: those in its file, or measured and written there.

    Args:
        setup: where; a part that was measured on another device or by other versions is refused.
        name: of the part, which has to tell all apart that share a folder, and their sizes.
        measure: the rows.

    Raises:
        InputError: the file cannot be read or written, or holds what was measured otherwise.

    >>> setup = Setup(getfixture("tmp_path"))
    >>> kept(setup, "draw 0", lambda: [{"D": 0.5}]), kept(setup, "draw 0", lambda: [{"D": 0.7}])
    ([{'D': 0.5}], [{'D': 0.5}])
    """
    path = setup.work / f"{name.replace(', ', '-').replace(' ', '-')}.json"
    how = {
        "device": setup.device,
        "kinkcheck": version("kinkcheck"),
        "torch": str(torch.__version__),
    }
    try:
        if not path.exists():
            rows = measure()
            write_whole(path, json.dumps({**how, "rows": rows}))
            return rows
        content = json.loads(path.read_text(encoding="utf-8"))
    except InputError:  # of what measures
        raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValueError:
        raise InputError(f"{path} is not JSON; delete it to measure that part again") from None
    for key, value in how.items():
        if content.get(key) != value:
            raise InputError(
                f"{path} was measured with {key} {content.get(key)}, this is {value}; give another "
                "--out, or delete it"
            )
    found: list[Row] = content["rows"]
    return found
