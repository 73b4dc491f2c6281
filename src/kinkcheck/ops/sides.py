"""Pointwise operations: at a kink the branches are the two sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinkcheck.kernels import Ties, count_equal, random_bits, random_rank
from kinkcheck.ops.branches import Active, Alone, Branches, Rivals, times
from kinkcheck.selection import Kinks, Random, Selection, Uniform, weight

Number = float | Tensor
Kink = tuple[Number, Number, Number]
"""Where a kink is, and the slopes on its left and on its right."""


@dataclass(frozen=True)
class Sides(Branches):
    """Kinks of a function of one number, element by element.

    The first branch is the one on the left, the second the one on the right.

    Attributes:
        input: the tensor that meets kinks.
        kinks: where each is, and the slopes on its left and right; numbers, or tensors that
            broadcast over the input.
        on: what is compared with the places of the kinks, if that is not the input itself.
        left: whether PyTorch's backward pass has the slope on the left, though its forward mode
            has the one on the right, which is 1.

    >>> x = torch.tensor([0.0, 1.0, 6.0])
    >>> Sides(x, [(0.0, 0.0, 1.0), (6.0, 1.0, 0.0)]).active(x).tied()
    tensor([ True, False,  True])
    """

    input: Tensor
    kinks: Sequence[Kink]
    on: Tensor | None = None
    left: bool = False

    @property
    def inputs(self) -> tuple[Tensor, ...]:  # type: ignore[override]
        """The one input."""
        return (self.input,)

    @property
    def slopes(self) -> tuple[tuple[float, float], ...]:
        """Those on the left and on the right of each kink, where they are numbers."""
        return tuple(
            (left, right)
            for _, left, right in self.kinks
            if not isinstance(left, Tensor) and not isinstance(right, Tensor)
        )

    def active(self, value: Tensor) -> ActiveSides:
        """The sides that meet at each kink."""
        on = self.input if self.on is None else self.on
        return ActiveSides(on.detach(), tuple(self.kinks), self.left)

    def alone(self, value: Tensor) -> Pieces:
        """The slopes of a function that is linear between its kinks."""
        on = self.input if self.on is None else self.on
        return Pieces(on.detach(), tuple(self.kinks))


@dataclass(frozen=True)
class Pieces(Alone):
    """The slopes of a function that is linear between its kinks, which are in ascending order."""

    on: Tensor
    kinks: tuple[Kink, ...]

    def push(self, tangents: tuple[Tensor, ...]) -> Tensor:
        """The tangent times the slope."""
        (direction,) = tangents
        found = times(self.kinks[0][1], direction)
        for at, _, right in self.kinks:
            found = torch.where(self.on > at, times(right, direction), found)
        return found


@dataclass(frozen=True)
class ActiveSides(Active):
    """The sides that meet where a tensor is at a kink."""

    on: Tensor
    kinks: tuple[Kink, ...]
    left: bool = False

    def tied(self) -> Tensor:
        """Elements at a kink."""
        tied = torch.zeros_like(self.on, dtype=torch.bool)
        for at, _, _ in self.kinks:
            tied = tied | (self.on == at)
        return tied

    def any_tied(self) -> bool:
        """Whether an element is at a kink."""
        return any(self._counts())

    def ties(self, value: Tensor, inputs: tuple[Tensor, ...]) -> Ties:
        """Elements at a kink, and those of them that are zero."""
        tied = at_zero = torch.zeros((), dtype=torch.int64, device=self.on.device)
        for (at, _, _), count in zip(self.kinks, self._counts(), strict=True):
            tied = tied + count
            if isinstance(at, Tensor):
                at_zero = at_zero + torch.count_nonzero((self.on == at) & (self.on == 0))
            elif at == 0:
                at_zero = at_zero + count
        return Ties(self.on.numel(), tied, at_zero)

    def _counts(self) -> Sequence[int | Tensor]:
        """How many elements are at each kink."""
        places = [at for at, _, _ in self.kinks]
        numbers = tuple(at for at in places if not isinstance(at, Tensor))
        if len(numbers) == len(places) and self.on.is_floating_point():
            return count_equal(self.on, numbers)
        return [torch.count_nonzero(self.on == at) for at in places]

    def persists(self, lifted: Branches, value: Tensor) -> Tensor:
        """Elements that are at the same kink in the lift."""
        there = lifted.active(value)
        assert isinstance(there, ActiveSides)
        same = torch.zeros_like(self.on, dtype=torch.bool)
        for (at, *_), (above, *_) in zip(self.kinks, there.kinks, strict=True):
            same |= (self.on == at) & (there.on == above)
        return same

    def native(self, tangent: Tensor) -> Tensor:
        """The tangent times the slope that the backward pass has."""
        if not self.left:
            return tangent
        slopes: list[Number] = [slope for _, slope, _ in self.kinks]
        return torch.where(self.tied(), self.push(slopes, (tangent,)), tangent)

    def weights(self, selection: Selection) -> list[Number]:
        """The slope at each kink."""
        drawn = draws(selection, self.on)
        count = len(self.kinks)
        chosen = selection.at(count) if isinstance(selection, Kinks) else [selection] * count
        slopes = []
        for (_, left, right), here in zip(self.kinks, chosen, strict=True):
            least = _least(left, right)
            on_left = weight(here, 0, 2, 1 - least, drawn)
            on_right = weight(here, 1, 2, least, drawn)
            slopes.append(_product(on_left, left) + _product(on_right, right))
        return slopes

    def along(self, tangents: tuple[Tensor, ...]) -> list[Number]:
        """The slope on the side that the tangent points to."""
        to_the_right = tangents[0] > 0
        on = tangents[0].device
        # Of two numbers it would make float32, which rounds a slope such as 0.1.
        exact = [
            [
                s if isinstance(s, Tensor) else torch.tensor(s, dtype=torch.float64, device=on)
                for s in slopes
            ]
            for _, *slopes in self.kinks
        ]
        return [torch.where(to_the_right, right, left) for left, right in exact]

    def rivals(self, tangents: tuple[Tensor, ...]) -> Rivals:
        """The tangent times either slope."""
        (moved,) = tangents
        found = []
        for at, left, right in self.kinks:
            (places,) = (self.on == at).flatten().nonzero(as_tuple=True)
            here = moved.flatten()[places]
            slopes = [
                torch.as_tensor(each, dtype=here.dtype).expand(self.on.shape).flatten()[places]
                if isinstance(each, Tensor)
                else torch.full_like(here, each)
                for each in (left, right)
            ]
            wins = (slopes[1] - slopes[0]).sign().to(torch.int64)
            found += [
                Rivals.deciding(places, torch.where(here == 0, 0, s * here), wins) for s in slopes
            ]
        return Rivals.joined(found)

    def pull(self, weights: list[Number], gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient times the slope."""
        return (self.push(weights, (gradient,)),)

    def push(self, weights: list[Number], tangents: tuple[Tensor, ...]) -> Tensor:
        """The tangent times the slope."""
        (direction,) = tangents
        found = torch.zeros_like(direction)
        for (at, _, _), slope in zip(self.kinks, weights, strict=True):
            found = torch.where(self.on == at, times(slope, direction), found)
        return found


