"""What an audit found: the JSON schema ``kinkcheck.audit/3``, in a file or in Python."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import TypeAdapter, ValidationError

from kinkcheck.audit.counts import LeftOut, SiteCount, UnseenCount
from kinkcheck.audit.picture import TiesPicture
from kinkcheck.audit.summary import Summary, summarise
from kinkcheck.audit.verdict import verdict
from kinkcheck.errors import InputError
from kinkcheck.files import require_readable, require_writable, write_whole
from kinkcheck.measure.records import Point
from kinkcheck.seal import require_intact, sealed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

SCHEMA = "kinkcheck.audit/3"

READABLE = ("kinkcheck.audit/1", "kinkcheck.audit/2", SCHEMA)
"""The schemas that :meth:`AuditReport.from_json` takes; earlier ones lack what has a default."""


@dataclass(frozen=True)
class Settings:
    """What a command line said to audit, so that it can be measured again.

    Attributes:
        network, data, batches, batch_size, batch_norm, init: the values of the options.
        data_dir: the folder of the data; None for the usual one.
    """

    network: str
    data: str
    data_dir: str | None
    batches: int
    batch_size: int
    batch_norm: bool
    init: str


@dataclass(frozen=True, repr=False)
class AuditReport:
    """Everything that an audit measured, and what is concluded from it.

    ``print(report)`` shows the answer, a table, and what to do.

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
        ties_picture: where the first image met ties; None where there is no image.
        settings: what the command line said; None for an audit made in Python.
        batches: how many mini-batches; None if that was not kept, as what follows.
        batch_size: how many samples the first mini-batch holds; None also where no samples were
            found.
        date: when the audit began, in UTC, as in ``2026-01-31T12:00:00Z``.
        command: the command line; None for an audit made in Python.
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
    ties_picture: TiesPicture | None = None
    settings: Settings | None = None
    batches: int | None = None
    batch_size: int | None = None
    date: str | None = field(default=None, compare=False)
    command: str | None = field(default=None, compare=False)

    @cached_property
    def summary(self) -> list[Summary]:
        """What the points come to, one entry for each precision and selection."""
        return summarise(self.points)

    @cached_property
    def verdict(self) -> str:
        """What the numbers mean, and what to do, in a few sentences.

        >>> names = ("0.1.0", "2.13.0", "cpu", "linear", "batches")
        >>> AuditReport(*names, 0, "native", ["minimal"], [], [], []).verdict
        'No kink that kinkcheck recognises was met in linear: it had no choice to switch.'
        """
        return verdict(self)

    def __repr__(self) -> str:
        """One line: what was audited, and the answer.

        >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
        >>> AuditReport(*names, 0, "native", [], [], [], [])
        <AuditReport of lenet5 on mnist: CANNOT SAY: no kink that kinkcheck recognises was met>
        """
        from kinkcheck.audit.headline import headline

        return f"<AuditReport of {self.network} on {self.data}: {headline(self)}>"

    def __str__(self) -> str:
        """The answer, a table and what to do, as the command line prints them."""
        from kinkcheck.report.audit import print_audit
        from kinkcheck.terminal import Terminal

        return Terminal.text(lambda out: print_audit(self, out))

    def _repr_html_(self) -> str:
        """The same in a notebook."""
        from kinkcheck.report.notebook import audit_fragment

        return audit_fragment(self)

    def to_dataframe(self, of: Literal["points", "sites"] = "points") -> DataFrame:
        """The numbers as a pandas table: a row for each entry.

        Columns have the names of the JSON, with dots: ``variation.l1``, ``standing.kind``. Unknown
        values are missing; lists, as in certificates, are left out.

        Args:
            of: which entries.

        Raises:
            InputError: there is no such table, or pandas is not installed.

        >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
        >>> report = AuditReport(*names, 0, "native", [], [], [], [])
        >>> report.to_dataframe("sites").columns[:4].tolist()
        ['precision', 'layer', 'operation', 'call']
        """
        from kinkcheck.report.frames import frame

        return frame(self, of)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot how far each selection moves the gradient at each point, by precision.

        Grey lines are the rounding errors that the gradient has anyway, at the points that were
        lifted: what stays far below them is lost in it, unless it is in parameters that round less.

        Args:
            ax: Matplotlib axes to draw on; by default those of a new figure.

        Returns:
            The axes.

        >>> from matplotlib.figure import Figure
        >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
        >>> AuditReport(*names, 0, "native", [], [], [], []).plot(Figure().subplots()).get_title()
        'lenet5 on mnist'
        """
        from kinkcheck.report.plot import plot_variation

        return plot_variation(self, ax)

    def to_json(self) -> dict[str, Any]:
        """The report in the schema ``kinkcheck.audit/3``, ready for :func:`json.dump`.

        Its ``digest`` lets :func:`kinkcheck.load` notice damage. Unknown values are null; numbers
        that are not finite are the strings ``"nan"``, ``"inf"`` and ``"-inf"``.

        >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
        >>> report = AuditReport(*names, 0, "native", [], [], [], [])
        >>> report.to_json()["schema"]
        'kinkcheck.audit/3'
        """
        concluded = {"summary": list(map(asdict, self.summary)), "verdict": self.verdict}
        return sealed({"schema": SCHEMA, **plain(asdict(self) | concluded)})

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """The report that :meth:`to_json` wrote, in this version of the schema or an earlier one.

        Its conclusions are those of the version that wrote it. Keys that are not known are passed
        over: within a version fields may be added.

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
        known = {key: value for key, value in found.items() if value is not None}
        try:
            report = TypeAdapter(cls).validate_python(known)
            concluded = TypeAdapter(_Concluded).validate_python(known)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(f"{where}: {first['msg']}") from None
        held = {key: value for key, value in vars(concluded).items() if value is not None}
        vars(report).update(held)  # where a cached property keeps what it returned
        return report

    def text(self) -> str:
        """The JSON as it lies in a file: what :meth:`save` and ``kinkcheck audit --json`` write.

        >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
        >>> print(AuditReport(*names, 0, "native", [], [], [], []).text()[:33])
        {
         "schema": "kinkcheck.audit/3",
        """
        return json.dumps(self.to_json(), indent=1) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the JSON to a file, whole or not at all; :func:`kinkcheck.load` reads it.

        It is what ``kinkcheck audit --json`` writes, and ``kinkcheck report`` shows.

        Args:
            path: of the file, which is replaced.

        Raises:
            InputError: the file cannot be written.

        >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
        >>> report = AuditReport(*names, 0, "native", [], [], [], [])
        >>> path = getfixture("tmp_path") / "audit.json"
        >>> report.save(path)
        >>> load(path) == report
        True
        """
        _write(Path(path), self.text())

    def to_html(self, path: str | Path) -> None:
        """Write the page of the report to a file: one file that needs nothing else.

        Args:
            path: of the file, which is replaced.

        Raises:
            InputError: the file cannot be written.

        >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
        >>> path = getfixture("tmp_path") / "audit.html"
        >>> AuditReport(*names, 0, "native", [], [], [], []).to_html(path)
        >>> path.read_text()[:15]
        '<!DOCTYPE html>'
        """
        from kinkcheck.report.html import audit_html  # Matplotlib takes a second to import

        _write(Path(path), audit_html(self))


@dataclass(frozen=True)
class _Concluded:
    """What a file may hold of the conclusions."""

    summary: list[Summary] | None = None
    verdict: str | None = None


def load(path: str | Path) -> AuditReport:
    """Read what :meth:`AuditReport.save` or ``kinkcheck audit --json`` wrote, any version.

    Args:
        path: of the file.

    Raises:
        InputError: no such file, no JSON, not the JSON of an audit, or not what was written; the
            message names the file.

    >>> load("no-such-file.json")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: no-such-file.json cannot be read: No such file or directory
    """
    path = Path(path)
    require_readable(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, Mapping):
        raise InputError(f"{path}: the JSON of an audit is an object, not {type(found).__name__}")
    require_intact(found, str(path))
    try:
        return AuditReport.from_json(found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _write(path: Path, text: str) -> None:
    require_writable(path, "path")
    try:
        write_whole(path, text)
    except OSError as error:
        raise InputError(f"path: {path} cannot be written: {error.strerror}") from None


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
