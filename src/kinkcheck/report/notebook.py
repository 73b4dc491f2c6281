"""An audit in a notebook."""

from __future__ import annotations

from html import escape

from rich.table import Table

from kinkcheck.audit import AuditReport, headline
from kinkcheck.report.audit import COLOURS, notes
from kinkcheck.report.tables import answer_table


def audit_fragment(report: AuditReport) -> str:
    """The answer, a table and what to do, as HTML that stands between others.

    >>> names = ("0.1.0", "2.13.0", "cpu", "<i>", "mnist")
    >>> print(audit_fragment(AuditReport(*names, 0, "native", ["minimal"], [], [], [])))
    <div ...><p>&lt;i&gt; on mnist</p><p><b>CANNOT SAY</b>: no kink ...</div>
    """
    found = headline(report)
    parts = [
        f"<p>{escape(f'{report.network} on {report.data}')}</p>",
        f"<p><b>{found.kind}</b>: {escape(found.text)}</p>",
    ]
    if report.sites:
        parts.append(_table(answer_table(report)))
    parts += [f"<p><b>{name}</b>: {escape(text)}</p>" for name, text in notes(report)]
    verdict = escape(report.verdict)
    parts.append(f"<details><summary>The whole verdict</summary><p>{verdict}</p></details>")
    style = f"border-left: .3em solid {COLOURS[found.kind]}; padding-left: .7em"
    return f'<div style="{style}">{"".join(parts)}</div>'


def _table(table: Table) -> str:
    """The table of a terminal."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    heads = "".join(f"<th>{escape(str(column.header))}</th>" for column in table.columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for row in zip(*columns, strict=True)
    )
    caption = f"<p><small>{escape(str(table.caption or ''))}</small></p>"
    return f"<table><tr>{heads}</tr>{rows}</table>{caption}"
