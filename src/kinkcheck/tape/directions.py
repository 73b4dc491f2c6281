"""Which branches stay active along a direction: the choices of a limit.

A limit of gradients is the gradient under the branches that stay active when what is differentiated
moves along a direction (Nesterov 2005; Griewank 2013; Khan and Barton 2013, 2015). Its tangents
(:mod:`kinkcheck.tape.tangents`) tell them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def direction(tensors: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Where tensors move: one normal draw an entry, from the seed, in their order.

    Drawn on the CPU in float64, so that a direction is the same in every precision but for its
    rounding, and on every device.

    >>> x = torch.zeros(2)
    >>> torch.equal(direction([x], 7)[0], direction([x.double()], 7)[0].float())
    True
    """
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(
            each.shape,
            dtype=torch.complex128 if each.is_complex() else torch.float64,
            generator=generator,
        ).to(each)
        for each in tensors
    ]
