"""Options that several commands share, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer
from rich.console import Console
from typer.core import TyperCommand

from kinkcheck import data, networks
from kinkcheck.data.catalogue import lookup
from kinkcheck.data.source import find
from kinkcheck.errors import InputError
from kinkcheck.files import write_whole
from kinkcheck.networks.catalogue import require_initialisation, require_network
from kinkcheck.networks.factory import load_factory
from kinkcheck.ops.row import require_name
from kinkcheck.ops.table import FAMILIES, ROWS
from kinkcheck.selection import FORMS

if TYPE_CHECKING:
    from torch import nn

    from kinkcheck.data import Images

Value = TypeVar("Value")

QUICK = {"default_map": {"help": False}}
"""Settings of a group of commands. Typer imports Pydantic to make sense of an option that was not
given, --help among them; here it is told that this one was not."""

Network = Annotated[
    str,
    typer.Argument(
        metavar="NETWORK",
        help=f"{', '.join(networks.NAMES)}; or package.module:factory or "
        "path/to/file.py:factory, a function without arguments that returns an nn.Module, or "
        "(model, batches, step).",
    ),
]
DataName = Annotated[str, typer.Option("--data", metavar="NAME", help=f"{', '.join(data.NAMES)}.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder in the hub's layout; by default $KINKCHECK_DATA_DIR, else the hub.",
    ),
]
Precisions = Annotated[
    list[str] | None,
    typer.Option("--precision", metavar="P", help="16, bfloat16, 32, 64, mixed; by default 32."),
]
Selections = Annotated[
    list[str] | None,
    typer.Option(
        metavar="S",
        help=f"{', '.join(FORMS)}; by default minimal. A framework is jax, torch-2.14, ...: "
        "kinkcheck atlas lists them.",
    ),
]
Reference = Annotated[str, typer.Option(metavar="S", help="The selection to compare with.")]
Operations = Annotated[
    list[str] | None,
    typer.Option(
        metavar="O",
        help=f"Switch only these: {', '.join(FAMILIES)}, or one of their names; by default all.",
    ),
]
Draws = Annotated[int, typer.Option(metavar="M", help="Parameter draws.")]
Batches = Annotated[int, typer.Option(metavar="N", help="Mini-batches, for each draw.")]
BatchSize = Annotated[int, typer.Option(metavar="N", help="Images in each.")]
Init = Annotated[str, typer.Option(metavar="I", help=f"{', '.join(networks.INITIALISATIONS)}.")]
BatchNorm = Annotated[bool, typer.Option("--batch-norm", help="The network with batch norm.")]
Seed = Annotated[int, typer.Option(metavar="S", help="Of parameters and data order.")]
Device = Annotated[str, typer.Option(metavar="D", help="cpu, cuda, cuda:1, ...")]
HtmlFile = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a report to look at in a browser."),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show what published thresholds say as well.")
]


class ManyValues(TyperCommand):
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


def require_positive(**options: int) -> None:
    """Complain of a number below 1, by the option's name."""
    for name, number in options.items():
        if number < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, not {number}")


def read(option: str, read: Callable[[str], Value], text: str) -> Value:
    """What a text means, or a complaint that names the option."""
    try:
        return read(text)
    except InputError as error:
        raise InputError(f"{option}: {error}") from None


def require_known(
    network: str,
    batch_norm: bool,
    init: str,
    data_name: str,
    data_dir: Path | None,
    operations: list[str] | None,
) -> None:
    """Complain of a name or a place that is none; nothing is imported or read for it."""
    require_network(network)
    if network not in networks.NAMES and (batch_norm or init != "default"):
        raise InputError("--batch-norm and --init are for built-in networks; let the factory do it")
    read("--init", require_initialisation, init)
    for name in operations or ():
        read("--operations", lambda each: require_name(each, ROWS), name)
    find(read("--data", lookup, data_name), _split(data_name), data_dir)


def images_of(name: str, data_dir: Path | None) -> Images:
    """The images that are audited: those to train with, where they are published."""
    return data.load(name, _split(name), data_dir=data_dir)


def _split(name: str) -> str:
    return "validation" if name == "imagenet" else "train"


def own_factory(network: str) -> Callable[[], nn.Module] | None:
    """The user's function that NETWORK names; None where it names a built-in network."""
    return None if network in networks.NAMES else load_factory(network)


def built_in(network: str, images: Images, batch_norm: bool, init: str) -> Callable[[], nn.Module]:
    """What draws the built-in network that NETWORK names."""
    return lambda: networks.build(
        network,
        in_channels=images.channels,
        classes=images.classes,
        image_size=images.image_size[0],
        batch_norm=batch_norm,
        init=init,
    )


_MUCH = 0.1
"""Of the memory that is free: what is worth a line where no bar is drawn, as in a log."""


class Watching(NamedTuple):
    """What a measurement calls: ``on_memory`` before it starts, ``on_point`` after each point."""

    on_memory: Callable[[int], None]
    on_point: Callable[[int, int], None]


@contextmanager
def progress(console: Console, device: str) -> Iterator[Watching]:
    """A bar, which says how much memory the measurement takes; a line if that is much."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    text = TextColumn("{task.description}")
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("Auditing", total=None)

        def on_memory(needed: int) -> None:
            from kinkcheck.measure.footprint import available

            bar.update(task, description=f"Auditing, with about {_bytes(needed)} of memory")
            free = available(device)
            if free is not None and needed > free * _MUCH:
                console.print(
                    f"kinkcheck: takes about {_bytes(needed)} of memory, and {_bytes(free)} are "
                    f"free{'; smaller mini-batches take less' if needed > free else ''}",
                    highlight=False,
                    soft_wrap=True,
                )

        yield Watching(on_memory, lambda done, total: bar.update(task, completed=done, total=total))


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def write(option: str, path: Path, text: str) -> None:
    """Write a file whole, or complain by the option's name."""
    try:
        write_whole(path, text)
    except OSError as error:
        raise InputError(f"{option}: {path} cannot be written: {error.strerror}") from error
