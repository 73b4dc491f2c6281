"""Studies as rows: what the experiments that train have in common.

A row is a configuration, or one epoch of one. Accuracies are in per cent. A network whose
parameters are not numbers predicts class 0 for every image; that is the accuracy of a diverged run
in the published files, so each row carries the share of class 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from kinkcheck.audit.intervals import clopper_pearson
from kinkcheck.errors import InputError
from kinkcheck.paper import published_values
from kinkcheck.paper.comparison import (
    Comparison,
    Sample,
    of_intervals,
    of_samples,
)
from kinkcheck.paper.experiment import Row, Setup
from kinkcheck.study.feed import load
from kinkcheck.study.job import Beat, Outcome
from kinkcheck.study.reading import Reading, Trial, reading
from kinkcheck.study.run import Silent, run, template_of
from kinkcheck.study.settings import COLUMNS, Settings
from kinkcheck.study.spec import Spec, beta_of, parse
from kinkcheck.study.store import Progress
from kinkcheck.study.summary import band

CONFIGURATION = (
    "data",
    "network",
    "batch_norm",
    "optimizer",
    "precision",
    "forward",
    *COLUMNS,
)
"""What tells the configurations of an experiment apart; all its runs have a seed besides."""

Published: TypeAlias = tuple[tuple[float, ...], int]
"""Final accuracies of published runs in per cent, and how many of them collapsed to class 0."""

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


def train(setup: Setup, name: str, spec: Spec) -> list[Row]:
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
    >>> [(row["max_pool"], row["runs"], row["epoch"]) for row in rows]
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
    trial = spec.trials()[0]
    where = None if setup.data_dir is None else str(setup.data_dir)
    images = load(trial.data, trial.test_split, trial.test_images, where)
    zeros = sum(int((labels == 0).sum()) for _, labels in images.batches(512))
    return 100 * zeros / len(images)


def runs_of(row: Row) -> list[float]:
    """Accuracy of every run of a row, per cent; a diverged one has the share of class 0.

    >>> runs_of({"accuracies": "95.5 nan", "class_0": 9.8})
    [95.5, 9.8]
    """
    each = [float(text) for text in str(row["accuracies"]).split()]
    return [number(row["class_0"]) if math.isnan(value) else value for value in each]


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Accuracies in per cent by what varies; a mean is over the runs that did not diverge.

    >>> row = dict.fromkeys(CONFIGURATION) | {"runs": 3, "diverged": 1, "accuracy": 95.0}
    >>> rows = [{**row, "max_pool": name, "epoch": None} for name in ("hybrid:0", "hybrid:10")]
    >>> summarise(rows)[1]
    {'max_pool': 'hybrid:10', 'runs': 3, 'diverged': 1, 'accuracy': 95.0}
    """
    finals = [row for row in rows if row["epoch"] is None]
    varying = [name for name in CONFIGURATION if len({row[name] for row in finals}) > 1]
    return [
        {name: row[name] for name in (*varying, "runs", "diverged", "accuracy")} for row in finals
    ]


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """What the published programs gave, which are those with the compound forward.

    * Final accuracies. Where runs collapsed to class 0 on either side, their share is compared, by
      Clopper and Pearson's intervals; elsewhere the mean accuracy, by Welch's.
    * The training loss of the last epoch that was trained, by Welch's intervals; not where a run
      diverged on either side, since the published means are of the finite losses, however many.
    * The learning rate that was searched at β = 0, which both sides use for every β.

    What was not published is left out.
    """
    trained = [row for row in rows if row["forward"] == "compound"]
    finals = [row for row in trained if row["epoch"] is None]
    published = _published()
    whole = {_configuration(row) for row in finals if not row["diverged"]}
    whole -= {key for key, (_, collapsed) in published.items() if collapsed}
    last = {
        key: row
        for row in trained
        if row["epoch"] is not None and (key := _configuration(row)) in whole
    }
    return [
        *_beside_finals(finals, published),
        *_beside_losses(list(last.values())),
        *_beside_rates(row for row in finals if row["searched"]),
    ]


def _beside_finals(
    rows: Iterable[Row], published: Mapping[tuple[object, ...], Published]
) -> Iterator[Comparison]:
    for row in rows:
        theirs = published.get(_configuration(row))
        if theirs:
            yield beside(_title(row), runs_of(row), int(row["diverged"] or 0), theirs)


def _beside_losses(rows: Iterable[Row]) -> Iterator[Comparison]:
    published = {
        (*_published_configuration(row), int(row["epoch"]) + 1): Sample(  # it counts from 0
            float(row["train_loss_mean"]), float(row["train_loss_std"] or 0), int(row["runs"])
        )
        for row in published_values.table("training_curves")
        if math.isfinite(float(row["train_loss_mean"] or math.nan))
    }
    for row in rows:
        theirs = published.get((*_configuration(row), row["epoch"]))
        if theirs:
            mean = number(row["loss"])
            ours = Sample(mean, number(row["loss_high"]) - mean, int(row["runs"] or 0))
            yield of_samples(f"{_title(row)}: training loss, epoch {row['epoch']}", ours, theirs)


