"""``kinkcheck audit``: is a gradient right, and how far does it depend on the choice at kinks?"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import kinkcheck
from kinkcheck.cli.options import (
    Batches,
    BatchNorm,
    BatchSize,
    DataDir,
    DataName,
    Device,
    Draws,
    FailOn,
    HtmlFile,
    Init,
    Network,
    Operations,
    Precisions,
    Quiet,
    Reference,
    Seed,
    Selections,
    Verbose,
    claimed,
    given,
    read,
    read_programs,
    require_known,
    require_shown,
    write,
)
from kinkcheck.cli.report import gate, show, write_html
from kinkcheck.cli.subject import subject
from kinkcheck.extras import require
from kinkcheck.ranges import require_tolerance
from kinkcheck.selection import parse
from kinkcheck.terminal import Terminal


def audit(
    ctx: typer.Context,
    network: Network,
    data_name: DataName = "mnist-sample",
    data_dir: DataDir = None,
    precisions: Precisions = None,
    selections: Selections = None,
    reference: Reference = "native",
    operations: Operations = None,
    batches: Batches = 10,
    batch_size: BatchSize = 128,
    draws: Draws = 1,
    init: Init = "default",
    batch_norm: BatchNorm = False,
    seed: Seed = 0,
    layers: Annotated[
        bool, typer.Option("--layers", help="Attribute the variation to sites, one at a time.")
    ] = False,
    lifted: Annotated[
        bool | None,
        typer.Option(
            "--lift/--no-lift",
            help="Evaluate every point in float64 too, or none, to tell what is right and what is "
            "rounding. By default the first of each precision, and those that need it.",
            show_default=False,
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Decide the zones by exact arithmetic; small networks only."),
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            help="Name the smallest precision audited at which the choice moves the gradient by no "
            "more than this part of it, such as 1e-3.",
        ),
    ] = None,
    device: Device = "cpu",
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the numbers to a file as well."),
    ] = None,
    html_file: HtmlFile = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
    fail_on: FailOn = None,
) -> None:
    """Tell whether a gradient is right, and how far it depends on the choice at kinks."""
    require_shown(verbose, quiet, fail_on)
    numbers, page = (
        None if path is None else ctx.with_resource(claimed(option, path))
        for option, path in (("--json", json_file), ("--html", html_file))
    )
    if tolerance is not None:
        require_tolerance(tolerance, "--tolerance")
    at, chosen, switched = read_programs(precisions, selections, operations)
    compared = read("--reference", parse, reference)
    require_known(network, batch_norm, init, data_name, data_dir)
    if exact:
        require("flint", extra="exact")
    what = subject(
        ctx, network, data_name=data_name, data_dir=data_dir, batches=batches,
        batch_size=batch_size, batch_norm=batch_norm, init=init, seed=seed,
    )  # fmt: skip
    found = kinkcheck.audit(
        what.network,
        what.batches,
        precisions=at,
        selections=chosen,
        reference=compared,
        operations=switched,
        draws=draws,
        layers=layers,
        lifted=lifted,
        exact=exact,
        device=device,
        seed=seed,
        network_name=network,
        data_name=what.data_name,
        progress=True,
    )

    from kinkcheck.audit import Settings, smallest_precision

    folder = None if data_dir is None else str(data_dir)
    settings = Settings(network, data_name, folder, batches, batch_size, batch_norm, init)
    found = replace(found, settings=settings, command=given(ctx))
    if numbers is not None:
        write("--json", numbers, found.text())
    if page is not None:
        write_html(page, found)
    show(found, verbose, quiet)  # last: readers may go away
    if tolerance is not None:
        smallest = smallest_precision(found, tolerance)
        Terminal().print(
            f"The smallest precision audited at which the choice moves the gradient by at most "
            f"{tolerance:g} of it at every point is {smallest}."
            if smallest
            else f"At none of the precisions audited does every point stay within {tolerance:g}"
            f"{' (mixed has no rank among them)' if 'mixed' in at else ''}."
        )
    gate(found, fail_on)
