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
    'x = (1, 2, 3, 4)'
    """
    table = _table(f"x = ({', '.join(f'{entry:g}' for entry in x)})")
    precisions = list(next(iter(by_t.values()), {}))
    table.add_column("t", justify="right")
    table.add_column("program")
    table.add_column("value", justify="right")
    for name in precisions:
        table.add_column(f"derivative\n{name}", justify="right")
    table.add_column("zone")
    for t, by_precision in by_t.items():
        for row, evaluations in enumerate(zip(*by_precision.values(), strict=True)):
            values = {evaluation.value for evaluation in evaluations}
            program = evaluations[0].program
            table.add_row(
                f"{t:g}" if row == 0 else "",
                program,
                f"{values.pop():g}" if len(values) == 1 else "",
                *(_derivative(evaluation) for evaluation in evaluations),
                _zone(evaluations) if program.startswith("zero") else "",
                end_section=row == len(by_precision[precisions[0]]) - 1,
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
    table = _table(f"Gradient variation against {report.reference}: median (largest) over points")
    for heading in ("precision", "selection"):
        table.add_column(heading)
    for heading in ("points", "moved", "l1", "linf by tensor", "relative l1"):
        table.add_column(heading, justify="right")
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in report.points:
        groups.setdefault((point.precision, point.selection), []).append(point)
    for (precision, selection), points in groups.items():
        variations = [point.variation for point in points]
        table.add_row(
            precision,
            selection,
            str(len(points)),
            str(sum(variation.l1 != 0 for variation in variations)),
            _spread([variation.l1 for variation in variations]),
            _spread([variation.linf_by_tensor for variation in variations]),
            _spread([variation.relative_l1 for variation in variations]),
        )
    return table


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1e} ({max(values):.1e})"


def _sites(report: AuditReport) -> Table:
    table = _table("Ties by site")
    attributed = any(site.variation_l1 is not None for site in report.sites)
    for heading in ("layer", "operation"):
        table.add_column(heading)
    for heading in ("windows", "precision", "tied", "of them at zero"):
        table.add_column(heading, justify="right")
    if attributed:
        table.add_column("l1 variation alone", justify="right")
    by_site: dict[tuple[str, str, int], list[SiteCount]] = {}
    for site in report.sites:
        by_site.setdefault((site.layer, site.operation, site.call), []).append(site)
    for (layer, operation, call), counts in by_site.items():
        for row, site in enumerate(counts):
            first = row == 0
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
            table.add_row(*cells, end_section=row == len(counts) - 1 and len(counts) > 1)
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
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
