"""Numbers that have to lie in a range, and the complaint where one does not."""

from __future__ import annotations

import math

from kinkcheck.errors import InputError


def require_confidence(confidence: float, argument: str = "confidence") -> None:
    """Check that a confidence lies strictly between 0 and 1.

    Raises:
        InputError: it does not.

    >>> require_confidence(95.0)
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: confidence must be between 0 and 1, such as 0.95, not 95.0
    """
    if not 0 < confidence < 1:
        raise InputError(f"{argument} must be between 0 and 1, such as 0.95, not {confidence}")


def require_tolerance(tolerance: float, argument: str = "tolerance") -> None:
    """Check that a tolerance is a number of at least 0.

    Raises:
        InputError: it is not; the message begins with ``argument``.

    >>> require_tolerance(-1, "--tolerance")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: --tolerance must be a number of at least 0, not -1
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"{argument} must be a number of at least 0, not {tolerance}")
