"""Which module of the tree is being called."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from kinkcheck.tape.hooks import around_modules
from kinkcheck.tape.notes import Notes, next_number


class Layers:
    """Which module of the tree is being called."""

    def __init__(self, model: nn.Module | None, notes: Notes) -> None:
        self._names: dict[nn.Module, str] = {}
        self._stack: list[tuple[nn.Module, int]] = []
        self._notes = notes
        self._hooks = ExitStack()
        if model is not None:
            self._name_tree(model)

    @property
    def current(self) -> str:
        """Name of the innermost module that is being called."""
        return self._names[self._stack[-1][0]] if self._stack else ""

    @property
    def in_compiled_module(self) -> bool:
        """Whether what is called now is part of a compiled module."""
        return any(_is_compiled(module) for module, _ in self._stack)

    def __enter__(self) -> None:
        self._hooks = around_modules(self._enter_module, self._leave_module)

    def __exit__(self, *_: object) -> None:
        self._hooks.close()
        self._stack.clear()

    def _name_tree(self, root: nn.Module) -> None:
        # Only the first tree goes without the name of its root, so that no two layers share a name.
        prefix = type(root).__name__ if self._names else ""
        for name, module in root.named_modules(prefix=prefix):
            self._names.setdefault(module, name)

    def _enter_module(self, module: nn.Module, _: Any) -> None:
        if module not in self._names:
            self._name_tree(module)
        self._stack.append((module, next_number()))

    def _leave_module(self, module: nn.Module, _: Any, __: Any) -> None:
        if isinstance(module, torch.jit.ScriptModule):
            self._note("scripted module")
        if _is_compiled(module):
            self._note("compiled module, run uncompiled while recorded")
        self._stack.pop()

    def _note(self, reason: str) -> None:
        module, first = self._stack[-1]
        self._notes.span(first, self.current, type(module).__name__, reason)


def _is_compiled(module: nn.Module) -> bool:
    # What torch.compile returns; to import its class takes longer than to import PyTorch.
    return "_orig_mod" in module._modules
