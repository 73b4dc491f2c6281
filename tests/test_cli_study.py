"""``kinkcheck study`` as a user meets it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from command_line import Kinkcheck, command, fits, start
from kinkcheck.study import schema, spec
from kinkcheck.study.run import run

SPEC = """
data = "mnist-sample"
train_images = 96
test_images = 32
network = "lenet5"
precision = ["16", "32"]
forward = ["exact", "compound"]
max_pool = ["hybrid:0", "hybrid:1000000"]
seeds = 2
learning_rate = 0.05
epochs = 2
batch_size = 32
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study that is done."""
    folder = tmp_path_factory.mktemp("done") / "s"
    run(spec.parse(SPEC, "my.toml"), folder, threads=1)
    return folder


def test_specs_are_listed_and_printed(kinkcheck: Kinkcheck) -> None:
    listed = kinkcheck("study", "specs")
    assert listed.code == 0
    assert "mnist-lenet5-small" in listed.text
    assert fits(listed.out)
    printed = kinkcheck("study", "specs", "smoke")
    assert 'network = "lenet5"' in printed.out
    assert kinkcheck("study", "specs", "smok").code == 2


def test_a_check_trains_nothing(kinkcheck: Kinkcheck) -> None:
    found = kinkcheck("study", "check", "smoke")
    assert found.code == 0
    assert "4 trials, 192 steps: about" in found.text
    assert "MB of disk" in found.text
    assert fits(found.out)


def test_a_check_warns_of_adam_at_float16(kinkcheck: Kinkcheck, folder: Path) -> None:
    (folder / "my.toml").write_text('extends = "smoke"\noptimizer = "adam"')
    found = kinkcheck("study", "check", "my.toml")
    assert found.code == 0
    assert found.err.startswith("kinkcheck: warning: optimizer = 'adam' at float16: Adam's epsilon")


def test_the_table_says_means_runs_and_diverged(kinkcheck: Kinkcheck, done: Path) -> None:
    shown = kinkcheck("study", "table", done)
    assert shown.code == 0
    assert fits(shown.out)
    lines = [line.split() for line in shown.out.splitlines()]
    assert lines[0] == ["precision", "forward", "max", "pool", "test", "accuracy", "%", "runs",
                        "diverged", "left"]  # fmt: skip
    assert "±: one standard deviation between runs (n − 1)" in shown.text
    (broken,) = [line for line in lines if line[:3] == ["float16", "compound", "hybrid:1e+06"]]
    assert broken[3:] == ["--", "2", "2", "--"]
    (sound,) = [line for line in lines if line[:3] == ["float32", "exact", "hybrid:0"]]
    assert sound[4] == "±"
    assert sound[6:] == ["2", "--", "--"]


def test_drawn_rates_tell_no_configurations_apart(kinkcheck: Kinkcheck, folder: Path) -> None:
    drawn = SPEC.replace("0.05", "{ low = 0.01, high = 0.1 }").replace("epochs = 2", "epochs = 1")
    (folder / "my.toml").write_text(drawn)
    shown = kinkcheck("study", "run", "my.toml", "--out", "s")
    assert shown.code == 0
    header, *rows = shown.out.splitlines()[:9]
    assert "rate" not in header.split()
    assert len(rows) == 8
    assert all(row.split()[-3] == "2" for row in rows)


def test_the_status_of_a_study_that_is_done(kinkcheck: Kinkcheck, done: Path) -> None:
    shown = kinkcheck("study", "status", done)
    assert "finished" in shown.out
    assert "diverged" in shown.out
    assert shown.out.endswith("All trials are done.\n")


def test_exports_read_back(kinkcheck: Kinkcheck, done: Path, folder: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(kinkcheck("study", "export", done).out)))
    assert len({row["trial"] for row in rows}) < 16  # some diverged before their first epoch
    assert "seconds" not in rows[0]
    timed = kinkcheck("study", "export", done, "--timing")
    assert "seconds" in timed.out.splitlines()[0]
    document = json.loads(kinkcheck("study", "export", done, "--format", "json").out)
    assert (document["schema"], document["table"]) == ("kinkcheck.study/1", "epochs")
    for row, also in zip(rows, document["rows"], strict=True):
        assert float(row["train_loss"]) == also["train_loss"]
    assert kinkcheck("study", "export", done, "--format", "parquet", "--out", "e.parquet").code == 0
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(folder / "e.parquet").to_pylist() == document["rows"]


@pytest.mark.parametrize("name", ["study.db", "e.csv", "checkpoints/e.csv", "../link"])
def test_an_export_leaves_the_study_alone(
    kinkcheck: Kinkcheck, done: Path, folder: Path, name: str
) -> None:
    shutil.copytree(done, folder / "s")
    (folder / "link").symlink_to("s/study.db")
    before = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    told = kinkcheck("study", "export", "s", "--out", f"s/{name}")
    complaint = f"--out: s/{name} is in the folder that is read; name another"
    assert (told.code, told.out, told.err) == (2, "", f"kinkcheck: {complaint}\n")
    assert {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")} == before


def test_a_table_without_rows_has_its_columns(
    kinkcheck: Kinkcheck, done: Path, folder: Path
) -> None:
    distances = ("study", "export", done, "--table", "distances")
    assert kinkcheck(*distances).out.startswith("trial,epoch,network,max_pool,l1,")
    assert kinkcheck(*distances, "--format", "parquet", "--out", "d.parquet").code == 0
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(folder / "d.parquet").column_names[:2] == ["trial", "epoch"]
    found = kinkcheck("study", "export", done, "--table", "trials")
    trials = list(csv.DictReader(io.StringIO(found.out)))
    assert len(trials) == 16
    assert {row["diverged_layer"] for row in trials if row["state"] == "diverged"} >= {"features.2"}


@pytest.mark.slow
def test_a_process_of_its_own_finds_the_same(
    kinkcheck: Kinkcheck, done: Path, folder: Path
) -> None:
    (folder / "my.toml").write_text(SPEC)
    ran = command("study", "run", "my.toml", "--out", "again")
    assert ran.returncode == 0, ran.stderr
    assert "16 trials, 0 of them done" in ran.stderr
    assert "[16/16] lenet5 float32 compound hybrid:1e+06 seed 1: " in ran.stderr
    assert "diverged at step 0 in features.2" in ran.stderr
    assert "of 16 runs finished" in ran.stdout
    for table in ("epochs", "trials", "ties"):
        found = [
            kinkcheck("study", "export", study, "--table", table).out for study in (done, "again")
        ]
        assert found[0] == found[1] != ""


def test_plots_that_cannot_be_written_are_named(
    kinkcheck: Kinkcheck, done: Path, folder: Path
) -> None:
    (folder / "plots").mkdir()
    os.mkfifo(folder / "plots" / "loss.svg")
    shown = kinkcheck("study", "plot", done, "--out", "plots", "--format", "svg")
    assert (shown.code, shown.out) == (2, "")
    assert shown.err == (
        "kinkcheck: --out: plots/loss.svg cannot be written: it is a pipe, not a file\n"
    )


@pytest.mark.slow
def test_plots_are_drawn(kinkcheck: Kinkcheck, done: Path, folder: Path) -> None:
    shown = kinkcheck("study", "plot", done, "--out", "plots")
    assert shown.code == 0
    names = [f"{name}.{form}" for name in ("accuracy", "loss") for form in ("png", "svg", "pdf")]
    assert shown.out.split() == [f"plots/{name}" for name in names]
    picture = (folder / "plots" / "accuracy.svg").read_text()
    assert "n = 2" in picture
    assert "2 diverged" in picture
    first = {name: (folder / "plots" / name).read_bytes() for name in names}
    kinkcheck("study", "plot", done, "--out", "plots", "--format", "svg", "pdf")
    for name in names:
        assert (folder / "plots" / name).read_bytes() == first[name]
    assert (folder / "plots" / "loss.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_plots_are_written_though_nobody_reads_their_names(done: Path, tmp_path: Path) -> None:
    program = "from kinkcheck.cli import main; main()"
    read, written = os.pipe()
    os.close(read)
    out = tmp_path / "plots"
    with open(written, "w") as closed:
        shown = subprocess.run(
            [
                sys.executable,
                "-c",
                program,
                "study",
                "plot",
                str(done),
                "--out",
                str(out),
                "--format",
                "svg",
            ],
            stdout=closed,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},  # else it is met only at the very end
            text=True,
            check=False,
        )
    assert len(list(out.iterdir())) == 2
    assert "cannot be written" not in shown.stderr


def test_a_weight_divergence_has_its_own_figure(kinkcheck: Kinkcheck, folder: Path) -> None:
    (folder / "d.toml").write_text(
        'extends = "vgg11-weight-divergence-small"\ndata = "mnist-sample"\nnetwork = "lenet5"\n'
        "train_images = 64\ntest_images = 32\nepochs = 2\n"
    )
    assert kinkcheck("study", "run", "d.toml", "--out", "d").code == 0
    shown = kinkcheck("study", "plot", "d", "--out", "plots", "--format", "svg")
    assert shown.out.split() == ["plots/divergence.svg"]
    assert "β" in (folder / "plots" / "divergence.svg").read_text()
    found = kinkcheck("study", "export", "d", "--table", "distances", "--format", "json")
    assert found.code == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ("run", "smok", "--out", "s"),
            "unknown spec 'smok'; did you mean 'smoke'? accepted: ",
        ),
        (("run", "no.toml", "--out", "s"), "no.toml cannot be read: No such file or directory"),
        (("run", "wrong.toml", "--out", "s"), "wrong.toml: unknown key 'epoch'; did you mean"),
        (("run", "smoke", "--out", "my_nets.py"), "my_nets.py cannot be written: "),
        (("run", "smoke", "--out", "s", "--device", "abacus"), "device 'abacus' cannot be used"),
        (("run", "smoke"), "Missing option '--out'"),
        (("run", "smoke", "--out", "s", "--threads", "0"), "--threads must be at least 1, not 0"),
        (("run",), "Missing argument 'SPEC'"),
        (("check", "smoke", "--device", "abacus"), "device 'abacus' cannot be used"),
        (("table", "."), ". holds no study: there is no study.db in it"),
        (("status", "nowhere"), "nowhere holds no study: there is no study.db in it"),
        (
            ("export", ".", "--format", "xml"),
            "--format: unknown format 'xml'; accepted: csv, ",
        ),
        (
            ("export", ".", "--table", "runs"),
            "--table: unknown table 'runs'; accepted: ",
        ),
        (("export", ".", "--out", "no/e.csv"), "--out: the folder no does not exist"),
        (
            ("plot", ".", "--out", "p", "--format", "gif"),
            "--format: unknown format 'gif'; ",
        ),
    ],
)
def test_bad_input_gets_one_line(
    kinkcheck: Kinkcheck, folder: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    (folder / "wrong.toml").write_text('extends = "smoke"\nepoch = 1')
    found = kinkcheck("study", *arguments)
    assert found.code == 2
    assert found.out == ""
    assert found.err.startswith(f"kinkcheck: {complaint}")
    assert found.err.count("\n") == 1


def test_a_newer_study_is_refused_by_every_reader(
    kinkcheck: Kinkcheck, done: Path, folder: Path
) -> None:
    (folder / "s").mkdir()
    (folder / "s" / schema.FILE).write_bytes((done / schema.FILE).read_bytes())
    with sqlite3.connect(folder / "s" / schema.FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for reader in (("status",), ("table",), ("export",), ("plot", "--out", "p")):
        found = kinkcheck("study", reader[0], "s", *reader[1:])
        assert found.code == 2
        assert "was written by a newer kinkcheck (tables 99;" in found.err


def test_a_trial_that_fails_costs_the_exit_code(kinkcheck: Kinkcheck, folder: Path) -> None:
    (folder / "fails.toml").write_text(
        'extends = "smoke"\nnetwork = "my_nets.py:Failing"\nmax_pool = "native"\nprecision = "32"\n'
    )
    (folder / "fails.toml").write_text(
        'data = "mnist-sample"\nnetwork = "my_nets.py:Failing"\nseeds = 1\nepochs = 1\n'
        "learning_rate = 0.1\n"
    )
    found = kinkcheck("study", "run", "fails.toml", "--out", "s")
    assert found.code == 1
    assert "failed: ValueError: first second" in found.err
    assert "1 trials failed, among them my_nets.py:Failing float32 seed 0" in found.err
    shown = kinkcheck("study", "status", "s")
    assert "failed: ValueError: first second" in shown.text
    assert kinkcheck("study", "plot", "s", "--out", "plots", "--format", "svg").code == 0


def test_an_interrupted_study_says_how_to_go_on(folder: Path) -> None:
    (folder / "my.toml").write_text(SPEC.replace("epochs = 2", "epochs = 2000"))
    process = start("study", "run", "my.toml", "--out", "s")
    wait_for_epochs(folder / "s", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith(
        "kinkcheck: stopped; the same command goes on from here\nkinkcheck: interrupted\n"
    )


@pytest.mark.slow
def test_a_second_process_is_refused_and_readers_are_not(
    kinkcheck: Kinkcheck, folder: Path
) -> None:
    (folder / "my.toml").write_text(SPEC.replace("epochs = 2", "epochs = 2000"))
    process = start("study", "run", "my.toml", "--out", "s")
    try:
        wait_for_epochs(folder / "s", process)
        second = kinkcheck("study", "run", "my.toml", "--out", "s")
        assert second.code == 2
        assert f"s is being written by process {process.pid} on " in second.err
        shown = kinkcheck("study", "status", "s")
        assert f"Process {process.pid} is at it." in shown.out
        assert "running" in shown.out
        assert kinkcheck("study", "table", "s").code == 0
    finally:
        process.kill()
        process.communicate(timeout=60)
    shown = kinkcheck("study", "status", "s")
    assert shown.out.endswith("No process is at it; start kinkcheck study run again to go on.\n")


def wait_for_epochs(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any((folder / "checkpoints").glob("*.pt")):
            return
        time.sleep(0.05)
    pytest.fail(f"no epoch came: {process.communicate()}")


def test_a_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from kinkcheck.cli.watching import watching
    from kinkcheck.terminal import Terminal

    screen = io.StringIO()
    console = Terminal(file=screen, force_terminal=True, width=100)
    declared = spec.parse(SPEC, "my.toml")
    with watching(console) as watcher:
        run(declared, tmp_path / "s", threads=1, watcher=watcher)
    text = screen.getvalue()
    assert "lenet5 float16 hybrid:0 seed 0" in text
    assert "diverged at step 0 in features.2" in text
    assert "%" in text


def test_the_bar_counts_trials_and_names_what_they_are_judged_by(tmp_path: Path) -> None:
    from rich.progress import Progress

    from kinkcheck.cli.watching import Bars
    from kinkcheck.study.job import Outcome, Record
    from kinkcheck.study.settings import Settings
    from kinkcheck.terminal import Terminal

    bars = Progress(console=Terminal(file=io.StringIO()))
    said: list[str] = []

    class Told(Bars):
        def epoch(self, settings: Settings, record: Record) -> None:
            super().epoch(settings, record)
            said.append(bars.tasks[-1].fields["told"])

        def ended(self, settings: Settings, outcome: Outcome) -> None:
            super().ended(settings, outcome)
            said.append(bars.tasks[0].fields["told"])

    declared = SPEC.replace('["16", "32"]', '"32"').replace('["exact", "compound"]', '"exact"')
    declared = declared.replace("seeds = 2", "seeds = 1").replace("epochs = 2", "epochs = 1")
    run(spec.parse(declared, "my.toml"), tmp_path / "s", threads=1, watcher=Told(bars))
    epochs, ends = said[::2], said[1::2]
    assert ends == ["1 of 2 trials done", "2 of 2 trials done"]
    assert all(re.fullmatch(r"epoch 1 of 1, test accuracy \d+\.\d\d %", text) for text in epochs)
    # Started again, it goes on from what is done.
    again = Told(bars)
    run(spec.parse(declared, "my.toml"), tmp_path / "s", threads=1, watcher=again)
    assert bars.tasks[-1].fields["told"] == "2 of 2 trials done"


def test_panels_of_one_quantity_share_an_axis_and_say_of_how_many_runs(done: Path) -> None:
    from kinkcheck.report import study_plots
    from kinkcheck.study.reading import reading

    with reading(done) as study:
        drawn = {name: figure() for name, figure in study_plots.figures(study).items()}
    assert drawn.keys() == {"accuracy", "loss"}
    for name, figure in drawn.items():
        first, *others = figure.axes
        assert len(others) == 3
        assert all(first.get_shared_y_axes().joined(first, each) for each in others)
        assert figure.get_supxlabel().startswith("Dots: " if name == "accuracy" else "Line: ")
    ticks = [label.get_text() for label in drawn["accuracy"].axes[0].get_xticklabels()]
    assert ticks == ["0\nn = 2", "1e+06\nn = 0\n2 diverged"]
    legend = drawn["loss"].axes[0].get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["0, n = 2", "1e+06, 2 diverged"]
    # Loss of one panel stays within a power of ten, whose numbers between are named.
    axes = drawn["loss"].axes[0]
    formatter = axes.yaxis.get_minor_formatter()
    assert formatter(2.0, 0) == "2"


def test_lines_are_few(kinkcheck: Kinkcheck, folder: Path, monkeypatch: Any) -> None:
    (folder / "my.toml").write_text(SPEC)
    found = kinkcheck("study", "run", "my.toml", "--out", "s")
    assert found.code == 0
    assert len(found.err.splitlines()) <= 1 + 2 * 16
    assert not any(line.startswith(" ") for line in found.err.splitlines())
