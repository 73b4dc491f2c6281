"""An audit with what is concluded from it: what its JSON holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from kinkcheck.audit.picture import TiesPicture
from kinkcheck.audit.report import AuditReport
from kinkcheck.audit.summary import Summary, summarise
from kinkcheck.audit.verdict import verdict
from kinkcheck.errors import InputError


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


@dataclass(frozen=True)
class AuditDocument(AuditReport):
    """A report and its conclusions; :meth:`to_json` writes both, :meth:`from_json` reads them.

    Attributes:
        summary: one entry for each precision and selection; empty in version 1.
        verdict: the sentence that closed the audit; None in version 1.
        ties_picture: where one image met ties.
        settings: what the command line said; None where there was none.
    """

    summary: list[Summary] = field(default_factory=list)
    verdict: str | None = None
    ties_picture: TiesPicture | None = None
    settings: Settings | None = None


def conclude(
    report: AuditReport,
    ties_picture: TiesPicture | None = None,
    settings: Settings | None = None,
) -> AuditDocument:
    """Draw the conclusions from a report: its summary and its verdict.

    Args:
        report: what :func:`kinkcheck.audit` returned.
        ties_picture: where one image met ties, to go with them.
        settings: what the command line said.

    >>> names = ("0.1.0", "2.13.0", "cpu", "linear", "batches")
    >>> conclude(AuditReport(*names, 0, "native", ["minimal"], [], [], [])).verdict
    'No kink that kinkcheck recognises was met in linear: it had no choice to switch.'
    """
    measured = {each.name: getattr(report, each.name) for each in fields(AuditReport)}
    return AuditDocument(
        **measured,
        summary=summarise(report.points),
        verdict=verdict(report),
        ties_picture=ties_picture,
        settings=settings,
    )


def read_document(path: Path) -> AuditDocument:
    """Read what ``kinkcheck audit --json`` wrote.

    Raises:
        InputError: no such file, no JSON, or not the JSON of an audit; the message names the file.

    >>> read_document(Path("no-such-file.json"))
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: no-such-file.json cannot be read: No such file or directory
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, Mapping):
        raise InputError(f"{path}: the JSON of an audit is an object, not {type(found).__name__}")
    try:
        return AuditDocument.from_json(found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
