"""Which choices at the ties of a forward pass make its gradient another one that is given.

The gradient is affine in what is chosen at one site, the others being fixed. So the choices at all
sites are fitted by least squares at once, and as those of several sites multiply along a path,
fitted again around what was found, until the gradient that the tape replays is the one that is
given, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from torch import Tensor

from kinkcheck.measure.forward import Forward, Gradient, Kinks
from kinkcheck.measure.unknowns import Unknowns, lines, rounded, words
from kinkcheck.selection import Selection
from kinkcheck.tape import Site

Floats = NDArray[np.float64]
Chosen = dict[Site, Selection]

_ROUNDS = 8
"""How often choices are fitted around what was found."""

_BUCKETS = 1 << 14
"""A gradient of more entries is added up, with random signs, into so many: of a few hundred
unknowns a fit there is as good."""

_DIGITS = (1, 2, 3, 6)
"""How many digits behind the point a number has in the words of an explanation, if they do."""

_HEAVY = 1e3
"""How much it weighs that the factors of a sum are 1 together."""


@dataclass(frozen=True)
class Fitted:
    """What a fit found.

    Attributes:
        chosen: the sites at which another choice is made than the program's, and that choice.
        gradient: under it, replayed on the tape.
        explains: whether that is the gradient that is given, up to rounding.
    """

    chosen: Chosen
    gradient: Gradient
    explains: bool


class Fit:
    """The fit of a forward pass to a gradient.

    Args:
        forward: the forward pass.
        given: the gradient, by parameter name.
        rounding: for each parameter how far gradients may be apart by rounding, in the sum of
            absolute values.

    Attributes:
        own: the gradient of the program.
        ties: the sites with ties.

    >>> model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU())
    >>> _ = torch.nn.init.zeros_(model[0].bias)
    >>> forward = Forward(model, lambda: model(torch.zeros(2, 1)).sum())
    >>> given = {"0.weight": torch.zeros(1, 1), "0.bias": torch.ones(1)}
    >>> Fit(forward, given, {"0.weight": 1e-6, "0.bias": 1e-6}).fitted().chosen
    {Site(layer='1', operation='relu', call=0): Branch(alpha=0.5)}
    """

    def __init__(self, forward: Forward, given: Gradient, rounding: Mapping[str, float]) -> None:
        self._forward = forward
        self._given = given
        self._rounding = rounding
        self.own = forward.gradient({})
        self.ties = [
            kinks for kinks in forward.kinks if kinks.site.tied and kinks.site.differentiable
        ]

    def remainders(self, gradient: Gradient) -> dict[str, float]:
        """How far a gradient is from the given one, parameter by parameter."""
        return {
            name: (given.double() - gradient[name].detach().cpu().double()).abs().sum().item()
            for name, given in self._given.items()
        }

    def explains(self, gradient: Gradient) -> bool:
        """Whether a gradient is the given one up to rounding, parameter by parameter."""
        remainders = self.remainders(gradient)
        return all(remainders[name] <= bound for name, bound in self._rounding.items())

    def replayed(self, chosen: Chosen) -> Fitted:
        """What some choices make of the gradient."""
        gradient = self._forward.gradient(chosen)
        return Fitted(chosen, gradient, self.explains(gradient))

    def fitted(self) -> Fitted:
        """The choices that make the given gradient, or come nearest to it.

        First such as the operations allow are looked for; where they do not do, any weights.
        """
        found = self._fitted(allowed=True)
        if not found.explains and self.ties:
            wider = self._fitted(allowed=False)
            found = wider if wider.explains else found
        return self._simplest(found) if found.explains else found

    def _fitted(self, allowed: bool) -> Fitted:
        best = self.replayed({})
        if not self.ties:
            return best
        unknowns = [Unknowns.of(kinks, allowed) for kinks in self.ties]
        here = best
        for _ in range(_ROUNDS):
            if here.explains:
                break
            here = self.replayed(self._step(here, unknowns))
            if self._length(here.gradient) < self._length(best.gradient):
                best = here
        return best

    def _step(self, here: Fitted, unknowns: Sequence[Unknowns]) -> Chosen:
        """The choices that a fit around others finds."""
        target = self._apart(self._given, here.gradient)
        columns = []
        for kinks, of in zip(self.ties, unknowns, strict=True):
            base = self._forward.gradient({**here.chosen, kinks.site: of.base})
            target = target - self._apart(base, here.gradient)
            for along in of.along:
                there = self._forward.gradient({**here.chosen, kinks.site: along})
                columns.append(self._apart(there, base))
        matrix = np.stack(columns, 1)
        parts = _parts(unknowns)
        shared = [part for of, part in zip(unknowns, parts, strict=True) if of.shared]
        rows = np.zeros((len(shared), len(columns)))
        for row, part in zip(rows, shared, strict=True):
            row[part] = _HEAVY * max(1.0, float(np.abs(matrix).max()))
        sums = rows.max(1, initial=0.0)
        bounds = np.array([of.bounds for of in unknowns for _ in of.along]).T
        numbers = lsq_linear(
            np.vstack([matrix, rows]), np.concatenate([target, sums]), bounds, method="bvls"
        ).x
        chosen = dict(here.chosen)
        for kinks, of, part in zip(self.ties, unknowns, parts, strict=True):
            known = [bool(column.any()) for column in matrix[:, part].T]
            if any(known):
                chosen[kinks.site] = of.selection(numbers[part].tolist(), known)
        return chosen

    def _simplest(self, found: Fitted) -> Fitted:
        """An explanation in the simplest words: site by site the first choice that does."""
        of = {kinks.site: kinks for kinks in self.ties}
        for site in list(found.chosen):
            for others in self._simpler(found.chosen, of[site]):
                trial = self.replayed(others)
                if trial.explains:
                    found = trial
                    break
        return found

    def _simpler(self, chosen: Chosen, kinks: Kinks) -> Iterator[Chosen]:
        """The same with other choices at one site, the simplest first: the program's own, ..."""
        site = kinks.site
        yield {other: each for other, each in chosen.items() if other is not site}
        yield from ({**chosen, site: word} for word in words(kinks))
        numbered = [chosen[site]]
        for at_0, at_1, choice in lines(kinks):
            start, end = (self._forward.gradient({**chosen, site: at}) for at in (at_0, at_1))
            along = self._apart(end, start)
            square = float(along @ along)
            if square:
                number = float(along @ self._apart(self._given, start)) / square
                numbered.insert(-1, choice(number))
        for each in numbered:
            yield from ({**chosen, site: rounded(each, digits)} for digits in _DIGITS)

    def _length(self, gradient: Gradient) -> float:
        return float(np.linalg.norm(self._apart(self._given, gradient)))

    def _apart(self, one: Gradient, other: Gradient) -> Floats:
        """The difference of two gradients in units of rounding; of many entries a projection."""
        parts = []
        for name, rounding in self._rounding.items():
            a, b = (each[name].detach().cpu().double().flatten() for each in (one, other))
            parts.append((a - b) * (max(1, len(a)) / (rounding or 1.0)))
        flat = torch.cat(parts)
        if len(flat) > _BUCKETS:
            bucket, sign = _projection(len(flat))
            flat = torch.zeros(_BUCKETS, dtype=torch.float64).index_add(0, bucket, flat * sign)
        found: Floats = flat.numpy()
        return found


def _parts(unknowns: Sequence[Unknowns]) -> list[slice]:
    """Where the numbers of each site are among all."""
    ends = np.cumsum([0, *(len(of.along) for of in unknowns)]).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]


@lru_cache(maxsize=1)
def _projection(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    bucket = torch.randint(_BUCKETS, (count,), generator=generator)
    sign = torch.randint(2, (count,), generator=generator) * 2 - 1
    return bucket, sign
