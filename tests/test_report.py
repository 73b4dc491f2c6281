"""The report of an audit: one document, whether Python or the command line makes it."""

from __future__ import annotations

import doctest
import json
import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from html import escape
from itertools import islice
from pathlib import Path

import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from torch import nn

import kinkcheck as kc
from command_line import Kinkcheck
from kinkcheck import data, networks
from kinkcheck.audit import AuditReport, estimate_volume, headline, verify
from kinkcheck.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
PAIR = torch.ones(2, 1, 4, 4), torch.tensor([0, 1])


@pytest.fixture(scope="module")
def report() -> AuditReport:
    """Of four windows that hold one number four times."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.MaxPool2d(2), nn.Flatten())
    return kc.audit(model, [PAIR], precisions=["64"], data_name="ones")


# --- one file ------------------------------------------------------------------------------------


def test_python_and_the_command_line_write_the_same_file(kinkcheck: Kinkcheck) -> None:
    words = "audit lenet5 --batches 2 --batch-size 4 --precision 16 --json a.json"
    assert kinkcheck(*shlex.split(words)).code == 0
    images = data.load("mnist-sample")
    build = partial(networks.build, "lenet5", in_channels=1, classes=10, image_size=28)
    report = kc.audit(
        build, islice(images.batches(4, seed=0), 2), precisions=["16"], network_name="lenet5",
        data_name="mnist-sample",
    )  # fmt: skip
    report.save("b.json")
    one, other = (Path(name).read_text() for name in ("a.json", "b.json"))
    differing = {key for key, value in json.loads(one).items() if json.loads(other)[key] != value}
    assert differing <= {"command", "settings", "date", "digest"}
    assert list(json.loads(one)) == list(json.loads(other))
    own = ('"command"', '"settings"', '"date"', '"digest"', '  "')
    lines = [
        [x for x in text.splitlines() if not x.strip().startswith(own)] for text in (one, other)
    ]
    assert [line for line in lines[1] if line not in lines[0]] == []
    assert json.loads(one)["command"] == f"kinkcheck {words}"
    assert json.loads(one)["settings"]["init"] == "default"
    assert json.loads(other)["ties_picture"]["layer"] == "features.2"


def test_what_was_measured_when_on_how_much_is_recorded(report: AuditReport) -> None:
    assert (report.batches, report.batch_size) == (1, 2)
    assert (report.command, report.settings) == (None, None)
    assert report.date is not None
    made = datetime.strptime(report.date, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert (datetime.now(UTC) - made).days == 0


def test_what_is_saved_is_loaded(report: AuditReport, tmp_path: Path) -> None:
    report.save(str(tmp_path / "a.json"))
    again = kc.load(tmp_path / "a.json")
    assert again == report
    assert again.text() == report.text() == (tmp_path / "a.json").read_text()


def test_a_file_that_cannot_be_written_is_named(report: AuditReport, tmp_path: Path) -> None:
    for write in (report.save, report.to_html):
        with pytest.raises(InputError, match=r"^path: the folder .*none does not exist$"):
            write(tmp_path / "none" / "a")
        with pytest.raises(InputError, match=r"^path: .* is a folder, not a file$"):
            write(tmp_path)


def test_conclusions_are_those_of_the_file(report: AuditReport) -> None:
    found = report.to_json() | {"verdict": "As it was said then.", "summary": []}
    again = AuditReport.from_json(found)
    assert (again.verdict, again.summary) == ("As it was said then.", [])
    del found["verdict"], found["summary"]
    again = AuditReport.from_json(found)
    assert (again.verdict, again.summary) == (report.verdict, report.summary)


# --- looked at -----------------------------------------------------------------------------------


def test_print_shows_what_the_command_line_shows(report: AuditReport, kinkcheck: Kinkcheck) -> None:
    report.save("a.json")
    assert kinkcheck("report", "a.json").out == f"{report}\n"
    assert str(report).startswith(str(headline(report)))


def test_repr_is_one_line(report: AuditReport) -> None:
    assert repr(report) == f"<AuditReport of Sequential on ones: {headline(report)}>"
    assert "\n" not in repr(report)


def test_page_has_what_the_page_of_the_command_line_has(
    report: AuditReport, kinkcheck: Kinkcheck
) -> None:
    report.save("a.json")
    held = Path("a.json").read_bytes()
    over = kinkcheck("report", "a.json", "--html", "./a.json")
    complaint = "kinkcheck: --html: a.json is the file that is read; name another\n"
    assert (over.code, over.out, over.err) == (2, "", complaint)
    assert Path("a.json").read_bytes() == held
    assert kinkcheck("report", "a.json", "--html", "a.html").code == 0
    report.to_html("b.html")
    assert Path("a.html").read_text() == Path("b.html").read_text()


def test_a_notebook_shows_names_as_text(report: AuditReport) -> None:
    hostile = "</div><script>alert(1)</script>&"
    names = {"network": hostile, "data": hostile, "reference": hostile}
    words = {"precision": hostile, "selection": hostile}
    shown = replace(report, **names, points=[replace(report.points[0], **words)])._repr_html_()
    assert "<script>" not in shown
    assert shown.count("&lt;script&gt;") >= 4
    assert shown.count("<div") == shown.count("</div>") == 1
    assert headline(report).text in report._repr_html_()
    assert escape(report.verdict) in report._repr_html_()


def test_print_is_text_wherever_it_is_printed(
    report: AuditReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = str(report)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert str(report) == plain


def test_a_volume_is_shown_like_a_report(kinkcheck: Kinkcheck) -> None:
    words = "--batches 2 --batch-size 4 --draws 2 --precision 16"
    images = data.load("mnist-sample")
    build = partial(networks.build, "lenet5", in_channels=1, classes=10, image_size=28)
    volume = estimate_volume(
        build, islice(images.batches(4, seed=0), 2), draws=2, precisions=["16"],
        network_name="lenet5", data_name="mnist-sample",
    )  # fmt: skip
    assert repr(volume) == "<Volume of lenet5 on mnist-sample: 4 of 4 pairs visited>"
    assert kinkcheck("volume", "lenet5", *words.split()).out == f"{volume}\n"


# --- as tables and plots -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several() -> AuditReport:
    """Two mini-batches at two precisions, of which one is not lifted everywhere."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    batches = [(torch.randint(-2, 3, (2, 1, 4, 4)).float(), torch.tensor([0, 1])) for _ in range(2)]
    return kc.audit(
        model, batches, precisions=["16", "32"], selections=["minimal", "last"], data_name="signs"
    )


