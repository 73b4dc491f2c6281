"""A monitored training is the training that it would have been; what is recorded is right."""

from __future__ import annotations

import csv
import json
import math
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import kinkcheck
from kinkcheck import InputError
from kinkcheck.measure.variation import gradient_variation
from kinkcheck.monitor import Monitor, Record
from kinkcheck.monitor.lines import appender


class Net(nn.Module):
    """Everything that a measurement could disturb: statistics, dropout, draws of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.3)
        )
        self.block = nn.Sequential(nn.Linear(100, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.head = nn.utils.parametrizations.spectral_norm(nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        noise = random.random() + np.random.rand()
        x = self.features(x + noise * 1e-3).flatten(1)
        # Recomputed in the backward pass, where it updates the statistics a second time.
        return self.head(checkpoint(self.block, x, use_reentrant=False))


def batches(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(1)
    for _ in range(count):
        # A few levels of grey, so that windows are tied.
        x = torch.randint(3, (6, 1, 12, 12), generator=draws).float()
        yield x, torch.randint(3, (6,), generator=draws)


def seed_everything() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def train(
    monitored: Callable[[nn.Module], Callable[[Tensor, Tensor], object]] | None,
    precision: torch.dtype | None = None,
) -> dict[str, Any]:
    """Everything that a training leaves behind, with a measurement at four places of each step."""
    seed_everything()
    model = Net()
    model.features[1].eval()
    step = monitored(model) if monitored else lambda x, y: None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses, gradients = [], []
    for x, y in batches(5):
        autocast = torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None)
        optimizer.zero_grad()
        with autocast:
            step(x, y)
            loss = F.cross_entropy(model(x), y)
            step(x, y)
        loss.backward()
        gradients += [p.grad.clone() for p in model.parameters() if p.grad is not None]
        with autocast:
            step(x, y)
        optimizer.step()
        with autocast:
            step(x, y)
        losses.append(loss.detach())
    return {
        "losses": losses,
        "gradients": gradients,
        "state": model.state_dict(),
        "grad": [p.grad for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "buffers": [len(module._buffers) for module in model.modules()],
        "draws": (torch.rand(3), np.random.rand(), random.random()),
    }


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize(("probe", "standing"), [(False, False), (True, False), (False, True)])
def test_a_monitored_training_is_the_same_bit_for_bit(
    probe: bool, standing: bool, precision: torch.dtype | None, tmp_path: Path
) -> None:
    monitors = []

    def monitored(model: nn.Module) -> Callable[[Tensor, Tensor], object]:
        monitors.append(
            Monitor(
                model,
                F.cross_entropy,
                every=2,
                standing=standing,
                probe=next(batches(1)) if probe else None,
                file=tmp_path / "records.jsonl",
            )
        )
        return monitors[0].step

    torch.testing.assert_close(train(monitored, precision), train(None, precision), rtol=0, atol=0)
    (monitor,) = monitors
    assert [record.step for record in monitor.records] == list(range(0, 20, 2))
    assert monitor.standings.total() == (10 if standing else 0)
    assert all(math.isfinite(record.loss) for record in monitor.records)


def test_a_record_says_what_the_run_does() -> None:
    seed_everything()
    convolution = nn.Conv2d(1, 4, 3)
    convolution.weight.data.mul_(8).round_()  # few values, so many ties that are not zeros
    model = nn.Sequential(convolution, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(100, 3))
    x, y = next(batches(1))
    record = Monitor(model, F.cross_entropy, every=7).step(x, y)

    with kinkcheck.record(model) as tape:
        loss = F.cross_entropy(model(x), y)
    native, minimal = (tape.gradient(loss, choose=choose) for choose in ("native", "minimal"))
    assert record is not None
    assert record.loss == loss.item()
    assert record.variation == gradient_variation(minimal, native)
    assert record.variation.l1 > 0
    assert [(ties.layer, ties.operation, ties.windows, ties.tied) for ties in record.ties] == [
        (site.layer, site.operation, site.windows, site.tied) for site in tape.sites
    ]
    loss.backward()
    norm = torch.cat([p.grad.double().flatten() for p in model.parameters()]).norm()  # type: ignore[union-attr]
    assert record.gradient_norm == pytest.approx(norm.item(), rel=1e-12)


def odd(x: Tensor) -> Tensor:
    return F.relu(x) - F.relu(-x)  # x, whose derivative AD says is 0 at 0


# By hand: what the gradient with respect to a weight is at that weight.
KNOWN = [
    (F.relu, 1.0, "derivative", 0),
    (F.relu, 0.0, "limit", 1),
    (lambda x: F.relu(0 * x), 1.0, "derivative", 0),  # a tie at which no branch depends on it
    (torch.abs, 0.0, "subgradient", 1),
    (odd, 0.0, "wrong", 2),
    (odd, 1.0, "derivative", 0),
    (lambda x: x.sign() * x.abs(), 0.0, "undecided", 0),
]


@pytest.mark.parametrize(("function", "weight", "kind", "kinks"), KNOWN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("closed", [False, True])
def test_known_gradients_have_their_standing(
    function: Callable[[Tensor], Tensor], weight: float, kind: str, kinks: int,
    dtype: torch.dtype, closed: bool,
) -> None:  # fmt: skip
    model = nn.Linear(1, 1, bias=False, dtype=dtype)
    nn.init.constant_(model.weight, weight)
    x = torch.ones(1, 1, dtype=dtype)
    monitor = Monitor(model, lambda out, _: function(out).sum(), every=1, standing=True)
    steps = monitor.step, lambda x: monitor.step_closure(lambda: function(model(x)).sum())
    record = steps[closed](x)
    assert record is not None
    assert record.standing is not None
    assert (record.standing.kind, record.standing.kinks) == (kind, kinks)
    assert monitor.standings == {kind: 1}
    scalars = record.scalars()
    shown = {name: value for name, value in scalars.items() if name.startswith("standing/")}
    assert shown.pop("standing/kinks") == kinks
    assert {name: value for name, value in shown.items() if value} == {f"standing/{kind}": 1.0}
    assert len(shown) == 5
    assert (model.weight.dtype, model.weight.item(), x.dtype) == (dtype, weight, dtype)


def test_what_rounding_alone_ties_is_told_by_the_lift() -> None:
    """1 + 2⁻²⁴ is 1 in float32: a tie of two functions, of which over the reals one is larger."""
    model = nn.ParameterDict({"a": torch.ones(1), "b": torch.ones(1)})

    def loss() -> Tensor:
        return torch.maximum(model["a"] + 2.0**-24, 1.0 * model["b"]).sum()

    record = Monitor(model, every=1, standing=True).step_closure(loss)
    assert record is not None
    assert record.ties[0].tied == 1
    assert record.standing is not None
    assert (record.standing.kind, record.standing.lifted, record.standing.ties) == (
        "derivative", True, 0,
    )  # fmt: skip


def test_a_distributed_training_is_never_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
    monitor = Monitor(model, F.mse_loss, every=1, standing=True)
    kinds = []
    for weight in (1.0, 0.0):
        nn.init.constant_(model[0].weight, weight)  # type: ignore[arg-type]
        record = monitor.step(torch.ones(1, 1), torch.ones(1, 1))
        assert record is not None
        assert record.standing is not None
        kinds.append((record.standing.kind.value, record.standing.why is None))
    assert kinds == [("derivative", True), ("undecided", False)]


def test_the_gradient_is_that_of_the_run_under_autocast() -> None:
    seed_everything()
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = next(batches(1))
    monitor = Monitor(model, F.cross_entropy)
    with torch.autocast("cpu", torch.bfloat16):
        record = monitor.step(x, y)
        loss = F.cross_entropy(model(x), y)
    loss.backward()
    norms = torch.stack([p.grad.double().norm() for p in model.parameters()])  # type: ignore[union-attr]
    assert record is not None
    assert record.gradient_norm == pytest.approx(norms.norm().item(), rel=1e-12)


def test_selections_are_those_that_are_asked_for() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    monitor = Monitor(model, F.mse_loss, selections=("branch:0", "branch:1"), every=1)
    assert monitor.step(torch.zeros(1, 2), torch.ones(1, 2)).variation.l1 == 0  # type: ignore[union-attr]
    nn.init.ones_(model[0].weight)  # type: ignore[arg-type]
    found = monitor.step(torch.tensor([[1.0, -1.0]]), torch.ones(1, 2))
    assert found is not None
    assert found.variation.l1 == 4.0
    assert found.variation.relative_l1 == math.inf


def test_gradients_may_be_off_where_it_is_called() -> None:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        record = Monitor(model, F.mse_loss).step(torch.ones(1, 2), torch.zeros(1, 1))
        assert not torch.is_grad_enabled()
    assert record is not None
    assert record.gradient_norm > 0


def test_a_closure_computes_any_loss() -> None:
    model = nn.Linear(2, 1)
    calls = []

    def closure() -> Tensor:
        calls.append(1)
        return model(torch.ones(1, 2)).sum()

    monitor = Monitor(model, every=3)
    assert [monitor.step_closure(closure) is None for _ in range(4)] == [False, True, True, False]
    assert len(calls) == 2


@pytest.mark.parametrize("probe", [False, True])
def test_a_step_takes_batches_of_any_kind(probe: bool) -> None:
    """The record is that of plain PyTorch on the same loss, which holds a penalty."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    weight = model[0].weight

    def step(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        lengths = [model(part).square().mean() for part in batch["ragged"]]
        return torch.stack(lengths).sum() + weight.square().sum()

    batch = {"ragged": [torch.rand(n, 3) for n in (1, 4)], "name": "first"}
    monitor = Monitor(model, step=step, every=2, probe=batch if probe else None)
    given = () if probe else (batch,)
    record, none = monitor.step(*given), monitor.step(*given)
    assert none is None
    assert record is not None
    loss = step(model, batch)
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    norm = torch.cat([g.double().flatten() for g in gradient]).norm().item()
    assert record.loss == loss.item()
    assert record.gradient_norm == pytest.approx(norm, rel=1e-12)
    assert [(ties.layer, ties.call, ties.windows) for ties in record.ties] == [
        ("1", 0, 4), ("1", 1, 16),
    ]  # fmt: skip


def test_a_pair_may_be_given_as_one() -> None:
    model = nn.Linear(3, 1)
    x, y = torch.rand(2, 3), torch.rand(2, 1)
    monitors = [Monitor(model, F.mse_loss, every=1) for _ in range(2)]
    monitors.append(Monitor(model, step=lambda m, b: F.mse_loss(m(b[0]), b[1]), every=1))
    records = [monitors[0].step(x, y), monitors[1].step([x, y]), monitors[2].step(x, y)]
    assert records[0] == records[1] == records[2]


def test_an_interrupted_run_goes_on_counting() -> None:
    monitor = Monitor(nn.Linear(2, 1), F.mse_loss, every=10)
    monitor.steps = 19
    batch = torch.ones(1, 2), torch.zeros(1, 1)
    assert monitor.step(*batch) is None
    assert monitor.step(*batch).step == 20  # type: ignore[union-attr]


def test_compiled_modules_are_measured_inside_and_stay_compiled() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    compiled = torch.compile(model, backend="eager")
    monitor = Monitor(compiled, F.mse_loss, every=1)  # type: ignore[arg-type]
    assert monitor.model is model
    batch = torch.ones(1, 2), torch.zeros(1, 2)
    F.mse_loss(compiled(batch[0]), batch[1]).backward()
    with torch.compiler.set_stance("fail_on_recompile"):
        for _ in range(2):
            assert monitor.step(*batch).ties[0].operation == "relu"  # type: ignore[union-attr]
            F.mse_loss(compiled(batch[0]), batch[1]).backward()


def some_records(path: Path, values: list[float], start: int = 0) -> list[Record]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
    seen: list[Record] = []
    monitor = Monitor(model, F.mse_loss, every=1, file=path, on_record=seen.append)
    monitor.steps = start
    for value in values:
        monitor.step(torch.full((1, 1), value), torch.zeros(1, 2))
    assert seen == monitor.records
    return seen


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    records = some_records(path, [0.5, math.nan]) + some_records(path, [0.25], start=2)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert lines[0]["loss"] == records[0].loss
    assert lines[1]["loss"] == "nan"
    assert lines[1]["variation"]["l1"] == "nan"
    assert lines[2]["ties"] == [
        {"layer": "1", "operation": "relu", "call": 0, "windows": 2, "tied": 0}
    ]


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "records.csv"
    records = some_records(path, [0.5, math.nan]) + some_records(path, [0.25], start=2)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert [float(row["loss"]) for row in (rows[0], rows[2])] == [records[0].loss, records[2].loss]
    assert rows[1]["loss"] == "nan"
    assert set(rows[0]) == {"step", *records[0].scalars()}


def test_a_csv_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.csv"
    path.write_text("step,loss\n0,1.0\n")
    with pytest.raises(InputError, match=r"file: .*records.csv has other columns; name another"):
        some_records(path, [0.5])
    assert path.read_text() == "step,loss\n0,1.0\n"


def test_a_row_that_was_cut_short_is_no_part_of_the_next_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A number that lost its last digits would be another number."""
    path = tmp_path / "records.csv"
    some_records(path, [0.5, 0.25])
    header, first, second = path.read_bytes().splitlines(keepends=True)
    content = header + first + second
    for cut in range(0, len(content), 5):
        path.write_bytes(content[:cut])
        some_records(path, [0.25], start=1)
        whole = content[: content.rfind(b"\n", 0, cut) + 1]
        assert path.read_bytes() == (whole or header) + second
    assert f"the last line of {path} was cut short, and is removed" in caplog.text


def test_a_line_that_was_cut_short_stays_a_line_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "records.jsonl"
    for before in ('{"step": 0, "lo', '{"mine": 1}'):
        path.write_text(before)
        some_records(path, [0.25], start=1)
        there, added = path.read_text().splitlines()
        assert (there, json.loads(added)["step"]) == (before, 1)
    assert f"the last line of {path} was cut short" in caplog.text


@pytest.mark.parametrize("mine", ["step,loss\n0,1.0\n1,0.9", "name,value"])
def test_a_csv_of_somebody_elses_is_left_as_it_is(tmp_path: Path, mine: str) -> None:
    path = tmp_path / "notes.csv"
    path.write_text(mine)
    with pytest.raises(InputError, match="has other columns"):
        some_records(path, [0.5])
    assert path.read_text() == mine


def test_a_full_disk_does_not_end_the_training(tmp_path: Path) -> None:
    """The system lets no file grow beyond a size: the second record is written by half."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "records.jsonl"
    some_records(path, [0.5])
    whole = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, limits[1]))
    try:
        with pytest.warns(UserWarning, match=r"records.jsonl cannot be written: File too large"):
            assert len(some_records(path, [0.25], start=1)) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.stat().st_size == len(whole) + 20
    some_records(path, [0.25], start=1)
    first, half, second = path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in (first, second)] == [0, 1]
    assert len(half) == 20


