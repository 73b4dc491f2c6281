"""The command line, as a user meets it: output, files, exit codes and complaints of one line."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from command_line import Kinkcheck, Run, command, fits
from kinkcheck import __main__
from kinkcheck.audit import (
    Answer,
    AuditReport,
    Kind,
    Point,
    SiteCount,
    Standing,
    Variation,
    headline,
    load,
)

SMALL = ("--batches", "1", "--batch-size", "8")

# --- demo, help, version ------------------------------------------------------------------------


def test_demo_fits_a_screen(kinkcheck: Kinkcheck) -> None:
    run = kinkcheck("demo")
    assert (run.code, run.err) == (0, "")
    assert fits(run.out)
    assert run.out.count("\n") < 24  # a screen has 24 lines, and the prompt is one
    # By hand, as below; 1.4 and its multiples are rounded in each precision.
    for words in ("max1 1 4 1 limit", "max2 1 4 2.5 subgradient", "zero 0 0 -1.5 wrong"):
        assert words in run.text
    assert "(1, 2, 3, 4) -1.5 -1.5 -1.5 -1.5 bifurcation" in run.text
    assert "compensation" in run.text


def test_demo_shows_where_derivatives_are_wrong(kinkcheck: Kinkcheck) -> None:
    run = kinkcheck("demo", "-v")
    assert (run.code, run.err) == (0, "")
    assert fits(run.out)
    first, *tables = run.out.split("x = (")[1:]
    # By hand: max(t·x) is 4t for t > 0 and t for t < 0, and zero is 0.
    assert [line.split() for line in first.splitlines() if line.split()[:1] == ["max1"]] == [
        ["max1", "1", "4", "1", "limit"]
    ]
    assert [line.split() for line in first.splitlines() if line.split()[:1] == ["max2"]] == [
        ["max2", "1", "4", "2.5", "subgradient"]
    ]
    assert [line.split() for line in first.splitlines() if line.split()[:2] == ["zero", "0"]] == [
        ["zero", "0", "0", "-1.5", "wrong"]
    ]
    assert [table.split(")")[0] for table in tables] == [
        "1, 2, 3, 4", "1.4, 1.4, 1.4, 1.4", "1.14, 1.14, 1.14, 1.14",
    ]  # fmt: skip
    zeros = [
        [line.split()[1:] for line in table.splitlines() if line.split()[:1] == ["zero"]]
        for table in tables
    ]
    of_zero = [[row for row in rows if row[0] != "ReLUs"] for rows in zeros]
    assert [len(rows) for rows in of_zero] == [5, 5, 5]  # t = 0, 0.1, 1, -1e-4, -6
    distinct, _, published = of_zero
    assert distinct[0] == ["0", *["-1.5"] * 4, "bifurcation"]
    assert all(row == ["0", *["0"] * 4, "agreement"] for row in distinct[1:])
    for row in published:
        assert (row[0], row[3], row[-1]) == ("0", "5.96e-08", "compensation")
    assert "zero has no kink, and AD is wrong" in run.text
    assert run.text.index("bifurcation, at every precision") > run.text.index("1.14")


def test_version_is_the_installed_one(kinkcheck: Kinkcheck) -> None:
    assert kinkcheck("--version") == Run(0, "0.1.0\n", "")


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_names_the_commands(arguments: tuple[str, ...], kinkcheck: Kinkcheck) -> None:
    run = kinkcheck(*arguments)
    assert (run.code, run.err) == (0, "")
    assert "demo" in run.out
    assert "audit" in run.out


def test_help_of_audit_names_every_option_of_the_synopsis(kinkcheck: Kinkcheck) -> None:
    run = kinkcheck("audit", "--help")
    assert (run.code, run.err) == (0, "")
    for word in (
        "NETWORK", "--data", "--data-dir", "--precision", "--selection", "--operation",
        "--batches", "--batch-size", "--draws", "--init", "--batch-norm", "--seed", "--layers",
        "--device", "--json", "lenet5", "mnist-sample", "hybrid:BETA", "kaiming", "bf16",
        "--html", "--exact", "--no-lift", "--tolerance", "--verbose", "-v",
    ):  # fmt: skip
        assert word in run.text


# --- audit --------------------------------------------------------------------------------------


def test_audit_prints_tables_and_a_sentence(kinkcheck: Kinkcheck, folder: Path) -> None:
    run = kinkcheck(
        "audit", "lenet5", *SMALL, "--layers",
        "--precision", "16", "bfloat16", "32", "64", "mixed",
        "--selection", "minimal", "hybrid:10",
    )  # fmt: skip
    assert (run.code, run.err) == (0, "")
    assert fits(run.out)
    assert run.text.startswith(tuple(f"{kind}: right at 5 of 5 points" for kind in Answer))
    for words in (
        "Is the gradient right",
        "What to do: ",
        "Where to look: features.2 (max_pool2d)",
    ):
        assert words in run.text
    assert "hreshold" not in run.text
    assert {file.name for file in folder.iterdir()} == {"my_nets.py", "some_sibling.py"}


def test_the_answer_comes_alone_first_or_with_everything(
    kinkcheck: Kinkcheck, folder: Path
) -> None:
    run = kinkcheck("audit", "lenet5", *SMALL, "-q", "--json", "a.json")
    assert (run.code, run.err) == (0, "")
    assert run.out == f"{headline(load('a.json'))}\n"
    everything = kinkcheck("report", "a.json", "-v")
    assert everything.text.startswith(f"{run.text} Right at 1 of 1 points: ") or (
        everything.text.startswith(f"{run.text} Right at the one point: ")
    )
    assert fits(everything.out)
    for words in ("Is the gradient right?", "Gradient variation", "Ties by site", "Thresholds"):
        assert words in everything.out
    assert everything.text.endswith(".")
    both = kinkcheck("report", "a.json", "-v", "-q")
    assert (both.code, both.err) == (2, "kinkcheck: --quiet and --verbose exclude each other\n")


@pytest.mark.parametrize(
    ("kind", "by", "codes"),
    [
        (Kind.DERIVATIVE, 0.0, {"wrong": 0, "matters": 0, "doubt": 0}),
        (Kind.DERIVATIVE, 1e-9, {"wrong": 0, "matters": 0, "doubt": 0}),
        (Kind.LIMIT, 1.0, {"wrong": 0, "matters": 1, "doubt": 1}),
        (Kind.WRONG, 0.0, {"wrong": 1, "matters": 1, "doubt": 1}),
        (Kind.UNDECIDED, 0.0, {"wrong": 0, "matters": 0, "doubt": 1}),
    ],
)
def test_exit_code_gates(
    kind: Kind, by: float, codes: dict[str, int], kinkcheck: Kinkcheck, folder: Path
) -> None:
    standing = Standing(kind, ties=3)
    point = Point(
        "float32", 0, 0, "minimal", 1.0, 1.0, Variation(by, by, by, by, by),
        standing=standing, reference_standing=standing,
    )  # fmt: skip
    site = SiteCount("float32", "pool", "max_pool2d", 0, 8, 3, 3, None)
    names = ("0.1.0", "2.13.0", "cpu", "network", "data")
    found = AuditReport(*names, 0, "native", ["minimal"], [point], [site], [])
    (folder / "a.json").write_text(found.text())
    for condition, code in codes.items():
        run = kinkcheck("report", "a.json", "-q", "--fail-on", condition)
        assert run.code == code
        assert run.err == f"kinkcheck: exit code 1, for --fail-on {condition}\n" * code
        assert run.out.count("\n") == 1


def test_json_holds_what_was_asked_for(kinkcheck: Kinkcheck, folder: Path) -> None:
    run = kinkcheck(
        "audit", "lenet5", "--batches", "2", "--batch-size", "4", "--draws", "2", "--seed", "3",
        "--precision", "32", "--precision", "64", "--selection", "minimal", "last",
        "--reference", "hybrid:0.5", "--operation", "max_pool", "--json", "a.json",
    )  # fmt: skip
    assert (run.code, run.err) == (0, "")
    written = json.loads((folder / "a.json").read_text())
    assert written["schema"] == "kinkcheck.audit/3"
    assert (written["network"], written["data"], written["seed"]) == ("lenet5", "mnist-sample", 3)
    assert (written["reference"], written["selections"]) == ("hybrid:0.5", ["minimal", "last"])
    keys = [(p["precision"], p["draw"], p["batch"], p["selection"]) for p in written["points"]]
    assert keys == [
        (precision, draw, batch, selection)
        for precision in ("float32", "float64")
        for draw in (0, 1)
        for batch in (0, 1)
        for selection in ("minimal", "last")
    ]
    assert {s["windows"] for s in written["sites"] if s["layer"] == "features.2"} == {
        2 * 2 * 4 * 6 * 12 * 12
    }


@pytest.mark.parametrize("network", ["mlp", "my_nets.py:Fixed"])
def test_seed_draws_parameters_and_batches(
    network: str, kinkcheck: Kinkcheck, folder: Path
) -> None:
    losses = []
    for seed in (1, 1, 2):
        assert kinkcheck("audit", network, *SMALL, "--seed", seed, "--json", "a.json").code == 0
        losses.append(json.loads((folder / "a.json").read_text())["points"][0]["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_options_of_built_in_networks_reach_them(kinkcheck: Kinkcheck, folder: Path) -> None:
    losses = set()
    for options in ((), ("--batch-norm",), ("--init", "kaiming")):
        assert kinkcheck("audit", "lenet5", *SMALL, *options, "--json", "a.json").code == 0
        losses.add(json.loads((folder / "a.json").read_text())["points"][0]["loss"])
    assert len(losses) == 3


def test_relu_at_zero_is_the_same_command(kinkcheck: Kinkcheck, folder: Path) -> None:
    arguments = ("--selection", "branch:0", "branch:1", "--operation", "relu")
    run = kinkcheck("audit", "lenet5", *SMALL, *arguments, "--json", "a.json")
    assert (run.code, run.err) == (0, "")
    written = json.loads((folder / "a.json").read_text())
    assert written["selections"] == ["branch:0", "branch:1"]
    assert {p["variation"]["l1"] for p in written["points"] if p["selection"] == "branch:0"} == {0}


@pytest.mark.parametrize("options_first", [False, True])
def test_repeated_option_means_several_values(
    options_first: bool, kinkcheck: Kinkcheck, folder: Path
) -> None:
    options = [*SMALL, "--selection", "last", "--selection", "hybrid:-2", "--json", "a.json"]
    run = kinkcheck("audit", *([*options, "mlp"] if options_first else ["mlp", *options]))
    assert (run.code, run.err) == (0, "")
    assert json.loads((folder / "a.json").read_text())["selections"] == ["last", "hybrid:-2"]


@pytest.mark.parametrize(
    "values", [["16,fp32"], ["16,", "32"], ["torch.float16", "float32"], ["16,16", "float32"]]
)
def test_values_have_blanks_or_commas_between_them(
    values: list[str], kinkcheck: Kinkcheck, folder: Path
) -> None:
    options = ["--precision", *values, "--selection", "last,hybrid:-2", "--json", "a.json"]
    run = kinkcheck("audit", "mlp", *SMALL, *options)
    assert (run.code, run.err) == (0, "")
    points = json.loads((folder / "a.json").read_text())["points"]
    assert [(point["precision"], point["selection"]) for point in points] == [
        (precision, selection)
        for precision in ("float16", "float32")
        for selection in ("last", "hybrid:-2")
    ]


@pytest.mark.parametrize("where", ["my_nets.py", "my_nets", "absolute"])
def test_network_of_the_user(where: str, kinkcheck: Kinkcheck, folder: Path) -> None:
    where = str(folder / "my_nets.py") if where == "absolute" else where
    run = kinkcheck("audit", f"{where}:Net", *SMALL, "--json", "a.json")
    assert (run.code, run.err) == (0, "")
    written = json.loads((folder / "a.json").read_text())
    assert written["network"] == f"{where}:Net"
    assert [(s["layer"], s["operation"]) for s in written["sites"]] == [("", "relu")]


def test_network_in_a_package_of_the_current_folder(kinkcheck: Kinkcheck, folder: Path) -> None:
    (folder / "some_package").mkdir()
    (folder / "my_nets.py").rename(folder / "some_package" / "my_inner_nets.py")
    try:
        run = kinkcheck("audit", "some_package.my_inner_nets:Net", *SMALL)
    finally:
        for name in ("some_package", "some_package.my_inner_nets"):
            sys.modules.pop(name, None)
    assert (run.code, run.err) == (0, "")


def test_network_without_kinks_is_a_clear_result(kinkcheck: Kinkcheck, folder: Path) -> None:
    run = kinkcheck("audit", "my_nets.py:smooth", *SMALL, "--json", "a.json")
    assert (run.code, run.err) == (0, "")
    assert run.out == "CANNOT SAY: no kink that kinkcheck recognises was met\n"
    assert json.loads((folder / "a.json").read_text())["sites"] == []


def test_brackets_in_a_name_are_no_markup(kinkcheck: Kinkcheck, folder: Path) -> None:
    (folder / "[red]").mkdir()
    (folder / "my_nets.py").rename(folder / "[red]" / "my_nets.py")
    run = kinkcheck("audit", "[red]/my_nets.py:smooth", *SMALL)
    assert (run.code, run.err) == (2, run.err)  # its sibling stayed behind
    (folder / "some_sibling.py").rename(folder / "[red]" / "some_sibling.py")
    run = kinkcheck("audit", "[red]/my_nets.py:smooth", *SMALL, "-v")
    assert "[red]/my_nets.py:smooth" in run.text


def test_kinks_out_of_reach_are_listed(kinkcheck: Kinkcheck) -> None:
    run = kinkcheck("audit", "my_nets.py:Rooted", *SMALL)
    assert run.code == 0
    assert "sqrt" in run.out
    assert "Not switched, though it may have kinks or jumps: sqrt." in run.text


def test_real_digits_from_a_folder(kinkcheck: Kinkcheck, folder: Path, data_dir: Path) -> None:
    run = kinkcheck(
        "audit", "lenet5", "--data", "mnist", "--data-dir", data_dir, *SMALL, "--json", "a.json"
    )
    assert (run.code, run.err) == (0, "")
    assert json.loads((folder / "a.json").read_text())["data"] == "mnist"


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("nonet", "unknown network 'nonet'; accepted: lenet5,"),
        ("lenet5 --data nodata", "unknown data set 'nodata'; accepted: mnist-sample,"),
        ("lenet5 --precision 8", "unknown precision '8'; accepted: float16,"),
        ("lenet5 --selection foo", "unknown selection 'foo'; accepted: native,"),
        ("lenet5 --selection minimal hybrid:x", "unknown selection 'hybrid:x'"),
        ("lenet5 --reference foo", "unknown selection 'foo'"),
        ("lenet5 --operation foo", "unknown operation 'foo'; accepted:"),
        ("lenet5 --operation norm_pool", "no site of norm_pool"),
        ("lenet5 --selection branch:1 --operation max_pool", "has no selection branch:1"),
        ("lenet5 --device abacus", "device 'abacus' cannot be used"),
        ("lenet5 --device cuda:4096", "device 'cuda:4096' cannot be used"),
        ("lenet5 --init foo", "--init: unknown init 'foo'; accepted: default, kaiming"),
        ("lenet5 --batches 0", "--batches must be at least 1, not 0"),
        ("lenet5 --batch-size 0", "--batch-size must be at least 1, not 0"),
        ("lenet5 --batches 501", "--batches 501 of 8 images each: mnist-sample has 4,000 images"),
        ("lenet5 --batches many", "'--batches'"),
        ("lenet5 --draws 0", "--draws must be at least 1, not 0"),
        ("lenet5 --seed -1", "seed"),
        ("lenet5 --bogus", "No such option: --bogus"),
        ("lenet5 surplus", "unexpected extra argument"),
        ("vgg11", "image_size must be 32 to 63 for vgg11, not 28"),
        ("lenet5 --data mnist --data-dir nowhere", "nowhere is not a folder"),
        ("lenet5 --data mnist --data-dir .", "mnist"),
        ("none.py:make", "the file none.py does not exist"),
        ("no_such_module_here:make", "No module named 'no_such_module_here'"),
        ("my_nets.py:nothing", "my_nets.py has no 'nothing'"),
        ("my_nets.py:CLASSES", "must be a function without arguments"),
        ("my_nets.py:raises", "raises failed: ValueError: first second"),
        ("my_nets.py:stops", "stops failed: SystemExit: 7"),
        (
            "my_nets.py:three",
            "torch.nn.Module, or (model, batches, step), not int",
        ),
        ("my_nets.py:wants", "wants failed: TypeError"),
        ("my_nets.py:Failing", "failed on a batch of shape (8, 1, 28, 28)"),
        ("my_nets.py:wrong_shape", "failed on a batch of shape (8, 1, 28, 28)"),
        ("my_nets.py:Detached", "does not depend on any parameter"),
        ("my_nets.py:Net --batch-norm", "--batch-norm and --init are for built-in networks"),
        ("my_nets.py:Net --init kaiming", "--batch-norm and --init are for built-in networks"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: str, words: str, kinkcheck: Kinkcheck, folder: Path
) -> None:
    before = sorted(folder.rglob("*"))
    network, *options = arguments.split()
    run = kinkcheck("audit", network, *SMALL, "--json", "a.json", *options)
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("kinkcheck: ")
    assert words in run.err
    assert run.err.count("\n") == 1
    assert run.err.endswith("\n")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("audit", "Missing argument 'NETWORK'"),
        ("odit", "No such command 'odit'"),
        ("--bogus", "No such option: --bogus"),
        ("demo surplus", "unexpected extra argument"),
        ("audit lenet5 --json", "'--json' requires an argument"),
        ("audit lenet5 --json nowhere/a.json", "--json: the folder nowhere does not exist"),
        ("audit lenet5 --json .", "--json: . is a folder"),
        ("audit lenet5 --json my_nets.py/a.json", "--json: the folder my_nets.py does not exist"),
    ],
)
def test_bad_command_is_one_line_and_exit_code_2(
    arguments: str, words: str, kinkcheck: Kinkcheck
) -> None:
    run = kinkcheck(*arguments.split())
    assert (run.code, run.out) == (2, "")
    assert words in run.err
    assert run.err.startswith("kinkcheck: ")
    assert run.err.count("\n") == 1


def test_data_folder_in_another_layout_is_named(kinkcheck: Kinkcheck, folder: Path) -> None:
    (folder / "data" / "mnist").mkdir(parents=True)
    (folder / "data" / "mnist" / "images.bin").touch()
    run = kinkcheck("audit", "lenet5", "--data", "mnist", "--data-dir", folder / "data", *SMALL)
    assert (run.code, run.out) == (2, "")
    assert run.err.count("\n") == 1
    assert str(folder / "data") in run.err
    assert ".parquet" in run.err


@pytest.mark.parametrize(("net", "code"), [("Failing", 2), ("Interrupted", 130)])
def test_older_file_survives_an_audit_that_ends_early(
    net: str, code: int, kinkcheck: Kinkcheck, folder: Path
) -> None:
    (folder / "a.json").write_text("older")
    before = sorted(folder.iterdir())
    run = kinkcheck("audit", f"my_nets.py:{net}", *SMALL, "--json", "a.json")
    assert (run.code, run.out) == (code, "")
    assert run.err.count("\n") == 1
    assert sorted(folder.iterdir()) == before
    assert (folder / "a.json").read_text() == "older"


def test_file_that_cannot_be_written_in_the_end_is_one_line(
    kinkcheck: Kinkcheck, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kinkcheck.files.os.fsync", full)
    before = sorted(folder.iterdir())
    run = kinkcheck("audit", "my_nets.py:Net", *SMALL, "--json", "a.json")
    assert run.code == 2
    assert run.err == "kinkcheck: --json: a.json cannot be written: No space left on device\n"
    assert sorted(folder.iterdir()) == before


# --- volume --------------------------------------------------------------------------------------


def test_volume_says_how_likely_each_zone_is(kinkcheck: Kinkcheck, folder: Path) -> None:
    options = ("--draws", 2, "--batches", 3, "--batch-size", 4, "--precision", 32, 64)
    run = kinkcheck("volume", "my_nets.py:smooth", *options, "--out", "v.jsonl")
    assert (run.code, run.err) == (0, "")
    assert fits(run.out)
    # McDiarmid: log(40) / 2 * (1/2 + 1/3) = 1.24**2, which says nothing.
    assert run.text.count("100.0 (0.0–100.0)") == 2
    assert "over parameters and mini-batches: 0.0 (0.0–100.0) % at float32" in run.text
    assert run.text.endswith("(in brackets 95 % intervals, McDiarmid).")
    head, *lines = (folder / "v.jsonl").read_text().splitlines()
    assert len(lines) == 2 * 3 * 2
    settings = json.loads(head)["settings"]
    assert settings["batch_size"] == 4
    assert settings["network"] == "my_nets.py:smooth"
    alone = kinkcheck("volume", "my_nets.py:smooth", *options, "--no-standing")
    assert "Is the gradient right?" in run.text
    assert (alone.code, alone.text) == (0, run.text[run.text.index("Zones, in %") :])


def test_volume_goes_on_with_its_file_and_stops_early(kinkcheck: Kinkcheck, folder: Path) -> None:
    options = ("--draws", 1, "--batches", 12, "--batch-size", 4, "--out", "v.jsonl")
    first = kinkcheck("volume", "my_nets.py:smooth", *options)
    whole = (folder / "v.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (folder / "v.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:50])
    assert kinkcheck("volume", "my_nets.py:smooth", *options) == first
    assert (folder / "v.jsonl").read_bytes() == whole
    early = kinkcheck("volume", "my_nets.py:smooth", *options, "--until-width", "0.5")
    assert "mini-batches at the one parameter draw" in early.text
    # One of two looks: 1 - (0.05 / 2 / 2)^(1/8) = 0.422.
    assert "0.0 (0.0–42.2) %" in early.text
    assert "; 8 of 12 points were enough)." in early.text


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--draws", 0), "--draws must be at least 1, not 0"),
        (("--batches", 0), "--batches must be at least 1, not 0"),
        (("--batch-size", 0), "--batch-size must be at least 1, not 0"),
        (("--confidence", 95), "--confidence must be between 0 and 1, such as 0.95, not 95.0"),
        (("--until-width", 0), "--until-width must be between 0 and 1, not 0.0"),
        (("--out", "nowhere/v.jsonl"), "--out: the folder nowhere does not exist"),
        (("--out", "notes.txt"), "out: notes.txt is not a file of points; name another"),
        (("--precision", "8"), "--precision: unknown precision '8'; accepted: "),
        (("--selection", "most"), "--selection: "),
        (("--ray", "nobody"), "--ray: 'nobody' is not an address; accepted: HOST:PORT, auto, "),
        (("--ray", "--gpu-share", 2), "--gpu-share must be from 0.0001 to 1, not 2"),
    ],
)
def test_volume_complains_in_one_line(
    options: tuple[object, ...], complaint: str, kinkcheck: Kinkcheck, folder: Path
) -> None:
    (folder / "notes.txt").write_text("my notes")
    run = kinkcheck("volume", "my_nets.py:smooth", "--batches", 1, "--batch-size", 4, *options)
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith(f"kinkcheck: {complaint}")
    assert run.err.count("\n") == 1
    assert (folder / "notes.txt").read_text() == "my notes"


@pytest.mark.parametrize("address", [(), ("local",)])
@pytest.mark.parametrize("words", [("volume", "my_nets.py:smooth"), ("paper", "run", "programs")])
def test_without_ray_one_line_says_how_to_get_it(
    words: tuple[str, ...],
    address: tuple[str, ...],
    kinkcheck: Kinkcheck,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    run = kinkcheck(*words, "--ray", *address)
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("kinkcheck: ray is needed (")
    assert run.err.endswith('pip install "kinkcheck[ray]"\n')
    assert run.err.count("\n") == 1


def test_a_full_disk_is_one_line(kinkcheck: Kinkcheck, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    run = kinkcheck("volume", "my_nets.py:smooth", "--batches", 1, "--out", "v.jsonl")
    assert run.code == 2
    assert run.err == "kinkcheck: out: v.jsonl cannot be written: No space left on device\n"


# --- a process of its own -----------------------------------------------------------------------


def test_console_script_is_main() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))[
        "project"
    ]
    script = EntryPoint("kinkcheck", project["scripts"]["kinkcheck"], "console_scripts")
    assert script.load() is __main__.main


@pytest.mark.slow
def test_audit_in_its_own_process(folder: Path) -> None:
    run = command("audit", "my_nets.py:Net", *SMALL, "--json", "a.json")
    assert (run.returncode, run.stderr) == (0, "")
    assert fits(run.stdout)
    assert json.loads((folder / "a.json").read_text())["schema"] == "kinkcheck.audit/3"


def test_interrupt_leaves_no_file_and_one_line(folder: Path) -> None:
    before = sorted(folder.iterdir())
    run = command("audit", "my_nets.py:Signalled", *SMALL, "--json", "a.json")
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "kinkcheck: interrupted\n")
    assert [f for f in sorted(folder.iterdir()) if f.name != "__pycache__"] == before


def test_much_memory_is_said_before_it_is_taken(
    kinkcheck: Kinkcheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(free: int | None) -> str:
        monkeypatch.setattr("kinkcheck.progress._available", lambda device: free)
        run = kinkcheck("audit", "my_nets.py:Net", "--batches", "1", "--batch-size", "8")
        assert run.code == 0
        return run.err

    line = re.compile(r"kinkcheck: takes about (\S+) kB of memory, and (\S+ \w+) are free(.*)\n")
    short = line.fullmatch(said(1000))
    assert short is not None
    assert short.groups()[1:] == ("1 kB", "; smaller mini-batches take less")
    needed = 1000 * float(short[1])
    # Parameters, at least one gradient a program, and all of that in float64: three times 12 bytes.
    assert needed > 36 * (784 * 10 + 10)
    some = line.fullmatch(said(int(9 * needed)))
    assert some is not None
    assert (some[1], some[3]) == (short[1], "")
    assert said(int(11 * needed)) == said(None) == ""
