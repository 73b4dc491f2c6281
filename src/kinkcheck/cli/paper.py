"""``kinkcheck paper``: the experiments of the papers, beside the published values."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from kinkcheck.arithmetic.allocator import give_back
from kinkcheck.cli.options import QUICK, DataDir, Device
from kinkcheck.paper.names import require_experiment

if TYPE_CHECKING:
    from kinkcheck.paper.experiment import Experiment

paper = typer.Typer(
    context_settings=QUICK,
    no_args_is_help=True,
    help="Regenerate the papers' figures and tables, and compare them.",
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="What kinkcheck paper list names, or all.")
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Numbers and figures.")]


@paper.command("list")
def list_() -> None:
    """Say which experiments there are, what each shows and costs, and what was published."""
    from kinkcheck.paper.catalogue import EXPERIMENTS

    console = Console()
    for experiment in EXPERIMENTS.values():
        compared = "; published values to compare with" if experiment.compare else ""
        console.print(f"[bold]{experiment.name}[/bold]{compared}", highlight=False)
        for text in (
            f"{experiment.shows} ({experiment.source})",
            f"full size: {experiment.cost}",
            f"reduced: {experiment.cost_reduced}",
        ):
            console.print(Padding(escape(text), (0, 0, 0, 4)), highlight=False)


@paper.command()
def run(
    name: Name,
    out: Out = Path("paper"),
    reduced: Annotated[
        bool, typer.Option("--reduced", help="As small as fits a laptop, not as published.")
    ] = False,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of the CPU; by default PyTorch's.")
    ] = None,
) -> None:
    """Measure an experiment and draw its figure; go on where an interrupted run stopped."""
    chosen = _chosen(name)

    from kinkcheck.paper.experiment import Setup
    from kinkcheck.paper.running import run as run_experiment
    from kinkcheck.paper.tables import print_numbers

    console = Console()
    for experiment in chosen:
        with _progress(experiment) as on_progress:
            numbers = run_experiment(
                experiment,
                out,
                Setup(out / experiment.name, reduced, data_dir, device, threads, on_progress),
            )
        summarise = experiment.summarise or list
        print_numbers(summarise(numbers.rows), console)
        console.print(
            f"{experiment.name}: {experiment.shows}; numbers and figure are {out / experiment.name}"
            ".*",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        gc.collect()  # what hangs in circles is free only after it
        give_back()


@paper.command()
def compare(name: Name, out: Out = Path("paper")) -> None:
    """Set what was measured beside what was published."""
    chosen = _chosen(name)

    from kinkcheck.paper.running import read
    from kinkcheck.paper.tables import comparison_sentence, comparison_table

    console = Console()
    for experiment in chosen:
        if experiment.compare is None:
            if name != "all":
                print(f"{experiment.name}: no published numbers come with the package.")
            continue
        if name == "all" and not (out / f"{experiment.name}.json").exists():
            continue
        numbers = read(experiment.name, out)
        found = experiment.compare(numbers.rows)
        console.print(comparison_table(found))
        console.print(comparison_sentence(experiment.name, found), highlight=False, markup=False)
        if numbers.reduced:
            console.print(experiment.reduced_cannot, highlight=False, markup=False)


def _chosen(name: str) -> list[Experiment]:
    if name != "all":
        require_experiment(name)

    from kinkcheck.paper.catalogue import EXPERIMENTS, lookup

    return list(EXPERIMENTS.values()) if name == "all" else [lookup(name)]


@contextmanager
def _progress(experiment: Experiment) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for what is being done; where there is no terminal, a line when that changes."""
    console = Console(stderr=True)
    if not console.is_terminal:
        said: set[str] = set()

        def say(what: str, done: int, total: int) -> None:
            if what not in said:
                said.add(what)
                console.print(f"{experiment.name}: {what}", highlight=False, markup=False)

        yield say
        return

    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, speed_estimate_period=600) as bars:
        tasks = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(f"{experiment.name}: {what}", total=total)
            bars.update(tasks[what], completed=done, total=total, visible=done < total)

        yield show