def test_points_as_a_pandas_table(several: AuditReport) -> None:
    table = several.to_dataframe()
    written = several.to_json()["points"]
    assert len(table) == len(written) == 2 * 2 * 2
    for row, entry in zip(table.to_dict("records"), written, strict=True):
        for column, value in row.items():
            there = entry
            for key in column.split("."):
                there = None if there is None else there[key]
            assert value == there or (there in (None, "nan") and value != value) or value is there
    assert {"variation.l1", "lift.ratio", "noise.l1", "standing.kind"} < set(table)
    largest = table.groupby("precision")["variation.relative_l1"].max()
    assert largest["float16"] == max(
        point.variation.relative_l1 for point in several.points if point.precision == "float16"
    )


def test_sites_as_a_pandas_table(several: AuditReport) -> None:
    table = several.to_dataframe("sites")
    assert table["tied"].sum() == sum(site.tied for site in several.sites) > 0
    assert list(table["layer"].unique()) == ["1", "2"]
    with pytest.raises(InputError, match=r"^of: unknown table 'site'; did you mean 'sites'\?"):
        several.to_dataframe("site")  # type: ignore[arg-type]


def test_plot_has_every_point(several: AuditReport) -> None:
    axes = Figure().subplots()
    assert several.plot(axes) is axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["float16", "float32"]
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    for selection in ("minimal", "last"):
        expected = [p.variation.relative_l1 for p in several.points if p.selection == selection]
        assert list(drawn[f"moved by {selection}"]) == expected
    axes.figure.canvas.draw()


def test_plot_makes_a_figure(report: AuditReport) -> None:
    axes = replace(report, network="$\\frac{1$").plot()
    axes.figure.canvas.draw()
    assert axes.get_title() == "$\\frac{1$ on ones"
    pyplot.close(axes.figure)


