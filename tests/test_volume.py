"""Volumes: streaming, going on after a kill, early stopping."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from kinkcheck import data, networks
from kinkcheck.arithmetic.threads import of_threads
from kinkcheck.audit import Point, Variation, audit, volume
from kinkcheck.audit.executor import Inline
from kinkcheck.audit.intervals import clopper_pearson
from kinkcheck.audit.journal import Journal
from kinkcheck.audit.points import Grid, Place
from kinkcheck.audit.volume import Volume, estimate_volume, visiting_order
from kinkcheck.errors import InputError
from kinkcheck.measure.records import Found, Lift
from kinkcheck.measure.zones import PUBLISHED_THRESHOLDS, Zone
from kinkcheck.tape import Unseen

Batch = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def digits() -> list[Batch]:
    """Three batches of four real digits."""
    batches = data.load("mnist-sample").batches(4, seed=0)
    return [next(batches) for _ in range(3)]


lenet = partial(networks.build, "lenet5", in_channels=1, classes=10, image_size=28)


def dropping() -> nn.Module:
    """A network that draws at random in its forward pass too."""
    return nn.Sequential(
        nn.Conv2d(1, 2, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Flatten(),
        nn.Linear(288, 10),
    )  # fmt: skip


def smooth() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def measure(batches: list[Batch], out: Path | None = None, **changes: Any) -> Volume:
    arguments = {"draws": 2, "precisions": ["float16", "float32"], "selections": ["minimal"]}
    network = changes.pop("network", dropping)
    return estimate_volume(network, batches, out=out, **{**arguments, **changes})


# --- what is visited -----------------------------------------------------------------------------


@given(st.integers(1, 12), st.integers(1, 12))
def test_the_order_visits_every_pair_once_and_spreads_every_prefix(m: int, n: int) -> None:
    order = list(visiting_order(m, n))
    assert sorted(order) == [(d, b) for d in range(m) for b in range(n)]
    for k in range(1, m * n + 1):
        for place, size in ((0, m), (1, n)):
            met = [sum(cell[place] == i for cell in order[:k]) for i in range(size)]
            assert max(met) - min(met) <= 1


def test_points_are_those_of_the_audit(digits: list[Batch]) -> None:
    arguments: dict[str, Any] = {"precisions": ["float16", "float32"], "draws": 2, "seed": 3}
    selections = ["minimal", "last"]
    report = audit(dropping, digits, selections=selections, **arguments)
    found = measure(digits, selections=selections, **arguments)

    def keyed(points: list[Point]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        return {
            (p.precision, p.draw, p.batch, p.selection): (p.loss, p.gradient_l1, p.variation)
            for p in points
        }

    assert keyed(found.points) == keyed(report.points)
    assert len(found.points) == 2 * 2 * 3 * 2
    assert any(p.variation.l1 for p in found.points)
    assert (found.visited, found.planned, found.looks) == (6, 6, 1)
    assert [(s.precision, s.selection) for s in found.summaries] == [
        (p, s) for p in ("float16", "float32") for s in selections
    ]


@pytest.mark.parametrize("lifted", [False, True])
def test_zones_alone_are_those_beside_standings(lifted: bool, digits: list[Batch]) -> None:
    arguments: dict[str, Any] = {"precisions": ["float16", "float32"], "lifted": lifted}
    alone = measure(digits, standing=False, **arguments)
    beside = measure(digits, **arguments)
    assert any(point.standing for point in beside.points)
    assert alone.points == [
        replace(point, standing=None, reference_standing=None) for point in beside.points
    ]
    assert "Is the gradient right?" in str(beside)
    assert "Is the gradient right?" not in str(alone)
    assert alone.settings["standing"] is False


def test_points_of_a_step_are_those_of_the_audit_and_of_plain_pytorch() -> None:
    torch.manual_seed(0)
    batches = [{"x": torch.rand(n, 3), "name": "any"} for n in (2, 5)]

    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))

    def step(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        loss: Tensor = model(batch["x"]).relu().square().sum()
        return loss

    arguments: dict[str, Any] = {"step": step, "draws": 2, "precisions": ["float32", "bfloat16"]}
    found = estimate_volume(network, batches, **arguments)
    report = audit(network, batches, lifted=True, **arguments)
    by_place = {(p.precision, p.draw, p.batch): p for p in found.points}
    assert by_place == {(p.precision, p.draw, p.batch): p for p in report.points}
    assert found.settings["loss"] == "step"
    for draw in (0, 1):
        torch.manual_seed(draw)
        model = network()
        for number, batch in enumerate(batches):
            gradient = torch.autograd.grad(step(model, batch), list(model.parameters()))
            norm = sum(each.double().abs().sum().item() for each in gradient)
            assert by_place["float32", draw, number].gradient_l1 == norm


@pytest.mark.parametrize("measured", [estimate_volume, audit])
@pytest.mark.parametrize("batch", [{"x": torch.ones(1)}, torch.ones(2, 1), (torch.ones(2, 1),) * 3])
def test_without_a_step_batches_are_pairs(batch: Any, measured: Any) -> None:
    for loss in (None, nn.functional.mse_loss):
        with pytest.raises(InputError, match=r"^batches: must be a list of pairs of inputs and"):
            measured(nn.Linear(1, 1), [batch], loss=loss)
    with pytest.raises(InputError, match=r"^batches: at least one is needed$"):
        measured(nn.Linear(1, 1), [])


def test_a_function_brings_its_own_batches(digits: list[Batch]) -> None:
    def step(model: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    whole = estimate_volume(lambda: (dropping(), digits, step), draws=2)
    assert whole.points == estimate_volume(dropping, digits, draws=2).points
    for changes, named in (
        ({"batches": digits}, "batches: <lambda> returns its own; leave it out"),
        ({"step": step}, "step: <lambda> returns its own; leave it out"),
        ({"loss": nn.functional.cross_entropy}, "loss: is for batches of inputs and targets"),
    ):
        for measured in (estimate_volume, audit):
            with pytest.raises(InputError, match=named):
                measured(lambda: (dropping(), digits, step), **changes)
    with pytest.raises(InputError, match="loss: is for batches of inputs and targets"):
        audit(dropping, digits, loss=nn.functional.cross_entropy, step=step)


def test_the_threshold_is_held_against_the_published_norm(digits: list[Batch]) -> None:
    found = measure(digits)
    for summary in found.summaries:
        beyond = sum(
            p.variation.linf_by_tensor > PUBLISHED_THRESHOLDS[p.precision]
            for p in found.points
            if p.precision == summary.precision
        )
        assert summary.zones_by_threshold["bifurcation"].count == beyond
        assert summary.zones_by_threshold_left_out == 0


def test_a_module_is_audited_as_it_is(digits: list[Batch]) -> None:
    torch.manual_seed(5)
    network = smooth()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    found = measure(digits, network=network, draws=1)
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert found.summaries[0].zones_by_threshold["agreement"].proportion == 1


def test_progress_counts_points(digits: list[Batch]) -> None:
    calls: list[tuple[int, int]] = []
    measure(digits, on_point=lambda done, total: calls.append((done, total)))
    assert calls == [(k, 12) for k in range(1, 13)]


# --- the file ------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def interrupt(after: int) -> Callable[[int, int], None]:
    def on_point(done: int, total: int) -> None:
        if done == after:
            raise Killed

    return on_point


def test_the_file_holds_settings_and_points(digits: list[Batch], tmp_path: Path) -> None:
    out = tmp_path / "v.jsonl"
    found = measure(digits, out, selections=["minimal", "last"], settings={"batch_size": 4})
    head, *lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert head["schema"] == "kinkcheck.volume/1"
    assert head["settings"] == found.settings
    assert found.settings["batch_size"] == 4
    assert [entry["variation"]["l1"] for line in lines for entry in line["points"]] == [
        point.variation.l1 for point in found.points
    ]
    firsts = [line["points"][0] for line in lines[:3]]
    assert [(first["precision"], first["draw"], first["batch"]) for first in firsts] == [
        ("float16", 0, 0), ("float32", 0, 0), ("float16", 1, 1),
    ]  # fmt: skip
    assert [entry["selection"] for entry in lines[0]["points"]] == ["minimal", "last"]


@pytest.mark.parametrize("after", [1, 2, 5, 11, 12])
def test_an_interrupted_run_goes_on_to_the_same_file(
    after: int, digits: list[Batch], tmp_path: Path
) -> None:
    whole, pieces = tmp_path / "whole.jsonl", tmp_path / "pieces.jsonl"
    expected = measure(digits, whole)
    with pytest.raises(Killed):
        measure(digits, pieces, on_point=interrupt(after))
    assert len(pieces.read_text().splitlines()) == 1 + after
    again = measure(digits, pieces)
    assert pieces.read_bytes() == whole.read_bytes()
    assert again == expected


def test_what_is_in_the_file_is_not_computed_again(digits: list[Batch], tmp_path: Path) -> None:
    built = []

    def counted() -> nn.Module:
        built.append(1)
        return dropping()

    out = tmp_path / "v.jsonl"
    with pytest.raises(Killed):
        measure(digits, out, network=counted, on_point=interrupt(9))
    built.clear()
    measure(digits, out, network=counted)
    # Pairs 5 (its second precision) and 6 are left; draw 0, which is compared with the file's, is
    # the draw of one of them.
    assert len(built) == 2
    built.clear()
    measure(digits, out, network=counted)
    assert len(built) == 1


def test_a_line_that_was_cut_short_is_computed_again(digits: list[Batch], tmp_path: Path) -> None:
    out = tmp_path / "v.jsonl"
    measure(digits, out, network=smooth, draws=1)
    whole = out.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    head = whole.index(b"\n") + 1
    cuts = [1, head // 2, head - 1, head, last, last + 1, (last + len(whole)) // 2, len(whole) - 1]
    for cut in cuts:
        out.write_bytes(whole[:cut])
        measure(digits, out, network=smooth, draws=1)
        assert out.read_bytes() == whole


@pytest.mark.slow
def test_a_killed_process_leaves_every_finished_point(tmp_path: Path) -> None:
    program = """
