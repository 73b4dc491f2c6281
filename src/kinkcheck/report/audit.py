"""An audit in a terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from kinkcheck.audit import Answer, AuditReport, headline
from kinkcheck.audit.advice import advice, where, why_undecided
from kinkcheck.audit.effect import effects
from kinkcheck.audit.standings import answer, told
from kinkcheck.audit.verdict import beside
from kinkcheck.report.tables import answer_table, audit_tables, site_table
from kinkcheck.terminal import Terminal

COLOURS = {
    Answer.RIGHT: "green",
    Answer.DOES_NOT_MATTER: "cyan",
    Answer.LOOK_HERE: "red",
    Answer.CANNOT_SAY: "yellow",
}
"""The colour of each answer."""


def print_audit(
    report: AuditReport, out: Terminal, *, verbose: bool = False, quiet: bool = False
) -> None:
    """Print the answer in a line; then one table, or two, what to do, and where to look.

    Args:
        report: the audit.
        out: where.
        verbose: after the answer all tables, between the sentences of the verdict.
        quiet: nothing but the answer.

    >>> names = ("0.1.0", "2.13.0", "cpu", "linear", "batches")
    >>> print_audit(AuditReport(*names, 0, "native", ["minimal"], [], [], []), Terminal())
    CANNOT SAY: no kink that kinkcheck recognises was met
    """
    found = headline(report)
    line = Text.assemble((found.kind, f"bold {COLOURS[found.kind]}"), f": {found.text}")
    if quiet:
        out.tell(line)
        return
    out.print(line)
    if verbose:
        _print_all(report, out)
    else:
        _print_most(report, out)


def _print_most(report: AuditReport, out: Terminal) -> None:
    if report.sites:
        out.print("", answer_table(report))
    if any(site.variation_l1 is not None for site in report.sites):
        out.print("", site_table(report))
    for heading, text in notes(report):
        out.print(Text.assemble((heading, "bold"), f": {text}"))


def notes(report: AuditReport) -> list[tuple[str, str]]:
    """What to do after an audit, where to look, and what else to know: headings and texts.

    >>> names = ("0.1.0", "2.13.0", "cpu", "linear", "batches")
    >>> notes(AuditReport(*names, 0, "native", ["minimal"], [], [], []))
    []
    """
    still = headline(report).kind is Answer.RIGHT and not any(effects(report.points).values())
    found = (
        ("Undecided", why_undecided(report)),
        ("What to do", " ".join(advice(report))),
        ("Where to look", "" if still else where(report)),
        ("Beware", " ".join([*told(report), *beside(report)])),
    )
    return [(heading, text) for heading, text in found if text]


def _print_all(report: AuditReport, out: Terminal) -> None:
    opening = answer(report)
    out.print(f"\n{opening}\n" if opening else "")
    for table in audit_tables(report):
        out.print(table)
        if isinstance(table, Table) and table.caption:
            out.print()
    out.print(report.verdict.removeprefix(opening).lstrip())
