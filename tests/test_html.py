"""An audit read back from its JSON, shown again, and written as one HTML file."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinkcheck import cli
from kinkcheck.audit import AuditReport, Point, SiteCount, UnseenCount, Variation
from kinkcheck.errors import InputError
from kinkcheck.measure.records import Lift
from kinkcheck.measure.zones import Zone
from kinkcheck.report.figures import CAUSE_FILLS, STANDING_FILLS, ZONE_FILLS, Fill
from kinkcheck.report.html import audit_html

# --- JSON by hand, as it lies on users' disks ---------------------------------------------------


def variation(value: Any) -> dict[str, Any]:
    return dict.fromkeys(("l1", "l2", "linf", "linf_by_tensor", "relative_l1"), value)


def version_1(**changes: Any) -> dict[str, Any]:
    point = {
        "precision": "float16", "draw": 0, "batch": 0, "selection": "minimal", "loss": 2.25,
        "gradient_l1": 8.0, "variation": variation(3e-3),
    }  # fmt: skip
    site = {
        "precision": "float16", "layer": "features.2", "operation": "max_pool2d", "call": 0,
        "windows": 1000, "tied": 600, "tied_at_zero": 400, "variation_l1": None,
    }  # fmt: skip
    return {
        "schema": "kinkcheck.audit/1", "kinkcheck": "0.1.0", "torch": "2.13.0", "device": "cpu",
        "network": "lenet5", "data": "digits", "seed": 3, "reference": "native",
        "selections": ["minimal"], "operations": None, "points": [point], "sites": [site],
        "unseen": [],
    } | changes  # fmt: skip


def version_2(**changes: Any) -> dict[str, Any]:
    found = version_1(schema="kinkcheck.audit/2")
    share = {"count": 1, "proportion": 0.25, "interval": [0.0625, 0.75]}
    found["points"][0] |= {
        "zone": "compensation", "zone_by_threshold": "bifurcation",
        "lift": {
            "precision": "float64", "variation_l1": 1e-15, "noise_l1": 1e-15, "ratio": 1.0,
            "error_reference_l1": 0.02, "error_selection_l1": 0.019,
        },
        "noise": variation(2e-3), "non_finite_layer": None,
    }  # fmt: skip
    found["sites"][0] |= {"dead": 400, "exact": 150, "rounding": 50, "lift_variation_l1": 1e-15}
    found["summary"] = [
        {
            "precision": "float16", "selection": "minimal", "points": 4, "non_finite": 0,
            "zones": {"compensation": share}, "zones_left_out": 0,
            "zones_by_threshold": {"bifurcation": share}, "zones_by_threshold_left_out": 0,
            "confidence": 0.95, "interval_method": "Clopper-Pearson", "threshold": 1e-3,
            "threshold_source": "Boustany 2024", "threshold_measured": 2e-3,
            "variation": {"min": 1e-4, "median": 2e-4, "max": 3e-4, "left_out": 0},
            "noise": None, "error_reference": None, "error_selection": None,
            "variation_in_errors": {"min": 0.125, "median": 0.25, "max": 0.5, "left_out": 0},
            "error_ratio": {"min": 0.9, "median": 0.95, "max": "inf", "left_out": 0},
        }
    ]  # fmt: skip
    found["verdict"] = "All of it is rounding."
    found["ties_picture"] = {
        "precision": "float16", "layer": "features.2", "height": 2, "width": 4,
        "image": [[0, 0.25, 0.5, 1], [0, 0, 0, 0]],
        "dead": [[0, 0, 2, 2]], "exact": [[0, 2, 2, 4]], "rounding": [], "tied": [],
    }  # fmt: skip
    return found | changes


def version_3(*kinds: str, reference: str = "derivative") -> dict[str, Any]:
    found = version_2(schema="kinkcheck.audit/3", verdict=None)
    standings = [{"kind": kind, "ties": 3, "flat": 2, "kinks": 1} for kind in (reference, *kinds)]
    first = found["points"][0]
    found["points"] = [
        first | {"batch": batch, "standing": each, "reference_standing": standings[0]}
        for batch, each in enumerate(standings[1:])
    ]
    share = {"interval": [0.125, 0.875]}
    found["summary"][0]["standings"] = {
        kind: share | {"count": kinds.count(kind), "proportion": kinds.count(kind) / len(kinds)}
        for kind in ("derivative", "limit", "subgradient", "wrong", "undecided")
    }
    found["summary"][0]["reference_standings"] = {
        reference: share | {"count": len(kinds), "proportion": 1.0}
    }
    return found


# --- the page, as a browser sees it -------------------------------------------------------------

VOID = {"meta", "br", "link", "img", "hr", "input", "base"}


class Page(HTMLParser):
    """The elements of a page, its text, and whether every element is closed in its turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.styles: list[str] = []
        self.aside: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.words.append("" if tag in ("a", "span") else " ")
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self.words.append("" if tag in ("a", "span") else " ")

    def handle_data(self, data: str) -> None:
        places = {"style": self.styles, "title": self.aside, "script": self.aside}
        places.get("".join(self._open[-1:]), self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def fetched(page: Page) -> list[str]:
    """Whatever a browser would load from elsewhere."""
    loads = ("src", "srcset", "href", "xlink:href", "data", "action", "poster", "style")
    found = [value for name, value in page.attributes if name in loads]
    return [
        value
        for value in [*found, *page.styles]
        if re.search(
            r"//|@import|url\((?!#)", re.sub(r"^data:image/png;base64,[\w+/=\s]*$", "", value)
        )
    ]


ALL_VERSIONS = [
    pytest.param(version_1(), id="version 1"),
    pytest.param(version_2(), id="version 2"),
    pytest.param(version_3("derivative", "limit", "subgradient", "wrong"), id="version 3"),
]


@pytest.mark.parametrize("found", ALL_VERSIONS)
def test_page_is_well_formed_and_fetches_nothing(found: dict[str, Any]) -> None:
    page = Page(audit_html(found))
    assert [page.elements[name] for name in ("html", "head", "body", "main", "h1")] == [1] * 5
    assert page.elements["link"] == page.elements["iframe"] == 0
    assert page.elements["script"] == 1
    assert fetched(page) == []
    for name in ("lenet5", "digits", "minimal with native", "kinkcheck 0.1.0, torch 2.13.0"):
        assert name in page.text


@pytest.mark.parametrize("found", ALL_VERSIONS)
def test_links_and_patterns_lead_to_one_place_each(found: dict[str, Any]) -> None:
    page = Page(audit_html(found))
    ids = Counter(value for name, value in page.attributes if name == "id")
    assert set(ids.values()) == {1}
    hrefs = [value for name, value in page.attributes if name in ("href", "xlink:href")]
    urls = [url for _, value in page.attributes for url in re.findall(r"url\(#([^)]*)\)", value)]
    inside = [href[1:] for href in hrefs if href.startswith("#")]
    assert {*inside, *urls} <= set(ids)
    # All others are data inside the page; the words of the tables are explained.
    assert all(href.startswith(("#", "data:")) for href in hrefs)
    assert "word-relative" in inside


@pytest.mark.parametrize("found", ALL_VERSIONS)
def test_figures_can_be_told_without_colours_and_without_seeing(found: dict[str, Any]) -> None:
    page = audit_html(found)
    for svg in re.findall("<svg .*?</svg>", page, re.DOTALL):
        (said,) = re.findall('^<svg role="img" aria-label="([^"]*)"', svg)
        title, *parts = said.split("; ")
        assert title
        assert parts
        styles = re.findall('<path [^>]*?style="([^"]*)"', svg)
        # What is filled plainly has one colour, or two where it says so itself: all others differ
        # in their patterns.
        fills = {fill for style in styles for fill in re.findall("fill: (#[0-9a-f]{6})", style)}
        patterns = set(re.findall(r"fill: (url\(#[^)]*\))", svg))
        assert len(fills) <= 1 + len(patterns), (title, fills)


def test_no_two_meanings_share_a_colour_or_a_pattern() -> None:
    fills: dict[str, Fill] = {str(kind): fill for kind, fill in STANDING_FILLS.items()}
    # Undecided is not known in both; compensation is rounding, bifurcation exact, agreement dead.
    for others in (ZONE_FILLS, CAUSE_FILLS):
        for name, fill in others.items():
            assert fills.setdefault(str(name), fill) == fill
    distinct = set(fills.values())
    assert len({fill.colour for fill in distinct}) == len(distinct) == 9
    for figure in (STANDING_FILLS, ZONE_FILLS, CAUSE_FILLS):
        assert len({fill.hatch for fill in figure.values()}) == len(figure)
    assert ZONE_FILLS[Zone.COMPENSATION] == CAUSE_FILLS["rounding"]
    assert ZONE_FILLS[Zone.BIFURCATION] == CAUSE_FILLS["exact"]


def test_a_share_of_none_has_no_line() -> None:
    """Lines are told from bars by their halo, which the line and its ends have."""
    found = version_3("derivative", "derivative", reference="derivative")
    (svg,) = re.findall(
        '<svg [^>]*aria-label="Proportion of points in each kind.*?</svg>',
        audit_html(found), re.DOTALL,
    )  # fmt: skip
    shown = len(re.findall(r">\s*\d of 4\s*<", svg))
    assert shown == 2
    assert len(re.findall(r"stroke: var\(--ground\)", svg)) == 3 * shown


@pytest.mark.parametrize(
    ("kinds", "reference", "answer"),
    [
        (("wrong",), "wrong", "LOOK HERE"),
        (("undecided",), "undecided", "CANNOT SAY"),
        (("derivative",), "derivative", "DOES NOT MATTER"),
    ],
)
def test_the_title_is_answered_in_the_colour_of_the_answer(
    kinds: tuple[str, ...], reference: str, answer: str
) -> None:
    text = audit_html(version_3(*kinds, reference=reference))
    page = Page(text)
    assert page.text.index("Is the gradient of lenet5 on digits right?") < page.text.index(answer)
    assert f"<title>kinkcheck: lenet5 on digits: {answer}</title>" in text
    kind = answer.lower().replace(" ", "-")
    assert ("class", f"verdict {kind}") in page.attributes
    assert any(f".{kind} {{ background:" in style for style in page.styles)


def test_a_site_and_its_picture_lead_to_each_other() -> None:
    page = audit_html(version_2())
    assert '<a href="#picture">picture</a>' in page
    assert '<h2 id="picture">' in page
    assert page.count('href="#site-1"') == 3  # from the answer, the figure and the picture
    found = version_2()
    found["ties_picture"]["layer"] = "features.9"
    assert '<a href="#picture">' not in audit_html(found)


def test_points_have_one_denominator() -> None:
    found = version_2()
    found["summary"][0]["zones_left_out"] = 1
    text = Page(audit_html(found)).text.replace("\xa0", " ")
    assert "1 of 3 25 % (6 to 75)" in text
    assert "1 of 4" in text  # left out


def test_variations_have_ticks_that_are_read_as_numbers() -> None:
    page = audit_html(version_1())
    assert re.search(r">\s*1e−3\s*<", page)
    assert "log10" not in page


def test_what_was_measured_is_said_and_its_command_copied() -> None:
    settings = {
        "network": "lenet5", "data": "digits", "data_dir": None, "batches": 4, "batch_size": 64,
        "batch_norm": False, "init": "kaiming",
    }  # fmt: skip
    command = "kinkcheck audit lenet5 --data 'a & b'"
    recorded = {
        "settings": settings, "batch_size": 64, "batches": 4, "date": "2026-01-31T12:00:00Z",
        "command": command,
    }  # fmt: skip
    page = Page(audit_html(version_2(**recorded)))
    for fact in ("Batch size 64", "Initialisation kaiming", "Date 2026-01-31 12:00:00 UTC"):
        assert fact in page.text
    assert f"Command {command} copy" in page.text
    assert ("data-copies", "command") in page.attributes
    assert ("id", "command") in page.attributes
    text = Page(audit_html(version_2())).text
    assert not any(word in text for word in ("Command", "Date", "Batch size", "Initialisation"))


def test_the_script_is_the_one_that_the_page_allows() -> None:
    page = audit_html(version_1())
    (script,) = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


def test_version_1_shows_what_it_has_and_nothing_else() -> None:
    page = Page(audit_html(version_1()))
    # The verdict is drawn from the numbers: 3e-3 at float16 is 6.1 units of roundoff.
    assert "at most 3.0e-03 at float16 (6.1 u) of its l1 norm" in page.text
    assert page.elements["svg"] == 2
    assert "features.2 (max_pool2d)" in page.text
    assert "at zero" in page.text
    for absent in (
        "Do the programs differ",
        "Is it right",
        "Does it matter",
        "One image",
        "Unseen",
    ):
        assert absent not in page.text


def test_version_2_shows_zones_causes_and_picture() -> None:
    page = Page(audit_html(version_2()))
    assert "All of it is rounding." in page.text
    assert page.elements["svg"] == 5
    assert "1 of 4 25 % (6 to 75)" in page.text.replace("\xa0", " ")
    assert (
        page.elements["details"] == page.elements["summary"] == 2
    )  # the verdict, what the threshold says
    assert "95 % confidence interval" in page.text.replace("\xa0", " ")
    assert "0.25 0.125 to 0.5" in page.text
    assert "0.95 0.9 to inf" in page.text
    for share in ("60.00 %", "40.00 %", "15.00 %", "5.00 %"):
        assert share in page.text
    assert "dead (1)" in page.text
    assert "exact (1)" in page.text
    assert "rounding (1)" not in page.text


def test_version_3_answers_first_and_shows_standings_before_zones() -> None:
    page = Page(audit_html(version_3("derivative", "subgradient", "subgradient", "wrong")))
    text = page.text.replace("\xa0", " ")
    question = "Is the gradient of lenet5 on digits right?"
    answer = (
        "Right at 4 of 4 points: the gradient is the derivative. Under minimal it is right at 3"
    )
    assert text.index(question) < text.index(answer) < text.index("Is it right")
    assert text.index("Is it right") < text.index("Do the programs differ over the reals")
    assert (
        "float16 minimal 1 of 4 25 % (12 to 88) 2 of 4 50 % (12 to 88) 1 of 4 25 % (12 to 88)"
        in text
    )
    assert page.elements["svg"] == 6
    assert fetched(page) == []
    assert "Is it right" not in Page(audit_html(version_2())).text


@pytest.mark.parametrize("key", ["summary", "verdict", "ties_picture"])
def test_version_2_may_lack_what_was_concluded(key: str) -> None:
    found = version_2()
    del found[key]
    assert fetched(Page(audit_html(found))) == []


def test_words_of_the_json_are_text_and_nothing_else() -> None:
    hostile = (
        '"></svg></style><script>alert(1)</script><img src="http://x/y"> & $\\frac{1}$ {{ 7*7 }}'
    )
    found = version_2(
        network=hostile, data=hostile, device=hostile, reference=hostile, selections=[hostile],
        operations=[hostile], kinkcheck=hostile, torch=hostile, verdict=hostile,
        unseen=[{"layer": hostile, "operation": hostile, "reason": hostile, "calls": 1}],
    )  # fmt: skip
    found["points"][0] |= {"precision": hostile, "selection": hostile}
    found["sites"][0] |= {"precision": hostile, "layer": hostile, "operation": hostile}
    found["summary"][0] |= {
        "precision": hostile, "selection": hostile, "interval_method": hostile,
        "threshold_source": hostile,
    }  # fmt: skip
    found["ties_picture"] |= {"precision": hostile, "layer": hostile}
    page = Page(audit_html(found))
    assert page.elements["script"] == 1
    assert page.elements["img"] == 0
    assert fetched(page) == []
    assert page.text.count(hostile) >= 15
    assert "49" not in page.text


def test_names_in_any_script_are_drawn() -> None:
    found = version_2()
    found["sites"][0]["layer"] = "層\u0301🙂.0012"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = Page(audit_html(found))
    assert page.text.count("層\u0301🙂.0012 (max_pool2d)") >= 3  # in the figure too


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", 0, 5e-324, 1.7e308])
def test_extreme_numbers_are_drawn(value: Any) -> None:
    found = version_2()
    found["points"][0] |= {"variation": variation(value), "loss": value, "gradient_l1": value}
    found["summary"][0] |= {"threshold": value, "threshold_measured": value}
    page = Page(audit_html(found))
    assert page.elements["svg"] == 5
    not_finite = value in ("nan", "inf", "-inf")
    assert ("(1 of 1 not finite)" in page.text) == not_finite
    # Of what is no number nobody knows whether it moved; norms are not negative.
    still = re.search(r"\b0 of 1\b(?!,)", page.text) is not None
    assert still == (value in (0, "nan", "-inf"))


def test_empty_audit_says_that_there_was_no_kink() -> None:
    page = Page(audit_html(version_1(points=[], sites=[], selections=[])))
    assert "No kink that kinkcheck recognises was met" in page.text
    assert page.elements["svg"] == 0


def test_sites_without_a_tie_are_counted() -> None:
    found = version_1()
    found["sites"][0] |= {"tied": 0, "tied_at_zero": 0}
    page = Page(audit_html(found))
    assert "1 of 1 sites have no tie" in page.text
    assert page.elements["svg"] == 1


def test_unseen_operations_are_listed() -> None:
    unseen = [{"layer": "", "operation": "sort", "reason": "not known", "calls": 4000}]
    page = Page(audit_html(version_1(unseen=unseen)))
    assert "(root) sort not known 4,000" in page.text


def test_what_is_not_finite_and_what_was_left_out_are_listed() -> None:
    broken = {
        "variation": variation("nan"), "non_finite_layer": "", "non_finite_operation": "sqrt",
        "non_finite_lifted": True,
    }  # fmt: skip
    found = version_2()
    found["points"][0] |= broken
    left_out = [{"what": "<the> noise floor", "points": 1234}]
    page = Page(audit_html({**found, "left_out": left_out}))
    assert "(root) sqrt not finite 1" in page.text
    assert "<the> noise floor 1,234" in page.text
    page = Page(audit_html(version_2()))
    assert "Not finite" not in page.text
    assert "Left out" not in page.text


def test_same_audit_gives_the_same_page() -> None:
    assert audit_html(version_2()) == audit_html(version_2())


# --- JSON and back ------------------------------------------------------------------------------

words = st.text(max_size=8) | st.sampled_from(["nan", "inf", "-inf", "null"])
counts = st.integers(0, 10**12)
numbers = st.floats()
variations = st.builds(Variation, *[numbers] * 5)
lifts = st.builds(Lift, words, *[numbers] * 5)
zones = st.none() | st.sampled_from(Zone)
names = st.sampled_from(["float16", "bfloat16", "float32", "float64", "mixed"])
chosen = st.sampled_from(["native", "minimal", "hybrid:0.5", "as:jax"])
points = st.builds(
    Point, names, counts, counts, chosen, numbers, numbers, variations, zones, zones,
    st.none() | lifts, st.none() | variations, st.none() | words,
)  # fmt: skip
sites = st.builds(
    SiteCount, names, words, words, counts, counts, counts, counts, st.none() | numbers,
    *[st.none() | counts] * 3, st.none() | numbers,
)  # fmt: skip
reports = st.builds(
    AuditReport, words, words, words, words, words, counts, chosen, st.lists(chosen, max_size=3),
    st.lists(points, max_size=3), st.lists(sites, max_size=3),
    st.lists(st.builds(UnseenCount, words, words, words, counts), max_size=3),
    st.none() | st.lists(words, max_size=3),
)  # fmt: skip


@given(report=reports)
def test_json_gives_the_report_back(report: AuditReport) -> None:
    text = json.dumps(report.to_json(), allow_nan=False)
    # Of a NaN only the representation is equal to itself.
    again = AuditReport.from_json(json.loads(text))
    assert repr(asdict(again)) == repr(asdict(report))
    assert again.text() == report.text()


def test_version_1_lacks_nothing_but_what_has_a_default() -> None:
    report = AuditReport.from_json(version_1(some_later_key=1))
    (point,), (site,) = report.points, report.sites
    assert (point.variation.l1, point.zone, point.lift, point.noise) == (3e-3, None, None, None)
    assert (site.tied, site.dead, site.exact, site.rounding) == (600, None, None, None)


def test_strings_become_numbers_where_numbers_are_meant() -> None:
    found = version_1(network="nan", data="inf")
    found["points"][0] |= {"loss": "-inf", "gradient_l1": "inf", "variation": variation("nan")}
    report = AuditReport.from_json(found)
    assert (report.network, report.data) == ("nan", "inf")
    assert (report.points[0].loss, report.points[0].gradient_l1) == (-math.inf, math.inf)
    assert math.isnan(report.points[0].variation.l2)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schema": "kinkcheck.audit/4"}, "kinkcheck.audit/4"),
        ({"schema": None}, "schema"),
        ({"schema": ["kinkcheck.audit/1"]}, "schema"),
        ({"points": 3}, "points"),
        ({"points": [{}]}, "points.0.precision"),
        ({"sites": [{**version_1()["sites"][0], "tied": "many"}]}, "sites.0.tied"),
        ({"points": [{**version_1()["points"][0], "zone": "elsewhere"}]}, "points.0.zone"),
        ({"summary": [{"precision": "float16"}]}, "summary.0.selection"),
        ({"ties_picture": {}}, "ties_picture.precision"),
        ({"ties_picture": version_2()["ties_picture"] | {"image": []}}, "ties_picture.image"),
        ({"ties_picture": version_2()["ties_picture"] | {"image": [[0.5], []]}}, "must have"),
    ],
)
def test_complaint_names_the_entry_in_one_line(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as error:
        audit_html(version_1() | changes)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


# --- kinkcheck report ---------------------------------------------------------------------------

Report = Callable[..., tuple[int, str, str]]


@pytest.fixture
def report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Report:
    """Runs ``kinkcheck report`` in a folder of its own; exit code, output, complaint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kinkcheck", "report", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.mark.parametrize("found", [version_1(), version_2()], ids=["version 1", "version 2"])
def test_report_prints_the_tables_and_the_verdict_again(
    report: Report, found: dict[str, Any]
) -> None:
    Path("audit.json").write_text(json.dumps(found))
    code, out, err = report("audit.json", "-v")
    assert (code, err) == (0, "")
    assert "1 of 1" in out
    assert "60.00" in out
    verdict = found.get("verdict", "at most 3.0e-03 at float16 (6.1 u) of its l1 norm")
    assert verdict in " ".join(out.split())
    assert os.listdir() == ["audit.json"]


def test_words_of_the_json_are_no_markup_in_tables(report: Report) -> None:
    found = version_2() | {"reference": "[/red]", "selections": []}
    found["points"][0]["selection"] = found["sites"][0]["layer"] = "[bold]"
    Path("audit.json").write_text(json.dumps(found))
    code, out, err = report("audit.json", "-v")
    assert (code, err) == (0, "")
    assert "[/red]" in out
    assert out.count("[bold]") >= 2


def test_report_writes_the_page(report: Report) -> None:
    Path("audit.json").write_text(json.dumps(version_2()))
    assert report("audit.json", "--html", "audit.html")[0] == 0
    assert Path("audit.html").read_text(encoding="utf-8") == audit_html(version_2())


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is an object, not list"),
        (
            b"{}",
            "schema: must be one of kinkcheck.audit/1, kinkcheck.audit/2, kinkcheck.audit/3, not",
        ),
        (b'{"schema": "kinkcheck.audit/2"}', "kinkcheck: "),
    ],
)
def test_bad_json_gets_one_line(report: Report, content: bytes | None, named: str) -> None:
    if content is not None:
        Path("audit.json").write_bytes(content)
    code, out, err = report("audit.json", "--html", "audit.html")
    assert (code, out) == (2, "")
    assert err.startswith("kinkcheck: audit.json")
    assert named in err
    assert err.count("\n") == 1
    assert not Path("audit.html").exists()


@pytest.mark.parametrize(
    ("target", "named"),
    [("missing/audit.html", "the folder missing does not exist"), (".", "is a folder")],
)
def test_page_that_cannot_be_written_is_said_first(report: Report, target: str, named: str) -> None:
    Path("audit.json").write_text(json.dumps(version_2()))
    code, out, err = report("audit.json", "--html", target)
    assert (code, out) == (2, "")
    assert err.startswith("kinkcheck: --html: ")
    assert named in err


def test_folder_is_no_json(report: Report) -> None:
    assert report(".") == (2, "", "kinkcheck: . cannot be read: Is a directory\n")
