"""What a text names in a file or a module of the user's own."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from kinkcheck.errors import InputError, blaming, nearest

_NAMED = 10  # of what a file has


def load_named(text: str, what: str, folder: Path = Path()) -> Any:
    """What ``package.module:name`` or ``path/to/file.py:name`` names.

    The folder of the file, or the current folder, comes first when it is imported, so that what
    lies beside it can be imported too.

    Args:
        text: where to find it.
        what: what it is to be, in one word, which begins an error.
        folder: from which the path of a file is told.

    Raises:
        InputError: the file or module is not there or fails to import, or has nothing of that name.

    >>> load_named("math:tau", "network")
    6.28...
    >>> load_named("torch.nn:Identiti", "network")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: network: torch.nn has no 'Identiti'; did you mean 'Identity'?
    """
    where, name = _parts(text, what)
    with blaming(f"{what}: {where} cannot be imported"):
        module = _import_file(folder / where, what) if _is_file(where) else _import_module(where)
        found = getattr(module, name, None)
    if found is None:
        near = nearest(name, [each for each in vars(module) if each[0] != "_"])
        defined = _defined(module) if _is_file(where) or not near else []
        raise InputError(
            f"{what}: {where} has no {name!r}{near and ';'}{near}{_having(defined, near)}"
        )
    return found


def require_place(text: str, what: str) -> None:
    """Check that a text names something inside of what it names, if that is a file of Python.

    Nothing is imported: what the file defines is read from its text.

    Raises:
        InputError: it is a file, or a module or a dotted name in one, without a colon; the
            message says what the file has.

    >>> require_place("no_such_file.py", "network")
    """
    module = text.replace(".", "/") + ".py"
    inside, _, _ = text.rpartition(".")
    for where in (text, module, inside.replace(".", "/") + ".py"):
        path = Path(where)
        if ":" in text or not _is_file(where) or not path.is_file():
            continue
        names = _functions(path)
        name = "make" if "make" in names else [*names, "NAME"][0]
        raise InputError(
            f"{what}: {text!r} names nothing in {where}; write {where}:{name}{_having(names)}"
        )


def _functions(path: Path) -> list[str]:
    """The public functions and classes of a file, by their names; none if it cannot be read."""
    with suppress(OSError, SyntaxError, ValueError):
        parsed = ast.parse(path.read_bytes())
        return [
            each.name
            for each in parsed.body
            if isinstance(each, ast.FunctionDef | ast.ClassDef) and each.name[0] != "_"
        ]
    return []


def _defined(module: ModuleType) -> list[str]:
    """The public functions and classes that a module has of its own."""
    return [
        name
        for name, each in vars(module).items()
        if name[0] != "_" and callable(each) and getattr(each, "__module__", "") == module.__name__
    ]


def _having(names: Sequence[str], behind: str = ";") -> str:
    """What there is, in words, behind others; the first few."""
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{'' if behind.endswith('?') else ';'} it has {', '.join(names[:_NAMED])}{more}"


def source_of(text: str, what: str, folder: Path = Path()) -> bytes:
    """The content of the file in which :func:`load_named` looks; nothing of it is run.

    Args:
        text: where to find it.
        what: what it is to be.
        folder: from which the path of a file is told.

    Raises:
        InputError: there is no such file.

    >>> source_of("kinkcheck.named:source_of", "network")[3:14]
    b'What a text'
    """
    where, _ = _parts(text, what)
    if _is_file(where):
        path = folder / where
    else:
        # What lies above it is imported.
        with blaming(f"{what}: {where} cannot be imported"), _first_on_path(Path.cwd()):
            found = importlib.util.find_spec(where)
        if found is None or found.origin is None:
            raise InputError(f"{what}: there is no module {where}")
        path = Path(found.origin)
    if not path.is_file():
        raise InputError(f"{what}: the file {path} does not exist")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{what}: {path} cannot be read: {error.strerror}") from error


def _parts(text: str, what: str) -> tuple[str, str]:
    require_place(text, what)
    where, _, name = text.rpartition(":")
    if not where or not name:
        raise InputError(
            f"{what}: {text!r} must have the form package.module:factory or path/file.py:factory"
        )
    return where, name


def _is_file(where: str) -> bool:
    return where.endswith(".py")


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


def _import_file(path: Path, what: str) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{what}: the file {path} does not exist")
    # A name of its own: a file called json.py must not stand in for the module json.
    name = f"kinkcheck_{what}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{what}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Classes defined in the file are pickled and copied by the name of their module.
    sys.modules[name] = module
    with _first_on_path(path.resolve().parent):
        spec.loader.exec_module(module)
    return module
