"""Digests that go with what is stored, so that damage is noticed when it is read."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from kinkcheck.errors import InputError

KEY = "digest"
"""Where a JSON object has the digest of the rest of it."""

_log = logging.getLogger("kinkcheck")


class DamagedError(InputError):
    """What is stored is not what was written."""


def digest(content: bytes) -> str:
    """SHA-256, in hexadecimal digits.

    >>> digest(b"")[:12]
    'e3b0c44298fc'
    """
    return sha256(content).hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its digest, which depends on the values and not on how they are laid out.

    >>> sealed({"rows": []})["digest"][:12]
    '0fc3c38b2208'
    """
    return {**content, KEY: _digest_of(content)}


def require_intact(content: Mapping[str, Any], where: str) -> None:
    """Check a JSON object against its digest; earlier versions wrote none.

    Args:
        content: the object.
        where: what it was read from.

    Raises:
        DamagedError: it is not what was written.

    >>> require_intact(sealed({"mean": 0.5}), "part.json")
    >>> require_intact(sealed({"mean": 0.5}) | {"mean": 0.7}, "part.json")
    Traceback (most recent call last):
    ...
    kinkcheck.seal.DamagedError: part.json is damaged: it is not what its digest says
    """
    rest = {key: value for key, value in content.items() if key != KEY}
    if KEY in content and content[KEY] != _digest_of(rest):
        raise DamagedError(f"{where} is damaged: it is not what its digest says")


def say_damaged(what: str, aside: Path | None = None) -> None:
    """Tell the terminal that something is computed again.

    Args:
        what: was damaged.
        aside: where it lies now; None if it is gone.

    >>> say_damaged("points.jsonl", Path("points.jsonl.damaged"))
    """
    if aside is None:
        _log.warning("kinkcheck: %s is gone, and is computed again", what)
    else:
        _log.warning(
            "kinkcheck: %s is damaged; it lies in %s now, and is computed again", what, aside
        )


def _digest_of(content: Mapping[str, Any]) -> str:
    return digest(json.dumps(content, sort_keys=True).encode())
