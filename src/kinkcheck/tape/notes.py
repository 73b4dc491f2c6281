"""What a tape cannot switch: all that was met in the block, and what lies behind a loss."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kinkcheck.ops.unseen import NOT_PYTHON, key, unseen_row
from kinkcheck.tape.graph import function_of, nodes_between


@dataclass(frozen=True)
class Unseen:
    """Something that may have kinks and whose derivative the tape cannot choose.

    Attributes:
        layer: name of the module in which it was met; empty for the root itself, outside any
            module, and where it is not known.
        operation: name of the ATen operation, of the module, or of the autograd function.
        reason: why it is out of reach.
        calls: how often it was met.
        elements: of a jump, how many elements met it; None where that is not known.
        on_jump: how many of them lie exactly on it.
    """

    layer: str
    operation: str
    reason: str
    calls: int
    elements: int | None = None
    on_jump: int | None = None


ELSEWHERE = "called in a backward pass, in another thread or outside the block"
CUSTOM = "a custom autograd function: its backward pass is its own choice"
OUT_OF_SIGHT = "compiled or transformed: what it calls is out of sight"

_What = tuple[str, str, str]

OnJump = Tensor
"""A bool for each element that meets a jump: whether it lies exactly on it."""

_Met = tuple[_What, tuple[int, Tensor] | None]
"""What was met, and at a jump the number of elements and of those that lie on it."""


class Notes:
    """What was met, by the number of the node that autograd made of it.

    Autograd numbers the nodes of a thread in the order in which they are made, and makes the node
    of a call before the call itself.
    """

    def __init__(self) -> None:
        self._met: Counter[_What] = Counter()
        self._calls: defaultdict[int, list[_Met]] = defaultdict(list)
        self._steered: defaultdict[int, list[_Met]] = defaultdict(list)
        self._spans: list[tuple[int, float, _What]] = []
        self._of_sites: set[int] = set()

    def site(self, first: int) -> None:
        """Note that all nodes made from a number on belong to a site."""
        self._of_sites.update(range(first, next_number()))

    def met(self, layer: str, operation: str, reason: str) -> None:
        """Note something that reaches no gradient."""
        self._met[layer, operation, reason] += 1

    def call(self, layer: str, operation: str, reason: str, on_jump: OnJump | None = None) -> None:
        """Note an operation of ATen, whose node was the last to be made."""
        self.met(layer, operation, reason)
        self._calls[next_number() - 1].append(((layer, operation, reason), _counted(on_jump)))

    def steered(self, layer: str, operation: str, how: str, on_jump: OnJump | None = None) -> None:
        """Note that a jump steers an operation of ATen, whose node was the last to be made."""
        self.met(layer, operation, how)
        self._steered[next_number() - 1].append(((layer, operation, how), _counted(on_jump)))

    def span(self, first: int, layer: str, operation: str, reason: str) -> None:
        """Note what all nodes belong to that were made from a number on."""
        self.met(layer, operation, reason)
        self._spans.append((first, next_number(), (layer, operation, reason)))

    def from_here(self, layer: str, operation: str, reason: str) -> None:
        """Note what may steer everything that comes after."""
        self.met(layer, operation, reason)
        self._spans.append((next_number(), math.inf, (layer, operation, reason)))

    def all(self) -> list[Unseen]:
        """What was met in the block."""
        return [Unseen(*what, calls) for what, calls in self._met.items()]

    def behind(self, loss: Tensor, tensors: Sequence[Tensor]) -> list[Unseen]:
        """What the gradient of a loss goes through on its way to some tensors."""
        live = sorted(nodes_between(loss, tensors), key=lambda node: node._sequence_nr())
        found: Counter[_What] = Counter()
        jumps: defaultdict[_What, list[tuple[int, Tensor]]] = defaultdict(list)
        for what, counts in (met for node in live for met in self._at(node)):
            found[what] += 1
            if counts is not None:
                jumps[what].append(counts)
        numbers = [node._sequence_nr() for node in live]
        for first, end, what in self._spans:
            found[what] += any(first <= number < end for number in numbers)
        return [
            Unseen(*what, calls, *_summed(jumps.get(what)))
            for what, calls in found.items()
            if calls
        ]

    def _at(self, node: Any) -> list[_Met]:
        """What a node of the graph is."""
        name, number = node.name(), node._sequence_nr()
        if number in self._of_sites:
            return []
        if name.endswith("CopySlices"):  # wraps the node of a call that writes into a view
            return [*self._calls.get(number - 1, ()), *self._steered.get(number - 1, ())]
        function = function_of(node)
        if function is not None:
            return _function(function)
        if "CompiledFunction" in name or "DifferentiableGraph" in name:
            return [(("", name.rpartition(":")[2], OUT_OF_SIGHT), None)]
        if "CppNode" in name:
            return [(("", name, CUSTOM), None)]
        operation = key(name)
        row = unseen_row(operation, lambda argument: _saved(node, argument))
        kinks = _near(self._calls, number, operation)
        if row is not None and not kinks:
            why = ELSEWHERE if row.reason == NOT_PYTHON else f"{row.reason}; {ELSEWHERE}"
            kinks = [(("", row.name, why), None)]
        return [*kinks, *_near(self._steered, number, operation)]


def _counted(on_jump: OnJump | None) -> tuple[int, Tensor] | None:
    return None if on_jump is None else (on_jump.numel(), torch.count_nonzero(on_jump))


def _summed(counts: list[tuple[int, Tensor]] | None) -> tuple[int, int] | tuple[()]:
    if not counts:
        return ()
    return sum(elements for elements, _ in counts), sum(int(on) for _, on in counts)


def _near(notes: Mapping[int, list[_Met]], number: int, operation: str) -> list[_Met]:
    found = [met for met in notes.get(number, ()) if key(met[0][1]) == operation]
    # A call in place may copy what it overwrites, which makes another node in between.
    after = [met for met in notes.get(number + 1, ()) if met[0][1].endswith("_")]
    return found or [met for met in after if key(met[0][1]) == operation]


def next_number() -> int:
    """The number that the next node of the graph made in this thread will get."""
    return int(torch._C._autograd._get_sequence_nr())


def _function(function: type[Any]) -> list[_Met]:
    module = function.__module__
    if module.startswith("kinkcheck."):
        return []
    if module.startswith(_TRANSFORMING):
        return [(("", function.__name__, OUT_OF_SIGHT), None)]
    # The rest of PyTorch's own moves tensors between modules, devices and processes.
    if module.startswith("torch.") and not module.startswith(_OF_USERS):
        return []
    return [(("", function.__name__, CUSTOM), None)]


_TRANSFORMING = ("torch._functorch", "torch._dynamo", "torch._inductor", "torch._higher_order_ops")
_OF_USERS = ("torch._library", "torch.ao")  # custom operations, and rounding to quantised numbers


def _saved(node: Any, argument: str) -> Any:
    try:
        return getattr(node, f"_saved_{argument}", None)
    except RuntimeError:  # freed by a backward pass
        return None
