"""The search for a learning rate: what is proposed, stopped early, found and handed on."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from kinkcheck.errors import InputError
from kinkcheck.study import search, spec
from kinkcheck.study.criteria import ACCURACY
from kinkcheck.study.reading import reading
from kinkcheck.study.run import run
from kinkcheck.study.search import BelowMedian, Candidate
from kinkcheck.study.settings import Search

SPEC = """
data = "mnist-sample"
train_images = 96
test_images = 32
network = "lenet5"
precision = ["32", "64"]
max_pool = ["hybrid:0", "hybrid:10"]
seeds = 2
epochs = 1
batch_size = 32
[search]
trials = 3
epochs = 2
low = 1e-3
"""


def propose(how: Search, count: int) -> list[float]:
    base = spec.parse(SPEC, "s.toml").trials()[0]
    candidates: list[Candidate] = []
    for number in range(count):
        rate = search.candidate(search.template(base, how), how, ACCURACY, candidates).learning_rate
        assert rate is not None
        candidates.append(Candidate(rate, "finished", (0.1 * number,)))
    return [candidate.learning_rate for candidate in candidates]


def test_rates_are_log_uniform() -> None:
    rates = [rate for seed in range(0, 400, 10) for rate in propose(Search(seed=seed, trials=5), 5)]
    logs = [(math.log10(rate) + 5) / 4 for rate in rates]
    assert all(0 <= value <= 1 for value in logs)
    # Kolmogorov-Smirnov against the uniform distribution: 1.63/√n is passed once in a hundred.
    distance = max(
        max(abs(value - i / len(logs)), abs(value - (i + 1) / len(logs)))
        for i, value in enumerate(sorted(logs))
    )
    assert distance < 1.63 / math.sqrt(len(logs))


def test_what_is_proposed_depends_on_the_candidates_before_alone() -> None:
    how = Search(trials=15)
    assert propose(how, 15) == propose(how, 15)
    assert propose(how, 8) == propose(how, 15)[:8]
    assert propose(replace(how, seed=1), 3) != propose(how, 3)


@pytest.mark.parametrize("accuracies", [(0.1, 0.2), (0.5, 0.6), (0.3, 0.35), (0.39, 0.41)])
def test_stopping_is_optunas_median_rule(accuracies: tuple[float, ...]) -> None:
    earlier = tuple(Candidate(0.01, "finished", (0.2 + 0.1 * n, 0.3 + 0.1 * n)) for n in range(5))
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner())
    for one in earlier:
        trial = study.ask()
        for epoch, accuracy in enumerate(one.values):
            trial.report(accuracy, epoch)
        study.tell(trial, one.values[-1])
    trial = study.ask()
    stop = BelowMedian(Search(), ACCURACY, earlier, 0.02)
    for epoch, accuracy in enumerate(accuracies):
        trial.report(accuracy, epoch)
        assert stop(accuracies[: epoch + 1]) == trial.should_prune()


def test_nothing_is_stopped_before_there_are_five() -> None:
    earlier = tuple(Candidate(0.01, "finished", (0.9,)) for _ in range(4))
    assert not BelowMedian(Search(), ACCURACY, earlier, 0.02)((0.0,))
    assert BelowMedian(Search(), ACCURACY, (*earlier, earlier[0]), 0.02)((0.0,))


def test_a_diverged_candidate_is_worth_nothing() -> None:
    diverged = Candidate(0.1, "diverged", (0.9,))
    assert (
        search.best([diverged, Candidate(0.01, "finished", (0.2,))], ACCURACY).learning_rate == 0.01
    )
    pruned = Candidate(0.05, "pruned", (0.8,))
    assert search.best([diverged, pruned], ACCURACY).learning_rate == 0.1


@pytest.mark.parametrize("per_selection", [False, True])
def test_a_rate_is_found_once_for_all_selections_or_for_each(
    tmp_path: Path, per_selection: bool
) -> None:
    text = SPEC + f"per_selection = {str(per_selection).lower()}\n"
    run(spec.parse(text, "s.toml"), tmp_path / "s", threads=1)
    with reading(tmp_path / "s") as study:
        trials, candidates = study.trials(), study.trials(candidates=True)
        searches = study.rows("SELECT * FROM searches")
    groups = {(t.precision, t.selections["max_pool"] if per_selection else "") for t in trials}
    assert len(searches) == len(groups)
    assert len(candidates) == 3 * len(groups)
    assert all(trial.state == "finished" for trial in trials)
    by_group: dict[tuple[str, str | None], set[float | None]] = {}
    for trial in trials:
        key = (trial.precision, trial.selections["max_pool"] if per_selection else "")
        by_group.setdefault(key, set()).add(trial.learning_rate)
    assert all(len(rates) == 1 for rates in by_group.values())
    # The rate is that of the candidate with the best last accuracy.
    for precision in ("float32", "float64"):
        mine = [c for c in candidates if c.precision == precision]
        if not per_selection:
            winner = max(mine, key=lambda c: c.value or 0.0)
            assert by_group[precision, ""] == {winner.learning_rate}
            assert [c.selections for c in mine] == [{}] * 3
        else:
            assert {c.selections["max_pool"] for c in mine} == {"hybrid:0", "hybrid:10"}


def test_a_finished_search_serves_trials_that_come_later(tmp_path: Path) -> None:
    run(spec.parse(SPEC, "s.toml"), tmp_path / "s", threads=1)
    run(spec.parse(SPEC.replace("seeds = 2", "seeds = 3"), "s.toml"), tmp_path / "s", threads=1)
    with reading(tmp_path / "s") as study:
        assert len(study.trials(candidates=True)) == 6
        assert {trial.state for trial in study.trials()} == {"finished"}


def test_without_optuna_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r'optuna is needed .*pip install "kinkcheck\[search\]"'):
        run(spec.parse(SPEC, "s.toml"), tmp_path / "s", threads=1)
    assert not (tmp_path / "s").exists()
