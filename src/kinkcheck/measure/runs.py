"""The runs of one point: one program, one mini-batch, in the audited precision and in the lift."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kinkcheck.arithmetic.casting import InPlace
from kinkcheck.arithmetic.constants import ConstantsAs
from kinkcheck.arithmetic.precision import PRECISIONS, Precision
from kinkcheck.errors import InputError, one_line
from kinkcheck.interrupts import let_through
from kinkcheck.measure.batch import Samples, moved, tensors
from kinkcheck.measure.draws import Draws
from kinkcheck.measure.footprint import saved_bytes
from kinkcheck.measure.forward import Forward, Gradient, backward_of
from kinkcheck.tape.as_found import as_found
from kinkcheck.tape.memory import address

FLOAT32, FLOAT64 = PRECISIONS["float32"], PRECISIONS["float64"]

Step = Callable[[nn.Module, Any], Tensor]
"""Calls a model on a batch and returns the loss, a single number."""


def pairs(loss: Callable[[Any, Any], Tensor]) -> Step:
    """The step of a loss function on pairs of inputs and targets.

    >>> step = pairs(torch.nn.functional.mse_loss)
    >>> step(nn.Identity(), (torch.ones(2), torch.zeros(2)))
    tensor(1.)
    """

    def step(model: nn.Module, batch: tuple[Any, Any]) -> Tensor:
        inputs, targets = batch
        return loss(model(inputs), targets)

    return step


@dataclass(eq=False)
class Runs:
    """Runs of one program on one mini-batch, all from one random state.

    What the first recorded one draws at random, those after it are given.

    Args:
        model: the user's own; it is cast in place, and left as it was.
        step: calls it and returns the loss.
        batch: in any precision; every run gets a copy.
        at: the audited precision.
        device: where to run; None for where the model is.
        seed: of what is drawn.
        where: how a complaint names the point.
        held: the tensors of the program, so that several points share the copies of them.
        saved_bytes: what autograd saved in the last plain run.
        loss: of the first run in the audited precision.

    >>> from kinkcheck.arithmetic import precision
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> batch = torch.zeros(1, 2), torch.zeros(1, 2)
    >>> runs = Runs(model, pairs(nn.functional.mse_loss), batch, precision.parse("16"))
    >>> with runs.audited():
    ...     runs.forward().loss.dtype
    torch.float16
    """

    model: nn.Module
    step: Step
    batch: Any
    at: Precision
    device: str | None = None
    seed: int = 0
    where: str = ""
    held: InPlace | None = None
    loss: float | None = field(default=None, init=False)
    saved_bytes: int = field(default=0, init=False)
    _draws: Draws | None = field(default=None, init=False)
    _lift: ConstantsAs | None = field(default=None, init=False)
    _to: Precision = field(default=FLOAT64, init=False)

    def __post_init__(self) -> None:
        if self.held is None:
            self.held = InPlace(self.model, self.step)

    @contextmanager
    def audited(self) -> Iterator[None]:
        """The context of runs, and of their backward passes, in the audited precision."""
        assert self.held is not None
        with self.held.at(self.at, self.device), self.at.contractions(self.on):
            yield

    @contextmanager
    def lifted(self, channels_last: bool = False, to: Precision = FLOAT64) -> Iterator[None]:
        """The same in float64: the same real numbers, constants of the program among them.

        Args:
            channels_last: lay out tensors of four dimensions so.
            to: another precision than float64.
        """
        assert self.held is not None
        self._lift, self._to = ConstantsAs(self.at, to.storage), to
        at = self.held.at(to, self.device, lifted_from=self.at, channels_last=channels_last)
        try:
            with at:
                yield
        finally:
            self._lift = None

    @property
    def on(self) -> torch.device:
        """The device of the runs."""
        return device_of(self.model) if self.device is None else torch.device(self.device)

    def forward(
        self,
        samples: Samples | None = None,
        order: Tensor | None = None,
        *,
        lean: bool = False,
    ) -> Forward:
        """A forward pass on the mini-batch, or on some samples of it in an order.

        Args:
            samples: where samples are.
            order: the numbers of those that it is on.
            lean: let go of inputs of sites (see :class:`Forward`).

        Raises:
            InputError: the program fails, or returns no loss; in the lift the message says so.
        """
        where = self.where if self._lift is None else f"{self.where}, lifted to {self._to}"
        drawing, backward = self._drawing(samples, order)
        draw = None
        if self._draws is None:
            self._draws = Draws()
            draw = self._draws.keep
        program = [self.model, self.step, self.batch]
        with self._blamed():
            return Forward(
                self.model,
                lambda: self._run(program, drawing, samples, order),
                where,
                backward,
                program,
                draw,
                lean,
            )

    def plain(self) -> Gradient:
        """The gradient as plain autograd returns it, without a tape."""
        program = [self.model, self.step, self.batch]
        with self._blamed(), as_found(self.model, program):
            loss = self._run(program, self._drawing()[0])
            named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
            parameters = [parameter for _, parameter in named]
            self.saved_bytes = saved_bytes(loss)
            with backward_of(self.where), let_through():
                found = torch.autograd.grad(loss, parameters, allow_unused=True)
        return {
            name: torch.zeros_like(parameter) if gradient is None else gradient.to_dense()
            for (name, parameter), gradient in zip(named, found, strict=True)
        }

    def _drawing(
        self, samples: Samples | None = None, order: Tensor | None = None
    ) -> tuple[AbstractContextManager[object], Callable[[], AbstractContextManager[object]]]:
        """The contexts of a forward pass and of its backward passes."""
        lift: AbstractContextManager[object] = self._lift or nullcontext()
        if self._draws is None:
            return lift, lambda: lift
        of = () if samples is None else (samples.count, samples.drawn)
        given = self._draws.given(order, *of)
        return _both(lift, given.forward()), lambda: _both(lift, given.backward())

    def _run(
        self,
        program: list[Any],
        drawing: AbstractContextManager[object],
        samples: Samples | None = None,
        order: Tensor | None = None,
    ) -> Tensor:
        precision = self.at if self._lift is None else self._to
        with precision.computation(self.on):
            batch = moved(program[-1], self._cast)
            if samples is not None and order is not None:
                batch = samples.take(batch, order)
            _seed(self.seed)
            with drawing, torch.enable_grad(), let_through():
                loss = self.step(self.model, batch)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            given = (
                f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            )
            if isinstance(getattr(loss, "loss", None), Tensor):  # as of Hugging Face's models
                given += ": return its .loss"
            raise InputError(
                f"loss: must be a single number in a tensor, not {given} ({self.where})"
            )
        if not loss.requires_grad or not any(p.requires_grad for p in self.model.parameters()):
            raise InputError(f"loss: does not depend on any parameter ({self.where})")
        if self.loss is None and self._lift is None and order is None:
            self.loss = loss.item()
        return loss if loss.grad_fn is not None else loss.view_as(loss)  # a parameter itself

    def _cast(self, tensor: Tensor) -> Tensor:
        """A copy, for a layer may write to its input."""
        cast = self.at.cast(tensor.detach(), self.on)
        cast = cast if self._lift is None else self._to.cast(cast, self.on)
        cast = cast.clone() if address(cast) == address(tensor) else cast
        return cast.requires_grad_(tensor.requires_grad)

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """A context in which what fails is said to be the program."""
        try:
            yield
        except (InputError, KeyboardInterrupt):
            raise
        except BaseException as error:  # as kinkcheck.errors.blaming, which knows less
            raise InputError(self._failed(error)) from error

    def _failed(self, error: BaseException) -> str:
        first = next(iter(tensors(self.batch)), None)
        shape = "" if first is None or first.is_nested else f" of shape {tuple(first.shape)}"
        if self._lift is None:
            return f"network: failed on a batch{shape} ({self.where}): {one_line(error)}"
        by = f" for {self._lift.failed}" if self._lift.failed else ""
        return (
            f"network: cannot be lifted to {self._to} ({self.where}): it fails there{by}: "
            f"{one_line(error)}; audit it without the lift (lifted=False, --no-lift)"
        )


@contextmanager
def _both(
    outer: AbstractContextManager[object], inner: AbstractContextManager[object]
) -> Iterator[None]:
    with outer, inner:
        yield


def device_of(model: nn.Module) -> torch.device:
    """Where a model is: the device of its first parameter, the CPU if it has none.

    >>> device_of(nn.Linear(1, 1))
    device(type='cpu')
    """
    return next((each.device for each in model.parameters()), torch.device("cpu"))


def _seed(seed: int) -> None:
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # as it does, but that it keeps the call stack for each kind of device that is not there
        torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
