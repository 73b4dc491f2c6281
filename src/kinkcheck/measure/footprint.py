"""How much memory a point takes, told from one plain run of it."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor

from kinkcheck.arithmetic.precision import Precision
from kinkcheck.tape.graph import nodes
from kinkcheck.tape.memory import address


def saved_bytes(loss: Tensor) -> int:
    """What autograd has saved behind a loss, in bytes; parameters and other leaves do not count.

    >>> x = torch.ones(1000, requires_grad=True)
    >>> saved_bytes(x.exp().sum())
    4000
    """
    found: dict[int, int] = {}
    for node in nodes(loss.grad_fn):
        for tensor in _saved_by(node):
            if not tensor.is_leaf or not tensor.requires_grad:
                where = address(tensor)
                if where is not None:
                    found[where] = tensor.untyped_storage().nbytes()
    return sum(found.values())


def _saved_by(node: object) -> Iterable[Tensor]:
    names = [name for name in dir(node) if name.startswith("_saved_")]
    names += ["saved_tensors"] if hasattr(node, "saved_tensors") else []
    for name in names:
        try:
            value = getattr(node, name)
        except RuntimeError:  # overwritten since
            continue
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, Tensor) and each.layout == torch.strided:
                yield each


def estimate(
    saved: int,
    numbers: int,
    *,
    measured_at: Precision,
    precisions: Iterable[Precision],
    selections: int,
    lifted: bool,
) -> int:
    """The memory that an audit takes beside what the program holds already, in bytes, roughly.

    For each precision: a copy of the parameters; what autograd saves, and as much again for what
    sites keep of their inputs; and a gradient for the reference, for each selection, and for the
    first pass, which is remembered. The lift takes the same in float64 while the point is held, and
    again as much as it saves to work in: float64 convolutions on a CPU unfold their inputs.

    Args:
        saved: what autograd saved in one run.
        numbers: how many numbers the parameters and buffers have.
        measured_at: the precision of that run.
        precisions: of the audit.
        selections: how many are compared with the reference.
        lifted: whether points are lifted.

    >>> from kinkcheck.arithmetic.precision import parse
    >>> at = parse("32")
    >>> estimate(1000, 10, measured_at=at, precisions=[at], selections=1, lifted=False)
    2160
    """

    def held(size: int, times: int) -> int:
        activations = saved * size // measured_at.storage.itemsize
        return times * activations + (selections + 3) * numbers * size

    most = max(held(each.storage.itemsize, 2) for each in precisions)
    return most + (held(torch.float64.itemsize, 4) if lifted else 0)


def available() -> int | None:
    """The memory of this machine that is free, in bytes; None where it does not say.

    >>> available() is None or available() > 0
    True
    """
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
