"""An audit as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kinkcheck.audit import AuditReport, SiteCount
from kinkcheck.audit.effect import places
from kinkcheck.audit.headline import headline
from kinkcheck.audit.standings import answer
from kinkcheck.measure.records import Point
from kinkcheck.measure.standing.records import Kind
from kinkcheck.measure.zones import Zone
from kinkcheck.report import figures, words
from kinkcheck.report.audit import notes
from kinkcheck.report.tables import largest, median, not_finite


def audit_html(report: Mapping[str, Any] | AuditReport) -> str:
    """The report of an audit as HTML: verdict, tables, figures, glossary.

    One file: style and figures are inside, nothing is fetched. What the JSON does not hold is left
    out.

    Args:
        report: a report, or its JSON (docs/audit-json.md), any version.

    Raises:
        InputError: not the JSON of an audit.

    >>> from kinkcheck.audit import AuditReport
    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> page = audit_html(AuditReport(*names, 0, "native", [], [], [], []).to_json())
    >>> "<title>kinkcheck: lenet5 on mnist: CANNOT SAY</title>" in page
    True
    """
    audit = report if isinstance(report, AuditReport) else AuditReport.from_json(report)
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in audit.points:
        groups.setdefault((point.precision, point.selection), []).append(point)
    programs = figures.by_program(audit.summary, audit.reference)
    tied = figures.tied_sites(audit.sites)
    found = headline(audit)
    first = audit.summary[0] if audit.summary else None
    return _page.render(
        audit=audit,
        verdict=audit.verdict,
        facts=_facts(audit),
        variations=[_Moved(*key, points) for key, points in groups.items()],
        opening=answer(audit),
        programs=programs,
        kinds=figures.shown_kinds(programs),
        zones=figures.shown_zones(audit.summary),
        tied=tied,
        sites=len({(site.layer, site.operation, site.call) for site in audit.sites}),
        attributed=any(site.variation_l1 is not None for site in audit.sites),
        attributed_in_lift=any(site.lift_variation_l1 is not None for site in audit.sites),
        causes=_causes(audit.sites),
        headline=found,
        notes=notes(audit),
        places={site.name: f"site-{number}" for number, (site, *_) in enumerate(tied, 1)},
        fills=_ANSWERS,
        method=f" ({first.interval_method})" if first and first.interval_method else "",
        confidence=f"{100 * first.confidence:g} %" if first and first.confidence else "",
        histograms=Markup(figures.variation_histograms(audit, audit.summary)),
        standing_bars=Markup(figures.standing_bars(audit.summary, audit.reference)),
        zone_bars=Markup(figures.zone_bars(audit.summary)),
        threshold_bars=Markup(figures.zone_bars(audit.summary, by_threshold=True)),
        site_bars=Markup(figures.site_bars(audit.sites)),
        not_finite=not_finite(audit.points),
        picture=Markup(figures.picture(audit.ties_picture) if audit.ties_picture else ""),
        pictured_site=_pictured(audit, tied),
        glossary=words.GLOSSARY,
        script=_script,
        script_digest=_digest,
    )


_ANSWERS = {
    "right": figures.STANDING_FILLS[Kind.LIMIT],
    "lost": figures.ZONE_FILLS[Zone.COMPENSATION],
    "look": figures.STANDING_FILLS[Kind.WRONG],
    "open": figures.STANDING_FILLS[Kind.UNDECIDED],
}
"""The colours of the answers, which mean the same in the figures."""


def _causes(sites: Sequence[SiteCount]) -> tuple[str, ...]:
    """The causes of ties that were counted."""
    if not any(site.dead is not None for site in sites):
        return ()
    return tuple(figures.CAUSE_FILLS)[: 4 if any(site.cause_unknown for site in sites) else 3]


def _facts(audit: AuditReport) -> list[tuple[str, str]]:
    """What was measured, and how, as far as it is known."""
    drawn = audit.settings is not None and ":" not in audit.settings.network
    facts = {
        "Network": audit.network,
        "Initialisation": audit.settings.init if audit.settings and drawn else None,
        "Data": audit.data,
        "Batch size": audit.batch_size and f"{audit.batch_size:,}",
        "Points": _grid(audit),
        "Compared": f"{', '.join(audit.selections) or 'nothing'} with {audit.reference}",
        "Switched": "all operations" if audit.operations is None else ", ".join(audit.operations),
        "Seed": str(audit.seed),
        "Device": audit.device,
        "Date": audit.date and f"{audit.date.removesuffix('Z').replace('T', ' ')} UTC",
        "Versions": f"kinkcheck {audit.kinkcheck}, torch {audit.torch}",
    }
    return [(name, value) for name, value in facts.items() if value]


def _grid(audit: AuditReport) -> str:
    """How many points there are, and of what."""
    found = places(audit.points)
    sides = [len(set(side)) for side in zip(*found, strict=True)]
    if not found or math.prod(sides) != len(found):
        return f"{len(found):,}"
    names = ("precision", "draw", "mini-batch")
    counted = [
        f"{count:,} {name}{'es' * (name[-1] == 'h') or 's' if count > 1 else ''}"
        for count, name in zip(sides, names, strict=True)
    ]
    return f"{len(found):,} = {' × '.join(counted)}"


def _pictured(audit: AuditReport, tied: Sequence[Sequence[SiteCount]]) -> int:
    """The number, from 1, of the tied site that the picture shows; 0 for none."""
    if audit.ties_picture is None:
        return 0
    for number, (site, *_) in enumerate(tied, 1):
        if site.layer == audit.ties_picture.layer and "max_pool2d" in site.operation:
            return number
    return 0


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
    "anchor": words.anchor, "linked": words.linked, "number": _number,
    "word": words.linked_word,
}  # fmt: skip
_environment.globals["percent"] = _percent
_page = _environment.get_template("audit.html")
_script = Markup(files("kinkcheck.report").joinpath("page.js").read_text(encoding="utf-8"))
_digest = "sha256-" + base64.b64encode(hashlib.sha256(_script.encode()).digest()).decode()
