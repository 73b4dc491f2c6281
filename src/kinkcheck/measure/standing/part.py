"""The samples of a mini-batch that hold the kinks of its loss.

Where samples do not meet in the network, the gradient is the sum of what each sample gives. Those
whose live ties all have branches that move alike give the derivative, whatever is chosen, so that
the standing of the whole is that of the sum over the others, at the same gradient at their outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from kinkcheck.errors import InputError
from kinkcheck.measure.batch import Samples
from kinkcheck.measure.forward import Chooser, Forward, Gradient
from kinkcheck.measure.lift import ALIKE, part_of
from kinkcheck.measure.runs import FLOAT32, Runs
from kinkcheck.measure.standing.judged import OTHERS, may_hide, told
from kinkcheck.measure.standing.program import Program, Told
from kinkcheck.measure.standing.records import Standing
from kinkcheck.measure.standing.search import EQUAL
from kinkcheck.measure.variation import alike

_MOST = 0.25
"""Up to this part of the samples it is faster to carry them out alone."""


def told_in_float32(runs: Runs, choose: Chooser, seed: int) -> tuple[Forward | None, Told | None]:
    """What float32 tells of ties at a point of fewer bits, and the forward pass there.

    It tells in which samples kinks are, in a fraction of the time of float64.

    Args:
        runs: the runs of the point.
        choose: what is chosen.
        seed: of the direction.

    Returns:
        Nothing where the point has as many bits, or float32 does not tell.
    """
    if runs.at.unit_roundoff <= FLOAT32.unit_roundoff:
        return None, None
    with runs.lifted(to=FLOAT32):
        try:
            forward = runs.forward(lean=True)
        except InputError:  # as the lift will say
            return None, None
        return forward, told(forward, choose, seed)


@dataclass(frozen=True)
class Part:
    """A forward pass on the samples that hold kinks.

    Attributes:
        forward: the pass; its loss has the gradient of the whole loss with respect to their
            outputs.
        again: carries it out once more.
        samples: their numbers.
        beside: how many live ties the other samples have.
    """

    forward: Forward
    again: Callable[[], Forward]
    samples: list[int]
    beside: int

    def of_whole(self, standing: Standing) -> Standing:
        """The standing of the whole gradient, given that of the part."""
        ties, flat = standing.ties + self.beside, standing.flat + self.beside
        return replace(standing, ties=ties, flat=flat, samples=self.samples)

    def of_part(self, standing: Standing) -> Standing:
        """The inverse."""
        ties, flat = standing.ties - self.beside, standing.flat - self.beside
        return replace(standing, ties=ties, flat=flat, samples=None)


def part(
    runs: Runs,
    whole: Forward,
    candidates: Sequence[Samples],
    found: Told | None,
    choose: Chooser,
    gradient: Gradient,
    chosen: Sequence[int] | None = None,
) -> Part | None:
    """The samples that hold kinks, carried out alone.

    Args:
        runs: the runs of the point, in the lift.
        whole: the lifted forward pass on the whole mini-batch.
        candidates: where its samples could be.
        found: what the audited precision tells of ties. Where that leaves too many samples, as in
            16 bits, whose rounding makes ties in all of them, or where the gradient of the others
            depends on the choice, the lift tells.
        choose: what is chosen.
        gradient: of the whole, under that.
        chosen: the samples; by default those that hold ties whose branches do not move alike.

    Returns:
        None where samples meet, where most of them hold kinks, or where others than the chosen ones
        do; where there are ties in the loss itself, or kinks may be out of sight.
    """
    if any(map(may_hide, whole.tape.unseen_behind(whole.loss))):
        return None
    for samples in candidates:
        output = whole.bottleneck(samples.count)
        if output is None or whole.ties_behind(output):
            continue
        for told_first in (True, False):
            if not told_first:
                try:
                    found = Told.of(Program(whole, runs.seed).census())
                except InputError:  # as will be said of the whole
                    return None
            some = None
            if found is not None:
                some = _held(found, samples.count, int(_MOST * samples.count), chosen)
            if some is None or found is None:
                continue
            forward = part_of(runs, whole, samples, some, output, tolerance=ALIKE)
            if forward is None:
                break
            direction = whole.output_gradient(output)[some]
            own = forward.of((forward.outputs[output] * direction).sum())
            if _is_all(own, whole, choose, gradient):
                return Part(
                    own,
                    partial(runs.forward, samples, some),
                    some.tolist(),
                    found.alike_beside(some, samples.count),
                )
    return None


def _is_all(own: Forward, whole: Forward, choose: Chooser, gradient: Gradient) -> bool:
    """Whether another choice moves the gradient of the whole by as much as that of some samples.

    Else others depend on it, too: where a large common part absorbed how tangents differ.
    """
    here = own.gradient(choose)
    for other in OTHERS:
        there = own.gradient(other)
        expected = {name: each + there[name] - here[name] for name, each in gradient.items()}
        if not alike(expected, whole.gradient(other), EQUAL):
            return False
    return True


def _held(found: Told, count: int, most: int, chosen: Sequence[int] | None) -> torch.Tensor | None:
    """The samples that hold kinks, or others that include them; None if they are too many."""
    some = found.samples(count)
    if some is None or not 0 < len(some) <= most:
        return None
    if chosen is None:
        return some
    return torch.tensor(chosen) if {*some.tolist()} <= {*chosen} else None
