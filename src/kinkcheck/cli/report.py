"""``kinkcheck report``: an audit shown again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from kinkcheck.cli.options import (
    FailOn,
    HtmlFile,
    Quiet,
    Verbose,
    claimed,
    require_shown,
    write,
)
from kinkcheck.files import Claim, require_other, require_readable
from kinkcheck.terminal import Terminal, say

if TYPE_CHECKING:
    from kinkcheck.audit import AuditReport


def report(
    ctx: typer.Context,
    json_file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="What kinkcheck audit --json wrote, any version."),
    ],
    html_file: HtmlFile = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
    fail_on: FailOn = None,
) -> None:
    """Show an audit again from its JSON."""
    require_shown(verbose, quiet, fail_on)
    if html_file is not None:
        require_other(html_file, "--html", json_file)
    page = None if html_file is None else ctx.with_resource(claimed("--html", html_file))
    require_readable(json_file)

    from kinkcheck.audit import load

    found = load(json_file)
    if page is not None:
        write_html(page, found)
    show(found, verbose, quiet)  # last: readers may go away
    gate(found, fail_on)


def show(found: AuditReport, verbose: bool, quiet: bool) -> None:
    """Print an audit; who sits at a terminal is told that there is more."""
    from kinkcheck.report.audit import print_audit

    out = Terminal()
    print_audit(found, out, verbose=verbose, quiet=quiet)
    if out.is_terminal and not (verbose or quiet):
        out.print(Text("-v shows all tables.", style="dim"))


def gate(found: AuditReport, fail_on: str | None) -> None:
    """Leave with exit code 1 where what ``--fail-on`` names is so.

    Raises:
        typer.Exit: it is.
    """
    from kinkcheck.audit import Answer, headline
    from kinkcheck.audit.standings import is_wrong

    if fail_on is None:
        return
    failing = {"matters": [Answer.LOOK_HERE], "doubt": [Answer.LOOK_HERE, Answer.CANNOT_SAY]}
    if is_wrong(found) if fail_on == "wrong" else headline(found).kind in failing[fail_on]:
        say(f"kinkcheck: exit code 1, for --fail-on {fail_on}", error=True)
        raise typer.Exit(1)


def write_html(page: Claim, found: AuditReport) -> None:
    """Write the page of an audit."""
    from kinkcheck.report.html import audit_html  # Matplotlib takes a second to import

    write("--html", page, audit_html(found))
