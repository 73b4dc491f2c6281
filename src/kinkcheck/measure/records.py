"""What is found at one point, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from kinkcheck.measure.causes import Causes
from kinkcheck.measure.standing.records import Standing
from kinkcheck.measure.variation import Variation
from kinkcheck.measure.zones import Zone
from kinkcheck.tape import Unseen


@dataclass(frozen=True)
class Lift:
    """What a higher precision says of one selection at one point. All norms are l1.

    Attributes:
        precision: ``float64``, or ``exact`` if the exact arbiter was asked.
        variation_l1: D there.
        noise_l1: the noise floor there; 0 for the exact arbiter.
        ratio: ``variation_l1 / noise_l1``; 0 if both are 0.
        error_reference_l1: rounding error ‖g − g_lift‖ of the reference's gradient; None where
            there is nothing higher to compare with: a float64 point.
        error_selection_l1: the same of the selection's gradient.
    """

    precision: str
    variation_l1: float
    noise_l1: float
    ratio: float
    error_reference_l1: float | None
    error_selection_l1: float | None


@dataclass(frozen=True)
class Point:
    """One selection at one point (parameters θ, mini-batch B, precision).

    Attributes:
        precision: name of the precision.
        draw: number of the parameter draw.
        batch: number of the mini-batch.
        selection: the selection whose gradient is compared with the reference's.
        loss: the loss, the same for every selection.
        gradient_l1: l1 norm of the reference gradient.
        variation: how far the selection's gradient is from the reference's.
        zone: the zone by the lift; or by the standing, where the audited precision tells that the
            loss has no kink; else None if the point was not lifted.
        zone_by_threshold: the zone by the published threshold; None if the precision has none.
        lift: the numbers that decided the zone; None if it was not lifted.
        noise: the spread of the reference gradient over runs that are equal over the reals, in the
            audited precision: the measured threshold τ_ω; None if not measured.
        non_finite_layer: the first layer with a number that is not finite, if there is one.
        non_finite_operation: the operation whose derivative first turned finite numbers into
            others, if the forward pass is finite and the backward pass is not.
        standing: what the selection's gradient is, in the lift, or as the audited precision tells;
            None if neither was looked at, or could tell.
        reference_standing: what the reference's gradient is.
        non_finite_lifted: whether the same is so in float64, where a higher precision cannot help;
            None if that was not looked at.
    """

    precision: str
    draw: int
    batch: int
    selection: str
    loss: float
    gradient_l1: float
    variation: Variation
    zone: Zone | None = None
    zone_by_threshold: Zone | None = None
    lift: Lift | None = None
    noise: Variation | None = None
    non_finite_layer: str | None = None
    non_finite_operation: str | None = None
    non_finite_lifted: bool | None = None
    standing: Standing | None = None
    reference_standing: Standing | None = None


@dataclass(frozen=True)
class SiteRecord:
    """One site at one point.

    Attributes:
        layer: name of the layer.
        operation: name of the operation.
        call: which call of the operation in this layer.
        windows: windows, or elements of a pointwise operation.
        tied: windows with more than one active branch.
        tied_at_zero: tied windows that hold nothing but zeros.
        variation_l1: what the site alone moves the gradient by; None if not asked for.
        lift_variation_l1: the same in the lift.
        causes: why its windows are tied; None if not known.
        form: which form of the operation it is, in the words of the atlas.
    """

    layer: str
    operation: str
    call: int
    windows: int
    tied: int
    tied_at_zero: int
    variation_l1: float | None = None
    lift_variation_l1: float | None = None
    causes: Causes | None = None
    form: str = ""


@dataclass(frozen=True)
class Found:
    """All that is found at one point.

    Attributes:
        points: one entry a selection.
        sites: one entry a site, in order.
        unseen: what the gradient goes through and no selection reaches.
        left_out: what was not measured, and why, in sentences.
        hidden: whether the lift has ties that rounding hides in the audited precision.
    """

    points: list[Point]
    sites: list[SiteRecord]
    unseen: list[Unseen]
    left_out: list[str]
    hidden: bool = False
