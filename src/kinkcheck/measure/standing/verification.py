"""Certificates of standing, checked again from scratch: without the search that found them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kinkcheck.measure.forward import Chooser, Gradient
from kinkcheck.measure.standing.program import Program
from kinkcheck.measure.standing.records import Kind, Standing
from kinkcheck.measure.standing.search import DECIDED, EQUAL, Search, apart, scale_of
from kinkcheck.tape.tape import Choose

_LOOSE = 10
"""How many times as far apart as in the search gradients may be that were equal there."""


def verify(
    program: Program, standing: Standing, choose: Chooser | Choose, gradient: Gradient
) -> list[str]:
    """Check the certificate of a standing.

    Args:
        program: the program at that point, with the seed of the certificate.
        standing: what is claimed.
        choose: what was chosen where operations are not differentiable.
        gradient: the gradient under that.

    Returns:
        What does not hold, a sentence each; nothing if all does. That a gradient is undecided holds
        always.

    >>> from torch import nn
    >>> from kinkcheck.measure.forward import Forward
    >>> model = nn.PReLU(1).double()
    >>> forward = Forward(model, lambda: model(-torch.ones(1).double()).abs().sum())
    >>> gradient = forward.gradient("native")
    >>> verify(Program(forward), Standing(Kind.DERIVATIVE), "native", gradient)
    []
    """
    if program.seed != standing.seed:
        return [f"the directions are drawn from seed {standing.seed}, not {program.seed}"]
    if standing.kind is Kind.UNDECIDED:
        return []
    census = program.census()
    vector = program.vector(program.forward.gradient(choose))
    if census.ties != standing.ties:
        return [f"{census.ties} ties are live, not {standing.ties}"]
    found = []
    for along in standing.along:
        pulled = program.pulled(census, choose, along.pulls) if along.pulls else None
        found.append(program.limit(census, along.coefficients, along=pulled))
    complaints = [
        f"direction {number} does not decide all kinks"
        for number, limit in enumerate(found, 1)
        if not limit.margin > DECIDED
    ]
    limits = [limit.gradient for limit in found]
    equal = _LOOSE * EQUAL
    if apart(vector, program.vector(gradient), census.scale) > equal:
        complaints.append("the gradient is another one")
    if len(standing.weights) != len(limits):
        complaints.append(f"there are {len(standing.weights)} weights of {len(limits)} limits")
    elif limits and (min(standing.weights) < 0 or abs(sum(standing.weights) - 1) > 1e-9):
        complaints.append("the weights are not those of a convex combination")
    if complaints:
        return complaints
    match standing.kind:
        case Kind.LIMIT | Kind.SUBGRADIENT:
            if standing.kind is Kind.LIMIT and len(limits) != 1:
                return [f"there are {len(limits)} directions"]
            if apart(_combined(standing.weights, limits), vector, census.scale, *limits) > equal:
                return ["the limits along the directions make another gradient"]
            return []
        case Kind.DERIVATIVE:
            return _derivative(_anew(program), limits, vector)
        case Kind.WRONG:
            return _outside(_anew(program), standing.weights, limits, vector)
    raise AssertionError


def _derivative(anew: Search, limits: list[Tensor], vector: Tensor) -> list[str]:
    found = [*limits, *_all(anew)]
    if anew.census.kinks and anew.why is not None:
        return [f"not all limits were enumerated: {anew.why}"]
    if any(apart(limit, vector, anew.census.scale) > _LOOSE * EQUAL for limit in found):
        return ["a limit along another direction is another gradient"]
    return []


def _outside(
    anew: Search, weights: Sequence[float], limits: list[Tensor], vector: Tensor
) -> list[str]:
    if not limits:
        return ["there is no limit"]
    away = vector - _combined(weights, limits)
    found = [*limits, *_all(anew)]
    if anew.why is not None:
        return [f"not all limits were enumerated: {anew.why}"]
    for limit in found:
        above = float(((vector - limit) * away).sum())
        if above <= EQUAL * float(away.norm()) * scale_of(anew.census.scale, vector, limit):
            return ["the direction does not separate the gradient from all limits"]
    return []


def _anew(program: Program) -> Search:
    """A search along directions that have nothing to do with those of the certificate."""
    return Search(program.reseeded(program.seed + 2**20), budget=4096)


def _all(anew: Search) -> list[Tensor]:
    anew.enumerate()
    return [limit.gradient for limit in anew.limits]


def _combined(weights: Sequence[float], limits: list[Tensor]) -> Tensor:
    return torch.stack([w * limit for w, limit in zip(weights, limits, strict=True)]).sum(0)
