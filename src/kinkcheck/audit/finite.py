"""Where numbers stop being finite."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from kinkcheck.audit.forward import Gradient


def first_non_finite(
    model: nn.Module, run: Callable[[], object], gradient: Gradient | None
) -> str | None:
    """The first layer with an infinity or a NaN, as the computation meets it.

    Forwards that is the first module that ends with one in its output; if there is none, backwards
    the last layer, in the order of parameters, whose gradient has one.

    Args:
        model: the model.
        run: its forward pass, which leaves buffers and random state as they are.
        gradient: the gradient, if there is one.

    Returns:
        The name of the layer, empty for the model itself; ``"loss"`` if the network stays finite
        and its loss does not; None if all is finite.

    >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    >>> x = torch.tensor([[torch.inf]])
    >>> first_non_finite(model, lambda: model(x), None)
    '0'
    """
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
            if not all(map(_finite, tree_leaves(outputs))):
                found.append(name)

        return hook

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.callback(module.register_forward_hook(look(name)).remove)
        run()
    if found:
        return found[0]
    if gradient is None:
        return "loss"
    wrong = [name for name, tensor in gradient.items() if not _finite(tensor)]
    return wrong[-1].rpartition(".")[0] if wrong else None


def _finite(value: object) -> bool:
    return not isinstance(value, Tensor) or bool(torch.isfinite(value).all())
