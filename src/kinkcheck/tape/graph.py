"""The graph that autograd keeps of a loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor


def nodes(root: Any) -> Iterator[Any]:
    """A node of the graph and all nodes that its gradient reaches, each once.

    >>> import torch
    >>> loss = (2 * torch.ones(3, requires_grad=True)).sum()
    >>> [node.name() for node in nodes(loss.grad_fn)]
    ['SumBackward0', 'MulBackward0', '...AccumulateGrad']
    """
    seen = {root}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        for follower, _ in node.next_functions:
            if follower is not None and follower not in seen:
                seen.add(follower)
                waiting.append(follower)


def nodes_between(loss: Tensor, tensors: Sequence[Tensor]) -> list[Any]:
    """The nodes through which the gradient of a loss reaches some tensors.

    >>> import torch
    >>> x, y = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    >>> [node.name() for node in nodes_between((2 * x).sum() + y.exp().sum(), [y])]
    ['ExpBackward0', 'SumBackward0', 'AddBackward0']
    """
    leaves = {id(tensor) for tensor in tensors if tensor.grad_fn is None}
    inner = {(tensor.grad_fn, tensor.output_nr) for tensor in tensors if tensor.grad_fn is not None}
    above: dict[Any, list[Any]] = {}
    reached: list[Any] = []
    for node in nodes(loss.grad_fn):
        for follower, output in node.next_functions:
            if follower is not None:
                above.setdefault(follower, []).append(node)
                if id(leaf_of(follower)) in leaves or (follower, output) in inner:
                    reached.append(node)
    found = dict.fromkeys(reached)
    while reached:
        for node in above.get(reached.pop(), ()):
            if node not in found:
                found[node] = None
                reached.append(node)
    return list(found)


def leaf_of(node: Any) -> Tensor | None:
    """The tensor that a node stands for that was not computed, or None.

    >>> import torch
    >>> x = torch.ones(3, requires_grad=True)
    >>> [leaf_of(node) is x for node in nodes((2 * x).grad_fn)]
    [False, True]
    """
    return getattr(node, "variable", None)


def function_of(node: Any) -> type[Any] | None:
    """The ``torch.autograd.Function`` that made a node, or None.

    >>> import torch
    >>> function_of((2 * torch.ones(3, requires_grad=True)).grad_fn) is None
    True
    """
    return getattr(type(node), "_forward_cls", None)
