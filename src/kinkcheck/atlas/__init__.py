"""Conventions: what each framework, in each version, returns at the kinks of each operation.

>>> from kinkcheck import atlas
>>> atlas.read().weights("torch-2.13", "relu")
{'at 0': (1.0, 0.0), 'at -0': (1.0, 0.0)}
"""

from typing import TYPE_CHECKING

from kinkcheck.lazy import import_when_used

if TYPE_CHECKING:
    from kinkcheck.atlas.measuring import column
    from kinkcheck.atlas.probes import PROBES, Probe
    from kinkcheck.atlas.table import Column, Found, Table, read

__all__ = ["PROBES", "Column", "Found", "Probe", "Table", "column", "read"]

import_when_used(
    __name__,
    "kinkcheck.atlas.measuring:column",
    "kinkcheck.atlas.probes:PROBES",
    "kinkcheck.atlas.probes:Probe",
    "kinkcheck.atlas.table:Column",
    "kinkcheck.atlas.table:Found",
    "kinkcheck.atlas.table:Table",
    "kinkcheck.atlas.table:read",
)
