"""The one error that means "the input is at fault, not the program"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
    return InputError(
        f"unknown {what} {given!r};{nearest(given, names)} accepted: {', '.join(names)}"
    )


def nearest(given: object, accepted: Iterable[str]) -> str:
    """The question whether the nearest name was meant; empty if none is near.

    Args:
        given: what was given.
        accepted: the names there are; what stands behind a colon is not compared.

    >>> nearest("cud", ["cpu", "cuda"])
    " did you mean 'cuda'?"
    """
    by_start = {name.partition(":")[0]: name for name in accepted}
    near = get_close_matches(str(given).partition(":")[0].lower(), by_start, n=1)
    return f" did you mean {by_start[near[0]]!r}?" if near else ""


def one_line(error: BaseException) -> str:
    r"""An exception of somebody else's code, for a complaint of ours.

    >>> one_line(ValueError("too\n  big"))
    'ValueError: too big'
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """A context of somebody else's code: however it fails, it is said to have.

    To leave the program is to fail, too: what was asked for is not done. Only complaints of ours
    and Ctrl-C pass.

    Args:
        what: begins the complaint.

    Raises:
        InputError: the code raised something.

    >>> with blaming("step: failed"):
    ...     raise SystemExit(0)
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: step: failed: SystemExit: 0
    """
    try:
        yield
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise InputError(f"{what}: {one_line(error)}") from error
