"""``kinkcheck doctor``: what was found on this machine."""

from rich.console import Console
from rich.table import Table

from kinkcheck.cli.options import DataDir


def doctor(data_dir: DataDir = None) -> None:
    """Say what was found on this machine: versions, kernels, devices, data."""
    from kinkcheck.doctor import findings

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for heading, finding in findings(data_dir):
        table.add_row(f"[bold]{heading}[/]", finding)
    Console().print(table)
