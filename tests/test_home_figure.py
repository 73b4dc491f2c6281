"""The picture of the home page says what AD returns."""

from __future__ import annotations

from html import escape
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_the_stored_picture_is_what_pytorch_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    writer = import_module("home_figure")
    # By hand: the ramp has the slopes 0 and 1, and the difference of two of them is x.
    by_hand = "relu(x): 0, limit; where(x >= 0, x, 0): 1, limit; relu(x) − relu(−x): 0, wrong"
    assert writer.numbers().startswith(by_hand)
    stored = (ROOT / writer.FIGURE).read_text(encoding="utf-8")
    assert escape(writer.numbers()) in stored
