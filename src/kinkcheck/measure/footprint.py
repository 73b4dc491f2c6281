"""How much memory a point takes, told from one plain run of it."""

from __future__ import annotations

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

    In each precision: a copy of the parameters; what autograd saves, and as much again for what
    sites keep of their inputs; two gradients for the reference and for each selection, since what
    is compared is there twice; and two more, of passes that others are checked against. The lift
    takes the same in float64 while the point is held. Backward passes work in as much again as
    autograd and sites hold. On LeNet-5, VGG-11, ResNet-18 and DenseNet-121 on a CPU this falls
    short of the peak by up to a quarter.

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
    4280
    """
    sizes = [max(each.storage.itemsize for each in precisions)]
    sizes += [torch.float64.itemsize] if lifted else []
    activations = [2 * saved * size // measured_at.storage.itemsize for size in sizes]
    gradients = [(2 * selections + 5) * numbers * size for size in sizes]
    return sum(activations) + activations[-1] + sum(gradients)
