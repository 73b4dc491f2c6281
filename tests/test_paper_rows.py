"""Rows of experiments in files: what is written is read, what does not fit is refused."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from kinkcheck.errors import InputError
from kinkcheck.files import Claim
from kinkcheck.paper.harness.experiment import Experiment, Setup
from kinkcheck.paper.harness.parts import kept
from kinkcheck.paper.harness.rows import decoded
from kinkcheck.paper.harness.running import read, run


@dataclass(frozen=True)
class Final:
    """The end of something."""

    name: str
    count: int
    right: bool
    value: float
    level: float | None
    setting: str | int | bool
    note: str | None = None


@dataclass(frozen=True)
class Step:
    """A step on the way."""

    name: str
    step: int
    loss: float


finals = st.builds(
    Final, name=st.text(), count=st.integers(), right=st.booleans(), value=st.floats(),
    level=st.none() | st.floats(), setting=st.text() | st.integers() | st.booleans(),
    note=st.none() | st.text(),
)  # fmt: skip
steps = st.builds(Step, name=st.text(), step=st.integers(), loss=st.floats())


def experiment(rows: Sequence[Final | Step]) -> Experiment[Final | Step]:
    return Experiment(
        name="tiny", source="", shows="", cost="", cost_reduced="", reduced_cannot="",
        row=Final | Step, measure=lambda setup: list(rows), draw=lambda rows: Figure(),
    )  # fmt: skip


@given(st.lists(finals | steps))
def test_rows_survive_a_file(rows: list[Final | Step]) -> None:
    text = json.dumps([asdict(row) for row in rows])
    found = decoded(Final | Step, json.loads(text), "x.json")
    # As text: NaN is not equal to itself, and −0.0, 0 and False are.
    assert repr(found) == repr(rows)


SAID = [
    Final("β = 10⁴", 3, True, math.nan, None, 64),
    Final("x\n", -1, False, -math.inf, math.inf, "64", "ü"),
    Step("", 0, -0.0),
]


def test_rows_survive_a_run(tmp_path: Path) -> None:
    numbers = run(experiment(SAID), tmp_path, Setup(tmp_path / "work"))
    again = read(experiment([]), tmp_path)
    assert repr(again) == repr(numbers)
    assert repr(again.rows) == repr(SAID)
    assert len((tmp_path / "tiny.csv").read_text("utf-8").splitlines()) == 1 + len(SAID) + 1
    # What is there is drawn, not measured again.
    assert repr(run(experiment([]), tmp_path, Setup(tmp_path / "work")).rows) == repr(SAID)


def test_rows_survive_a_part(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    for _ in range(2):
        found = kept(setup, "one, two", Final | Step, lambda: list(SAID))
        assert repr(found) == repr(SAID)


def test_a_part_that_was_measured_otherwise_is_refused(tmp_path: Path) -> None:
    kept(Setup(tmp_path, device="cuda"), "one", Final, lambda: [])
    with pytest.raises(InputError, match=r"one.json .*device cuda.*delete it"):
        kept(Setup(tmp_path), "one", Final, lambda: [])


@pytest.mark.parametrize("content", ["", "[]", "[[", '{"device": "cpu"}', "0.75"])
def test_a_part_that_is_damaged_is_set_aside_and_measured_again(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "one.json"
    rows = [Final("a", 1, True, 0.5, None, 64)]
    kept(Setup(tmp_path), "one", Final, lambda: rows)
    whole = path.read_text("utf-8")
    damaged = whole.replace("0.5", content) if content == "0.75" else content
    path.write_text(damaged, "utf-8")
    assert kept(Setup(tmp_path), "one", Final, lambda: rows) == rows
    assert path.read_text("utf-8") == whole
    assert (tmp_path / "one.json.damaged").read_text("utf-8") == damaged
    assert caplog.messages == [
        f"kinkcheck: {path} is damaged; it lies in {path}.damaged now, and is computed again"
    ]


def test_parts_whose_rows_do_not_fit_are_refused(tmp_path: Path) -> None:
    kept(Setup(tmp_path), "one", Step, lambda: [Step("a", 1, 0.5)])
    with pytest.raises(InputError, match=r"one.json, row 1.*delete it to measure that part again"):
        kept(Setup(tmp_path), "one", Final, lambda: [])


WRONG: dict[str, Any] = {
    "name": 3, "count": 0.5, "right": 1, "value": "0.5", "level": True, "setting": 0.5, "note": 1,
}  # fmt: skip


@given(st.lists(finals, min_size=1, max_size=4), st.data())
def test_what_does_not_fit_is_named(rows: list[Final], drawn: st.DataObject) -> None:
    content = [asdict(row) for row in rows]
    at = drawn.draw(st.integers(0, len(rows) - 1))
    column = drawn.draw(st.sampled_from(sorted(WRONG)))
    content[at][column] = WRONG[column]
    with pytest.raises(InputError) as caught:
        decoded(Final | Step, content, "out/tiny.json")
    said = str(caught.value)
    assert said.startswith(f"out/tiny.json, row {at + 1}, column {column}: ")
    assert "\n" not in said


def test_columns_that_are_missing_or_too_many_are_named() -> None:
    whole = asdict(SAID[0])
    assert decoded(Final, [{k: v for k, v in whole.items() if k != "note"}], "x")[0].note is None
    for column in set(whole) - {"note"}:
        with pytest.raises(InputError, match=f"^x, row 1, column {column}: missing$"):
            decoded(Final, [{k: v for k, v in whole.items() if k != column}], "x")
    with pytest.raises(InputError, match=r"^x, row 2: unknown column 'levels'; .*'level'"):
        decoded(Final, [whole, {**whole, "levels": 1.0}], "x")
    for content in ({}, None, "rows", [[]], [None]):
        with pytest.raises(InputError, match=r"^x"):
            decoded(Final, content, "x")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "schema"),
        ('{"schema": "kinkcheck.paper/2", "rows": []}', "schema"),
        ('{"schema": "kinkcheck.paper/1", "rows": []}', "experiment"),
        ('{"schema": "kinkcheck.paper/1", "experiment": "tiny"}', "rows"),
        ('{"schema": "kinkcheck.paper/1", "experiment": "tiny", "rows": 3}', "rows"),
    ],
)
def test_files_that_hold_no_numbers_are_refused(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(content, "utf-8")
    with pytest.raises(InputError, match=said) as caught:
        run(experiment([]), tmp_path, Setup(tmp_path / "work"))
    assert str(caught.value).startswith(f"{tmp_path / 'tiny.json'}")
    assert "\n" not in str(caught.value)


def test_numbers_that_are_damaged_are_named_and_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    run(experiment(SAID), tmp_path, Setup(tmp_path / "work"))
    whole = path.read_text("utf-8")
    for number, damaged in enumerate((whole.replace("64", "65", 1), whole[:-9]), start=1):
        path.write_text(damaged, "utf-8")
        with pytest.raises(InputError, match=f"^{path} is damaged"):
            read(experiment([]), tmp_path)
        run(experiment(SAID), tmp_path, Setup(tmp_path / "work"))
        assert path.read_text("utf-8") == whole
        aside = path.with_name(f"tiny.json.damaged{'-2' if number == 2 else ''}")
        assert aside.read_text("utf-8") == damaged


def test_numbers_of_another_experiment_are_refused_whole_as_they_are(tmp_path: Path) -> None:
    """Several experiments have rows of one kind."""
    run(experiment(SAID), tmp_path, Setup(tmp_path / "work"))
    other = replace(experiment(SAID), name="other")
    (tmp_path / "tiny.json").rename(tmp_path / "other.json")
    with pytest.raises(InputError, match=r"other\.json holds the numbers of tiny, not of other"):
        read(other, tmp_path)
    with pytest.raises(InputError, match=r"other\.json holds the numbers of tiny, not of other"):
        run(other, tmp_path, Setup(tmp_path / "work"))


def test_two_runs_into_one_folder_are_refused(tmp_path: Path) -> None:
    with Claim(tmp_path / "tiny.json"), pytest.raises(InputError) as caught:
        run(experiment(SAID), tmp_path, Setup(tmp_path / "work"))
    assert f"is being written by process {os.getpid()} on " in str(caught.value)


@pytest.mark.parametrize("form", ["json", "csv", "svg"])
def test_files_that_cannot_be_written_are_named_before_the_work(form: str, tmp_path: Path) -> None:
    def measure(setup: Setup) -> list[Final | Step]:
        pytest.fail("it was measured")

    unmeasured = replace(experiment([]), measure=measure)
    file = tmp_path / f"tiny.{form}"
    file.mkdir()
    with pytest.raises(InputError, match=rf"^out: .*tiny\.{form} is a folder, not a file$"):
        run(unmeasured, tmp_path, Setup(tmp_path / "work"))
    file.rmdir()
    os.mkfifo(file)
    with pytest.raises(InputError, match=rf"^out: .*tiny\.{form} cannot be written: it is a pipe"):
        run(unmeasured, tmp_path, Setup(tmp_path / "work"))
