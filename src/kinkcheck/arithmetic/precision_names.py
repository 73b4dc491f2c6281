"""The names of precisions, known without PyTorch; see :mod:`kinkcheck.arithmetic.precision`."""

from __future__ import annotations

from kinkcheck.errors import unknown

NAMES = ("float16", "bfloat16", "float32", "float64", "mixed")
"""Every precision."""

_SHORT = {
    "16": "float16", "32": "float32", "64": "float64", "24": "mixed",
    "bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64",
}  # fmt: skip


def canonical(given: object) -> str:
    """The name that a name or a short name stands for.

    Args:
        given: a name; ``16``, ``32``, ``64`` or ``24`` (mixed), a number or a text; ``fp16``,
            ``bf16``, ``fp32``, ``fp64``; a type of PyTorch, or its name: ``torch.float16``.

    Raises:
        InputError: there is no such precision.

    >>> canonical("24"), canonical(16), canonical("bf16"), canonical("torch.float32")
    ('mixed', 'float16', 'bfloat16', 'float32')
    >>> canonical("8")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: unknown precision '8'; accepted: float16, bfloat16, ...
    """
    text = str(given).removeprefix("torch.")
    name = _SHORT.get(text, text)
    if name not in NAMES:
        raise unknown("precision", given, (*NAMES, *_SHORT))
    return name
