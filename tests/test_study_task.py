"""Studies of any task: a regression, a text classifier, and what a user may get wrong."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kinkcheck
from command_line import Kinkcheck, fits
from kinkcheck.errors import InputError
from kinkcheck.named import load_named
from kinkcheck.study import Metric, Task, export, search, spec, trial
from kinkcheck.study.criteria import ACCURACY, Criterion
from kinkcheck.study.executor import Inline
from kinkcheck.study.feed import SampleFeed
from kinkcheck.study.job import EpochEnd, Event, Job, Outcome
from kinkcheck.study.reading import reading
from kinkcheck.study.run import Silent, run
from kinkcheck.study.search import BelowMedian, Candidate
from kinkcheck.study.settings import Factory, Search, Settings
from kinkcheck.study.streams import stream

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

ERROR = Criterion("error", larger_is_better=False)

REGRESSION = """
precision = ["16", "32"]
seeds = 1
learning_rate = 0.02
epochs = 3
batch_size = 64
[selections]
relu = ["branch:0", "branch:1"]
[task]
factory = "regression_task.py:Cars"
arguments = { width = 8 }
"""
TEXT = """
seeds = 1
optimizer = "adam"
learning_rate = 0.002
epochs = 2
batch_size = 16
selections.max_pool = "native"
[task]
factory = "text_task.py:Novels"
arguments = { layers = 1 }
"""

# A task in a file of its own, for what is wrong with one.
MINE = """
import torch
from torch import nn
from kinkcheck.study import Metric, Task

class Mine(Task):
    metrics = [Metric("error", lambda each: each.abs().mean(), larger_is_better=False)]
    def __init__(self):
        x = torch.linspace(-1, 1, 32)[:, None]
        self.train = list(zip(x, x.abs()))
        self.test = self.train[::4]
    def network(self):
        return nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))
    def step(self, model, batch):
        x, y = batch
        error = model(x) - y
        return error.square().mean(), error
