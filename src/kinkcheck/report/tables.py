"""Tables for the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table

from kinkcheck.audit import AuditReport
from kinkcheck.audit.report import Point, SiteCount
from kinkcheck.programs import Evaluation


def audit_tables(report: AuditReport) -> list[RenderableType]:
    """The tables of an audit: variation by precision and selection, sites, what was unseen.

    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> audit_tables(AuditReport(*names, 0, "native", ["minimal"], [], [], []))
    []
    """
    tables: list[RenderableType] = []
    if report.sites:
        tables += [_variation(report), _sites(report)]
    if report.unseen:
        tables.append(_unseen(report))
    return tables


def program_table(x: Sequence[float], by_t: dict[float, dict[str, list[Evaluation]]]) -> Table:
    """The derivatives of programs that compute one function, for one x.

    Args:
        x: the entries.
        by_t: for every t and precision, what :func:`kinkcheck.programs.evaluate` returned.

    >>> program_table((1.0, 2.0, 3.0, 4.0), {}).title
    'x = (1, 2, 3, 4): value, derivative by AD in each precision, zone'
    """
    entries = ", ".join(f"{entry:g}" for entry in x)
    table = _table(f"x = ({entries}): value, derivative by AD in each precision, zone")
    precisions = list(next(iter(by_t.values()), {}))
    table.add_column("t", justify="right", no_wrap=True)
    table.add_column("program", no_wrap=True)
    for heading in ("value", *precisions):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("zone", no_wrap=True)
    for t, by_precision in by_t.items():
        rows = list(zip(*by_precision.values(), strict=True))
        for evaluations in rows:
            program, value = evaluations[0].program, evaluations[0].value
            zero = program.startswith("zero")
            table.add_row(
                f"{t:g}" if evaluations is rows[0] else "",
                program,
                f"{value:g}"
                if all(evaluation.value == value for evaluation in evaluations)
                else "",
                *(_derivative(evaluation) for evaluation in evaluations),
                _zone(evaluations) if zero else "",
                end_section=evaluations is rows[-1],
            )
    return table


def _derivative(evaluation: Evaluation) -> str:
    text = f"{evaluation.derivative:.3g}"
    wrong = evaluation.program.startswith("zero") and evaluation.derivative != 0
    return f"[bold red]{text}[/]" if wrong else text


def _zone(evaluations: Sequence[Evaluation]) -> str:
    if any(evaluation.exact != 0 for evaluation in evaluations):
        return "[bold red]bifurcation[/]"
    if any(evaluation.derivative != 0 for evaluation in evaluations):
        return "[yellow]compensation[/]"
    return "agreement"


def _variation(report: AuditReport) -> Table:
    table = _table(f"Gradient variation against {report.reference}, over points")
    for heading in ("precision", "selection"):
        table.add_column(heading, no_wrap=True)
    table.add_column("moved", justify="right", no_wrap=True)
    for heading in ("l1 median", "largest", "relative median", "largest"):
        table.add_column(heading, justify="right")
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in report.points:
        groups.setdefault((point.precision, point.selection), []).append(point)
    for (precision, selection), points in groups.items():
        l1 = [point.variation.l1 for point in points]
        relative = [point.variation.relative_l1 for point in points]
        table.add_row(
            precision,
            selection,
            f"{sum(value != 0 for value in l1)} of {len(points)}",
            *(f"{of(values):.1e}" for values in (l1, relative) for of in (statistics.median, max)),
        )
    return table


def _sites(report: AuditReport) -> Table:
    by_site: dict[tuple[str, str, int], list[SiteCount]] = {}
    for site in report.sites:
        by_site.setdefault((site.layer, site.operation, site.call), []).append(site)
    tied = {key: counts for key, counts in by_site.items() if any(site.tied for site in counts)}
    table = _table("Ties by site")
    if len(tied) < len(by_site):
        table.caption = f"{len(by_site) - len(tied)} of {len(by_site)} sites have no tie"
        table.caption_justify = "left"
    attributed = any(site.variation_l1 is not None for site in report.sites)
    for heading in ("layer", "operation"):
        table.add_column(heading, no_wrap=True)
    for heading in ("windows", "precision", "tied", "at zero"):
        table.add_column(heading, justify="right", no_wrap=True)
    if attributed:
        table.add_column("l1 alone", justify="right", no_wrap=True)
    for (layer, operation, call), counts in tied.items():
        for site in counts:
            first = site is counts[0]
            cells = [
                (layer or "(root)") + (f" #{call}" if call else "") if first else "",
                operation if first else "",
                f"{site.windows:,}" if first else "",
                site.precision,
                _share(site.tied, site.windows),
                _share(site.tied_at_zero, site.windows),
            ]
            if attributed:
                alone = site.variation_l1
                cells.append("--" if alone is None else f"{alone:.1e}")
            table.add_row(*cells, end_section=site is counts[-1] and len(counts) > 1)
    return table


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.2f} %" if total else "--"


def _unseen(report: AuditReport) -> Table:
    table = _table("Unseen: may have kinks, but their derivative was not chosen")
    for heading in ("layer", "operation", "reason"):
        table.add_column(heading)
    table.add_column("calls", justify="right")
    for unseen in report.unseen:
        layer = unseen.layer or "(root)"
        table.add_row(layer, unseen.operation, unseen.reason, f"{unseen.calls:,}")
    return table


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
