"""Nonsmooth operations: rows that declare them, the shapes of their branches, their derivatives.

A new operation is a row in :mod:`kinkcheck.ops.table`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinkcheck.lazy import import_when_used

if TYPE_CHECKING:
    from torch import is_tensor

    from kinkcheck.ops.ball import Ball
    from kinkcheck.ops.brought import Brought
    from kinkcheck.ops.calls import call, kind_of, operation
    from kinkcheck.ops.differences import Apart, Both, Centred, Pairs
    from kinkcheck.ops.fractional import fractional_windows
    from kinkcheck.ops.gathered import Gathered
    from kinkcheck.ops.max_pool import MaxPool, sliding_windows
    from kinkcheck.ops.operation import Choice, Operation
    from kinkcheck.ops.picks import Along, Between, Picks, Windowed, competing
    from kinkcheck.ops.relu import Rectified, ReLU
    from kinkcheck.ops.running import Running
    from kinkcheck.ops.sides import Sides, rounded
    from kinkcheck.ops.sorting import Sorted
    from kinkcheck.ops.sums import Sums

__all__ = [
    "Along",
    "Apart",
    "Ball",
    "Between",
    "Both",
    "Brought",
    "Centred",
    "Choice",
    "Gathered",
    "MaxPool",
    "Operation",
    "Pairs",
    "Picks",
    "ReLU",
    "Rectified",
    "Running",
    "Sides",
    "Sorted",
    "Sums",
    "Windowed",
    "call",
    "competing",
    "fractional_windows",
    "is_tensor",
    "kind_of",
    "operation",
    "rounded",
    "sliding_windows",
]

import_when_used(
    __name__,
    "kinkcheck.ops.ball:Ball",
    "kinkcheck.ops.brought:Brought",
    "kinkcheck.ops.calls:call",
    "kinkcheck.ops.calls:kind_of",
    "kinkcheck.ops.calls:operation",
    "kinkcheck.ops.differences:Apart",
    "kinkcheck.ops.differences:Both",
    "kinkcheck.ops.differences:Centred",
    "kinkcheck.ops.differences:Pairs",
    "kinkcheck.ops.fractional:fractional_windows",
    "kinkcheck.ops.gathered:Gathered",
    "kinkcheck.ops.max_pool:MaxPool",
    "kinkcheck.ops.max_pool:sliding_windows",
    "kinkcheck.ops.operation:Choice",
    "kinkcheck.ops.operation:Operation",
    "kinkcheck.ops.picks:Along",
    "kinkcheck.ops.picks:Between",
    "kinkcheck.ops.picks:Picks",
    "kinkcheck.ops.picks:Windowed",
    "kinkcheck.ops.relu:ReLU",
    "kinkcheck.ops.relu:Rectified",
    "kinkcheck.ops.running:Running",
    "kinkcheck.ops.sides:Sides",
    "kinkcheck.ops.sorting:Sorted",
    "kinkcheck.ops.sums:Sums",
    "kinkcheck.ops.sides:rounded",
    "kinkcheck.ops.picks:competing",
    "torch:is_tensor",
)
