"""The noise floor: how far gradients spread over runs that are equal over the reals.

Such a run takes the samples in another order and, where they do not meet (no batch norm in training
mode), in two halves whose gradients are added; on CUDA there is one more in the same order, since
some kernels add in no fixed order. With dropout each sample keeps its mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kinkcheck.audit.forward import Forward, Gradient, Program, part_of
from kinkcheck.audit.variation import Variation, gradient_variation


def another_order(samples: int, seed: int) -> Tensor:
    """An order of the samples of a mini-batch drawn at random, not their own if there are two.

    >>> another_order(2, seed=0).tolist()
    [1, 0]
    """
    own = torch.arange(samples)
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    return own.flip(0) if torch.equal(order, own) else order


def noise(
    run: Callable[[Tensor], Forward],
    samples: int | None,
    forward: Forward,
    base: Gradient,
    reference: Program,
    *,
    unit_roundoff: float,
    seed: int = 0,
    repeat: bool = False,
) -> Variation | None:
    """The noise floor of the reference gradient at a point.

    Args:
        run: the forward pass of the point on some samples, whose numbers it takes, from the same
            random state each time.
        samples: how many the mini-batch has; None if it is no list of samples.
        forward: the forward pass on all of them in their own order.
        base: the reference gradient there.
        reference: the reference program.
        unit_roundoff: u of the precision: outputs of samples that agree to √u did not meet.
        seed: of the random order.
        repeat: also run the batch as it is once more, for kernels that are not deterministic.

    Returns:
        The largest distance from ``base`` in every norm; None if the batch is no list of samples.

    >>> from kinkcheck import precision
    >>> model = torch.nn.Linear(3, 1)
    >>> pair = torch.rand(8, 3), torch.rand(8, 1)
    >>> def run(order):
    ...     loss = torch.nn.functional.mse_loss
    ...     return Forward(model, pair, loss, precision.parse("32"), "cpu", "here", order)
    >>> forward = run(None)
    >>> def native(tape):
    ...     return {}
    >>> base = forward.gradient(native)
    >>> noise(run, 8, forward, base, native, unit_roundoff=2**-24).relative_l1 < 1e-5
    True
    """
    if samples is None:
        return None
    order = another_order(samples, seed)
    split = _split(run, order, forward, reference, unit_roundoff**0.5)
    found = [] if split is None else [split]
    orders = ([order] if split is None else []) + ([torch.arange(samples)] if repeat else [])
    return spread(found + [run(again).gradient(reference) for again in orders], base)


def _split(
    run: Callable[[Tensor], Forward],
    order: Tensor,
    forward: Forward,
    reference: Program,
    tolerance: float,
) -> Gradient | None:
    """The sum of the gradients of two random halves; None where that is another gradient."""
    if len(order) < 2:
        return None
    total: Gradient = {}
    for half in order.chunk(2):
        part = part_of(forward, run, half, tolerance=tolerance)
        if part is None:
            return None
        (found,) = part.gradients_along(forward.output_gradient()[half], [reference])
        total = {name: total[name] + g for name, g in found.items()} if total else found
    return total


def spread(gradients: Sequence[Gradient], reference: Gradient) -> Variation:
    """How far some gradients lie from a reference at most, in every norm.

    >>> spread([{"w": torch.tensor([1.0])}, {"w": torch.tensor([4.0])}], {"w": torch.tensor([2.0])})
    Variation(l1=2.0, l2=2.0, linf=2.0, linf_by_tensor=2.0, relative_l1=1.0)
    """
    found = [gradient_variation(gradient, reference) for gradient in gradients]
    names = ("l1", "l2", "linf", "linf_by_tensor", "relative_l1")
    return Variation(*(_largest([getattr(each, name) for each in found]) for name in names))


def _largest(values: list[float]) -> float:
    return math.nan if any(map(math.isnan, values)) else max(values, default=0.0)
