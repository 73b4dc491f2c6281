"""Layers over the rationals: what they return, and how a cotangent is pulled back through them.

Each function returns its output and one adjoint for each of its inputs. The adjoint of a layer
with kinks also takes a selection, whose meaning is that of :mod:`kinkcheck.selection`; such a layer
also returns how many of its windows are tied.

Written from the definitions and independent of :mod:`kinkcheck.kernels`, which it judges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import lcm, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinkcheck.errors import InputError
from kinkcheck.exact.kinks import Found, window_weights
from kinkcheck.exact.rationals import Integers, Rationals
from kinkcheck.selection import Selection

Adjoint = Callable[[Rationals], Rationals]


@dataclass(frozen=True)
class Windows:
    """The windows of a layer over the last dimensions of its input.

    Attributes:
        outputs: how many windows there are along each dimension.
        at: which flat position each place of a window has, (∏ outputs, ∏ places); the number of
            positions itself where the place lies in the padding.
        positions: the number of positions.
    """

    outputs: tuple[int, ...]
    at: NDArray[np.int64]
    positions: int

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which places are not padding."""
        return self.at < self.positions

    def gather(self, x: Rationals) -> Rationals:
        """What the windows hold, 0 in the padding: (rows, windows, places)."""
        rows = x.numerators.reshape(-1, self.positions)
        padded = np.concatenate([rows, np.zeros((len(rows), 1), object)], axis=1)
        return Rationals(padded[:, self.at], x.denominator)

    def scatter(self, values: Rationals) -> Rationals:
        """The adjoint of :meth:`gather`: (rows, positions)."""
        padded = np.zeros((len(values.numerators), self.positions + 1), object)
        np.add.at(padded.T, self.at, np.moveaxis(values.numerators, 0, -1))
        return Rationals(padded[:, :-1], values.denominator)


@dataclass(frozen=True)
class Along:
    """One dimension of :class:`Windows`: the places of each window, −1 in the padding."""

    size: int
    places: NDArray[np.int64]


