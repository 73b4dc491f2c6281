"""Tables for the terminal: what they show, and that nothing is cut at 80 columns."""

import io
import itertools
import math
from dataclasses import replace

import pytest
import torch
from rich.console import RenderableType

from kinkcheck.audit import AuditReport, LeftOut, Point, SiteCount, UnseenCount, Variation
from kinkcheck.audit.summary import summarise
from kinkcheck.measure.records import Lift
from kinkcheck.measure.standing.records import Kind, Standing
from kinkcheck.measure.zones import Zone, by_threshold
from kinkcheck.paper.harness.rows import Line
from kinkcheck.paper.harness.tables import print_numbers
from kinkcheck.programs import evaluate
from kinkcheck.report.tables import (
    answer_table,
    audit_tables,
    program_table,
    threshold_table,
    zone_table,
)
from kinkcheck.terminal import Terminal

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


def rendered(*tables: RenderableType) -> str:
    out = io.StringIO()
    console = Terminal(file=out, width=80)
    for table in tables:
        console.print(table)
    text = out.getvalue()
    assert max(map(len, text.splitlines()), default=0) <= 80
    assert "…" not in text
    return text


def row(text: str, *start: str) -> list[str]:
    """The words after the first row that starts with these."""
    (words, *_) = (
        line.split() for line in text.splitlines() if line.split()[: len(start)] == [*start]
    )
    return words[len(start) :]


def report(
    points: tuple[Point, ...] = (),
    sites: tuple[SiteCount, ...] = (),
    unseen: tuple[UnseenCount, ...] = (),
) -> AuditReport:
    names = ("0.1.0", "2.13.0", "cpu", "net", "digits")
    return AuditReport(*names, 0, "native", ["minimal"], [*points], [*sites], [*unseen])


def point(l1: float, relative: float, precision: str = "float32") -> Point:
    return Point(precision, 0, 0, "minimal", 1.0, 1.0, Variation(l1, 9, 9, 9, relative))


def site(
    layer: str = "features.2",
    windows: int = 1000,
    tied: int = 600,
    at_zero: int = 400,
    alone: float | None = None,
    precision: str = "float32",
    call: int = 0,
) -> SiteCount:
    return SiteCount(precision, layer, "max_pool2d", call, windows, tied, at_zero, alone)


def test_variation_shows_median_largest_and_how_many_moved() -> None:
    points = (point(4e-3, 4e-5), point(0.0, 0.0), point(1e-3, 1e-5))
    text = rendered(*audit_tables(report(points, (site(),))))
    assert row(text, "float32", "minimal") == [
        "2", "of", "3", "1.0e-03", "4.0e-03", "1.0e-05", "4.0e-05",
    ]  # fmt: skip


@pytest.mark.parametrize("order", itertools.permutations((1.0, 2.0, math.nan)))
def test_nan_is_shown_wherever_it_stands(order: tuple[float, ...]) -> None:
    points = tuple(point(value, value) for value in order)
    text = rendered(*audit_tables(report(points, (site(),))))
    assert row(text, "float32", "minimal") == ["2", "of", "3", "nan", "nan", "nan", "nan"]


def test_what_is_not_finite_and_what_was_left_out_are_listed() -> None:
    nan = point(math.nan, math.nan)
    found = [
        replace(nan, non_finite_layer="a", non_finite_operation="sqrt", non_finite_lifted=True),
        replace(nan, non_finite_layer="a", non_finite_operation="sqrt", non_finite_lifted=True),
        replace(nan, non_finite_layer="", non_finite_lifted=False),
        point(1, 1),
        replace(nan, gradient_l1=math.inf),
    ]
    text = rendered(
        *audit_tables(replace(report(tuple(found)), left_out=[LeftOut("[no] samples", 1234)]))
    )
    assert row(text, "float32", "a") == ["sqrt", "not", "finite", "2"]
    assert row(text, "float32", "(root)") == ["--", "finite", "1"]
    assert row(text, "float32", "--") == ["--", "--", "1"]
    assert row(text, "[no]", "samples") == ["1,234"]


def test_sites_show_the_shares_of_ties() -> None:
    text = rendered(*audit_tables(report((point(1, 1),), (site(),))))
    assert row(text, "features.2", "(max_pool2d)") == ["1,000", "float32", "60.00", "40.00"]
    assert "l1 alone" not in text