import os, signal, sys, torch
from pathlib import Path
from torch import nn
from kinkcheck.audit.volume import estimate_volume

def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten())

def on_point(done, total):
    if done == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
batches = [(torch.ones(2, 1, 4, 4), torch.tensor([0, 1]))] * 3
estimate_volume(network, batches, draws=2, out=Path(sys.argv[1]), on_point=on_point)
"""
    out = tmp_path / "v.jsonl"

    def go(kill: int) -> int:
        return subprocess.run([sys.executable, "-c", program, str(out), str(kill)]).returncode

    assert go(4) == -signal.SIGKILL
    assert len(out.read_text().splitlines()) == 1 + 4
    assert go(0) == 0
    assert len(out.read_text().splitlines()) == 1 + 6


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"draws": 1}, "draws 2, not 1"),
        ({"precisions": ["float16"]}, 'precisions ["float16", "float32"], not ["float16"]'),
        ({"selections": ["last"]}, 'selections ["minimal"], not ["last"]'),
        ({"reference": "last"}, 'reference "native", not "last"'),
        ({"operations": ["relu"]}, 'operations null, not ["relu"]'),
        ({"seed": 1}, "seed 0, not 1"),
        ({"data_name": "else"}, 'data "batches", not "else"'),
        ({"network": smooth}, 'network "dropping", not "smooth"'),
        ({"settings": {"init": "kaiming"}}, 'init null, not "kaiming"'),
        ({"network_name": "dropping", "network": smooth}, "parameters of draw 0 "),
    ],
)
def test_other_settings_are_refused_by_name(
    changes: dict[str, Any], named: str, digits: list[Batch], tmp_path: Path
) -> None:
    out = tmp_path / "v.jsonl"
    with pytest.raises(Killed):
        measure(digits, out, on_point=interrupt(1))
    before = out.read_bytes()
    with pytest.raises(InputError) as complaint:
        measure(digits, out, **changes)
    assert f"{out} was written with {named}" in str(complaint.value)
    assert "\n" not in str(complaint.value)
    assert out.read_bytes() == before


def test_another_number_of_threads_is_refused(digits: list[Batch], tmp_path: Path) -> None:
    """Sums are split between threads, and round otherwise."""
    out = tmp_path / "v.jsonl"
    with of_threads(1), pytest.raises(Killed):
        measure(digits, out, on_point=interrupt(1))
    with of_threads(2), pytest.raises(InputError, match="was written with threads 1, not 2"):
        measure(digits, out)


def test_a_file_of_an_earlier_version_goes_on_without_what_it_does_not_say(
    digits: list[Batch], tmp_path: Path
) -> None:
    out = tmp_path / "v.jsonl"
    with pytest.raises(Killed):
        measure(digits, out, on_point=interrupt(1))
    head, *points = map(json.loads, out.read_text().splitlines())
    del head["settings"]["threads"], head["settings"]["standing"], head["digest"]
    out.write_text("".join(json.dumps(line) + "\n" for line in (head, *points)))
    with pytest.raises(InputError, match="was written with standing true, not false"):
        measure(digits, out, standing=False)
    goes_on = measure(digits, out)
    assert goes_on.points == measure(digits).points
    assert not {"threads", "standing"} & set(goes_on.settings)


def test_other_batches_are_refused(digits: list[Batch], tmp_path: Path) -> None:
    out = tmp_path / "v.jsonl"
    with pytest.raises(Killed):
        measure(digits, out, on_point=interrupt(1))
    with pytest.raises(InputError, match="was written with batches 3, not 2"):
        measure(digits[:2], out)
    with pytest.raises(InputError, match="was written with tensors of the batches "):
        measure(digits[::-1], out)


def test_confidence_and_width_do_not_change_points(digits: list[Batch], tmp_path: Path) -> None:
    out = tmp_path / "v.jsonl"
    first = measure(digits, out)
    second = measure(digits, out, confidence=0.5, until_width=0.9)
    assert second.points == first.points[: len(second.points)]
    assert second.summaries[0].confidence == 0.5


def test_settings_without_points_are_written_anew(digits: list[Batch], tmp_path: Path) -> None:
    out = tmp_path / "v.jsonl"
    with pytest.raises(InputError, match="unknown operation"):
        measure(digits, out, operations=["max_poool"])
    assert measure(digits, out, operations=["max_pool"]).visited == 6


@pytest.mark.parametrize(
    "content",
    ["notes\n", "notes", '{"a": 1}\n', '{"a": 1}', "[1]\n", '{"schema": 1}\n', "\n",
     pytest.param("[" * 100_000 + "\n", id="deep")],
)  # fmt: skip
def test_another_file_is_left_alone(content: str, digits: list[Batch], tmp_path: Path) -> None:
    out = tmp_path / "v.jsonl"
    out.write_text(content)
    with pytest.raises(InputError, match="is not a file of points; name another"):
        measure(digits, out)
    assert out.read_text() == content


def test_another_version_of_the_file_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "v.jsonl"
    out.write_text('{"schema": "kinkcheck.volume/9", "settings": {}}\n')
    with pytest.raises(InputError, match=r"has the schema kinkcheck\.volume/9"):
        Journal(out, {})


def test_a_damaged_line_is_named_set_aside_and_measured_again(
    digits: list[Batch], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "v.jsonl"
    measure(digits, out)
    whole = out.read_text()
    lines = whole.splitlines()
    numbered = lines[2].replace('"batch": ', '"batch": 1', 1)
    for damage in ("{", '[{"precision": "float16"}]', "[[", "7", numbered, f"{lines[2]}{lines[2]}"):
        damaged = "\n".join([*lines[:2], damage, *lines[3:]]) + "\n"
        out.write_text(damaged)
        caplog.clear()
        measure(digits, out)
        assert out.read_text() == whole
        (said,) = caplog.messages
        assert re.match(r"kinkcheck: line 3 of .*v.jsonl is damaged; it lies in ", said)
        aside = Path(said.partition(" lies in ")[2].partition(" now")[0])
        assert aside.read_text() == damaged


def test_points_behind_a_damaged_line_are_not_measured_again(
    digits: list[Batch], tmp_path: Path
) -> None:
    out = tmp_path / "v.jsonl"
    measure(digits, out)
    head, first, second, *rest = out.read_text().splitlines(keepends=True)
    out.write_text("".join([head, first, second[:40], second[41:], *rest]))
    again: list[int] = []

    class Counting(Inline):
        def measure(self, grid: Grid, places: Sequence[Place]) -> Generator[Found]:
            again.append(len(places))
            return super().measure(grid, places)

    measure(digits, out, executor=Counting())
    assert again == [1]
    assert out.read_text() == "".join([head, first, second, *rest])


@pytest.mark.parametrize("order", [(1, 0), (0, 0), (0, 1, 2, 3, 4, 5, 5), (3,)])
def test_lines_that_are_not_of_their_points_are_refused(
    order: tuple[int, ...], digits: list[Batch], tmp_path: Path
) -> None:
    out = tmp_path / "v.jsonl"
    measure(digits, out, network=smooth, draws=1)
    head, *lines = out.read_text().splitlines(keepends=True)
    assert len(lines) == 6
    out.write_text("".join([head, *(lines[each] for each in order)]))
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"line \d of .* is not the point that belongs there"):
        measure(digits, out, network=smooth, draws=1)
    assert out.read_bytes() == before


def test_a_second_writer_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    out = tmp_path / "v.jsonl"
    with Journal(out, {"seed": 0}) as journal:
        before = out.read_bytes()
        with pytest.raises(InputError, match=f"is being written by process {os.getpid()} on "):
            Journal(out, {"seed": 0})
        with pytest.raises(InputError, match=f"is being written by process {os.getpid()} on "):
            Journal(out, {"seed": 1})
        assert out.read_bytes() == before
        journal.append(Found([], [], [], []))
    with Journal(out, {"seed": 0}) as journal:
        assert len(journal.found) == 1


def test_a_folder_is_refused(digits: list[Batch], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"out: .* cannot be written"):
        measure(digits, tmp_path)


def test_every_field_of_a_point_comes_back(tmp_path: Path) -> None:
    plain = Point("float32", 1, 2, "last", 0.1, 1 / 3, Variation(1e-300, 0.1, 2.0, 3.0, math.inf))
    full = replace(
        plain,
        zone=Zone.UNDECIDED,
        zone_by_threshold=Zone.NON_FINITE,
        lift=Lift("exact", 0.0, 0.0, 0.0, 0.1, math.inf),
        noise=Variation(0.0, 0.0, 0.0, 0.0, 0.0),
        non_finite_layer="features.2",
    )
    with Journal(tmp_path / "j", {"a": (1, 2)}) as journal:
        journal.append(Found([plain, full], [], [Unseen("a", "abs", "why", 2)], ["noise"]))
        broken = replace(plain, loss=math.nan, gradient_l1=-math.inf)
        journal.append(Found([broken], [], [], []))
    text = (tmp_path / "j").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    with Journal(tmp_path / "j", {"a": (1, 2)}) as journal:
        first, second = journal.found
    assert first.points == [plain, full]
    assert (first.unseen, first.left_out) == ([Unseen("a", "abs", "why", 2)], ["noise"])
    (third,) = second.points
    assert json.loads(text.splitlines()[2]).keys() == {"points", "digest"}
    assert math.isnan(third.loss)
    assert third.gradient_l1 == -math.inf


# --- early stopping ------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "visited"), [(0.5, 8), (0.3, 16), (0.2, 32), (0.12, 40)])
def test_it_stops_at_the_first_look_that_is_narrow(width: float, visited: int) -> None:
    # No kink, so every point agrees: the limit of n of n is known in closed form.
    batches = [(torch.ones(1, 28, 28), torch.tensor([0]))] * 40
    found = estimate_volume(smooth, batches, until_width=width)
    assert found.looks == 4  # after 8, 16, 32 and 40
    assert (found.visited, found.planned) == (visited, 40)
    (summary,) = found.summaries
    tail = 0.05 / 4 / 2
    reach = 1 - tail ** (1 / visited)
    assert summary.zones_by_threshold["agreement"].interval == pytest.approx((1 - reach, 1))
    assert summary.zones_by_threshold["bifurcation"].interval == pytest.approx((0, reach))
    assert summary.confidence == 0.95
    assert reach <= width or visited == 40


def test_crossed_points_are_also_looked_at_before_anything_is_met_twice() -> None:
    batches = [(torch.ones(1, 28, 28), torch.tensor([0]))] * 10
    found = estimate_volume(smooth, batches, draws=20, until_width=0.46)
    assert (found.visited, found.planned) == (10, 200)
    assert found.looks == 7  # after 8, 10, 16, 32, 64, 128 and 200
    assert found.summaries[0].interval_method == "Clopper-Pearson"


@pytest.mark.parametrize("p", [0.02, 0.1, 0.3, 0.5, 0.77])
@pytest.mark.parametrize("width", [0.15, 0.3, 0.6])
def test_intervals_hold_whenever_it_stops(p: float, width: float) -> None:
    # Exactly: the probability of every count at every look that is reached, by dynamic programming.
    looks = volume._looks(1, 200)
    confidence = 1 - 0.05 / len(looks)
    reached, covered = {0: 1.0}, 0.0
    for n in range(1, 201):
        step: dict[int, float] = {}
        for count, mass in reached.items():
            step[count] = step.get(count, 0) + mass * (1 - p)
            step[count + 1] = step.get(count + 1, 0) + mass * p
        reached = step
        for count in list(reached) if n in looks else ():
            interval = clopper_pearson(count, n, confidence)
            if interval.width <= width or n == 200:
                mass = reached.pop(count)
                covered += mass if interval.interval[0] <= p <= interval.interval[1] else 0
    assert not reached
    assert covered >= 0.95


def test_only_the_zones_asked_for_have_to_be_narrow(digits: list[Batch]) -> None:
    batches = [digits[k % 3] for k in range(20)]
    arguments: dict[str, Any] = {"network": dropping, "draws": 1, "precisions": ["float16"]}
    whole = measure(batches, **arguments)
    assert whole.summaries[0].zones_by_threshold["undecided"].count == 0
    # After 8 of 8 points elsewhere: 1 - (0.05 / 3 / 2)^(1/8) = 0.45.
    found = measure(batches, until_width=0.46, until_zones=[Zone.UNDECIDED], **arguments)
    assert found.visited == 8


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"draws": 0}, "draws: must be at least 1, not 0"),
        ({"network": nn.Linear(1, 1)}, "draws: 2 parameter draws need a function"),
        ({"until_width": 0}, "until_width: must be between 0 and 1, not 0"),
        ({"until_width": 1.5}, "until_width: must be between 0 and 1, not 1.5"),
        (
            {"until_width": 0.05},
            "until_width: 0.05 is out of reach with 2 draws and . mini-batches",
        ),
        ({"confidence": 95}, "confidence must be between 0 and 1"),
        ({"precisions": []}, "precisions: at least one is needed"),
        ({"precisions": "32"}, "precisions: must be a list, not '32'"),
        ({"precisions": ["8"]}, "unknown precision '8'"),
        ({"selections": ["most"]}, "unknown selection 'most'"),
        ({"selections": []}, "selections: at least one is needed"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
    ],
)
def test_refused(
    changes: dict[str, Any], complaint: str, digits: list[Batch], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=complaint):
        measure(digits, tmp_path / "v.jsonl", **changes)
    assert not (tmp_path / "v.jsonl").exists()


def test_no_batches_are_refused() -> None:
    with pytest.raises(InputError, match="batches: at least one is needed"):
        measure([])


def test_a_failing_network_names_its_draw_and_batch(digits: list[Batch]) -> None:
    broken = [digits[0], (digits[1][0][:, :, :9], digits[1][1])]
    with pytest.raises(InputError, match=r"failed on a batch of shape .* draw 1, batch 1\)"):
        measure(broken)