def test_a_csv_whose_first_write_failed_gets_its_header_with_the_second(tmp_path: Path) -> None:
    (record,) = some_records(tmp_path / "other.csv", [0.5])
    path = tmp_path / "later" / "records.csv"
    path.parent.mkdir()
    add = appender(path)
    path.parent.rmdir()
    with pytest.raises(FileNotFoundError):
        add(record)
    path.parent.mkdir()
    add(record)
    assert path.read_text() == (tmp_path / "other.csv").read_text()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.csv", b"my notes"),
        ("table.csv", b"a,b\n1,2"),
        ("latin.csv", "\u00e9,b\n1,2\n".encode("latin1")),
        ("long.csv", b"x" * 200_000 + b"\n"),
    ],
)
def test_a_file_of_something_else_is_left_as_it_is(
    name: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"file: .*{name} .*; name another file"):
        some_records(path, [0.5])
    assert path.read_bytes() == content


def test_a_pipe_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"records\.jsonl cannot be written: it is a pipe"):
        some_records(path, [0.5])
    (record,) = some_records(tmp_path / "other.jsonl", [0.5])
    for suffix in ("jsonl", "csv"):
        path = tmp_path / f"begun.{suffix}"
        add = appender(path)
        os.mkfifo(path)
        with pytest.raises(OSError, match="it is a pipe"):
            add(record)


