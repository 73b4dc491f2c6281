"""The lift: both programs of a point, evaluated at the same θ and B in float64.

Going to float64 changes neither parameters, inputs, constants nor what is drawn at random, so that
what is left of the variation there is either rounding, at the float64 noise floor, or real.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from kinkcheck.arithmetic.precision import PRECISIONS
from kinkcheck.errors import InputError
from kinkcheck.measure.batch import Samples
from kinkcheck.measure.forward import Chooser, Forward, Gradient
from kinkcheck.measure.noise import another_order
from kinkcheck.measure.runs import FLOAT64, Runs
from kinkcheck.measure.variation import l1_distance, l1_norm

SAMPLES = 8
"""How many samples the noise floor is measured on, where samples do not meet in the network."""

DEPENDS_ON_ORDER = 1e-6
"""Relative spread of the float64 gradient over orders that no rounding explains: what was reordered
were no samples."""

ALIKE = 1e-10
"""Float64 outputs that agree to this, in units of the largest of them, did not meet."""

_ANOTHER_LOSS = 0.1
"""Relative difference of the loss from that of the lift that no rounding explains, in types that
are not coarser than this:"""

_COARSE = PRECISIONS["float32"].unit_roundoff

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
        samples: where the samples of the batch are; None if none were found whose order leaves the
            gradient as it is.
        bottleneck: the number of the output on which alone the loss depends, if samples do not meet
            inside the network; else None.
    """

    forward: Forward
    reference: Gradient
    selections: list[Gradient]
    variation: list[float]
    noise: list[float]
    samples: Samples | None
    bottleneck: int | None


@contextmanager
def lift(
    runs: Runs,
    reference: Chooser,
    selections: Sequence[Chooser],
    samples: Sequence[Samples] = (),
    gains: Sequence[float] = (),
) -> Iterator[Lifted]:
    """Evaluate the programs of a point in float64, and the noise floor there.

    Both programs run on the whole mini-batch. For the noise floor they run again with the samples
    in another order and the gradient at every site altered by a few roundoffs, which shows how
    rounding spreads between samples and inside them. Where samples do not meet inside the network
    that is done with ``SAMPLES`` of them and scaled to the whole mini-batch. Whether samples meet
    is seen by comparing their outputs with those of the whole mini-batch. Whether the batch has
    samples at all is seen by what another order of them does to the gradient; if it has not, the
    gradient is altered alone.

    Args:
        runs: the runs of the point; the first one was made in the audited precision.
        reference: what the reference program chooses.
        selections: what the programs compared with it choose.
        samples: where the samples of the batch could be, the likeliest first.
        gains: how far each of ``selections`` amplifies roundings; by default none does.

    Yields:
        What was found; its forward pass can be differentiated until the block ends.

    Raises:
        InputError: the network fails in float64, or computes in fewer bits somewhere, or draws
            random numbers in another way.

    >>> from torch import nn
    >>> from kinkcheck.measure.batch import candidates
    >>> from kinkcheck.measure.runs import pairs
    >>> from kinkcheck.arithmetic.precision import parse as precision
    >>> from kinkcheck.selection import parse
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten())
    >>> batch = torch.ones(2, 1, 4, 4), torch.tensor([0, 1])
    >>> def chooser(name):
    ...     return lambda tape: {site: parse(name) for site in tape.sites}
    >>> runs = Runs(model, pairs(nn.functional.cross_entropy), batch, precision("32"))
    >>> with lift(runs, chooser("native"), [chooser("last")], candidates(batch)) as lifted:
    ...     lifted.variation[0] < 1e-14, lifted.samples
    (True, Samples(count=2, dims=0, drawn=0))
    """
    with ExitStack() as stack:
        forward = whole(runs, stack)
        choosers = [reference, *selections]
        base, *gradients = [forward.gradient(chooser) for chooser in choosers]
        floors, found, bottleneck = _floors(runs, forward, choosers, [base, *gradients], samples)
        norm = l1_norm(base)
        yield Lifted(
            forward,
            base,
            gradients,
            [l1_distance(gradient, base) for gradient in gradients],
            [
                max(floors[0], floor, FLOAT64.unit_roundoff * gain * max(norm, l1_norm(gradient)))
                for floor, gradient, gain in zip(
                    floors[1:], gradients, gains or [1.0] * len(gradients), strict=True
                )
            ],
            found,
            bottleneck,
        )


