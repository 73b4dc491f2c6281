"""The one error that means "the input is at fault, not the program"."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something given by the user cannot be used.

    The message is one line that names the argument, what was given and what is accepted; the
    command line prints it alone and exits with code 2.

    >>> raise InputError("--batch-size must be at least 1, not 0")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: --batch-size must be at least 1, not 0
    """


def unknown(what: str, given: object, accepted: Iterable[str]) -> InputError:
    """The complaint about a name that is none, with the nearest that is one.

    Args:
        what: the name of what is named, such as ``"network"``.
        given: what was given.
        accepted: the names there are; what stands behind a colon is not compared.

    >>> print(unknown("network", "lenet", ["lenet5", "mlp"]))
    unknown network 'lenet'; did you mean 'lenet5'? accepted: lenet5, mlp
    >>> print(unknown("selection", "hybird:10", ["native", "hybrid:BETA"]))
    unknown selection 'hybird:10'; did you mean 'hybrid:BETA'? accepted: native, hybrid:BETA
    """
    names = list(accepted)
    by_start = {name.partition(":")[0]: name for name in names}
    nearest = get_close_matches(str(given).partition(":")[0].lower(), by_start, n=1)
    hint = f" did you mean {by_start[nearest[0]]!r}?" if nearest else ""
    return InputError(f"unknown {what} {given!r};{hint} accepted: {', '.join(names)}")