def draws(selection: Selection, like: Tensor) -> Tensor | None:
    """What the seed of a selection draws for each element; None where it has none.

    Under ``random`` it is the rank of a side, under ``uniform`` the weight on the right in float64.

    >>> draws(Uniform(7), torch.zeros(2)).dtype
    torch.float64
    """
    if isinstance(selection, Random):
        return random_rank(torch.full_like(like, 2, dtype=torch.int64), selection.seed)
    if isinstance(selection, Uniform):
        return random_bits(like, selection.seed).to(torch.float64) / 2**32
    return None


def _least(left: Number, right: Number) -> Number:
    """The weight on the right that brings the slope nearest to 0."""
    if not isinstance(left, Tensor) and not isinstance(right, Tensor):
        return 0.0 if left == right else min(max(-left / (right - left), 0.0), 1.0)
    apart = torch.as_tensor(right - left)
    return torch.where(apart == 0, 0.0, (-left / apart).clamp(0, 1))


def _product(weight: Number, slope: Number) -> Number:
    if not isinstance(weight, Tensor):
        return 0.0 if weight == 0 else weight * slope
    weight = weight.to(torch.float64)  # a drawn rank is an integer, which makes a number float32
    return torch.where(weight == 0, 0.0, weight * slope)


def rounded(input: Tensor, scale: float | Tensor, zero_point: int | Tensor) -> Tensor:
    """The whole numbers that fake quantisation makes of a tensor, before they are clamped.

    As PyTorch computes them: the nearest even of input · (1 / scale), all in float32.

    >>> rounded(torch.tensor([0.26, 1.0]), 0.1, 3)
    tensor([ 6., 13.])
    """
    with torch.no_grad():
        per_step = 1 / torch.as_tensor(scale, dtype=torch.float32, device=input.device)
        return torch.round(input.detach().float() * per_step) + zero_point