def test_a_csv_that_is_taken_away_in_a_training_gets_its_header_again(tmp_path: Path) -> None:
    (record,) = some_records(tmp_path / "other.csv", [0.5])
    path = tmp_path / "records.csv"
    add = appender(path)
    for _ in range(2):
        add(record)
        path.replace(tmp_path / "rotated.csv")
    add(record)
    assert path.read_bytes() == (tmp_path / "other.csv").read_bytes()
    path.write_text("a,b\n1,2\n")
    with pytest.raises(
        OSError, match="it has other columns now"
    ):  # which is no more than a warning
        add(record)
    assert path.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize("name", ["層", 'a,"b"', "two\nlines", "half\ud800"])
def test_a_csv_takes_any_name_of_a_layer_wherever_it_was_cut(name: str, tmp_path: Path) -> None:
    (record,) = some_records(tmp_path / "other.jsonl", [0.5])
    record = replace(record, ties=(replace(record.ties[0], layer=name),))
    path = tmp_path / "records.csv"
    appender(path)(record)
    content = path.read_bytes()
    for cut in range(0, len(content), 3):
        path.write_bytes(content[:cut])
        appender(path)(record)
        assert path.read_bytes() == content
    with open(path, encoding="utf-8", newline="") as file:
        header, row = csv.reader(file)
    assert header[-1] == "ties/" + name.replace("\ud800", "\\ud800") + ".relu"
    assert len(row) == len(header)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_two_processes_at_one_file_lose_no_record(suffix: str, tmp_path: Path) -> None:
    (record,) = some_records(tmp_path / "other.csv", [0.5])
    path = tmp_path / f"records.{suffix}"
    children = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            add, code = appender(path), 1
            try:
                for step in range(40):
                    add(replace(record, step=100 * number + step))
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    with open(path, newline="") as file:
        rows = map(json.loads, file) if suffix == "jsonl" else csv.DictReader(file)
        steps = sorted(int(row["step"]) for row in rows)
    assert steps == sorted(100 * number + step for number in range(3) for step in range(40))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "every: must be a whole number of at least 1, not 0"),
        ({"every": "a"}, "every: must be a whole number of at least 1, not 'a'"),
        ({"every": 1.5}, "every: must be a whole number of at least 1, not 1.5"),
        ({"selections": ("native",)}, r"selections: must be two, not \('native',\)"),
        ({"selections": "minimal"}, "selections: must be two, not 'minimal'"),
        ({"selections": ("native", "best")}, "unknown selection 'best'"),
        ({"file": "records.txt"}, r"file: records.txt must end in .jsonl or .csv"),
        ({"file": "no/records.csv"}, "file: the folder no does not exist"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Monitor(nn.Linear(1, 1), F.mse_loss, **arguments)


def test_a_loss_may_do_without_targets() -> None:
    model, x = nn.Linear(1, 1), torch.ones(2, 1)
    record = Monitor(model, lambda outputs, _: outputs.square().sum()).step(x)
    assert record is not None
    assert record.loss == model(x).square().sum().item()


def test_bad_steps() -> None:
    with pytest.raises(InputError, match="loss: needed by step"):
        Monitor(nn.Linear(1, 1)).step(torch.ones(1, 1), torch.ones(1, 1))
    with pytest.raises(InputError, match="inputs: needed by step"):
        Monitor(nn.Linear(1, 1), F.mse_loss).step()
    with pytest.raises(InputError, match="step: takes the place of loss; give one of them"):
        Monitor(nn.Linear(1, 1), F.mse_loss, step=lambda m, b: m(b).sum())
    pool = nn.Sequential(nn.Linear(1, 1), nn.MaxPool1d(1))
    monitor = Monitor(pool, F.mse_loss, selections=("native", "branch:1"))
    with pytest.raises(InputError, match="max_pool has no selection branch:1; accepted: native"):
        monitor.step(torch.ones(1, 1), torch.ones(1, 1))
