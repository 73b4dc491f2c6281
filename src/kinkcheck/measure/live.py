"""Which ties could pass a choice on to a parameter, and which are dead."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd.graph import Node

from kinkcheck import ops
from kinkcheck.measure.forward import Forward, Kinks
from kinkcheck.ops.declared import Declared


def live(forward: Forward) -> list[Tensor]:
    """For every site, which tied windows could pass a choice on to a parameter.

    A tied window is dead if no gradient has arrived at it in any backward pass, or if a pointwise
    operation that made its entries lets nothing through at them, as a ReLU does below 0.

    Args:
        forward: the forward pass, after the backward passes that it listened to.

    Returns:
        Bool tensors of the shape of the site's output; of no dimension where no window is tied.

    >>> model = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU6(), torch.nn.MaxPool1d(2))
    >>> _ = torch.nn.init.constant_(model[0].bias, 9.0)
    >>> forward = Forward(model, lambda: model(torch.zeros(1, 1)).sum())
    >>> forward.listen()
    >>> _ = forward.gradient({})
    >>> live(forward)
    [tensor(False), tensor([[False]])]
    """
    makers = {
        kinks.edge.node: kinks
        for kinks in forward.kinks
        if kinks.edge is not None and _is_pointwise(kinks)
    }
    return [_live(kinks, makers) for kinks in forward.kinks]


def _live(kinks: Kinks, makers: dict[Node, Kinks]) -> Tensor:
    if not kinks.site.tied:
        return torch.tensor(False)
    tied = kinks.operation.tied()
    if kinks.reached is None:
        return torch.zeros_like(tied)
    reached = tied & kinks.reached
    found = {_behind_views(edge[0]) for edge in kinks.sources if edge is not None}
    made = [makers[node] for node in found if node in makers]
    if len(made) < len(found) or not made:
        return reached
    if _is_pointwise(kinks):
        _, passes = _passing(made[0])
        return reached & passes.reshape(reached.shape)
    entries = _attained(kinks)
    return reached if entries is None else reached & ~_blocked(entries, made)


def _is_pointwise(kinks: Kinks) -> bool:
    """Whether a site is a function of one number, of which alone its derivative depends."""
    operation = kinks.operation
    if not isinstance(operation, Declared):
        return isinstance(operation, ops.ReLU | ops.Rectified)
    given = (*operation.args[1:], *operation.kwargs.values())
    learned = any(isinstance(each, Tensor) and each.requires_grad for each in given)
    return isinstance(operation.branches, ops.Sides) and not learned


def _passing(kinks: Kinks) -> tuple[Tensor, Tensor]:
    """The output of a pointwise site, and where its derivative is not 0."""
    operation = kinks.operation
    with torch.enable_grad():
        x = operation.inputs[0].detach().requires_grad_()
        call = operation.of(x) if isinstance(operation, Declared) else ops.ReLU(x)
        value: Tensor = call.apply(kinks.site.selection)
        (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), slope != 0


def _attained(kinks: Kinks) -> Tensor | None:
    """The value of the entries that tie; None where they are made of several numbers."""
    operation = kinks.operation
    if not isinstance(operation, Declared):
        return kinks.value
    match operation.branches:
        case ops.Picks(contest=ops.Along() | ops.Between() | ops.Windowed() | ops.Gathered()):
            return kinks.value
        case ops.Sorted() | ops.Running() | ops.Brought():
            return kinks.value
        case ops.Ball(inputs=inputs, contest=(ops.Along() | ops.Windowed()) as contest):
            # A norm may be 0 where powers underflow.
            return contest.best(contest.entries(*inputs).detach().nan_to_num(0).abs(), largest=True)
    return None


def _blocked(entries: Tensor, made: Iterable[Kinks]) -> Tensor:
    """Where entries have a value that operations return nowhere but where they are constant."""
    blocked = torch.ones_like(entries, dtype=torch.bool)
    for kinks in made:
        here = torch.zeros_like(blocked)
        for constant in _constants(*_passing(kinks)):
            here |= entries == constant
        blocked &= here
    return blocked


def _constants(value: Tensor, passes: Tensor) -> list[Tensor]:
    """What a pointwise operation returns where it is constant: its pieces of that kind are two."""
    held = value[~passes]
    ends = [held.amin(), held.amax()] if held.numel() else []
    return [end for end in ends if not bool((passes & (value == end)).any())]


_VIEWS = ("View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "Alias", "Clone")


def _behind_views(node: Node) -> Node:
    """The node that made what a tensor shows in another shape."""
    while node.name().startswith(_VIEWS) and node.next_functions and node.next_functions[0][0]:
        node = node.next_functions[0][0]
    return node
