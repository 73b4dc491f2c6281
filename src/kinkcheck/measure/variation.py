"""How far two gradients are apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 1 << 17


ROUNDINGS = 100
"""How far two gradients may be apart that are one over the reals, in unit roundoffs of their l1
norm."""


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
    l1, l2 = 0.0, 0.0
    by_tensor = dict.fromkeys(reference, 0.0)
    for names, lengths, distances in _distances(gradient, reference):
        l1 += distances.sum().item()
        parts = torch.stack([part.max() for part in distances.split(lengths)]).tolist()
        for name, part in zip(names, parts, strict=True):
            by_tensor[name] = largest([by_tensor[name], part])
        l2 += distances.square_().sum().item()
    return Variation(
        l1=l1,
        l2=math.sqrt(l2),
        linf=largest(list(by_tensor.values())),
        linf_by_tensor=sum(by_tensor.values(), 0.0),
        relative_l1=l1 / norm if norm else math.inf if l1 > 0 else math.nan,
    )


def l1_distance(gradient: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    """The l1 variation alone, accumulated in float64.

    >>> l1_distance({"weight": torch.tensor([1.0, 4.0])}, {"weight": torch.tensor([2.0, 1.0])})
    4.0
    """
    return sum((each.sum().item() for *_, each in _distances(gradient, reference)), 0.0)


def l1_norm(gradient: Mapping[str, Tensor]) -> float:
    """The sum of absolute values of a gradient, accumulated in float64.

    >>> l1_norm({"weight": torch.tensor([1.0, -2.0])})
    3.0
    """
    pieces = (each for _, _, (each,) in _pieces([gradient]))
    return sum((each.abs().sum(dtype=torch.float64).item() for each in pieces), 0.0)


LEAST = 1e-3
"""A gradient of a tensor that is smaller than this part of the largest may be rounding alone."""


def alike(
    gradient: Mapping[str, Tensor], reference: Mapping[str, Tensor], tolerance: float
) -> bool:
    """Whether two gradients are one, tensor by tensor: a large one hides nothing of a small one.

    Args:
        gradient: the one, by parameter name.
        reference: the other.
        tolerance: how far apart, in 2-norms, each tensor may be, as a part of its norm.

    >>> large, small = torch.tensor([1e6]), torch.tensor([1.0])
    >>> alike({"a": large, "b": small}, {"a": large, "b": 0 * small}, 1e-4)
    False
    """
    norms = {name: _norm(each) for name, each in reference.items()}
    least = LEAST * max(norms.values(), default=0.0)
    return all(
        torch.equal(gradient[name], each)
        or _norm(_wide(gradient[name]) - each)
        <= tolerance * max(least, norms[name], _norm(gradient[name]))
        for name, each in reference.items()
    )


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=_widest(tensor)))


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(_widest(tensor))


def _widest(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64


def _distances(
    gradient: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> Iterator[tuple[list[str], list[int], Tensor]]:
    """Absolute differences in float64, where there are any."""
    for names, lengths, (a, b) in _pieces([gradient, reference]):
        if not torch.equal(a, b):
            yield names, lengths, (_wide(a) - b).abs()


def _pieces(
    gradients: Sequence[Mapping[str, Tensor]],
) -> Iterator[tuple[list[str], list[int], list[Tensor]]]:
    """Gradients in pieces that fit into the caches: parts of large tensors, many small ones.

    Yields:
        The names of the tensors in a piece, how many entries there are of each, and the piece of
        every gradient, one behind the other.
    """
    reference = gradients[-1]
    held: list[str] = []
    for name, tensor in reference.items():
        if held and not _fits([reference[each] for each in held], tensor):
            yield _piece(gradients, held)
            held = []
        if tensor.numel() > _CHUNK:
            # In whole rows, which are views whatever strides a tensor has.
            rows = max(1, _CHUNK * len(tensor) // tensor.numel())
            for parts in zip(*(each[name].split(rows) for each in gradients), strict=True):
                yield [name], [parts[0].numel()], [part.reshape(-1) for part in parts]
        elif tensor.numel():
            held.append(name)
    if held:
        yield _piece(gradients, held)


def _fits(held: Sequence[Tensor], tensor: Tensor) -> bool:
    """Whether a tensor can join others in one piece."""
    small = tensor.numel() + sum(each.numel() for each in held) <= _CHUNK
    return small and tensor.dtype == held[0].dtype and tensor.device == held[0].device


def _piece(
    gradients: Sequence[Mapping[str, Tensor]], names: list[str]
) -> tuple[list[str], list[int], list[Tensor]]:
    lengths = [gradients[-1][name].numel() for name in names]
    return names, lengths, [torch.cat([g[name].reshape(-1) for name in names]) for g in gradients]


def largest(values: list[float]) -> float:
    """The largest of some distances; NaN if one is, 0 if there are none.

    >>> largest([1.0, math.nan]), largest([])
    (nan, 0.0)
    """
    # max() keeps or drops a NaN depending on where it stands.
    return math.nan if any(map(math.isnan, values)) else max(values, default=0.0)
