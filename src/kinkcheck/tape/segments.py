"""Backward passes that run again only where they differ from the first one.

The graph of a loss is cut where all of it passes through a single node; between two cuts lies a
segment. When a later pass arrives at a segment with the gradient of the first, bit for bit, and
nothing inside was chosen differently, the gradients inside are known already. So a choice at ties
that are dead, since a ReLU blocks what they get, costs no more than the way to that ReLU.

The gradients are those of a whole pass, but for the signs of zeros: a segment that runs again gets
the same numbers in the same order. Hooks of tensors and of nodes have to be kept out: one at a cut
would act on what it has acted on already.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, _engine_run_backward

from kinkcheck.interrupts import let_through
from kinkcheck.tape.graph import leaf_of

Gradient = Tensor | None


_BEYOND = 1
"""How many kinks are cut at below one where choices differ. A ReLU there may let nothing through of
how they do; cuts further down would only cost memory."""


@dataclass
class _Segment:
    """What lies between two cuts.

    Attributes:
        top: where the gradient comes in.
        leaves: positions of the tensors whose gradient is computed inside.
        kinks: the kinks inside.
    """

    top: GradientEdge
    leaves: list[int] = field(default_factory=list)
    kinks: list[Hashable] = field(default_factory=list)


class Segments:
    """The backward passes of one loss with respect to some tensors, under choices at kinks.

    Args:
        loss: a single number that requires a gradient.
        tensors: what to differentiate with respect to.
        kink_at: the kink that a node of the graph is, or None.
        differs: whether two choices at a kink may give two gradients.

    >>> x = torch.tensor([3.0], requires_grad=True)
    >>> Segments((2 * x).sum(), [x], lambda node: None, bool).gradients({})
    (tensor([2.]),)
    """

    def __init__(
        self,
        loss: Tensor,
        tensors: Sequence[Tensor],
        kink_at: Callable[[Any], Hashable | None],
        differs: Callable[[Any], bool],
    ) -> None:
        self._tensors = tuple(tensors)
        self._ones = torch.ones_like(loss)
        root = _root(loss)
        self._segments = _cut(root, self._tensors, kink_at, differs) or [
            _Segment(root, list(range(len(self._tensors))))
        ]
        # A kink that hides in the graph of another function can be found in none of the segments.
        self._found = {kink for segment in self._segments for kink in segment.kinks}
        self._chosen: dict[Hashable, object] = {}
        self._leaves: list[Gradient] = []
        self._tops: list[Gradient] = []

    def gradients(self, chosen: Mapping[Hashable, object]) -> tuple[Tensor, ...]:
        """The gradients under what is chosen at the kinks now.

        Args:
            chosen: for every kink what is chosen there, to be compared with the first pass.

        Returns:
            One tensor for each of ``tensors``, not shared with the result of another call; zeros
            where the loss does not depend on it.
        """
        leaves = self._later_pass(chosen) if self._tops else self._first_pass(chosen)
        return _filled(self._tensors, [leaf if leaf is None else leaf.clone() for leaf in leaves])

    @property
    def begun(self) -> bool:
        """Whether there was a first pass."""
        return bool(self._tops)

    @property
    def cuts(self) -> list[GradientEdge]:
        """Where one segment ends and the next one begins."""
        return [segment.top for segment in self._segments[1:]]

    def begin(self, found: Sequence[Gradient], chosen: Mapping[Hashable, object]) -> None:
        """Remember a first pass.

        Args:
            found: the gradients of the tensors, and then those at the cuts.
            chosen: what was chosen at the kinks.
        """
        self._leaves = list(found[: len(self._tensors)])
        self._tops = [self._ones, *found[len(self._tensors) :]]
        self._chosen = dict(chosen)

    def _first_pass(self, chosen: Mapping[Hashable, object]) -> list[Gradient]:
        found = _run(self._segments[0].top, self._ones, [*self._tensors, *self.cuts])
        self.begin(found, chosen)
        return self._leaves

    def _later_pass(self, chosen: Mapping[Hashable, object]) -> list[Gradient]:
        changed = {kink for kink, choice in chosen.items() if choice != self._chosen.get(kink)}
        if changed and (len(self._segments) == 1 or not changed <= self._found):
            return _run(self._segments[0].top, self._ones, self._tensors)
        leaves = list(self._leaves)
        top: Gradient = self._ones
        for index, segment in enumerate(self._segments):
            if changed.isdisjoint(segment.kinks) and _equal(top, self._tops[index]):
                top = self._tops[index + 1] if index + 1 < len(self._tops) else None
                continue
            below = [s.top for s in self._segments[index + 1 : index + 2]]
            found = _run(
                segment.top, top, [*(self._tensors[leaf] for leaf in segment.leaves), *below]
            )
            top = found.pop() if below else None  # the one before is let go of
            for leaf, gradient in zip(segment.leaves, found, strict=True):
                leaves[leaf] = gradient
        return leaves


def whole_pass(loss: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The gradients of one whole backward pass, of which nothing is remembered.

    Args:
        loss: a single number that requires a gradient.
        tensors: what to differentiate with respect to.

    Returns:
        One tensor for each of ``tensors``; zeros where the loss does not depend on it.

    >>> x = torch.tensor([3.0], requires_grad=True)
    >>> whole_pass((2 * x).sum(), [x])
    (tensor([2.]),)
    """
    return _filled(tensors, _run(_root(loss), torch.ones_like(loss), tensors))


