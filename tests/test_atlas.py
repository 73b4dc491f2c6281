"""The atlas: its probes against PyTorch, and its table against what is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
import torch

from kinkcheck.atlas import PROBES, Probe, Table, column, read, table, writing
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
