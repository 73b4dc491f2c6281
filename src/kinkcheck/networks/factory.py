"""A user's own network, named on the command line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from torch import nn

from kinkcheck.errors import InputError


def load_factory(text: str) -> Callable[[], nn.Module]:
    """The function that ``package.module:factory`` or ``path/to/file.py:factory`` names.

    The folder of the file, or the current folder, comes first when it is imported, so that what
    lies beside it can be imported too.

    Args:
        text: where to find a function without arguments that returns a network.

    Raises:
        InputError: the file or module is not there or fails to import, or has no such function.

    >>> load_factory("torch.nn:Identity")()
    Identity()
    >>> load_factory("torch.nn:Identiti")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: network: torch.nn has no 'Identiti'
    """
    where, _, name = text.rpartition(":")
    if not where or not name:
        raise InputError(
            f"network: {text!r} must have the form package.module:factory or path/file.py:factory"
        )
    try:
        module = _import_file(Path(where)) if where.endswith(".py") else _import_module(where)
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"network: {where} cannot be imported: {type(error).__name__}: {reason}"
        ) from error
    factory = getattr(module, name, None)
    if factory is None:
        raise InputError(f"network: {where} has no {name!r}")
    if not callable(factory) or isinstance(factory, nn.Module):
        raise InputError(
            f"network: {text} must be a function without arguments that returns a network, "
            f"not {type(factory).__name__}"
        )
    return factory  # type: ignore[no-any-return]


def _import_module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"network: the file {path} does not exist")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"network: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Classes defined in the file are pickled and copied by the name of their module.
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module
