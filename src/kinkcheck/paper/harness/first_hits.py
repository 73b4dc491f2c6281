"""Draws of the parameters, and the first mini-batch at which something happens to each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch.nn.functional as F
from torch import nn

from kinkcheck.arithmetic.precision import parse
from kinkcheck.audit.points import Factory
from kinkcheck.data import Images
from kinkcheck.measure.forward import Forward
from kinkcheck.measure.runs import Runs, pairs
from kinkcheck.paper.harness.case import Batch, Case
from kinkcheck.paper.harness.experiment import Setup
from kinkcheck.paper.harness.gradients import drawn
from kinkcheck.paper.harness.parts import all_kept

Happens: TypeAlias = Callable[[Forward], bool]
"""Whether it happens at a point, of a recorded forward pass in the audited precision."""

Firsts: TypeAlias = Mapping[str, Sequence[int | None]]
"""By precision the number of the first mini-batch, of each draw; None if it happens at none."""


@dataclass(frozen=True)
class First:
    """The first mini-batch at which it happens to one draw.

    Attributes:
        precision: name.
        first: its number, from 0; None if it happens at none.
    """

    precision: str
    first: int | None


def first_hits(
    setup: Setup,
    name: str,
    case: Case,
    images: Images,
    precisions: Sequence[str],
    happens: Happens,
) -> Firsts:
    """At which mini-batch it happens first, for each precision and draw; draws are kept.

    Args:
        setup: where.
        name: of what is counted, which tells it apart from all else that is kept there.
        case: the network, and how many draws and mini-batches of it are looked at.
        images: the set.
        precisions: names.
        happens: whether it happens at a point.
    """
    look = partial(
        _one_draw,
        case.factory(images),
        case.batches(images),
        precisions=precisions,
        happens=happens,
    )
    parts = {f"{name} {len(images)} {draw}": partial(look, draw) for draw in range(case.size.draws)}
    found: dict[str, list[int | None]] = {precision: [] for precision in precisions}
    for rows in all_kept(setup, First, parts).values():
        for row in rows:
            found[row.precision].append(row.first)
    return found


def count_within(firsts: Sequence[int | None], batches: int) -> int:
    """To how many draws it happens within the first mini-batches.

    >>> count_within([0, 3, None], 3)
    1
    """
    return sum(first is not None and first < batches for first in firsts)


def _one_draw(
    network: Factory,
    batches: Sequence[Batch],
    draw: int,
    setup: Setup,
    precisions: Sequence[str],
    happens: Happens,
) -> list[First]:
    model = drawn(network, draw)
    return [
        First(
            precision,
            next(
                (
                    number
                    for number, pair in enumerate(batches)
                    if _happens_at(model, pair, precision, setup.device, happens)
                ),
                None,
            ),
        )
        for precision in precisions
    ]


def _happens_at(model: nn.Module, pair: Batch, at: str, device: str, happens: Happens) -> bool:
    runs = Runs(model, pairs(F.cross_entropy), pair, parse(at), device, where=at)
    with runs.audited():
        return happens(runs.forward())
