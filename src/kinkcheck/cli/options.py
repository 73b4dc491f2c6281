"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from kinkcheck import data, networks
from kinkcheck.arithmetic import precision_names
from kinkcheck.atlas import table
from kinkcheck.cluster import Cluster
from kinkcheck.data.catalogue import lookup
from kinkcheck.data.source import find
from kinkcheck.errors import InputError, unknown
from kinkcheck.files import Claim, encoded, require_writable
from kinkcheck.networks.catalogue import require_initialisation, require_network
from kinkcheck.networks.factory import Named
from kinkcheck.ops.row import require_name
from kinkcheck.ops.table import FAMILIES, ROWS
from kinkcheck.ranges import MOST, MOST_SEED, MOST_THREADS, require_between
from kinkcheck.selection import FORMS, As, Selection, parse, separated
from kinkcheck.terminal import Terminal, say

if TYPE_CHECKING:
    from torch import nn

    from kinkcheck.data import Images

Value = TypeVar("Value")


def between(least: int, most: int) -> Callable[[typer.CallbackParam, int | None], int | None]:
    """What an option of whole numbers calls: it complains by the option's name."""

    def check(option: typer.CallbackParam, number: int | None) -> int | None:
        if number is not None:
            require_between(number, least, most, option.opts[0])
        return number

    return check


_COUNT = between(1, MOST)

QUICK = {"default_map": {"help": False}}
"""Settings of a group of commands. Typer imports Pydantic to make sense of an option that was not
given, --help among them; here it is told that this one was not."""


def completes(names: Iterable[str]) -> Callable[[str], list[str]]:
    """What a shell completes the beginning of a value to."""
    known = list(names)

    def complete(incomplete: str) -> list[str]:  # Typer goes by the name of the argument
        return [name for name in known if name.startswith(incomplete)]

    return complete


def _selections(incomplete: str) -> list[str]:
    """What a shell completes the beginning of a selection to: a form, or a column of the atlas."""
    conventions = [f"as:{name}" for name in table.read().columns]
    return completes([form for form in FORMS if form != As.form] + conventions)(incomplete)


Network = Annotated[
    str,
    typer.Argument(
        metavar="NETWORK",
        autocompletion=completes(networks.NAMES),
        help=f"{', '.join(networks.NAMES)}; or package.module:factory or "
        "path/to/file.py:factory, a function without arguments that returns an nn.Module, or "
        "(model, batches, step).",
    ),
]
DataName = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="NAME",
        help=f"{', '.join(data.NAMES)}.",
        autocompletion=completes(data.NAMES),
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder in the hub's layout; by default $KINKCHECK_DATA_DIR, else the hub.",
    ),
]
Precisions = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        metavar="P",
        help="16, bf16, 32, 64, mixed; by default 32. Here and below several values may follow, "
        "with blanks or commas between them: 16,32.",
        autocompletion=completes(precision_names.NAMES),
    ),
]
Selections = Annotated[
    list[str] | None,
    typer.Option(
        "--selection",
        metavar="S",
        autocompletion=_selections,
        help=f"{', '.join(FORMS)}; by default minimal. A framework is jax, torch-2.14, ...: "
        "kinkcheck atlas lists them.",
    ),
]
Reference = Annotated[
    str,
    typer.Option(metavar="S", autocompletion=_selections, help="The selection to compare with."),
]
Operations = Annotated[
    list[str] | None,
    typer.Option(
        "--operation",
        metavar="O",
        autocompletion=completes(FAMILIES),
        help=f"Switch only these: {', '.join(FAMILIES)}, or one of their names; by default all.",
    ),
]
Draws = Annotated[int, typer.Option(metavar="M", callback=_COUNT, help="Parameter draws.")]
Batches = Annotated[
    int, typer.Option(metavar="N", callback=_COUNT, help="Mini-batches, for each draw.")
]
BatchSize = Annotated[int, typer.Option(metavar="N", callback=_COUNT, help="Images in each.")]
Init = Annotated[
    str,
    typer.Option(
        metavar="I",
        help=f"{', '.join(networks.INITIALISATIONS)}.",
        autocompletion=completes(networks.INITIALISATIONS),
    ),
]
BatchNorm = Annotated[bool, typer.Option("--batch-norm", help="The network with batch norm.")]
Seed = Annotated[
    int,
    typer.Option(metavar="S", callback=between(0, MOST_SEED), help="Of parameters and data order."),
]
Device = Annotated[str, typer.Option(metavar="D", help="cpu, cuda, cuda:1, ...")]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        callback=between(1, MOST_THREADS),
        help="Of the CPU; by default PyTorch's number.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="On a Ray cluster: HOST:PORT, auto (RAY_ADDRESS, else this machine's), local (a new "
        "one); without ADDRESS the first that is there.",
    ),
]
GpuShare = Annotated[
    float,
    typer.Option(
        metavar="F", help="Of a GPU for what runs at a time, with --ray: 0.25 puts four on one."
    ),
]
HtmlFile = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a report to look at in a browser."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show all tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show the answer alone, in one line.")]
FAIL_ON = ("wrong", "matters", "doubt")
FailOn = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(FAIL_ON),
        autocompletion=completes(FAIL_ON),
        help="Exit code 1 if the gradient is wrong at a point; or if the answer is LOOK HERE: it "
        "is, or it is not finite, or the choice outweighs rounding; or if it is that or "
        "CANNOT SAY.",
    ),
]


