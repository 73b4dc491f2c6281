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

from kinkcheck.ops.branches import Active, Alone, Weights
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

    switched: bool
    """Whether a pass of the tape chose the selection."""


def at_ties(
    value: Tensor,
    inputs: Sequence[Tensor],
    active: Active | None,
    choice: Choice,
    alone: Alone | None = None,
) -> Tensor:
    """A value that PyTorch computed, with another derivative where several branches are active.

    Args:
        value: the value, with PyTorch's own graph.
        inputs: the tensors that the branches depend on.
        active: the active branches; None where nothing is tied.
        choice: whom to ask for the selection at backward time.
        alone: the derivative elsewhere, where PyTorch may not know how tangents pass. Without it
            a value is left as it is where nothing is tied.

    >>> from kinkcheck.ops.sides import Sides
    >>> from kinkcheck.selection import Branch
    >>> x = torch.zeros(1, requires_grad=True)
    >>> sides = Sides(x, [(0.0, -1.0, 1.0)])
    >>> at_ties(x.abs(), [x], sides.active(x), Branch(0.75)).backward()
    >>> x.grad
    tensor([0.5000])
    """
    if active is None and alone is None:
        return value
    tensors: list[Tensor] = []
    bare = _apart((active, alone), tensors)
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
        bare = _apart((active, None), tensors)
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
        active, alone = _filled(ctx.bare, iter(tensors))
        (gradient,) = grad_outputs
        if not _carries(active, alone, ctx.choice):
            native, found = shared(active, ctx.choice, gradient, ctx.like)
        else:
            native, found = shared(active, ctx.choice, gradient.detach(), ctx.like)
            carried = _Route.apply(gradient, ctx.bare, ctx.choice, ctx.like, *tensors)
            found = tuple(c if f is None else f + c for f, c in zip(found, carried, strict=True))
        return native, None, None, None, *found, *(None,) * len(tensors)


class _AtTiesWithJvp(_AtTies):
    """The same with forward-mode AD, which torch.compile does not take."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        active: Active | None = _filled(ctx.bare, iter(ctx.saved_tensors))[0]
        selection = ctx.choice.selection
        if active is None:
            return tangents[0].clone()  # type: ignore[no-any-return]
        moved = active.native(tangents[0])
        if isinstance(selection, Native):
            return moved.clone()
        given = tangents[4 : 4 + len(ctx.like)]
        weights = active.along(given) if isinstance(selection, Limit) else active.weights(selection)
        return _moved(active, selection, weights, given, moved)


def _moved(
    active: Active, selection: Any, weights: Weights, tangents: Any, native: Tensor
) -> Tensor:
    """The tangent of the output, from that which is native."""
    at_ties = _native(active, selection, native) + active.push(weights, tangents)
    return torch.where(active.tied(), at_ties, native)


def _carries(active: Active | None, alone: Alone | None, choice: Choice) -> bool:
    """Whether tangents pass here, in a pass of a tape, by what the branches know."""
    if alone is None or not torch.is_grad_enabled():
        return False
    known = active is None or alone.native or native_share(choice.selection) == 0
    return known and isinstance(choice, Directed) and choice.switched


class _Route(torch.autograd.Function):
    """Nothing, of which the adjoint is the tangent of the output.

    At ties alone when no direction has come by yet; everywhere where PyTorch has no adjoint.
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
        gradient, ctx.bare, ctx.choice, _, *tensors = inputs
        (ctx.output,) = like([gradient])
        ctx.winners = ctx.choice.winners
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *tangents: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        active, alone = _filled(ctx.bare, iter(tensors))
        selection, weights = ctx.choice.selection, ctx.winners
        shape, dtype, device = ctx.output
        moved = torch.zeros(shape, dtype=dtype, device=device)
        if alone is not None:
            moved = alone.push(tangents)
        if active is not None:
            if not isinstance(selection, Limit):
                weights = active.weights(selection)
            elif weights is None:
                weights = ctx.choice.winners = active.along(tangents)
            moved = _moved(active, selection, weights, tangents, moved)
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
