"""The options of ``kinkcheck audit`` that judge points, and what is written of them."""

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from command_line import Kinkcheck

SMALL = ("--batches", 2, "--batch-size", 4)


@pytest.fixture
def audited(kinkcheck: Kinkcheck, folder: Path) -> Callable[..., tuple[str, dict]]:
    """Runs an audit; what it printed, and its JSON."""

    def run(*arguments: object) -> tuple[str, dict]:
        found = kinkcheck("audit", *arguments, "--json", "a.json")
        assert (found.code, found.err) == (0, "")
        return found.text, json.loads((folder / "a.json").read_text())

    return run


Audited = Callable[..., tuple[str, dict]]


def test_points_are_lifted_and_summarised(audited: Audited) -> None:
    text, found = audited("lenet5", *SMALL, "--precision", 16, 64, "--lift", "-v")
    assert found["schema"] == "kinkcheck.audit/3"
    assert {point["lift"]["precision"] for point in found["points"]} == {"float64"}
    for summary in found["summary"]:
        for zone, share in summary["zones"].items():
            of = [p for p in found["points"] if p["precision"] == summary["precision"]]
            assert share["count"] == sum(point["zone"] == zone for point in of)
            assert share["interval"][0] <= share["proportion"] <= share["interval"][1]
    right, moved, closing = found["verdict"].partition("The choice at kinks moves")
    assert right.startswith("Right at 4 of 4 points")
    assert right + "Is the gradient right?" in text
    assert text.endswith(moved + closing)
    assert found["ties_picture"]["layer"] == "features.2"
    half, double = found["summary"]
    assert half["error_ratio"]["median"] > 0
    assert double["error_ratio"] is None  # nothing is higher than float64
    for site in found["sites"]:
        causes = [site[name] for name in ("dead", "exact", "rounding")]
        if site["precision"] == "float16":
            assert sum(causes) == site["tied"]
        else:
            assert causes[1:] == [None, None]


def test_without_the_lift_only_the_threshold_judges(audited: Audited) -> None:
    text, found = audited("lenet5", *SMALL, "--no-lift", "-v")
    assert {point["zone"] for point in found["points"]} == {None}
    assert {point["zone_by_threshold"] for point in found["points"]} <= {
        "agreement", "compensation", "bifurcation",
    }  # fmt: skip
    assert found["summary"][0]["zones"] == {}
    assert "by the lift" not in text


def test_exact_arbiter_decides(audited: Audited) -> None:
    pytest.importorskip("flint")
    _, found = audited("lenet5", "--batches", 1, "--batch-size", 2, "--exact")
    (point,) = found["points"]
    assert point["lift"]["precision"] == "exact"
    assert point["lift"]["noise_l1"] == 0
    assert (point["zone"] == "bifurcation") == (point["lift"]["variation_l1"] > 0)


def test_exact_arbiter_names_what_it_does_not_cover(kinkcheck: Kinkcheck) -> None:
    pytest.importorskip("flint")
    found = kinkcheck("audit", "my_nets.py:Rooted", *SMALL, "--exact")
    assert (found.code, found.out) == (2, "")
    assert "sqrt" in found.err
    assert found.err.count("\n") == 1


def test_exact_arbiter_refuses_before_the_first_point(kinkcheck: Kinkcheck, folder: Path) -> None:
    pytest.importorskip("flint")
    found = kinkcheck("audit", "my_nets.py:Outputs", *SMALL, "--exact")
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("kinkcheck: exact: the exact arbiter does not cover")
    assert found.err.count("\n") == 1


def test_a_network_that_refuses_one_image_is_audited_without_a_picture(audited: Audited) -> None:
    _, found = audited("my_nets.py:Statistics", *SMALL)
    assert found["ties_picture"] is None
    assert found["points"]


def test_points_that_are_not_finite_are_a_zone_with_a_layer(audited: Audited) -> None:
    text, found = audited("my_nets.py:Infinite", *SMALL)
    assert {point["zone"] for point in found["points"]} == {"non-finite"}
    assert {point["non_finite_layer"] for point in found["points"]} == {""}
    assert "2 of 2 points a gradient is not finite, first in (root)" in text


def test_tolerance_names_a_precision(audited: Audited) -> None:
    text, found = audited("lenet5", *SMALL, "--precision", 16, 32, "--tolerance", "1e-6")
    for point in found["points"]:
        assert (point["variation"]["relative_l1"] <= 1e-6) == (point["precision"] == "float32")
    assert "by at most 1e-06 of it at every point is float32." in text
    text, _ = audited("lenet5", *SMALL, "--precision", 16, "--tolerance", "1e-6")
    assert "At none of the precisions audited does every point stay within 1e-06." in text
    text, _ = audited("lenet5", *SMALL, "--precision", "mixed", "--tolerance", "1")
    assert "stay within 1 (mixed has no rank among them)." in text


@pytest.mark.parametrize("tolerance", ["-1", "nan", "inf"])
def test_bad_tolerance_is_one_line(tolerance: str, kinkcheck: Kinkcheck) -> None:
    found = kinkcheck("audit", "lenet5", f"--tolerance={tolerance}")
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("kinkcheck: --tolerance must be a number of at least 0, not")


def test_page_is_written_beside(audited: Audited, folder: Path, kinkcheck: Kinkcheck) -> None:
    _, found = audited("lenet5", *SMALL, "--html", "a.html")
    page = (folder / "a.html").read_text(encoding="utf-8")
    assert found["verdict"] in unescape(re.sub("<[^>]+>", "", page))  # words in it are links
    assert "One image" in page
    assert kinkcheck("report", "a.json", "--html", "b.html").code == 0
    assert (folder / "b.html").read_text(encoding="utf-8") == page


def test_layers_are_attributed_in_the_lift_too(audited: Audited) -> None:
    text, found = audited("lenet5", *SMALL, "--precision", 16, "--layers")
    moved = [site for site in found["sites"] if site["variation_l1"]]
    assert moved
    assert all(site["lift_variation_l1"] < site["variation_l1"] for site in moved)
    assert "one site alone" in text
    assert "in the lift" in text


def test_what_is_printed_fits_and_tables_stand_apart(kinkcheck: Kinkcheck, folder: Path) -> None:
    found = kinkcheck("audit", "lenet5", *SMALL, "--precision", 16, 32, "-v", "--tolerance", "1e-6")
    lines = [line.rstrip() for line in found.out.splitlines()]
    assert max(map(len, lines)) <= 80
    for title in ("Is the gradient", "Gradient", "Variation", "Zones,", "Thresh", "Ties by"):
        [at] = [number for number, line in enumerate(lines) if line.startswith(title)]
        assert lines[at - 1] == ""
    assert any(line.startswith(" features.2 ") for line in lines)  # whole, not a few letters a line


@pytest.mark.parametrize("command", ["audit", "volume"])
def test_lazy_networks_are_refused_in_one_line(command: str, kinkcheck: Kinkcheck) -> None:
    found = kinkcheck(command, "my_nets.py:Lazy", *SMALL)
    assert (found.code, found.out) == (2, "")
    assert found.err == (
        "kinkcheck: network: Lazy has parameters without a shape yet; call it on a batch first\n"
    )
