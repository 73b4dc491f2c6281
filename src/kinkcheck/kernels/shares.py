"""How the active entries of a window share its gradient, by their number.

What a selection means is :func:`kinkcheck.selection.weight`; kernels look it up here.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from kinkcheck.selection import (
    Every,
    First,
    Hybrid,
    Minimal,
    Mix,
    Native,
    Selection,
    native_share,
    weight,
)


def shared(selection: Selection) -> bool:
    """Whether all active entries but the first one of a window have one weight, by their number.

    >>> from kinkcheck.selection import parse
    >>> [shared(parse(text)) for text in ("hybrid:10", "mix:0.5*first,0.5*minimal", "last")]
    [True, True, False]
    """
    if isinstance(selection, Mix):
        return all(isinstance(each, First | Native) or shared(each) for _, each in selection.parts)
    return isinstance(selection, Minimal | Hybrid | Every)


@lru_cache(maxsize=256)
def shares(selection: Selection, most: int) -> Tensor:
    """The weight of the first active entry of a window, and that of each other one.

    Args:
        selection: one that is :func:`shared`.
        most: how many entries may be active.

    Returns:
        (most + 1, 2) in float64; one active entry alone takes all.

    >>> from kinkcheck.selection import Minimal
    >>> shares(Minimal(), 2)
    tensor([[0.0000, 0.0000],
            [1.0000, 0.0000],
            [0.5000, 0.5000]], dtype=torch.float64)
    """
    size = torch.arange(1, most + 1, dtype=torch.float64)
    table = torch.zeros(most + 1, 2, dtype=torch.float64)
    for rank in (0, 1):
        given = weight(selection, rank, size, 1 / size, None)
        table[1:, rank] = given + native_share(selection) * (rank == 0)
    table[1] = torch.tensor([1.0, 0.0])
    return table
