"""Tables and sentences of the papers' experiments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from rich.table import Table

from kinkcheck.paper.harness.comparison import Comparison
from kinkcheck.paper.harness.experiment import Experiment
from kinkcheck.paper.harness.rows import Line, Value
from kinkcheck.terminal import Terminal

_SHOWN = 40  # rows; the file has all
_WORD = 12  # characters of a word that is broken at the earliest


def print_numbers(rows: Sequence[Line], console: Terminal) -> None:
    """Print the numbers of an experiment as they are, a column each; a number is never broken.

    Texts are folded where the console is narrow; lines get longer than the console where even that
    does not suffice.

    >>> print_numbers([{"accuracy": 94.97, "lost": 0.25}], Terminal(width=10))
    accuracy  lost
       94.97  0.25
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    gap = 2 if len(columns) < 8 else 1
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    texts = {
        column: [column.replace("_", " "), *(value_text(row.get(column)) for row in rows[:_SHOWN])]
        for column in columns
    }
    numeric = {
        column: all(isinstance(row.get(column), int | float | None) for row in rows)
        for column in columns
    }
    longest = {
        column: max(len(word) for text in texts[column] for word in text.split())
        for column in columns
    }
    widths = {c: longest[c] if numeric[c] else min(longest[c], _WORD) for c in columns}
    spare = console.width - sum(widths.values()) - gap * len(columns)
    for column in columns:
        wish = 0 if numeric[column] else max(map(len, texts[column])) - widths[column]
        more = max(0, min(wish, spare))
        widths[column] += more
        spare -= more
        justify: Literal["right", "left"] = "right" if numeric[column] else "left"
        table.add_column(texts[column][0], justify=justify, overflow="fold", width=widths[column])
    for row in rows[:_SHOWN]:
        table.add_row(*(value_text(row.get(column)) for column in columns))
    width = max(console.width, sum(widths.values()) + gap * len(columns))
    Terminal(file=console.file, width=width).print(table)
    if len(rows) > _SHOWN:
        console.print(f"and {len(rows) - _SHOWN} more rows")


def value_text(value: Value) -> str:
    """A value as it is shown.

    >>> [value_text(value) for value in (None, True, 0.12345678, 12, "native")]
    ['--', 'yes', '0.1235', '12', 'native']
    """
    if value is None:
        return "--"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def experiment_table(experiments: Iterable[Experiment[Any]]) -> Table:
    """A row an experiment: its name, the time of the reduced size, what the full one needs.

    A time that was not measured has a question mark.

    >>> [column.header for column in experiment_table([]).columns]
    ['name', 'time, reduced', 'needs, full size', 'published']
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    for heading in ("time, reduced", "needs, full size", "published"):
        table.add_column(heading)
    for each in experiments:
        reduced = each.cost_reduced
        table.add_row(
            each.name,
            f"{reduced.time}, {reduced.on}{'' if reduced.measured else ' ?'}",
            each.cost.needs,
            "yes" if each.compare else "no",
        )
    return table


def experiment_text(experiment: Experiment[Any]) -> str:
    """What an experiment shows, and what it takes, a line each."""
    return "\n".join(
        [
            f"{experiment.shows} ({experiment.source})",
            f"full size: {experiment.cost}",
            f"reduced: {experiment.cost_reduced}",
            f"published values: {'to compare with' if experiment.compare else 'none'}",
            experiment.reduced_cannot,
        ]
    )


def comparison_table(found: Sequence[Comparison], *, judged: bool = True) -> Table:
    """Ours, the published value, the difference, and whether sampling explains it.

    Args:
        found: the values.
        judged: whether both are of one quantity, so that there is something to explain.

    >>> [column.header for column in comparison_table([], judged=False).columns]
    ['value', 'ours', 'published', 'difference']
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("value")
    for heading in ("ours", "published", "difference"):
        table.add_column(heading, justify="right")
    if judged:
        table.add_column("within sampling error")
    words = {True: "yes", False: "no", None: "not known"}
    for each in found:
        table.add_row(
            each.what,
            f"{each.ours:.4g}",
            f"{each.published:.4g}",
            f"{each.difference:+.3g}",
            *[words[each.within]] * judged,
        )
    return table


def comparison_sentence(name: str, found: Sequence[Comparison], *, judged: bool = True) -> str:
    """How many comparisons have a verdict, and what it is.

    >>> agrees, open_ = Comparison("a", 1.0, 2.0, -2.0, 1.0), Comparison("b", 1.0, 2.0)
    >>> comparison_sentence("x", [agrees, open_])
    'x: 1 of 2 comparisons has a verdict: 1 agrees within sampling error (95 %), 0 do not.'
    >>> comparison_sentence("x", [open_])
    'x: 1 comparison, without a verdict: the sampling error is not known.'
    >>> comparison_sentence("x", [agrees], judged=False)
    'x: 1 comparison, without a verdict: reduced, this is not the published quantity.'
    >>> comparison_sentence("x", [])
    'x: nothing that was measured was published.'
    """
    if not found:
        return f"{name}: nothing that was measured was published."
    verdicts = [each.within for each in found if each.within is not None] if judged else []
    if not verdicts:
        why = (
            "the sampling error is not known"
            if judged
            else "reduced, this is not the published quantity"
        )
        return f"{name}: {_counted(len(found), 'comparison')}, without a verdict: {why}."
    agree = sum(verdicts)
    return (
        f"{name}: {len(verdicts)} of {_counted(len(found), 'comparison')} "
        f"{'has' if len(verdicts) == 1 else 'have'} a verdict: {agree} "
        f"{'agrees' if agree == 1 else 'agree'} within sampling error (95 %), "
        f"{len(verdicts) - agree} {'does' if len(verdicts) - agree == 1 else 'do'} not."
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
