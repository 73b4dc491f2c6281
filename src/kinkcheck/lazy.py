"""Packages whose public names are imported when they are first used.

PyTorch takes seconds to import, and the command line has to answer ``--help`` or a misspelt name
at once. So the packages that it reaches into import nothing heavy by themselves.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def import_when_used(package: str, *places: str) -> None:
    """Give a package names that are imported when they are first used.

    Type checkers do not see them: the package imports them under ``TYPE_CHECKING`` as well.

    Args:
        package: its ``__name__``.
        places: ``module:name`` where a module defines the name, ``module`` for a module itself.

    >>> from kinkcheck import networks
    >>> "LeNet5" in dir(networks), networks.LeNet5.__module__
    (True, 'kinkcheck.networks.lenet')
    >>> networks.LeNet6
    Traceback (most recent call last):
    ...
    AttributeError: module 'kinkcheck.networks' has no attribute 'LeNet6'
    """
    module = sys.modules[package]
    module.__dict__["_places"] = {re.split("[.:]", place)[-1]: place for place in places}
    module.__class__ = _Package


class _Package(ModuleType):
    _places: dict[str, str]

    def __getattr__(self, name: str) -> Any:  # of what is not there yet
        if name not in self._places:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module, colon, attribute = self._places[name].partition(":")
        found: Any = import_module(module)
        if colon:
            found = getattr(found, attribute)
        self.__dict__[name] = found
        return found

    def __setattr__(self, name: str, value: object) -> None:
        # Whoever imports the package kinkcheck.audit would put it in the place of the function.
        if isinstance(value, ModuleType) and ":" in self._places.get(name, ""):
            return
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *self._places})
