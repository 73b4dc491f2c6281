"""Ctrl-C where something has been changed for a while and is to be put back."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_came: list[bool] = []  # while it is held back
_raised: list[bool] = []  # since it is remembered
_AGAIN = 0.25  # seconds from one look at lost interrupts to the next
_IMPORT = "<frozen importlib._bootstrap>"
_HAS_TIMER = hasattr(signal, "setitimer")  # not on Windows
_outer: list[Any] = []  # handlers before it was held back


def _note(*_: Any) -> None:
    _came.append(True)


def _raise_remembered(*_: Any) -> None:
    _raised.append(True)
    if _HAS_TIMER and signal.getsignal(signal.SIGALRM) is _raise_in_import:
        signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
    raise KeyboardInterrupt


def _raise_in_import(_: int, frame: FrameType | None) -> None:
    """Raise it anew where an import goes on that should have ended with it."""
    if signal.getsignal(signal.SIGINT) is not _raise_remembered:
        return  # it is held back
    if isinstance(sys.exception(), KeyboardInterrupt):
        return  # it is on its way, through what cleans up
    while frame is not None and frame.f_code.co_filename != _IMPORT:
        frame = frame.f_back
    if frame is not None:
        raise KeyboardInterrupt


@contextmanager
def _looked_after() -> Iterator[None]:
    """Inside the block a lost interrupt is looked after, where the timer for that is free."""
    if not _HAS_TIMER or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGALRM, _raise_in_import)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGALRM) is _raise_in_import:  # else it is somebody else's now
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _is_ours(handler: object) -> bool:
    return handler in (signal.default_int_handler, _raise_remembered)


@contextmanager
def remembered() -> Iterator[None]:
    """Inside the block, Ctrl-C stops what runs even if the exception gets lost on its way.

    It may come in the midst of an import, where a cleanup fails on the module that is half there,
    or in a callback whose exceptions are passed over. Then :func:`require_none`, called between
    steps of the work and where an exception would be kept as a result, raises it again. An import
    that goes on all the same, as PyTorch's takes seconds, is interrupted until it ends.

    >>> try:
    ...     with remembered():
    ...         try:
    ...             signal.raise_signal(signal.SIGINT)
    ...         except KeyboardInterrupt:
    ...             print("lost")
    ...         require_none()
    ...         print("never")
    ... except KeyboardInterrupt:
    ...     print("interrupted")
    lost
    interrupted
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _raised.clear()
    signal.signal(signal.SIGINT, _raise_remembered)
    try:
        with _looked_after():
            yield
        require_none()
    except BaseException as error:
        if _raised:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _raised.clear()


def require_none() -> None:
    """Go on only if there was no Ctrl-C; see :func:`remembered`.

    Raises:
        KeyboardInterrupt: there was one.

    >>> require_none()
    """
    if _raised:
        raise KeyboardInterrupt


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
    before = signal.getsignal(signal.SIGINT)
    if not here or not _is_ours(before):
        yield
        return
    _outer.append(before)
    try:
        signal.signal(signal.SIGINT, _note)
        yield
    finally:
        signal.signal(signal.SIGINT, _outer.pop())
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
        signal.signal(signal.SIGINT, _outer[-1])
        yield
    finally:
        signal.signal(signal.SIGINT, _note)


def _raise() -> None:
    if _came:
        _came.clear()
        if signal.getsignal(signal.SIGINT) is _raise_remembered:
            _raised.append(True)
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