"""
OF_MINE = """
seeds = 1
learning_rate = 0.05
epochs = 2
batch_size = 8
[task]
factory = "mine.py:Mine"
"""


def declared(text: str) -> spec.Spec:
    """The spec, as if it lay beside the examples."""
    return spec.parse(text, "s.toml", EXAMPLES)


def job(settings: Settings, **changes: Any) -> Job:
    rate = settings.learning_rate
    assert rate is not None
    return Job(settings.id, settings, rate, None, "cpu", 1, folder=str(EXAMPLES), **changes)


def exports(folder: Path) -> dict[str, bytes]:
    with reading(folder) as study:
        return {t: export.export(study, t, "csv") for t in export.QUERIES if t != "sessions"}


@pytest.fixture
def text(request: pytest.FixtureRequest) -> str:
    """The spec of a study of a shipped task, where its model can be made."""
    spec: str = request.param
    if spec is TEXT:
        pytest.importorskip("transformers", exc_type=ImportError, reason="the example's model")
    return spec


shipped = pytest.mark.parametrize(
    "text",
    [REGRESSION, pytest.param(TEXT, marks=pytest.mark.slow)],
    indirect=True,
    ids=["regression", "text"],
)


class Stop(Exception):  # noqa: N818
    """Ends a run where a test wants it."""


class StopAfter(Silent):
    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def epoch(self, settings: Any, record: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stop


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task of a user's own and its spec, which is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


# --- against plain PyTorch -----------------------------------------------------------------------


def plain_loop(task: Any, settings: Settings) -> Iterator[tuple[nn.Module, float, list[Any]]]:
    """The trial as a page of ordinary PyTorch; after each epoch the loss, and what it was told."""
    dtype = getattr(torch, settings.precision)
    torch.manual_seed(stream(settings.init_seed, "init"))
    network = task.network().to(dtype)
    optimizer: torch.optim.Optimizer
    if settings.optimizer == "adam":
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    else:
        optimizer = torch.optim.SGD(
            network.parameters(), lr=settings.learning_rate, momentum=0.9, weight_decay=5e-4
        )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=settings.epochs)
    samples = [task.train[number] for number in range(len(task.train))]
    for epoch in range(1, settings.epochs + 1):
        network.train()
        torch.manual_seed(stream(settings.seed, "forward", epoch))
        generator = torch.Generator().manual_seed(stream(settings.order_seed, "order", epoch))
        order = torch.randperm(len(samples), generator=generator)
        total, told = 0.0, []
        for chosen in order.split(settings.batch_size):
            batch = cast(torch.utils.data.default_collate([samples[n] for n in chosen]), dtype)
            optimizer.zero_grad()
            half = settings.precision == "float16"
            with kinkcheck.float32_contractions() if half else nullcontext():
                loss, result = task.step(network, batch)
                loss.backward()
            optimizer.step()
            total += loss.item() * len(chosen)
            told.append(result.detach())
        schedule.step()
        yield network, total / len(samples), told


def cast(batch: Any, dtype: torch.dtype) -> Any:
    if isinstance(batch, dict):
        return {name: cast(each, dtype) for name, each in batch.items()}
    if isinstance(batch, list):
        return [cast(each, dtype) for each in batch]
    return batch.to(dtype) if batch.is_floating_point() else batch


@pytest.mark.parametrize("number", [0, 2], ids=["float16", "float32"])
def test_a_regression_is_the_plain_loop_bit_for_bit(number: int) -> None:
    settings = replace(declared(REGRESSION).trials()[number], selections={})
    cars = load_named("regression_task.py:Cars", "task", EXAMPLES)(width=8)
    ends = [event for event in trial.train(job(settings)) if isinstance(event, EpochEnd)]
    plain = list(plain_loop(cars, settings))
    network = plain[-1][0]
    for ended, (_, loss, told) in zip(ends, plain, strict=True):
        assert ended.record.train.loss == loss
        errors = torch.cat(told).double()
        assert ended.record.train.value == errors.square().mean().sqrt().item()
    half = settings.precision == "float16"
    with torch.no_grad(), kinkcheck.float32_contractions() if half else nullcontext():
        x, y = (each.to(getattr(torch, settings.precision)) for each in cars.test[:])
        error = (network.eval()(x) - (y - cars.mean) / cars.std) * cars.std
    assert ends[-1].record.test.value == error.double().square().mean().sqrt().item()
    assert ends[-1].record.test.main == Criterion("rmse", larger_is_better=False)


def test_a_text_classifier_is_the_plain_loop_bit_for_bit() -> None:
    pytest.importorskip("transformers", exc_type=ImportError, reason="the example's model")
    (settings,) = declared(TEXT).trials()
    novels = load_named("text_task.py:Novels", "task", EXAMPLES)(layers=1)
    events = list(trial.train(job(settings)))
    ends = [event for event in events if isinstance(event, EpochEnd)]
    plain = list(plain_loop(novels, settings))
    network = plain[-1][0]
    for ended, (_, loss, told) in zip(ends, plain, strict=True):
        assert ended.record.train.loss == loss
        assert ended.record.train.value == torch.cat(told).double().mean().item()
    with torch.no_grad():
        ids = torch.stack([sample["input_ids"] for sample in novels.test])
        labels = torch.tensor([sample["label"] for sample in novels.test])
        scores = network.eval()(ids)
    assert ends[-1].record.test.value == (scores.argmax(1) == labels).double().mean().item()
    assert ends[-1].record.test.loss == F.cross_entropy(scores, labels).item()
    assert [ties.layer for ties in ends[-1].record.ties] == ["greatest"]


# --- going on ------------------------------------------------------------------------------------


@shipped
def test_a_stopped_study_of_any_task_goes_on(tmp_path: Path, text: str) -> None:
    run(declared(text), tmp_path / "whole", threads=1)
    for _ in range(2):
        with pytest.raises(Stop):
            run(declared(text), tmp_path / "s", threads=1, watcher=StopAfter(1))
    run(declared(text), tmp_path / "s", threads=1)
    assert exports(tmp_path / "s") == exports(tmp_path / "whole")


@pytest.mark.parametrize(
    ("module", "family", "flat", "steep"),
    [
        ("nn.ReLU6()", "hardtanh", "kinks:0,0.9", "kinks:0.25,0.9"),
        ("nn.LeakyReLU(0.5)", "leaky_relu", "branch:-1", "branch:0.5"),
        ("nn.ReLU()", "relu", "branch:0", "uniform:7"),
    ],
)
def test_a_network_that_starts_at_its_kink_leaves_it_by_the_slope_there(
    mine: Path, module: str, family: str, flat: str, steep: str
) -> None:
    old = "return nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))"
    new = (
        f"model = nn.Sequential(nn.Linear(1, 1, bias=False), {module})\n"
        "        nn.init.zeros_(model[0].weight)\n        return model"
    )
    (mine / "mine.py").write_text(MINE.replace(old, new).replace("x.abs()))", "x.relu()))"))
    declared = spec.parse(f'{OF_MINE}[selections]\n{family} = ["{flat}", "{steep}"]\n', "s.toml")
    run(declared, mine / "s", threads=1)
    with reading(mine / "s") as study:
        losses = study.losses()
        chosen = {each.selections[family]: losses[each.trial] for each in study.trials()}
    # (x⁺)² over 32 points from -1 to 1; twice the same, since nothing moves.
    still = sum(max(-1 + 2 * n / 31, 0) ** 2 for n in range(32)) / 32
    assert chosen[flat] == pytest.approx([still, still], rel=1e-6)
    assert chosen[steep][1] < 0.99 * still


def test_what_samples_draw_is_a_stream_of_its_own(mine: Path) -> None:
    """Noise on the inputs is drawn again after a restart, whatever the network draws."""
    noisy = MINE.replace("self.train = list(zip(x, x.abs()))", "self.train = Noisy(x)").replace(
        "self.train[::4]", "list(zip(x, x.abs()))"
    )
    noisy += (
        "\nclass Noisy:\n"
        "    def __init__(self, x): self.x = x\n"
        "    def __len__(self): return len(self.x)\n"
        "    def __getitem__(self, n): return self.x[n] + torch.randn(1), self.x[n].abs()\n"
    )
    (mine / "mine.py").write_text(noisy)
    run(spec.parse(OF_MINE, "s.toml"), mine / "whole", threads=1)
    with pytest.raises(Stop):
        run(spec.parse(OF_MINE, "s.toml"), mine / "s", threads=1, watcher=StopAfter(1))
    run(spec.parse(OF_MINE, "s.toml"), mine / "s", threads=1)
    assert exports(mine / "s") == exports(mine / "whole")

    class Drawing:
        def __len__(self) -> int:
            return 6

        def __getitem__(self, number: int) -> Tensor:
            return torch.rand(())

    def drawn(augment_seed: int, order_seed: int) -> list[float]:
        feed = SampleFeed(Drawing(), torch.stack)
        found = []
        for batch, _ in feed.epoch(4, 1, order_seed, augment_seed):
            torch.rand(3)  # as a network with dropout does
            found += batch.tolist()
        return found

    assert drawn(0, 0) == drawn(0, 1)
    assert drawn(0, 0) != drawn(1, 0)
    assert len(set(drawn(0, 0))) == 6


def test_a_task_that_changed_is_not_gone_on_with(mine: Path) -> None:
    before = spec.parse(OF_MINE, "s.toml").trials()[0].id
    run(spec.parse(OF_MINE, "s.toml"), mine / "s", threads=1)
    kept = exports(mine / "s")
    (mine / "mine.py").write_text(MINE.replace("nn.Linear(1, 8)", "nn.Linear(1,  8)"))
    changed = spec.parse(OF_MINE, "s.toml")
    assert changed.trials()[0].id != before
    with pytest.raises(InputError, match=r"s: task mine.py:Mine has changed since the study began"):
        run(changed, mine / "s", threads=1)
    assert exports(mine / "s") == kept
    # A worker whose file is another does not train it either.
    stale = replace(job(changed.trials()[0]), folder=str(mine))
    (mine / "mine.py").write_text(MINE)
    with pytest.raises(InputError, match=r"the file of mine.py:Mine is not the one that the study"):
        list(trial.train(stale))


def test_arguments_are_part_of_a_trial_and_read_back() -> None:
    (first, *_) = declared(REGRESSION).trials()
    (other, *_) = declared(REGRESSION.replace("width = 8", "width = 9")).trials()
    assert first.id != other.id
    assert Settings.from_json(first.to_json()) == first
    assert isinstance(first.task, Factory)
    assert first.task.arguments == {"width": 8}


def test_a_network_s_file_that_changed_is_not_gone_on_with(mine: Path) -> None:
    text = (
        'data = "mnist-sample"\ntrain_images = 32\ntest_images = 32\nnetwork = "nets.py:net"\n'
        "seeds = 1\nlearning_rate = 0.01\nepochs = 1\n"
    )
    net = "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))"
    (mine / "nets.py").write_text(net)
    run(spec.parse(text, "s.toml"), mine / "s", threads=1)
    (mine / "nets.py").write_text(net + "\n")
    with pytest.raises(InputError, match=r"s: network nets.py:net has changed since the study"):
        run(spec.parse(text, "s.toml"), mine / "s", threads=1)


# --- the metric decides --------------------------------------------------------------------------


@shipped
def test_a_search_picks_what_the_metric_calls_best(tmp_path: Path, text: str) -> None:
    metric, best = ("accuracy", max) if text is TEXT else ("rmse", min)
    text = re.sub("(learning_rate|precision) = .*", "", text)
    text += "[search]\ntrials = 6\nepochs = 2\nlow = 1e-4\nhigh = 10.0\n"
    run(declared(text), tmp_path / "s", threads=1)
    with reading(tmp_path / "s") as study:
        trials, tried = study.trials(), study.trials(candidates=True)
        (row,) = study.rows("SELECT * FROM searches")
    assert len(tried) == 6
    values = {
        one.learning_rate: one.value
        for one in tried
        if one.state == "finished" and one.value is not None
    }
    (rate,) = {one.learning_rate for one in trials}
    assert row[f"test_{metric}"] == values[rate] == best(values.values())
    assert len(set(values.values())) > 1  # the others were worse


def test_what_diverged_or_is_no_number_is_the_worst() -> None:
    diverged = Candidate(0.1, "diverged", (0.01,))
    strange = Candidate(0.2, "finished", (math.nan,))
    sound = Candidate(0.3, "finished", (0.1, 5.0))
    assert search.best([diverged, strange, sound], ERROR) == sound
    assert diverged.value(ERROR) == strange.value(ERROR) == math.inf
    assert strange.value(ACCURACY) == 0.0


@pytest.mark.parametrize("values", [(0.9, 0.8), (0.2, 0.1), (0.5, 0.45), (0.41, 0.39)])
def test_stopping_is_optunas_rule_for_the_smaller(values: tuple[float, ...]) -> None:
    earlier = tuple(Candidate(0.01, "finished", (0.3 + 0.1 * n, 0.2 + 0.1 * n)) for n in range(5))
    study = optuna.create_study(direction="minimize", pruner=optuna.pruners.MedianPruner())
    for one in earlier:
        asked = study.ask()
        for epoch, value in enumerate(one.values):
            asked.report(value, epoch)
        study.tell(asked, one.values[-1])
    asked = study.ask()
    stop = BelowMedian(Search(), ERROR, earlier, 0.02)
    for epoch, value in enumerate(values):
        asked.report(value, epoch)
        assert stop(values[: epoch + 1]) == asked.should_prune()


def test_every_reader_speaks_of_the_metric(kinkcheck: Kinkcheck, mine: Path) -> None:
    second = (
        'metrics = [Metric("mean_error", lambda each: each.abs().mean(), larger_is_better=False),'
        ' Metric("within", lambda each: (each.abs() < 0.1).double().mean(), larger_is_better=True,'
        " share=True)]"
    )
    line = next(line for line in MINE.splitlines() if "metrics =" in line)
    (mine / "mine.py").write_text(MINE.replace(line, f"    {second}"))
    (mine / "s.toml").write_text(OF_MINE + '[selections]\nrelu = ["branch:0", "branch:1"]\n')
    checked = kinkcheck("study", "check", "s.toml")
    assert checked.code == 0, checked.err
    assert "2 trials, 16 steps: about" in checked.text
    assert "Measured on the first training samples" in checked.text
    ran = kinkcheck("study", "run", "s.toml", "--out", "s")
    assert ran.code == 0, ran.err
    assert fits(ran.out)
    assert ran.out.splitlines()[0].split() == [
        "ReLU'(0)", "test", "mean", "error", "runs", "diverged", "left",
    ]  # fmt: skip
    assert "mean mean error differs by at most" in ran.text
    rows = list(csv.DictReader(io.StringIO(kinkcheck("study", "export", "s").out)))
    assert list(rows[0]) == [
        "trial", "task", "precision", "optimizer", "forward", "max_pool", "relu", "selections",
        "backward", "seed", "learning_rate", "epoch", "epoch_learning_rate", "train_loss",
        "train_mean_error", "train_within", "test_loss", "test_mean_error", "test_within",
        "gradient_norm",
    ]  # fmt: skip
    assert {row["task"] for row in rows} == {"mine.py:Mine"}
    last = [float(row["test_mean_error"]) for row in rows if row["epoch"] == "2"]
    with reading(mine / "s") as study:
        assert [one.value for one in study.trials()] == last
    assert "All trials are done." in kinkcheck("study", "status", "s").out
    drawn = kinkcheck("study", "plot", "s", "--out", "p", "--format", "svg")
    assert drawn.out.split() == ["p/mean_error.svg", "p/loss.svg"]
    assert "final test mean error" in (mine / "p" / "mean_error.svg").read_text()


@shipped
def test_every_reader_reads_a_shipped_task(kinkcheck: Kinkcheck, folder: Path, text: str) -> None:
    metric, factor = ("accuracy", 100) if text is TEXT else ("rmse", 1)
    run(declared(text), folder / "s", threads=1)
    rows = list(csv.DictReader(io.StringIO(kinkcheck("study", "export", "s").out)))
    epochs = declared(text).epochs
    last = [float(row[f"test_{metric}"]) for row in rows if row["epoch"] == str(epochs)]
    with reading(folder / "s") as study:
        assert [one.value for one in study.trials()] == last
    lines = kinkcheck("study", "table", "s").out.splitlines()
    assert f"test {metric}{' %' * (text is TEXT)}  runs  diverged  left" in lines[0]
    shown = [float(line.split()[-4]) for line in lines[1 : 1 + len(last)]]
    assert shown == pytest.approx([factor * value for value in last], rel=1e-3)
    status = kinkcheck("study", "status", "s").out
    assert status.splitlines()[1].split() == ["finished", str(len(last)), str(len(rows)), "of",
                                              str(len(rows))]  # fmt: skip
    drawn = kinkcheck("study", "plot", "s", "--out", "p", "--format", "svg")
    assert drawn.out.split() == [f"p/{metric}.svg", "p/loss.svg"]
    assert f"final test {metric}" in (folder / "p" / f"{metric}.svg").read_text()


def test_networks_that_start_equal_may_have_any_task(mine: Path, kinkcheck: Kinkcheck) -> None:
    pooled = MINE.replace("nn.ReLU(), nn.Linear(8, 1)", "nn.MaxPool1d(2), nn.Linear(4, 1)")
    (mine / "mine.py").write_text(pooled)
    text = (
        'experiment = "weight-divergence"\nselections.max_pool = ["hybrid:0", "hybrid:0"]\n'
        + OF_MINE
    )
    run(spec.parse(text, "s.toml"), mine / "s", threads=1)
    with reading(mine / "s") as study:
        rows = study.distances()
    assert [row["l1"] for row in rows] == [0.0] * 6
    assert all(row["test_error"] > 0 for row in rows)
    drawn = kinkcheck("study", "plot", "s", "--out", "p", "--format", "svg")
    assert drawn.out.split() == ["p/divergence.svg"]
    assert "test error" in (mine / "p" / "divergence.svg").read_text()


def test_batches_are_what_collate_and_cast_make_of_samples(mine: Path) -> None:
    class Ragged(Task):
        metrics = (Metric("error", lambda each: each.mean(), larger_is_better=False),)
        train = test = ([1.0], [2.0, 3.0], [4.0])

        def network(self) -> nn.Module:
            return nn.Linear(1, 1)

        def collate(self, samples: list[Any]) -> Any:
            return {"rows": [torch.tensor(each) for each in samples], "exact": torch.ones(1)}

        def cast(self, batch: Any, dtype: torch.dtype) -> Any:
            return {**batch, "rows": [each.to(dtype) for each in batch["rows"]]}

        def step(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
            raise NotImplementedError

    held = kinkcheck.arithmetic.precision.parse("16")
    (batch, samples), *_ = Ragged().feed("test", held, "cpu").in_order(2)
    assert samples == 2
    assert [each.tolist() for each in batch["rows"]] == [[1.0], [2.0, 3.0]]
    assert {each.dtype for each in batch["rows"]} == {torch.float16}
    assert batch["exact"].dtype == torch.float32


# --- what can go wrong ---------------------------------------------------------------------------

STEP = "return error.square().mean(), error"
TEST = "self.test = self.train[::4]"
SAMPLES = "self.train = list(zip(x, x.abs()))"
METRIC = "lambda each: each.abs().mean()"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("class Mine(Task)", "class Yours(Task)", "task: mine.py has no 'Mine'"),
        ("class Mine(Task):", "Mine = 3\nclass Yours(Task):", "task: mine.py:Mine must be a kink"),
        ("class Mine(Task):", "def Mine(): return 3\nclass A(Task):", "task: mine.py:Mine must re"),
        ("def __init__(self):", "def __init__(self, a):", "task: mine.py:Mine failed: TypeError: "),
        ("    def network", "    def net", "task: mine.py:Mine failed: TypeError: Can't instantia"),
        ("import torch\n", "import torch, nothing\n", "task: mine.py cannot be imported: ModuleNo"),
        (TEST, "self.test = 3", "task: Mine.test must be samples with a length and [number], "),
        (SAMPLES, "self.train = []", "task: Mine.train has no samples"),
        (SAMPLES, "self.train = [object()] * 8", "task: a mini-batch of train cannot be made: Typ"),
        (SAMPLES, "self.train = list(x)", "task: the step cannot take a mini-batch of train: Valu"),
        ("x, y = batch", "x = batch['x']", "task: the step cannot take a mini-batch of train: Typ"),
        (STEP, "return error.mean()", "task: the step must return the loss and a tensor, not a te"),
        (STEP, "return error, error", "task: the step must return a loss of one number, not a ten"),
        (STEP, "return 1.0, error", "task: the step must return a loss of one number, not float"),
        (STEP, "return error.mean(), 1", "task: the step must return a row a sample beside the lo"),
        (STEP, "return y.mean(), error", "task: the loss does not depend on a parameter of the ne"),
        (METRIC, "lambda each: 'large'", "task: metric 'error' must be a number, not 'large'"),
        (METRIC, "lambda each: each", "task: metric 'error' must be a number, not tensor"),
        (METRIC, "lambda each: each.no", "task: metric 'error' failed: AttributeError: "),
        ('Metric("error"', 'Metric("my error"', "task: metric 'my error' must be small letters, "),
        ('Metric("error"', 'Metric("loss"', "task: metric 'loss' must be small letters, "),
        ("metrics = [", "metrics = [3, ", "task: Mine.metrics must hold kinkcheck.study.Metric, "),
        ("metrics = [", "metrics = [] and [", "task: Mine.metrics must be a list of kinkcheck.st"),
        ("return nn.Sequential", "return None and nn.Sequential", "task: the network must be an n"),
        ("return nn.Sequential", "return nn.Nothing", "task: the network cannot be made: Attribut"),
    ],
)  # fmt: skip
def test_a_wrong_task_gets_one_line(mine: Path, old: str, new: str, complaint: str) -> None:
    assert old in MINE
    (mine / "mine.py").write_text(MINE.replace(old, new))
    with pytest.raises(InputError) as caught:
        run(spec.parse(OF_MINE, "s.toml"), mine / "s", threads=1)
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)
    assert not (mine / "s").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (OF_MINE.replace("mine.py", "no.py"), "my.toml: task: the file no.py does not exist"),
        (OF_MINE.replace("mine.py", "no_such"), "my.toml: task: there is no module no_such"),
        (OF_MINE.replace("mine.py:Mine", "mine.py"), "my.toml: task: 'mine.py' names nothing in "),
        (OF_MINE.replace("factory", "factroy"), "my.toml: unknown key 'task.factroy'; did you "),
        ("[task]\nepochs = 3", "my.toml: unknown key 'task.epochs'"),
        ('data = "mnist"\n' + OF_MINE, "my.toml: data: is for the classification of images; with "),
        ('network = "mlp"\n' + OF_MINE, "my.toml: network: is for the classification of images; "),
        (
            OF_MINE + "arguments = { when = 2026-01-01 }",
            "my.toml: task.arguments: when must be made of texts, finite numbers, truth values, ",
        ),
        (OF_MINE + "arguments = 3", "my.toml: task.arguments: must be a valid dictionary, not 3"),
        (
            OF_MINE + '[[exclude]]\nnetwork = "mlp"',
            "my.toml: exclude: rule 1: unknown key 'network'; accepted: seed, precision, ",
        ),
    ],
)
def test_a_wrong_table_gets_one_line(mine: Path, text: str, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        spec.parse(text, "my.toml")
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


def test_a_metric_may_need_more_than_a_mini_batch(mine: Path) -> None:
    whole = "lambda each: each.abs().mean() if len(each) == 8 or 1 / (len(each) // 32) else 0"
    (mine / "mine.py").write_text(MINE.replace(METRIC, whole))
    (ended,) = run(spec.parse(OF_MINE.replace("batch_size = 8", "batch_size = 7"), "s.toml"),
                   mine / "s", threads=1)  # fmt: skip
    assert ended.state == "finished"


def test_what_runs_elsewhere_ends_before_the_error_is_heard_of(mine: Path) -> None:
    """Whoever hears of it holds its traceback, and gives the cluster up."""

    class Elsewhere(Inline):
        ended = False

        def run(self, jobs: Any, on_beat: Any) -> Generator[tuple[Job, Event]]:
            try:
                yield from super().run(jobs, on_beat)
            finally:
                self.ended = True

    elsewhere = Elsewhere()
    declared = spec.parse(OF_MINE, "s.toml")
    try:
        run(declared, mine / "s", threads=1, executor=elsewhere, watcher=StopAfter(1))
    except Stop:
        assert elsewhere.ended


def test_a_trial_that_diverges_says_where(mine: Path) -> None:
    (mine / "mine.py").write_text(MINE.replace(STEP, "return (error * 1e30).exp().mean(), error"))
    (ended,) = run(spec.parse(OF_MINE, "s.toml"), mine / "s", threads=1)
    assert ended.state == "diverged"
    with reading(mine / "s") as study:
        (one,) = study.trials()
    assert (one.diverged_step, one.diverged_layer) == (0, "loss")


# What is right in float32, in which a task is tried before a study starts, and wrong in float16.
IN_HALF = "error.dtype == torch.float16"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (METRIC, "lambda error: len(error) // (error.dtype == torch.float32)",
         "metric 'error' failed: ZeroDivisionError: "),
        (METRIC, f"lambda error: 'half' if {IN_HALF} else 1", "metric 'error' must be a number, n"),
        (STEP, f"return error.square().mean(), 1 if {IN_HALF} else error",
         "the step must return a row a sample beside the loss, not int"),
        (STEP, f"return error.square().mean(), error.T if {IN_HALF} else error",
         "what the steps return cannot be joined: RuntimeError: "),
    ],
)  # fmt: skip
def test_a_task_that_fails_at_some_data_fails_that_trial_alone(
    mine: Path, old: str, new: str, reason: str
) -> None:
    assert old in MINE
    (mine / "mine.py").write_text(MINE.replace(old, new))
    text = 'precision = ["16", "32"]\n' + OF_MINE.replace("batch_size = 8", "batch_size = 7")
    half, single = run(spec.parse(text, "s.toml"), mine / "s", threads=1)
    assert (half.state, single.state) == ("failed", "finished")
    with reading(mine / "s") as study:
        assert study.trials()[0].reason is not None
        assert study.trials()[0].reason.startswith(f"TaskError: {reason}")


def test_an_exception_later_on_is_an_outcome(mine: Path) -> None:
    counting = (
        "self.n = getattr(self, 'n', 0) + 1\n        if self.n > 5: raise ValueError('too many')"
    )
    (mine / "mine.py").write_text(MINE.replace("x, y = batch", f"x, y = batch\n        {counting}"))
    settings = spec.parse(OF_MINE, "s.toml").trials()[0]
    from kinkcheck.study.executor import guarded

    events = list(guarded(replace(job(settings), folder=str(mine)), lambda beat: None))
    assert events[-1] == Outcome("failed", reason="ValueError: too many")
