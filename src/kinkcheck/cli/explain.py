"""``kinkcheck explain``: why is a gradient from elsewhere another one?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from kinkcheck.cli.options import Seed, claimed, write
from kinkcheck.errors import InputError
from kinkcheck.files import require_other, require_readable
from kinkcheck.networks.factory import load_factory
from kinkcheck.terminal import Terminal, say

SCHEMA = 1
"""The version of the file that ``--json`` writes."""


def explain(
    ctx: typer.Context,
    program: Annotated[
        str,
        typer.Argument(
            metavar="PROGRAM",
            help="package.module:factory or path/to/file.py:factory, a function without arguments "
            "that returns (model, batches, step).",
        ),
    ],
    gradient: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The other gradient: an .npz or .safetensors file, an array for each parameter "
            "by its name.",
        ),
    ],
    batch: Annotated[
        int, typer.Option(metavar="N", help="Which of the batches it was taken on, from 0.")
    ] = 0,
    seed: Seed = 0,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the numbers to a file as well."),
    ] = None,
) -> None:
    """Tell whether choices at ties, or rounding, explain a gradient from elsewhere.

    Exit code 1 if neither does.
    """
    require_readable(gradient)
    if json_file is not None:
        require_other(json_file, "--json", gradient)
    answer = None if json_file is None else ctx.with_resource(claimed("--json", json_file))
    factory = load_factory(program)
    console = Terminal(stderr=True)
    with console.waiting(f"Making {program} ..."):
        import torch

        from kinkcheck.audit.points import drawn
        from kinkcheck.explain import Cause
        from kinkcheck.explain import explain as find

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = drawn(factory, None, None)
    if made.batches is None or made.step is None:
        raise InputError(f"PROGRAM: {program} must return (model, batches, step)")
    if not len(made.batches):
        raise InputError(f"PROGRAM: {program} has no batches")
    if not 0 <= batch < len(made.batches):
        raise InputError(
            f"--batch: {program} has batches 0 to {len(made.batches) - 1}, not {batch}"
        )
    with console.waiting("Fitting ..."):
        found = find(made.model, made.step, made.batches[batch], gradient, seed=seed)
    if answer is not None:
        document: dict[str, Any] = {"schema": SCHEMA, "answer": found.answer, **asdict(found)}
        write("--json", answer, json.dumps(document, indent=1) + "\n")
    say(found)
    if found.cause is Cause.UNEXPLAINED:
        raise typer.Exit(1)
