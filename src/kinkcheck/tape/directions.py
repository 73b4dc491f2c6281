"""Which branches stay active along a direction: the choices of a limit.

A limit of gradients is the gradient under the branches that stay active when what is differentiated
moves along a direction (Nesterov 2005; Griewank 2013; Khan and Barton 2013, 2015). Its tangents
(:mod:`kinkcheck.tape.tangents`) tell them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_STREAM = 0x6B696E6B
"""What seeds are told apart by: a model that was drawn from seed 0 itself would be its own
direction, along which what is homogeneous in its parameters does not tell branches apart."""


def direction(tensors: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Where tensors move: one normal draw an entry, from the seed, in their order.

    Drawn on the CPU in float64, so that a direction is the same in every precision but for its
    rounding, and on every device.

    >>> x = torch.zeros(2)
    >>> torch.equal(direction([x], 7)[0], direction([x.double()], 7)[0].float())
    True
    """
    generator = torch.Generator().manual_seed(seed ^ _STREAM)
    return [
        torch.randn(
            each.shape,
            dtype=torch.complex128 if each.is_complex() else torch.float64,
            generator=generator,
        ).to(each)
        for each in tensors
    ]


def summed(tensors: Sequence[Tensor], coefficients: Sequence[float], seed: int) -> list[Tensor]:
    """A sum of the directions drawn from a seed, the next one and so on.

    Args:
        tensors: what moves.
        coefficients: of each direction.
        seed: of the first.

    >>> x = torch.zeros(2)
    >>> torch.equal(summed([x], [0.0, 2.0], 6)[0], 2 * direction([x], 7)[0])
    True
    """
    total = [torch.zeros_like(tensor) for tensor in tensors]
    for number, coefficient in enumerate(coefficients):
        if coefficient:
            drawn = direction(tensors, seed + number)
            total = [t.add(d, alpha=coefficient) for t, d in zip(total, drawn, strict=True)]
    return total