def _root(loss: Tensor) -> GradientEdge:
    assert loss.grad_fn is not None
    return GradientEdge(loss.grad_fn, loss.output_nr)


def _filled(tensors: Sequence[Tensor], gradients: Sequence[Gradient]) -> tuple[Tensor, ...]:
    return tuple(
        torch.zeros_like(tensor) if gradient is None else gradient
        for tensor, gradient in zip(tensors, gradients, strict=True)
    )


def _run(
    root: GradientEdge, gradient: Gradient, inputs: Sequence[Tensor | GradientEdge]
) -> list[Gradient]:
    # torch.autograd.grad would switch function modes off, which activation checkpointing needs on
    # (see kinkcheck.tape).
    if gradient is None or not inputs:
        return [None] * len(inputs)
    with let_through():
        found = _engine_run_backward(
            (root,), (gradient,), True, False, tuple(inputs), True, accumulate_grad=False
        )
    return list(found)


def _equal(a: Gradient, b: Gradient) -> bool:
    if a is None or b is None or a.layout != torch.strided or b.layout != torch.strided:
        return a is b
    return a is b or torch.equal(a, b)


def _cut(
    root: GradientEdge,
    tensors: tuple[Tensor, ...],
    kink_at: Callable[[Any], Hashable | None],
    differs: Callable[[Any], bool],
) -> list[_Segment] | None:
    """The segments from the loss down, or None where the graph has to stay in one piece.

    Nodes are visited from the last created to the first, which is an order in which every node
    comes after all that lead to it. When no other node waits, all of the graph below lies behind
    the one that is visited.
    """
    position = {id(tensor): index for index, tensor in enumerate(tensors)}
    if len(position) < len(tensors) or not all(tensor.is_leaf for tensor in tensors):
        return None
    segments = [_Segment(root)]
    found: set[int] = set()
    # Entries of the heap: minus the number that counts nodes, the node, the outputs that lead here.
    waiting: dict[Any, set[int]] = {root.node: {root.output_nr}}
    heap = [(-root.node._sequence_nr(), id(root.node), root.node)]
    beyond, below_kink = 0, False
    while heap:
        number, _, node = heappop(heap)
        outputs = waiting.pop(node)
        kink = kink_at(node)
        starts = kink is not None and differs(kink)
        if kink is not None:
            beyond = _BEYOND if starts else beyond - 1
            kink = kink if beyond >= 0 else None
        alone = not heap and len(outputs) == 1 and node is not root.node
        # Cuts elsewhere would only cost memory for the gradients of the first pass. A kink right
        # below another one runs again with it, which takes little time.
        together = kink is not None and below_kink
        if alone and not together and (starts or segments[-1].kinks):
            segments.append(_Segment(GradientEdge(node, outputs.pop())))
        if kink is not None:
            segments[-1].kinks.append(kink)
        below_kink = kink is not None
        for follower, output in node.next_functions:
            if follower is None:
                continue
            leaf = leaf_of(follower)
            if leaf is not None:
                index = position.get(id(leaf))
                if index is not None:
                    if index in found and index not in segments[-1].leaves:
                        return None  # the sum of its gradients spans several segments
                    found.add(index)
                    if index not in segments[-1].leaves:
                        segments[-1].leaves.append(index)
                continue
            if -follower._sequence_nr() <= number:
                return None  # made by several threads: their numbers tell no order
            if follower not in waiting:
                waiting[follower] = set()
                heappush(heap, (-follower._sequence_nr(), id(follower), follower))
            waiting[follower].add(output)
    return segments
