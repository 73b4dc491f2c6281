"""``kinkcheck volume``: the proportion of points in each zone."""

from pathlib import Path
from typing import Annotated

import typer

from kinkcheck.cli.options import (
    Batches,
    BatchNorm,
    BatchSize,
    DataDir,
    DataName,
    Device,
    Draws,
    GpuShare,
    Init,
    Network,
    Operations,
    Precisions,
    Ray,
    Reference,
    Seed,
    Selections,
    Threads,
    on_cluster,
    read,
    read_programs,
    require_known,
)
from kinkcheck.cli.subject import subject
from kinkcheck.errors import InputError
from kinkcheck.files import require_writable
from kinkcheck.ranges import require_confidence
from kinkcheck.selection import parse
from kinkcheck.terminal import Terminal


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
    standing: Annotated[
        bool,
        typer.Option(
            "--standing/--no-standing",
            help="Judge whether gradients are right too, or zones alone, which takes less time.",
            show_default=False,
        ),
    ] = True,
    device: Device = "cpu",
    threads: Threads = None,
    ray: Ray = None,
    gpu_share: GpuShare = 1.0,
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
    require_confidence(confidence, "--confidence")
    if until_width is not None and not 0 < until_width < 1:
        raise InputError(f"--until-width must be between 0 and 1, not {until_width}")
    at, chosen, switched = read_programs(precisions, selections, operations)
    compared = read("--reference", parse, reference)
    require_known(network, batch_norm, init, data_name, data_dir)
    console = Terminal(stderr=True)
    of_data = {"batch_size": batch_size, "init": init, "batch_norm": batch_norm}
    with on_cluster(ray, gpu_share, console) as cluster:
        what = subject(
            ctx, network, data_name=data_name, data_dir=data_dir, batches=batches,
            batch_size=batch_size, batch_norm=batch_norm, init=init, seed=seed,
        )  # fmt: skip

        from kinkcheck.arithmetic.threads import of_threads
        from kinkcheck.audit import estimate_volume
        from kinkcheck.audit.cluster import Points

        with of_threads(threads):
            found = estimate_volume(
                what.network,
                what.batches,
                draws=draws,
                precisions=at,
                selections=chosen,
                reference=compared,
                operations=switched,
                standing=standing,
                device=device,
                seed=seed,
                confidence=confidence,
                until_width=until_width,
                out=out_file,
                network_name=network,
                data_name=what.data_name,
                settings={} if what.batches is None else of_data,
                executor=None if cluster is None else Points(cluster),
                progress=True,
            )

    from kinkcheck.report.volume import print_volume

    print_volume(found, Terminal())
