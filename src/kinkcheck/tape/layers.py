"""Which module of the tree is being called."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from kinkcheck.tape.hooks import around_modules


class Layers:
    """Which module of the tree is being called."""

    def __init__(self, model: nn.Module | None, miss: Callable[[str, str], None]) -> None:
        self._names: dict[nn.Module, str] = {}
        self._stack: list[nn.Module] = []
        self._miss = miss
        self._hooks = ExitStack()
        if model is not None:
            self._name_tree(model)

    @property
    def current(self) -> str:
        """Name of the innermost module that is being called."""
        return self._names[self._stack[-1]] if self._stack else ""

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
        self._stack.append(module)
        if isinstance(module, torch.jit.ScriptModule):
            self._miss(type(module).__name__, "scripted module")
        # What torch.compile returns; to import its class takes longer than to import PyTorch.
        if hasattr(module, "_orig_mod"):
            self._miss(type(module).__name__, "compiled module, run uncompiled while recorded")

    def _leave_module(self, module: nn.Module, _: Any, __: Any) -> None:
        self._stack.pop()
