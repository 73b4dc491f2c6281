"""An audit as one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kinkcheck.audit.document import AuditDocument
from kinkcheck.audit.standings import answer
from kinkcheck.audit.verdict import verdict
from kinkcheck.measure.records import Point
from kinkcheck.report import figures
from kinkcheck.report.tables import largest, median, not_finite


def audit_html(report: Mapping[str, Any] | AuditDocument) -> str:
    """The report of an audit as HTML: verdict, tables, figures, glossary.

    One file: style and figures are inside, nothing is fetched. What the JSON does not hold is left
    out.

    Args:
        report: the JSON of an audit (docs/audit-json.md), any version; or what was read from it.

    Raises:
        InputError: not the JSON of an audit.

    >>> from kinkcheck.audit import AuditReport
    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> page = audit_html(AuditReport(*names, 0, "native", [], [], [], []).to_json())
    >>> "<title>kinkcheck: lenet5 on mnist</title>" in page
    True
    """
    audit = report if isinstance(report, AuditDocument) else AuditDocument.from_json(report)
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in audit.points:
        groups.setdefault((point.precision, point.selection), []).append(point)
    programs = figures.by_program(audit.summary, audit.reference)
    return _page.render(
        audit=audit,
        verdict=audit.verdict or verdict(audit),
        variations=[_Moved(*key, points) for key, points in groups.items()],
        opening=answer(audit),
        programs=programs,
        kinds=figures.shown_kinds(programs),
        zones=figures.shown_zones(audit.summary),
        tied=figures.tied_sites(audit.sites),
        sites=len({(site.layer, site.operation, site.call) for site in audit.sites}),
        attributed=any(site.variation_l1 is not None for site in audit.sites),
        attributed_in_lift=any(site.lift_variation_l1 is not None for site in audit.sites),
        caused=any(site.dead is not None for site in audit.sites),
        histograms=Markup(figures.variation_histograms(audit, audit.summary)),
        standing_bars=Markup(figures.standing_bars(audit.summary, audit.reference)),
        zone_bars=Markup(figures.zone_bars(audit.summary)),
        site_bars=Markup(figures.site_bars(audit.sites)),
        not_finite=not_finite(audit.points),
        picture=Markup(figures.picture(audit.ties_picture) if audit.ties_picture else ""),
    )


class _Moved:
    """How far one selection moves the gradient in one precision."""

    def __init__(self, precision: str, selection: str, points: list[Point]) -> None:
        self.precision, self.selection = precision, selection
        l1 = [point.variation.l1 for point in points]
        relative = [point.variation.relative_l1 for point in points]
        self.points = len(points)
        self.moved = sum(value > 0 for value in l1)
        self.numbers = [of(values) for values in (l1, relative) for of in (median, largest)]


def _number(value: float | None) -> str:
    """A number as the page shows it: 0, 0.965, 1.2e−07."""
    if value is None:
        return "–"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return (f"{value:.3g}" if 0.01 <= abs(value) < 1000 else f"{value:.1e}").replace("-", "−")


def _percent(count: int | None, total: int) -> str:
    return "–" if count is None or not total else f"{100 * count / total:.2f} %"


_environment = Environment(
    loader=PackageLoader("kinkcheck.report", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {
    "number": _number, "site_name": figures.site_name
}  # fmt: skip
_environment.globals["percent"] = _percent
_page = _environment.get_template("audit.html")
