"""Ctrl-C that gets lost on its way, or comes when there is nothing left to interrupt."""

import importlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kinkcheck.interrupts import remembered

EATS = """
import signal, time
try:
    signal.raise_signal(signal.SIGINT)
except BaseException:
    pass
end = time.monotonic() + 60
while time.monotonic() < end:
    pass
open(f"{__file__}.ended", "w").close()
"""

CLEANS_UP = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
finally:
    signal.raise_signal(signal.SIGALRM)
    open(f"{__file__}.cleaned", "w").close()
"""

ENDS = """
import atexit, os, signal
from kinkcheck.__main__ import main
atexit.register(os.kill, os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


def test_ctrl_c_while_python_ends_ends_it_without_a_word() -> None:
    command = [sys.executable, "-c", ENDS, "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (-signal.SIGINT, "")


@pytest.mark.skipif(sys.platform == "win32", reason="no timer that interrupts an import")
def test_an_import_that_loses_ctrl_c_is_interrupted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PyTorch's import may: it would go on for a minute here."""
    (tmp_path / "eats_interrupts.py").write_text(EATS)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt), remembered():
        importlib.import_module("eats_interrupts")
    assert not list(tmp_path.glob("*.ended"))
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.skipif(sys.platform == "win32", reason="no timer that interrupts an import")
def test_a_cleanup_on_the_way_of_ctrl_c_comes_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on its way is not lost: it is not raised anew in what is done for it."""
    (tmp_path / "cleans_up.py").write_text(CLEANS_UP)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt), remembered():
        importlib.import_module("cleans_up")
    assert list(tmp_path.glob("*.cleaned"))
