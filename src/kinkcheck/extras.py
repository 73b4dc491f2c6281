"""Packages that only some parts of kinkcheck need."""

from __future__ import annotations

import importlib
from types import ModuleType

from kinkcheck.errors import InputError


def require(module: str, *, extra: str) -> ModuleType:
    """Import a module that one of kinkcheck's extras brings.

    Args:
        module: dotted name of the module.
        extra: the extra of kinkcheck that installs it.

    Raises:
        InputError: it is not installed; the message gives the command that installs it.

    >>> require("math", extra="data").pi
    3.14...
    >>> require("no_such_module", extra="data")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: no_such_module is needed (...): pip install "kinkcheck[data]"
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise InputError(
            f'{package} is needed ({error}): pip install "kinkcheck[{extra}]"'
        ) from error
