"""How far two gradients are apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 1 << 17


@dataclass(frozen=True)
class Variation:
    """D(P, Q; θ, B), the distance between the gradients of two programs at a point.

    All sums are accumulated in float64. All are NaN where the reference gradient is not finite.

    Attributes:
        l1: sum of absolute differences.
        l2: square root of the sum of squared differences.
        linf: largest absolute difference.
        linf_by_tensor: sum over parameter tensors of the largest absolute difference in each, the
            norm of the volume experiments (Boustany 2024, section 3).
        relative_l1: l1 divided by the l1 norm of the reference gradient; infinite if only that is
            0, NaN if both are.
    """

    l1: float
    l2: float
    linf: float
    linf_by_tensor: float
    relative_l1: float


def gradient_variation(
    gradient: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> Variation:
    """The variation of a gradient against a reference, both by parameter name.

    >>> gradient = {"weight": torch.tensor([1.0, 4.0]), "bias": torch.tensor([1.0])}
    >>> reference = {"weight": torch.tensor([1.0, 1.0]), "bias": torch.tensor([2.0])}
    >>> gradient_variation(gradient, reference)
    Variation(l1=4.0, l2=3.1622776601683795, linf=3.0, linf_by_tensor=4.0, relative_l1=1.0)
    """
    norm = l1_norm(reference)
    if not math.isfinite(norm):
        return Variation(math.nan, math.nan, math.nan, math.nan, math.nan)
    l1, l2, linf = 0.0, 0.0, []
    for name in reference:
        found = [
            (d.sum(), d.max(), d.square_().sum())
            for d in _distances(gradient[name], reference[name])
        ]
        if found:
            sums, largest, squares = (torch.stack(each) for each in zip(*found, strict=True))
            l1 += sums.sum().item()
            l2 += squares.sum().item()
            linf.append(largest.max().item())
    return Variation(
        l1=l1,
        l2=math.sqrt(l2),
        linf=_largest(linf),
        linf_by_tensor=sum(linf, 0.0),
        relative_l1=l1 / norm if norm else math.inf if l1 > 0 else math.nan,
    )


def l1_distance(gradient: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    """The l1 variation alone, accumulated in float64.

    >>> l1_distance({"weight": torch.tensor([1.0, 4.0])}, {"weight": torch.tensor([2.0, 1.0])})
    4.0
    """
    return sum(
        distance.sum().item()
        for name, tensor in reference.items()
        for distance in _distances(gradient[name], tensor)
    )


def _distances(gradient: Tensor, reference: Tensor) -> Iterator[Tensor]:
    """Absolute differences in float64, some rows at a time: what fits into the caches."""
    if not reference.dim():
        gradient, reference = gradient[None], reference[None]
    rows = max(1, _CHUNK * len(reference) // max(1, reference.numel()))
    for a, b in zip(torch.split(gradient, rows), torch.split(reference, rows), strict=True):
        if not torch.equal(a, b):
            yield (a.double() - b).abs_()


def l1_norm(gradient: Mapping[str, Tensor]) -> float:
    """The sum of absolute values of a gradient, accumulated in float64.

    >>> l1_norm({"weight": torch.tensor([1.0, -2.0])})
    3.0
    """
    return sum((tensor.abs().sum(dtype=torch.float64).item() for tensor in gradient.values()), 0.0)


def _largest(values: list[float]) -> float:
    # max() keeps or drops a NaN depending on where it stands.
    return math.nan if any(map(math.isnan, values)) else max(values, default=0.0)
