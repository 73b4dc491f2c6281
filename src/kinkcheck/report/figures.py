"""Figures of an audit, as SVG that stands inside an HTML page and takes its text colour."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from kinkcheck.audit import AuditReport, Point, SiteCount
from kinkcheck.audit.picture import TiesPicture
from kinkcheck.audit.summary import Summary, ZoneShare
from kinkcheck.measure.standing.records import Kind
from kinkcheck.measure.zones import PUBLISHED_THRESHOLDS, Zone

WIDTH = 4.6
"""Inches: on a phone the page scales this to 80 %, at which 10 points can still be read."""

_INK = "#010203"  # stands for the colour of the page's text
_LIGHT, _MIDDLE, _DARK = "#d5d5d5", "#5f9fd4", "#8e1b10"  # told apart in grey as well
_YELLOW, _GREY = "#e8c468", "#777777"

ZONE_COLOURS = {
    Zone.AGREEMENT: _LIGHT,
    Zone.COMPENSATION: _MIDDLE,
    Zone.BIFURCATION: _DARK,
    Zone.UNDECIDED: _YELLOW,
    Zone.NON_FINITE: _GREY,
}
STANDING_COLOURS = {
    Kind.DERIVATIVE: _LIGHT,
    Kind.LIMIT: _MIDDLE,
    Kind.SUBGRADIENT: _GREY,
    Kind.WRONG: _DARK,
    Kind.UNDECIDED: _YELLOW,
}
CAUSE_COLOURS = {"dead": _LIGHT, "exact": _MIDDLE, "rounding": _DARK, "tied": _YELLOW}

_STYLE: Any = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.unicode_minus": True,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.size": 10,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "patch.edgecolor": _INK,
    "svg.fonttype": "none",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def variation_histograms(report: AuditReport, summary: Sequence[Summary] = ()) -> str:
    """Histograms of log10 of the variation, one below the other for each precision.

    The norm is :attr:`Variation.linf_by_tensor`, that of the published thresholds, which are
    marked, as are measured noise floors. Zero is a bin of its own. Empty without points.

    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> variation_histograms(AuditReport(*names, 0, "native", [], [], [], []))
    ''
    """
    by_precision: dict[str, list[Point]] = {}
    for point in report.points:
        by_precision.setdefault(point.precision, []).append(point)
    if not by_precision:
        return ""
    measured = {
        entry.precision: entry.threshold_measured for entry in summary if entry.threshold_measured
    }
    lines: list[tuple[str, Literal["--", ":"], Mapping[str, float]]] = [
        ("published threshold", "--", PUBLISHED_THRESHOLDS),
        ("noise floor", ":", measured),
    ]
    marked = [of[name] for _, _, of in lines for name in by_precision if name in of]
    exponents = [
        math.log10(value)
        for value in (*(point.variation.linf_by_tensor for point in report.points), *marked)
        if math.isfinite(value) and value > 0
    ]
    low = math.floor(min(exponents, default=-1)) - 0.5
    high = math.ceil(max(exponents, default=0)) + 0.5
    zero = low - max(1, (high - low) / 12)
    zero_width = max(0.25, (high - low) / 30)
    edges = np.arange(low, high + 0.25, 0.25)
    selections = list(dict.fromkeys(point.selection for point in report.points))
    shades = dict(zip(selections, cycle((_MIDDLE, _LIGHT, _DARK, _YELLOW, _GREY)), strict=False))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(by_precision), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, points) in zip(panels, by_precision.items(), strict=True):
            at_zero, bottom = 0, np.zeros(len(edges) - 1)
            for selection in selections:
                values = [p.variation.linf_by_tensor for p in points if p.selection == selection]
                counts, _ = np.histogram(
                    [math.log10(v) for v in values if math.isfinite(v) and v > 0], edges
                )
                style = {"color": shades[selection], "edgecolor": _INK, "linewidth": 0.5}
                zeros = values.count(0)
                axes.bar(zero, zeros, zero_width, at_zero, **style)
                axes.bar(edges[:-1], counts, 0.25, bottom, align="edge", **style)
                at_zero, bottom = at_zero + zeros, bottom + counts
            infinite = sum(not math.isfinite(p.variation.linf_by_tensor) for p in points)
            beside = f" ({infinite} of {len(points)} not finite)" if infinite else ""
            axes.set_title(_short(name) + beside)
            for _, line, thresholds in lines:
                if (value := thresholds.get(name)) and math.isfinite(value):
                    axes.axvline(math.log10(value), color=_INK, linestyle=line, linewidth=1.3)
            axes.set_ylabel("points")
            axes.set_ylim(0, 1.05 * max(1, at_zero, *bottom))
            axes.yaxis.get_major_locator().set_params(integer=True, nbins=3)
        step = max(1, round((high - low) / 8))
        ticks = range(math.ceil(low), math.floor(high) + 1, step)
        panels[-1].set_xticks(
            [zero, *ticks], ["zero", *(f"{tick}".replace("-", "−") for tick in ticks)]
        )
        panels[-1].set_xlim(zero - zero_width, high)
        panels[-1].set_xlabel("log10 of the variation (∞-norms of tensors, summed)")
        keys: list[Any] = [
            Patch(facecolor=shades[selection], edgecolor=_INK, label=_short(selection))
            for selection in selections
        ]
        for label, line, thresholds in lines:
            if not by_precision.keys().isdisjoint(thresholds):
                keys.append(Line2D([], [], color=_INK, linestyle=line, label=label))
        figure.legend(handles=keys, loc="outside upper left", ncols=3)

    return _svg(draw, 0.9 + 1.15 * len(by_precision), "Histogram of the variation by precision")


def standing_bars(summary: Sequence[Summary], reference: str) -> str:
    """The proportion of points in each kind of standing with its interval, by program.

    Empty where nobody looked.

    >>> standing_bars([], "native")
    ''
    """
    rows = by_program(summary, reference)
    if not rows:
        return ""
    kinds = shown_kinds(rows)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _bars(
            axes,
            [shares for _, _, shares in rows],
            {kind: STANDING_COLOURS[kind] for kind in kinds},
        )
        names = [f"{_short(name)}\n{_short(program)}" for name, program, _ in rows]
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        figure.legend(handles=_keys(STANDING_COLOURS, kinds), loc="outside upper left", ncols=3)

    height = 1.0 + max(0.18 * len(kinds), 0.42) * len(rows)
    return _svg(draw, height, "Proportion of points in each kind of standing")


Shares = Mapping[str, ZoneShare]


def by_program(summary: Sequence[Summary], reference: str) -> list[tuple[str, str, Shares]]:
    """Precision, program and its standings: of each precision the reference's first.

    >>> by_program([], "native")
    []
    """
    rows: list[tuple[str, str, Shares]] = []
    for entry in summary:
        programs = [(reference, entry.reference_standings), (entry.selection, entry.standings)]
        seen = any(name == entry.precision for name, _, _ in rows)
        rows += [(entry.precision, *each) for each in programs[seen:] if each[1]]
    return rows


def shown_kinds(rows: Sequence[tuple[str, str, Shares]]) -> list[Kind]:
    """The kinds of which there is a point, and whether any is wrong.

    >>> [str(kind) for kind in shown_kinds([])]
    ['wrong']
    """
    met = {kind for _, _, shares in rows for kind, share in shares.items() if share.count}
    return [kind for kind in Kind if kind in met or kind is Kind.WRONG]


def zone_bars(summary: Sequence[Summary]) -> str:
    """The proportion of points in each zone with its interval, by lift and by threshold.

    Empty without a summary.

    >>> zone_bars([])
    ''
    """
    if not summary:
        return ""
    classifiers: tuple[tuple[str, Callable[[Summary], dict[str, ZoneShare]]], ...] = (
        ("by the lift", lambda entry: entry.zones),
        ("by the threshold", lambda entry: entry.zones_by_threshold),
    )
    several = len({entry.selection for entry in summary}) > 1
    zones = shown_zones(summary)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (title, of) in zip(panels, classifiers, strict=True):
            _bars(axes, list(map(of, summary)), {zone: ZONE_COLOURS[zone] for zone in zones})
            axes.set_title(title)
        names = [
            _short(entry.precision) + (f"\n{_short(entry.selection)}" if several else "")
            for entry in summary
        ]
        panels[0].set_yticks(range(len(summary)), names)
        panels[0].set_ylim(len(summary) - 0.5, -0.5)
        figure.legend(handles=_keys(ZONE_COLOURS, zones), loc="outside upper left", ncols=3)

    height = 1.0 + 0.18 * len(zones) * len(summary)
    return _svg(draw, height, "Proportion of points in each zone, by lift and by threshold")


def _bars(axes: Any, rows: Sequence[Shares], colours: Mapping[Any, str]) -> None:
    """In each row a bar with its interval for each colour, as wide as its share."""
    for row, shares in enumerate(rows):
        for place, (each, colour) in enumerate(colours.items()):
            if each not in shares:
                continue
            share, height = shares[each], 0.8 / len(colours)
            y = row - 0.4 + (place + 0.5) * height
            style = {"color": colour, "edgecolor": _INK, "linewidth": 0.5}
            axes.barh(y, 100 * share.proportion, height, **style)
            low, high = (100 * bound for bound in share.interval)
            axes.plot([low, high], [y, y], color=_INK, linewidth=1.2)
            axes.plot([low, high], [y, y], "|", color=_INK, markersize=4)
        if not shares:
            axes.text(2, row, "not judged", va="center", fontsize=9)
    axes.set_xlim(-1, 101)
    axes.set_xticks([0, 50, 100], ["0", "50", "100 %"])


def _keys(colours: Mapping[Any, str], shown: Sequence[Any]) -> list[Patch]:
    return [Patch(facecolor=colours[each], edgecolor=_INK, label=each) for each in shown]


def shown_zones(summary: Sequence[Summary]) -> list[Zone]:
    """The zones of the papers, and of the others those that hold a point.

    >>> [str(zone) for zone in shown_zones([])]
    ['agreement', 'compensation', 'bifurcation']
    """
    main = (Zone.AGREEMENT, Zone.COMPENSATION, Zone.BIFURCATION)
    met = {
        zone
        for entry in summary
        for shares in (entry.zones, entry.zones_by_threshold)
        for zone, share in shares.items()
        if share.count
    }
    return [zone for zone in Zone if zone in main or zone in met]


def site_bars(sites: Sequence[SiteCount]) -> str:
    """For each site with ties the part of its windows that are tied, by cause.

    Where the causes were not counted (version 1), ties at zero and all others. Empty without ties.

    >>> site_bars([])
    ''
    """
    tied = tied_sites(sites)
    if not tied:
        return ""
    rows = [site for counts in tied for site in counts]
    gaps = np.repeat(np.arange(len(tied)), [len(counts) for counts in tied])
    y = np.arange(len(rows)) + 1.5 * gaps
    causes = [(_causes(site), site.windows) for site in rows]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        left = np.zeros(len(rows))
        keys = list(dict.fromkeys(name for parts, _ in causes for name in parts))
        for name in keys:
            width = np.array(
                [100 * parts.get(name, 0) / max(1, windows) for parts, windows in causes]
            )
            axes.barh(
                y, width, 0.8, left, label=name, color=_SITE_COLOURS[name], edgecolor=_INK,
                linewidth=0.5,
            )  # fmt: skip
            left += width
        axes.set_yticks(y, [_short(site.precision) for site in rows])
        axes.tick_params(axis="y", length=0)
        for counts, top in zip(tied, y[[rows.index(counts[0]) for counts in tied]], strict=True):
            axes.text(0, top - 0.6, _short(site_name(counts[0]), 40), va="bottom", weight="bold")
        axes.set_ylim(y[-1] + 0.6, -1.8)
        axes.set_xlim(0, max(1.0, 1.02 * left.max()))
        axes.set_xlabel("tied windows, % of all")
        figure.legend(loc="outside upper left", ncols=4)

    return _svg(draw, 0.9 + 0.2 * (y[-1] + 2.4), "Tied windows of each layer by cause")


_OPACITY = {"dead": 0.25, "exact": 0.5, "rounding": 0.85, "tied": 0.5}
_SITE_COLOURS = {**CAUSE_COLOURS, "at zero": _LIGHT, "not at zero": _MIDDLE}


def tied_sites(sites: Sequence[SiteCount]) -> list[list[SiteCount]]:
    """The sites that have ties in some precision; for each of them its counts in all precisions.

    >>> tied_sites([SiteCount("float32", "pool", "max_pool2d", 0, 9, 0, 0, None)])
    []
    """
    by_site: dict[tuple[str, str, int], list[SiteCount]] = {}
    for site in sites:
        by_site.setdefault((site.layer, site.operation, site.call), []).append(site)
    return [counts for counts in by_site.values() if any(site.tied for site in counts)]


def site_name(site: SiteCount) -> str:
    """A site as the report shows it.

    >>> site_name(SiteCount("float32", "pool", "max_pool2d", 1, 9, 0, 0, None))
    'pool max_pool2d #1'
    """
    return f"{site.layer or '(root)'} {site.operation}" + (f" #{site.call}" if site.call else "")


def _causes(site: SiteCount) -> dict[str, int]:
    counted = {"dead": site.dead, "exact": site.exact, "rounding": site.rounding}
    known = {name: count for name, count in counted.items() if count is not None}
    if not known:
        return {"at zero": site.tied_at_zero, "not at zero": site.tied - site.tied_at_zero}
    rest = site.tied - sum(known.values())
    return {**known, "tied": rest} if rest > 0 else known


def picture(found: TiesPicture) -> str:
    """One image with its tied windows, coloured by cause.

    >>> "<svg" in picture(TiesPicture("float32", "pool", 1, 1, [[0.5]], dead=[(0, 0, 1, 1)]))
    True
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.imshow(
            found.image, cmap="gray", vmin=0, vmax=1, interpolation="none",
            extent=(0, found.width, found.height, 0),
        )  # fmt: skip
        axes.set_axis_off()
        keys = []
        for cause, colour in CAUSE_COLOURS.items():
            windows = getattr(found, cause)
            for top, left, bottom, right in windows:
                box = (left, top), right - left, bottom - top
                fill = (colour, _OPACITY[cause])
                axes.add_patch(Rectangle(*box, facecolor=fill, edgecolor=colour, linewidth=0.7))
            if windows:
                label = f"{cause} ({len(windows):,})"
                keys.append(Patch(facecolor=colour, edgecolor=_INK, label=label))
        if keys:
            figure.legend(handles=keys, loc="outside upper left", ncols=4)

    aspect = found.height / max(1, found.width)
    return _svg(draw, min(8.0, 0.5 + WIDTH * aspect), "One image and its tied windows")


def _short(text: str, length: int = 16) -> str:
    return text if len(text) <= length else f"{text[: length // 2]}…{text[-length // 2 + 1 :]}"


def _svg(draw: Callable[[Figure], None], height: float, title: str) -> str:
    """Draw, and turn into an ``<svg>`` element whose ink is the colour of the text around it."""
    out = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}), warnings.catch_warnings():
        # A name in a script that the font does not have is drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH, height), facecolor="none")
        draw(figure)
        for axes in figure.axes:
            axes.set_facecolor("none")
        figure.savefig(
            out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
