"""The command line: one module a command, and the options that several of them share.

Nothing heavy is imported (PyTorch, NumPy, SciPy, Matplotlib) before a command has checked
whatever can be checked without it: help and complaints come at once.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn

import typer

from kinkcheck.cli.atlas import atlas
from kinkcheck.cli.audit import audit
from kinkcheck.cli.demo import demo
from kinkcheck.cli.doctor import doctor
from kinkcheck.cli.explain import explain
from kinkcheck.cli.options import QUICK, ManyValues, RayAddressAndManyValues
from kinkcheck.cli.paper import paper
from kinkcheck.cli.report import report
from kinkcheck.cli.study import study
from kinkcheck.cli.verify import verify
from kinkcheck.cli.volume import volume
from kinkcheck.errors import InputError, one_line
from kinkcheck.interrupts import remembered
from kinkcheck.terminal import say

app = typer.Typer(
    context_settings=QUICK,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Is your gradient right where your network is not differentiable?",
)
app.command()(demo)
app.command(cls=ManyValues, epilog="Example: kinkcheck audit lenet5 --precision 16,32")(audit)
app.command(cls=RayAddressAndManyValues, epilog="Example: kinkcheck volume lenet5 --draws 30")(
    volume
)
app.command(epilog="Example: kinkcheck report audit.json -v")(report)
app.command(epilog="Example: kinkcheck verify audit.json")(verify)
app.command(epilog="Example: kinkcheck explain port.py:make --gradient jax.npz")(explain)
app.command()(doctor)
app.add_typer(atlas, name="atlas")
app.add_typer(study, name="study")
app.add_typer(paper, name="paper")


def main() -> None:
    """Run the command line; what is wrong with the input is said in one line, exit code 2."""
    _require_streams()
    if "_KINKCHECK_COMPLETE" in os.environ or {*sys.argv[1:2]} & _COMPLETION:
        app()  # for a shell, which waits for what Typer says
    code: Any
    try:
        with remembered():
            code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
            sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except InputError as error:
        _fail(str(error))
    except typer.Abort:
        code = 130
    except _UsageError as error:
        _fail(_with_example(error))
    except SystemExit as left:
        # Typer and Rich leave with 1 where whoever reads the output has gone away. All else is a
        # program that kinkcheck runs, which must not make unfinished work look done.
        if left.code != 1:
            _fail(f"left in the middle by {one_line(left)}")
        code = 1
    except MemoryError:
        _fail("there is not enough memory", 1)
    except BrokenPipeError:
        _give_up_output()
        code = 1
    except OSError as error:
        _give_up_output()
        where = error.filename or "standard output"
        reason = error.strerror or one_line(error)
        _fail(f"{where}: {reason}", 1 if error.errno in _REFUSED else 2)
    if code == 130:
        _fail("interrupted", code)
    sys.exit(code)


_COMPLETION = {"--install-completion", "--show-completion"}


def _with_example(error: Any) -> str:
    """A complaint about the command line, with the example of the command where nothing is said."""
    message: str = error.format_message()
    example = getattr(error.ctx and error.ctx.command, "epilog", None)
    if message.startswith("Missing argument") and example:
        message = f"{message.rstrip('.')}; {example[0].lower()}{example[1:]}"
    return message


def _require_streams() -> None:
    """Let output be written whatever is in it, or say that it cannot be."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 as long as the process
    if sys.stdout is None:
        _fail("standard output is closed", 1)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # half a surrogate pair, or an encoding with less
            stream.reconfigure(errors="backslashreplace")


def _give_up_output() -> None:
    """Let nothing try again at the end of the process what could not be written."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS}
"""What a disk says that does not take what was found: no fault of the input."""

# The base class of every complaint about the command line; Typer carries its own copy of Click, or
# did not yet, depending on its version.
_UsageError: Any = typer.BadParameter.__base__


def _fail(message: str, code: int = 2) -> NoReturn:
    with suppress(OSError):  # where it cannot be said, the code says it
        if message:  # a group of commands alone has shown its help
            say(f"kinkcheck: {' '.join(message.split())}", error=True)
    sys.exit(code)


@app.callback(invoke_without_command=True)
def _kinkcheck(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.")
    ] = False,
) -> None:
    if show_version:
        from importlib.metadata import version

        say(version("kinkcheck"))
        raise typer.Exit
