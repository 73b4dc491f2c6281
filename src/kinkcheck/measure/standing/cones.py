"""Directions that decide kinks in a given way: small linear programs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog, nnls

from kinkcheck.measure.standing.program import NOISE, Floats, Table
from kinkcheck.ops.branches import Rivals

_FEASIBLE = 1e-7
"""A cone that no unit vector is this deep inside of is called empty."""


def winners(table: Table) -> NDArray[np.int64]:
    """The branch whose tangent each output has: its number in the table, −1 where none has.

    Of several with one tangent the first.
    """
    found = np.full(len(table.scale), -1)
    if not table.tangents.shape[1]:
        return found
    off = np.abs(table.tangents - table.outputs[table.of]).max(1)
    fits = (off <= 100 * NOISE * table.scale[table.of]) & (np.abs(table.wins) == 1)
    (places,) = np.nonzero(fits)
    found[table.of[places[::-1]]] = places[::-1]
    return found


def leads(table: Table, won: NDArray[np.int64]) -> Floats:
    """By how much the winners are ahead of each other branch: rows × directions, of norm 1.

    A direction under whose coefficients all are positive lets the winners stay active.
    """
    best = won[table.of]
    (others,) = np.nonzero((best >= 0) & (best != np.arange(len(best))))
    sign = table.wins[others, None]
    rows: Floats = sign * (table.tangents[best[others]] - table.tangents[others])
    return _distinct(rows, table.scale[table.of[others]])


def orders(table: Table, along: Floats) -> Floats:
    """The same for kinks where the order of all branches decides, as it is along a direction."""
    rows, scale = [], []
    for kink in np.unique(table.of[table.wins == Rivals.ORDERED]):
        (here,) = np.nonzero(table.of == kink)
        first, second = np.triu_indices(len(here), 1)
        apart = table.tangents[here[first]] - table.tangents[here[second]]
        rows.append(np.where(apart @ along < 0, -1, 1)[:, None] * apart)
        scale.append(np.full(len(apart), table.scale[kink]))
    if not rows:
        return np.zeros((0, table.tangents.shape[1]))
    return _distinct(np.concatenate(rows), np.concatenate(scale))


def _distinct(rows: Floats, scale: Floats) -> Floats:
    """Rows of norm 1, each once, without those that vanish."""
    kept: Floats = rows[np.abs(rows).max(1, initial=0) > NOISE * scale]
    if not len(kept):
        return kept
    kept /= np.linalg.norm(kept, axis=1, keepdims=True)
    _, first = np.unique(np.round(kept, 6), axis=0, return_index=True)
    distinct: Floats = kept[np.sort(first)]
    return distinct


def rank(rows: Floats) -> int:
    """How many rows are independent."""
    return int(np.linalg.matrix_rank(rows, tol=1e-6)) if rows.size else 0


def deepest(rows: Floats, on: Floats | None = None) -> Floats | None:
    """The coefficients, none above 1, that are deepest inside a cone; None if it is empty.

    Args:
        rows: whose products with the coefficients are to be positive.
        on: a row whose product is to be 0.
    """
    count = rows.shape[1]
    found = linprog(
        np.append(np.zeros(count), -1.0),
        A_ub=np.hstack([-rows, np.ones((len(rows), 1))]) if len(rows) else None,
        b_ub=np.zeros(len(rows)) if len(rows) else None,
        A_eq=None if on is None else np.append(on, 0.0)[None],
        b_eq=None if on is None else np.zeros(1),
        bounds=[*[(-1.0, 1.0)] * count, (None, 1.0)],
        method="highs",
    )
    return found.x[:-1] if found.status == 0 and found.x[-1] > _FEASIBLE else None


def nearest(rows: Floats, to: Floats, inside: Floats) -> Floats:
    """The coefficients in a cone that are nearest to others, in the 1-norm.

    Args:
        rows: whose products with the coefficients are to be positive.
        to: the others.
        inside: some that are deep in it, half as deep as which is deep enough.
    """
    if not len(rows):
        return to
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


def combination(points: Floats, to: Floats) -> Floats:
    """The weights of the convex combination of points that is nearest to another one.

    Args:
        points: one a row.
        to: the other one.
    """
    apart = (points - to).T
    scale = np.abs(apart).max() or 1.0
    # The least squares weigh the sum of weights as if it were exact.
    heavy = 1e4
    weights, _ = nnls(
        np.vstack([apart / scale, heavy * np.ones(len(points))]),
        np.append(np.zeros(len(apart)), heavy),
        maxiter=100 * len(points) + 100,
    )
    total = weights.sum()
    return weights / total if total else np.full(len(points), 1 / len(points))
