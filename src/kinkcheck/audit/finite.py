"""Where numbers stop being finite."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from kinkcheck.audit.forward import Gradient


def first_in_forward(model: nn.Module, run: Callable[[], object]) -> str | None:
    """The first module whose output has an infinity or a NaN, as the computation meets it.

    Args:
        model: the model.
        run: its forward pass, which leaves buffers and random state as they are.

    Returns:
        The name of the module, empty for the model itself; None if every output is finite.

    >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    >>> first_in_forward(model, lambda: model(torch.tensor([[torch.inf]])))
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
    return found[0] if found else None


def first_in_backward(gradient: Gradient) -> str | None:
    """The last layer, in the order of parameters, whose gradient has an infinity or a NaN.

    A backward pass goes from the last layer to the first, so that this is where it meets one first.

    Args:
        gradient: by parameter name.

    Returns:
        The name of the layer, empty for the model itself; None if the gradient is finite.

    >>> inf = torch.tensor(torch.inf)
    >>> first_in_backward({"0.weight": inf, "1.weight": inf, "2.weight": torch.tensor(1.0)})
    '1'
    """
    wrong = [name for name, tensor in gradient.items() if not _finite(tensor)]
    return wrong[-1].rpartition(".")[0] if wrong else None


def _finite(value: object) -> bool:
    return not isinstance(value, Tensor) or bool(torch.isfinite(value).all())
