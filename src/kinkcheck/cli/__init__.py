"""The command line: one module a command, and the options that several of them share.

Nothing heavy is imported (PyTorch, NumPy, SciPy, Matplotlib) before a command has checked
whatever can be checked without it: help and complaints come at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from kinkcheck.arithmetic.allocator import keep_large_blocks
from kinkcheck.cli.atlas import atlas
from kinkcheck.cli.audit import audit
from kinkcheck.cli.demo import demo
from kinkcheck.cli.doctor import doctor
from kinkcheck.cli.explain import explain
from kinkcheck.cli.options import QUICK, ManyValues
from kinkcheck.cli.paper import paper
from kinkcheck.cli.report import report
from kinkcheck.cli.study import study
from kinkcheck.cli.verify import verify
from kinkcheck.cli.volume import volume
from kinkcheck.errors import InputError

app = typer.Typer(
    context_settings=QUICK,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Is your gradient right where your network is not differentiable?",
)
app.command()(demo)
app.command(cls=ManyValues)(audit)
app.command(cls=ManyValues)(volume)
app.command()(report)
app.command()(verify)
app.command()(explain)
app.command()(doctor)
app.add_typer(atlas, name="atlas")
app.add_typer(study, name="study")
app.add_typer(paper, name="paper")


def main() -> None:
    """Run the command line; what is wrong with the input is said in one line, exit code 2."""
    keep_large_blocks()
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
        from importlib.metadata import version

        print(version("kinkcheck"))
        raise typer.Exit
