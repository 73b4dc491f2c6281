"""Figures of an audit, as SVG that stands inside an HTML page and takes its text colour."""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import Normal, Stroke

from kinkcheck.audit import AuditReport, Point, SiteCount
from kinkcheck.audit.picture import TiesPicture
from kinkcheck.audit.summary import Summary, ZoneShare
from kinkcheck.measure.standing.records import Kind
from kinkcheck.measure.zones import PUBLISHED_THRESHOLDS, Zone

WIDTH = 4.6
"""Inches: on a phone the page scales this to 80 %, at which 10 points can still be read."""

_INK = "#010203"  # stands for the colour of the page's text
_GROUND = "#040506"  # and that of the page
_EDGE = "#202020"  # of what is filled, and of its pattern


@dataclass(frozen=True)
class Fill:
    """What an area is filled with. It is told by its pattern where colours are not.

    Attributes:
        colour: told apart in grey as well; seen on white and on black.
        hatch: Matplotlib's.
    """

    colour: str
    hatch: str = ""

    @property
    def style(self) -> dict[str, Any]:
        """The arguments of a bar or patch."""
        return {
            "facecolor": self.colour, "hatch": self.hatch, "edgecolor": _EDGE, "linewidth": 0.5,
        }  # fmt: skip


_HALO = [Stroke(linewidth=3, foreground=_GROUND), Normal()]
"""Lets a line be seen on what is filled."""

# A colour means one thing in all figures.
_NOTHING = Fill("#d0d0d0")  # depends on the choice
_ROUNDING = Fill("#7db8e8", "---")  # alone: not over the reals
_REAL = Fill("#8473cf", "||")  # over the reals as well
_UNKNOWN = Fill("#f0cf65", "..")

