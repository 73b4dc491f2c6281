"""``kinkcheck paper``: the experiments of the papers, beside the published values."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kinkcheck.cli.options import (
    QUICK,
    DataDir,
    Device,
    GpuShare,
    Ray,
    RayAddress,
    Threads,
    completes,
    on_cluster,
)
from kinkcheck.errors import InputError, blaming
from kinkcheck.paper.names import NAMES, UNPUBLISHED, require_experiment
from kinkcheck.terminal import Terminal, say

if TYPE_CHECKING:
    from kinkcheck.paper.harness.experiment import Experiment

paper = typer.Typer(
    context_settings=QUICK,
    no_args_is_help=True,
    help="Regenerate the papers' figures and tables, and compare them.",
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        autocompletion=completes([*NAMES, "all"]),
        help="What kinkcheck paper list names, or all.",
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Numbers and figures.")]


@paper.command("list")
def list_(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", autocompletion=completes(NAMES), help="Say more of this one."
        ),
    ] = None,
) -> None:
    """List the experiments, with what each needs, or say what one of them shows."""
    if name is not None:
        require_experiment(name)

    from kinkcheck.paper.catalogue import EXPERIMENTS, lookup
    from kinkcheck.paper.harness.tables import experiment_table, experiment_text

    console = Terminal()
    if name is not None:
        console.print(experiment_text(lookup(name)))
        return
    console.print(experiment_table(EXPERIMENTS.values()))
    console.print(
        "\nTimes were measured once, on the cores that they name; one with a question mark is "
        "an estimate. Published: whether there are published values to compare with. kinkcheck "
        "paper list NAME says what one shows, and what its sizes are."
    )


@paper.command(cls=RayAddress)
def run(
    name: Name,
    out: Out = Path("paper"),
    reduced: Annotated[
        bool, typer.Option("--reduced", help="As small as fits a laptop, not as published.")
    ] = False,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = None,
    ray: Ray = None,
    gpu_share: GpuShare = 1.0,
) -> None:
    """Measure an experiment and draw its figure; go on where an interrupted run stopped."""
    asked = _asked(name)
    errors = Terminal(stderr=True)
    with on_cluster(ray, gpu_share, errors) as cluster:
        from kinkcheck.paper.catalogue import lookup
        from kinkcheck.paper.harness.experiment import Setup
        from kinkcheck.paper.harness.running import run as run_experiment
        from kinkcheck.paper.harness.tables import print_numbers

        console = Terminal()
        for experiment in map(lookup, asked):
            if cluster is not None and not experiment.spreads:
                cluster.say(f"{experiment.name} cannot be spread over a cluster; it runs here")
            with _progress(experiment, errors) as on_progress:
                setup = Setup(
                    out / experiment.name,
                    reduced,
                    data_dir,
                    device,
                    threads,
                    on_progress,
                    cluster if experiment.spreads else None,
                )
                numbers = run_experiment(experiment, out, setup)
            with blaming(f"{out / experiment.name}.json: its rows cannot be shown"):
                shown = experiment.shown(numbers.rows)
            print_numbers(shown, console)
            console.tell(
                f"{experiment.name}: {experiment.shows}; numbers and figure are "
                f"{out / experiment.name}.*"
            )
            gc.collect()  # what hangs in circles is free only after it


@paper.command()
def compare(name: Name, out: Out = Path("paper")) -> None:
    """Set what was measured beside what was published."""
    asked = _asked(name)
    measured = [each for each in asked if (out / f"{each}.json").exists()]
    if not measured and name not in UNPUBLISHED:
        of, which = ("an experiment", "NAME") if name == "all" else (name, name)
        raise InputError(
            f"--out: {out} holds no numbers of {of}; kinkcheck paper run {which} --out {out} "
            "measures them"
        )
    for each in measured or asked:
        if each in UNPUBLISHED:
            say(f"{each}: nothing to compare with: it has no published values.")
        else:
            _compare(each, out)


def _compare(name: str, out: Path) -> None:
    """Print the comparison of one experiment, which was measured."""
    from kinkcheck.paper.catalogue import lookup
    from kinkcheck.paper.harness.running import read
    from kinkcheck.paper.harness.tables import comparison_sentence, comparison_table

    experiment = lookup(name)
    assert experiment.compare is not None
    numbers = read(experiment, out)
    with blaming(f"{out / name}.json: its rows cannot be compared"):
        found = experiment.compare(numbers.rows)
    console = Terminal()
    judged = not (numbers.reduced and experiment.reduced_is_other)
    console.print(comparison_table(found, judged=judged))
    console.print(comparison_sentence(name, found, judged=judged))
    if numbers.reduced:
        console.print(experiment.reduced_cannot)


def _asked(name: str) -> tuple[str, ...]:
    """The names that NAME stands for."""
    if name == "all":
        return NAMES
    require_experiment(name)
    return (name,)


@contextmanager
def _progress(
    experiment: Experiment[Any], console: Terminal
) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for what is being done; where there is no terminal, a line when that changes."""
    if not console.is_terminal:
        said: set[str] = set()

        def say(what: str, done: int, total: int) -> None:
            if what not in said:
                said.add(what)
                console.print(f"{experiment.name}: {what}")

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
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, speed_estimate_period=600) as bars:
        bar = bars.add_task(experiment.name, total=None)

        def show(what: str, done: int, total: int) -> None:
            bars.update(bar, description=f"{experiment.name}: {what}", completed=done, total=total)

        yield show
