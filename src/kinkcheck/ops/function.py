"""The one autograd function: PyTorch's derivative, but for what a selection says at ties.

The value comes with PyTorch's own graph. At a tie its gradient keeps the share that the selection
leaves to native (:func:`kinkcheck.selection.native_share`), and the inputs get what the weights of
the active branches give them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from kinkcheck.ops.branches import Active, Weights
from kinkcheck.ops.operation import Choice
from kinkcheck.selection import Limit, Native, native_share

Like = tuple[tuple[int, ...], torch.dtype, torch.device]
"""Shape, type and device of a tensor."""

_Forward = TypeVar("_Forward", bound=Callable[..., Any])


@runtime_checkable
class Directed(Protocol):
    """A choice that knows what is active along a direction: a site under ``limit``."""

    selection: Any

    winners: Weights | None
    """The weights of the branches that stay active, once the direction has come by."""


def at_ties(
    value: Tensor, inputs: Sequence[Tensor], active: Active | None, choice: Choice
) -> Tensor:
    """A value that PyTorch computed, with another derivative where several branches are active.

    Args:
        value: the value, with PyTorch's own graph.
        inputs: the tensors that the branches depend on.
        active: the active branches; None where nothing is tied.
        choice: whom to ask for the selection at backward time.

    >>> from kinkcheck.ops.sides import Sides
    >>> from kinkcheck.selection import Branch
    >>> x = torch.zeros(1, requires_grad=True)
    >>> sides = Sides(x, [(0.0, -1.0, 1.0)])
    >>> at_ties(x.abs(), [x], sides.active(x), Branch(0.75)).backward()
    >>> x.grad
    tensor([0.5000])
    """
    tensors: list[Tensor] = []
    bare = _apart(active, tensors)
    function: type[_AtTies] = _AtTiesWithJvp
    if torch.compiler.is_compiling():
        function = _AtTies
        # torch.compile takes no tensor twice.
        inputs = [
            each.view_as(each) if any(each is other for other in inputs[:place]) else each
            for place, each in enumerate(inputs)
        ]
    result: Tensor = function.apply(value, bare, choice, len(inputs), *inputs, *tensors)
    return result


def shared(
    active: Active | None, choice: Choice, gradient: Tensor, like: Sequence[Like]
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """What of a gradient of the output goes the native way, and what the inputs get at ties.

    Args:
        active: the active branches; None where nothing is tied.
        choice: whom to ask for the selection.
        gradient: of the output.
        like: what the inputs are like.
    """
    selection = choice.selection
    if active is None or isinstance(selection, Native):
        return gradient, (None,) * len(like)
    native = _native(active, selection, gradient)
    if not isinstance(selection, Limit):
        found = active.pull(active.weights(selection), gradient)
    elif isinstance(choice, Directed) and choice.winners is not None:
        found = active.pull(choice.winners, gradient)
    else:
        tensors: list[Tensor] = []
        bare = _apart(active, tensors)
        found = _Route.apply(gradient, bare, choice, like, *tensors)
    return native, (*found, *(None,) * (len(like) - len(found)))


def _native(active: Active, selection: Any, direction: Tensor) -> Tensor:
    if active.additive:
        return direction
    share = native_share(selection)
    kept = torch.zeros_like(direction) if share == 0 else share * direction
    return torch.where(active.tied(), kept, direction)


def signed(forward: _Forward) -> _Forward:
    """A forward pass of an autograd function with its signature, which each call asks for.

    PyTorch would find it out anew, which takes longer than the call itself on a small tensor.

    >>> signed(lambda x: 2 * x)(3)
    6
    """
    forward.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    return forward


class _AtTies(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    @signed
    def forward(value: Tensor, bare: Any, choice: Choice, count: int, *tensors: Tensor) -> Tensor:
        # No view, which could not be overwritten by an operation in place; what PyTorch saved of
        # the value is guarded by the counter of versions that both have.
        return value.clone() if torch.compiler.is_compiling() else value.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.bare, ctx.choice, count, *tensors = inputs
        ctx.like = like(tensors[:count])
        ctx.save_for_backward(*tensors[count:])
        ctx.save_for_forward(*tensors[count:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors  # once, or activation checkpointing complains
        active = _filled(ctx.bare, iter(tensors))
        native, found = shared(active, ctx.choice, grad_outputs[0], ctx.like)
        return native, None, None, None, *found, *(None,) * len(tensors)


class _AtTiesWithJvp(_AtTies):
    """The same with forward-mode AD, which torch.compile does not take."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        active: Active | None = _filled(ctx.bare, iter(ctx.saved_tensors))
        selection = ctx.choice.selection
        if active is None:
            return tangents[0].clone()  # type: ignore[no-any-return]
        moved = active.native(tangents[0])
        if isinstance(selection, Native):
            return moved.clone()
        given = tangents[4 : 4 + len(ctx.like)]
        weights = active.along(given) if isinstance(selection, Limit) else active.weights(selection)
        at_ties = _native(active, selection, moved) + active.push(weights, given)
        return torch.where(active.tied(), at_ties, moved)


class _Route(torch.autograd.Function):
    """What the inputs get at ties when no direction has come by yet.

    The backward pass of a backward pass goes through a program forwards: what arrives at the
    adjoint of this function are the tangents of the inputs, from which the branch that stays
    active follows, and what leaves it is the tangent of the output.
    """

    @staticmethod
    @signed
    def forward(
        gradient: Tensor, bare: Any, choice: Any, like: Sequence[Like], *tensors: Tensor
    ) -> Any:
        return tuple(
            torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in like
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, ctx.bare, ctx.choice, _, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *tangents: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        active = _filled(ctx.bare, iter(tensors))
        ctx.choice.winners = active.along(tangents)
        moved = torch.where(active.tied(), active.push(ctx.choice.winners, tangents), 0)
        return moved, None, None, None, *(None,) * len(tensors)


def like(tensors: Sequence[Tensor]) -> tuple[Like, ...]:
    """What tensors are like."""
    return tuple((tuple(each.shape), each.dtype, each.device) for each in tensors)


_HOLE = ...  # where a tensor was: of the constants that torch.compile knows again


def _apart(value: Any, tensors: list[Tensor]) -> Any:
    """A value without its tensors, which are added to the list."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return _HOLE
    if isinstance(value, tuple):
        return tuple(_apart(each, tensors) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(*(_apart(getattr(value, f.name), tensors) for f in fields(value)))
    return value


def _filled(value: Any, tensors: Iterator[Tensor]) -> Any:
    if value is _HOLE:
        return next(tensors)
    if isinstance(value, tuple):
        return tuple(_filled(each, tensors) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(*(_filled(getattr(value, f.name), tensors) for f in fields(value)))
    return value
