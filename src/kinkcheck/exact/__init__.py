"""The exact arbiter: a network and its gradients over the rational numbers, without any rounding.

Every floating-point number is rational, and so is what convolutions, linear layers, ReLU and
pooling make of them. Two programs agree over the reals at a point if and only if the exact
difference of their gradients is 0; that is the oracle for the zones of :mod:`kinkcheck.audit`.
"""

from kinkcheck.exact.coverage import uncovered
from kinkcheck.exact.point import Difference, ExactPoint, evaluate
from kinkcheck.exact.rationals import Rationals
from kinkcheck.exact.record import ExactSite

__all__ = ["Difference", "ExactPoint", "ExactSite", "Rationals", "evaluate", "uncovered"]
