"""``kinkcheck verify``: the certificates of an audit, checked again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from kinkcheck.cli.options import DataDir
from kinkcheck.errors import InputError
from kinkcheck.files import require_readable
from kinkcheck.terminal import say


def verify(
    ctx: typer.Context,
    json_file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What kinkcheck audit --json wrote.")
    ],
    data_dir: DataDir = None,
) -> None:
    """Check the certificates of an audit again, from scratch: is each gradient what it says?

    Exit code 1 if one does not hold.
    """
    require_readable(json_file)

    from kinkcheck.audit import load

    document = load(json_file)
    made = document.settings
    if made is None:
        raise InputError(
            f"{json_file} does not say how it was made, as of version 3 on files of the command "
            "line do; for an audit made in Python call kinkcheck.audit.verify"
        )

    from kinkcheck.audit.verification import verify as check
    from kinkcheck.cli.subject import subject

    folder = None if made.data_dir is None else Path(made.data_dir)
    what = subject(
        ctx, made.network, data_name=made.data, data_dir=data_dir or folder,
        batches=made.batches, batch_size=made.batch_size, batch_norm=made.batch_norm,
        init=made.init, seed=document.seed,
    )  # fmt: skip
    verified = check(document, what.network, what.batches, device=document.device, progress=True)
    if not verified:
        say("There is no certificate to check: every gradient is undecided.")
        return
    wrong = [each for each in verified if each.wrong]
    kinds = Counter(each.kind for each in verified)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    if not wrong:
        say(f"All {len(verified)} certificates hold ({listed}).")
        say("Losses, gradient norms, margins and excesses were not compared.")
        return
    say(f"{len(wrong)} of {len(verified)} certificates do not hold.")
    for each in wrong:
        at = f"{each.precision}, draw {each.draw}, batch {each.batch}, {each.selection}"
        say(f"  {at} ({each.kind}): {'; '.join(each.wrong)}")
    raise typer.Exit(1)
