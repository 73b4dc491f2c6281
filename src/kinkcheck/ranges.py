"""Numbers that have to lie in a range, lists that hold something, and the complaints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

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


MOST = 1_000_000
"""Of anything that is counted in an audit: draws, mini-batches, samples of one."""

MOST_POINTS = 10_000_000
"""Points of a grid: its plan is held in memory."""

MOST_THREADS = 1024
"""No machine gains from more, and some systems end a process that asks for them."""

MOST_SEED = 2**63 - 1
"""What the random generators take."""


def require_list(given: Sequence[object], argument: str) -> None:
    """Check that an argument is a list, not a text, and holds something.

    Raises:
        InputError: it is not, or does not; the message begins with ``argument``.

    >>> require_list("minimal", "selections")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: selections: must be a list, not 'minimal'
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InputError(f"{argument}: must be a list, not {given!r}")
    if not given:
        raise InputError(f"{argument}: at least one is needed")


def is_whole(number: object) -> bool:
    """Whether something is a whole number.

    >>> is_whole(2), is_whole(2.0)
    (True, False)
    """
    return isinstance(number, Integral)


def require_between(number: int, least: int, most: int, argument: str) -> None:
    """Check that a number is whole and lies in a range, both ends included.

    Raises:
        InputError: it is not, or does not; the message begins with ``argument`` and names the end.

    >>> require_between(0, 1, 10, "--draws")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: --draws must be at least 1, not 0
    >>> require_between(2**63, 1, MOST, "--draws")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: --draws must be at most 1,000,000, not 9,223,372,036,854,775,808
    """
    if not is_whole(number):
        raise InputError(f"{argument} must be a whole number, not {number!r}")
    if number < least:
        raise InputError(f"{argument} must be at least {least:,}, not {number:,}")
    if number > most:
        raise InputError(f"{argument} must be at most {most:,}, not {number:,}")


def require_threads(threads: int | None, argument: str = "threads") -> None:
    """Check that a number of threads, if one is given, can be had.

    Raises:
        InputError: it cannot.

    >>> require_threads(2**31)
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: threads must be at most 1,024, not 2,147,483,648
    """
    if threads is not None:
        require_between(threads, 1, MOST_THREADS, argument)
