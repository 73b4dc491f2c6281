"""The monitor as a callback of Lightning: ``pip install kinkcheck[lightning]``."""

from __future__ import annotations

from typing import Any

from kinkcheck.extras import require
from kinkcheck.monitor.monitor import Monitor

_Callback: Any = require("lightning.pytorch.callbacks", extra="lightning").Callback


class LightningMonitor(_Callback):  # type: ignore[misc]
    """Measures on every n-th training batch, before the step, and logs to the trainer's loggers.

    Only the first of several processes measures.

    Args:
        monitor: of the LightningModule, or of a module in it, with a loss for batches of inputs and
            targets, or a step for others; not ``training_step``, which may log and count.

    >>> from lightning.pytorch import LightningModule
    >>> module = LightningModule()
    >>> callback = LightningMonitor(Monitor(module, torch.nn.functional.cross_entropy))
    """

    def __init__(self, monitor: Monitor) -> None:
        super().__init__()
        self.monitor = monitor

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, number: int) -> None:
        """Measure, if this batch is one of those to measure."""
        if not trainer.is_global_zero:
            return
        with trainer.precision_plugin.forward_context():
            record = self.monitor.step(batch)
        if record is not None:
            for logger in trainer.loggers:
                logger.log_metrics(record.scalars(), step=trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoints: how many batches there were."""
        return {"steps": self.monitor.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting where a checkpoint stopped."""
        self.monitor.steps = state["steps"]
