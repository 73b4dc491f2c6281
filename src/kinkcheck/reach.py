"""What a program refers to: where functions and objects keep what they use."""

from __future__ import annotations

import argparse
import functools
import sys
import weakref
from collections.abc import Iterator, MutableMapping
from types import CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

_PLAIN = (SimpleNamespace, argparse.Namespace)
_OF_TORCH = ("torch.optim", "torch.utils.data", "torch.amp", "torch.cuda.amp")
_CLOSED = (*sys.stdlib_module_names, "numpy", "torch", "kinkcheck")


class Variables(MutableMapping[str, Any]):
    """The variables of others that a function refers to, also in functions written inside it.

    >>> n = 1
    >>> def count(): return n + m
    >>> m = 2
    >>> variables = Variables(count)
    >>> variables["n"] = 3
    >>> dict(variables), n
    ({'n': 3, 'm': 2}, 3)
    """

    def __init__(self, function: FunctionType) -> None:
        self._cells = dict(
            zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        )
        self._globals = function.__globals__
        self._names = [*self._cells, *dict.fromkeys(_names(function.__code__))]

    def __getitem__(self, name: str) -> Any:
        if name in self._cells:
            try:
                return self._cells[name].cell_contents
            except ValueError:
                raise KeyError(name) from None
        return self._globals[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self._cells:
            self._cells[name].cell_contents = value
        else:
            self._globals[name] = value

    def __delitem__(self, name: str) -> None:
        if name in self._cells:
            del self._cells[name].cell_contents
        else:
            del self._globals[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        try:
            self[str(name)]
        except KeyError:
            return False
        return True


class Slots(MutableMapping[str, Any]):
    """The attributes of an object that lie in slots.

    >>> class Pair: __slots__ = ("one", "two")
    >>> pair = Pair()
    >>> pair.two = 2
    >>> dict(Slots(pair))
    {'two': 2}
    """

    def __init__(self, value: object) -> None:
        self._value = value
        named = [getattr(kind, "__slots__", ()) for kind in type(value).__mro__]
        each = [(names,) if isinstance(names, str) else names for names in named]
        self._names = [name for names in each for name in names if name[:2] != "__"]

    def __getitem__(self, name: str) -> Any:
        try:
            return object.__getattribute__(self._value, name)
        except AttributeError:
            raise KeyError(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        object.__setattr__(self._value, name, value)

    def __delitem__(self, name: str) -> None:
        object.__delattr__(self._value, name)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def namespaces(value: object) -> list[MutableMapping[str, Any]]:
    """Where a function or an object keeps what it refers to, as mappings that can be written.

    PyTorch's own functions and what the standard library makes (locks, files, pools of threads)
    are closed: nothing of them is a program's state.

    >>> [dict(each) for each in namespaces(SimpleNamespace(n=1))]
    [{'n': 1}]
    """
    if isinstance(value, FunctionType):
        closed = str(value.__module__).partition(".")[0] in _CLOSED[:-1]  # but not our own
        return [] if closed else [Variables(value)]
    if isinstance(value, (type, ModuleType)) or not _open(value):
        return []
    attributes = getattr(value, "__dict__", None)
    slots = Slots(value)
    return [*([attributes] if isinstance(attributes, dict) else []), *([slots] if slots else [])]


def fixed(value: object) -> list[Any]:
    """What an object refers to that cannot be replaced in it.

    >>> fixed(functools.partial(max, 1))
    [<built-in function max>, 1]
    """
    if isinstance(value, FunctionType):
        return [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, weakref.ref):
        return [value()]
    return []


def _open(value: object) -> bool:
    module = str(type(value).__module__)
    root = module.partition(".")[0]
    return root not in _CLOSED or module.startswith(_OF_TORCH) or isinstance(value, _PLAIN)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
