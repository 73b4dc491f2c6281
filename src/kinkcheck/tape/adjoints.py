"""The adjoints of the backward passes of convolutions and of batch norm, with nothing beside.

The adjoint of the backward pass of an operation is its derivative forwards. PyTorch's own, for
these operations, is that with respect to all that the backward pass was computed from: for that of
a convolution it takes four more, of which two are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from kinkcheck.tape.hooks import alter, alter_after

_aten = torch.ops.aten

Gradients = tuple[Tensor | None, ...]
Adjoint = Callable[[Any, Gradients], Tensor | None]
"""Of a node of the graph: from tangents of what it returns to the tangent of what arrives there."""


@contextmanager
def short(graph: Iterable[Any]) -> Iterator[None]:
    """A context in which a backward pass is recorded so that its own backward pass is short.

    The gradients are the same, bit for bit. Only what follows from the gradient that the pass
    starts from can be differentiated.

    Args:
        graph: the nodes that the pass may run, without hooks but kinkcheck's own.

    >>> x = torch.rand(1, 1, 3, requires_grad=True)
    >>> weight = torch.rand(1, 1, 2, requires_grad=True)
    >>> y = torch.nn.functional.conv1d(x, weight)
    >>> start = torch.ones_like(y, requires_grad=True)
    >>> with short([y.grad_fn]):
    ...     (gradient,) = torch.autograd.grad(y, x, start, create_graph=True)
    >>> gradient.grad_fn.name()
    '_ShortBackward'
    """
    with ExitStack() as stack:
        for node in graph:
            adjoint = _ADJOINTS.get(node.name())
            if adjoint is not None:
                _shorten(stack, node, adjoint)
        yield


def _shorten(stack: ExitStack, node: Any, adjoint: Adjoint) -> None:
    arrived: list[Tensor] = []

    def before(gradients: Gradients) -> Gradients:
        first, *others = gradients
        if first is None or not first.requires_grad:
            return gradients
        arrived[:] = [first]
        return first.detach(), *others

    def after(found: Gradients) -> Gradients:
        if not arrived:
            return found
        bare = (each if each is None else each.detach() for each in found)
        shortened: Gradients = _Short.apply(arrived.pop(), node, adjoint, *bare)
        return shortened

    stack.enter_context(alter(node, before))
    stack.enter_context(alter_after(node, after))


class _Short(torch.autograd.Function):
    """What a node returned, whose derivative is what an adjoint says."""

    @staticmethod
    def forward(
        ctx: Any, arrived: Tensor, node: Any, adjoint: Adjoint, *found: Tensor | None
    ) -> Gradients:
        ctx.node, ctx.adjoint, ctx.shape = node, adjoint, arrived.shape
        ctx.set_materialize_grads(False)
        return tuple(each if each is None else each.view_as(each) for each in found)

    @staticmethod
    def backward(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        moved = ctx.adjoint(ctx.node, tangents)
        # The tangent of a bias alone is the same everywhere.
        moved = moved if moved is None else moved.expand(ctx.shape)
        return moved, None, None, *(None for _ in tangents)


def _convolution(node: Any, tangents: Gradients) -> Tensor | None:
    of_input, of_weight, of_bias = tangents
    dimensions = node._saved_weight.dim() - 2
    how = (
        node._saved_stride, node._saved_padding, node._saved_dilation, node._saved_transposed,
        node._saved_output_padding, node._saved_groups,
    )  # fmt: skip
    parts = []
    if of_input is not None:
        parts.append(_aten.convolution(of_input, node._saved_weight, None, *how))
    if of_weight is not None:
        parts.append(_aten.convolution(node._saved_input, of_weight, of_bias, *how))
    elif of_bias is not None:
        parts.append(of_bias.view(-1, *(1,) * dimensions))
    return _sum(parts)


def _batch_norm(node: Any, tangents: Gradients) -> Tensor | None:
    of_input, of_weight, of_bias = tangents
    input = node._saved_input
    if node._saved_training:
        mean, scale = node._saved_result1, node._saved_result2
    else:
        mean = node._saved_running_mean
        scale = (node._saved_running_var + node._saved_eps).rsqrt()
    parts = []
    if of_input is not None:
        # The backward pass, up to the weight and the bias, is its own adjoint.
        parts.append(
            _aten.native_batch_norm_backward(
                of_input, input, node._saved_weight, node._saved_running_mean,
                node._saved_running_var, mean, node._saved_result2, node._saved_training,
                node._saved_eps, [True, False, False],
            )[0]
        )  # fmt: skip
    shift = of_bias
    if of_weight is not None:
        scale = scale * of_weight
        shift = -mean * scale if shift is None else shift - mean * scale
    if shift is not None:
        along = (-1, *(1,) * (input.dim() - 2))
        shift = shift.view(along)
        moved = shift if of_weight is None else torch.addcmul(shift, input, scale.view(along))
        parts.append(moved)
    return _sum(parts)


def _sum(parts: list[Tensor]) -> Tensor | None:
    return sum(parts[1:], parts[0]) if parts else None


_ADJOINTS: dict[str, Adjoint] = {
    "ConvolutionBackward0": _convolution,
    "NativeBatchNormBackward0": _batch_norm,
}
