"""The standing of the gradient at the point where a training run stands."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from kinkcheck.arithmetic.precision import PRECISIONS, Precision
from kinkcheck.errors import InputError
from kinkcheck.measure.forward import Forward
from kinkcheck.measure.lift import whole
from kinkcheck.measure.runs import Runs
from kinkcheck.measure.standing import Kind, Standing, smooth, standings, told
from kinkcheck.selection import Selection

_SHARED = (
    "the lift casts parameters in place, which would cut the hooks of a distributed training; a "
    "process of its own can audit a checkpoint"
)


def standing_there(forward: Forward, loss: Callable[[], Tensor], selection: Selection) -> Standing:
    """The standing of a gradient, from the pass at hand if that tells, else from a lift.

    From 32 bits on it can be seen in the precision of the training that the branches of all ties
    move alike: then the loss has no kink there. All else is told by the same program on the same
    numbers in float64.

    Args:
        forward: the forward pass in the precision of the training.
        loss: calls the model and returns the loss, a single number.
        selection: under which the gradient is.

    >>> from kinkcheck.selection import parse
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
    >>> loss = lambda: model(torch.zeros(1)).sum()  # 0 whatever the weight
    >>> standing_there(Forward(model, loss), loss, parse("native")).kind
    <Kind.DERIVATIVE: 'derivative'>
    """
    with torch.autocast(forward.loss.device.type, enabled=False):
        seen = smooth(told(forward, selection))
    if seen is not None:
        return seen
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return Standing(Kind.UNDECIDED, why=_SHARED)
    runs = Runs(forward.model, lambda model, batch: loss(), None, _precision(forward.model))
    try:
        with runs.audited():
            runs.forward()  # what it draws at random the lift is given
        with ExitStack() as stack:
            above = whole(runs, stack)
            gradient = above.gradient(selection)
            (found,) = standings(above, [(selection, gradient)], again=runs.forward)
    except InputError as error:
        return Standing(Kind.UNDECIDED, why=str(error))
    return found


def _precision(model: nn.Module) -> Precision:
    """The precision of the numbers of a model; of several one that has the numbers of all."""
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if len(types) > 1:
        types = {max(types | {torch.float32}, key=lambda each: torch.finfo(each).bits)}
    (dtype,) = types or {torch.float32}
    return next(each for each in PRECISIONS.values() if each.storage == dtype)
