"""One network that is being trained: a step, a test, and a state that can be put back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, StepLR

from kinkcheck.arithmetic import precision
from kinkcheck.measure.finite import broken_layer, first_layer
from kinkcheck.study.feed import Feed
from kinkcheck.study.settings import Settings

Spread: TypeAlias = Callable[[nn.Module], nn.Module]
"""What puts a module in place of a network that computes the same, on several devices."""

_TEST_BATCH = 500


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


@dataclass(frozen=True)
class Score:
    """Loss and accuracy over a set.

    Attributes:
        loss: mean cross entropy of an image.
        accuracy: share of images whose class has the largest score, from 0 to 1. An image with a
            score that is not a number counts as wrong.
    """

    loss: float
    accuracy: float


@dataclass
class _Meter:
    """Sums over mini-batches; the loss is weighted by their sizes."""

    loss: float = 0.0
    weight: int = 0
    images: int = 0
    right: list[Tensor] = field(default_factory=list)

    def add(self, loss: float, scores: Tensor, y: Tensor) -> None:
        self.loss += loss * len(y)
        self.weight += len(y)
        self._count(scores, y)

    def add_without_loss(self, scores: Tensor, y: Tensor) -> None:
        self._count(scores, y)

    def _count(self, scores: Tensor, y: Tensor) -> None:
        self.images += len(y)
        # One number a batch stays on the device, where asking for it would be waiting for it.
        right = (scores.argmax(1) == y) & ~scores.isnan().any(1)
        self.right.append(right.sum())

    def score(self) -> Score:
        right = int(torch.stack(self.right).sum()) if self.right else 0
        return Score(
            self.loss / self.weight if self.weight else math.nan,
            right / self.images if self.images else 0.0,
        )


class Learner:
    """A network with optimizer, learning-rate schedule and, in mixed precision, loss scaling.

    The arithmetic is that of the plain PyTorch loop: ``cross_entropy``, ``backward`` and ``step``
    for each batch, a step of the schedule after each epoch.

    Args:
        model: the network, in its precision, on its device.
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

    >>> from kinkcheck import data
    >>> from kinkcheck.study.feed import feed
    >>> from kinkcheck.study.model import build
    >>> from kinkcheck.study.spec import shipped
    >>> digits = feed("mnist-sample", "train", 64, None, "float16", "cpu")
    >>> settings = shipped("smoke").trials()[0]
    >>> learner = Learner(build(settings, digits.images, "cpu"), settings, 0.02)
    >>> learner.begin_epoch()
    >>> learner.step(*next(digits.in_order(64)))
    >>> round(learner.end_epoch().loss)
    2
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        learning_rate: float,
        spread: Spread = on_one_device,
    ) -> None:
        self.model = model
        self._spread = spread(model)
        self.steps = 0
        self.broken: Broken | None = None
        self.diverged = False
        self._held = precision.parse(settings.precision)
        self._device = next(model.parameters()).device
        self._clip = settings.clip_norm
        self._optimizer = _optimizer(model, settings, learning_rate)
        self._schedule = _schedule(self._optimizer, settings)
        mixed = self._held.computing is not None
        self._scaler = torch.amp.GradScaler(self._device.type) if mixed else None
        self._meter = _Meter()

    @property
    def learning_rate(self) -> float:
        """What the next step uses."""
        return float(self._optimizer.param_groups[0]["lr"])

    def begin_epoch(self) -> None:
        """Set the network to training, and loss and accuracy to nothing."""
        self._spread.train()
        self._meter = _Meter()

    def step(self, x: Tensor, y: Tensor) -> None:
        """One training step; none if training cannot go on.

        Args:
            x: images (N, C, H, W) in the trial's precision.
            y: labels (N,).
        """
        if self.diverged:
            return
        self._optimizer.zero_grad()
        with self._held.contractions(self._device):
            with self._held.computation(self._device):
                scores = self._spread(x)
                loss = F.cross_entropy(scores, y)
            value = loss.item()
            if math.isfinite(value):
                self._meter.add(value, scores.detach(), y)
            else:
                self._meter.add_without_loss(scores.detach(), y)
                self._note(x)
                if self.diverged:
                    return
            (loss if self._scaler is None else self._scaler.scale(loss)).backward()
        self._update()
        self.steps += 1

    def end_epoch(self) -> Score:
        """A step of the schedule; loss before each step and accuracy over the epoch.

        The loss is the mean over the steps that had a finite one.
        """
        score = self._meter.score()
        layer = broken_layer(self.model)
        if layer is not None:
            self._break(layer)
        if layer is not None or not self._meter.weight:
            self.diverged = True
        if not self.diverged:
            self._schedule.step()
        return score

    def test(self, feed: Feed) -> Score:
        """Loss and accuracy on a set, in the precision of storage as in the published code."""
        meter = _Meter()
        self._spread.eval()
        with torch.no_grad(), self._held.contractions(self._device):
            for x, y in feed.in_order(_TEST_BATCH):
                scores = self._spread(x)
                meter.add(F.cross_entropy(scores, y).item(), scores, y)
        return meter.score()

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

    def _note(self, x: Tensor) -> None:
        """A loss was not finite: say where that came from, and whether it can be skipped."""
        if self.broken is None:
            with self._held.contractions(x.device), self._held.computation(x.device):
                self._break(first_layer(self.model, lambda: self.model(x)))
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
