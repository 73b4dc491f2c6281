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

_ROOM = 1 << 30
"""Up to this many bytes drawn directions are kept."""


def direction(
    tensors: Sequence[Tensor], seed: int, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Where tensors move: one normal draw an entry, from the seed, in their order.

    Drawn on the CPU in float64, so that a direction is the same in every precision but for its
    rounding, and on every device; laid out in memory as the tensors are.

    Args:
        tensors: what moves.
        seed: of the draws.
        dtype: another type to draw in: float32 takes a quarter of the time.

    >>> x = torch.zeros(2)
    >>> torch.equal(direction([x], 7)[0], direction([x.double()], 7)[0].float())
    True
    """
    generator = torch.Generator().manual_seed(seed ^ _STREAM)
    return [
        torch.empty_like(each, requires_grad=False).copy_(
            torch.randn(
                each.shape,
                dtype=dtype.to_complex() if each.is_complex() else dtype,
                generator=generator,
            )
        )
        for each in tensors
    ]


class Directions:
    """The directions drawn from a seed, the next one and so on.

    To draw one takes as long as a convolution of these numbers, so that as many are kept as there
    is room for.

    Args:
        tensors: what moves.
        seed: of the first.
    """

    def __init__(self, tensors: Sequence[Tensor], seed: int) -> None:
        self._tensors = tensors
        self._seed = seed
        self._kept: dict[int, list[Tensor]] = {}
        size = sum(each.numel() * each.element_size() for each in tensors)
        self._most = _ROOM // max(1, size)

    def __getitem__(self, number: int) -> list[Tensor]:
        """One of them.

        >>> x = torch.zeros(2)
        >>> torch.equal(Directions([x], 6)[1][0], direction([x], 7)[0])
        True
        """
        if number in self._kept:
            return self._kept[number]
        drawn = direction(self._tensors, self._seed + number)
        if len(self._kept) < self._most:
            self._kept[number] = drawn
        return drawn

    def sum(self, coefficients: Sequence[float]) -> list[Tensor]:
        """Their sum with coefficients.

        >>> x = torch.zeros(2)
        >>> torch.equal(Directions([x], 6).sum([0.0, 2.0])[0], 2 * direction([x], 7)[0])
        True
        """
        total = [torch.zeros_like(tensor, requires_grad=False) for tensor in self._tensors]
        for number, coefficient in enumerate(coefficients):
            if coefficient:
                for t, d in zip(total, self[number], strict=True):
                    t.add_(d, alpha=coefficient)
        return total
