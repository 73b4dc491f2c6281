"""Tables and sentences of a study."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from kinkcheck.study.criteria import Criterion
from kinkcheck.study.reading import Trial
from kinkcheck.study.settings import Settings
from kinkcheck.study.summary import Group, varied, varying

if TYPE_CHECKING:  # a study is read without PyTorch
    from kinkcheck.study.estimate import Estimate

_HEADINGS = {
    "data": "data",
    "network": "network",
    "batch_norm": "batch norm",
    "precision": "precision",
    "optimizer": "optimizer",
    "learning_rate": "rate",
    "forward": "forward",
    "backward": "backward",
    "relu": "ReLU'(0)",
}


def value_table(found: Sequence[Group], criterion: Criterion) -> Table:
    """Mean ± standard deviation of what decides, on the test set, a row a configuration.

    Only factors that vary have a column; diverged runs are counted beside the mean, not in it.
    """
    shown, families = varying(found), varied(found)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in (*shown, *families):
        table.add_column(_HEADINGS.get(name, name.replace("_", " ")))
    for heading in (f"test {criterion.label}", "runs", "diverged", "left"):
        table.add_column(heading, justify="right")
    if any(len(group.values) > 1 for group in found):
        table.caption = "±: one standard deviation between runs (n − 1)"
        table.caption_justify = "left"
    previous: list[str] = []
    for group in found:
        cells = [value_text(name, group.factors[name]) for name in shown]
        cells += [group.selections.get(family, "native") for family in families]
        # What repeats the row above is dim, so that the eye finds where something changes.
        texts = [
            Text(cell, style="dim" if cells[: i + 1] == previous[: i + 1] else "")
            for i, cell in enumerate(cells)
        ]
        table.add_row(
            *texts,
            mean_text(group, criterion),
            str(group.runs),
            str(group.diverged or "--"),
            str(group.left or "--"),
        )
        previous = cells
    return table


def mean_text(group: Group, criterion: Criterion) -> str:
    """Mean ± deviation, in per cent where it is a share.

    >>> from kinkcheck.study.criteria import ACCURACY
    >>> mean_text(Group({}, {}, [0.95, 0.96]), ACCURACY)
    '95.50 ± 0.71'
    >>> mean_text(Group({}, {}, diverged=3), ACCURACY)
    '--'
    """
    if math.isnan(group.mean):
        return "--"
    told = [_number(criterion, each) for each in (group.mean, group.deviation)]
    return told[0] if math.isnan(group.deviation) else " ± ".join(told)


def _number(criterion: Criterion, value: float) -> str:
    return criterion.text(value).removesuffix(" %")


def value_text(name: str, value: object) -> str:
    """A factor's value as it is shown.

    >>> [value_text("batch_norm", True), *(value_text("learning_rate", v) for v in (None, 0.02))]
    ['yes', 'searched', '0.02']
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "searched"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def study_sentence(found: Sequence[Group], criterion: Criterion) -> str:
    """What a study says, in one sentence.

    Rules: runs that are left; then those that diverged and, if all runs of some configurations did,
    how many; then, where runs finished under more than one selection and all else equal, the
    largest difference between two means beside the largest deviation between seeds.

    >>> from kinkcheck.study.criteria import ACCURACY
    >>> study_sentence([], ACCURACY)
    'There is no trial.'
    """
    runs = sum(group.runs for group in found)
    if not runs:
        return "There is no trial."
    left = sum(group.left for group in found)
    finished = sum(len(group.values) for group in found)
    parts = [f"{finished} of {runs} runs finished"]
    diverged = sum(group.diverged for group in found)
    if diverged:
        wholly = sum(group.diverged == group.runs for group in found)
        every = f", in {wholly} of {len(found)} configurations every one" if wholly else ""
        parts.append(f"{diverged} diverged{every}")
    if left:
        parts.append(f"{left} are left")
    sentence = "; ".join(parts)
    spread = _spread(found)
    if spread is not None:
        largest, where, deviation = spread
        points = " points" if criterion.share else ""
        sentence += (
            f". Between selections, all else equal, mean {criterion.words} differs by at most "
            f"{_number(criterion, largest)}{points}{where}"
        )
        if math.isnan(deviation):
            sentence += "; one seed does not tell that from chance"
        else:
            sentence += (
                f"; its standard deviation between seeds is up to {_number(criterion, deviation)}"
            )
    return f"{sentence}."


