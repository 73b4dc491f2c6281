"""The certificates of an audit, checked again from scratch, without the search for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import nn

from kinkcheck.arithmetic import precision
from kinkcheck.audit.arguments import Loss, grid_of, place_of
from kinkcheck.audit.points import Factory, Place
from kinkcheck.audit.report import AuditReport
from kinkcheck.errors import InputError, unknown
from kinkcheck.interrupts import held_back
from kinkcheck.measure.batch import Samples
from kinkcheck.measure.forward import Chooser, Forward
from kinkcheck.measure.lift import whole
from kinkcheck.measure.records import Point
from kinkcheck.measure.runs import Runs, Step
from kinkcheck.measure.standing import (
    Kind,
    Program,
    Standing,
    is_one,
    part,
    ties_more,
    told,
    told_in_float32,
)
from kinkcheck.measure.standing import verify as verify_one
from kinkcheck.progress import watched
from kinkcheck.ranges import MOST, MOST_SEED, require_between

_OTHER_SAMPLES = "samples meet in the network, or others hold ties whose branches move differently"
_TOLD_APART = "the lift has kinks, or this is no derivative"


@dataclass(frozen=True)
class Verified:
    """One certificate, checked again.

    Attributes:
        precision, draw, batch: the point.
        selection: whose gradient it certifies.
        kind: what it says that the gradient is.
        wrong: what of it does not hold, in sentences; nothing if all does.
    """

    precision: str
    draw: int
    batch: int
    selection: str
    kind: Kind
    wrong: list[str]


def verify(
    report: AuditReport,
    network: nn.Module | Factory,
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss | None = None,
    step: Step | None = None,
    samples: Any = 0,
    device: str | None = None,
    progress: bool = False,
    on_point: Callable[[int, int], None] = lambda done, total: None,
) -> list[Verified]:
    """Check the certificates of the standings in a report again.

    Each point is carried out in float64, and of each gradient what was certified is looked at
    again: along recorded directions, in a forward-mode pass or a few. What is undecided has no
    certificate.

    Args:
        report: what :func:`kinkcheck.audit` returned, of this network on these batches.
        network: as it was given to :func:`kinkcheck.audit`, like what follows.
        batches: the mini-batches.
        loss: a function of outputs and targets.
        step: a function of the model and a batch.
        samples: which dimension of each tensor of a batch counts samples.
        device: where to run.
        progress: show a bar, on standard error.
        on_point: called with the number of points done and in all, after each point.

    Returns:
        One entry a certificate.

    Raises:
        InputError: the report has no certificate, has points that no audit has, such as one twice
            or of a mini-batch that is not there, or the network fails on a batch.

    >>> import kinkcheck
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Flatten())
    >>> batch = (torch.ones(2, 1, 4, 4), torch.tensor([0, 1]))
    >>> report = kinkcheck.audit(network, [batch], precisions=["64"])
    >>> [(each.selection, each.wrong) for each in verify(report, network, [batch])]
    [('native', []), ('minimal', [])]
    """
    points = [p for p in report.points if p.reference_standing or p.standing]
    if not points:
        raise InputError("report: has no certificate; only lifted points of schema 3 have one")
    _require_points(report, points)
    by_place = [
        (Place(precision.parse(name), draw, batch), list(found))
        for (name, draw, batch), found in groupby(
            points, lambda point: (point.precision, point.draw, point.batch)
        )
    ]
    grid = grid_of(
        network,
        batches,
        loss=loss,
        step=step,
        samples=samples,
        precisions=list(dict.fromkeys(place.precision for place, _ in by_place)),
        selections=report.selections,
        reference=report.reference,
        operations=report.operations,
        draws=1 + max(place.draw for place, _ in by_place),
        device=device,
        seed=report.seed,
    )
    there = len(grid.first()[1])
    for place, _ in by_place:
        require_between(place.batch, 0, there - 1, "batch of a point")
    names = [report.reference, *report.selections]
    programs = dict(zip(names, grid.switch.programs(), strict=True))
    verified: list[Verified] = []
    on = place_of(network, device)
    bar = watched(progress, on, lambda number: None, on_point, "Verifying")
    with bar as watching, torch.random.fork_rng():
        watching.on_planned(len(by_place))
        for number, (place, found) in enumerate(sorted(by_place, key=lambda each: each[0].draw)):
            with held_back(), torch.enable_grad():
                runs = grid.runs(place)
                for selection, standing in _certificates(report.reference, found).items():
                    if selection not in programs:
                        raise unknown("selection of a point", selection, names)
                    wrong = _wrong(
                        runs, grid.candidates(runs), programs[report.reference],
                        programs[selection], standing,
                    )  # fmt: skip
                    verified.append(
                        Verified(
                            found[0].precision, place.draw, place.batch, selection, standing.kind,
                            wrong,
                        )
                    )  # fmt: skip
            watching.on_point(number + 1, len(by_place))
    return verified


def _require_points(report: AuditReport, points: Sequence[Point]) -> None:
    """Check what an audit writes so, and somebody else may not have."""
    require_between(report.seed, 0, MOST_SEED, "seed")
    seen: set[tuple[str, int, int, str]] = set()
    for point in points:
        require_between(point.draw, 0, MOST, "draw of a point")
        require_between(point.batch, 0, MOST, "batch of a point")
        for standing in (point.standing, point.reference_standing):
            if standing is not None:
                require_between(standing.seed, 0, MOST_SEED, "standing.seed of a point")
        name = (point.precision, point.draw, point.batch, point.selection)
        if name in seen:
            raise InputError(
                f"report: has the point {name[0]}, draw {name[1]}, batch {name[2]} twice under "
                f"{name[3]}"
            )
        seen.add(name)


def _certificates(reference: str, points: Sequence[Point]) -> dict[str, Standing]:
    """What is certified at one point, by selection."""
    found = {reference: points[0].reference_standing}
    found |= {point.selection: point.standing for point in points}
    return {
        selection: standing
        for selection, standing in found.items()
        if standing is not None and standing.kind is not Kind.UNDECIDED
    }


def _wrong(
    runs: Runs,
    candidates: Sequence[Samples],
    reference: Chooser,
    program: Chooser,
    standing: Standing,
) -> list[str]:
    teller: Forward | None
    with runs.audited():
        # What it draws at random the lift is given. The gradient moves along another direction.
        teller = runs.forward()
        found = told(teller, reference, standing.seed + 1)
    if found is None:
        teller, found = told_in_float32(runs, reference, standing.seed + 1)
    with ExitStack() as stack:
        forward = whole(runs, stack)
        if not standing.lifted:
            # What the audited precision told is looked at in the lift, which tells more.
            kinks = Program(forward, standing.seed).census().kinks
            flat = standing.flat == standing.ties and not standing.kinks
            told_so = standing.kind is Kind.DERIVATIVE and flat and not kinks
            return [] if told_so and is_one(forward, program) else [_TOLD_APART]
        again: Callable[[], Forward] = runs.forward
        if standing.samples is not None:
            found = None if teller is None or ties_more(forward, teller) else found
            held = part(
                runs, forward, candidates, found, reference, forward.gradient(reference),
                standing.samples,
            )  # fmt: skip
            if held is None:
                return [_OTHER_SAMPLES]
            standing, forward, again = held.of_part(standing), held.forward, held.again
        return verify_one(
            Program(forward, standing.seed, again), standing, program, forward.gradient(program)
        )
