"""What an audit found, as numbers: the JSON schema ``kinkcheck.audit/1``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kinkcheck.audit.variation import Variation

SCHEMA = "kinkcheck.audit/1"


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
    """

    precision: str
    draw: int
    batch: int
    selection: str
    loss: float
    gradient_l1: float
    variation: Variation


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
        variation_l1: mean over points of the l1 variation when only this site is switched to the
            first of the selections; None if that was not asked for, or the operation does not
            have the selection.
    """

    precision: str
    layer: str
    operation: str
    call: int
    windows: int
    tied: int
    tied_at_zero: int
    variation_l1: float | None


@dataclass(frozen=True)
class UnseenCount:
    """Something that may have kinks and was out of reach, summed over all points.

    Attributes:
        layer: name of the layer.
        operation: name of the operation or of the class of the module.
        reason: why it was out of reach.
        calls: how often it was met.
    """

    layer: str
    operation: str
    reason: str
    calls: int


@dataclass(frozen=True)
class AuditReport:
    """Everything that an audit measured.

    Attributes:
        kinkcheck, torch: versions.
        device: where it ran.
        network, data: their names.
        seed: what parameter draws and data order were derived from.
        reference: the selection that the others are compared with.
        selections: the selections that were compared.
        points: one entry for each precision, draw, mini-batch and selection.
        sites: one entry for each precision and site.
        unseen: what was out of reach.
    """

    kinkcheck: str
    torch: str
    device: str
    network: str
    data: str
    seed: int
    reference: str
    selections: list[str]
    points: list[Point]
    sites: list[SiteCount]
    unseen: list[UnseenCount]

    def to_json(self) -> dict[str, Any]:
        """The report in the schema ``kinkcheck.audit/1``, ready for :func:`json.dump`.

        Unknown values are null; numbers that are not finite are the strings ``"nan"``, ``"inf"``
        and ``"-inf"``.

        >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
        >>> report = AuditReport(*names, 0, "native", [], [], [], [])
        >>> report.to_json()["schema"]
        'kinkcheck.audit/1'
        """
        return {"schema": SCHEMA, **_plain(asdict(self))}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
