"""Difference quotients: evidence on a gradient that knows nothing of how it was computed.

A function is evaluated in float64 at a point, and at points nearby. Along a direction it has a
slope at the point itself on either side; at points nearby, where it is smooth, it has a gradient.
Over the reals the limits of such gradients span the Clarke subdifferential.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinkcheck.measure.standing import Kind
from kinkcheck.measure.standing.cones import combination

Floats = NDArray[np.float64]

NEAR = 0.01
"""The second step, where the first may have crossed a kink beside the point, in units of it."""

POINTS = 32
"""How many points nearby are drawn, and about as many are looked for on the way to a gradient."""

INSIDE = 0.001
"""The step of quotients at points nearby, in units of the first: few meet a kink so close."""

ELEMENTS = 64
"""Of functions of more numbers gradients nearby are taken along some directions only."""

_LOOKED_AT = 10**7
"""How many numbers all points together may have at which such directions are looked for."""

_FRAME = 640_000
"""How many numbers these directions may have, if there are more than eight."""

_ROOM = 2**28
"""How many bytes of values are kept."""

_SEARCHED = 256
"""How many points are tried before gradients beyond are held not to be there."""

_ROUNDS = 8
"""How often that is done at most."""

_ROUNDING = 16 * 2.0**-53
"""How far the values in a quotient may be from true, all together, in units of their size."""


@dataclass
class Values:
    """A function of numbers, evaluated around a point; values are kept as far as there is room.

    Args:
        function: from the numbers to its outputs, both in one vector of float64.
        at: the point.
        eps: how far around it to look; for numbers above 1 in units of them.

    >>> values = Values(torch.square, torch.tensor([3.0], dtype=torch.float64), 1e-6)
    >>> values([0.5])
    tensor([9.0000], dtype=torch.float64)
    """

    function: Callable[[Tensor], Tensor]
    at: Tensor
    eps: float
    scale: Floats = field(init=False)
    _known: dict[bytes, Tensor] = field(default_factory=dict, init=False, repr=False)
    _kept: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self.scale = self.at.abs().clamp(min=1).numpy()

    def __call__(self, displaced: Floats | list[float]) -> Tensor:
        """The outputs, displaced from the point by some times ``eps``."""
        displacement = np.asarray(displaced, dtype=np.float64)
        key = blake2b(displacement.tobytes()).digest()
        if key in self._known:
            return self._known[key]
        found = self.function(self.at + self.eps * torch.from_numpy(self.scale * displacement))
        if self._kept < _ROOM:
            self._known[key] = found
            self._kept += found.nbytes
        return found


@dataclass(frozen=True)
class Judged:
    """What the quotients alone tell of a gradient.

    Attributes:
        kind: what it is, as far as they tell.
        why: why they decide nothing.
    """

    kind: Kind
    why: str | None = None


@dataclass(frozen=True)
class Slopes:
    """The slopes of one number that a function returns, or of a sum of some.

    Directions and gradients are in units of ``values.scale``.

    Args:
        values: of the function.
        cotangent: how much of each output is in the sum.
        atol, rtol: up to ``atol + rtol * |slope|`` two slopes are equal.

    >>> zero = torch.zeros(1, dtype=torch.float64)
    >>> slopes = Slopes(Values(torch.abs, zero, 1e-6), torch.ones_like(zero), 1e-5, 1e-3)
    >>> [round(slopes.along(np.array([side])), 6) for side in (1.0, -1.0)]
    [1.0, 1.0]
    >>> [str(slopes.judge(np.array([g])).kind) for g in (1.0, 0.5, 2.0)]
    ['limit', 'subgradient', 'wrong']
    """

    values: Values
    cotangent: Tensor
    atol: float
    rtol: float

    def along(self, direction: Floats, step: float = 1.0) -> float:
        """The slope at the point to one side; what is of second order cancels."""
        here, half, whole = (self._value(s * direction) for s in (0.0, step / 2, step))
        return (4 * half - whole - 3 * here) / (step * self.values.eps) + 0.0

    def meets(self, direction: Floats, slope: float) -> bool:
        """Whether a slope is that of the function, along a direction."""
        return any(
            abs(found - slope) <= self._tolerance(found, step)
            for step in (1.0, NEAR)
            for found in [self.along(direction, step)]
        )

    def blunt(self, directions: Sequence[Floats]) -> bool:
        """Whether rounding hides what is as small as the tolerance, beside the largest slope."""
        largest = max((abs(self.along(each)) for each in directions), default=0.0)
        return self._rounding(1.0) > self.atol + self.rtol * largest

    def beyond(self, direction: Floats, slope: float) -> float:
        """How far outside those of both sides a slope is; 0 if it equals one of them."""
        found = np.inf
        for step in (1.0, NEAR):
            right, left = self.along(direction, step), -self.along(-direction, step)
            off = max(slope - max(left, right), min(left, right) - slope)
            if off <= self._tolerance(max(abs(left), abs(right)), step):
                return 0.0
            found = min(found, off)
        return found

    def unbounded(self, direction: Floats) -> bool:
        """Whether slopes grow without bound towards the point, as at a jump, or are not finite."""
        here = self._value(0 * direction)
        steps = (1.0, NEAR, NEAR**2)
        slopes = [abs(self._value(s * direction) - here) / (s * self.values.eps) for s in steps]
        noise = self._tolerance(0.0, NEAR**2)
        return all(not b <= 5 * a + noise for a, b in pairwise(slopes))

    def judge(self, gradient: Floats, directions: Sequence[Floats] = ()) -> Judged:
        """What a gradient is, as far as gradients at points nearby tell.

        It is right if it is one of them or a convex combination of some. It is wrong if along a
        direction it is outside all of theirs, each of which was met more than once, and a search
        for one beyond finds nothing.

        Args:
            gradient: what autograd returns.
            directions: where it may not fit, beside elements.
        """
        frame = self._frame(gradient, directions)
        if any(self.unbounded(side * each) for each in frame for side in (1, -1)):
            return Judged(Kind.UNDECIDED, "its slopes are not bounded, or not defined, there")
        nearby = _Nearby(self, frame)
        nearby.draw()
        if len(nearby.found) < POINTS // 2:
            return Judged(Kind.UNDECIDED, "too few points nearby are away from kinks")
        if not np.isfinite(gradient).all():
            return Judged(Kind.WRONG)
        along = frame @ gradient
        if nearby.are(along) and all(
            self.meets(side * each, side * slope)
            for each, slope in zip(frame, along, strict=True)
            for side in (1, -1)
        ):
            return Judged(Kind.DERIVATIVE)
        undecided = Judged(Kind.UNDECIDED, "gradients nearby do not tell")
        for _ in range(_ROUNDS):
            apart = nearby.approach(along)
            if apart is None and len(frame) < len(gradient):
                return undecided
            if apart is None:
                return Judged(Kind.LIMIT if nearby.holds(along) else Kind.SUBGRADIENT)
            outside = nearby.separating(along, apart)
            if outside is None:
                return undecided
            if not nearby.found_beyond(outside):
                return Judged(Kind.WRONG)
        return undecided

    def varies(self, directions: Sequence[Floats]) -> bool:
        """Whether gradients at points nearby differ, as far as slopes along directions tell."""
        nearby = _Nearby(self, np.stack(directions))
        nearby.draw()
        return not nearby.found or not nearby.are(nearby.found[0])

    def _frame(self, gradient: Floats, directions: Sequence[Floats]) -> Floats:
        """Directions, one a row: all elements, or those and others that fit the gradient least."""
        count = len(gradient)
        if count <= ELEMENTS:
            return np.eye(count)
        every = [*(unit(count, n) for n in self.telling(gradient)), *directions]
        beyond = [self.beyond(each, float(gradient @ each)) for each in every]
        most = min(ELEMENTS, max(8, _FRAME // count))
        return np.stack([every[n] for n in np.argsort(beyond)[-most:]])

    @staticmethod
    def telling(gradient: Floats) -> NDArray[np.int64]:
        """The elements of an input that are looked at alone: all, or of very many some.

        Those are the ones in which the gradient is largest, and as many all over the input.

        >>> Slopes.telling(np.ones(3))
        array([0, 1, 2])
        """
        count = len(gradient)
        most = max(16, _LOOKED_AT // (count + 1))
        if count <= most:
            return np.arange(count)
        largest = np.argsort(np.abs(gradient), kind="stable")[-(most // 2) :]
        return np.union1d(largest, np.linspace(0, count - 1, most // 2).astype(np.int64))

    def _value(self, displaced: Floats) -> float:
        return float(self.cotangent @ self.values(displaced))

    def _rounding(self, step: float) -> float:
        here = self.values(np.zeros(len(self.values.at)))
        size = float(self.cotangent.abs() @ here.abs())
        return _ROUNDING * size / (step * self.values.eps)

    def _tolerance(self, slope: float, step: float) -> float:
        return self.atol + self.rtol * abs(slope) + self._rounding(step)


def unit(count: int, place: int) -> Floats:
    """The direction of one element.

    >>> unit(3, 1)
    array([0., 1., 0.])
    """
    found = np.zeros(count)
    found[place] = 1
    return found


class _Nearby:
    """Gradients at points nearby where the function is smooth.

    Args:
        slopes: of the function.
        frame: the directions along which gradients are taken, one a row.
    """

    def __init__(self, slopes: Slopes, frame: Floats) -> None:
        self.found: list[Floats] = []
        self._slopes = slopes
        self._frame = frame
        self._random = np.random.default_rng(0)

    def draw(self) -> None:
        """Find gradients in directions drawn at random."""
        for _ in range(POINTS):
            self._add(self._random.standard_normal(len(self._slopes.values.at)))

    def are(self, gradient: Floats) -> bool:
        """Whether all are equal to one."""
        return all(self._equal(each, gradient) for each in self.found)

    def holds(self, gradient: Floats) -> bool:
        """Whether one of them is equal to it."""
        return any(self._equal(each, gradient) for each in self.found)

    def approach(self, gradient: Floats) -> Floats | None:
        """From the nearest convex combination to a gradient; None if that is equal to it.

        Further points are looked for where gradients may be that are still nearer.
        """
        for _ in range(POINTS // 2):
            weights = combination(np.stack(self.found), gradient)
            apart: Floats = gradient - weights @ np.stack(self.found)
            if self._equal(gradient, gradient - apart):
                return None
            away = _unit(self._frame.T @ apart)
            spread = self._random.standard_normal(len(away)) / np.sqrt(len(away))
            for side in (1, -1):
                self._add(side * away + 0.1 * spread)
        return apart

    def separating(self, gradient: Floats, apart: Floats) -> Floats | None:
        """A direction along which a gradient is above all of them, each of which repeats itself."""
        for direction in (*np.eye(len(gradient)), *-np.eye(len(gradient)), apart):
            along = _unit(direction)
            seen = np.sort(np.stack(self.found) @ along)
            within = self._within(seen)
            runs = np.split(seen, np.nonzero(np.diff(seen) > within)[0] + 1)
            if gradient @ along - seen[-1] > within and all(len(run) > 1 for run in runs):
                return along
        return None

    def found_beyond(self, along: Floats) -> bool:
        """Whether more points have a gradient that is above all of them along a direction.

        The first is kept.
        """
        seen = np.stack(self.found) @ along
        direction = self._frame.T @ along
        for tried in range(_SEARCHED):
            drawn = self._random.standard_normal(len(direction))
            # Cells may be thin: some points are nearly on faces.
            point = _unit(drawn * 10.0 ** self._random.uniform(-2, 0, len(drawn)))
            if tried % 2:  # where it would be if the function were convex, or concave
                point = _unit((tried % 4 - 2) * direction + 0.3 * point)
            (slope,) = self._at(point, [direction]) or [-np.inf]
            if slope > seen.max() + self._within(seen) and self._add(point):
                return True
        return False

    def _within(self, slopes: Floats) -> float:
        return self._slopes._tolerance(float(np.abs(slopes).max(initial=0)), INSIDE)

    def _add(self, towards: Floats) -> bool:
        gradient = self._at(_unit(towards), self._frame)
        if gradient is not None:
            self.found.append(np.array(gradient))
        return gradient is not None

    def _at(self, point: Floats, directions: Iterable[Floats]) -> list[float] | None:
        """Slopes at a point along directions; None where it has a kink in one of them."""
        here = self._slopes._value(point)
        step = INSIDE * self._slopes.values.eps
        found = []
        for direction in directions:
            ahead, behind = (
                side * (self._slopes._value(point + side * INSIDE * direction) - here) / step
                for side in (1, -1)
            )
            slope = (ahead + behind) / 2
            if not abs(ahead - behind) <= self._slopes._tolerance(slope, INSIDE):
                return None
            found.append(slope)
        return found

    def _equal(self, a: Floats, b: Floats) -> bool:
        return bool((np.abs(a - b) <= self._within(b)).all())


def _unit(direction: Floats) -> Floats:
    found: Floats = direction / np.linalg.norm(direction)
    return found
