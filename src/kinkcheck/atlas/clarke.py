"""Where a measured derivative lies: in the Clarke subdifferential of the function, or outside.

Over the numbers that the probe declares; a measured number counts as one of them within four units
in the last place of its type, and within what the frameworks round constants by.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum, inf, isnan

from kinkcheck.atlas.probes import Probe

LIES: dict[str, str] = {
    "minimal": "the least element of the Clarke subdifferential",
    "branch": "the derivative of one of the pieces that meet",
    "inside": "in the Clarke subdifferential, and neither of those",
    "outside": "not in the Clarke subdifferential",
    "nan": "not a number",
}
"""What is said of a derivative; of the first two both may hold."""

UNITS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""The distance from 1 to the next number of each type."""


def weights(probe: Probe, derivative: Sequence[float]) -> tuple[float, ...] | None:
    """The weights with which a derivative combines what meets at a kink.

    Args:
        probe: where.
        derivative: a slope for each of its places.

    Returns:
        A weight for each branch: for ``Sides`` (1 − α, α), whatever the derivative; for ``Picks``
        of any sum, outside the Clarke subdifferential unless they are at least 0 and sum to 1. For
        ``Ball`` the point of the ball. None if the derivative is no combination, is not a number,
        or the two sides have one slope.

    >>> from kinkcheck.atlas.probes import PROBES
    >>> tied = {probe.name: probe for probe in PROBES}["maximum: tie of 2"]
    >>> weights(tied, (0.0, 1.0))
    (0.0, 1.0)
    """
    if not all(abs(slope) < inf for slope in derivative):
        return None
    if probe.shape == "Sides":
        (left, *_), (right, *_) = probe.branches
        if left == right:
            return None
        alpha = (derivative[0] - left) / (right - left) + 0.0
        return 1 - alpha, alpha
    # Branches are orthogonal to each other, and the rows of a map have one scale.
    rows = probe.map or probe.branches
    found = [_dot(row, derivative) for row in rows]
    back = _combined(rows, found)
    size = _dot(derivative, derivative)
    if size == 0:
        return (0.0,) * len(rows)
    scale = _dot(back, derivative) / size
    if scale == 0 or not _near(back, [scale * slope for slope in derivative], 1e-2):
        return None
    return tuple(each / scale for each in found)


def lies(
    probe: Probe, derivative: Sequence[float], dtype: str, elsewhere: bool = False
) -> tuple[str, ...]:
    """What is to be said of a derivative, in the words of :data:`LIES`.

    Args:
        probe: where it was measured.
        derivative: a slope for each of its places.
        dtype: in which type.
        elsewhere: whether numbers that cannot move the output have slopes too.

    >>> from kinkcheck.atlas.probes import PROBES
    >>> relu = {probe.name: probe for probe in PROBES}["relu: at 0"]
    >>> lies(relu, [0.0], "float64"), lies(relu, [0.5], "float64"), lies(relu, [2.0], "float64")
    (('minimal', 'branch'), ('inside',), ('outside',))
    """
    if any(map(isnan, derivative)):
        return ("nan",)
    within = 4 * UNITS[dtype] + probe.rounding
    if elsewhere or not _inside(probe, derivative, within):
        return ("outside",)
    found = []
    if _near(derivative, _least(probe), within):
        found.append("minimal")
    if _is_branch(probe, derivative, within):
        found.append("branch")
    return tuple(found) or ("inside",)


def _inside(probe: Probe, derivative: Sequence[float], within: float) -> bool:
    if probe.shape == "Sides":
        return all(
            min(sides) - within <= slope <= max(sides) + within
            for slope, *sides in zip(derivative, *probe.branches, strict=True)
        )
    found = weights(probe, derivative)
    if found is None or not _near(_expected(probe, found), derivative, within):
        return False
    if probe.ball is not None:
        return _norm(found, probe.ball) <= 1 + within
    return min(found) >= -within and abs(fsum(found) - 1) <= within * len(found)


def _expected(probe: Probe, found: Sequence[float]) -> list[float]:
    return _combined(probe.map or probe.branches, found)


def _is_branch(probe: Probe, derivative: Sequence[float], within: float) -> bool:
    """For a ball, whether the derivative is on its surface where the surface is curved."""
    if probe.ball is None:
        return any(_near(derivative, branch, within) for branch in probe.branches)
    found = weights(probe, derivative) or ()
    if probe.ball == 1:
        return sorted(map(abs, found))[-1:] == [1.0]
    return abs(_norm(found, probe.ball) - 1) <= within


def _least(probe: Probe) -> list[float]:
    if probe.ball is not None:
        return [0.0] * len(probe.places)
    if probe.shape == "Sides":
        return [min(max(0.0, min(s)), max(s)) for s in zip(*probe.branches, strict=True)]
    return [fsum(slopes) / len(slopes) for slopes in zip(*probe.branches, strict=True)]


def _norm(entries: Iterable[float], power: float) -> float:
    total: float = fsum(abs(entry) ** power for entry in entries) ** (1 / power)
    return total


def _combined(rows: Sequence[Sequence[float]], found: Sequence[float]) -> list[float]:
    return [_dot(column, found) for column in zip(*rows, strict=True)]


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return fsum(a * b for a, b in zip(one, other, strict=True))


def _near(one: Sequence[float], other: Sequence[float], within: float) -> bool:
    return all(abs(a - b) <= within * max(1, abs(b)) for a, b in zip(one, other, strict=True))