RENAMED = {f"--{name}s": f"--{name}" for name in ("precision", "selection", "operation")}
"""Names of options that are taken still, and the names they have now."""


class ManyValues(TyperCommand):
    """A command whose repeatable options also take several values at once.

    ``--selection minimal last`` means ``--selection minimal --selection last``. The network has to
    come first, as in the synopsis, or it would be taken for one more value.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values, by the name that it has now."""
        args = list(map(_renamed, args))
        ctx.meta[_GIVEN] = tuple(args)
        many = {o for p in self.params if getattr(p, "multiple", False) for o in p.opts}
        if args and not args[0].startswith("-"):
            args = list(_one_value_each(args, many))
        return list(super().parse_args(ctx, args))


_GIVEN = "kinkcheck.given"


def given(ctx: typer.Context) -> str:
    """The command line, as it can be typed again."""
    return shlex.join([*ctx.command_path.split(), *ctx.meta[_GIVEN]])


def _renamed(argument: str) -> str:
    name, equals, value = argument.partition("=")
    if name not in RENAMED:
        return argument
    say(f"kinkcheck: {name} is called {RENAMED[name]} now", error=True)
    return f"{RENAMED[name]}{equals}{value}"


def _one_value_each(args: list[str], many: set[str]) -> Iterator[str]:
    option = None
    for previous, argument in zip(["", *args], args, strict=False):
        if argument.startswith("-"):
            option = argument if argument in many else None
        elif option is not None and previous != option:
            yield option
        yield argument


class RayAddress(TyperCommand):
    """A command whose option ``--ray`` may stand alone, which is to say with an empty address.

    What follows it is its address unless that is an option. So what the command takes without an
    option, a SPEC or a NETWORK, has to come first.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give the lonely option an empty value."""
        given: list[str] = []
        for argument, following in zip(args, [*args[1:], "-"], strict=bool(args)):
            given.append(argument)
            if argument == "--ray" and (following.startswith("-") or args[0].startswith("-")):
                given.append("")
        return list(super().parse_args(ctx, given))


class RayAddressAndManyValues(RayAddress, ManyValues):
    """A command that has both."""


def require_shown(verbose: bool, quiet: bool, fail_on: str | None) -> None:
    """Complain of options for what is shown that exclude each other, or name nothing."""
    if verbose and quiet:
        raise InputError("--quiet and --verbose exclude each other")
    if fail_on is not None and fail_on not in FAIL_ON:
        raise InputError(f"--fail-on: {unknown('condition', fail_on, FAIL_ON)}")


