"""``kinkcheck volume``: the proportion of points in each zone."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kinkcheck.arithmetic.precision_names import canonical
from kinkcheck.cli.options import (
    Batches,
    BatchNorm,
    BatchSize,
    DataDir,
    DataName,
    Device,
    Draws,
    Init,
    Network,
    Operations,
    Precisions,
    Reference,
    Seed,
    Selections,
    progress,
    read,
    require_known,
    require_positive,
)
from kinkcheck.cli.subject import subject
from kinkcheck.errors import InputError
from kinkcheck.files import require_writable
from kinkcheck.ranges import require_confidence
from kinkcheck.selection import parse


def volume(
    ctx: typer.Context,
    network: Network,
    data_name: DataName = "mnist-sample",
    data_dir: DataDir = None,
    precisions: Precisions = None,
    selections: Selections = None,
    reference: Reference = "native",
    operations: Operations = None,
    draws: Draws = 10,
    batches: Batches = 10,
    batch_size: BatchSize = 128,
    init: Init = "default",
    batch_norm: BatchNorm = False,
    seed: Seed = 0,
    confidence: Annotated[float, typer.Option(metavar="C", help="Of every interval.")] = 0.95,
    until_width: Annotated[
        float | None,
        typer.Option(metavar="W", help="Stop when every interval is as narrow, such as 0.05."),
    ] = None,
    device: Device = "cpu",
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Add every point to this file as it comes, and go on with it if it is there.",
        ),
    ] = None,
) -> None:
    """Estimate the proportion of points in each zone, over parameter draws and mini-batches."""
    if out_file is not None:
        require_writable(out_file, "--out")
    require_positive(batches=batches, batch_size=batch_size, draws=draws)
    require_confidence(confidence, "--confidence")
    if until_width is not None and not 0 < until_width < 1:
        raise InputError(f"--until-width must be between 0 and 1, not {until_width}")
    at = [read("--precision", canonical, p) for p in precisions or ["32"]]
    chosen = [read("--selections", parse, s) for s in selections or ["minimal"]]
    compared = read("--reference", parse, reference)
    require_known(network, batch_norm, init, data_name, data_dir, operations)
    console = Console(stderr=True)
    what = subject(
        ctx, network, data_name=data_name, data_dir=data_dir, batches=batches,
        batch_size=batch_size, batch_norm=batch_norm, init=init, seed=seed,
    )  # fmt: skip

    from kinkcheck.audit import estimate_volume
    from kinkcheck.report.tables import standing_table, threshold_table, zone_table
    from kinkcheck.report.volume import volume_sentence

    of_data = {"batch_size": batch_size, "init": init, "batch_norm": batch_norm}
    with progress(console, device) as watching:
        found = estimate_volume(
            what.network,
            what.batches,
            draws=draws,
            precisions=at,
            selections=chosen,
            reference=compared,
            operations=operations or None,
            device=device,
            seed=seed,
            confidence=confidence,
            until_width=until_width,
            out=out_file,
            network_name=network,
            data_name=what.data_name,
            settings={} if what.batches is None else of_data,
            on_memory=watching.on_memory,
            on_point=watching.on_point,
        )
    out = Console()
    if any(each.reference_standings for each in found.summaries):
        out.print(standing_table(found.summaries, str(compared)))
    if any(each.zones for each in found.summaries):
        out.print(zone_table(found.summaries))
    out.print(threshold_table(found.summaries))
    out.print(volume_sentence(found), highlight=False, markup=False)
