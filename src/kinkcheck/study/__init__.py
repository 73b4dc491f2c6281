"""Training studies: networks trained under each selection, resumable, in one file of results.

>>> from kinkcheck.study import spec
>>> len(spec.shipped("smoke").trials())
4
"""

from typing import TYPE_CHECKING

from kinkcheck.lazy import import_when_used

if TYPE_CHECKING:
    from kinkcheck.study.criteria import Metric
    from kinkcheck.study.task import Task

__all__ = ["Metric", "Task"]

import_when_used(__name__, "kinkcheck.study.criteria:Metric", "kinkcheck.study.task:Task")
