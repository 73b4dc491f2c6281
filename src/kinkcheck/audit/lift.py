"""The lift: both programs of a point, evaluated at the same θ and B in float64.

Going to float64 changes neither parameters nor inputs, so that what is left of the variation there
is either rounding, at the float64 noise floor, or real.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kinkcheck.audit.forward import Forward, Gradient, Loss, Program, part_of, samples
from kinkcheck.audit.noise import another_order
from kinkcheck.audit.variation import l1_distance, l1_norm
from kinkcheck.errors import InputError
from kinkcheck.precision import PRECISIONS
from kinkcheck.products import one_product

FLOAT64 = PRECISIONS["float64"]

SAMPLES = 8
"""How many samples the noise floor is measured on, where samples do not meet in the network."""

_DEPENDS_ON_ORDER = 1e-6
"""Relative spread of the float64 gradient over orders that no rounding explains."""

_DISTURBANCE = 4 * FLOAT64.unit_roundoff
"""By how much the gradient is altered at every site to see how rounding inside a sample spreads:
each number there is a sum that is rounded a few times."""


@dataclass
class Lifted:
    """A point in float64.

    Attributes:
        forward: the forward pass on the whole mini-batch.
        reference: the gradient of the reference.
        selections: the gradients of the selections.
        variation: for every selection D, l1.
        noise: for every selection the noise floor of that D, l1.
        separate: whether samples do not meet inside the network.
    """

    forward: Forward
    reference: Gradient
    selections: list[Gradient]
    variation: list[float]
    noise: list[float]
    separate: bool


@one_product()
def lift(
    model: nn.Module,
    pair: tuple[Any, Any],
    loss: Loss,
    reference: Program,
    selections: Sequence[Program],
    *,
    device: str = "cpu",
    seed: int = 0,
    where: str = "lift",
) -> Lifted:
    """Evaluate the programs of a point in float64, and the noise floor there.

    Both programs run on the whole mini-batch. For the noise floor they run again with the samples
    in another order and the gradient at every site altered by a few roundoffs, which shows how
    rounding spreads between samples and inside them. Where samples do not meet inside the network
    that is done with ``SAMPLES`` of them and scaled to the whole mini-batch. Whether samples meet
    is seen by comparing their outputs with those of the whole mini-batch.

    Args:
        model: the model in the audited precision; it is copied.
        pair: inputs and targets in the audited precision.
        loss: function of outputs and targets.
        reference: the reference program.
        selections: the programs compared with it.
        device: where the model is.
        seed: of orders, and of what is drawn in the forward pass.
        where: how a complaint names the point.

    Raises:
        InputError: the network fails in float64, or computes in fewer bits somewhere, or draws at
            random other than for dropout, or its gradient depends on the order of the samples.

    >>> from kinkcheck.selection import parse
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten())
    >>> pair = torch.ones(2, 1, 4, 4), torch.tensor([0, 1])
    >>> def program(name):
    ...     return lambda tape: {site: parse(name) for site in tape.sites}
    >>> cross_entropy = nn.functional.cross_entropy
    >>> lifted = lift(model, pair, cross_entropy, program("native"), [program("last")])
    >>> lifted.variation[0] < 1e-14
    True
    """
    run, whole = _whole(FLOAT64.cast_model(model, device), pair, loss, device, seed, where)
    if narrow := whole.narrower_than_float64():
        raise InputError(
            f"network: computes in fewer bits than float64 ({narrow}, {where}, lifted), so that "
            "rounding cannot be told from truth; make it follow the type of its input, or audit it "
            "without the lift"
        )
    if whole.draws:
        raise InputError(
            f"network: draws random numbers other than for dropout ({where}), and others in "
            "float64; audit it in evaluation mode, or without the lift"
        )
    programs = [reference, *selections]
    base, *gradients = [whole.gradient(program) for program in programs]
    floors, separate = _floors(run, whole, programs, [base, *gradients])
    norm = l1_norm(base)
    if norm and floors[0] / norm > _DEPENDS_ON_ORDER:
        raise InputError(
            "network: its gradient depends on the order of the samples in a mini-batch (by "
            f"{floors[0] / norm:.1e} of its l1 norm at float64, {where}), so that rounding cannot "
            "be told from truth; make it treat samples alike, or audit it without the lift"
        )
    return Lifted(
        whole,
        base,
        gradients,
        [l1_distance(gradient, base) for gradient in gradients],
        [
            max(floors[0], floor, FLOAT64.unit_roundoff * max(norm, l1_norm(gradient)))
            for floor, gradient in zip(floors[1:], gradients, strict=True)
        ],
        separate,
    )


def _whole(
    model: nn.Module, pair: tuple[Any, Any], loss: Loss, device: str, seed: int, where: str
) -> tuple[_Runs, Forward]:
    """The runs of a point, and the one on the whole mini-batch."""
    run = _Runs(model, pair, loss, device, seed, where)
    if device != "cpu" or any(parameter.dim() == 5 for parameter in model.parameters()):
        return run, run.forward()
    # PyTorch's float64 convolution is nearly twice as fast so; but some networks take a view that
    # this layout does not have.
    try:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return run, run.forward()
    except InputError:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return run, run.forward()


@dataclass(frozen=True)
class _Runs:
    """Runs of one point in float64, all from one random state."""

    model: nn.Module
    pair: tuple[Any, Any]
    loss: Loss
    device: str
    seed: int
    where: str

    def forward(self, order: Tensor | None = None) -> Forward:
        """The forward pass on some samples."""
        torch.manual_seed(self.seed)
        where = f"{self.where}, lifted to float64"
        return Forward(self.model, self.pair, self.loss, FLOAT64, self.device, where, order)


def _floors(
    run: _Runs, whole: Forward, programs: Sequence[Program], gradients: list[Gradient]
) -> tuple[list[float], bool]:
    """For every program the l1 spread of its gradient; whether samples do not meet."""
    count = samples(run.pair)
    if count is None:
        again = run.forward()
        again.disturb(_DISTURBANCE)
        return _spreads([again.gradient(program) for program in programs], gradients), False
    order = another_order(count, run.seed)
    some = order[: max(1, min(SAMPLES, count // 2))]
    # Float64 outputs that agree to this did not meet.
    part = part_of(whole, run.forward, some, tolerance=1e-10)
    if part is None:
        again = run.forward(order)
        again.disturb(_DISTURBANCE)
        return _spreads([again.gradient(program) for program in programs], gradients), False
    direction = whole.output_gradient()
    gradients = part.gradients_along(direction[some], programs)
    again = run.forward(some.flip(0))
    again.disturb(_DISTURBANCE)
    found = _spreads(again.gradients_along(direction[some.flip(0)], programs), gradients)
    return [count / len(some) * spread for spread in found], True


def _spreads(again: list[Gradient], gradients: list[Gradient]) -> list[float]:
    return [l1_distance(a, b) for a, b in zip(again, gradients, strict=True)]
