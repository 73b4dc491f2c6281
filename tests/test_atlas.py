"""The atlas: its probes against PyTorch, and its table against what is known."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

from command_line import Kinkcheck, fits
from kinkcheck import atlas
from kinkcheck.atlas import PROBES, Probe, Table, adapters, column, read, table, writing
from kinkcheck.atlas.adapters import FRAMEWORKS
from kinkcheck.atlas.answers import word
from kinkcheck.atlas.clarke import LIES, lies, weights
from kinkcheck.atlas.probes import ANSWERED_BY
from kinkcheck.ops.table import ROWS

BY_NAME = {probe.name: probe for probe in PROBES}


@pytest.fixture(scope="module")
def stored() -> Table:
    return read()


def test_every_row_has_probes() -> None:
    probed = {probe.operation for probe in PROBES}
    assert {row.name for row in ROWS} - probed == set(ANSWERED_BY)
    assert set(ANSWERED_BY.values()) <= probed
    assert probed <= {row.name for row in ROWS}


def test_the_file_is_what_its_parts_write(stored: Table) -> None:
    text = table.FILE.read_text(encoding="utf-8")
    assert list(stored.probes.values()) == list(PROBES)
    assert writing.document(json.loads(text)["columns"]) == text


def test_the_installed_pytorch_is_as_its_column_says(stored: Table) -> None:
    measured = table.Column.of(column("torch", compiled=False))
    if measured.name not in stored.columns:
        pytest.skip(f"the table has no {measured.name}")
    of_it = stored.columns[measured.name]
    assert measured.found.keys() == of_it.found.keys()
    for name, found in measured.found.items():
        eager = tuple(each for each in of_it.found[name].differs if not each.compiled)
        assert (found.derivative, found.lies, found.error, found.value) == (
            of_it.found[name].derivative, of_it.found[name].lies,
            of_it.found[name].error, of_it.found[name].value,
        ), name  # fmt: skip
        assert found.differs == eager, name


def test_where_each_derivative_lies_follows_from_the_probe(stored: Table) -> None:
    for of_it in stored.columns.values():
        for name, found in of_it.found.items():
            for each in (found, *found.differs):
                dtype = each.dtype or of_it.dtypes[0]
                if not each.error:
                    said = lies(stored.probes[name], each.derivative, dtype, each.elsewhere)
                    assert each.lies == said, (of_it.name, name)
                    assert set(said) <= set(LIES)


def test_slopes_are_one_sided_quotients_of_the_values() -> None:
    from kinkcheck.atlas.adapters.torch import Torch

    step = 2.0**-20
    for probe in PROBES:
        if probe.shape != "Sides" or len(probe.places) != 1 or "quantize" in probe.operation:
            continue
        call = Torch.calls[probe.call].function
        x, *others = (torch.tensor(each, dtype=torch.float64) for each in probe.inputs)
        there = call(x, *others, **probe.settings)
        left = (there - call(x - step, *others, **probe.settings)) / step
        right = (call(x + step, *others, **probe.settings) - there) / step
        assert there.item() == probe.value, probe.name
        slopes = [left.item(), right.item()]
        assert slopes == pytest.approx([s for (s,) in probe.branches], abs=1e-5), probe.name


def test_entries_that_tie_are_those_that_move_the_value() -> None:
    """Each alone moves it one way, by as much as its branch says."""
    from kinkcheck.atlas.adapters.torch import Torch

    for probe in PROBES:
        if probe.shape != "Picks" or probe.operation in RANKED or probe.name in HELD:
            continue
        for branch in probe.branches:
            moves = [_moved(Torch.calls, probe, branch, sign * 2.0**-10) for sign in (1, -1)]
            size = sum(slope * slope for slope in branch)
            assert size in [move / 2.0**-10 for move in (moves[0], -moves[1])], probe.name


# Of these the output may stay when one entry moves: another takes its place.
RANKED = ("sort", "msort", "topk", "kthvalue", "median", "nanmedian", "mode")
HELD = ("clamp_between: tie of 3",)


def _moved(calls: Any, probe: Probe, direction: Sequence[float], step: float) -> float:
    tensors = [torch.tensor(each, dtype=torch.float64) for each in probe.inputs]
    for (input, place), slope in zip(probe.places, direction, strict=True):
        tensors[input].view(-1)[place] += step * slope
    output = calls[probe.call].function(*tensors, **probe.settings)
    return output.reshape(-1)[probe.output].item() - probe.value


def test_an_environment_needs_the_framework_and_numpy_alone() -> None:
    others = ["torch", "pydantic", "typer", "rich", "scipy", "matplotlib", "jinja2"]
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({others}))\n"
        "import kinkcheck.atlas.measuring, kinkcheck.atlas.answers\n"
        "import kinkcheck.atlas.adapters.adapter\n"
    )
    source = str(Path(table.__file__).parents[2])
    subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": source}, check=True)


def test_each_framework_has_its_adapter_and_its_column(stored: Table) -> None:
    folder = Path(adapters.__file__).parent
    assert {file.stem for file in folder.glob("*.py")} == {"__init__", "adapter", *FRAMEWORKS}
    assert {each.framework for each in stored.columns.values()} == set(FRAMEWORKS)


@pytest.mark.parametrize(
    ("name", "derivative", "expected"),
    [
        ("relu: at 0", [0.5], ("inside",)),
        ("relu: at 0", [1.0], ("branch",)),
        ("abs: at 0", [0.0], ("minimal",)),
        ("clamp, no room between the bounds: at 1", [1.0], ("outside",)),
        ("clamp, no room between the bounds: at 1", [0.0], ("minimal", "branch")),
        ("maximum: tie of 2", [0.5, 0.5], ("minimal",)),
        ("maximum: tie of 2", [0.75, 0.25], ("inside",)),
        ("maximum: tie of 2", [1.0, 1.0], ("outside",)),
        ("maximum: tie of 2", [0.0, 0.0], ("outside",)),
        ("maximum: tie of 2", [1.5, -0.5], ("outside",)),
        ("norm_inf: tie of 2", [0.5, -0.5], ("minimal",)),
        ("norm_inf: tie of 2", [0.5, 0.5], ("outside",)),
        ("norm: zero", [0.6, 0.8], ("branch",)),
        ("norm: zero", [0.6, 0.6], ("inside",)),
        ("norm: zero", [1.0, 1.0], ("outside",)),
        ("norm: zero", [float("nan"), 0.0], ("nan",)),
        ("dist: zero", [0.6, 0.6, -0.6, -0.6], ("inside",)),
        ("dist: zero", [0.6, 0.6, 0.6, 0.6], ("outside",)),
        ("norm_inf: zero", [0.5, 0.5], ("inside",)),
        ("norm_inf: zero", [0.0, -1.0], ("branch",)),
        ("std: zero", [0.5, -0.5, 0.0], ("branch",)),
        ("std: zero", [0.5, 0.5, 0.0], ("outside",)),
    ],
)
def test_where_a_derivative_lies(
    name: str, derivative: list[float], expected: tuple[str, ...]
) -> None:
    assert lies(BY_NAME[name], derivative, "float64") == expected


def test_weights_give_the_derivative_back() -> None:
    third = float(Fraction(1, 3))
    assert weights(BY_NAME["hardswish: at 3"], [1.25]) == (0.5, 0.5)
    assert weights(BY_NAME["cdist_inf: tie of 2"], [1.0, -1.0, -1.0, 1.0]) == (1.0, 1.0)
    assert weights(BY_NAME["amax: tie of 3"], [third] * 3) == (third,) * 3
    assert weights(BY_NAME["cdist_inf: tie of 2"], [1.0, -1.0, 1.0, 1.0]) is None


# --- what the columns hold ----------------------------------------------------------------------

TORCH = ("torch-2.6", "torch-2.9", "torch-2.13", "torch-2.14", "torch-2.15")
OTHERS = ("jax", "tensorflow", "mlx", "tinygrad", "autograd", "pytensor", "paddle", "casadi")


# Measured by hand before, with a few lines in each framework.
@pytest.mark.parametrize(
    ("probe", "columns", "returned"),
    [
        ("relu: at 0", (*TORCH, "jax", "tensorflow", "mlx", "tinygrad", "paddle"), "0"),
        ("maximum: tie of 2", (*TORCH, "jax", "autograd"), "shared"),
        ("maximum: tie of 2", ("tensorflow",), "first"),
        ("maximum: tie of 2", ("mlx",), "last"),
        ("clamp: at 1", TORCH[:3], "1"),
        ("clamp: at 1", TORCH[3:], "0"),
        ("clamp: at 1", ("jax",), "0.5"),
        ("clamp: at 1", ("tensorflow",), "1"),
        ("clamp: at 1", ("mlx",), "0"),
        ("abs: at 0", (*TORCH, "tensorflow"), "0"),
        ("abs: at 0", ("jax",), "1"),
        ("leaky_relu: at 0", TORCH, "0.25"),
        ("leaky_relu: at 0", ("jax",), "1"),
        ("max_pool2d: tie of 3", (*TORCH, "jax", "tensorflow"), "first"),
        ("max_pool2d: tie of 3", ("mlx", "tinygrad"), "shared"),
        ("norm: zero", TORCH, "0"),
        ("norm: zero", ("jax", "tensorflow", "mlx"), "nan"),
        ("cdist_inf: tie of 2", TORCH, "each 1"),
        ("hardswish: at 3", ("torch-2.6",), "1.5"),
        ("hardswish: at 3", TORCH[1:], "1"),
        ("fmax: tie of 2", TORCH[:3], "first"),
        ("fmax: tie of 2", TORCH[3:], "shared"),
    ],
)
def test_what_is_known(stored: Table, probe: str, columns: Sequence[str], returned: str) -> None:
    for name in columns:
        assert word(stored.probes[probe], stored.column(name).found[probe]) == returned, name


def test_what_lies_outside(stored: Table) -> None:
    for name, probe in (
        ("torch-2.13", "cdist_inf: tie of 2"),
        ("torch-2.13", "clamp, no room between the bounds: at 1"),
        ("pytensor", "max, of all entries: tie of 2"),  # Theano's issue 4568
        ("mlx", "prelu: at 0"),
        ("tensorflow", "prelu: at 0"),  # relu(x) - slope * relu(-x)
    ):
        assert stored.column(name).found[probe].lies == ("outside",), name


def test_a_column_names_its_own_spelling_and_what_it_lacks(stored: Table) -> None:
    jax = stored.column("jax")
    assert jax.calls["clamp"] == "jax.numpy.clip"
    assert "cdist" in jax.lacks
    assert "cdist_inf: tie of 2" not in jax.found
    assert stored.weights("jax", "cdist_inf") == {
        "tie of 2": None, "tie of 3": None, "tie of 4": None, "zero": None,
    }  # fmt: skip
    for of_it in stored.columns.values():
        assert f"=={of_it.version}" in of_it.install
        assert {stored.probes[name].call for name in of_it.found} == set(of_it.calls)


def test_unknown_forms_are_named(stored: Table) -> None:
    with pytest.raises(atlas.table.InputError, match="unknown form of max ''; accepted: of all"):
        stored.weights("jax", "max")


def test_an_older_program_refuses_a_newer_file(tmp_path: Any) -> None:
    newer = tmp_path / "newer.json"
    newer.write_text('{"schema": 2, "probes": [], "columns": []}')
    with pytest.raises(atlas.table.InputError, match="has schema 2; this version reads up to 1"):
        read(newer)


def test_the_page_is_what_the_table_says(stored: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).resolve().parent.parent
    monkeypatch.chdir(root)
    spec = spec_from_file_location("atlas_page", root / "tools" / "atlas_page.py")
    assert spec is not None
    assert spec.loader is not None
    writer = module_from_spec(spec)
    spec.loader.exec_module(writer)
    written = (root / "docs" / "atlas.md").read_text(encoding="utf-8")
    assert writer.page(stored) == written
    # Whatever is in the table is on the page.
    for probe in stored.probes.values():
        section = written.split(f"### {probe.operation}\n")[1].split("\n#")[0]
        for of_it in stored.columns.values():
            if probe.name in of_it.found:
                assert f"| {word(probe, of_it.found[probe.name])} |" in section
                assert of_it.calls[probe.call] in section


# --- the command --------------------------------------------------------------------------------


def test_the_table_of_an_operation(kinkcheck: Kinkcheck) -> None:
    run = kinkcheck("atlas", "--operation", "clamp")
    assert (run.code, run.err) == (0, "")
    assert fits(run.out)
    first = run.out.split("clamp, no room")[0].split("at 1")[0]
    lines = [line.split() for line in first.splitlines()]
    assert ["clamp"] in lines
    assert ["0.5", "inside", "jax"] in lines
    assert any(line[2:4] == ["1", "branch"] and "torch-2.6" in line for line in lines)
    assert "0 minimal, branch torch-2.14 to 2.15," in " ".join(first.split())


def test_one_framework_at_one_kind_of_kink(kinkcheck: Kinkcheck) -> None:
    run = kinkcheck("atlas", "--framework", "tensorflow", "--kink", "zero")
    assert run.code == 0
    assert [line.split() for line in run.out.splitlines()][:2] == [["norm"], ["zero", "nan", "nan"]]
    assert "tie" not in run.out


def test_without_options_the_frameworks_are_counted(kinkcheck: Kinkcheck, stored: Table) -> None:
    run = kinkcheck("atlas")
    assert fits(run.out)
    heads, *rows = (line.split() for line in run.out.split("\n\n")[0].splitlines())
    assert [row[:2] for row in rows] == [
        [each.framework, each.version] for each in stored.columns.values()
    ]
    outside = heads.index("outside")
    for row, each in zip(rows, stored.columns.values(), strict=True):
        assert int(row[outside]) == sum(f.lies == ("outside",) for f in each.found.values())


def test_versions_are_compared(kinkcheck: Kinkcheck) -> None:
    run = kinkcheck("atlas", "diff", "torch-2.13", "torch-2.14")
    assert run.code == 0
    assert fits(run.out)
    lines = [line.split() for line in run.out.splitlines()]
    assert lines[0] == ["operation", "where", "torch-2.13", "torch-2.14"]
    assert ["clamp", "at", "-1,", "1", "1", "0"] in lines
    assert kinkcheck("atlas", "diff", "torch-2.14", "torch-2.15").text == (
        "torch-2.14 and torch-2.15 return the same wherever both were measured."
    )


@pytest.mark.parametrize(("version", "column_of"), [("1.0.0", "oldest"), ("99.0.0", "newest")])
def test_a_version_without_a_column_is_compared_with_the_nearest(
    version: str, column_of: str, kinkcheck: Kinkcheck, monkeypatch: pytest.MonkeyPatch,
    stored: Table,
) -> None:  # fmt: skip
    of_torch = [each for each in stored.columns.values() if each.framework == "torch"]
    known = (min if column_of == "oldest" else max)(of_torch, key=lambda each: each.numbers)
    (fields,) = (
        each
        for each in json.loads(table.FILE.read_text(encoding="utf-8"))["columns"]
        if (each["framework"], each["version"]) == ("torch", known.version)
    )
    monkeypatch.setattr(
        "kinkcheck.atlas.measuring.column", lambda *_: {**fields, "version": version}
    )
    run = kinkcheck("atlas", "run", "torch")
    assert (run.code, run.text) == (
        0, f"torch {version} is as {known.name} says (the table has no torch-{version[:-2]}).",
    )  # fmt: skip


def test_what_is_installed_is_compared_with_its_column(
    kinkcheck: Kinkcheck, monkeypatch: pytest.MonkeyPatch, stored: Table
) -> None:
    version = torch.__version__.partition("+")[0]
    name = "torch-" + ".".join(version.split(".")[:2])
    if name not in stored.columns:
        pytest.skip(f"the table has no {name}")
    run = kinkcheck("atlas", "run", "torch")
    assert (run.code, run.out) == (0, f"torch {version} is as {name} says.\n")

    measured = column

    def altered(*arguments: Any) -> dict[str, Any]:
        fields = measured(*arguments)
        fields["found"]["relu: at 0"] = {"derivative": [1.0], "lies": ["branch"]}
        return fields

    monkeypatch.setattr("kinkcheck.atlas.measuring.column", altered)
    run = kinkcheck("atlas", "run", "torch")
    assert run.code == 1
    assert run.text.startswith(f"torch {version} departs from {name}:")
    assert ["relu", "at", "0", "1", "0"] in [line.split() for line in run.out.splitlines()]
