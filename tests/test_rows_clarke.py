"""Where selections lie in the Clarke subdifferential of one operation.

The oracle is PyTorch's gradient at points moved a little, where nothing ties: a limit of gradients.
The Clarke subdifferential is the convex hull of all limits. One output at a time is differentiated,
since a selection chooses for each output alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor
from torch.utils._pytree import tree_flatten

from kinkcheck import record
from kinkcheck.ops.row import OF_BALL, OF_PICKS, Row
from kinkcheck.selection import Limit, parse
from kinkcheck.tape import Tape
from samples import INFOS, NOT_BESIDE, TYING, Call, asked, gradients_of, tied

Vectors = NDArray[np.float64]

ENTRIES = 150
"""Calls of more are left out."""

ZEROS = 30
"""Calls of more are not asked with nothing but zeros: many limits would not be found."""

OUTPUTS = 3
"""So many tied outputs of a call are looked at."""

CLOSE = 3e-3
"""Gradients beside a tie differ from their limits by the curvature of norms."""

ELSEWHERE = {*NOT_BESIDE, "nn.functional.pairwise_distance"}
"""Calls that a small move takes elsewhere; pairwise distances bend within 1e-6."""

NATIVE_OUTSIDE = ("cdist_inf", "pdist_inf")
"""Rows at whose ties PyTorch gives each entry the whole gradient, which is no element."""

MORE: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp by numbers": lambda x: x.clamp(-1, 1),
    "clamp without room": lambda x: x.clamp(1, 1),
    "clamp_max by a number": lambda x: x.clamp_max(0.5),
    "clamp by tensors": lambda x: x[0].clamp(x[1], x[2]),
    "elu": lambda x: F.elu(x, 0.5),
    "elu down": lambda x: F.elu(x, -0.5),
    "rrelu": lambda x: F.rrelu(x, 0.25, 0.75),
    "threshold": lambda x: F.threshold(x, 1, 1),
    "prelu": lambda x: F.prelu(x, torch.tensor([2.0, -0.5, 0.0], dtype=x.dtype)),
    "topk of few": lambda x: x.flatten().topk(4).values,
    "msort of few": torch.msort,
    "norm 1": lambda x: x.norm(1, 1),
    "dist 1": lambda x: torch.dist(x[0], x[1], 1),
    "dist inf": lambda x: torch.dist(x[0], x[1], torch.inf),
    "cdist of few": lambda x: torch.cdist(x[:2], x[1:]),
    "cdist 1": lambda x: torch.cdist(x[:2], x[1:], 1),
    "cdist inf": lambda x: torch.cdist(x, x, torch.inf),
    "pdist 1": lambda x: F.pdist(x, 1),
    "lp_pool1d": lambda x: F.lp_pool1d(x, 2.0, 2, 1),
    "lp_pool2d": lambda x: F.lp_pool2d(x[None], 2.0, 2, 1),
    "max_pool3d": lambda x: F.max_pool3d(x.reshape(1, 3, 2, 2), 2, 1),
}
"""Calls that PyTorch's samples lack, or have with more entries."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:std.*degrees of freedom is <= 0"),
]


def _flat(gradients: list[Tensor]) -> Vectors:
    found: Vectors = torch.cat([each.flatten() for each in gradients]).numpy()
    return found


