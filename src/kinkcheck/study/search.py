"""The search for a learning rate, one candidate after the other.

A candidate is a trial of its own, so it is resumed like one. What is proposed next depends only on
the candidates before it, so a search that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kinkcheck.extras import require
from kinkcheck.study.criteria import Criterion
from kinkcheck.study.job import State
from kinkcheck.study.settings import Search, Settings
from kinkcheck.study.streams import stream


@dataclass(frozen=True)
class Candidate:
    """A learning rate that was tried.

    Attributes:
        learning_rate: that was tried.
        state: how it ended.
        values: how it was judged on the test set after each epoch.
    """

    learning_rate: float
    state: State
    values: tuple[float, ...]

    def value(self, criterion: Criterion) -> float:
        """What it is judged by: the last value, as published; the worst if it diverged."""
        done = self.values and self.state != "diverged" and not math.isnan(self.values[-1])
        return self.values[-1] if done else criterion.worst


def template(settings: Settings, search: Search) -> Settings:
    r"""The candidate that a trial's learning rate is searched with, but for the learning rate.

    It trains at a constant learning rate, under ``native`` and exact passes unless every
    selection is searched for. Equal templates share one search.

    >>> from kinkcheck.study.spec import parse
    >>> text = 'data = "mnist"\nnetwork = "lenet5"\nepochs = 9\nmax_pool = ["minimal", "last"]'
    >>> trials = parse(text, "t.toml").trials()
    >>> len({template(t, t.search).id for t in trials})
    1
    """
    if not search.per_selection:
        settings = replace(settings, selections={}, forward="exact", backward="exact")
    shortened = replace(
        settings,
        search=search,
        candidate=True,
        schedule="constant",
        epochs=search.epochs,
        probe=False,
    )
    return _seeded(shortened, search.seed)


def candidate(
    base: Settings, search: Search, criterion: Criterion, earlier: Sequence[Candidate]
) -> Settings:
    """The next candidate of a search.

    Args:
        base: the template.
        search: how to search.
        criterion: what candidates are judged by.
        earlier: the candidates before it, all over.

    Raises:
        InputError: Optuna is not installed.
    """
    number = len(earlier)
    study = _study(search, criterion, earlier)
    rate = study.ask().suggest_float("learning_rate", search.low, search.high, log=True)
    return _seeded(replace(base, learning_rate=float(rate)), search.seed + number)


def best(candidates: Sequence[Candidate], criterion: Criterion) -> Candidate:
    """The candidate with the best last value among those that were not stopped early.

    >>> from kinkcheck.study.criteria import ACCURACY
    >>> tried = [Candidate(0.1, "diverged", (0.9,)), Candidate(0.01, "finished", (0.8, 0.7))]
    >>> best(tried, ACCURACY)
    Candidate(learning_rate=0.01, state='finished', values=(0.8, 0.7))
    """
    whole = [candidate for candidate in candidates if candidate.state != "pruned"]
    return max(whole, key=lambda candidate: criterion.goodness(candidate.value(criterion)))


@dataclass(frozen=True)
class BelowMedian:
    """Stop a candidate whose best value so far is worse than the median of the earlier ones.

    Optuna's ``MedianPruner``, which waits for five candidates.

    Attributes:
        search: how to search.
        criterion: what candidates are judged by.
        earlier: the candidates before this one.
        learning_rate: of this one.
    """

    search: Search
    criterion: Criterion
    earlier: tuple[Candidate, ...]
    learning_rate: float

    def __call__(self, values: Sequence[float]) -> bool:
        """Whether to stop after the last of these epochs."""
        trial = _study(self.search, self.criterion, self.earlier).ask()
        for epoch, value in enumerate(values):
            trial.report(value, epoch)
        return bool(trial.should_prune())


def require_optuna() -> None:
    """Check that learning rates can be searched.

    Raises:
        InputError: Optuna is not installed; the message gives the command that installs it.
    """
    require("optuna", extra="search")


def _seeded(settings: Settings, seed: int) -> Settings:
    return replace(settings, seed=seed, init_seed=seed, order_seed=seed, augment_seed=seed)


def _study(search: Search, criterion: Criterion, earlier: Sequence[Candidate]) -> Any:
    """Optuna's study as it stood after the earlier candidates."""
    optuna: Any = require("optuna", extra="search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # One seed a candidate: what it draws does not depend on what the process drew before.
    sampler = optuna.samplers.TPESampler(seed=stream(search.seed, "search", len(earlier)) % 2**32)
    study = optuna.create_study(
        direction="maximize" if criterion.larger_is_better else "minimize",
        sampler=sampler,
        pruner=optuna.pruners.MedianPruner(),
    )
    space = optuna.distributions.FloatDistribution(search.low, search.high, log=True)
    states = optuna.trial.TrialState
    for one in earlier:
        pruned = one.state == "pruned"
        study.add_trial(
            optuna.trial.create_trial(
                params={"learning_rate": one.learning_rate},
                distributions={"learning_rate": space},
                intermediate_values=dict(enumerate(one.values)),
                state=states.PRUNED if pruned else states.COMPLETE,
                value=None if pruned else one.value(criterion),
            )
        )
    return study
