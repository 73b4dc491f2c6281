"""What six small networks are given, the same in every framework: numbers that make ties."""

from __future__ import annotations

from typing import Any

import numpy as np

SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "clipped": ((12, 4), (4, 6), 6),
    "halves": ((12, 4), (4, 6), 6),
    "filtered": ((3, 1, 9, 9), (4, 1, 3, 3), 4),
    "bent": ((12, 4), (4, 6), 6),
    "extreme": ((12, 4), (4, 6), 6),
    "ordered": ((12, 4), (4, 6), 6),
}
"""For each network the shapes of its input and of its weights, and how many biases it has."""


def given(network: str) -> dict[str, Any]:
    """The input, the weights and the biases; how much each output of the network counts."""
    of_input, of_weights, biases = SHAPES[network]
    return {
        "input": _numbers(of_input, 1) - 1,
        "weights": (_numbers(of_weights, 2) - 1) / 2,
        "biases": np.zeros(biases, np.float32),
    }


def counted(shape: tuple[int, ...]) -> Any:
    """How much each number counts in the loss: no two alike side by side."""
    return 1 + _numbers(shape, 3, 7) / 8


def _numbers(shape: tuple[int, ...], seed: int, below: int = 3) -> Any:
    """Whole numbers that look drawn."""
    count = np.arange(np.prod(shape))
    return (((count * 7919 + seed) ** 2 // 13) % below).astype(np.float32).reshape(shape)
