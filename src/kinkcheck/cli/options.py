"""Options that several commands share, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from torch import Tensor, nn
from typer.core import TyperCommand

from kinkcheck import data, networks, ops
from kinkcheck.data import Images
from kinkcheck.errors import InputError
from kinkcheck.files import write_whole
from kinkcheck.networks.factory import load_factory

Value = TypeVar("Value")

Network = Annotated[
    str,
    typer.Argument(
        metavar="NETWORK",
        help=f"{', '.join(networks.NAMES)}; or package.module:factory or "
        "path/to/file.py:factory, a function without arguments that returns an nn.Module.",
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
        help="native, minimal, hybrid:BETA, first, last, random:SEED, branch:ALPHA; "
        "by default minimal.",
    ),
]
Reference = Annotated[str, typer.Option(metavar="S", help="The selection to compare with.")]
Operations = Annotated[
    list[str] | None,
    typer.Option(
        metavar="O",
        help=f"Switch only these: {', '.join(kind.family for kind in ops.OPERATIONS)}, or one "
        "of their names; by default all.",
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


def images_of(name: str, data_dir: Path | None) -> Images:
    """The images that are audited: those to train with, where they are published."""
    split = "validation" if name == "imagenet" else "train"
    return data.load(name, split, data_dir=data_dir)


def batches_of(
    images: Images, batches: int, batch_size: int, seed: int
) -> list[tuple[Tensor, Tensor]]:
    """As many mini-batches, or a complaint that there are not enough images."""
    at_most = len(images) // batch_size
    if batches > at_most:
        raise InputError(
            f"--batches {batches} of {batch_size} images each: {images.name} has {len(images):,} "
            f"images, enough for {at_most}"
        )
    return list(islice(images.batches(batch_size, seed=seed), batches))


def factory_of(
    network: str, images: Images, batch_norm: bool, init: str
) -> Callable[[], nn.Module]:
    """What draws the network that NETWORK names."""
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
def progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar; what it yields takes the number of points done and in all."""
    columns = (TextColumn("Auditing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("points", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def write(option: str, path: Path, text: str) -> None:
    """Write a file whole, or complain by the option's name."""
    try:
        write_whole(path, text)
    except OSError as error:
        raise InputError(f"{option}: {path} cannot be written: {error.strerror}") from error