def sliding(
    size: int,
    kernel: int,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    ceil_mode: bool = False,
) -> Along:
    """Windows that slide along a dimension, as PyTorch's do.

    >>> sliding(4, 3, 2, (1, 1), 1).places.tolist()
    [[-1, 0, 1], [1, 2, 3]]
    """
    before, after = padding
    span = size + before + after - dilation * (kernel - 1) - 1
    outputs = (-(-span // stride) if ceil_mode else span // stride) + 1
    if ceil_mode and (outputs - 1) * stride >= size + before:
        outputs -= 1  # no window starts in the padding behind
    starts = np.arange(outputs)[:, None] * stride - before
    places = starts + np.arange(kernel) * dilation
    return Along(size, np.where((places >= 0) & (places < size), places, -1))


def adaptive(size: int, outputs: int) -> Along:
    """Window o of n holds the inputs from ⌊o s / n⌋ to ⌈(o + 1) s / n⌉ − 1.

    >>> adaptive(5, 2).places.tolist()
    [[0, 1, 2], [2, 3, 4]]
    """
    starts = [o * size // outputs for o in range(outputs)]
    ends = [-(-(o + 1) * size // outputs) for o in range(outputs)]
    longest = max(end - start for start, end in zip(starts, ends, strict=True))
    places = np.array(starts)[:, None] + np.arange(longest)
    return Along(size, np.where(places < np.array(ends)[:, None], places, -1))


def windows(along: Sequence[Along]) -> Windows:
    """The windows over several dimensions, places in row-major order.

    >>> windows([sliding(2, 2, 1, (0, 0), 1), sliding(3, 2, 1, (0, 0), 1)]).at.tolist()
    [[0, 1, 3, 4], [1, 2, 4, 5]]
    """
    at = np.zeros((1, 1), np.int64)
    inside = np.ones((1, 1), bool)
    for dimension in along:
        outputs, places = dimension.places.shape
        shape = (len(at) * outputs, at.shape[1] * places)
        next_ = dimension.places[None, :, None, :]
        at = (at[:, None, :, None] * dimension.size + next_).reshape(shape)
        inside = (inside[:, None, :, None] & (next_ >= 0)).reshape(shape)
    positions = prod(dimension.size for dimension in along)
    outputs_ = tuple(len(dimension.places) for dimension in along)
    return Windows(outputs_, np.where(inside, at, positions), positions)


def linear(x: Rationals, weight: Rationals) -> tuple[Rationals, Adjoint, Adjoint]:
    """The product x Wᵀ, and the adjoints for x and W."""
    rows = x.reshape(-1, x.shape[-1])

    def flat(g: Rationals) -> Rationals:
        return g.reshape(-1, weight.shape[0])

    return (
        (rows @ weight.T).reshape(*x.shape[:-1], weight.shape[0]),
        lambda g: (flat(g) @ weight).reshape(*x.shape),
        lambda g: flat(g).T @ rows,
    )


def convolution(
    x: Rationals, weight: Rationals, over: Windows, groups: int
) -> tuple[Rationals, Adjoint, Adjoint]:
    """The cross-correlation that PyTorch calls convolution, and the adjoints for x and the weight.

    Args:
        x: (batch, channels, sizes).
        weight: (filters, channels / groups, places).
        over: the windows.
        groups: how many parts the channels are divided into.
    """
    batch, channels, *_ = x.shape
    places, each = len(over.at), channels // groups
    filters = weight.shape[0] // groups
    columns = (
        over.gather(x)
        .reshape(batch, groups, each, places, -1)
        .moved(1, 0, 3, 2, 4)
        .reshape(groups, batch * places, -1)
    )
    kernels = weight.reshape(groups, filters, -1)

    def by_group(g: Rationals) -> Rationals:
        split = g.reshape(batch, groups, filters, places)
        return split.moved(1, 0, 3, 2).reshape(groups, batch * places, filters)

    def for_input(g: Rationals) -> Rationals:
        pulled = (by_group(g) @ kernels).reshape(groups, batch, places, each, -1)
        rows = pulled.moved(1, 0, 3, 2, 4).reshape(batch * channels, places, -1)
        return over.scatter(rows).reshape(*x.shape)

    output = (columns @ kernels.T).reshape(groups, batch, places, filters).moved(1, 0, 3, 2)
    return (
        output.reshape(batch, groups * filters, *over.outputs),
        for_input,
        lambda g: (by_group(g).T @ columns).reshape(*weight.shape),
    )


def per_channel(x: Rationals, values: Rationals, dimension: int) -> Rationals:
    """A number for each channel in a shape that broadcasts over x."""
    shape = [1] * len(x.shape)
    shape[dimension] = -1
    return values.reshape(*shape)


def over_channels(g: Rationals, dimension: int) -> Rationals:
    """The adjoint of :func:`per_channel`: the sums over all other dimensions."""
    return g.sum(*(d for d in range(len(g.shape)) if d != dimension))


def summed_to(g: Rationals, shape: tuple[int, ...]) -> Rationals:
    """The adjoint of broadcasting from a shape."""
    extra = len(g.shape) - len(shape)
    repeated = [d + extra for d, size in enumerate(shape) if size < g.shape[d + extra]]
    return g.sum(*range(extra), *repeated).reshape(*shape)


def average_pool(x: Rationals, over: Windows, divisors: Sequence[int]) -> tuple[Rationals, Adjoint]:
    """The sum over each window divided by its divisor, over one common denominator."""
    common = lcm(*divisors)
    shares = Rationals(_objects([common // divisor for divisor in divisors]), common)

    def pull(g: Rationals) -> Rationals:
        parts = (g.reshape(-1, len(divisors)) * shares).numerators
        spread = np.broadcast_to(parts[..., None], (*parts.shape, over.at.shape[1]))
        return over.scatter(Rationals(spread, g.denominator * common)).reshape(*x.shape)

    pooled = over.gather(x).sum(-1) * shares
    return pooled.reshape(*x.shape[: len(x.shape) - len(over.outputs)], *over.outputs), pull


def max_pool(x: Rationals, over: Windows) -> Found:
    """The largest entry of each window; tied where several attain it.

    Raises:
        InputError: a window holds nothing but padding.
    """
    inside = over.inside
    if not inside.any(axis=1).all():
        raise InputError("model: a window of a max pooling holds nothing but padding")
    # In the padding the first entry of the window once more, which is never larger.
    first = np.take_along_axis(over.at, inside.argmax(axis=1)[:, None], axis=1)
    at = np.where(inside, over.at, first)
    entries = x.numerators.reshape(-1, over.positions)[:, at]
    largest = np.maximum.reduce(entries, axis=-1)
    active = (entries == largest[..., None]).astype(bool) & inside

    def pull(g: Rationals, selection: Selection) -> Rationals:
        weights, denominator = window_weights(active, selection)
        row, window, place = np.nonzero(weights)
        cotangents = g.numerators.reshape(largest.shape)
        pulled = np.zeros((len(entries), over.positions), object)
        parts = cotangents[row, window] * weights[row, window, place]
        np.add.at(pulled, (row, over.at[window, place]), parts)
        return Rationals(pulled, g.denominator * denominator).reshape(*x.shape)

    shape = (*x.shape[: len(x.shape) - len(over.outputs)], *over.outputs)
    tied = int((active.sum(axis=-1) > 1).sum())
    return Rationals(largest, x.denominator).reshape(*shape), [pull], tied


def _objects(values: Any) -> Integers:
    return np.array(values, dtype=object)
