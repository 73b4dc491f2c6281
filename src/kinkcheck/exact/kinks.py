"""Operations with kinks over the rationals: their values, and their adjoints under a selection.

What a selection means is :func:`kinkcheck.selection.weight`; which entries compete, and where the
sides of a pointwise operation meet, is what its row says (:mod:`kinkcheck.ops.rows`). Values,
active sets and native weights are found here anew, from exact numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from math import lcm
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinkcheck.exact.rationals import Integers, Rationals
from kinkcheck.kernels.reference import random_rank
from kinkcheck.ops.picks import Contest
from kinkcheck.ops.sides import draws
from kinkcheck.selection import Hybrid, Kinks, Mix, Random, Selection, native_share, weight

KinkAdjoint = Callable[[Rationals, Selection], Rationals]
Found = tuple[Rationals, list[KinkAdjoint], int]
"""The output, an adjoint for each input, and how many outputs are tied."""

_FRACTIONS = np.vectorize(Fraction, otypes=[object])

Side = tuple[Fraction, Fraction, Fraction]
"""Where a kink is, and the slopes on its left and right."""


def sides(
    x: Rationals, kinks: Sequence[Side], anchor: Fraction, native: Sequence[Fraction]
) -> Found:
    """A function that is linear between its kinks, element by element.

    Args:
        x: the input.
        kinks: in ascending order.
        anchor: the value at the first kink.
        native: PyTorch's slope at each kink.

    >>> relu, half = (Fraction(0), Fraction(0), Fraction(1)), Fraction(1, 2)
    >>> x = Rationals(np.array([-1, 0, 3], dtype=object))
    >>> y, (pull,), tied = sides(x, [relu], Fraction(0), [Fraction(0)])
    >>> y.fractions(), tied
    ([Fraction(0, 1), Fraction(0, 1), Fraction(3, 1)], 1)
    """
    at, values = [kink[0] for kink in kinks], [anchor]
    for (here, _, slope), (there, _, _) in pairwise(kinks):
        values.append(values[-1] + slope * (there - here))
    slopes = [kinks[0][1], *(right for _, _, right in kinks)]
    # Each piece is slope · x + offset.
    ends = [(at[0], values[0]), *zip(at, values, strict=True)]
    offsets = [value - slope * end for slope, (end, value) in zip(slopes, ends, strict=True)]
    scaled = [x.numerators * each.denominator for each in at]
    bounds = [each.numerator * x.denominator for each in at]
    piece = np.zeros(x.shape, np.int64)
    for number, bound in zip(scaled, bounds, strict=True):
        piece += np.asarray(number > bound, bool)
    on = [np.asarray(n == b, bool) for n, b in zip(scaled, bounds, strict=True)]

    steep, common = _over_common(slopes)
    lifted, offset_common = _over_common(offsets)
    output = Rationals(x.numerators * steep[piece], x.denominator * common) + Rationals(
        lifted[piece], offset_common
    )

    def pull(g: Rationals, selection: Selection) -> Rationals:
        chosen = np.array(slopes, dtype=object)[piece]
        found = draws(selection, torch.empty(x.shape))
        drawn = None if found is None else _FRACTIONS(found.numpy())
        count = len(kinks)
        at = selection.at(count) if isinstance(selection, Kinks) else [selection] * count
        for here, (_, left, right), own, each in zip(on, kinks, native, at, strict=True):
            least = _nearest_to_zero(left, right)
            slope = (
                _share(each) * own
                + weight(each, 0, 2, 1 - least, drawn) * left
                + weight(each, 1, 2, least, drawn) * right
            )
            chosen = np.where(here, slope, chosen)
        numerators, denominator = _over_common(chosen.ravel().tolist())
        return Rationals(g.numerators * numerators.reshape(x.shape), g.denominator * denominator)

    tied = np.logical_or.reduce(on)
    return output, [pull], int(tied.sum())


def picks(
    inputs: Sequence[Rationals],
    contest: Contest,
    output: Sequence[int],
    largest: bool,
    native: Callable[[list[Tensor]], Tensor],
) -> Found:
    """Outputs that are the largest, or the smallest, of the entries that compete for them.

    Args:
        inputs: the inputs.
        contest: which entries compete for which output.
        output: the shape of the output.
        largest: whether the largest wins.
        native: PyTorch's weight of each entry, from stand-ins of the inputs that are ordered as
            they are.
    """
    common = lcm(*(each.denominator for each in inputs))
    numbers = [each.numerators * (common // each.denominator) for each in inputs]
    flat = np.concatenate([each.ravel() for each in numbers])
    starts = np.cumsum([0, *(each.size for each in numbers)])
    places = [
        torch.arange(start, start + each.size).reshape(each.shape)
        for start, each in zip(starts, numbers, strict=False)
    ]
    at = contest.entries(*places).numpy()
    of = contest.spread(torch.arange(int(np.prod(output))).reshape(tuple(output))).numpy()
    entries = flat[at]
    order = np.argsort(of, axis=None, kind="stable")
    firsts = np.flatnonzero(np.diff(of.ravel()[order], prepend=-1))
    extreme = np.maximum if largest else np.minimum
    best = extreme.reduceat(entries.ravel()[order], firsts)
    attains = torch.from_numpy(np.asarray(entries == best[of], bool))
    size, ranks = contest.total(attains.to(torch.int64)), contest.ranks(attains)
    sizes = contest.spread(size)

    def weights(selection: Selection) -> tuple[Integers, int]:
        drawn = _drawn(size, selection, contest)
        share = _share(selection)
        own = native([_ordered(numbers, each) for each in numbers]) if share else None
        chosen = np.zeros(attains.shape, dtype=object)
        for place in zip(*(each.tolist() for each in torch.nonzero(attains).T), strict=True):
            m = int(sizes[place])
            if m == 1:
                chosen[place] = Fraction(1)
                continue
            rank = int(ranks[place])
            least, draw = Fraction(1, m), None if drawn is None else int(drawn[place])
            chosen[place] = Fraction(weight(selection, rank, m, least, draw))
            if own is not None:
                chosen[place] += share * Fraction(float(own[place])).limit_denominator(m)
        numerators, denominator = _over_common(chosen.ravel().tolist())
        return numerators.reshape(attains.shape), denominator

    def adjoint(number: int) -> KinkAdjoint:
        def pull(g: Rationals, selection: Selection) -> Rationals:
            given, denominator = weights(selection)
            pulled = np.zeros(len(flat), dtype=object)
            np.add.at(pulled, at, g.numerators.ravel()[of] * given)
            own = pulled[starts[number] : starts[number + 1]]
            return Rationals(own.reshape(inputs[number].shape), g.denominator * denominator)

        return pull

    tied = int((size > 1).sum())
    value = Rationals(best.reshape(tuple(output)), common)
    return value, [adjoint(number) for number in range(len(inputs))], tied


def window_weights(active: NDArray[np.bool_], selection: Selection) -> tuple[Integers, int]:
    """The weights of the entries of windows, of which the first active one is native.

    Args:
        active: which entries attain the value of their window, (..., places).
        selection: any selection of a maximum.

    Returns:
        Integers of that shape over a common denominator.

    >>> from kinkcheck.selection import Minimal
    >>> window_weights(np.array([[True, False, True]]), Minimal())
    (array([[1, 0, 1]], dtype=object), 2)
    """
    rank = active.cumsum(axis=-1) - 1
    size = np.broadcast_to(rank[..., -1:] + 1, active.shape)
    drawn = _drawn(torch.from_numpy(size[..., 0].astype(np.int64)), selection)
    if drawn is not None:
        return (active & (rank == drawn[..., None])).astype(object), 1
    share = _share(selection)
    kinds, of = np.unique(np.stack([rank[active], size[active]]), axis=1, return_inverse=True)
    each = [
        share * (r == 0) + (1 - share if m == 1 else weight(selection, r, m, Fraction(1, m), None))
        for r, m in kinds.T.tolist()
    ]
    numerators, denominator = _over_common(each)
    found = np.zeros(active.shape, dtype=object)
    found[active] = numerators[of.ravel()]
    return found, denominator


def _over_common(numbers: Sequence[Any]) -> tuple[Integers, int]:
    fractions = [Fraction(each) for each in numbers]
    common = lcm(*{each.denominator for each in fractions})
    found = np.empty(len(fractions), dtype=object)
    found[:] = [each.numerator * (common // each.denominator) for each in fractions]
    return found, common


def _share(selection: Selection) -> Fraction:
    """:func:`kinkcheck.selection.native_share` without its rounding."""
    if isinstance(selection, Hybrid):
        return 1 - Fraction(selection.beta)
    if isinstance(selection, Mix):
        return sum((Fraction(f) * _share(part) for f, part in selection.parts), Fraction(0))
    return Fraction(native_share(selection))


def _nearest_to_zero(left: Fraction, right: Fraction) -> Fraction:
    """The weight on the right that brings the slope nearest to 0."""
    return (
        Fraction(0) if left == right else min(max(-left / (right - left), Fraction(0)), Fraction(1))
    )


def _drawn(size: Tensor, selection: Selection, contest: Contest | None = None) -> Any:
    if not isinstance(selection, Random):
        return None
    drawn = random_rank(size, selection.seed)
    return drawn.numpy() if contest is None else contest.spread(drawn).numpy()


def _ordered(numbers: list[Integers], one: Integers) -> Tensor:
    """Floats that are ordered as exact numbers are, among those of all inputs."""
    known = np.unique(np.concatenate([each.ravel() for each in numbers]))
    return torch.from_numpy(np.searchsorted(known, one).astype(np.float64))
