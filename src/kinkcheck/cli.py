"""The command line: ``kinkcheck demo``, ``audit`` and ``doctor``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from torch import Tensor, nn
from typer.core import TyperCommand

import kinkcheck
from kinkcheck import data, networks, ops, precision, programs
from kinkcheck.audit.verdict import verdict
from kinkcheck.data import Images
from kinkcheck.doctor import findings
from kinkcheck.errors import InputError
from kinkcheck.files import require_writable, write_whole
from kinkcheck.networks.factory import load_factory
from kinkcheck.report import audit_tables, program_table
from kinkcheck.selection import parse

Value = TypeVar("Value")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Is your gradient right where your network is not differentiable?",
)


def main() -> None:
    """Run the command line; what is wrong with the input is said in one line, exit code 2."""
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except InputError as error:
        _fail(str(error))
    except typer.Abort:
        code = 130
    except _UsageError as error:
        _fail(error.format_message())
    if code == 130:
        _fail("interrupted", code)
    sys.exit(code)


# The base class of every complaint about the command line; Typer carries its own copy of Click, or
# did not yet, depending on its version.
_UsageError: Any = typer.BadParameter.__base__


def _fail(message: str, code: int = 2) -> None:
    print(f"kinkcheck: {message}", file=sys.stderr)
    sys.exit(code)


@app.callback(invoke_without_command=True)
def _kinkcheck(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.")
    ] = False,
) -> None:
    if show_version:
        print(version("kinkcheck"))
        raise typer.Exit


@app.command()
def demo() -> None:
    """Show programs that compute the same function and differ in their derivative."""
    console = Console()
    console.print(
        "max1 (a loop with >) and max2 (torch.max) compute one function, and so do two ReLUs that "
        "differ in their derivative at 0 alone. [bold]zero[/](t) = max1(t·x) − max2(t·x), and its "
        "like built from the ReLUs, are 0 for every t: a derivative other than 0 is wrong.\n"
    )
    for x in ((1.0, 2.0, 3.0, 4.0), (1.4,) * 4, (1.14,) * 4):
        by_t = {
            t: {
                name: programs.evaluate(t, x, precision.PRECISIONS[name].storage)
                for name in ("float16", "bfloat16", "float32", "float64")
            }
            for t in (0.0, 0.1, 1.0, -1e-4, -6.0)
        }
        console.print(program_table(x, by_t), "")
    console.print(
        "Where the tied entries differ (t = 0, distinct entries) AD is wrong over the reals: a "
        "bifurcation, at every precision. Where they are equal it is wrong in floating point only, "
        "by a rounding error that shrinks with the precision: a compensation."
    )


@app.command()
def doctor(
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to look for data sets in.")
    ] = None,
) -> None:
    """Say what was found on this machine: versions, kernels, devices, data."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for heading, finding in findings(data_dir):
        table.add_row(f"[bold]{heading}[/]", finding)
    Console().print(table)


class _ManyValues(TyperCommand):
    """A command whose repeatable options also take several values at once.

    ``--selections minimal last`` means ``--selections minimal --selections last``. The network has
    to come first, as in the synopsis, or it would be taken for one more value.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values."""
        many = {o for p in self.params if getattr(p, "multiple", False) for o in p.opts}
        if args and not args[0].startswith("-"):
            args = list(_one_value_each(args, many))
        return list(super().parse_args(ctx, args))


def _one_value_each(args: list[str], many: set[str]) -> Iterator[str]:
    option = None
    for previous, argument in zip(["", *args], args, strict=False):
        if argument.startswith("-"):
            option = argument if argument in many else None
        elif option is not None and previous != option:
            yield option
        yield argument