# --- while it is measured ------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_shown_on_request(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", str(int(terminal)))
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    done: list[tuple[int, int]] = []
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.MaxPool2d(2), nn.Flatten())
    for shown in (False, True):
        kc.audit(
            model, [PAIR] * 3, lifted=False, progress=shown,
            on_point=lambda *counts: done.append(counts),
        )  # fmt: skip
        out, err = capsys.readouterr()
        assert out == ""
        assert ("Auditing" in err and "0/3" in err and "3/3" in err) == (shown and terminal)
        assert "Traceback" not in err
    assert done == [(1, 3), (2, 3), (3, 3)] * 2
    verify(kc.audit(model, [PAIR]), model, [PAIR], progress=True)
    assert ("Verifying" in capsys.readouterr().err) == terminal


def test_a_log_gets_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr("kinkcheck.progress._SILENCE", -1.0)
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.MaxPool2d(2), nn.Flatten())
    kc.audit(model, [PAIR] * 3, lifted=False, progress=True)
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if " of " in line] == [
        "kinkcheck: Auditing: 1 of 3", "kinkcheck: Auditing: 2 of 3"
    ]  # fmt: skip


# --- the tape ------------------------------------------------------------------------------------


def test_sites_are_shown_as_a_table() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), nn.ReLU(), nn.Flatten())
    model.add_module("<b>", nn.ReLU())
    x = torch.zeros(1, 40, 20, 20)
    with kc.record(model) as tape:
        model(x)
        torch.relu(torch.ones(3))
        model(x)
    assert repr(tape.sites).splitlines() == [
        "layer   operation   windows   ties",
        "0       max_pool2d    4,000  4,000",
        "1       relu          4,000  4,000",
        "<b>     relu          4,000  4,000",
        "(root)  relu              3      0",
        "0 #1    max_pool2d    4,000  4,000",
        "1 #1    relu          4,000  4,000",
        "<b> #1  relu          4,000  4,000",
    ]
    html = tape.sites._repr_html_()
    assert html.count("<tr>") == 8
    assert "<td>&lt;b&gt;</td><td>relu</td><td>4,000</td>" in html
    assert repr(tape) == "<Tape of Sequential: 7 sites, 24,000 of 24,003 windows tied>"


def test_a_call_that_failed_has_no_ties() -> None:
    with kc.record() as tape, pytest.raises(RuntimeError):
        torch.nn.functional.max_pool2d(torch.ones(1, 1, 1), 3)
    assert repr(tape) == "<Tape: 1 site, 0 of 0 windows tied>"
    assert repr(tape.sites).split()[-2:] == ["0", "0"]


# --- a notebook ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_on_notebooks_runs_as_a_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blocks are cells; what the last line of a cell returns is shown."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    page = (ROOT / "docs" / "notebooks.md").read_text()
    cells = []
    for language, text in re.findall(r"^```(python|pycon)\n(.*?)^```$", page, re.DOTALL | re.M):
        cells += [text] if language == "python" else [
            example.source for example in doctest.DocTestParser().get_examples(text)
        ]  # fmt: skip
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(made, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {cell.source.strip(): cell.outputs for cell in made.cells}

    (table,) = shown["tape.sites"]
    assert "<td>max_pool2d</td><td>6,912</td>" in table.data["text/html"]
    (answer,) = shown["report"]
    assert "<b>DOES NOT MATTER</b>: right at 6 of 6 points" in answer.data["text/html"]
    assert answer.data["text/plain"].startswith("<AuditReport of Sequential on batches: DOES NOT")
    (printed,) = shown["print(report)"]
    assert (printed.output_type, printed.name) == ("stream", "stdout")
    assert printed.text.startswith("DOES NOT MATTER: right at 6 of 6 points")
    bar = shown['report = kc.audit(model, batches, precisions=["16", "32"], progress=True)']
    assert {each.output_type for each in bar} == {"stream"}
    assert "6/6" in "".join(each.text for each in bar)
    plotted = [cell.outputs for cell in made.cells if "report.plot()" in cell.source]
    assert any("image/png" in each.get("data", {}) for each in plotted[0])
    assert kc.load(tmp_path / "audit.json").batches == 3


@pytest.mark.parametrize(("side", "shown"), [(512, True), (513, False)])
def test_a_picture_is_of_an_image_that_is_not_large(side: int, shown: bool) -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.MaxPool2d(64), nn.Flatten(), nn.Linear(64, 2))
    images = torch.zeros(1, 1, side, 512), torch.zeros(1, dtype=torch.long)
    report = kc.audit(model, [images], lifted=False)
    assert (report.ties_picture is not None) == shown
