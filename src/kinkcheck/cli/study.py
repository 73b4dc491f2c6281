"""``kinkcheck study``: training studies, from the spec to the plots."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.table import Table

from kinkcheck.cli.options import (
    QUICK,
    DataDir,
    Device,
    GpuShare,
    ManyValues,
    Ray,
    RayAddress,
    Threads,
    on_cluster,
)
from kinkcheck.errors import InputError, unknown
from kinkcheck.files import require_other, require_writable, write_whole_bytes
from kinkcheck.report import ink
from kinkcheck.report.study import (
    estimate_sentence,
    estimate_table,
    settings_text,
    status_table,
    study_sentence,
    value_table,
)
from kinkcheck.study import export as exporting
from kinkcheck.study.reading import reading
from kinkcheck.study.summary import groups
from kinkcheck.terminal import Terminal, say

if TYPE_CHECKING:
    from kinkcheck.study import spec as specs

study = typer.Typer(
    context_settings=QUICK,
    no_args_is_help=True,
    help="Train networks under each selection, and compare what comes out.",
)

Name = TypeVar("Name", bound=str)


def _named(incomplete: str) -> list[str]:  # Typer goes by the name of the argument
    from kinkcheck.study import spec as specs

    return [name for name in specs.names() if name.startswith(incomplete)]


Spec = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        autocompletion=_named,
        help="A name that kinkcheck study specs lists, or a .toml.",
    ),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="What kinkcheck study run wrote to.")]


@study.command("specs")
def specs_(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            autocompletion=_named,
            help="Print this one, to start your own from.",
        ),
    ] = None,
) -> None:
    """List the specs that ship with kinkcheck, or print one of them."""
    from kinkcheck.study import spec as specs

    if name is not None:
        print(specs.source(name), end="")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("spec", no_wrap=True)
    table.add_column("trials", justify="right")
    table.add_column("what it trains")
    for each in specs.names():
        spec = specs.shipped(each)
        table.add_row(each, f"{len(spec.trials()):,}", spec.description)
    Terminal().print(table)


@study.command()
def check(
    spec: Spec,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Say what a study will take, from a short measurement; nothing is trained."""
    declared = _load(spec)
    console = Terminal(stderr=True)
    with console.waiting("Measuring ...") as say_else:
        from kinkcheck.study.estimate import estimate

        found = estimate(
            declared,
            data_dir=data_dir,
            device=device,
            threads=threads,
            on_kind=lambda done, total: say_else(f"Measuring ... {done} of {total}"),
        )
    out = Terminal()
    out.print(estimate_table(found))
    out.print(estimate_sentence(found))


@study.command(cls=RayAddress)
def run(
    spec: Spec,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Keep what is found here; go on if it is there."),
    ],
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = None,
    ray: Ray = None,
    gpu_share: GpuShare = 1.0,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write TensorBoard logs here as well.")
    ] = None,
) -> None:
    """Run a study, or go on where it stopped."""
    declared = _load(spec)

    console = Terminal(stderr=True)
    try:
        with on_cluster(ray, gpu_share, console) as cluster:
            from kinkcheck.cli.watching import watching
            from kinkcheck.report.tensorboard import TensorBoard
            from kinkcheck.study.cluster import Trials
            from kinkcheck.study.run import run as run_study

            others = [] if tensorboard is None else [TensorBoard(tensorboard)]
            with watching(console, *others) as watcher:
                ended = run_study(
                    declared,
                    out,
                    data_dir=data_dir,
                    device=device,
                    threads=threads,
                    executor=None if cluster is None else Trials(cluster),
                    watcher=watcher,
                )
    except KeyboardInterrupt:
        say("kinkcheck: stopped; the same command goes on from here", error=True)
        raise
    table(out)
    failed = [trial for trial in ended if trial.state == "failed"]
    if failed:
        say(
            f"kinkcheck: {len(failed)} trials failed, among them "
            f"{settings_text(failed[0].settings)}; the same command tries again",
            error=True,
        )
        raise typer.Exit(1)
    if not all(trial.over for trial in ended):
        say(
            "kinkcheck: a search for a learning rate failed, and the trials that wait for it did "
            f"not start; `kinkcheck study status {out}` says why; the same command tries again",
            error=True,
        )
        raise typer.Exit(1)


