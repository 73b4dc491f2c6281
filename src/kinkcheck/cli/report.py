"""``kinkcheck report``: an audit shown again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from kinkcheck.cli.options import HtmlFile, Verbose, write
from kinkcheck.files import require_readable, require_writable

if TYPE_CHECKING:
    from kinkcheck.audit import AuditDocument


def report(
    json_file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="What kinkcheck audit --json wrote, any version."),
    ],
    html_file: HtmlFile = None,
    verbose: Verbose = False,
) -> None:
    """Show an audit again from its JSON."""
    if html_file is not None:
        require_writable(html_file, "--html")
    require_readable(json_file)

    from kinkcheck.audit import read_document

    document = read_document(json_file)
    show(document, verbose)
    if html_file is not None:
        write_html(html_file, document)


def show(document: AuditDocument, verbose: bool) -> None:
    """Print whether the gradient is right, the tables of an audit, and what follows from them."""
    from kinkcheck.audit.standings import answer
    from kinkcheck.audit.verdict import verdict
    from kinkcheck.report.tables import audit_tables

    out = Console()
    opening = answer(document)
    closing = (document.verdict or verdict(document)).removeprefix(opening).lstrip()
    if opening:
        out.print(f"{opening}\n", highlight=False, markup=False)
    for table in audit_tables(document, verbose):
        out.print(table)
    out.print(closing, highlight=False, markup=False)


def write_html(path: Path, document: AuditDocument) -> None:
    """Write the page of an audit."""
    from kinkcheck.report.html import audit_html  # Matplotlib takes a second to import

    write("--html", path, audit_html(document))