def _require_same_function(runs: Runs, whole: Forward) -> None:
    """Refuse a lift that is none, or whose loss is another one than the precision found."""
    if narrow := whole.narrower_than_float64():
        raise InputError(
            f"network: computes in fewer bits than float64 ({narrow}, {runs.where}, lifted), "
            "so that rounding cannot be told from truth; make it follow the type of its input, "
            "or audit it without the lift"
        )
    found, lifted = runs.loss, whole.loss.item()
    if found is None or runs.at.unit_roundoff > _COARSE:
        return
    if abs(found - lifted) > _ANOTHER_LOSS * max(abs(found), abs(lifted)):
        raise InputError(
            f"network: its loss is {found:.6g} in {runs.at} and {lifted:.6g} in float64 "
            f"({runs.where}): it computes something else there, or rounding has left nothing of it;"
            " audit it without the lift (lifted=False, --no-lift)"
        )


def whole(runs: Runs, stack: ExitStack) -> Forward:
    """The lifted forward pass on the whole mini-batch, in a context that a stack keeps open.

    Raises:
        InputError: the network fails in float64, computes in fewer bits somewhere, or has another
            loss there than rounding explains.

    >>> from torch import nn
    >>> from kinkcheck.arithmetic.precision import PRECISIONS
    >>> half = PRECISIONS["float16"]
    >>> runs = Runs(nn.Linear(1, 1), lambda model, x: model(x).sum(), torch.ones(1), half)
    >>> with ExitStack() as stack:
    ...     whole(runs, stack).loss.dtype
    torch.float64
    """
    forward = _lifted(runs, stack)
    _require_same_function(runs, forward)
    return forward


def _lifted(runs: Runs, stack: ExitStack) -> Forward:
    if runs.on.type == "cpu" and all(each.dim() != 5 for each in runs.model.parameters()):
        # PyTorch's float64 convolution is nearly twice as fast so; but some networks take a view
        # that this layout does not have.
        with ExitStack() as attempt:
            attempt.enter_context(runs.lifted(channels_last=True))
            try:
                forward = runs.forward(lean=True)
            except InputError:
                pass
            else:
                stack.enter_context(attempt.pop_all())
                return forward
    stack.enter_context(runs.lifted())
    return runs.forward(lean=True)


def _floors(
    runs: Runs,
    whole: Forward,
    choosers: Sequence[Chooser],
    gradients: list[Gradient],
    candidates: Sequence[Samples],
) -> tuple[list[float], Samples | None, int | None]:
    """For every program the l1 spread of its gradient; where samples are; the bottleneck."""
    for samples in candidates:
        order = another_order(samples.count, runs.seed)
        some = order[: max(1, min(SAMPLES, samples.count // 2))]
        output = whole.bottleneck(samples.count)
        part = output is not None and part_of(runs, whole, samples, some, output, tolerance=ALIKE)
        if output is not None and part:
            direction = whole.output_gradient(output)
            parts = part.gradients_along(output, direction[some], choosers)
            turned = some.flip(0)
            again = runs.forward(samples, turned, lean=True)
            again.disturb(_DISTURBANCE, runs.seed)
            found = _spreads(again.gradients_along(output, direction[turned], choosers), parts)
            return [samples.count / len(some) * spread for spread in found], samples, output
        try:
            again = runs.forward(samples, order, lean=True)
        except InputError:  # such a batch does not exist
            continue
        again.disturb(_DISTURBANCE, runs.seed)
        floors = _spreads([again.gradient(chooser) for chooser in choosers], gradients)
        if floors[0] <= DEPENDS_ON_ORDER * l1_norm(gradients[0]):
            return floors, samples, None
    again = runs.forward(lean=True)
    again.disturb(_DISTURBANCE, runs.seed)
    return _spreads([again.gradient(chooser) for chooser in choosers], gradients), None, None


def part_of(
    runs: Runs, whole: Forward, samples: Samples, some: Tensor, output: int, *, tolerance: float
) -> Forward | None:
    """A forward pass on some samples; None where it is not their part in that of the mini-batch.

    Args:
        runs: the runs of the point.
        whole: the forward pass on the whole mini-batch.
        samples: where the samples of the batch are.
        some: the numbers of some.
        output: the number of an output with an entry a sample.
        tolerance: how far an entry may be away, in units of the largest of them.
    """
    try:
        part = runs.forward(samples, some, lean=True)
    except InputError:  # batch norm, for one, refuses a single sample
        return None
    rows = whole.outputs[output].detach()[some]
    if len(part.outputs) != len(whole.outputs) or part.outputs[output].shape != rows.shape:
        return None
    near = tolerance * float(rows.abs().max())
    alike = torch.allclose(part.outputs[output].detach(), rows, rtol=0, atol=near)
    return part if alike else None


def _spreads(again: list[Gradient], gradients: list[Gradient]) -> list[float]:
    return [l1_distance(a, b) for a, b in zip(again, gradients, strict=True)]
