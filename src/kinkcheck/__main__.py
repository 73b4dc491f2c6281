"""``python -m kinkcheck`` is the command ``kinkcheck``."""

from kinkcheck.cli import main

main()
