"""``kinkcheck audit``: is a gradient right, and how far does it depend on the choice at kinks?"""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import kinkcheck
from kinkcheck.arithmetic.precision_names import canonical
from kinkcheck.cli.options import (
    Batches,
    BatchNorm,
    BatchSize,
    DataDir,
    DataName,
    Device,
    Draws,
    HtmlFile,
    Init,
    Network,
    Operations,
    Precisions,
    Reference,
    Seed,
    Selections,
    Verbose,
    progress,
    read,
    require_known,
    require_positive,
    write,
)
from kinkcheck.cli.report import show, write_html
from kinkcheck.cli.subject import subject
from kinkcheck.files import require_writable
from kinkcheck.ranges import require_tolerance
from kinkcheck.selection import parse


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
) -> None:
    """Tell whether a gradient is right, and how far it depends on the choice at kinks."""
    for option, path in (("--json", json_file), ("--html", html_file)):
        if path is not None:
            require_writable(path, option)
    require_positive(batches=batches, batch_size=batch_size, draws=draws)
    if tolerance is not None:
        require_tolerance(tolerance, "--tolerance")
    at = [read("--precision", canonical, p) for p in precisions or ["32"]]
    chosen = [read("--selections", parse, s) for s in selections or ["minimal"]]
    compared = read("--reference", parse, reference)
    require_known(network, batch_norm, init, data_name, data_dir, operations)
    console = Console(stderr=True)
    what = subject(
        ctx, network, data_name=data_name, data_dir=data_dir, batches=batches,
        batch_size=batch_size, batch_norm=batch_norm, init=init, seed=seed,
    )  # fmt: skip
    with progress(console, device) as watching:
        found = kinkcheck.audit(
            what.network,
            what.batches,
            precisions=at,
            selections=chosen,
            reference=compared,
            operations=operations or None,
            draws=draws,
            layers=layers,
            lifted=lifted,
            exact=exact,
            device=device,
            seed=seed,
            network_name=network,
            data_name=what.data_name,
            on_memory=watching.on_memory,
            on_point=watching.on_point,
        )

    from kinkcheck.audit import Settings, conclude, smallest_precision
    from kinkcheck.audit.picture import ties_picture

    picture = None
    if what.image is not None and (json_file is not None or html_file is not None):
        picture = ties_picture(what.model, what.image, at[0])
    folder = None if data_dir is None else str(data_dir)
    settings = Settings(network, data_name, folder, batches, batch_size, batch_norm, init)
    document = conclude(found, picture, settings)
    if json_file is not None:
        write("--json", json_file, json.dumps(document.to_json(), indent=1) + "\n")
    if html_file is not None:
        write_html(html_file, document)
    show(document, verbose)  # last: whoever reads it may go away
    if tolerance is not None:
        smallest = smallest_precision(found, tolerance)
        print(
            f"The smallest precision audited at which the choice moves the gradient by at most "
            f"{tolerance:g} of it at every point is {smallest}."
            if smallest
            else f"At none of the precisions audited does every point stay within {tolerance:g}"
            f"{' (mixed has no rank among them)' if 'mixed' in at else ''}."
        )
