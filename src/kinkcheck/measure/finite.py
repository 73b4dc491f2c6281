"""Where numbers stop being finite."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils._pytree import tree_leaves

from kinkcheck.measure.forward import Gradient
from kinkcheck.tape.as_found import as_found
from kinkcheck.tape.graph import nodes


def broken_layer(model: nn.Module) -> str | None:
    """The first layer, in the order of the module tree, with a parameter or buffer not finite.

    >>> broken_layer(nn.Sequential(nn.Linear(1, 1))) is None
    True
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not _finite(tensor):
            return name.rpartition(".")[0]
    return None


def first_layer(model: nn.Module, run: Callable[[], object]) -> str:
    """The name of the layer that first has a number which is not finite.

    Where a parameter or buffer is not finite it is :func:`broken_layer`: the update before this
    batch broke it. Else it is :func:`first_in_forward`. The model is left as it is.

    Args:
        model: in the mode in which it broke.
        run: its forward pass on the batch on which it broke.

    Returns:
        A layer name; ``loss`` if every layer is finite and the loss alone is not.

    >>> class Log(nn.Module):
    ...     def forward(self, x): return x.log()
    >>> model = nn.Sequential(nn.ReLU(), Log())
    >>> first_layer(model, lambda: model(torch.zeros(1)))
    '1'
    """
    broken = broken_layer(model)
    if broken is not None:
        return broken
    with torch.no_grad(), as_found(model):
        found = first_in_forward(model, run)
    return "loss" if found is None else found


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
            if isinstance(module, torch.jit.ScriptModule):  # which takes no hook
                continue
            hooks.callback(module.register_forward_hook(look(name)).remove)
        run()
    return found[0] if found else None


def first_in_gradient(gradient: Gradient) -> str | None:
    """The last layer, in the order of parameters, whose gradient has an infinity or a NaN.

    A backward pass goes from the last layer to the first, so that this is where it meets one first.

    Args:
        gradient: by parameter name.

    Returns:
        The name of the layer, empty for the model itself; None if the gradient is finite.

    >>> inf = torch.tensor(torch.inf)
    >>> first_in_gradient({"0.weight": inf, "1.weight": inf, "2.weight": torch.tensor(1.0)})
    '1'
    """
    wrong = [name for name, tensor in gradient.items() if not _finite(tensor)]
    return wrong[-1].rpartition(".")[0] if wrong else None


def first_in_backward(loss: Tensor, differentiate: Callable[[], object]) -> str | None:
    """The operation whose derivative first turns finite numbers into others.

    Args:
        loss: a recorded loss.
        differentiate: a backward pass from it.

    Returns:
        The name that autograd has for it, such as ``sqrt``; None if none does.

    >>> h = torch.tensor([-1.0], requires_grad=True)
    >>> loss = torch.where(h > 0, h.sqrt(), h).sum()
    >>> first_in_backward(loss, lambda: loss.backward())
    'sqrt'
    """
    found: list[str] = []

    def look(node: Node) -> Callable[..., None]:
        name = node.name().removesuffix("Backward0")

        def hook(gradients: tuple[Any, ...], arrived: tuple[Any, ...]) -> None:
            if all(map(_finite, arrived)) and not all(map(_finite, gradients)):
                found.append(name)

        return hook

    with ExitStack() as hooks:
        for node in nodes(loss.grad_fn):
            hooks.callback(node.register_hook(look(node)).remove)
        differentiate()
    return found[0].removesuffix("Backward").lower() if found else None


def _finite(value: object) -> bool:
    return not isinstance(value, Tensor) or bool(torch.isfinite(value).all())
