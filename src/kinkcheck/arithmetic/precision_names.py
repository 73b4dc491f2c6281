"""The names of precisions, known without PyTorch; see :mod:`kinkcheck.arithmetic.precision`."""

from __future__ import annotations

from kinkcheck.errors import unknown

NAMES = ("float16", "bfloat16", "float32", "float64", "mixed")
"""Every precision."""

_SHORT = {"16": "float16", "32": "float32", "64": "float64", "24": "mixed"}


def canonical(text: str) -> str:
    """The name that a name or a short name stands for.

    Raises:
        InputError: there is no such precision.

    >>> canonical("24")
    'mixed'
    >>> canonical("8")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: unknown precision '8'; accepted: float16, bfloat16, ...
    """
    name = _SHORT.get(text, text)
    if name not in NAMES:
        raise unknown("precision", text, (*NAMES, *_SHORT))
    return name
