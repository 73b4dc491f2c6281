"""What is found of the standing of a gradient, with what certifies it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What a gradient is at a point (DESIGN: standing).

    ``DERIVATIVE``: the loss is differentiable there, and the gradient is its derivative.
    ``LIMIT``: it is a limit of gradients at nearby points where the loss is differentiable, an
    element of the B-subdifferential. ``SUBGRADIENT``: it is a convex combination of such limits, an
    element of the Clarke subdifferential. ``WRONG``: it is outside. ``UNDECIDED``: none of these
    was certified.
    """

    DERIVATIVE = "derivative"
    LIMIT = "limit"
    SUBGRADIENT = "subgradient"
    WRONG = "wrong"
    UNDECIDED = "undecided"


STANDS = (Kind.DERIVATIVE, Kind.LIMIT, Kind.SUBGRADIENT)
"""The kinds of a gradient that is right."""


@dataclass(frozen=True)
class Along:
    """A direction in which the parameters move, along which the gradient has a limit.

    Attributes:
        coefficients: of the directions drawn from the seed of the certificate, the next seed and so
            on, whose sum it is (:func:`kinkcheck.tape.directions.direction`).
        margin: by how much it decides each kink, in units of the largest tangent that arrives
            there: the least over all kinks.
        pulls: of a direction that is no such sum, by how much it was pulled at each branch of each
            kink, in order, under the choices of the gradient
            (:meth:`kinkcheck.measure.standing.Program.pulled`).
    """

    coefficients: list[float]
    margin: float
    pulls: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Standing:
    """What a gradient is at a point, and the certificate.

    Attributes:
        kind: what it is.
        ties: live ties: those at which a choice could reach the loss.
        flat: those of them whose active branches have one derivative: no kink of the loss.
        kinks: the other ones.
        rows: how many of the kinks are independent, as far as the directions that were drawn tell;
            None where nothing asked.
        seed: of the first direction.
        along: of a limit the direction that certifies it; of a subgradient those of the limits that
            it is a combination of; of a wrong gradient those of all limits there are.
        weights: of the limits in the combination that is nearest to the gradient.
        distance: how far that is from the gradient, in units of the larger of their norms.
        excess: of a wrong gradient, by how much its slope in the direction from the nearest
            combination to it is above the slope of every limit there, in units of its norm.
        why: why nothing was decided.
        samples: the numbers of the samples whose part of the gradient the certificate is of; the
            branches of all live ties of the others were seen to move alike. None for the whole
            mini-batch.
        exact: how far the gradient is from that combination over the rationals, l1, in units of its
            norm: 0 if it is the very same, up to the rounding of the weights; None where the exact
            arbiter was not asked.
        lifted: whether this is of the lift; else of the audited precision itself, in which all
            branches of each tie were seen to move alike, bit for bit.
    """

    kind: Kind
    ties: int = 0
    flat: int = 0
    kinks: int = 0
    rows: int | None = None
    seed: int = 0
    along: list[Along] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    distance: float | None = None
    excess: float | None = None
    why: str | None = None
    samples: list[int] | None = None
    exact: float | None = None
    lifted: bool = True

    @property
    def stands(self) -> bool:
        """Whether the gradient is right.

        >>> Standing(Kind.LIMIT).stands, Standing(Kind.UNDECIDED).stands
        (True, False)
        """
        return self.kind in STANDS