def test_causes_have_the_denominator_of_ties() -> None:
    by_cause = replace(site("pool"), dead=400, exact=150, rounding=0, cause_unknown=50)
    text = rendered(*audit_tables(report((point(1, 1),), (by_cause,))))
    assert row(text, "pool", "(max_pool2d)") == [
        "1,000", "float32", "60.00", "40.00", "15.00", "0.00", "5.00",
    ]  # fmt: skip
    assert "unknown" not in rendered(
        *audit_tables(report((point(1, 1),), (replace(by_cause, cause_unknown=0),)))
    )


def test_sites_show_what_one_layer_alone_does() -> None:
    sites = (site(alone=0.0025), site("other", call=1), site("quiet", alone=0.0))
    text = rendered(audit_tables(report((point(1, 1),), sites))[-1])
    assert row(text, "features.2") == ["max_pool2d", "float32", "2.5e-03", "--"]
    assert "2 more move nothing, or do not have the selection" in text


def test_sites_without_a_tie_are_counted_and_left_out() -> None:
    sites = (site(), site("quiet", tied=0, at_zero=0))
    text = rendered(*audit_tables(report((point(1, 1),), sites)))
    assert "quiet" not in text
    assert "1 of 2 sites have no tie" in text
    text = rendered(*audit_tables(report((point(0, 0),), sites[1:])))
    assert "1 of 1 sites have no tie" in text
    assert "Ties by site" not in text


def test_site_is_named_once_for_all_its_precisions() -> None:
    sites = (site(precision="float16", tied=610), site(precision="float32"))
    text = rendered(*audit_tables(report((point(1, 1),), sites)))
    assert text.count("features.2") == 1
    assert "61.00" in text
    assert row(text, "float32", "60.00") == ["40.00"]


def test_long_layer_names_are_folded_and_numbers_kept() -> None:
    layer = "features.denseblock2.denselayer10.relu1.of.a.model.in.a.model"
    text = rendered(*audit_tables(report((point(1, 1),), (site(layer, 123_456_789, alone=1e-9),))))
    for word in ("max_pool2d", "123,456,789", "float32", "1.0e-09"):
        assert word in text
    assert layer in "".join(line.split()[0] for line in text.splitlines() if line.strip())


def test_unseen_are_listed_without_any_site() -> None:
    unseen = UnseenCount("", "leaky_relu", "kinkcheck does not define its branches", 1234)
    text = rendered(*audit_tables(report(unseen=(unseen,))))
    assert "(root)" in text
    assert "leaky_relu" in text
    assert "1,234" in text


def test_programs_show_value_derivatives_and_zone() -> None:
    by_t = {
        t: {name: evaluate(t, (1.0, 2.0, 3.0, 4.0), dtype) for name, dtype in DTYPES.items()}
        for t in (0.0, 0.1)
    }
    text = rendered(program_table((1.0, 2.0, 3.0, 4.0), by_t))
    assert row(text, "zero") == ["0", *["-1.5"] * 4, "bifurcation"]
    assert row(text, "0.1", "max1") == ["4"] * 4  # 0.1 · 4 differs by precision
    assert row(text, "0", "max1") == ["0", *["1"] * 4]
    assert text.count("agreement") == 2


@pytest.mark.parametrize("x", [(1.14,) * 4, (1.4,) * 4, (1.0, 2.0, 3.0, 4.0), (-1.234e-5,) * 4])
def test_programs_are_never_cut(x: tuple[float, ...]) -> None:
    by_t = {
        t: {name: evaluate(t, x, dtype) for name, dtype in DTYPES.items()}
        for t in (0.0, 0.1, 1.0, -1e-4, -6.0)
    }
    text = rendered(program_table(x, by_t))
    assert "zero ReLUs" in text
    for line in text.splitlines():
        words = line.split()
        if "zero" in words:
            assert words[-1] in ("agreement", "compensation", "bifurcation")


def judged(precision: str, l1: float, noise: float | None, batch: int = 0) -> Point:
    size = Variation(l1, l1, l1, l1, l1)
    spread = None if noise is None else Variation(noise, noise, noise, noise, noise)
    lift = Lift("float64", 0.0, 1e-16, 0.0, None, None)
    return Point(
        precision, 0, batch, "minimal", 1.0, 1.0, size, Zone.COMPENSATION,
        by_threshold(size, precision), lift, spread,
    )  # fmt: skip