@app.command(cls=_ManyValues)
def audit(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help=f"{', '.join(networks.NAMES)}; or package.module:factory or "
            "path/to/file.py:factory, a function without arguments that returns an nn.Module.",
        ),
    ],
    data_name: Annotated[
        str, typer.Option("--data", metavar="NAME", help=f"{', '.join(data.NAMES)}.")
    ] = "mnist-sample",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder in the hub's layout; by default $KINKCHECK_DATA_DIR, else the hub.",
        ),
    ] = None,
    precisions: Annotated[
        list[str] | None,
        typer.Option(
            "--precision", metavar="P", help="16, bfloat16, 32, 64, mixed; by default 32."
        ),
    ] = None,
    selections: Annotated[
        list[str] | None,
        typer.Option(
            metavar="S",
            help="native, minimal, hybrid:BETA, first, last, random:SEED, branch:ALPHA; "
            "by default minimal.",
        ),
    ] = None,
    reference: Annotated[
        str, typer.Option(metavar="S", help="The selection to compare with.")
    ] = "native",
    operations: Annotated[
        list[str] | None,
        typer.Option(
            metavar="O",
            help=f"Switch only these: {', '.join(kind.family for kind in ops.OPERATIONS)}, or one "
            "of their names; by default all.",
        ),
    ] = None,
    batches: Annotated[int, typer.Option(metavar="N", help="Mini-batches.")] = 10,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Images in each.")] = 128,
    draws: Annotated[int, typer.Option(metavar="M", help="Parameter draws.")] = 1,
    init: Annotated[
        str, typer.Option(metavar="I", help=f"{', '.join(networks.INITIALISATIONS)}.")
    ] = "default",
    batch_norm: Annotated[
        bool, typer.Option("--batch-norm", help="The network with batch norm.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="S", help="Of parameters and data order.")] = 0,
    layers: Annotated[
        bool, typer.Option("--layers", help="Attribute the variation to sites, one at a time.")
    ] = False,
    device: Annotated[str, typer.Option(metavar="D", help="cpu, cuda, cuda:1, ...")] = "cpu",
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the numbers to a file as well."),
    ] = None,
) -> None:
    """Measure how far a gradient depends on the derivative chosen at kinks."""
    if json_file is not None:
        require_writable(json_file, "--json")
    for option, number in (
        ("--batches", batches), ("--batch-size", batch_size), ("--draws", draws),
    ):  # fmt: skip
        if number < 1:
            raise InputError(f"{option} must be at least 1, not {number}")
    console = Console(stderr=True)
    with console.status(f"Reading {data_name} ..."):
        images = _images(data_name, data_dir)
        pairs = _batches(images, batches, batch_size, seed)
    with _progress(console) as on_point:
        report = kinkcheck.audit(
            _factory(network, images, batch_norm, init),
            pairs,
            precisions=[_read("--precision", precision.parse, p) for p in precisions or ["32"]],
            selections=[_read("--selections", parse, s) for s in selections or ["minimal"]],
            reference=_read("--reference", parse, reference),
            operations=operations or None,
            draws=draws,
            layers=layers,
            device=device,
            seed=seed,
            network_name=network,
            data_name=images.name,
            on_point=on_point,
        )
    out = Console()
    for table in audit_tables(report):
        out.print(table)
    out.print(verdict(report), highlight=False, markup=False)
    if json_file is not None:
        try:
            write_whole(json_file, json.dumps(report.to_json(), indent=1) + "\n")
        except OSError as error:
            raise InputError(f"--json: {json_file} cannot be written: {error.strerror}") from error


def _read(option: str, read: Callable[[str], Value], text: str) -> Value:
    """What a text means, or a complaint that names the option."""
    try:
        return read(text)
    except InputError as error:
        raise InputError(f"{option}: {error}") from None


def _images(name: str, data_dir: Path | None) -> Images:
    split = "validation" if name == "imagenet" else "train"
    return data.load(name, split, data_dir=data_dir)


def _batches(
    images: Images, batches: int, batch_size: int, seed: int
) -> list[tuple[Tensor, Tensor]]:
    at_most = len(images) // batch_size
    if batches > at_most:
        raise InputError(
            f"--batches {batches} of {batch_size} images each: {images.name} has {len(images):,} "
            f"images, enough for {at_most}"
        )
    return list(islice(images.batches(batch_size, seed=seed), batches))


def _factory(network: str, images: Images, batch_norm: bool, init: str) -> Callable[[], nn.Module]:
    if network in networks.NAMES:
        return lambda: networks.build(
            network,
            in_channels=images.channels,
            classes=images.classes,
            image_size=images.image_size[0],
            batch_norm=batch_norm,
            init=init,
        )
    if ":" not in network:
        raise InputError(
            f"unknown network {network!r}; accepted: {', '.join(networks.NAMES)}, "
            "package.module:factory, path/to/file.py:factory"
        )
    if batch_norm or init != "default":
        raise InputError("--batch-norm and --init are for built-in networks; let the factory do it")
    return load_factory(network)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("Auditing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("points", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
