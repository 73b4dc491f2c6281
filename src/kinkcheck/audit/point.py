"""What is measured at one point."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from kinkcheck.audit.causes import causes
from kinkcheck.audit.census import Census
from kinkcheck.audit.finite import first_in_backward, first_in_forward
from kinkcheck.audit.forward import Forward, Gradient, Loss, Program, samples
from kinkcheck.audit.lift import Lifted, lift
from kinkcheck.audit.noise import noise
from kinkcheck.audit.report import Lift
from kinkcheck.audit.switch import Switch
from kinkcheck.audit.variation import Variation, gradient_variation, l1_distance, l1_norm
from kinkcheck.audit.zones import Zone, by_lift, by_threshold
from kinkcheck.precision import Precision
from kinkcheck.selection import Selection
from kinkcheck.tape import Site, Tape


@dataclass
class Measurement:
    """One point, to be measured in a precision and in its lift.

    Attributes:
        model: the network in the precision ``at``.
        pair: inputs and targets, in any precision.
        loss: function of outputs and targets.
        at: the precision.
        device: where the model is.
        switch: the reference and the selections.
        seed: of what the forward pass draws, and of orders.
        where: how a complaint names the point.
        layers: also switch one site at a time.
        lifted: also evaluate it in float64 and measure the noise floors.
        exact: let the exact arbiter decide the zones.
    """

    model: nn.Module
    pair: tuple[Any, Any]
    loss: Loss
    at: Precision
    device: str
    switch: Switch
    seed: int
    where: str
    layers: bool = False
    lifted: bool = True
    exact: bool = False

    def measure(self, census: Census) -> list[dict[str, Any]]:
        """What is found of every selection, as arguments of :class:`Point`; sites are counted.

        Raises:
            InputError: the network fails on the batch, or cannot be judged.
        """
        with self.at.contractions(self.device):
            forward = self._forward()
            forward.listen()
            base = forward.gradient(self._reference)
            programs = [self._program(selection) for selection in self.switch.selections]
            gradients = [forward.gradient(program) for program in programs]
            loss, norm = forward.loss.item(), l1_norm(base)
            finite = math.isfinite(loss) and math.isfinite(norm)
            variations = [
                gradient_variation(gradient, base) if finite else Variation(*(math.nan,) * 5)
                for gradient in gradients
            ]
            found: list[dict[str, Any]] = [
                {
                    "selection": str(selection),
                    "loss": loss,
                    "gradient_l1": norm,
                    "variation": variation,
                    "zone_by_threshold": by_threshold(variation, self.at.name),
                    "non_finite_layer": first_in_backward(gradient) if finite else None,
                }
                for selection, gradient, variation in zip(
                    self.switch.selections, gradients, variations, strict=True
                )
            ]
            alone = self.switch.alone(forward.tape, forward.loss, base) if self.layers else {}
            if not finite:
                layer = first_in_forward(self.model, self._forward)
                if layer is None:
                    layer = first_in_backward(base) if math.isfinite(loss) else "loss"
                for each in found:
                    each |= {"zone": Zone.NON_FINITE, "non_finite_layer": layer}
            if not finite or not self.lifted:
                census.add(self.at.name, forward.tape, alone)
                return found
        higher = lift(
            self.model,
            tree_map_only(Tensor, self.at.cast, self.pair),
            self.loss,
            self._reference,
            programs,
            device=self.device,
            seed=self.seed,
            where=self.where,
        )
        with self.at.contractions(self.device):
            floor = noise(
                self._forward,
                samples(self.pair),
                base,
                self._reference,
                whole=forward if higher.separate else None,
                seed=self.seed,
                repeat=torch.device(self.device).type == "cuda",
            )
        highest = self.at.name == "float64"
        lifts = self._lifts(higher, None if highest else [base, *gradients])
        if self.exact:
            lifts = self._arbitrated(lifts, forward, higher.forward)
        for each, found_above in zip(found, lifts, strict=True):
            zone = by_lift(each["variation"].l1, found_above.variation_l1, found_above.noise_l1)
            each |= {"noise": floor, "lift": found_above, "zone": zone}
        census.add(
            self.at.name,
            forward.tape,
            alone,
            self._alone(higher) if self.layers else {},
            causes(forward, None if highest else higher.forward),
        )
        return found

    def _lifts(self, higher: Lifted, gradients: list[Gradient] | None) -> list[Lift]:
        """What the float64 lift says, and how far gradients of the precision are from it."""
        above = [higher.reference, *higher.selections]
        errors: list[float | None] = [None] * len(above)
        if gradients is not None:
            errors = [
                l1_distance(gradient, lifted)
                for gradient, lifted in zip(gradients, above, strict=True)
            ]
        return [
            Lift("float64", variation, floor, _ratio(variation, floor), errors[0], error)
            for variation, floor, error in zip(
                higher.variation, higher.noise, errors[1:], strict=True
            )
        ]

    def _arbitrated(self, lifts: list[Lift], forward: Forward, higher: Forward) -> list[Lift]:
        """The same with the variation over the rationals, at the same gradient at the output."""
        from kinkcheck.audit.exact import evaluate

        inputs = tree_map_only(Tensor, self.at.cast, self.pair[0])
        with self.at.computation(self.device):
            point = evaluate(self.model, inputs)
        direction = forward.output_gradient()
        (along,) = higher.gradients_along(direction.double(), [self._reference])
        point.require_agreement(
            higher.outputs,
            {(site.layer, site.operation, site.call): site.tied for site in higher.tape.sites},
            direction,
            along,
            self.switch.reference,
        )
        arbitrated = []
        for each, selection in zip(lifts, self.switch.selections, strict=True):
            difference = point.difference(direction, selection, self.switch.reference).l1
            # A difference too small for a float is one all the same.
            l1 = float(difference) or (math.ulp(0.0) if difference else 0.0)
            arbitrated.append(
                replace(
                    each, precision="exact", variation_l1=l1, noise_l1=0.0, ratio=_ratio(l1, 0.0)
                )
            )
        return arbitrated

    def _alone(self, higher: Lifted) -> dict[Site, float]:
        return self.switch.alone(higher.forward.tape, higher.forward.loss, higher.reference)

    def _forward(self, order: Tensor | None = None) -> Forward:
        torch.manual_seed(self.seed)
        return Forward(self.model, self.pair, self.loss, self.at, self.device, self.where, order)

    def _reference(self, tape: Tape) -> dict[Site, Selection]:
        return self.switch.to(tape, self.switch.reference)

    def _program(self, selection: Selection) -> Program:
        return lambda tape: {**self._reference(tape), **self.switch.to(tape, selection)}


def _ratio(variation: float, noise: float) -> float:
    return variation / noise if noise else math.inf if variation else 0.0
