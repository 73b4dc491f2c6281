"""Ctrl-C where something has been changed for a while and is to be put back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_came: list[bool] = []


def _note(*_: Any) -> None:
    _came.append(True)


@contextmanager
def held_back() -> Iterator[None]:
    """Let Ctrl-C wait until the block ends, or comes to a part that lets it through.

    So what the block has changed is put back whole. A handler of somebody else's is left alone, and
    other threads get no signals.

    >>> try:
    ...     with held_back():
    ...         signal.raise_signal(signal.SIGINT)
    ...         print("goes on")
    ... except KeyboardInterrupt:
    ...     print("interrupted")
    goes on
    interrupted
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    try:
        signal.signal(signal.SIGINT, _note)
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _raise()


@contextmanager
def let_through() -> Iterator[None]:
    """Inside a block that holds it back, let Ctrl-C act: in what takes long.

    >>> with let_through():
    ...     print("goes on")
    goes on
    """
    if signal.getsignal(signal.SIGINT) is not _note:
        yield
        return
    _raise()
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
    finally:
        signal.signal(signal.SIGINT, _note)


def _raise() -> None:
    if _came:
        _came.clear()
        raise KeyboardInterrupt


@contextmanager
def afterwards(action: Callable[[], object]) -> Iterator[None]:
    """Do something when a block ends, to its end, also if Ctrl-C comes in the midst of it.

    Args:
        action: what may be begun anew where it was interrupted; the interrupt is raised after it.

    >>> with afterwards(lambda: print("put back")):
    ...     print("taken")
    taken
    put back
    """
    done: list[bool] = []

    def surely() -> None:
        interrupt: KeyboardInterrupt | None = None
        while not done:
            try:
                action()
                done.append(True)
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    try:
        try:
            yield
        finally:
            surely()
    finally:
        surely()  # where the interrupt came on the way into the first