ZONE_FILLS = {
    Zone.AGREEMENT: _NOTHING,
    Zone.COMPENSATION: _ROUNDING,
    Zone.BIFURCATION: _REAL,
    Zone.UNDECIDED: _UNKNOWN,
    Zone.NON_FINITE: Fill("#8a8a8a", "++"),
}
STANDING_FILLS = {
    Kind.DERIVATIVE: Fill("#a6dbc0"),
    Kind.LIMIT: Fill("#5fb58c", "///"),
    Kind.SUBGRADIENT: Fill("#35946b", "\\\\\\"),
    Kind.WRONG: Fill("#cf4436", "xxx"),
    Kind.UNDECIDED: _UNKNOWN,
}
CAUSE_FILLS = {"dead": _NOTHING, "exact": _REAL, "rounding": _ROUNDING, "unknown": _UNKNOWN}
_SITE_FILLS = {**CAUSE_FILLS, "at zero": _NOTHING, "not at zero": _UNKNOWN}
_SELECTION_FILLS = (
    Fill("#b9c2cb"), Fill("#8793a0", "///"), Fill("#dfe4e8", ".."), Fill("#6b7783", "xxx"),
)  # fmt: skip

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
    "hatch.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.handlelength": 2.4,
    "legend.handleheight": 1.0,
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
    """Histograms of the variation on a scale of powers of ten, a panel for each precision.

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
    fills = dict(zip(selections, cycle(_SELECTION_FILLS), strict=False))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(by_precision), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, points) in zip(panels, by_precision.items(), strict=True):
            at_zero, bottom = 0, np.zeros(len(edges) - 1)
            for selection in selections:
                values = [p.variation.linf_by_tensor for p in points if p.selection == selection]
                counts, _ = np.histogram(
                    [math.log10(v) for v in values if math.isfinite(v) and v > 0], edges
                )
                style = fills[selection].style
                zeros = values.count(0)
                if zeros:
                    axes.bar(zero, zeros, zero_width, at_zero, **style)
                met = counts > 0
                axes.bar(edges[:-1][met], counts[met], 0.25, bottom[met], align="edge", **style)
                at_zero, bottom = at_zero + zeros, bottom + counts
            infinite = sum(not math.isfinite(p.variation.linf_by_tensor) for p in points)
            beside = f" ({infinite} of {len(points)} not finite)" if infinite else ""
            axes.set_title(_short(name) + beside)
            for _, line, thresholds in lines:
                if (value := thresholds.get(name)) and math.isfinite(value):
                    style = {"color": _INK, "linewidth": 1.3, "path_effects": _HALO}
                    axes.axvline(math.log10(value), linestyle=line, **style)
            axes.set_ylabel("points")
            axes.set_ylim(0, 1.05 * max(1, at_zero, *bottom))
            axes.yaxis.get_major_locator().set_params(integer=True, nbins=3)
        step = max(1, round((high - low) / 8))
        ticks = range(math.ceil(low), math.floor(high) + 1, step)
        panels[-1].set_xticks([zero, *ticks], ["zero", *map(_power, ticks)])
        panels[-1].set_xlim(zero - zero_width, high)
        panels[-1].set_xlabel("variation (∞-norms of tensors, summed)")
        keys: list[Any] = [
            Patch(label=_short(selection), **fills[selection].style) for selection in selections
        ]
        for label, line, thresholds in lines:
            if not by_precision.keys().isdisjoint(thresholds):
                keys.append(Line2D([], [], color=_INK, linestyle=line, label=label))
        figure.legend(handles=keys, loc="outside upper left", ncols=3)

    said = [_range_said(name, points) for name, points in by_precision.items()]
    title = "Histogram of the variation by precision"
    return _svg(draw, 0.9 + 1.15 * len(by_precision), title, said)


def _power(exponent: int) -> str:
    return f"1e{exponent}".replace("-", "−") if exponent else "1"


def _range_said(name: str, points: Sequence[Point]) -> str:
    values = [point.variation.linf_by_tensor for point in points]
    moved = sorted(value for value in values if math.isfinite(value) and value > 0)
    between = f", the others from {moved[0]:.1e} to {moved[-1]:.1e}" if moved else ""
    return f"{name}: {values.count(0)} of {len(values)} are zero{between}"


def standing_bars(summary: Sequence[Summary], reference: str) -> str:
    """The proportion of points in each kind of standing with its interval, by program.

    Empty where nobody looked.

    >>> standing_bars([], "native")
    ''
    """
    rows = by_program(summary, reference)
    if not rows:
        return ""
    names = [f"{_short(name)}\n{_short(program)}" for name, program, _, _ in rows]
    shares = [(each, judged) for _, _, each, judged in rows]
    return _bars(names, shares, STANDING_FILLS, "Proportion of points in each kind of standing")


Shares = Mapping[str, ZoneShare]
Program = tuple[str, str, Shares, int]


def by_program(summary: Sequence[Summary], reference: str) -> list[Program]:
    """Precision, program, its standings and of how many points: the reference's come first.

    >>> by_program([], "native")
    []
    """
    rows: list[Program] = []
    for entry in summary:
        programs = [(reference, entry.reference_standings), (entry.selection, entry.standings)]
        seen = any(name == entry.precision for name, *_ in rows)
        judged = entry.points - entry.standings_left_out
        rows += [(entry.precision, *each, judged) for each in programs[seen:] if each[1]]
    return rows


def shown_kinds(rows: Sequence[Program]) -> list[Kind]:
    """The kinds of which there is a point, and whether any is wrong.

    >>> [str(kind) for kind in shown_kinds([])]
    ['wrong']
    """
    met = {kind for _, _, shares, _ in rows for kind, share in shares.items() if share.count}
    return [kind for kind in Kind if kind in met or kind is Kind.WRONG]


def zone_bars(summary: Sequence[Summary], by_threshold: bool = False) -> str:
    """The proportion of points in each zone with its interval.

    Empty where nothing was judged.

    Args:
        summary: of the audit.
        by_threshold: by the published threshold; else by the lift.

    >>> zone_bars([])
    ''
    """
    shares = [
        (each.zones_by_threshold, each.points - each.zones_by_threshold_left_out)
        if by_threshold
        else (each.zones, each.points - each.zones_left_out)
        for each in summary
    ]
    if not any(each for each, _ in shares):
        return ""
    several = len({entry.selection for entry in summary}) > 1
    names = [
        _short(entry.precision) + (f"\n{_short(entry.selection)}" if several else "")
        for entry in summary
    ]
    by = "the published threshold" if by_threshold else "the lift"
    return _bars(names, shares, ZONE_FILLS, f"Proportion of points in each zone, by {by}")


def _bars(
    names: Sequence[str],
    rows: Sequence[tuple[Shares, int]],
    fills: Mapping[Any, Fill],
    title: str,
) -> str:
    """In each row a bar for each share that is not zero, with its interval and its count."""
    met = [[each for each in fills if each in shares and shares[each].count] for shares, _ in rows]
    heights = [max(1.3, len(each)) + 0.6 for each in met]
    tops = np.cumsum([0, *heights])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        middles = [top + height / 2 for top, height in zip(tops[:-1], heights, strict=True)]
        for (shares, of), there, middle in zip(rows, met, middles, strict=True):
            for place, each in enumerate(there):
                share, y = shares[each], middle + place + 0.5 - len(there) / 2
                axes.barh(y, 100 * share.proportion, 0.9, **fills[each].style)
                low, high = (100 * bound for bound in share.interval)
                for ends in ("-", "|"):
                    axes.plot(
                        [low, high], [y, y], ends, color=_INK, linewidth=1.2, markersize=5,
                        path_effects=_HALO,
                    )  # fmt: skip
                axes.text(104, y, f"{share.count:,} of {of:,}", va="center", fontsize=9)
            if not there:
                axes.text(2, middle, "not judged", va="center", fontsize=9)
        axes.set_yticks(middles, names)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(tops[-1], 0)
        axes.set_xlim(0, 102)
        axes.set_xticks([0, 50, 100], ["0", "50", "100 %"])
        figure.legend(
            handles=[
                Patch(label=each, **fill.style)
                for each, fill in fills.items()
                if any(each in there for there in met)
            ],
            loc="outside upper left", ncols=3,
        )  # fmt: skip

    said = [
        f"{' '.join(name.split())}: "
        + (", ".join(f"{each} {shares[each].count:,} of {of:,}" for each in there) or "not judged")
        for name, (shares, of), there in zip(names, rows, met, strict=True)
    ]
    return _svg(draw, 0.8 + 0.22 * float(tops[-1]), title, said)


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
            axes.barh(y, width, 0.8, left, label=name, **_SITE_FILLS[name].style)
            left += width
        axes.set_yticks(y, [_short(site.precision) for site in rows])
        axes.tick_params(axis="y", length=0)
        tops = y[[rows.index(counts[0]) for counts in tied]]
        for number, (counts, top) in enumerate(zip(tied, tops, strict=True), 1):
            label = _short(counts[0].name, 40)
            # In the page a link to the rows of its table.
            axes.text(0, top - 0.6, label, va="bottom", weight="bold", url=f"#site-{number}")
        axes.set_ylim(y[-1] + 0.6, -1.8)
        axes.set_xlim(0, max(1.0, 1.02 * left.max()))
        axes.set_xlabel("tied windows, % of all")
        figure.legend(loc="outside upper left", ncols=4)

    said = [
        f"{site.name} at {site.precision}: {site.tied:,} of {site.windows:,} windows are tied"
        for site in rows
    ]
    return _svg(draw, 0.9 + 0.2 * (y[-1] + 2.4), "Tied windows of each site by cause", said)


_OPACITY = {"dead": 0.3, "exact": 0.6, "rounding": 0.85, "unknown": 0.6}


def tied_sites(sites: Sequence[SiteCount]) -> list[list[SiteCount]]:
    """The sites that have ties in some precision; for each of them its counts in all precisions.

    >>> tied_sites([SiteCount("float32", "pool", "max_pool2d", 0, 9, 0, 0, None)])
    []
    """
    by_site: dict[tuple[str, str, int], list[SiteCount]] = {}
    for site in sites:
        by_site.setdefault((site.layer, site.operation, site.call), []).append(site)
    return [counts for counts in by_site.values() if any(site.tied for site in counts)]


def _causes(site: SiteCount) -> dict[str, int]:
    counted = {"dead": site.dead, "exact": site.exact, "rounding": site.rounding}
    known = {name: count for name, count in counted.items() if count is not None}
    if not known:
        return {"at zero": site.tied_at_zero, "not at zero": site.tied - site.tied_at_zero}
    rest = site.tied - sum(known.values())
    return {**known, "unknown": rest} if rest > 0 else known


def picture(found: TiesPicture) -> str:
    """One image with its tied windows, coloured by cause.

    >>> "<svg" in picture(TiesPicture("float32", "pool", 1, 1, [[0.5]], dead=[(0, 0, 1, 1)]))
    True
    """
    windows_of = (found.dead, found.exact, found.rounding, found.tied)
    by_cause = {cause: each for cause, each in zip(CAUSE_FILLS, windows_of, strict=True) if each}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.imshow(
            found.image, cmap="gray", vmin=0, vmax=1, interpolation="none",
            extent=(0, found.width, found.height, 0),
        )  # fmt: skip
        axes.set_axis_off()
        keys = []
        for cause, windows in by_cause.items():
            fill = CAUSE_FILLS[cause]
            for top, left, bottom, right in windows:
                style = fill.style | {"facecolor": (fill.colour, _OPACITY[cause])}
                axes.add_patch(Rectangle((left, top), right - left, bottom - top, **style))
            keys.append(Patch(label=f"{cause} ({len(windows):,})", **fill.style))
        if keys:
            figure.legend(handles=keys, loc="outside upper left", ncols=4)

    aspect = found.height / max(1, found.width)
    said = [f"{cause}: {len(windows):,}" for cause, windows in by_cause.items()]
    title = "One image and its tied windows"
    return _svg(draw, min(8.0, 0.5 + WIDTH * aspect), title, said)


def _short(text: str, length: int = 16) -> str:
    return text if len(text) <= length else f"{text[: length // 2]}…{text[-length // 2 + 1 :]}"


def _svg(
    draw: Callable[[Figure], None], height: float, title: str, said: Sequence[str] = ()
) -> str:
    """Draw, and turn into an ``<svg>`` element whose ink is the colour of the text around it.

    Args:
        draw: on the figure.
        height: inches.
        title: what it shows.
        said: the same as text, for who cannot see it, in a few parts.
    """
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
    text = text[text.index("<svg") :]
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text)
    text = re.sub('<g id="[^"]*"', "<g", text)  # of groups, the same in every figure
    text = text.replace(_INK, "currentColor").replace(_GROUND, "var(--ground)")
    spoken = html.escape("; ".join([title, *said[:_SAID]]))
    return text.replace("<svg ", f'<svg role="img" aria-label="{spoken}" ', 1)


_SAID = 20  # parts; the table beside the figure has all
