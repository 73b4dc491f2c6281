"""Studies as rows: what the experiments that train have in common.

A row is a configuration, or one epoch of one. Accuracies are in per cent. A network whose
parameters are not numbers predicts class 0 for every image; that is the accuracy of a diverged run
in the published files, so each row carries the share of class 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Protocol, TypeAlias

from kinkcheck import selection
from kinkcheck.data import Images
from kinkcheck.errors import InputError
from kinkcheck.paper.harness import published_values
from kinkcheck.paper.harness.comparison import (
    Comparison,
    Sample,
    Share,
    of_intervals,
    of_samples,
)
from kinkcheck.paper.harness.experiment import Setup
from kinkcheck.paper.harness.rows import Line, by, line
from kinkcheck.selection import Branch
from kinkcheck.study.feed import load
from kinkcheck.study.job import Beat, Outcome
from kinkcheck.study.reading import Reading, Trial, reading
from kinkcheck.study.run import Silent, run, template_of
from kinkcheck.study.settings import Classification, Settings
from kinkcheck.study.spec import Spec, beta_of, parse
from kinkcheck.study.store import Progress
from kinkcheck.study.summary import band


@dataclass(frozen=True)
class Configuration:
    """What is trained; a run has a seed besides.

    Attributes:
        data, network, batch_norm, optimizer, precision, forward: as in a study's spec.
        relu, max_pool: selections; None is native.
        backward: as in a study's spec.
    """

    data: str
    network: str
    batch_norm: bool
    optimizer: str
    precision: str
    forward: str
    relu: str | None
    max_pool: str | None
    backward: str = field(default="exact", kw_only=True)

    @property
    def title(self) -> str:
        """Network, data, batch norm, optimizer.

        >>> Configuration("mnist", "mlp", True, "sgd", "float32", "exact", None, None).title
        'mlp, mnist, batch norm, sgd'
        """
        norm = ("batch norm",) if self.batch_norm else ()
        return ", ".join((self.network, self.data, *norm, self.optimizer))

    @property
    def selection(self) -> str:
        """What is picked at the kinks that are varied: of ReLU if it is, else of pooling.

        >>> Configuration("mnist", "mlp", True, "sgd", "float32", "exact", None, "last").selection
        'last'
        """
        return self.relu or self.max_pool or "native"

    @property
    def beta(self) -> float:
        """β of max pooling, where the published formula can express it.

        Raises:
            InputError: it cannot.
        """
        return beta_of(self.max_pool or "native")

    @property
    def varied(self) -> tuple[str, float] | None:
        """What the published programs vary, and its value; None if they have no such program.

        >>> said = "mnist", "mlp", True, "sgd", "float32"
        >>> Configuration(*said, "compound", None, "hybrid:10").varied
        ('β', 10.0)
        >>> Configuration(*said, "exact", "branch:0.5", None).varied
        ('α', 0.5)
        >>> Configuration(*said, "exact", None, "hybrid:10").varied
        """
        if self.relu is None:
            return ("β", self.beta) if self.forward == "compound" else None
        chosen = selection.parse(self.relu)
        if isinstance(chosen, Branch) and self.max_pool in (None, "native"):
            return "α", chosen.alpha
        return None

    @property
    def published(self) -> tuple[object, ...] | None:
        """What the published files know of it; None if it is no program of theirs."""
        return self.varied and (
            self.data, self.network, self.batch_norm, self.optimizer, self.precision, *self.varied,
        )  # fmt: skip

    def __str__(self) -> str:
        norm = ("batch norm",) if self.batch_norm else ()
        varied = "{} = {:g}".format(*self.varied) if self.varied else self.selection
        network = f"{self.network} {self.data}"
        return ", ".join((network, *norm, self.optimizer, self.precision, varied))


@dataclass(frozen=True)
class Final(Configuration):
    """The runs of a configuration at their end.

    Attributes:
        runs: how many.
        diverged: those of them whose parameters were not numbers at the end.
        diverged_at: the layers where that began.
        accuracy: mean over the other runs, in percent; None where there are none.
        accuracies: of each run, in percent; ``nan`` for one that diverged.
        class_0: percent of the test images that are of class 0.
        learning_rate: of all runs; None where they have several.
        searched: whether it was searched.
        epoch: None, which tells the row from one of an epoch.
    """

    runs: int
    diverged: int
    diverged_at: str
    accuracy: float | None
    accuracies: str
    class_0: float
    learning_rate: float | None
    searched: bool
    epoch: None = None


@dataclass(frozen=True)
class Epoch(Configuration):
    """The runs of a configuration after an epoch.

    Attributes:
        runs: how many got that far with a finite loss.
        epoch: its number, from 1.
        loss: mean training loss of these runs.
        loss_low, loss_high: a standard deviation from it; None where one run does not tell, and in
            earlier files ``loss``.
    """

    runs: int
    epoch: int
    loss: float
    loss_low: float | None
    loss_high: float | None

    @property
    def sample(self) -> Sample:
        """The losses of these runs."""
        if self.loss_high is None or self.runs == 1:
            return Sample(self.loss, None, self.runs)
        return Sample(self.loss, self.loss_high - self.loss, self.runs)


Published: TypeAlias = tuple[tuple[float, ...], int]
"""Final accuracies of published runs in per cent, and how many of them collapsed to class 0."""

_ByConfiguration: TypeAlias = dict[tuple[object, ...], list[Mapping[str, str]]]
"""Published rows by what :attr:`Configuration.published` says."""

_BITS = {"16": "float16", "24": "mixed", "32": "float32"}
_NETWORKS = {"lenet": "lenet5", "densenet121": "densenet121-published"}
_CLASS_0 = {"mnist": 0.098, "cifar10": 0.1, "svhn": 0.067, "imagenet": 0.001}  # of the test sets


def changed(name: str, **keys: str) -> Spec:
    """A shipped spec with some keys changed.

    Args:
        name: of the spec.
        keys: to their values, as they stand in TOML.

    >>> changed("mnist-lenet5", seeds="2").seeds
    (0, 1)
    """
    lines = [f'extends = "{name}"', *(f"{key} = {value}" for key, value in keys.items())]
    return parse("\n".join(lines), name)


def train(setup: Setup, name: str, spec: Spec) -> list[Final | Epoch]:
    """Run a study, or go on with it, and say what came out: accuracies, then losses by epoch.

    Args:
        setup: the experiment's; the study lies in ``setup.work / name``.
        name: of the study.
        spec: what it trains.

    Raises:
        InputError: the study cannot be run, or a trial failed; run it again to try again.

    >>> from kinkcheck.study.spec import shipped
    >>> spec = shipped("smoke").model_copy(update={"epochs": 1, "precision": ("float32",)})
    >>> rows = train(Setup(getfixture("tmp_path")), "smoke", spec)
    >>> [(row.max_pool, row.runs, row.epoch) for row in rows]
    [('hybrid:0', 1, None), ('hybrid:10', 1, None), ('hybrid:0', 1, 1), ('hybrid:10', 1, 1)]
    """
    folder = finish(setup, name, spec)
    with reading(folder) as study:
        return _rows(study, class_0(setup, spec))


def finish(setup: Setup, name: str, spec: Spec) -> Path:
    """Run a study to its end and return its folder.

    Raises:
        InputError: it cannot be run, or a trial failed; run it again to try again.

    >>> from kinkcheck.study.spec import shipped
    >>> spec = shipped("smoke").model_copy(update={"epochs": 1, "precision": ("float32",)})
    >>> finish(Setup(getfixture("tmp_path")), "smoke", spec).name
    'smoke'
    """
    folder = setup.work / name
    ended = run(
        spec,
        folder,
        data_dir=setup.data_dir,
        device=setup.device,
        threads=setup.threads,
        executor=setup.trains,
        watcher=_Watcher(setup, name, spec),
    )
    left = sum(not trial.over for trial in ended)
    if left:
        raise InputError(
            f"{name}: {left} of {len(ended)} trials are not over; kinkcheck study status {folder} "
            "says why; the same command goes on with them"
        )
    return folder


def class_0(setup: Setup, spec: Spec) -> float:
    """Per cent of the test images that are of class 0: the accuracy of a network of NaN.

    >>> from kinkcheck.study.spec import shipped
    >>> class_0(Setup(getfixture("tmp_path")), shipped("smoke"))
    10.15625
    """
    task = spec.trials()[0].task
    assert isinstance(task, Classification)
    where = None if setup.data_dir is None else str(setup.data_dir)
    images = load(task.data, task.test_split, task.test_images, where)
    return share_of_class_0(images)


def share_of_class_0(images: Images) -> float:
    """Per cent of some images that are of class 0.

    >>> from kinkcheck.data import load
    >>> share_of_class_0(load("mnist-sample"))
    10.0
    """
    zeros = sum(int((labels == 0).sum()) for _, labels in images.batches(512))
    return 100 * zeros / len(images)


class Accuracies(Protocol):
    """A row with the accuracies of some runs, as in :class:`Final`."""

    @property
    def accuracies(self) -> str:
        """Of each run, in percent; ``nan`` for one that diverged."""

    @property
    def class_0(self) -> float:
        """Percent of the test images that are of class 0."""


def written(row: Accuracies) -> list[float]:
    """Accuracy of every run of a row, per cent; NaN for a diverged one.

    >>> said = "mnist", "mlp", True, "sgd", "float32", "exact", None, None
    >>> written(Final(*said, 2, 1, "", 95.0, "95 nan", 9.8, 0.1, False))
    [95.0, nan]
    """
    return [float(text) for text in row.accuracies.split()]


def runs_of(row: Accuracies) -> list[float]:
    """Accuracy of every run of a row, per cent; a diverged one has the share of class 0.

    >>> said = "mnist", "mlp", True, "sgd", "float32", "exact", None, None
    >>> runs_of(Final(*said, 2, 1, "", 95.0, "95 nan", 9.8, 0.1, False))
    [95.0, 9.8]
    """
    return [row.class_0 if math.isnan(value) else value for value in written(row)]


Trained: TypeAlias = Final | Epoch
"""A row of an experiment that trains."""

_CONFIGURATION = tuple(field.name for field in fields(Configuration))


def summarise(rows: Sequence[Trained]) -> list[Line]:
    """Accuracies in per cent by what varies; a mean is over the runs that did not diverge.

    >>> rows = [Final("mnist", "mlp", True, "sgd", "float32", "exact", None, max_pool, 3, 1, "",
    ...               95.0, "95 95 nan", 9.8, 0.1, False) for max_pool in ("native", "last")]
    >>> summarise(rows)[1]
    {'max_pool': 'last', 'runs': 3, 'diverged': 1, 'accuracy': 95.0}
    """
    finals = [row for row in rows if isinstance(row, Final)]
    shown = [line(row, *_CONFIGURATION) for row in finals]
    varying = [name for name in _CONFIGURATION if len({each[name] for each in shown}) > 1]
    return [line(row, *varying, "runs", "diverged", "accuracy") for row in finals]


def compare(rows: Sequence[Trained]) -> list[Comparison]:
    """What the published programs gave: those with the compound forward, and those with an α.

    * Final accuracies. Where runs collapsed to class 0 on either side, their share is compared, by
      Clopper and Pearson's intervals; elsewhere the mean accuracy, by Welch's.
    * The training loss of the last epoch that was trained, by Welch's intervals; not where a run
      diverged on either side, since the published means are of the finite losses, however many.
      Under an α only that of the last published epoch is known.
    * The learning rate that was searched at β = 0, which both sides use for every β.

    What was not published is left out, and published runs that stopped before others of their
    network. The published code returns α itself at 0, as ``backward = "assigned"`` does; otherwise
    α is a derivative here, by which the gradient is multiplied. At α = 0 the two agree; a
    difference at another α may be that, which ``relu-backward-confound`` measures.
    """
    trained = [row for row in rows if row.published]
    finals = [row for row in trained if isinstance(row, Final)]
    published = _published()
    whole = {row.published for row in finals if not row.diverged}
    whole -= {key for key, (_, collapsed) in published.items() if collapsed}
    last = {
        row.published: row for row in trained if isinstance(row, Epoch) and row.published in whole
    }
    return [
        *_beside_finals(finals, published),
        *_beside_losses(last.values()),
        *_beside_rates(row for row in finals if row.searched),
    ]


def _beside_finals(
    rows: Iterable[Final], published: Mapping[tuple[object, ...], Published]
) -> Iterator[Comparison]:
    for row in rows:
        theirs = published.get(row.published or ())
        if theirs:
            yield beside(str(row), runs_of(row), row.diverged, theirs)


def _beside_losses(rows: Iterable[Epoch]) -> Iterator[Comparison]:
    published = {
        (*_published_configuration(row), _epoch(row["epoch"])): Sample(
            float(row["train_loss_mean"]), float(row["train_loss_std"]), int(row["runs"])
        )
        for row in published_values.table("training_curves")
        if row["train_loss_mean"] and math.isfinite(float(row["train_loss_mean"]))
    }
    for key, runs in _whole_runs("relu_training_final").items():
        losses = [float(run["train_loss"] or math.nan) for run in runs]
        if all(map(math.isfinite, losses)):
            published[*key, _epoch(runs[0]["last_epoch"])] = Sample.of(losses)
    for row in rows:
        theirs = published.get((*(row.published or ()), row.epoch))
        if theirs:
            yield of_samples(f"{row}: training loss, epoch {row.epoch}", row.sample, theirs)


def _epoch(number: str) -> int:
    """An epoch by our numbers; the published ones count from 0."""
    return int(number) + 1


def _beside_rates(rows: Iterable[Final]) -> Iterator[Comparison]:
    published = {
        _published_configuration(row): float(row["learning_rate"])
        for row in published_values.table("best_learning_rates")
    }
    for row in rows:
        theirs = published.get(row.published or ())
        if theirs and row.learning_rate is not None and not row.beta:
            yield Comparison(f"{row}: learning rate", row.learning_rate, theirs)


def _published_configuration(row: Mapping[str, str]) -> tuple[object, ...]:
    varied = ("α", float(row["alpha"])) if "alpha" in row else ("β", float(row["beta"]))
    return (
        row["dataset"],
        _NETWORKS.get(row["network"], row["network"]),
        row["batch_norm"] == "True",
        row["optimizer"],
        _BITS[row.get("precision_bits", "32")],
        *varied,
    )


def _whole_runs(table: str) -> _ByConfiguration:
    """Published runs by configuration, but for those that stopped before others of a network."""
    rows = published_values.table(table)
    ends: dict[tuple[object, ...], int] = {}
    for row in rows:
        network = _published_configuration(row)[:-1]
        ends[network] = max(ends.get(network, 0), int(row["last_epoch"]))
    whole = (
        row for row in rows if int(row["last_epoch"]) == ends[_published_configuration(row)[:-1]]
    )
    return by(whole, _published_configuration)


def beside(what: str, ours: Sequence[float], diverged: int, theirs: Published) -> Comparison:
    """Runs of ours beside published ones: their collapses, or else their accuracies.

    >>> beside("x", [9.8, 99.0], 1, ((99.2, 99.1), 0)).what
    'x: runs that collapsed, %'
    """
    accuracies, collapsed = theirs
    if not diverged and not collapsed:
        return of_samples(f"{what}: accuracy, %", Sample.of(ours), Sample.of(accuracies))
    shares = of_intervals(
        f"{what}: runs that collapsed, %",
        Share.of(diverged, len(ours)).interval,
        Share.of(collapsed, len(accuracies)).interval,
    )
    return replace(shares, runs=len(ours))


def _published() -> dict[tuple[object, ...], Published]:
    """Accuracies of the runs in per cent, and how many collapsed, by configuration."""
    runs = {
        key: [float(row["test_accuracy"]) for row in rows]
        for table in ("training_final", "relu_training_final")
        for key, rows in _whole_runs(table).items()
    }
    for (_, beta), accuracy in _published_imagenet().items():
        key = ("imagenet", "resnet50", True, "sgd", "mixed", "β", beta)
        runs.setdefault(key, []).append(accuracy)
    return {
        key: (
            tuple(100 * run for run in found),
            sum(abs(run - _CLASS_0[str(key[0])]) < 5e-4 for run in found),
        )
        for key, found in runs.items()
    }


def _published_imagenet() -> dict[tuple[str, float], float]:
    """The last accuracy of each run, by its number and β."""
    last: dict[tuple[str, float], tuple[int, float]] = {}
    for row in published_values.table("imagenet_resnet50_mixed"):
        key = row["experiment"], float(row["maxpool"])
        reached = int(row["epoch"]), float(row["accuracy"]) / 100
        last[key] = max(last.get(key, reached), reached)
    return {key: accuracy for key, (_, accuracy) in last.items()}


def _rows(study: Reading, zero: float) -> list[Trained]:
    losses = study.losses()
    searched = bool(study.trials(candidates=True))
    finals: list[Trained] = []
    epochs: list[Trained] = []
    for said, trials in by(study.trials(), _configuration).items():
        each = [_accuracy(trial) for trial in trials]
        finished = [value for value in each if not math.isnan(value)]
        layers = {str(trial.diverged_layer) for trial in trials if trial.state == "diverged"}
        rates = {trial.learning_rate for trial in trials if trial.learning_rate is not None}
        finals.append(
            Final(
                **vars(said),
                runs=len(trials),
                diverged=len(trials) - len(finished),
                diverged_at=" ".join(sorted(layers)),
                accuracy=sum(finished) / len(finished) if finished else None,
                accuracies=" ".join(f"{value:.6g}" for value in each),
                class_0=zero,
                learning_rate=rates.pop() if len(rates) == 1 else None,
                searched=searched,
            )
        )
        over = band([losses.get(trial.trial, ()) for trial in trials])
        columns = zip(over.runs, over.mean, over.low, over.high, strict=True)
        epochs += [
            Epoch(
                **vars(said),
                runs=runs,
                epoch=epoch,
                loss=mean,
                loss_low=_known(low),
                loss_high=_known(high),
            )
            for epoch, (runs, mean, low, high) in enumerate(columns, start=1)
            if runs
        ]
    return finals + epochs


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _accuracy(trial: Trial) -> float:
    """In percent; NaN if it diverged."""
    if trial.state == "diverged":
        return math.nan
    assert trial.value is not None  # a trial is tested before it is over
    return 100 * trial.value


def _configuration(trial: Trial) -> Configuration:
    return Configuration(
        data=str(trial.task["data"]),
        network=str(trial.task["network"]),
        batch_norm=bool(trial.task["batch_norm"]),
        optimizer=trial.optimizer,
        precision=trial.precision,
        forward=trial.forward,
        backward=trial.backward,
        relu=trial.selections.get("relu"),
        max_pool=trial.selections.get("max_pool"),
    )


class _Watcher(Silent):
    """Hands the steps of a study on, searches for learning rates apart from the rest."""

    def __init__(self, setup: Setup, name: str, spec: Spec) -> None:
        self._setup, self._name = setup, name
        trials = spec.trials()
        found = [sought for trial in trials if (sought := template_of(trial)) is not None]
        searches = {base.id: how for base, how in found}
        # Epochs in all: of the searches, of the trials.
        self._total = {
            True: sum(how.trials * how.epochs for how in searches.values()),
            False: sum(trial.epochs for trial in trials),
        }
        self._over = {True: 0, False: 0}

    def planned(self, trials: Sequence[Progress]) -> None:
        """Trials that are over count as a whole."""
        self._over[False] = sum(trial.settings.epochs for trial in trials if trial.over)

    def beat(self, settings: Settings, beat: Beat) -> None:
        """A step."""
        self._say(settings, (beat.epoch - 1) * beat.steps + beat.step, beat.steps)

    def ended(self, settings: Settings, outcome: Outcome) -> None:
        """What a trial leaves undone when it stops early counts as done."""
        self._over[settings.candidate] += settings.epochs
        self._say(settings, 0, 1)

    def _say(self, settings: Settings, steps: int, an_epoch: int) -> None:
        kind = settings.candidate
        what = f"{self._name}{', learning rates' if kind else ''}"
        # In hundredths of an epoch, since not all epochs have as many steps.
        done = round(100 * (self._over[kind] + steps / an_epoch))
        self._setup.on_progress(what, min(done, 100 * self._total[kind]), 100 * self._total[kind])
