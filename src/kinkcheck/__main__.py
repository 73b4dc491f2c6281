"""``python -m kinkcheck`` is the command ``kinkcheck``."""

import atexit
import signal
import sys

from kinkcheck.interrupts import remembered


def main() -> None:
    """Run the command line; Ctrl-C is told in one line also while that is still imported."""
    try:
        with remembered():
            from kinkcheck.cli import main as run
        run()
    except KeyboardInterrupt:
        print("kinkcheck: interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        # What was to be done is done or said. Ctrl-C while Python ends, ends it, without a word.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