@study.command()
def status(folder: Folder) -> None:
    """Say how far a study is, and which process runs it."""
    with reading(folder) as opened:
        trials, candidates = opened.trials(), opened.trials(candidates=True)
        process = opened.running()
        tables = status_table(trials), status_table(candidates)
    console = Terminal()
    console.print(tables[0])
    if candidates:
        console.print("", "searches for a learning rate:", tables[1], sep="\n")
    for trial in (*trials, *candidates):
        if trial.state == "failed":
            say(f"trial {trial.trial} failed: {trial.reason}")
    over = sum(trial.state in ("finished", "diverged") for trial in trials)
    say(
        f"Process {process} is at it."
        if process is not None
        else "All trials are done."
        if over == len(trials)
        else "No process is at it; start kinkcheck study run again to go on."
    )


@study.command()
def table(folder: Folder) -> None:
    """Mean and deviation of what decides, on the test set, with the runs and the diverged ones."""
    with reading(folder) as opened:
        found = groups(opened.trials(), by_rate=opened.lists_rates())
        values = value_table(found, opened.criterion)
        sentence = study_sentence(found, opened.criterion)
    console = Terminal()
    console.print(values)
    console.print(sentence)


@study.command("export")
def export_(
    folder: Folder,
    form: Annotated[
        str, typer.Option("--format", metavar="F", help=f"{', '.join(exporting.FORMATS)}.")
    ] = "csv",
    what: Annotated[
        str, typer.Option("--table", metavar="T", help=f"{', '.join(exporting.QUERIES)}.")
    ] = "epochs",
    timing: Annotated[bool, typer.Option("--timing", help="With measured seconds.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="By default standard output.")
    ] = None,
) -> None:
    """Write a table of a study as CSV, JSON or Parquet."""
    written_as = _one_of("format", form, exporting.FORMATS)
    asked = _one_of("table", what, exporting.QUERIES)
    if out is not None:
        require_writable(out, "--out")
        require_other(out, "--out", folder)
    with reading(folder) as opened:
        content = exporting.export(opened, asked, written_as, timing=timing)
    if out is None:
        sys.stdout.buffer.write(content)
        return
    try:
        write_whole_bytes(out, content)
    except OSError as error:
        raise InputError(f"--out: {out} cannot be written: {error.strerror}") from error


@study.command(cls=ManyValues)
def plot(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to put the figures.")],
    forms: Annotated[
        list[str] | None,
        typer.Option("--format", metavar="F", help="png, svg, pdf; by default all."),
    ] = None,
) -> None:
    """Draw what decides by selection and loss by epoch, or weight divergence."""
    wanted = dict.fromkeys(_one_of("format", form, ink.FORMATS) for form in forms or ink.FORMATS)

    from kinkcheck.report import study_plots

    with reading(folder) as opened:
        drawn = {
            out / f"{name}.{form}": ink.save(figure, form)
            for name, figure in study_plots.figures(opened).items()
            for form in wanted
        }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in drawn:
            require_writable(path, "--out")
        for path, content in drawn.items():
            write_whole_bytes(path, content)
    except OSError as error:
        raise InputError(f"--out: {out} cannot be written: {error.strerror}") from error
    for path in drawn:
        say(path)


def _load(text: str) -> specs.Spec:
    """The declared study, after its warnings."""
    from kinkcheck.study import spec as specs

    declared = specs.load(text)
    for warning in specs.warnings(declared):
        say(f"kinkcheck: warning: {warning}", error=True)
    return declared


def _one_of(option: str, name: str, accepted: Iterable[Name]) -> Name:
    for each in accepted:
        if each == name:
            return each
    raise InputError(f"--{option}: {unknown(option, name, accepted)}")
