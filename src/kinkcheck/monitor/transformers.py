"""The monitor as a callback of Hugging Face's Trainer: ``pip install kinkcheck[transformers]``."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from kinkcheck.errors import InputError
from kinkcheck.extras import require
from kinkcheck.monitor.monitor import Monitor

_TrainerCallback: Any = require("transformers", extra="transformers").TrainerCallback


class TrainerMonitor(_TrainerCallback):  # type: ignore[misc]
    """Measures every n optimizer steps, before the step, on the batch of the step.

    The loss is the one that the model returns; where gradients are accumulated, of the last batch
    of the step. Only the first of several processes measures.

    Args:
        monitor: of the model that the Trainer trains; it needs no loss.

    >>> callback = TrainerMonitor(Monitor(torch.nn.Linear(1, 1), every=100))
    """

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._hook: Any = None
        self._call: tuple[Any, Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin to take note of the batches: the Trainer does not tell its callbacks."""
        self._hook = self.monitor.model.register_forward_pre_hook(self._note, with_kwargs=True)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure, if this step is one of those to measure."""
        self.monitor.steps = state.global_step
        if state.is_world_process_zero and self._call is not None:
            self.monitor.step_closure(partial(_loss, self.monitor.model, *self._call))
        self._call = None

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the model as it was."""
        self._hook.remove()

    def _note(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if module.training:
            self._call = args, kwargs


def _loss(model: nn.Module, args: Any, kwargs: Any) -> Tensor:
    loss = getattr(model(*args, **kwargs), "loss", None)
    if not isinstance(loss, Tensor):
        raise InputError("model: returns no loss; its batches need labels")
    return loss
