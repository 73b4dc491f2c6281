"""Tangents: how the tensors of a recorded program move along a direction.

They go through the program once, from its first operation to its last, and no operation is carried
out again: a backward pass is linear in the gradient that it starts from, and its own backward pass,
its adjoint, carries tangents forwards. Where the gradient of a tensor passes, its tangent passes
the other way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, _engine_run_backward
from torch.utils._python_dispatch import _disable_current_modes

from kinkcheck.errors import InputError
from kinkcheck.interrupts import let_through
from kinkcheck.tape.adjoints import short
from kinkcheck.tape.graph import leaf_of, nodes
from kinkcheck.tape.hooks import alter

Edge = tuple[Any, int]
"""Where the gradient of a tensor arrives: a node of the graph, and the number of its output."""


Note = Callable[[Edge, Tensor], None]
"""What is called with a tangent as it passes: where that is, and the tangent."""


@dataclass(frozen=True)
class Traced:
    """A backward pass and its adjoint along some directions.

    Attributes:
        gradients: of the tensors; None where the loss does not depend on one.
        at_cuts: those that arrived at the cuts.
        arrived: the gradients of tensors, by their edges; nothing where none arrived.
        moved: for each direction the tangents of tensors, by their edges; nothing where a tensor
            does not move, and where they were noted elsewhere.
    """

    gradients: tuple[Tensor | None, ...]
    at_cuts: tuple[Tensor | None, ...]
    arrived: dict[Edge, Tensor]
    moved: list[dict[Edge, Tensor]]


def edge_of(tensor: Tensor) -> Edge | None:
    """Where the gradient of a tensor arrives; None where it has none.

    >>> x = torch.ones(1, requires_grad=True)
    >>> edge_of(2 * x), edge_of(torch.ones(1))
    ((<MulBackward0 ...>, 0), None)
    """
    if not tensor.requires_grad:
        return None
    edge = torch.autograd.graph.get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def trace(
    loss: Tensor,
    tensors: Sequence[Tensor],
    directions: Iterable[Sequence[Tensor]],
    edges: Iterable[Edge] = (),
    arriving: Iterable[Edge] = (),
    *,
    uncancelled: bool = False,
    cuts: Sequence[GradientEdge] = (),
    bare: bool = False,
    note: Note | None = None,
) -> Traced:
    """Differentiate a loss, and carry tangents along directions through the program.

    Args:
        loss: a single number.
        tensors: what moves.
        directions: for each direction how each tensor moves.
        edges: of the tensors whose tangents are asked for.
        arriving: of those whose gradients are.
        uncancelled: whether the gradient of each number of these tensors is multiplied by a factor
            drawn at random, lest gradients that come on several ways cancel; tangents are not.
        cuts: where else gradients are asked for.
        bare: whether no hooks but kinkcheck's own are in the graph, nor is a part of it made anew
            in a backward pass: then tangents take less time (:mod:`kinkcheck.tape.adjoints`).
        note: called with each tangent that is asked for as it passes, in place of keeping it: all
            of them together may take as much memory as what the forward pass has saved.

    Raises:
        InputError: an operation on the way has no forward mode that can be had from its backward
            pass.

    >>> x = torch.tensor([3.0], requires_grad=True)
    >>> y = x.square()
    >>> found = trace(y.sin().sum(), [x], [[torch.ones(1)]], [edge_of(y)])
    >>> list(found.moved[0].values())
    [tensor([6.])]
    """
    wanted: dict[Any, list[int]] = {}  # places where tangents are noted
    asked: dict[Any, list[int]] = {}  # and gradients
    for node, place in arriving:
        asked.setdefault(node, []).append(place)
    own = {id(tensor): place for place, tensor in enumerate(tensors)}
    leaves: dict[Edge, int] = {}
    inner = {edge_of(tensor): place for place, tensor in enumerate(tensors)}
    for edge in edges:
        node, place = edge
        leaf = leaf_of(node)
        if edge in inner:
            leaves[edge] = inner[edge]
        elif leaf is None:
            wanted.setdefault(node, []).append(place)
        elif id(leaf) in own:
            leaves[edge] = own[id(leaf)]
    arrived: dict[Edge, Tensor] = {}
    moved: list[dict[Edge, Tensor]] = []

    def pass_by(edge: Edge, tangent: Tensor) -> None:
        if note is None:
            moved[-1][edge] = tangent
            return
        # What is done with it is no part of the program.
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            note(edge, tangent)

    factors = torch.Generator().manual_seed(0) if uncancelled else None
    start = torch.ones_like(loss, requires_grad=True)
    try:
        with ExitStack() as stack, let_through(), torch.enable_grad():
            for node in wanted | asked:
                places = wanted.get(node, []), asked.get(node, [])
                stack.enter_context(alter(node, _noting(node, *places, pass_by, arrived, factors)))
            if bare:
                stack.enter_context(short(nodes(loss.grad_fn)))
            found = _run([loss], [start], [*tensors, *cuts], create_graph=True)
            gradients = found[: len(tensors)]
            stack.close()
            for direction in directions:
                moved.append({})
                for edge, place in leaves.items():
                    pass_by(edge, direction[place])
                moving = {
                    gradient: each
                    for gradient, each in zip(gradients, direction, strict=True)
                    if gradient is not None and gradient.requires_grad
                }
                if moving:
                    _run([*moving], [*moving.values()], [start], create_graph=False)
    except RuntimeError as error:
        raise InputError(
            f"tangents: the program cannot be differentiated in forward mode: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    kept = tuple(each if each is None else each.detach() for each in found)
    return Traced(kept[: len(tensors)], kept[len(tensors) :], arrived, moved)


def pull(cotangents: Mapping[Edge, Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    """The adjoint of tangents: the gradient of a sum of products of inner tensors.

    Args:
        cotangents: what each tensor, given by its edge, is multiplied with.
        tensors: what it is differentiated with respect to.

    >>> x = torch.tensor([3.0], requires_grad=True)
    >>> y = x.square()
    >>> pull({edge_of(y): torch.ones(1), edge_of(x): torch.ones(1)}, [x])
    [tensor([7.])]
    """
    found = [torch.zeros_like(each, requires_grad=False) for each in tensors]
    own = {id(tensor): place for place, tensor in enumerate(tensors)}
    inner = {edge_of(tensor): place for place, tensor in enumerate(tensors)}
    roots: list[GradientEdge] = []
    given: list[Tensor] = []
    for edge, cotangent in cotangents.items():
        leaf = leaf_of(edge[0])
        place = inner.get(edge, None if leaf is None else own.get(id(leaf)))
        if place is not None:
            found[place] += cotangent
        elif leaf is None:
            roots.append(GradientEdge(*edge))
            given.append(cotangent)
    if roots:
        with let_through():
            passed: tuple[Tensor | None, ...] = _engine_run_backward(
                tuple(roots), tuple(given), True, False, tuple(tensors), True, accumulate_grad=False
            )
        for total, each in zip(found, passed, strict=True):
            if each is not None:
                total += each.to_dense() if each.layout != torch.strided else each
    return found


class _Noted(torch.autograd.Function):
    """A gradient, which notes the tangent that comes by when its pass is differentiated."""

    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        edge: Edge,
        note: Note,
        factors: torch.Generator | None,
    ) -> Tensor:
        ctx.edge, ctx.note = edge, note
        if factors is None:
            return gradient.view_as(gradient)
        drawn = torch.rand(gradient.shape, generator=factors, dtype=torch.float64)
        return gradient * (0.5 + drawn).to(gradient)

    @staticmethod
    def backward(ctx: Any, *tangents: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.note(ctx.edge, tangents[0].detach())
        return tangents[0], None, None, None


def _noting(
    node: Any,
    moving: list[int],
    arriving: list[int],
    note: Note,
    arrived: dict[Edge, Tensor],
    factors: torch.Generator | None,
) -> Any:
    """A hook of a node that notes what arrives and lets tangents be noted."""

    def hook(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        found = list(gradients)
        for place in dict.fromkeys((*arriving, *moving)):
            gradient = found[place]
            if gradient is None:
                continue
            if gradient.layout != torch.strided:
                raise RuntimeError("a sparse gradient arrives at one of its operations")
            if place in arriving:
                arrived[node, place] = gradient.detach()
            if gradient.requires_grad and (place in moving or factors is not None):
                found[place] = _Noted.apply(gradient, (node, place), note, factors)
        return tuple(found)

    return hook


def _run(
    of: Sequence[Tensor],
    start: Sequence[Tensor],
    inputs: Sequence[Tensor | GradientEdge],
    create_graph: bool,
) -> tuple[Tensor | None, ...]:
    # torch.autograd.grad would switch function modes off, which activation checkpointing needs on.
    found: tuple[Tensor | None, ...] = _engine_run_backward(
        tuple(of), tuple(start), True, create_graph, tuple(inputs), True, accumulate_grad=False
    )
    return found
