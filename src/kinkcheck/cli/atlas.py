"""``kinkcheck atlas``: what each framework returns at the kinks of each operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kinkcheck.atlas.adapters import FRAMEWORKS
from kinkcheck.cli.options import QUICK, completes
from kinkcheck.errors import InputError, nearest, unknown
from kinkcheck.ops.row import require_name
from kinkcheck.ops.table import ROWS
from kinkcheck.terminal import Terminal, say

if TYPE_CHECKING:
    from kinkcheck import atlas as data
    from kinkcheck.atlas.answers import Answers, Difference

atlas = typer.Typer(
    context_settings=QUICK,
    help="Say what each framework returns at the kinks of each operation.",
)

Column = Annotated[
    str, typer.Argument(metavar="COLUMN", help="jax, torch-2.13, ...: kinkcheck atlas lists them.")
]


@atlas.callback(invoke_without_command=True)
def table(
    ctx: typer.Context,
    operation: Annotated[
        str | None,
        typer.Option(
            metavar="O",
            autocompletion=completes(sorted({n for row in ROWS for n in (row.family, row.name)})),
            help="clamp, max_pool2d, or a family: max_pool.",
        ),
    ] = None,
    framework: Annotated[str | None, typer.Option(metavar="F", help="jax, torch-2.13, ...")] = None,
    kink: Annotated[
        str | None, typer.Option(metavar="K", help="'at 0', 'tie of 2', tie, zero, ...")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the whole table.")] = False,
) -> None:
    """Say what each framework returns at the kinks of each operation.

    Without options: which frameworks there are, and where what they return lies.
    """
    if ctx.invoked_subcommand is not None:
        return
    names = _names(operation)

    from kinkcheck.atlas.answers import answers
    from kinkcheck.atlas.table import read

    whole = read()
    columns = list(whole.columns.values()) if framework is None else [whole.column(framework)]
    probes = [
        probe
        for probe in _at(list(whole.probes.values()), kink)
        if names is None or probe.operation in names
    ]
    if not probes:
        kinks = dict.fromkeys(p.kink for p in whole.probes.values() if p.operation in (names or ()))
        near = nearest(kink, kinks)
        raise InputError(f"{operation} has no kink {kink!r};{near} accepted: {', '.join(kinks)}")
    out = Terminal()
    if operation is framework is kink is None and not verbose:
        out.print(_summary(whole))
        out.print(
            "\nWhat is the derivative of a piece and the least there is counts twice. "
            "kinkcheck atlas --operation clamp shows an operation, --framework jax a framework, "
            "-v all.",
        )
        return
    found = answers(whole, columns, probes, lacking=operation is not None)
    if not found:
        say("The frameworks that were asked for lack this operation.")
    _show(out, found, whole, alone=len(columns) == 1)


@atlas.command()
def diff(one: Column, other: Column) -> None:
    """Say where two frameworks, or two versions of one, return different derivatives."""
    from kinkcheck.atlas.answers import differences
    from kinkcheck.atlas.table import read

    whole = read()
    columns = whole.column(one), whole.column(other)
    found = differences(whole, *columns)
    names = [column.name for column in columns]
    if not found:
        say(f"{names[0]} and {names[1]} return the same wherever both were measured.")
        return
    _show_differences(Terminal(), found, names)


@atlas.command()
def run(
    framework: Annotated[
        str | None, typer.Argument(metavar="[FRAMEWORK]", help=f"{', '.join(FRAMEWORKS)}.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="What its compiler makes, too: minutes.")
    ] = False,
) -> None:
    """Measure the frameworks that are installed, and say where they depart from the table.

    Exit code 1 if one departs from the column of its own version.
    """
    if framework is not None and framework not in FRAMEWORKS:
        raise unknown("framework", framework, FRAMEWORKS)
    installed = [name for name in FRAMEWORKS if _is_installed(name)]
    if framework is not None and framework not in installed:
        raise InputError(f"{framework} is not installed; installed: {', '.join(installed)}")

    from kinkcheck.atlas.answers import differences
    from kinkcheck.atlas.measuring import column
    from kinkcheck.atlas.table import Column, read

    whole, out, departs = read(), Terminal(), False
    for name in installed if framework is None else [framework]:
        measured = Column.of(column(name, compiled))
        stored = _nearest(whole, measured)
        found = differences(whole, measured, stored)
        if not compiled:
            found = [each for each in found if "compiled" not in each.how]
        own = stored.name == measured.name
        departs |= own and bool(found)
        beside = "" if own else f" (the table has no {measured.name})"
        if not found:
            say(f"{name} {measured.version} is as {stored.name} says{beside}.")
            continue
        say(f"{name} {measured.version} departs from {stored.name}{beside}:")
        _show_differences(out, found, ["measured", stored.name])
    if departs:
        raise typer.Exit(1)


def _names(operation: str | None) -> set[str] | None:
    """The operations that are meant."""
    if operation is None:
        return None
    require_name(operation, ROWS)
    from kinkcheck.atlas.probes import ANSWERED_BY

    named = {row.name for row in ROWS if operation in (row.name, row.family)}
    return {ANSWERED_BY.get(name, name) for name in named}


def _at(probes: Sequence[data.Probe], kink: str | None) -> list[data.Probe]:
    """The probes at a kink, or at all whose names begin so."""
    if kink is None:
        return list(probes)
    there = [probe for probe in probes if f"{probe.kink} ".startswith(f"{kink} ")]
    if not there:
        raise unknown("kink", kink, dict.fromkeys(probe.kink for probe in probes))
    return there


def _summary(whole: data.Table) -> Table:
    from kinkcheck.atlas.clarke import LIES

    heads = ["branch", "minimal", "inside", "outside", "nan"]
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for head in ["framework", "version", "kinks", *heads, "error"]:
        shown.add_column(head, justify="left" if head in ("framework", "version") else "right")
    assert set(heads) == set(LIES)
    for column in whole.columns.values():
        counts = Counter(each.lies[0] if each.lies else "error" for each in column.found.values())
        both = sum(each.lies == ("minimal", "branch") for each in column.found.values())
        counts["branch"] += both
        shown.add_row(
            column.framework, column.version, str(len(column.found)),
            *(str(counts[head]) for head in [*heads, "error"]),
        )  # fmt: skip
    return shown


def _show(out: Terminal, found: Sequence[Answers], whole: data.Table, alone: bool) -> None:
    from kinkcheck.atlas.answers import spoken

    title = ""
    for kinks in found:
        if kinks.title != title:
            title = kinks.title
            out.print(Text(title, style="bold"))
        rows = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        rows.add_column(width=22)
        rows.add_column(width=12)
        rows.add_column(width=15)
        rows.add_column()
        where = kinks.where
        for answer in kinks.answers:
            names = "" if alone else spoken(answer.columns, whole)
            rows.add_row(where, answer.returned, ", ".join(answer.lies), names)
            where = ""
        out.print(Padding(rows, (0, 0, 0, 2)))


def _show_differences(out: Terminal, found: Sequence[Difference], names: Sequence[str]) -> None:
    rows = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("operation", "where", "", *names):
        rows.add_column(head)
    for each in found:
        rows.add_row(each.title, each.where, each.how, *each.returned)
    out.print(rows)


def _is_installed(framework: str) -> bool:
    from importlib.util import find_spec

    return find_spec(framework) is not None


def _nearest(whole: data.Table, measured: data.Column) -> data.Column:
    """The column of its version, else of the newest before it, else of the oldest."""
    of_it = [each for each in whole.columns.values() if each.framework == measured.framework]
    before = [each for each in of_it if each.numbers <= measured.numbers]
    same = [each for each in of_it if each.name == measured.name]
    return (same or before[-1:] or of_it[:1])[-1]
