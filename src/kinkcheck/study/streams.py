"""Seeds of the separate random streams of a trial."""

from __future__ import annotations

import hashlib


def stream(seed: int, purpose: str, epoch: int = 0) -> int:
    """The seed of one random stream: the first 63 bits of SHA-256 of its name.

    Streams are functions of what they are for, not of what was drawn before. So what an epoch
    draws can be drawn again after a restart, and one stream can be held fixed while others change.

    Args:
        seed: the seed of the run.
        purpose: ``"init"``, ``"order"``, ``"augment"``, ``"forward"``, ``"learning rate"``, ...
        epoch: 0 for what is drawn once.

    Returns:
        An integer from 0 to 2⁶³ - 1.

    >>> stream(0, "order", 1) == stream(0, "order", 1)
    True
    >>> len({stream(0, "order", 1), stream(0, "order", 2), stream(1, "order", 1)})
    3
    """
    digest = hashlib.sha256(f"{seed} {purpose} {epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
