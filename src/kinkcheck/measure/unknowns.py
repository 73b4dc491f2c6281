"""What is unknown of a choice at one site, when it is to be found from a gradient.

A site's gradient is affine in some numbers: in the weight on the right of each kink of a pointwise
operation, in the factors of a sum of selections where entries tie, in the α of a norm at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from kinkcheck import ops
from kinkcheck.measure.forward import Kinks
from kinkcheck.ops.branches import Rivals
from kinkcheck.ops.declared import Declared
from kinkcheck.ops.sides import Kink
from kinkcheck.selection import (
    Branch,
    Every,
    First,
    Hybrid,
    Last,
    Minimal,
    Mix,
    Native,
    Selection,
)
from kinkcheck.selection import Kinks as ByKink

_NOTHING = Mix(((0.0, Native()),))
"""No gradient at a tie."""

_IN_ORDER: tuple[Selection, ...] = (Native(), Minimal(), First(), Last())


@dataclass(frozen=True)
class Unknowns:
    """The numbers of one site.

    Attributes:
        base: what is chosen where all are 0.
        along: what is chosen where one is 1 and the others are 0.
        shared: whether they sum to 1.
        bounds: what each is between, of a choice that the operation allows.
    """

    base: Selection
    along: tuple[Selection, ...]
    shared: bool = False
    bounds: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def of(cls, kinks: Kinks, allowed: bool) -> Unknowns:
        """The numbers of a site.

        Args:
            kinks: the site.
            allowed: whether all is kept within what the operation allows.
        """
        row = kinks.site.row
        if row.has(Branch(0)) and row.has(First()):
            count = len(sides(kinks))
            units = [tuple(float(n == k) for n in range(count)) for k in range(count)]
            found = cls(ByKink((0.0,) * count), tuple(map(ByKink, units)))
        elif row.has(Branch(0)):
            found = cls(Native(), (Branch(1),), bounds=(-1.0, 1.0))
        else:
            parts = list(_IN_ORDER)
            if not row.has(Every()):
                allowed = True
            elif not allowed:
                parts += [Every(), _NOTHING]
            elif (most := largest_tie(kinks)) is not None:
                parts.append(Hybrid(most / (most - 1)))
            found = cls(Native(), tuple(parts), shared=True, bounds=(0.0, math.inf))
        return found if allowed else replace(found, bounds=(-math.inf, math.inf))

    def selection(self, numbers: Sequence[float], known: Sequence[bool]) -> Selection:
        """What is chosen under some numbers.

        Args:
            numbers: their values.
            known: whether the gradient depends on each at all.
        """
        if isinstance(self.base, ByKink):
            first = next(n for n, k in zip(numbers, known, strict=True) if k)
            alphas = [n if k else first for n, k in zip(numbers, known, strict=True)]
            return ByKink(tuple(alphas))
        if not self.shared:
            return Branch(numbers[0])
        factors = dict(zip(self.along, numbers, strict=True))
        if self.along == _IN_ORDER:
            # Of these there is no sum but that of native and minimal: else the likeliest alone.
            likeliest = max(factors, key=lambda part: factors[part])
            whole = isinstance(likeliest, First | Last)
            return likeliest if whole else Hybrid(factors[Minimal()])
        return Mix(tuple((n, part) for part, n in factors.items() if part is not _NOTHING))


def sides(kinks: Kinks) -> Sequence[Kink]:
    """Where the kinks of a pointwise operation are, and the slopes on their left and right."""
    if isinstance(kinks.operation, Declared):
        branches = kinks.operation.branches
        if isinstance(branches, ops.Sides):
            return branches.kinks
        return ((0.0, -1.0, 1.0),)  # of a sum of magnitudes
    return ((0.0, 0.0, 1.0),)


def largest_tie(kinks: Kinks) -> int | None:
    """How many entries tie at most; None where that is not listed."""
    inputs = kinks.operation.inputs
    with torch.no_grad():
        still = tuple(torch.zeros_like(each) for each in inputs)
        rivals = kinks.operation.rivals(kinks.value, still)
    if not len(rivals.of) or bool((rivals.wins == Rivals.UNLISTED).any()):
        return None
    most = int(torch.bincount(rivals.of).max())
    return most if most > 1 else None


def words(kinks: Kinks) -> Iterator[Selection]:
    """The choices at a site that have no number, the simplest first."""
    every: list[Selection] = [Native(), Minimal(), First(), Last(), Every()]
    yield from (each for each in every if kinks.site.row.has(each))


def lines(kinks: Kinks) -> Iterator[tuple[Selection, Selection, Callable[[float], Selection]]]:
    """The choices at a site that have one number: those at 0 and at 1, and the one at any."""
    row = kinks.site.row
    if row.has(Branch(0)):
        yield Branch(0), Branch(1), Branch
    else:
        yield Native(), Minimal(), Hybrid
    if row.has(Every()):
        yield First(), Last(), lambda t: Mix(((1 - t, First()), (t, Last())))


def rounded(selection: Selection, digits: int) -> Selection:
    """A choice with numbers of so few digits behind the point.

    >>> rounded(Mix(((0.33, First()), (0.67, Last()), (1e-9, Minimal()))), 1)
    Mix(parts=((0.3, First()), (0.7, Last())))
    """
    match selection:
        case Branch(alpha):
            return Branch(round(alpha, digits))
        case ByKink(alphas):
            return ByKink(tuple(round(alpha, digits) for alpha in alphas))
        case Hybrid(beta):
            return Hybrid(round(beta, digits))
        case Mix(parts):
            kept = tuple((round(f, digits), part) for f, part in parts if round(f, digits))
            return Mix(kept or parts)
    return selection


def allows(selection: Selection, kinks: Kinks) -> bool:
    """Whether a choice is one of those between the branches of an operation, at every tie.

    Of a sum with a factor below 0 it is denied, though for more than two branches it can be.
    """
    match selection:
        case Branch(alpha) if kinks.site.row.has(First()):
            return 0 <= alpha <= 1
        case Branch(alpha):
            return alpha == 0
        case ByKink(alphas):
            return all(0 <= alpha <= 1 for alpha in alphas)
        case Hybrid(beta):
            most = largest_tie(kinks)
            return 0 <= beta <= (1 if most is None else most / (most - 1))
        case Mix(parts):
            total = math.fsum(factor for factor, _ in parts)
            within = all(factor >= 0 and allows(part, kinks) for factor, part in parts)
            return within and math.isclose(total, 1, rel_tol=1e-9)
    return not isinstance(selection, Every)
