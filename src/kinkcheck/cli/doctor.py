"""``kinkcheck doctor``: what was found on this machine."""

from rich.table import Table
from rich.text import Text

from kinkcheck.cli.options import DataDir
from kinkcheck.terminal import Terminal


def doctor(data_dir: DataDir = None) -> None:
    """Say what was found on this machine: versions, kernels, devices, data."""
    from kinkcheck.doctor import findings

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for heading, finding in findings(data_dir):
        table.add_row(Text(heading, style="bold"), finding)
    Terminal().print(table)
