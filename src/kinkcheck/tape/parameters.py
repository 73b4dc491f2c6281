"""Parameters that a block writes, put back after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

from torch import Tensor
from torch.autograd.grad_mode import _unsafe_preserve_version_counter as version_of
from torch.autograd.graph import increment_version

from kinkcheck.tape.memory import address, tensors_in


class Parameters:
    """The parameters of a model during a block and after it.

    Autograd keeps a parameter itself, not its numbers. So what the block wrote is put back when it
    ends, and written once more for the time of each later backward pass. A backward pass that does
    not know of it is refused by PyTorch where it needs the numbers. Only what is written is copied.
    """

    def __init__(self) -> None:
        # The memory of each as the block finds it, which outlives an assignment to ``.data``.
        self._found: list[tuple[Tensor, Tensor]] = []
        self._at: dict[int | None, list[Tensor]] = {}
        self._before: dict[int, Tensor] = {}
        self._written: list[_Written] = []

    def find(self, parameters: Iterable[Tensor]) -> None:
        """At the beginning of the block."""
        for parameter in parameters:
            memory = parameter.data
            where = address(memory)
            # Tensors that only stand for others have no memory to keep.
            if where is not None and where == address(parameter):
                self._found.append((parameter, memory))
                self._at.setdefault(where, []).append(memory)

    def about_to_call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the numbers that an operation of ATen is about to write over."""
        for index, name in _overwritten(func):
            value = args[index] if index < len(args) else kwargs.get(name)
            for tensor in tensors_in(value):
                for memory in self._at.get(address(tensor), ()):
                    if id(memory) not in self._before:
                        self._before[id(memory)] = memory.clone()

    def put_back(self) -> None:
        """At the end of the block."""
        for parameter, memory in self._found:
            before = self._before.get(id(memory))
            if before is not None or address(parameter) != address(memory):
                self._written.append(_Written(parameter, memory))
                if before is not None:
                    memory.copy_(before)
                parameter.data = memory
                increment_version(parameter)
        self._found, self._at, self._before = [], {}, {}

    @contextmanager
    def as_written(self) -> Iterator[None]:
        """As they were at the end of the block, to differentiate what it computed."""
        with ExitStack() as stack:
            for written in self._written:
                stack.enter_context(written.again())
            yield


class _Written:
    """A parameter as it is now: its memory, the numbers there, and its version."""

    def __init__(self, parameter: Tensor, memory: Tensor) -> None:
        self._parameter = parameter
        self._memory, self._numbers = memory, memory.clone()
        self._data = parameter.data
        self._version = version_of(parameter)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Back to how it was."""
        now = _Written(self._parameter, self._memory)
        try:
            self._restore()
            yield
        finally:
            now._restore()

    def _restore(self) -> None:
        self._memory.copy_(self._numbers)
        self._parameter.data = self._data
        self._version.__exit__(None, None, None)


@cache
def _overwritten(func: Any) -> tuple[tuple[int, str], ...]:
    """The places and names of the arguments that an operation of ATen writes."""
    arguments = enumerate(func._schema.arguments)
    return tuple((index, argument.name) for index, argument in arguments if argument.is_write)
