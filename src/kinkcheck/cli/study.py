"""``kinkcheck study``: training studies, from the spec to the plots."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand

from kinkcheck.cli.options import QUICK, DataDir, Device, ManyValues
from kinkcheck.errors import InputError, unknown
from kinkcheck.files import require_writable, write_whole_bytes
from kinkcheck.report import ink
from kinkcheck.report.study import (
    accuracy_table,
    estimate_sentence,
    estimate_table,
    settings_text,
    status_table,
    study_sentence,
)
from kinkcheck.study import export as exporting
from kinkcheck.study.reading import reading
from kinkcheck.study.summary import groups

if TYPE_CHECKING:
    from kinkcheck.study import spec as specs

study = typer.Typer(
    context_settings=QUICK,
    no_args_is_help=True,
    help="Train networks under each selection, and compare what comes out.",
)

Name = TypeVar("Name", bound=str)

Spec = Annotated[
    str, typer.Argument(metavar="SPEC", help="A name that kinkcheck study specs lists, or a .toml.")
]
Threads = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Of the CPU; by default PyTorch's number.")
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="On a Ray cluster: HOST:PORT, auto (this machine's), local (a new one); without "
        "ADDRESS the first that is there.",
    ),
]
GpuShare = Annotated[
    float,
    typer.Option(metavar="F", help="Of a GPU for each trial, with --ray: 0.25 puts four on one."),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="What kinkcheck study run wrote to.")]


@study.command("specs")
def specs_(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Print this one, to start your own from.")
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
    Console().print(table)


@study.command()
def check(
    spec: Spec,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Say what a study will take, from a short measurement; nothing is trained."""
    declared = _load(spec)
    console = Console(stderr=True)
    with console.status("Measuring ...") as status:
        from kinkcheck.study.estimate import estimate

        found = estimate(
            declared,
            data_dir=data_dir,
            device=device,
            threads=threads,
            on_kind=lambda done, total: status.update(f"Measuring ... {done} of {total}"),
        )
    out = Console()
    out.print(estimate_table(found))
    out.print(estimate_sentence(found), highlight=False, markup=False)


class RayAddress(TyperCommand):
    """A command whose option ``--ray`` may stand alone, which is to say with an empty address.

    What follows it is its address unless that is an option. So SPEC has to come first.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give the lonely option an empty value."""
        given: list[str] = []
        for argument, following in zip(args, [*args[1:], "-"], strict=bool(args)):
            given.append(argument)
            if argument == "--ray" and (following.startswith("-") or args[0].startswith("-")):
                given.append("")
        return list(super().parse_args(ctx, given))


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

    from kinkcheck.cli.watching import watching
    from kinkcheck.report.tensorboard import TensorBoard
    from kinkcheck.study.cluster import Cluster
    from kinkcheck.study.executor import Inline
    from kinkcheck.study.run import run as run_study

    others = [] if tensorboard is None else [TensorBoard(tensorboard)]
    try:
        with (
            watching(Console(stderr=True), *others) as watcher,
            nullcontext(Inline()) if ray is None else Cluster(ray or None, gpu_share) as executor,
        ):
            ended = run_study(
                declared,
                out,
                data_dir=data_dir,
                device=device,
                threads=threads,
                executor=executor,
                watcher=watcher,
            )
    except KeyboardInterrupt:
        print("kinkcheck: stopped; the same command goes on from here", file=sys.stderr)
        raise
    table(out)
    failed = [trial for trial in ended if trial.state == "failed"]
    if failed:
        print(
            f"kinkcheck: {len(failed)} trials failed, among them "
            f"{settings_text(failed[0].settings)}; the same command tries again",
            file=sys.stderr,
        )
        raise typer.Exit(1)
    if not all(trial.over for trial in ended):
        print(
            "kinkcheck: a search for a learning rate failed, and the trials that wait for it did "
            f"not start; `kinkcheck study status {out}` says why; the same command tries again",
            file=sys.stderr,
        )
        raise typer.Exit(1)


@study.command()
def status(folder: Folder) -> None:
    """Say how far a study is, and which process runs it."""
    with reading(folder) as opened:
        trials, candidates = opened.trials(), opened.trials(candidates=True)
        process = opened.running()
    console = Console()
    console.print(status_table(trials))
    if candidates:
        console.print("", "searches for a learning rate:", status_table(candidates), sep="\n")
    for trial in (*trials, *candidates):
        if trial.state == "failed":
            print(f"trial {trial.trial} failed: {trial.reason}")
    over = sum(trial.state in ("finished", "diverged") for trial in trials)
    print(
        f"Process {process} is at it."
        if process is not None
        else "All trials are done."
        if over == len(trials)
        else "No process is at it; start kinkcheck study run again to go on."
    )


@study.command()
def table(folder: Folder) -> None:
    """Mean and deviation of the final test accuracy, with the number of runs and diverged ones."""
    with reading(folder) as opened:
        found = groups(opened.trials(), by_rate=opened.lists_rates())
    console = Console()
    console.print(accuracy_table(found))
    console.print(study_sentence(found), highlight=False, markup=False)


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
    """Draw accuracy by selection and loss by epoch, or weight divergence."""
    wanted = dict.fromkeys(_one_of("format", form, ink.FORMATS) for form in forms or ink.FORMATS)
    with reading(folder) as opened:
        from kinkcheck.report import study_plots

        figures = study_plots.figures(opened)
    drawn = {
        out / f"{name}.{form}": ink.save(figure, form)
        for name, figure in figures.items()
        for form in wanted
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path, content in drawn.items():
            write_whole_bytes(path, content)
    except OSError as error:
        raise InputError(f"--out: {out} cannot be written: {error.strerror}") from error
    for path in drawn:
        print(path)


def _load(text: str) -> specs.Spec:
    """The declared study, after its warnings."""
    from kinkcheck.study import spec as specs

    declared = specs.load(text)
    for warning in specs.warnings(declared):
        print(f"kinkcheck: warning: {warning}", file=sys.stderr)
    return declared


def _one_of(option: str, name: str, accepted: Iterable[Name]) -> Name:
    for each in accepted:
        if each == name:
            return each
    raise InputError(f"--{option}: {unknown(option, name, accepted)}")
