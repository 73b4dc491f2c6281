"""Losses that PyTorch writes with nonsmooth operations, as it writes them."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NONE, MEAN, SUM = 0, 1, 2
"""How PyTorch numbers reductions."""


def l1_loss(input: Tensor, target: Tensor, reduction: int = NONE) -> Tensor:
    """Of each entry the distance from its target.

    >>> l1_loss(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 3.0]))
    tensor([1., 0.])
    """
    return _reduced((input - target).abs(), reduction)


def smooth_l1_loss(
    input: Tensor, target: Tensor, reduction: int = NONE, beta: float = 1.0
) -> Tensor:
    """The same, rounded off within β of the target; smooth unless β is 0.

    >>> smooth_l1_loss(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 3.0]), MEAN, beta=0.0)
    tensor(0.5000)
    """
    if beta == 0:
        return l1_loss(input, target, reduction)
    return _original(torch._C._nn.smooth_l1_loss, input, target, reduction, beta)


def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, reduction: int = NONE
) -> Tensor:
    """The distance of pairs that are alike, and what others lack of the margin.

    >>> hinge_embedding_loss(torch.tensor([0.25, 0.25]), torch.tensor([1.0, -1.0]))
    tensor([0.2500, 0.7500])
    """
    zeros = torch.zeros_like(input)
    apart = torch.where(target != 1, (margin - input).clamp_min(0), zeros)
    alike = torch.where(target != -1, input, zeros)
    return _reduced(apart + alike, reduction)


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: int = NONE
) -> Tensor:
    """What the first lacks to be larger than the second by the margin, or the other way.

    >>> one, other = torch.tensor([1.0]), torch.tensor([0.5])
    >>> margin_ranking_loss(one, other, torch.tensor([-1.0]))
    tensor([0.5000])
    """
    lacking = (-target * (input1 - input2) + margin).clamp_min(0)
    return _reduced(lacking, reduction)


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: int = NONE
) -> Tensor:
    """What the cosine of a pair lacks of 1, or has above the margin.

    >>> pair = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0])
    >>> cosine_embedding_loss(*pair, torch.tensor(-1.0), margin=0.5)
    tensor(0.1000)
    """
    last = target.dim()
    if last > 1 or input1.dim() != last + 1 or input2.dim() != last + 1:
        refused = torch.cosine_embedding_loss
        return _original(refused, input1, input2, target, margin, reduction)
    product = (input1 * input2).sum(last)
    squares = [(each * each).sum(last) + 1e-12 for each in (input1, input2)]
    cosine = product / (squares[0] * squares[1]).sqrt()
    zeros = torch.zeros_like(cosine)
    alike = torch.where(target == 1, 1 - cosine, zeros)
    apart = torch.where(target == -1, (cosine - margin).clamp_min(0), zeros)
    return _reduced(alike + apart, reduction)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: int = NONE,
) -> Tensor:
    """What the negative lacks to be farther than the positive by the margin.

    >>> zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    >>> triplet_margin_loss(zero, zero, one, 1.5, eps=0.0)
    tensor([0.5000])
    """
    if not anchor.dim() == positive.dim() == negative.dim():
        refused = torch.triplet_margin_loss
        return _original(refused, anchor, positive, negative, margin, p, eps, swap, reduction)
    near = torch.pairwise_distance(anchor, positive, p, eps)
    far = torch.pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = torch.minimum(far, torch.pairwise_distance(positive, negative, p, eps))
    return _reduced((margin + near - far).clamp_min(0), reduction)


def _reduced(losses: Tensor, reduction: int) -> Tensor:
    if reduction == MEAN:
        return losses.mean()
    return losses.sum() if reduction == SUM else losses


def _original(function: Any, *args: Any) -> Tensor:
    """A function of PyTorch without what is written here in its place."""
    with torch._C.DisableTorchFunction():
        value: Tensor = function(*args)
    return value


def _own(function: Any) -> Callable[..., Any]:
    """A function that PyTorch writes in Python, whose calls of other functions are seen.

    It would hand itself as a whole to whoever takes calls over.
    """
    asks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    names = {**function.__globals__, **dict.fromkeys(asks, lambda *args: False)}
    body = FunctionType(function.__code__, names, function.__name__, function.__defaults__)
    body.__kwdefaults__ = function.__kwdefaults__
    return body


COMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch._C._nn.l1_loss: l1_loss,
    torch._C._nn.smooth_l1_loss: smooth_l1_loss,
    torch.hinge_embedding_loss: hinge_embedding_loss,
    torch.margin_ranking_loss: margin_ranking_loss,
    torch.cosine_embedding_loss: cosine_embedding_loss,
    torch.triplet_margin_loss: triplet_margin_loss,
    **{
        function: _own(function)
        for function in (
            F.l1_loss,
            F.smooth_l1_loss,
            F.hinge_embedding_loss,
            F.margin_ranking_loss,
            F.cosine_embedding_loss,
            F.triplet_margin_loss,
            F.triplet_margin_with_distance_loss,
            F.normalize,
            F.rrelu,
        )
    },
}
"""Losses, and whatever else PyTorch writes in Python, by the function that they stand for."""