def test_thresholds_stand_beside_what_lies_above_them() -> None:
    sizes = (1e-8, 1.5e-7, 3e-7, 4e-7)
    points = [judged("float32", d, 2e-7, batch) for batch, d in enumerate(sizes)]
    points.append(judged("mixed", 1e-3, None))
    text = rendered(threshold_table(summarise(points)))
    # Clopper-Pearson for 3 and 2 of 4, from a table.
    assert row(text, "float32", "minimal") == [
        "1.0e-07", "75.0", "(19.4–99.4)", "2.0e-07", "50.0", "(6.8–93.2)",
    ]  # fmt: skip
    assert row(text, "mixed", "minimal") == ["--"] * 4


def test_standings_come_first_and_are_counted() -> None:
    right = Standing(Kind.DERIVATIVE, ties=2, flat=2)
    kink = Standing(Kind.SUBGRADIENT, ties=2, flat=1)
    points = [
        replace(judged("float32", 1e-8, 1e-9, batch), reference_standing=right, standing=each)
        for batch, each in enumerate([right, right, right, kink])
    ]
    found = report(tuple(points), (site(),))
    text = rendered(*audit_tables(found))
    assert text.startswith("Is the gradient right?")
    assert text.index("Gradient variation") < text.index("Zones") < text.index("Ties by site")
    assert row(text, "float32", "native") == ["4", "0", "0", "0", "0"]
    assert row(text, "float32", "minimal") == ["3", "0", "1", "0", "0"]
    assert "Thresholds on the variation" in text


def test_causes_add_up_to_the_ties() -> None:
    by_cause = replace(site(windows=3, tied=3), dead=1, exact=1, rounding=1)
    text = rendered(*audit_tables(report((point(1, 1),), (by_cause,))))
    tied, *causes = map(float, row(text, "features.2", "(max_pool2d)", "3", "float32"))
    assert tied == 100
    assert sum(causes) == pytest.approx(tied, abs=1e-9)


def test_the_answer_is_one_table_of_80_columns_whose_counts_add_up() -> None:
    right, open_ = Standing(Kind.LIMIT, ties=2), Standing(Kind.UNDECIDED, ties=2)
    points = [
        replace(
            judged("bfloat16", d, 1e-9, batch), reference_standing=each, standing=each,
            lift=Lift("float64", 1e-9, 1e-9, 1.0, 1e-3, 1e-3),
        )
        for batch, (each, d) in enumerate(
            [(right, 0.0), (Standing(Kind.WRONG), 1e-4), (open_, 2e-3), (None, 1e-4)]
        )
    ]  # fmt: skip
    text = rendered(answer_table(report(tuple(points), (site(),))))
    assert max(map(len, text.splitlines())) <= 80
    assert row(text, "bfloat16", "native") == ["4", "1", "1", "2"]
    assert row(text, "bfloat16", "minimal") == ["4", "1", "1", "2", "3", "2.0e-03", "2"]
    text = rendered(answer_table(report((points[0],), (site(),))))
    assert "unknown" not in text
    assert row(text, "bfloat16", "minimal") == ["1", "1", "0", "0", "0.0e+00", "0"]
    nothing = replace(points[0], gradient_l1=0.0, variation=Variation(0, 0, 0, 0, math.nan))
    text = rendered(answer_table(report((nothing,), (site(),))))
    assert row(text, "bfloat16", "minimal")[-2] == "--"


def test_float64_points_are_marked_as_judged_by_their_noise() -> None:
    marked = "float64, which no higher precision judged, by its own noise floor"
    for precision in ("float32", "float64"):
        text = rendered(zone_table(summarise([judged(precision, 1e-9, 1e-9)])))
        assert (marked in " ".join(text.split())) == (precision == "float64")


@pytest.mark.parametrize("width", [20, 80])
def test_no_number_of_an_experiment_is_cut(width: int) -> None:
    names = ("noise floor", "best threshold", "true percent", "wrong", "accuracy", "low", "high")
    rows: list[Line] = [
        {"setting": "densenet121-published, batch size 64", "precision": "float16"}
        | {name: 1.234e-15 * k for name in names}
        for k in (1, 2)
    ]
    out = io.StringIO()
    print_numbers(rows, Terminal(file=out, width=width))
    assert out.getvalue().split().count("1.234e-15") == 7
    assert out.getvalue().split().count("2.468e-15") == 7
