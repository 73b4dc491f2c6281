"""What an audit found, as numbers: the JSON schema ``kinkcheck.audit/3``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from kinkcheck.errors import InputError
from kinkcheck.measure.records import Point

SCHEMA = "kinkcheck.audit/3"

READABLE = ("kinkcheck.audit/1", "kinkcheck.audit/2", SCHEMA)
"""The schemas that :meth:`AuditReport.from_json` takes; earlier ones lack what has a default."""


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
        operations: the operations that were switched; None for all.
        left_out: what was not measured, and why.
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
    operations: list[str] | None = None
    left_out: list[LeftOut] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The report in the schema ``kinkcheck.audit/3``, ready for :func:`json.dump`.

        Unknown values are null; numbers that are not finite are the strings ``"nan"``, ``"inf"``
        and ``"-inf"``.

        >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
        >>> report = AuditReport(*names, 0, "native", [], [], [], [])
        >>> report.to_json()["schema"]
        'kinkcheck.audit/3'
        """
        return {"schema": SCHEMA, **plain(asdict(self))}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """The report that :meth:`to_json` wrote, in this version of the schema or an earlier one.

        Keys that are not known are passed over: within a version fields may be added.

        Args:
            found: what :func:`json.load` returns.

        Raises:
            InputError: another schema, or an entry that is missing or of another type; the
                message names it.

        >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
        >>> report = AuditReport(*names, 0, "native", [], [], [], [])
        >>> AuditReport.from_json(report.to_json()) == report
        True
        """
        schema = found.get("schema")
        if schema not in READABLE:
            raise InputError(f"schema: must be one of {', '.join(READABLE)}, not {schema!r}")
        try:
            return TypeAdapter(cls).validate_python(found)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(f"{where}: {first['msg']}") from None


def plain(value: Any) -> Any:
    """A value as JSON has it: numbers that are not finite are the strings of their names.

    >>> plain({"l1": [math.inf, 1.0]})
    {'l1': ['inf', 1.0]}
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
