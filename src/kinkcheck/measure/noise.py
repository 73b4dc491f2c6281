"""The noise floor: how far gradients spread over runs that are equal over the reals.

Such a run takes the samples in another order and, where they do not meet (no batch norm in training
mode), in two halves whose gradients are added, if the program takes batches of that size; on CUDA
there is one more in the same order, since some kernels add in no fixed order. Each sample keeps
what was drawn for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kinkcheck.errors import InputError
from kinkcheck.measure.forward import Chooser, Forward, Gradient
from kinkcheck.measure.variation import Variation, gradient_variation, largest


def another_order(samples: int, seed: int) -> Tensor:
    """An order of the samples of a mini-batch drawn at random, in which none keeps its place.

    >>> another_order(2, seed=0).tolist()
    [1, 0]
    """
    cycle = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    order = torch.empty_like(cycle)
    order[cycle] = cycle.roll(1)
    return order


def noise(
    run: Callable[[Tensor], Forward],
    samples: int,
    base: Gradient,
    reference: Chooser,
    *,
    bottleneck: tuple[int, Tensor] | None = None,
    seed: int = 0,
    repeat: bool = False,
) -> Variation | None:
    """The noise floor of the reference gradient at a point.

    Args:
        run: the forward pass of the point on some samples, whose numbers it takes, from the same
            random state each time.
        samples: how many the mini-batch has.
        base: the reference gradient of all of them in their own order.
        reference: what the reference program chooses.
        bottleneck: the number of the output on which alone the loss depends, and the gradient of
            the loss there, if samples do not meet in the network: only then do two halves add up.
        seed: of the random order.
        repeat: also run the batch as it is once more, for kernels that are not deterministic.

    Returns:
        The largest distance from ``base`` in every norm; None if the program takes no other run.

    >>> model, x = torch.nn.Linear(3, 1), torch.rand(8, 3)
    >>> def run(order):
    ...     return Forward(model, lambda: model(x[order]).square().mean())
    >>> def native(tape):
    ...     return {}
    >>> whole = run(torch.arange(8))
    >>> noise(run, 8, whole.gradient(native), native).relative_l1 < 1e-5
    True
    """
    order = another_order(samples, seed)
    again = [torch.arange(samples)] if repeat else []
    found = []
    halves = None
    if bottleneck is not None and samples > 1:
        halves = _split(run, order, *bottleneck, reference)
    if halves is not None:
        found.append(halves)
    else:
        again.append(order)
    for each in again:
        try:
            found.append(run(each).gradient(reference))
        except InputError:  # whoever wants the longest sample first, say
            continue
    return spread(found, base) if found else None


def _split(
    run: Callable[[Tensor], Forward],
    order: Tensor,
    output: int,
    direction: Tensor,
    reference: Chooser,
) -> Gradient | None:
    """The sum of the gradients of two random halves; None if the program takes none."""
    total: Gradient = {}
    for half in order.chunk(2):
        try:
            forward = run(half)
        except InputError:  # whoever views 20 samples as 4 rows cannot do so with 10
            return None
        outputs = forward.outputs
        if len(outputs) <= output or outputs[output].shape != direction[half].shape:
            return None
        (found,) = forward.gradients_along(output, direction[half], [reference])
        total = {name: total[name] + g for name, g in found.items()} if total else found
    return total


def spread(gradients: Sequence[Gradient], reference: Gradient) -> Variation:
    """How far some gradients lie from a reference at most, in every norm.

    >>> spread([{"w": torch.tensor([1.0])}, {"w": torch.tensor([4.0])}], {"w": torch.tensor([2.0])})
    Variation(l1=2.0, l2=2.0, linf=2.0, linf_by_tensor=2.0, relative_l1=1.0)
    """
    found = [gradient_variation(gradient, reference) for gradient in gradients]
    names = ("l1", "l2", "linf", "linf_by_tensor", "relative_l1")
    return Variation(*(largest([getattr(each, name) for each in found]) for name in names))
