"""A user's own network, named on the command line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from kinkcheck.errors import InputError

if TYPE_CHECKING:
    from torch import nn


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
    kinkcheck.errors.InputError: network: torch.nn has no 'Identiti'; did you mean 'Identity'?
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
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"network: {where} cannot be imported: {type(error).__name__}: {reason}"
        ) from error
    factory = getattr(module, name, None)
    if factory is None:
        near = get_close_matches(name, [each for each in vars(module) if each[0] != "_"], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"network: {where} has no {name!r}{hint}")
    from torch import nn  # seconds, which a wrong name need not wait for

    if not callable(factory) or isinstance(factory, nn.Module):
        raise InputError(
            f"network: {text} must be a function without arguments that returns a network, "
            f"not {type(factory).__name__}"
        )
    return factory  # type: ignore[no-any-return]


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    # What is imported may itself change sys.path: its own entries stay.
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def _import_module(name: str) -> ModuleType:
    with _first_on_path(Path.cwd()):
        return importlib.import_module(name)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"network: the file {path} does not exist")
    # A name of its own: a file called json.py must not stand in for the module json.
    name = f"kinkcheck_network_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"network: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Classes defined in the file are pickled and copied by the name of their module.
    sys.modules[name] = module
    with _first_on_path(path.resolve().parent):
        spec.loader.exec_module(module)
    return module
