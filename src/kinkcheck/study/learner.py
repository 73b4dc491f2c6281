"""One network that is being trained: a step, a test, and a state that can be put back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, StepLR

from kinkcheck.arithmetic import precision
from kinkcheck.measure.finite import broken_layer, first_layer
from kinkcheck.measure.runs import device_of
from kinkcheck.study.criteria import Metric
from kinkcheck.study.feed import Feed
from kinkcheck.study.job import Score
from kinkcheck.study.settings import Settings
from kinkcheck.study.task import Task, forward, joined

Spread: TypeAlias = Callable[[nn.Module], nn.Module]
"""What puts a module in place of a network that computes the same, on several devices."""


def on_one_device(model: nn.Module) -> nn.Module:
    """The network itself."""
    return model


@dataclass(frozen=True)
class Broken:
    """The first number that was not finite.

    Attributes:
        step: training steps that had been taken before it.
        layer: where it was, see :func:`kinkcheck.measure.finite.first_layer`.
    """

    step: int
    layer: str


@dataclass
class _Meter:
    """What the steps over a set have found; the loss is weighted by the sizes of mini-batches."""

    loss: float = 0.0
    weight: int = 0
    results: list[tuple[Tensor, ...]] = field(default_factory=list)

    def add(self, loss: float, results: tuple[Tensor, ...], samples: int) -> None:
        self.loss += loss * samples
        self.weight += samples
        self.results.append(results)

    def add_without_loss(self, results: tuple[Tensor, ...]) -> None:
        self.results.append(results)

    def score(self, metrics: Sequence[Metric]) -> Score:
        loss = self.loss / self.weight if self.weight else math.nan
        if not self.results:
            return untrained(metrics, loss)
        results = joined(self.results)
        return Score(loss, {metric.criterion: metric.value(results) for metric in metrics})


def untrained(metrics: Sequence[Metric], loss: float = math.nan) -> Score:
    """The score where there was no step: no number."""
    return Score(loss, {each.criterion: math.nan for each in metrics})


class Learner:
    """A network with optimizer, learning-rate schedule and, in mixed precision, loss scaling.

    The arithmetic is that of the plain PyTorch loop: the task's step, ``backward`` and a step of
    the optimizer for each batch, a step of the schedule after each epoch.

    Args:
        model: the network, in its precision, on its device.
        task: what it is trained for.
        settings: of the trial.
        learning_rate: to start with.
        spread: over several devices.

    Attributes:
        model: the network.
        steps: training steps taken so far.
        broken: the first number that was not finite, if there was one.
        diverged: whether training cannot go on. Loss scaling skips a step that is not finite; a
            parameter that is not finite ends training in any precision, and an epoch without a
            finite loss does.

    >>> from kinkcheck.study.model import build
    >>> from kinkcheck.study.spec import shipped
    >>> from kinkcheck.study.tasks import task_of
    >>> settings = shipped("smoke").trials()[0]
    >>> task = task_of(settings.task, None, "")
    >>> digits = task.feed("train", precision.parse("16"), "cpu")
    >>> learner = Learner(build(settings, task, "cpu"), task, settings, 0.02)
    >>> learner.begin_epoch()
    >>> learner.step(*next(digits.in_order(64)))
    >>> round(learner.end_epoch().loss)
    2
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        settings: Settings,
        learning_rate: float,
        spread: Spread = on_one_device,
    ) -> None:
        self.model = model
        self._task = task
        self._spread = spread(model)
        self.steps = 0
        self.broken: Broken | None = None
        self.diverged = False
        self._held = precision.parse(settings.precision)
        self._device = device_of(model)
        self._clip = settings.clip_norm
        self._optimizer = _optimizer(model, settings, learning_rate)
        self._schedule = _schedule(self._optimizer, settings)
        mixed = self._held.computing is not None
        # PyTorch's own start. Several devices take n times the gradient of what a network returns
        # (kinkcheck.study.parallel), which so is as large, and overflows as early, as on one.
        scale = 2.0**16 / settings.devices
        self._scaler = torch.amp.GradScaler(self._device.type, init_scale=scale) if mixed else None
        self._meter = _Meter()

    @property
    def learning_rate(self) -> float:
        """What the next step uses."""
        return float(self._optimizer.param_groups[0]["lr"])

    def begin_epoch(self) -> None:
        """Set the network to training, and its score to nothing."""
        self._spread.train()
        self._meter = _Meter()

    def step(self, batch: Any, samples: int) -> None:
        """One training step; none if training cannot go on.

        Args:
            batch: in the trial's precision.
            samples: how many it has.
        """
        if self.diverged:
            return
        self._optimizer.zero_grad()
        with self._held.contractions(self._device):
            with self._held.computation(self._device):
                loss, results = forward(self._task, self._spread, batch)
            value = loss.item()
            if math.isfinite(value):
                self._meter.add(value, results, samples)
            else:
                self._meter.add_without_loss(results)
                self._note(batch)
                if self.diverged:
                    return
            (loss if self._scaler is None else self._scaler.scale(loss)).backward()
        self._update()
        self.steps += 1

    def end_epoch(self) -> Score:
        """A step of the schedule; the score over the epoch, each batch before its step.

        The loss is the mean over the steps that had a finite one.
        """
        score = self._meter.score(self._task.metrics)
        layer = broken_layer(self.model)
        if layer is not None:
            self._break(layer)
        if layer is not None or not self._meter.weight:
            self.diverged = True
        if not self.diverged:
            self._schedule.step()
        self._optimizer.zero_grad()  # as large as the network, while a checkpoint is made of it
        return score

    def test(self, feed: Feed) -> Score:
        """The score on a set, in the precision of storage as in the published code."""
        meter = _Meter()
        self._spread.eval()
        with torch.no_grad(), self._held.contractions(self._device):
            for batch, samples in feed.in_order(self._task.test_batch):
                loss, results = forward(self._task, self._spread, batch)
                meter.add(loss.item(), results, samples)
        return meter.score(self._task.metrics)

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "steps": self.steps,
            "broken": None if self.broken is None else asdict(self.broken),
            "diverged": self.diverged,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned; what follows is as if there had been no break."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])
        self.steps = state["steps"]
        self.broken = None if state["broken"] is None else Broken(**state["broken"])
        self.diverged = state["diverged"]

    def _update(self) -> None:
        if self._scaler is None:
            self._clip_gradient()
            self._optimizer.step()
            return
        if self._clip is not None:
            self._scaler.unscale_(self._optimizer)
            self._clip_gradient()
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def _clip_gradient(self) -> None:
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)

    def _note(self, batch: Any) -> None:
        """A loss was not finite: say where that came from, and whether it can be skipped."""
        if self.broken is None:
            with self._held.contractions(self._device), self._held.computation(self._device):
                self._break(first_layer(self.model, lambda: self._task.step(self.model, batch)))
        self.diverged = self._scaler is None or broken_layer(self.model) is not None

    def _break(self, layer: str) -> None:
        if self.broken is None:
            self.broken = Broken(self.steps, layer)


def _optimizer(model: nn.Module, settings: Settings, learning_rate: float) -> Optimizer:
    if settings.optimizer == "adam":
        return Adam(model.parameters(), lr=learning_rate, weight_decay=settings.weight_decay)
    return SGD(
        model.parameters(),
        lr=learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def _schedule(optimizer: Optimizer, settings: Settings) -> LRScheduler:
    if settings.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=settings.epochs)
    if settings.schedule == "step":
        return StepLR(optimizer, settings.step_size, settings.step_factor)
    return ConstantLR(optimizer, factor=1.0)
