"""Tables for the terminal."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from kinkcheck.audit import AuditReport, SiteCount
from kinkcheck.audit.summary import Spread, Summary, ZoneShare, summarise
from kinkcheck.measure.records import Point
from kinkcheck.measure.standing.records import STANDS, Kind
from kinkcheck.measure.zones import Zone
from kinkcheck.programs import Evaluation


def answer_table(report: AuditReport) -> Table:
    """What most readers want to know, in one table of 80 columns: numbers of points, mostly.

    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> answer_table(AuditReport(*names, 0, "native", ["minimal"], [], [], [])).title
    'Is the gradient right, and how far does the choice move it?'
    """
    table = _table("Is the gradient right, and how far does the choice move it?")
    summaries = summarise(report.points)
    rows = [row for each in summaries for row in _answers(each, report)]
    unknown = any(row[5] != "0" for row in rows)
    seen: set[str] = set()
    table.add_column("precision", no_wrap=True)
    table.add_column("selection", overflow="fold")
    for heading in ("points", "right", "wrong", *(["unknown"] if unknown else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("moved", "by", "/ error"):
        table.add_column(heading, justify="right", no_wrap=True)
    for precision, selection, *numbers in rows:
        if selection == report.reference and precision in seen:
            continue
        seen.add(precision)
        table.add_row(
            precision, selection, *(n for i, n in enumerate(numbers) if unknown or i != 3)
        )
    table.caption = "by: the most, relative, l1; / error: the most, in rounding errors"
    table.caption_justify = "left"
    return table


def _answers(summary: Summary, report: AuditReport) -> list[tuple[str, ...]]:
    """The rows of the reference and of a selection."""
    found = [
        point
        for point in report.points
        if (point.precision, point.selection) == (summary.precision, summary.selection)
    ]
    relative = [point.variation.relative_l1 for point in found]
    moved = str(sum(value > 0 for value in relative))  # where it is NaN nobody knows
    most = largest(relative)
    by = "--" if math.isnan(most) else f"{most:.1e}"
    errors = summary.variation_in_errors
    rows = []
    for name, shares, rest in (
        (report.reference, summary.reference_standings, ("", "", "")),
        (summary.selection, summary.standings,
         (moved, by, "--" if errors is None else f"{errors.max:.2g}")),
    ):  # fmt: skip
        counts = {kind: shares[kind].count if kind in shares else 0 for kind in Kind}
        right, wrong = sum(counts[kind] for kind in STANDS), counts[Kind.WRONG]
        known = map(str, (summary.points, right, wrong, summary.points - right - wrong))
        rows.append((summary.precision, name, *known, *rest))
    return rows


def audit_tables(report: AuditReport) -> list[RenderableType]:
    """All tables of an audit: standing, variation, rounding errors, zones, ties by site; and more.

    More is what published thresholds say, and what is missing: what is not finite, what was left
    out, and what was unseen.

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
        tables.append(threshold_table(summaries))
        tables.append(_sites(report))
        if any(site.variation_l1 is not None for site in report.sites):
            tables.append(site_table(report))
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


def zero_table(places: Sequence[tuple[str, Sequence[Evaluation]]]) -> Table:
    """What AD returns, in each precision, for one program whose derivative is 0.

    Args:
        places: a name of each place, and the program there in each precision.

    >>> zero_table([]).row_count
    0
    """
    table = _table("")
    table.title = None
    table.add_column("zero, x =", no_wrap=True)
    for heading in ("float16", "bfloat16", "float32", "float64"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("called", no_wrap=True)
    for name, evaluations in places:
        table.add_row(name, *map(_derivative, evaluations), _zone(evaluations))
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
        word = Text(kind, style="bold red" if kind is Kind.WRONG else "")
        table.add_row(program, *(f"{each:g}" for each in (*slopes, returned)), word)
    return table


def _short(t: float) -> str:
    return f"{t:g}" if t == 0 or abs(t) >= 1e-3 else f"{t:.0e}"


def _derivative(evaluation: Evaluation) -> Text:
    text = f"{evaluation.derivative:.3g}"
    wrong = evaluation.program.startswith("zero") and evaluation.derivative != 0
    return Text(text, style="bold red" if wrong else "")


def _zone(evaluations: Sequence[Evaluation]) -> Text:
    if any(evaluation.exact != 0 for evaluation in evaluations):
        return Text("bifurcation", style="bold red")
    if any(evaluation.derivative != 0 for evaluation in evaluations):
        return Text("compensation", style="yellow")
    return Text("agreement")


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
            f"{sum(value > 0 for value in l1)} of {len(points)}",  # where it is NaN nobody knows
            *(f"{of(values):.1e}" for values in (l1, relative) for of in (median, largest)),
        )
    return table


