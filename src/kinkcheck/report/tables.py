"""Tables for the terminal."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kinkcheck.audit import AuditReport
from kinkcheck.audit.report import SiteCount
from kinkcheck.audit.summary import Spread, Summary, ZoneShare, summarise
from kinkcheck.measure.records import Point
from kinkcheck.measure.standing.records import Kind
from kinkcheck.measure.zones import Zone
from kinkcheck.programs import Evaluation


def audit_tables(report: AuditReport, detail: bool = False) -> list[RenderableType]:
    """The tables of an audit: standing, variation, rounding errors, zones, ties by site; and more.

    More is what is missing: what is not finite, what was left out, and what was unseen.

    Args:
        report: what the audit found.
        detail: also what published thresholds say.

    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> audit_tables(AuditReport(*names, 0, "native", ["minimal"], [], [], []))
    []
    """
    tables: list[RenderableType] = []
    if report.sites:
        summaries = summarise(report.points)
        if any(each.reference_standings for each in summaries):
            tables.append(standing_table(summaries, report.reference))
        tables.append(_variation(report))
        if any(each.variation_in_errors for each in summaries):
            tables.append(_errors(summaries, report.reference))
        if any(each.zones for each in summaries):
            tables.append(zone_table(summaries))
        if detail:
            tables.append(threshold_table(summaries))
        tables.append(_sites(report))
        if any(site.variation_l1 is not None for site in report.sites):
            tables.append(_one_at_a_time(report))
    if broken := not_finite(report.points):
        tables.append(_not_finite(broken))
    if report.left_out:
        tables.append(_left_out(report))
    if report.unseen:
        tables.append(_unseen(report))
    return tables


def program_table(x: Sequence[float], by_t: dict[float, dict[str, list[Evaluation]]]) -> Table:
    """The derivatives of programs that compute one function, for one x.

    Args:
        x: the entries.
        by_t: for every t and precision, what :func:`kinkcheck.programs.evaluate` returned.

    >>> program_table((1.0, 2.0, 3.0, 4.0), {}).title
    'x = (1, 2, 3, 4): value, derivative in each precision, zone'
    """
    entries = ", ".join(f"{entry:g}" for entry in x)
    table = _table(f"x = ({entries}): value, derivative in each precision, zone")
    # A single blank between columns: so much has to fit into 80.
    table.padding, table.show_edge = 0, False
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
                _short(t) if evaluations is rows[0] else "",
                program,
                f"{value:g}"
                if all(evaluation.value == value for evaluation in evaluations)
                else "",
                *(_derivative(evaluation) for evaluation in evaluations),
                _zone(evaluations) if zero else "",
                end_section=evaluations is rows[-1],
            )
    return table


def slope_table(
    x: Sequence[float], rows: Sequence[tuple[str, tuple[float, float], float, Kind]]
) -> Table:
    """What AD returns for programs at t = 0 beside their slopes there, and what that is.

    Args:
        x: the entries.
        rows: program, its slopes on the left and on the right, what AD returns, and its standing.

    >>> slope_table((1.0, 2.0), []).title
    'x = (1, 2), t = 0: is AD right?'
    """
    table = _table(f"x = ({', '.join(f'{entry:g}' for entry in x)}), t = 0: is AD right?")
    table.add_column("program", no_wrap=True)
    for heading in ("slope on the left", "on the right", "AD returns"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("which is", no_wrap=True)
    for program, slopes, returned, kind in rows:
        word = f"[bold red]{kind}[/]" if kind is Kind.WRONG else str(kind)
        table.add_row(program, *(f"{each:g}" for each in (*slopes, returned)), word)
    return table


def _short(t: float) -> str:
    return f"{t:g}" if t == 0 or abs(t) >= 1e-3 else f"{t:.0e}"


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
            escape(precision),
            escape(selection),
            f"{sum(value > 0 for value in l1)} of {len(points)}",  # where it is NaN nobody knows
            *(f"{of(values):.1e}" for values in (l1, relative) for of in (median, largest)),
        )
    return table


def standing_table(summaries: Sequence[Summary], reference: str) -> Table:
    """What the gradients are, in per cent of the points, by precision and selection.

    >>> standing_table([], "native").title
    'Is the gradient right? In % of the points'
    """
    table = _table("Is the gradient right? In % of the points")
    left_out = max((each.standings_left_out for each in summaries), default=0)
    if left_out:
        table.caption = f"Left out: up to {left_out} points of a precision, where nobody could tell"
        table.caption_justify = "left"
    for heading in ("precision", "selection"):
        table.add_column(heading, no_wrap=True)
    for kind in Kind:
        table.add_column(kind, justify="right", no_wrap=True)
    seen: set[str] = set()
    for each in summaries:
        programs = [] if each.precision in seen else [(reference, each.reference_standings)]
        seen.add(each.precision)
        for name, shares in (*programs, (each.selection, each.standings)):
            table.add_row(
                escape(each.precision),
                escape(name),
                *(
                    f"{100 * share.proportion:.0f}" if (share := shares.get(kind)) else "--"
                    for kind in Kind
                ),
            )
    return table


def zone_table(summaries: Sequence[Summary]) -> Table:
    """The proportion of points in each zone with its interval, by the lift.

    >>> zone_table([]).title
    'Zones, in % of the points'
    """
    table = _table("Zones, in % of the points")
    if summaries:
        first = summaries[0]
        table.title = f"{table.title} ({100 * first.confidence:.4g} % intervals)"
    for heading in ("precision", "selection", "zone"):
        table.add_column(heading, no_wrap=True)
    table.add_column("by the lift", justify="right", no_wrap=True)
    for each in summaries:
        rows = [
            (str(zone), proportion(each.zones[zone]))
            for zone in Zone
            if zone in each.zones and each.zones[zone].count
        ]
        if each.zones_left_out:
            rows.append(("left out", f"{each.zones_left_out} of {each.points}"))
        for row in rows:
            names = (escape(each.precision), escape(each.selection)) if row is rows[0] else ("", "")
            table.add_row(*names, *row, end_section=row is rows[-1])
    notes = []
    if any(each.judge == "noise floor" for each in summaries):
        notes.append("float64, which no higher precision judged, by its own noise floor")
    if told := sum(each.zones_by_standing for each in summaries):
        notes.append(f"{told} by the standing, which the precision itself told")
    if notes:
        table.caption = "\n".join(notes)
        table.caption_justify = "left"
    return table


def threshold_table(summaries: Sequence[Summary]) -> Table:
    """The published and the measured threshold τ_ω, and which part of the points lies above each.

    Above the published one is what the published classifier calls a bifurcation.

    >>> threshold_table([]).title
    'Thresholds on the variation (∞-norms of tensors, summed), and % of the points above'
    """
    table = _table(
        "Thresholds on the variation (∞-norms of tensors, summed), and % of the points above"
    )
    for heading in ("precision", "selection"):
        table.add_column(heading, no_wrap=True)
    for heading in ("published", "above", "measured", "above"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in summaries:
        beyond = each.zones_by_threshold.get(Zone.BIFURCATION)
        table.add_row(
            escape(each.precision),
            escape(each.selection),
            _threshold(each.threshold),
            proportion(beyond),
            _threshold(each.threshold_measured),
            proportion(each.above_measured),
        )
    return table


def _threshold(value: float | None) -> str:
    return "--" if value is None else f"{value:.1e}"


def proportion(share: ZoneShare | None) -> str:
    """A proportion and its interval, in per cent; two dashes where it is not known.

    >>> proportion(ZoneShare(3, 0.3, (0.067, 0.652)))
    '30.0 (6.7–65.2)'
    """
    if share is None:
        return "--"
    low, high = share.interval
    return f"{100 * share.proportion:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def _errors(summaries: Sequence[Summary], reference: str) -> Table:
    table = _table("Variation and rounding error of the gradient (l1), median (range)")
    for heading in ("precision", "selection"):
        table.add_column(heading, no_wrap=True)
    for heading in ("variation / error", f"error / error of {escape(reference)}"):
        table.add_column(heading, justify="right")
    known = [(e.variation_in_errors, e.points) for e in summaries if e.variation_in_errors]
    if left_out := sum(spread.left_out for spread, _ in known):
        table.caption = f"Not known at {left_out} of {sum(points for _, points in known)} points"
        table.caption_justify = "left"
    for each in summaries:
        spreads = (each.variation_in_errors, each.error_ratio)
        table.add_row(escape(each.precision), escape(each.selection), *map(_spread, spreads))
    return table


def _spread(found: Spread | None) -> str:
    if found is None:
        return "--"
    return f"{found.median:.3g} ({found.min:.3g}–{found.max:.3g})"


def median(values: list[float]) -> float:
    """The median; NaN if any value is.

    >>> median([1.0, math.nan]), median([1.0, 3.0])
    (nan, 2.0)
    """
    # Sorting puts NaN anywhere, as max() does.
    return math.nan if any(map(math.isnan, values)) else statistics.median(values)


def largest(values: list[float]) -> float:
    """The largest value; NaN if any is.

    >>> largest([1.0, math.nan]), largest([1.0, 3.0])
    (nan, 3.0)
    """
    return math.nan if any(map(math.isnan, values)) else max(values)


def _sites(report: AuditReport) -> RenderableType:
    by_site: dict[tuple[str, str, int], list[SiteCount]] = {}
    for site in report.sites:
        by_site.setdefault((site.layer, site.operation, site.call), []).append(site)
    tied = {key: counts for key, counts in by_site.items() if any(site.tied for site in counts)}
    if not tied:
        return Text(f"{len(by_site)} of {len(by_site)} sites have no tie\n")
    table = _table("Ties by site in % of the windows")
    if len(tied) < len(by_site):
        table.caption = f"{len(by_site) - len(tied)} of {len(by_site)} sites have no tie"
        table.caption_justify = "left"
    table.add_column("layer", overflow="fold")
    table.add_column("operation", no_wrap=True)
    caused = any(site.dead is not None for site in report.sites)
    if caused:
        table.title = "Ties by site and cause, in % of the windows"
    for heading in ("windows", "precision", "tied"):
        table.add_column(heading, justify="right", no_wrap=True)
    headings = ["dead", "exact", "rounding"] if caused else ["at zero"]
    unknown = any(site.cause_unknown for site in report.sites)
    for heading in [*headings, *(["unknown"] if unknown else [])]:
        table.add_column(heading, justify="right", no_wrap=True)
    for counts in tied.values():
        for site in counts:
            causes = (site.dead, site.exact, site.rounding, *([site.cause_unknown] * unknown))
            table.add_row(
                *(_named(site) if site is counts[0] else ("", "")),
                f"{site.windows:,}" if site is counts[0] else "",
                escape(site.precision),
                _share(site.tied, site.windows),
                *(
                    _share(count, site.windows)
                    for count in (causes if caused else (site.tied_at_zero,))
                ),
                end_section=site is counts[-1] and len(counts) > 1,
            )
    return table


def _one_at_a_time(report: AuditReport) -> Table:
    selection = "".join(report.selections[:1])
    table = _table(f"l1 variation of one site alone, {selection}, mean over points")
    table.add_column("layer", overflow="fold")
    table.add_column("operation", no_wrap=True)
    for heading in ("precision", "l1 alone", "in the lift"):
        table.add_column(heading, justify="right", no_wrap=True)
    for site in report.sites:
        if site.variation_l1:
            alone = (site.variation_l1, site.lift_variation_l1)
            numbers = ("--" if value is None else f"{value:.1e}" for value in alone)
            table.add_row(*_named(site), escape(site.precision), *numbers)
    left_out = sum(not site.variation_l1 for site in report.sites)
    if left_out:
        table.caption = f"{left_out} more move nothing, or do not have the selection"
        table.caption_justify = "left"
    return table


def _named(site: SiteCount) -> tuple[str, str]:
    layer = (site.layer or "(root)") + (f" #{site.call}" if site.call else "")
    return escape(layer), escape(site.operation)


def _share(count: int | None, total: int) -> str:
    return f"{100 * count / total:.2f}" if total and count is not None else "--"


def not_finite(points: Sequence[Point]) -> Counter[tuple[str, str, str, str]]:
    """Where gradients first are not finite, and at how many points.

    Returns:
        Counts by precision, layer, operation of the backward pass, and what float64 gives; two
        dashes stand for what is not known.

    >>> from kinkcheck.measure.variation import Variation
    >>> d = Variation(*(math.nan,) * 5)
    >>> point = Point("float16", 0, 0, "minimal", math.inf, 1.0, d, non_finite_layer="")
    >>> not_finite([point])
    Counter({('float16', '(root)', '--', '--'): 1})
    """
    float64 = {None: "--", True: "not finite", False: "finite"}
    return Counter(
        (
            point.precision,
            "--" if point.non_finite_layer is None else point.non_finite_layer or "(root)",
            point.non_finite_operation or "--",
            float64[point.non_finite_lifted],
        )
        for point in points
        if not (math.isfinite(point.gradient_l1) and math.isfinite(point.variation.l1))
    )


def _not_finite(broken: Counter[tuple[str, str, str, str]]) -> Table:
    table = _table("Where gradients first are not finite")
    table.add_column("precision", no_wrap=True)
    table.add_column("layer", overflow="fold")
    for heading in ("derivative of", "in float64"):
        table.add_column(heading)
    table.add_column("points", justify="right")
    for texts, count in broken.items():
        table.add_row(*map(escape, texts), f"{count:,}")
    return table


def _left_out(report: AuditReport) -> Table:
    table = _table("Left out: what was not measured, and why")
    table.add_column("what")
    table.add_column("points", justify="right")
    for each in report.left_out:
        table.add_row(escape(each.what), f"{each.points:,}")
    return table


def _unseen(report: AuditReport) -> Table:
    table = _table("Unseen: may have kinks or jumps, but their derivative was not chosen")
    for heading in ("layer", "operation", "reason"):
        table.add_column(heading)
    table.add_column("calls", justify="right")
    counted = any(unseen.on_jump is not None for unseen in report.unseen)
    if counted:
        table.add_column("on the jump", justify="right")
    for unseen in report.unseen:
        layer = unseen.layer or "(root)"
        texts = map(escape, (layer, unseen.operation, unseen.reason))
        on = "" if unseen.on_jump is None else f"{unseen.on_jump:,} of {unseen.elements:,}"
        table.add_row(*texts, f"{unseen.calls:,}", *([on] if counted else []))
    return table


def _table(title: str) -> Table:
    return Table(
        title=escape(title),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
