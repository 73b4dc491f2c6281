"""One of the processes that train a trial together, from its first instant.

It ends with its parent also while it still imports PyTorch, which takes seconds: this module, and
what it is called with, need none.
"""

from __future__ import annotations

import os
import threading
from multiprocessing import parent_process
from multiprocessing.connection import Connection

from kinkcheck.study.job import Job


def work(job: Job, rank: int, meeting: str, telling: Connection) -> None:
    """What a process does, until it is killed: the others may still need it at its end.

    Args:
        job: the trial.
        rank: the number of the process.
        meeting: where the processes find each other.
        telling: takes what happens.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()

    from kinkcheck.study.parallel import tell

    tell(job, rank, meeting, telling)
    threading.Event().wait()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