def _entries(call: Call, at: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """The inputs and all entries of all outputs."""
    leaves = asked(at)
    return leaves, torch.cat([each.flatten() for each in call.outputs(*leaves)])


def _moves(sizes: list[int]) -> Iterator[tuple[Tensor, ...]]:
    """Directions and their opposites: at random, and mostly along each axis."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.eye(sum(sizes), dtype=torch.float64)
    for start in (*(axes * 20), *torch.zeros(100, sum(sizes), dtype=torch.float64)):
        move = start + torch.randn(start.shape, dtype=torch.float64, generator=generator)
        yield move.split(sizes)
        yield (-move).split(sizes)


def limits(call: Call, at: list[Tensor]) -> dict[int, Vectors]:
    """For some tied entries of what a call returns all limits that are found, one a row."""
    found: dict[int, list[Vectors]] = {}
    for number, move in enumerate(_moves([each.numel() for each in at])):
        beside = [x + 1e-7 * d.reshape(x.shape) for x, d in zip(at, move, strict=True)]
        leaves, entries = _entries(call, beside)
        for place in found if number > 1 else range(len(entries)):
            gradient = gradients_of(entries[place], leaves, retain_graph=True)
            found.setdefault(place, []).append(_flat(gradient))
        if number == 1:
            apart = {place: abs(one - other).max() for place, (one, other) in found.items()}
            kept = [place for place in found if apart[place] > CLOSE][:OUTPUTS]
            found = {place: found[place] for place in kept}
    return {place: np.unique(np.round(each, 6), axis=0) for place, each in found.items()}


def nearest(limits: Vectors, to: Vectors) -> Vectors:
    """The point of a convex hull that is nearest to another."""
    penalty = 1e4  # of shares whose sum is not 1
    system = np.vstack([(limits - to).T, np.full(len(limits), penalty)])
    shares, _ = nnls(system, np.append(np.zeros(len(to)), penalty))
    point: Vectors = shares @ limits / shares.sum()
    return point


def test_the_nearest_point_of_a_triangle() -> None:
    triangle = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]])
    assert nearest(triangle, np.zeros(2)) == pytest.approx([0.5, 0.5], abs=1e-6)
    assert nearest(triangle, np.array([2.0, -1.0])) == pytest.approx([1.0, 0.0], abs=1e-6)
    assert nearest(triangle, np.array([1.0, 1.0])) == pytest.approx([1.0, 1.0], abs=1e-6)


def _cases(name: str) -> Iterator[tuple[Call, list[Tensor]]]:
    """Calls with few entries, whose inputs tie, or are all 0."""
    if name in INFOS:
        calls = (call for call, _ in tied(name))
    else:
        given, spec = tree_flatten((torch.zeros(4, 3, dtype=torch.float64), (), {}))
        calls = iter([Call(MORE[name], spec, tuple(given))])
    for call in calls:
        entries = sum(map(torch.numel, call.leaves))
        if 0 < entries <= ENTRIES:
            yield call, call.filled(TYING)
        if 0 < entries <= ZEROS:
            yield call, call.filled((0.0,))


NAMES = [*(name for name in INFOS if name not in ELSEWHERE), *MORE]


@pytest.mark.parametrize("name", NAMES)
def test_selections_lie_where_they_should(name: str) -> None:
    for call, at in _cases(name):
        with record() as tape:
            leaves, entries = _entries(call, at)
        rows = {site.row for site in tape.sites}
        # Of lists each entry is a call of its own.
        alone = len(tape.sites) == 1 or name.startswith("_foreach")
        if len(rows) == 1 and alone and all(Limit in row.accepted for row in rows):
            (row,) = rows
            for place, hull in limits(call, at).items():
                _check(partial(_under, tape, leaves, entries[place]), row, hull)


def _under(tape: Tape, leaves: list[Tensor], entry: Tensor, choice: str) -> Vectors:
    return _flat(list(tape.gradient(entry, leaves, choose=choice)))


def _check(under: Callable[[str], Vectors], row: Row, hull: Vectors) -> None:
    def outside(point: Vectors) -> float:
        return float(np.linalg.norm(nearest(hull, point) - point))

    minimal, native = under("minimal"), under("native")
    assert minimal == pytest.approx(nearest(hull, np.zeros(hull.shape[1])), abs=CLOSE)
    inside = ["first", "last", "random:1", "random:2", "uniform:1", "uniform:2"]
    if row.accepted != OF_BALL:
        inside.append("branch:0.25")
    if row.name not in NATIVE_OUTSIDE:
        inside += ["native", "hybrid:0.5", "hybrid:1"]
    for choice in inside:
        if isinstance(parse(choice), row.accepted):
            assert outside(under(choice)) < CLOSE, choice
    if row.accepted == OF_PICKS and _is_simplex(hull, native, minimal):
        bound = len(hull) / (len(hull) - 1)
        assert outside(under(f"hybrid:{bound}")) < CLOSE
        assert outside(under(f"hybrid:{bound + 0.1}")) > CLOSE


def _is_simplex(hull: Vectors, vertex: Vectors, centre: Vectors) -> bool:
    """Whether limits are as far from each other as the entries of a maximum, around a centre."""
    apart = np.linalg.norm(hull[:, None] - hull[None], axis=2)[~np.eye(len(hull), dtype=bool)]
    vertices = abs(hull - vertex).max(1) < 1e-5
    return bool(np.ptp(apart) < 1e-5 and vertices.any() and abs(hull.mean(0) - centre).max() < 1e-5)