def standing_table(summaries: Sequence[Summary], reference: str) -> Table:
    """What the gradients are, and at how many points, by precision and selection.

    >>> standing_table([], "native").title
    'Is the gradient right? Number of points'
    """
    table = _table("Is the gradient right? Number of points")
    for heading in ("precision", "selection"):
        table.add_column(heading, no_wrap=True)
    left_out = any(each.standings_left_out for each in summaries)
    for heading in (*Kind, *(["not judged"] if left_out else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    seen: set[str] = set()
    for each in summaries:
        programs = [] if each.precision in seen else [(reference, each.reference_standings)]
        seen.add(each.precision)
        for name, shares in (*programs, (each.selection, each.standings)):
            counts = [shares[kind].count if kind in shares else 0 for kind in Kind]
            rest = [each.points - sum(counts)] if left_out else []
            table.add_row(each.precision, name, *(f"{count:,}" for count in (*counts, *rest)))
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
            names = (each.precision, each.selection) if row is rows[0] else ("", "")
            table.add_row(*names, *row, end_section=row is rows[-1])
    notes = []
    if any(each.judge == "noise floor" for each in summaries):
        notes.append("float64, which no higher precision judged, by its own noise floor")
    if told := sum(each.zones_by_standing for each in summaries):
        notes.append(f"{told} by the standing, judged without the lift")
    if notes:
        table.caption = "\n".join(notes)
        table.caption_justify = "left"
    return table


def threshold_table(summaries: Sequence[Summary]) -> Table:
    """The published and the measured threshold τ_ω, and which part of the points lies above each.

    Above the published one is what the published classifier calls a bifurcation.

    >>> threshold_table([]).title
    'Thresholds on the variation (summed ∞-norms), and % of the points above'
    """
    table = _table("Thresholds on the variation (summed ∞-norms), and % of the points above")
    table.add_column("precision", no_wrap=True)
    table.add_column("selection", overflow="fold")
    for heading in ("published", "above", "measured", "above"):
        table.add_column(heading, justify="right", no_wrap=heading != "above")
    for each in summaries:
        beyond = each.zones_by_threshold.get(Zone.BIFURCATION)
        table.add_row(
            each.precision,
            each.selection,
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
    for heading in ("variation / error", f"error / error of {reference}"):
        table.add_column(heading, justify="right")
    known = [(e.variation_in_errors, e.points) for e in summaries if e.variation_in_errors]
    if left_out := sum(spread.left_out for spread, _ in known):
        table.caption = f"Not known at {left_out} of {sum(points for _, points in known)} points"
        table.caption_justify = "left"
    for each in summaries:
        spreads = (each.variation_in_errors, each.error_ratio)
        table.add_row(each.precision, each.selection, *map(_spread, spreads))
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
    table.add_column("site", overflow="fold")
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
                site.name if site is counts[0] else "",
                f"{site.windows:,}" if site is counts[0] else "",
                site.precision,
                _share(site.tied, site.windows),
                *_parts(causes if caused else (site.tied_at_zero,), site.windows),
                end_section=site is counts[-1] and len(counts) > 1,
            )
    return table


def site_table(report: AuditReport) -> Table:
    """How far each site alone moves the gradient, which ``--layers`` measures.

    >>> names = ("0.1.0", "2.13.0", "cpu", "lenet5", "mnist")
    >>> site_table(AuditReport(*names, 0, "native", ["minimal"], [], [], [])).title
    'l1 variation of one site alone, minimal, in the mean'
    """
    selection = "".join(report.selections[:1])
    table = _table(f"l1 variation of one site alone, {selection}, in the mean")
    table.add_column("layer", overflow="fold")
    table.add_column("operation", no_wrap=True)
    for heading in ("precision", "l1 alone", "in the lift"):
        table.add_column(heading, justify="right", no_wrap=True)
    for site in report.sites:
        if site.variation_l1:
            alone = (site.variation_l1, site.lift_variation_l1)
            numbers = ("--" if value is None else f"{value:.1e}" for value in alone)
            table.add_row(*_named(site), site.precision, *numbers)
    left_out = sum(not site.variation_l1 for site in report.sites)
    if left_out:
        table.caption = f"{left_out} more move nothing, or do not have the selection"
        table.caption_justify = "left"
    return table


def _named(site: SiteCount) -> tuple[str, str]:
    layer = (site.layer or "(root)") + (f" #{site.call}" if site.call else "")
    return layer, site.operation


def _parts(counts: Sequence[int | None], total: int) -> list[str]:
    """Parts in per cent of a total, rounded so that they add up to their sum in per cent."""
    shown, so_far = [], 0
    for count in counts:
        before, so_far = so_far, so_far + (count or 0)
        known = total and count is not None
        rounded = [round(100 * each / total, 2) if total else 0.0 for each in (before, so_far)]
        shown.append(f"{rounded[1] - rounded[0]:.2f}" if known else "--")
    return shown


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
        table.add_row(*texts, f"{count:,}")
    return table


def _left_out(report: AuditReport) -> Table:
    table = _table("Left out: what was not measured, and why")
    table.add_column("what")
    table.add_column("points", justify="right")
    for each in report.left_out:
        table.add_row(each.what, f"{each.points:,}")
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
        texts = (layer, unseen.operation, unseen.reason)
        on = "" if unseen.on_jump is None else f"{unseen.on_jump:,} of {unseen.elements:,}"
        table.add_row(*texts, f"{unseen.calls:,}", *([on] if counted else []))
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
