"""What is measured at one point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from kinkcheck.errors import InputError
from kinkcheck.interrupts import let_through
from kinkcheck.measure.batch import Samples, opaque
from kinkcheck.measure.causes import Causes, causes
from kinkcheck.measure.finite import first_in_backward, first_in_forward, first_in_gradient
from kinkcheck.measure.forward import Chooser, Forward, Gradient
from kinkcheck.measure.lift import Lifted, lift
from kinkcheck.measure.noise import noise
from kinkcheck.measure.records import Found, Lift, Point, SiteRecord
from kinkcheck.measure.runs import Runs
from kinkcheck.measure.standing import (
    Kind,
    Standing,
    Told,
    certified_exactly,
    is_one,
    part,
    smooth,
    standings,
    tells,
    ties_more,
    told,
    told_in_float32,
)
from kinkcheck.measure.switch import Switch
from kinkcheck.measure.variation import (
    ROUNDINGS,
    Variation,
    alike,
    gradient_variation,
    l1_distance,
    l1_norm,
)
from kinkcheck.measure.zones import Zone, by_lift, by_threshold
from kinkcheck.selection import gain
from kinkcheck.tape import Site

if TYPE_CHECKING:
    from kinkcheck.exact import ExactPoint

NO_SAMPLES = (
    "the noise floor, by other orders of the samples and by parts of the mini-batch: no samples "
    "were found whose order, with what was drawn for them, leaves the gradient as it is, and which "
    "the network takes in another one or in parts"
)


@dataclass
class Passes:
    """What is known of the backward passes of a program in one precision.

    Attributes:
        compared: at a point with ties parts of passes were compared with whole ones.
        anew: they round in another way, so that every pass is to be a whole one.
    """

    compared: bool = False
    anew: bool = False


@dataclass
class Measurement:
    """One point, to be measured in a precision and in its lift.

    Attributes:
        runs: the runs of the point.
        switch: the reference and the selections.
        draw, batch: numbers of the parameter draw and the mini-batch.
        samples: where the samples of the batch could be, the likeliest first.
        layers: also switch one site at a time.
        lifted: also evaluate it in float64 and measure the noise floors; None for where the audited
            precision does not tell that all ties are flat.
        standing: also judge what the gradients are.
        exact: let the exact arbiter decide the zones.
        plain: the gradient as plain autograd returns it, to be compared with; None if it was.
        passes: what is known of its backward passes from earlier points.
    """

    runs: Runs
    switch: Switch
    draw: int = 0
    batch: int = 0
    samples: Sequence[Samples] = ()
    layers: bool = False
    lifted: bool | None = None
    standing: bool = True
    exact: bool = False
    plain: Gradient | None = None
    passes: Passes = field(default_factory=Passes)

    def measure(self) -> Found:
        """What is found of every selection and site.

        Raises:
            InputError: the network fails on the batch, or cannot be judged.
        """
        with self.runs.audited():
            forward = self.runs.forward(lean=True)
            forward.listen()
            forward.remembers = not self.passes.anew
            check = self.plain is not None
            if self.plain is not None:
                # What is told of ties comes with a first pass to remember, and takes most memory.
                telling = self.standing and tells(forward)
                first = forward.gradient_anew if telling else forward.gradient
                self._require_plain(first({}), self.plain)
                self.plain = None
            reference, *choosers = self.switch.programs()
            found = told(forward, reference, self.runs.seed) if self.standing else None
            seen = smooth(found, self.runs.seed)
            base, *gradients = map(forward.gradient, [reference, *choosers])
            alone = self.switch.alone(forward, base) if self.layers else {}
            forward.tape.forget()
            tied = any(site.tied for site in forward.tape.sites)
            if check or (tied and not self.passes.compared):
                found_by = [(reference, base), (choosers[-1], gradients[-1])]
                same = [self._is_whole(each, forward.gradient_anew(by)) for by, each in found_by]
                self.passes.compared, self.passes.anew = tied, not all(same)
            if self.passes.anew and forward.remembers:
                forward.remembers = False
                base, *gradients = map(forward.gradient, [reference, *choosers])
                alone = self.switch.alone(forward, base) if self.layers else {}
            points = self._points(forward, base, gradients)
            direction = forward.output_gradient() if self.exact else None
        if not math.isfinite(points[0].gradient_l1) or not math.isfinite(points[0].loss):
            return self._found(self._not_finite(points, forward, base), forward, alone)
        if not self.lifted:
            rounding = ROUNDINGS * self.runs.at.unit_roundoff
            if not all(alike(each, base, rounding) for each in gradients):
                seen = None  # two gradients further apart than rounding: see _differ
            if seen is not None or self.lifted is False:
                points = [replace(each, standing=seen, reference_standing=seen) for each in points]
                if self.lifted is False:
                    return self._found(points, forward, alone)
                points = [replace(each, zone=_of_smooth(each.variation)) for each in points]
                return self._found(points, forward, alone, why=causes(forward, None))

        highest = self.runs.at.name == "float64"
        teller: Forward | None = forward
        if self.standing and found is None:
            teller, found = told_in_float32(self.runs, reference, self.runs.seed)
        programs = [reference, *choosers]
        selections = (self.switch.reference, *self.switch.selections)
        amplified, *gains = map(gain, selections)
        gains = [max(amplified, each) for each in gains]
        kinds: list[Standing] | None = None
        hidden = False
        with lift(self.runs, reference, choosers, self.samples, gains) as higher:
            alone_above = self._alone(higher) if self.layers else {}
            why = causes(forward, None if highest else higher.forward)
            if self.standing:
                hidden = teller is not None and ties_more(higher.forward, teller)
                teller = None  # a forward pass of its own takes as much memory as the lift
                if hidden:
                    seen = found = None  # what the precision tells is not all
                kinds, against = self._standings(higher, programs, found, seen)
                hidden = hidden or against
            lifts = _lifts(higher, None if highest else [base, *gradients])
            if direction is not None:
                along = higher.forward.gradients_along(0, direction.double(), [reference])
        if direction is not None:
            point = self._exact(forward, higher.forward, direction, along[0])
            lifts = self._arbitrated(lifts, point, direction)
            kinds = kinds and [
                certified_exactly(each, point, direction, selection, self.switch.reference)
                for each, selection in zip(kinds, selections, strict=True)
            ]
        floor = self._noise(forward, base, higher)
        zones = [
            by_lift(point.variation.l1, above.variation_l1, above.noise_l1)
            for point, above in zip(points, lifts, strict=True)
        ]
        standing, *others = [None] * len(programs) if kinds is None else _consistent(kinds, zones)
        points = [
            replace(
                point,
                noise=floor,
                lift=above,
                zone=zone,
                standing=other,
                reference_standing=standing,
            )
            for point, above, zone, other in zip(points, lifts, zones, others, strict=True)
        ]
        left_out = [NO_SAMPLES] if floor is None else []
        whole = self._found(points, forward, alone, alone_above, why, left_out)
        return replace(whole, hidden=hidden)

    def _standings(
        self,
        higher: Lifted,
        programs: Sequence[Chooser],
        found: Told | None,
        seen: Standing | None,
    ) -> tuple[list[Standing], bool]:
        """The standing of every program, and whether the lift is against what was told.

        Args:
            higher: the lift.
            programs: the reference and what is compared with it.
            found: what was told of ties without the lift.
            seen: the standing of all, where that says that every tie is flat.
        """
        # Rounded tangents are alike too where a common part absorbs how they differ; but two
        # gradients that differ over the reals are not both the derivative.
        if seen is not None and not _differ(higher) and is_one(higher.forward, programs[0]):
            return [seen] * len(programs), False
        against = seen is not None
        held = part(
            self.runs, higher.forward, _known(higher.samples), None if against else found,
            programs[0], higher.reference,
        )  # fmt: skip
        if held is None:
            lifted = [higher.reference, *higher.selections]
            of = list(zip(programs, lifted, strict=True))
            return standings(higher.forward, of, self.runs.seed, self.runs.forward), against
        # Of the samples alone that hold kinks.
        of = [(program, held.forward.gradient(program)) for program in programs]
        judged = standings(held.forward, of, self.runs.seed, held.again)
        return [held.of_whole(each) for each in judged], against

    def _points(
        self, forward: Forward, base: Gradient, gradients: Sequence[Gradient]
    ) -> list[Point]:
        loss, norm = forward.loss.item(), l1_norm(base)
        finite = math.isfinite(loss) and math.isfinite(norm)
        points = []
        for selection, gradient in zip(self.switch.selections, gradients, strict=True):
            variation = Variation(*(math.nan,) * 5)
            if finite:
                variation = gradient_variation(gradient, base)
            points.append(
                Point(
                    self.runs.at.name,
                    self.draw,
                    self.batch,
                    str(selection),
                    loss,
                    norm,
                    variation,
                    zone_by_threshold=by_threshold(variation, self.runs.at.name),
                    non_finite_layer=first_in_gradient(gradient) if finite else None,
                )
            )
        return points

    def _not_finite(self, points: list[Point], forward: Forward, base: Gradient) -> list[Point]:
        """The same points with where their first number is that is not finite."""
        operation = lifted = None
        reference = self.switch.programs()[0]
        with self.runs.audited():
            layer = first_in_forward(self.runs.model, self.runs.forward)
        if layer is None and not math.isfinite(points[0].loss):
            layer = "loss"
        elif layer is None:
            layer = first_in_gradient(base)
            with self.runs.audited():
                again = self.runs.forward()
                operation = first_in_backward(again.loss, lambda: again.gradient(reference))
        if self.lifted is not False:
            with self.runs.lifted():
                above = self.runs.forward()
                norm = l1_norm(above.gradient(reference))
                lifted = not (math.isfinite(norm) and math.isfinite(above.loss.item()))
        return [
            replace(
                point,
                zone=Zone.NON_FINITE,
                non_finite_layer=layer,
                non_finite_operation=operation,
                non_finite_lifted=lifted,
            )
            for point in points
        ]

    def _noise(self, forward: Forward, base: Gradient, higher: Lifted) -> Variation | None:
        samples = higher.samples
        if samples is None:
            return None
        bottleneck = None
        with self.runs.audited():
            if higher.bottleneck is not None:
                bottleneck = higher.bottleneck, forward.output_gradient(higher.bottleneck)
            return noise(
                lambda order: self.runs.forward(samples, order, lean=True),
                samples.count,
                base,
                self.switch.programs()[0],
                bottleneck=bottleneck,
                seed=self.runs.seed,
                repeat=self.runs.on.type == "cuda",
            )

    def _exact(
        self, forward: Forward, higher: Forward, direction: torch.Tensor, along: Gradient
    ) -> ExactPoint:
        """The point over the rationals, which is to be that of the recorded program."""
        from kinkcheck.exact import evaluate

        with self.runs.audited(), self.runs.at.computation(self.runs.on), let_through():
            point = evaluate(self.runs.model, _only(forward.inputs))
        point.require_agreement(
            higher.outputs[0],
            {_key(site): site.tied for site in higher.tape.sites},
            direction,
            along,
            self.switch.reference,
        )
        return point

    def _arbitrated(
        self, lifts: list[Lift], point: ExactPoint, direction: torch.Tensor
    ) -> list[Lift]:
        """The same with the variation over the rationals, at the same gradient at the output."""
        arbitrated = []
        for each, selection in zip(lifts, self.switch.selections, strict=True):
            with let_through():
                difference = point.difference(direction, selection, self.switch.reference).l1
            # A difference too small for a float is one all the same.
            l1 = float(difference) or (math.ulp(0.0) if difference else 0.0)
            arbitrated.append(
                replace(
                    each, precision="exact", variation_l1=l1, noise_l1=0.0, ratio=_ratio(l1, 0.0)
                )
            )
        return arbitrated

    def _is_whole(self, pieced: Gradient, whole: Gradient) -> bool:
        """Whether the parts of a gradient, where passes ran again, are those of a whole pass.

        A pass with tangents has other formulas for some operations, which round in another way.

        Raises:
            InputError: they are others by more than rounding.
        """
        if all(_alike(pieced[name], whole[name]) for name in whole):
            return True
        if not l1_distance(pieced, whole) <= self._rounding(whole):
            raise InputError(
                f"network: a backward pass that ran again in part is not a whole one "
                f"({self.runs.where}, {self.switch.selections[-1]}): l1 norm "
                f"{l1_norm(pieced):.9g} against {l1_norm(whole):.9g}; it may have hooks that "
                "kinkcheck cannot see"
            )
        return self.runs.on.type == "cuda"  # whose kernels may add in another order each time

    def _require_plain(self, own: Gradient, plain: Gradient) -> None:
        """Refuse to measure what is not the gradient that the program has without kinkcheck."""
        wrong = [name for name in plain if not _alike(own[name], plain[name])]
        if not wrong:
            return
        again = self.runs.plain()
        steady = all(_alike(again[name], plain[name]) for name in plain)
        if not steady and not l1_distance(again, plain) <= self._rounding(plain):
            raise InputError(
                "network: has another gradient each time that it runs on one batch from one random "
                f"state ({self.runs.where}): l1 norm {l1_norm(plain):.9g}, then "
                f"{l1_norm(again):.9g}; it keeps something from call to call that kinkcheck cannot "
                "put back, such as an attribute of a class: let it keep nothing, or keep it in the "
                "model"
            )
        # A kernel that adds in no fixed order may all the same have done so alike twice.
        loose = not steady or self.runs.on.type == "cuda"
        if loose and l1_distance(own, plain) <= self._rounding(plain):
            return
        raise InputError(
            f"network: its recorded gradient is not the one that plain autograd returns "
            f"({self.runs.where}): l1 norm {l1_norm(own):.9g} against {l1_norm(plain):.9g}, first "
            f"at {wrong[0]}; kinkcheck would measure another program"
        )

    def _rounding(self, gradient: Gradient) -> float:
        """How far sums that are added in no fixed order, as on a GPU, may be from a gradient."""
        return ROUNDINGS * self.runs.at.unit_roundoff * l1_norm(gradient)

    def _found(
        self,
        points: list[Point],
        forward: Forward,
        alone: dict[Site, float],
        alone_above: dict[tuple[str, str, int], float] | None = None,
        why: list[Causes] | None = None,
        left_out: Sequence[str] = (),
    ) -> Found:
        sites = [
            SiteRecord(
                *_key(site),
                site.windows,
                site.tied,
                site.tied_at_zero,
                alone.get(site),
                (alone_above or {}).get(_key(site)),
                None if why is None else why[index],
                site.form.form,
            )
            for index, site in enumerate(forward.tape.sites)
        ]
        unseen = forward.tape.unseen_behind(forward.loss)
        closed = [
            f"what is in a {name} of the batch: kinkcheck cannot look into it"
            for name in opaque(self.runs.batch)
        ]
        return Found(points, sites, unseen, [*closed, *left_out])

    def _alone(self, higher: Lifted) -> dict[tuple[str, str, int], float]:
        """What each site alone moves the lifted gradient by; by name, as it is another tape."""
        found = self.switch.alone(higher.forward, higher.reference)
        return {_key(site): value for site, value in found.items()}


def _of_smooth(variation: Variation) -> Zone:
    """The zone where the loss has no kink: over the reals both gradients are its derivative."""
    return Zone.COMPENSATION if variation.l1 else Zone.AGREEMENT


def _consistent(found: list[Standing], zones: Sequence[Zone]) -> list[Standing]:
    """The same, but for two gradients that are apart over the reals: not both the derivative."""
    standing, *others = found
    if standing.kind is not Kind.DERIVATIVE or not any(
        other.kind is Kind.DERIVATIVE and zone is Zone.BIFURCATION
        for other, zone in zip(others, zones, strict=True)
    ):
        return found
    why = "two gradients that differ over the reals were both found to be the derivative"
    doubt = Standing(Kind.UNDECIDED, seed=standing.seed, why=why)
    return [doubt if each.kind is Kind.DERIVATIVE else each for each in found]


def _differ(higher: Lifted) -> bool:
    """Whether some selection has another gradient in the lift than the reference."""
    return any(
        by_lift(variation, variation, floor) is Zone.BIFURCATION
        for variation, floor in zip(higher.variation, higher.noise, strict=True)
    )


def _known(samples: Samples | None) -> list[Samples]:
    return [] if samples is None else [samples]


def _only(inputs: tuple[Any, ...]) -> torch.Tensor:
    if len(inputs) == 1 and isinstance(inputs[0], torch.Tensor):
        return inputs[0]
    given = " and ".join(type(each).__name__ for each in inputs) or "no single call of the network"
    raise InputError(f"exact: needs inputs that are one tensor, not {given}")


def _lifts(higher: Lifted, gradients: list[Gradient] | None) -> list[Lift]:
    """What the float64 lift says, and how far gradients of the precision are from it."""
    above = [higher.reference, *higher.selections]
    errors: list[float | None] = [None] * len(above)
    if gradients is not None:
        errors = [
            l1_distance(gradient, lifted) for gradient, lifted in zip(gradients, above, strict=True)
        ]
    return [
        Lift("float64", variation, floor, _ratio(variation, floor), errors[0], error)
        for variation, floor, error in zip(higher.variation, higher.noise, errors[1:], strict=True)
    ]


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two gradients are equal, bit for bit but for signs of zeros."""
    return torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all())


def _key(site: Site) -> tuple[str, str, int]:
    return site.layer, site.operation, site.call


def _ratio(variation: float, noise: float) -> float:
    return variation / noise if noise else math.inf if variation else 0.0
