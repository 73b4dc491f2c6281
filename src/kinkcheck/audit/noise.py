"""The noise floor: how far gradients spread over runs that are equal over the reals.

Such a run takes the samples in another order and, where they do not meet (no batch norm in training
mode), in two halves whose gradients are added; on CUDA there is one more in the same order, since
some kernels add in no fixed order. With dropout each sample keeps its mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kinkcheck.audit.forward import Forward, Gradient, Program, permuted, samples
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
    run: Callable[[tuple[Any, Any]], Forward],
    pair: tuple[Any, Any],
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
        run: the forward pass of the point, on another batch.
        pair: the batch.
        forward: the forward pass on the batch.
        base: the reference gradient there.
        reference: the reference program.
        unit_roundoff: u of the precision: outputs of samples that agree to √u did not meet.
        seed: of the random order and of what the forward pass draws.
        repeat: also run the batch as it is once more, for kernels that are not deterministic.

    Returns:
        The largest distance from ``base`` in every norm; None if the batch is no list of samples.

    >>> from kinkcheck import precision
    >>> model = torch.nn.Linear(3, 1)
    >>> def run(pair):
    ...     loss = torch.nn.functional.mse_loss
    ...     return Forward(model, pair, loss, precision.parse("32"), "cpu", "here")
    >>> pair = torch.rand(8, 3), torch.rand(8, 1)
    >>> forward = run(pair)
    >>> def native(tape):
    ...     return {}
    >>> floor = noise(
    ...     run, pair, forward, forward.gradient(native), native, unit_roundoff=2**-24
    ... )
    >>> floor.relative_l1 < 1e-5
    True
    """
    count = samples(pair)
    if count is None:
        return None
    order = another_order(count, seed)
    split = _split(run, pair, order, forward, reference, unit_roundoff**0.5, seed)
    found = [] if split is None else [split]
    for again in ([order] if split is None else []) + ([torch.arange(count)] if repeat else []):
        torch.manual_seed(seed)
        with dropout_follows(again):
            found.append(run(permuted(pair, again)).gradient(reference))
    return spread(found, base)


def _split(
    run: Callable[[tuple[Any, Any]], Forward],
    pair: tuple[Any, Any],
    order: Tensor,
    forward: Forward,
    reference: Program,
    tolerance: float,
    seed: int,
) -> Gradient | None:
    """The sum of the gradients of two random halves; None where that is another gradient."""
    outputs, count = forward.outputs, len(order)
    if count < 2 or not isinstance(outputs, Tensor) or outputs.shape[:1] != (count,):
        return None
    direction = forward.output_gradient()
    total: Gradient = {}
    for half in order.chunk(2):
        torch.manual_seed(seed)
        part = run(permuted(pair, half))
        rows = outputs.detach()[half]
        if not torch.allclose(
            part.outputs.detach(), rows, rtol=0, atol=tolerance * float(rows.abs().max())
        ):
            return None
        (found,) = part.gradients_along(direction[half], [reference])
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


@contextmanager
def dropout_follows(order: Tensor) -> Iterator[None]:
    """Let dropout drop of each sample what it drops when the samples come in their own order.

    >>> x, order = torch.ones(4, 8), torch.tensor([3, 2, 1, 0])
    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> dropped = torch.nn.functional.dropout(x)
    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> with dropout_follows(order):
    ...     torch.equal(torch.nn.functional.dropout(x), dropped[order])
    True
    """
    with _DropoutFollows(order):
        yield


_F = torch.nn.functional
_DROPOUTS: set[Callable[..., Any]] = {
    _F.dropout,
    _F.dropout1d,
    _F.dropout2d,
    _F.dropout3d,
}


class _DropoutFollows(TorchFunctionMode):
    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self._order = order

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _DROPOUTS:
            return func(*args, **kwargs)
        input: Tensor = kwargs.pop("input") if "input" in kwargs else args[0]
        if input.dim() == 0 or input.shape[0] != len(self._order):
            return func(input, *args[1:], **kwargs)
        kwargs.pop("inplace", None)
        with torch.no_grad():
            kept = func(torch.ones_like(input), *args[1:3], **kwargs)
        return input * kept.index_select(0, self._order.to(kept.device))