def _beside_rates(rows: Iterable[Row]) -> Iterator[Comparison]:
    published = {
        _published_configuration(row): float(row["learning_rate"])
        for row in published_values.table("best_learning_rates")
    }
    for row in rows:
        theirs = published.get(_configuration(row))
        if theirs and not beta_of(str(row["max_pool"])):
            yield Comparison(f"{_title(row)}: learning rate", number(row["learning_rate"]), theirs)


def _configuration(row: Row) -> tuple[object, ...]:
    names = ("data", "network", "batch_norm", "optimizer", "precision")
    return (*(row[name] for name in names), beta_of(str(row["max_pool"])))


def _published_configuration(row: Mapping[str, str]) -> tuple[object, ...]:
    return (
        row["dataset"],
        _NETWORKS.get(row["network"], row["network"]),
        row["batch_norm"] == "True",
        row["optimizer"],
        _BITS[row["precision_bits"]],
        float(row["beta"]),
    )


def beside(what: str, ours: Sequence[float], diverged: int, theirs: Published) -> Comparison:
    """Runs of ours beside published ones: their collapses, or else their accuracies.

    >>> beside("x", [9.8, 99.0], 1, ((99.2, 99.1), 0)).what
    'x: runs that collapsed, %'
    """
    accuracies, collapsed = theirs
    if not diverged and not collapsed:
        return of_samples(f"{what}: accuracy, %", Sample.of(ours), Sample.of(accuracies))
    return of_intervals(
        f"{what}: runs that collapsed, %",
        _share(diverged, len(ours)),
        _share(collapsed, len(accuracies)),
    )


def _share(count: int, of: int) -> tuple[float, float, float]:
    low, high = clopper_pearson(count, of).interval
    return 100 * count / of, 100 * low, 100 * high


def _published() -> dict[tuple[object, ...], Published]:
    """Accuracies of the runs in per cent, and how many collapsed, by configuration."""
    runs: dict[tuple[object, ...], list[float]] = {}
    for row in published_values.table("training_final"):
        key = _published_configuration(row)
        runs.setdefault(key, []).append(float(row["test_accuracy"]))
    for (_, beta), accuracy in _published_imagenet().items():
        runs.setdefault(("imagenet", "resnet50", True, "sgd", "mixed", beta), []).append(accuracy)
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


def _title(row: Row) -> str:
    norm = ("batch norm",) if row["batch_norm"] else ()
    beta = f"β = {beta_of(str(row['max_pool'])):g}"
    network = f"{row['network']} {row['data']}"
    return ", ".join((network, *norm, str(row["optimizer"]), str(row["precision"]), beta))


def _rows(study: Reading, zero: float) -> list[Row]:
    losses = study.losses()
    searched = bool(study.trials(candidates=True))
    by_configuration: dict[tuple[object, ...], list[Trial]] = {}
    for trial in study.trials():
        by_configuration.setdefault(tuple(_said(trial).values()), []).append(trial)
    finals: list[Row] = []
    epochs: list[Row] = []
    for trials in by_configuration.values():
        said = _said(trials[0])
        diverged = [trial for trial in trials if trial.state == "diverged"]
        finished = [100 * (t.test_accuracy or 0.0) for t in trials if t.state == "finished"]
        each = [
            math.nan if trial.state == "diverged" else 100 * (trial.test_accuracy or 0.0)
            for trial in trials
        ]
        rates = [trial.learning_rate for trial in trials if trial.learning_rate is not None]
        finals.append(
            {
                **said,
                "runs": len(trials),
                "diverged": len(diverged),
                "diverged_at": " ".join(sorted({str(trial.diverged_layer) for trial in diverged})),
                "accuracy": sum(finished) / len(finished) if finished else None,
                "accuracies": " ".join(f"{value:.6g}" for value in each),
                "class_0": zero,
                "learning_rate": rates[0] if len(set(rates)) == 1 else None,
                "searched": searched,
                "epoch": None,
            }
        )
        over = band([losses.get(trial.trial, ()) for trial in trials])
        columns = zip(over.mean, over.low, over.high, over.runs, strict=True)
        for epoch, (mean, low, high, runs) in enumerate(columns, start=1):
            if runs:
                epochs.append(
                    {
                        **said, "runs": runs, "epoch": epoch,
                        "loss": mean, "loss_low": low, "loss_high": high,
                    }
                )  # fmt: skip
    return finals + epochs


def _said(trial: Trial) -> Row:
    return {
        name: trial.selections.get(name) if name in COLUMNS else getattr(trial, name)
        for name in CONFIGURATION
    }


def number(value: object) -> float:
    """A value of a row as a number; not a number where there is none.

    >>> number(3), number(None)
    (3.0, nan)
    """
    return float(value) if isinstance(value, int | float) else math.nan


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