def on_cluster(
    ray: str | None, gpu_share: float, console: Terminal
) -> AbstractContextManager[Cluster | None]:
    """The cluster that ``--ray`` names; nothing without the option.

    Enter it before what imports PyTorch: it says at once what is waited for.
    """
    if ray is None:
        if gpu_share != 1.0:
            raise InputError("--gpu-share: is a part of a GPU of a cluster, and needs --ray")
        return nullcontext()

    def say(text: str) -> None:
        console.tell(f"kinkcheck: {text}")

    return Cluster(ray or None, gpu_share, say)


def read(option: str, read: Callable[[str], Value], text: str) -> Value:
    """What a text means, or a complaint that names the option."""
    try:
        return read(text)
    except InputError as error:
        raise InputError(f"{option}: {error}") from None


def read_all(
    option: str,
    read_one: Callable[[str], Value],
    texts: Iterable[str],
    separated: Callable[[str], list[str]] = lambda text: text.split(","),
) -> list[Value]:
    """What texts mean, of which each may be several with commas between them; each once."""
    # A blank may stand behind a comma, and then the shell makes two texts of them.
    parts = [part for text in texts for part in separated(text) if part.strip() or not text.strip()]
    return list(dict.fromkeys(read(option, read_one, part.strip()) for part in parts))


def read_programs(
    precisions: list[str] | None, selections: list[str] | None, operations: list[str] | None
) -> tuple[list[str], list[Selection], list[str] | None]:
    """The precisions, selections and operations that the options name, or their defaults."""

    def known(name: str) -> str:
        require_name(name, ROWS)
        return name

    return (
        read_all("--precision", precision_names.canonical, precisions or ["32"]),
        read_all("--selection", parse, selections or ["minimal"], separated),
        read_all("--operation", known, operations or []) or None,
    )


def require_known(
    network: str,
    batch_norm: bool,
    init: str,
    data_name: str,
    data_dir: Path | None,
) -> None:
    """Complain of a name or a place that is none; nothing is imported or read for it."""
    require_network(network)
    if network not in networks.NAMES and (batch_norm or init != "default"):
        raise InputError("--batch-norm and --init are for built-in networks; let the factory do it")
    read("--init", require_initialisation, init)
    find(read("--data", lookup, data_name), _split(data_name), data_dir)


def images_of(name: str, data_dir: Path | None) -> Images:
    """The images that are audited: those to train with, where they are published."""
    return data.load(name, _split(name), data_dir=data_dir)


def _split(name: str) -> str:
    return "validation" if name == "imagenet" else "train"


def own_factory(network: str) -> Callable[[], nn.Module] | None:
    """The user's function that NETWORK names; None where it names a built-in network."""
    return None if network in networks.NAMES else Named(network)


def built_in(network: str, images: Images, batch_norm: bool, init: str) -> Callable[[], nn.Module]:
    """What draws the built-in network that NETWORK names."""
    return partial(
        networks.build,
        network,
        in_channels=images.channels,
        classes=images.classes,
        image_size=images.image_size[0],
        batch_norm=batch_norm,
        init=init,
    )


@contextmanager
def claimed(option: str, path: Path) -> Iterator[Claim]:
    """Hold the right to write a file, before the work that it will hold is done."""
    require_writable(path, option)
    with ExitStack() as held:
        try:
            claim = held.enter_context(Claim(path))
        except OSError as error:
            raise InputError(f"{option}: {path} cannot be written: {error.strerror}") from error
        yield claim


def write(option: str, claim: Claim, text: str) -> None:
    """Write a file whole, or complain by the option's name."""
    try:
        claim.write(encoded(text))
    except OSError as error:
        raise InputError(f"{option}: {claim.path} cannot be written: {error.strerror}") from error
