"""What an audit counts besides its points: sites, what was unseen, what was left out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SiteCount:
    """The census of one site in one precision, summed over all points.

    Attributes:
        precision: name of the precision.
        layer: name of the layer.
        operation: name of the operation.
        call: which call of the operation in this layer.
        windows: windows, or elements of a pointwise operation.
        tied: windows with more than one active branch.
        tied_at_zero: tied windows that hold nothing but zeros.
        variation_l1: mean over the points with this site of the l1 variation when only this site is
            switched to the first of the selections; None if that was not asked for, or the
            operation does not have the selection.
        dead: tied windows whose choice cannot reach a parameter; None if not counted.
        exact: live tied windows whose tie persists in the lift; None if not counted.
        rounding: live tied windows whose lifted values differ; None if not counted.
        lift_variation_l1: ``variation_l1`` in the lift.
        cause_unknown: tied windows left out of the three: those of points that are not finite, or
            whose lift took another path, and live ones of points that were not lifted; None if
            causes were not counted.
        converts: whether :func:`kinkcheck.nn.convert` gives this call a selection; None where that
            was not kept.
        form: which form of the operation it is, where frameworks tell forms apart: ``along a
            dimension``.
    """

    precision: str
    layer: str
    operation: str
    call: int
    windows: int
    tied: int
    tied_at_zero: int
    variation_l1: float | None
    dead: int | None = None
    exact: int | None = None
    rounding: int | None = None
    lift_variation_l1: float | None = None
    cause_unknown: int | None = None
    converts: bool | None = None
    form: str = ""

    @property
    def name(self) -> str:
        """The site as it is shown.

        >>> SiteCount("float32", "pool", "max_pool2d", 1, 9, 0, 0, None).name
        'pool #1 (max_pool2d)'
        """
        call = f" #{self.call}" if self.call else ""
        return f"{self.layer or '(root)'}{call} ({self.operation})"


@dataclass(frozen=True)
class UnseenCount:
    """Something that may have kinks and was out of reach, summed over all points.

    Attributes:
        layer: name of the layer.
        operation: name of the operation or of the class of the module.
        reason: why it was out of reach.
        calls: how often it was met.
        elements: of a jump, how many elements met it; None where that was not counted.
        on_jump: how many of them lay exactly on it.
    """

    layer: str
    operation: str
    reason: str
    calls: int
    elements: int | None = None
    on_jump: int | None = None


@dataclass(frozen=True)
class LeftOut:
    """Something that was not measured.

    Attributes:
        what: what it is, and why.
        points: at how many points of the grid.
    """

    what: str
    points: int
