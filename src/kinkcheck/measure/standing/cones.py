"""Directions inside of polyhedral cones: small linear programs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import linprog, nnls

from kinkcheck.measure.standing.tables import Floats

_DEEP = 1e-5
"""A cone that no unit vector is this deep inside of is too narrow for float64 to tell its kinks."""

_EMPTY = 1e-9
"""One that none is even this deep inside of is empty: the solver is exact to 10⁻¹⁰. What is in
between is not told."""

_SAME = 1e-12
"""Rows this near to each other are one: rounding is 10⁻¹⁶, and more where tangents cancel."""

_LARGE = 10**5
"""The largest linear program: rows times directions."""

_INDEPENDENT = 1e-6
"""Rows of norm 1 are dependent up to singular values of this."""


class UntoldError(Exception):
    """Floating-point numbers do not tell: a cone is as narrow as rounding, say."""


def distinct(rows: Floats) -> Floats:
    """Rows of norm 1, each once, without those that are 0.

    Raises:
        UntoldError: two are neither equal nor apart, or a number is not finite.
    """
    if not np.isfinite(rows).all():
        raise UntoldError("a tangent is not finite")
    rows = rows[rows.any(1)]
    # Rows that are near to each other are so in any projection.
    at = rows @ (np.cos(np.arange(rows.shape[1])) / np.sqrt(max(1, rows.shape[1])))
    kept: list[int] = []
    start = 0
    for row in np.argsort(at, kind="stable"):
        while start < len(kept) and at[kept[start]] < at[row] - _DEEP:
            start += 1
        near = np.linalg.norm(rows[kept[start:]] - rows[row], axis=1).min(initial=2.0)
        if near > _DEEP:
            kept.append(int(row))
            # More rows than directions depend on each other, so that a linear program has to tell.
            if len(kept) > rows.shape[1] and len(kept) * rows.shape[1] > _LARGE:
                raise UntoldError("there are too many kinks for a linear program")
        elif near > _SAME:
            raise UntoldError("two kinks are nearly one")
    found: Floats = rows[np.sort(np.array(kept, dtype=np.int64))]
    return found


def rank(rows: Floats) -> int:
    """How many rows are independent."""
    return int(np.linalg.matrix_rank(rows, tol=_INDEPENDENT)) if rows.size else 0


def off_span(values: Floats, rows: Floats) -> float:
    """How far values, one a row, are from what any linear function of the rows gives, at most.

    >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> off_span(rows @ [[2.0], [3.0]], rows) < 1e-12
    True
    >>> round(off_span(np.array([[0.0], [0.0], [3.0]]), rows), 12) == round(3**0.5, 12)
    True
    """
    left, _, _ = np.linalg.svd(rows, full_matrices=False)
    basis = left[:, : rank(rows)]
    return float(np.linalg.norm(values - basis @ (basis.T @ values), axis=0).max(initial=0.0))


def deep(rows: Floats, on: Floats | None = None) -> Floats | None:
    """Coefficients, none above 1, that are deep inside a cone; None if it is empty.

    Args:
        rows: whose products with the coefficients are to be positive.
        on: a row whose product is to be 0.

    Raises:
        UntoldError: it is narrow.
    """
    count = rows.shape[1]
    if on is None and len(rows):
        # Independent rows can all have one product; this is faster than a linear program.
        products = rows @ rows.T + _SAME * np.eye(len(rows))
        even: Floats = rows.T @ np.linalg.solve(products, np.ones(len(rows)))
        if (rows @ even).min() > 0.5:
            even /= np.abs(even).max()
            return even
    if rows.size > _LARGE:
        raise UntoldError("there are too many kinks for a linear program")
    found = linprog(
        np.append(np.zeros(count), -1.0),
        A_ub=np.hstack([-rows, np.ones((len(rows), 1))]) if len(rows) else None,
        b_ub=np.zeros(len(rows)) if len(rows) else None,
        A_eq=None if on is None else np.append(on, 0.0)[None],
        b_eq=None if on is None else np.zeros(1),
        bounds=[*[(-1.0, 1.0)] * count, (None, 1.0)],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if found.status != 0:
        raise UntoldError("a linear program was not solved")
    if not len(rows) or found.x[-1] > _DEEP:
        inside: Floats = found.x[:-1]
        return inside
    if found.x[-1] > _EMPTY:
        raise UntoldError("directions that decide the kinks are too few for float64")
    return None


def mixed(leads: Floats) -> tuple[Floats, Floats, bool]:
    """The sum of some directions along which the least of leads is largest.

    Args:
        leads: of each row along each direction.

    Returns:
        The coefficients of the sum, none above 1; how much each row holds it back, all together 1;
        and whether all leads are positive, and not by so little that float64 does not tell.

    Raises:
        UntoldError: there are too many rows, or the program was not solved.

    >>> coefficients, held, inside = mixed(np.array([[1.0, -0.5], [-0.5, 1.0]]))
    >>> coefficients, inside
    (array([1., 1.]), True)
    """
    last = np.eye(leads.shape[1])[-1]
    if leads[:, -1].min(initial=np.inf) > _DEEP:
        return last, np.zeros(len(leads)), True
    if leads.size > _LARGE:
        raise UntoldError("there are too many kinks for a linear program")
    count = leads.shape[1]
    found = linprog(
        np.append(np.zeros(count), -1.0),
        A_ub=np.hstack([-leads, np.ones((len(leads), 1))]),
        b_ub=np.zeros(len(leads)),
        bounds=[*[(-1.0, 1.0)] * count, (None, 1.0)],
        method="highs",
    )
    if found.status != 0:
        raise UntoldError("a linear program was not solved")
    held: Floats = np.abs(found.ineqlin.marginals)
    return found.x[:-1], held / (held.sum() or 1.0), bool(found.x[-1] > _DEEP)


def nearest(rows: Floats, to: Floats, inside: Floats) -> Floats:
    """The coefficients in a cone that are nearest to others, in the 1-norm.

    Args:
        rows: whose products with the coefficients are to be positive.
        to: the others.
        inside: some that are deep in it, half as deep as which is deep enough.
    """
    if not len(rows):
        return to
    if rows.size > _LARGE:
        return inside
    count = rows.shape[1]
    depth = (rows @ inside).min() / 2
    eye = np.eye(count)
    found = linprog(
        np.append(np.zeros(count), np.ones(count)),
        A_ub=np.block([[-rows, np.zeros((len(rows), count))], [eye, -eye], [-eye, -eye]]),
        b_ub=np.concatenate([np.full(len(rows), -depth), to, -to]),
        bounds=[*[(None, None)] * count, *[(0, None)] * count],
        method="highs",
    )
    return found.x[:count] if found.status == 0 else inside


def beside(rows: Floats) -> Iterator[Floats]:
    """A direction in each cone that shares a facet with one.

    Raises:
        UntoldError: a facet is narrow.
    """
    for number, row in enumerate(rows):
        others = np.delete(rows, number, 0)
        on = deep(others, row)
        if on is not None:
            depth = (others @ on).min(initial=1.0)
            yield on - depth / 4 * row


def spread(rows: Floats, inside: Floats, count: int, random: np.random.Generator) -> Floats:
    """Directions all over a cone, each of norm 1: a walk from one of them.

    Args:
        rows: whose products with them are to be positive.
        inside: the first.
        count: how many.
        random: what draws them.
    """
    at, found = inside / np.linalg.norm(inside), []
    for _ in range(count):
        for _ in range(4):
            step = random.standard_normal(len(at))
            # How far it is to each wall, ahead and behind.
            walls = -(rows @ at) / (rows @ step)
            ahead, behind = walls[walls > 0].min(initial=3.0), walls[walls < 0].max(initial=-3.0)
            at = at + step * random.uniform(0.9 * behind, 0.9 * ahead)
            at = at / np.linalg.norm(at)
        found.append(at)
    return np.array(found)


def combination(points: Floats, to: Floats) -> Floats:
    """The weights of the convex combination of points that is nearest to another one.

    Args:
        points: one a row.
        to: the other one.
    """
    apart = (points - to).T
    scale = np.abs(apart).max() or 1.0
    # The least squares weigh the sum of weights as if it were exact.
    heavy = 1e3
    try:
        weights, _ = nnls(
            np.vstack([apart / scale, heavy * np.ones(len(points))]),
            np.append(np.zeros(len(apart)), heavy),
            maxiter=100 * len(points) + 100,
        )
    except RuntimeError:  # it has not converged; any combination is one
        weights = np.ones(len(points))
    total = weights.sum()
    if not total:
        return np.full(len(points), 1 / len(points))
    return _refined(apart, weights / total)


def _refined(apart: Floats, weights: Floats) -> Floats:
    """Weights of the same points whose sum is exact in the least squares too, if none is negative.

    Args:
        apart: the points, one a column.
        weights: nearly those of the combination that is nearest to 0.
    """
    first, *others = np.argsort(weights)[::-1][: np.count_nonzero(weights)]
    moved, *_ = np.linalg.lstsq(apart[:, others] - apart[:, [first]], -apart[:, first], rcond=None)
    refined = np.zeros_like(weights)
    refined[others], refined[first] = moved, 1 - moved.sum()
    nearer = np.linalg.norm(apart @ refined) <= np.linalg.norm(apart @ weights)
    return refined if nearer and refined.min() >= 0 else weights