def _spread(found: Sequence[Group]) -> tuple[float, str, float] | None:
    """The largest difference between selections, where it is, and the largest deviation."""
    by_rest: dict[tuple[object, ...], list[Group]] = {}
    for group in found:
        if math.isfinite(group.mean):
            by_rest.setdefault(tuple(group.factors.values()), []).append(group)
    several = [together for together in by_rest.values() if len(together) > 1]
    if not several:
        return None

    def width(together: Sequence[Group]) -> float:
        means = [group.mean for group in together]
        return max(means) - min(means)

    widest = max(several, key=width)
    values = [value_text(name, widest[0].factors[name]) for name in varying(found)]
    deviations = [g.deviation for t in several for g in t if not math.isnan(g.deviation)]
    where = f" ({', '.join(values)})" if values else ""
    return width(widest), where, max(deviations, default=math.nan)


def status_table(trials: Sequence[Trial]) -> Table:
    """How many trials are in each state, and how far those are that have begun."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("state", "trials", "epochs"):
        table.add_column(heading, justify="left" if heading == "state" else "right")
    states = Counter(trial.state for trial in trials)
    for state in ("finished", "diverged", "pruned", "running", "failed", "waiting"):
        if states[state]:
            these = [trial for trial in trials if trial.state == state]
            done = sum(trial.done for trial in these)
            planned = sum(trial.epochs for trial in these)
            table.add_row(state, str(states[state]), f"{done:,} of {planned:,}")
    return table


def settings_text(settings: Settings) -> str:
    """A trial in a few words.

    >>> from kinkcheck.study.spec import shipped
    >>> settings_text(shipped("smoke").trials()[0])
    'lenet5 float16 hybrid:0 seed 0'
    """
    words = [*settings.task.words, settings.precision]
    if settings.optimizer != "sgd":
        words.append(settings.optimizer)
    words += [each for each in (settings.forward, settings.backward) if each != "exact"]
    for family, chosen in settings.selections.items():
        words.append(chosen if family == "max_pool" else f"{family} {chosen}")
    if settings.candidate:
        words.append(f"candidate {settings.learning_rate:.3g}" if settings.learning_rate else "")
    else:
        words.append(f"seed {settings.seed}")
    return " ".join(filter(None, words))


def estimate_table(found: Estimate) -> Table:
    """What each kind of trial costs."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("trained", "precision", "forward"):
        table.add_column(heading)
    for heading in ("trials", "steps", "ms a step", "time"):
        table.add_column(heading, justify="right")
    for kind in found.kinds:
        words = [kind.optimizer] if kind.optimizer != "sgd" else []
        table.add_row(
            ", ".join([*kind.words, *words]),
            kind.precision,
            kind.forward,
            f"{kind.trials:,}",
            f"{kind.steps:,}",
            f"{1e3 * kind.seconds_a_step:.3g}",
            duration_text(kind.seconds),
        )
    return table


def estimate_sentence(found: Estimate) -> str:
    """What the whole study costs, and what the estimate rests on."""
    trials = "1 trial" if found.trials == 1 else f"{found.trials:,} trials"
    candidates = f" and {found.candidates:,} candidates of searches" if found.candidates else ""
    sizes = (
        "; the data were not looked at, their published sizes were taken (give --data-dir)"
        if found.published_sizes
        else ""
    )
    return (
        f"{trials}{candidates}, {found.steps:,} steps: about "
        f"{duration_text(found.seconds)} on this machine, one after the other, and "
        f"{found.disk / 1e6:,.0f} MB of disk. Measured on "
        f"{'random images' if found.random_images else 'the first training samples'}{sizes}; "
        "a trial that diverges stops early."
    )


def duration_text(seconds: float) -> str:
    """A duration in two units at most.

    >>> [duration_text(s) for s in (4.2, 100, 7000, 200_000)]
    ['4 s', '1 min 40 s', '1 h 56 min', '2 days 7 h']
    """
    rounded = max(round(seconds), 1)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    if rounded < 86400:
        return f"{rounded // 3600} h {rounded % 3600 // 60} min"
    return f"{rounded // 86400:,} days {rounded % 86400 // 3600} h"
