"""Where the first number that is not finite came from."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from kinkcheck.precision import Precision


def first_layer(model: nn.Module, x: Tensor, held: Precision) -> str:
    """The name of the layer that first has a number which is not finite.

    Where a parameter or buffer is not finite it is :func:`broken_layer`: the update before this
    batch broke it. Else it is the first layer whose output on the batch is not finite. The model is
    left as it is.

    Args:
        model: in the mode in which it broke.
        x: the batch on which it broke.
        held: the precision to compute in.

    Returns:
        A layer name; ``loss`` if every layer is finite and the loss alone is not.

    >>> from kinkcheck import precision
    >>> class Log(nn.Module):
    ...     def forward(self, x): return x.log()
    >>> first_layer(nn.Sequential(nn.ReLU(), Log()), torch.zeros(1), precision.parse("32"))
    '1'
    """
    broken = broken_layer(model)
    if broken is not None:
        return broken
    found: list[str] = []
    model = copy.deepcopy(model)  # batch norms change their statistics even without gradients
    for name, module in model.named_modules():
        module.register_forward_hook(_reporter(name, found))
    with torch.no_grad(), held.contractions(x.device), held.computation(x.device):
        model(x)
    return found[0] if found else "loss"


def broken_layer(model: nn.Module) -> str | None:
    """The first layer, in the order of the module tree, with a parameter or buffer not finite.

    >>> broken_layer(nn.Sequential(nn.Linear(1, 1))) is None
    True
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not _finite(tensor):
            return name.rpartition(".")[0]
    return None


def _reporter(name: str, found: list[str]) -> Any:
    def report(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not _finite(output):
            found.append(name)

    return report


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
