"""One forward pass of a program on a tape, and what its backward passes find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from kinkcheck.errors import blaming
from kinkcheck.measure.batch import tensors
from kinkcheck.ops import Operation
from kinkcheck.tape import Site, Tape, record
from kinkcheck.tape.graph import leaf_of, nodes
from kinkcheck.tape.hooks import look_at
from kinkcheck.tape.tangents import Edge, Note, Traced, edge_of
from kinkcheck.tape.tape import Choose
from kinkcheck.tape.watcher import Draw

Gradient = dict[str, Tensor]
Chooser = Callable[[Tape], Choose]
"""Which site of a forward pass takes which selection."""


@dataclass(eq=False)
class Kinks:
    """The kinks of one site, kept to be compared with those of the same site in the lift.

    Attributes:
        site: the site.
        operation: the call, as it is known once it was carried out.
        value: the output.
        edge: where the gradient of the output arrives; None if none can.
        sources: where the gradients of the inputs arrive; None for one that has none.
    """

    site: Site
    operation: Operation
    value: Tensor
    edge: GradientEdge | None
    sources: tuple[Edge | None, ...]
    _output: Tensor = field(repr=False)  # up to PyTorch 2.7 an edge does not keep its node
    _arrived: list[Tensor] = field(default_factory=list, init=False)

    @property
    def reached(self) -> Tensor | None:
        """Where a gradient that is not 0 has arrived since :meth:`listen`; None if none has."""
        return self._arrived[0] if self._arrived else None

    def listen(self) -> None:
        """See what arrives in the backward passes from now on, where windows are tied."""
        if self.edge is None or not self.site.tied:
            return
        # A hook that knew these kinks, and so the node, would keep the graph alive in a circle
        # until Python looks for one.
        place, arrived = self.edge.output_nr, self._arrived
        if self.site.in_view:  # what arrives is not seen
            arrived[:] = [torch.ones_like(self.value, dtype=torch.bool)]
            return

        def see(gradients: tuple[Tensor | None, ...]) -> None:
            if (gradient := gradients[place]) is not None:
                here = (gradient.to_dense() if gradient.is_sparse else gradient) != 0
                arrived[:] = [here | arrived[0]] if arrived else [here]

        look_at(self.edge.node, see)

    def disturb(self, size: float, generator: torch.Generator) -> None:
        """Multiply what arrives by 1 ± ``size``, each number by its own, from now on."""
        if self.edge is None:
            return
        place = self.edge.output_nr

        def alter(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
            altered = list(gradients)
            if (gradient := altered[place]) is not None:
                coin = torch.empty(gradient.shape, dtype=gradient.dtype)
                sign = coin.bernoulli_(generator=generator).mul_(2).sub_(1).to(gradient.device)
                altered[place] = gradient * sign.mul_(size).add_(1)
            return tuple(altered)

        self.edge.node.register_prehook(alter)


class Forward:
    """A recorded forward pass: its sites, and the gradients under whatever is chosen there.

    Args:
        model: the model, whose parameters are differentiated with respect to.
        run: calls it and returns the loss, a single number.
        where: how a complaint names the point.
        backward: a context for every backward pass.
        program: what the run consists of, to be left as it was found (see
            :func:`kinkcheck.tape.record`).
        draw: carries out what draws at random (see there).
        lean: let go of inputs of sites where the output tells of them what ties need; then it is
            not seen how they move between this point and another one.

    Attributes:
        model: the model.
        loss: the loss.
        tape: the sites.
        kinks: one entry a site, in order.
        outputs: the tensors that the model returned, if it was called once; else none.
        inputs: what it was called with, if it was called once; else nothing.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> forward = Forward(model, lambda: model(torch.zeros(1, 2)).sum())
    >>> [kinks.site.layer for kinks in forward.kinks], forward.outputs[0].shape
    (['1'], torch.Size([1, 2]))
    """

    def __init__(
        self,
        model: nn.Module,
        run: Callable[[], Any],
        where: str = "",
        backward: Callable[[], AbstractContextManager[object]] = nullcontext,
        program: list[Any] | None = None,
        draw: Draw | None = None,
        lean: bool = False,
    ) -> None:
        self.kinks: list[Kinks] = []
        self.remembers = True
        self._lean = lean
        self._backward = backward
        self._where = where
        self.model = model
        called: list[tuple[tuple[Any, ...], Any]] = []
        with ExitStack() as hooks:
            if not isinstance(model, torch.jit.ScriptModule):  # which takes no hook
                see = model.register_forward_hook(lambda _, args, made: called.append((args, made)))
                hooks.callback(see.remove)
            recording = record(model, watch=self._watch, program=program, draw=draw)
            with recording as self.tape:
                self.loss: Tensor = run()
        once = len(called) == 1
        # Where a parameter has been cast since, autograd would not find it in this graph.
        first = next((p for p in model.parameters() if p.requires_grad), None)
        self._leaf = None if first is None else (first, get_gradient_edge(first).node)
        self.inputs: tuple[Any, ...] = called[0][0] if once else ()
        self.outputs: list[Tensor] = tensors(called[0][1]) if once else []

    def of(self, loss: Tensor) -> Forward:
        """The same forward pass with another loss, computed from what it returned."""
        other = copy(self)
        other.loss = loss
        return other

    def gradient(self, choose: Chooser | Choose) -> Gradient:
        """The gradient under what is chosen at the sites, by parameter name.

        Args:
            choose: what is chosen at the sites, or a function of the tape that says so.

        Raises:
            InputError: the backward pass fails.
        """
        return self._differentiate(self.loss, choose, remember=self.remembers)

    def gradient_anew(self, choose: Chooser | Choose) -> Gradient:
        """The same by a whole backward pass of its own, which uses nothing of those before."""
        return self._differentiate(self.loss, choose, remember=False)

    def gradients_along(
        self, output: int, direction: Tensor, choosers: Sequence[Chooser]
    ) -> list[Gradient]:
        """Under each choice the gradient of ⟨direction, output⟩, an output given by its number."""
        along = (self.outputs[output] * direction).sum()
        return [self._differentiate(along, chooser) for chooser in choosers]

    def trace(
        self,
        choose: Chooser | Choose,
        directions: Iterable[Sequence[Tensor]],
        edges: Sequence[Edge],
        arriving: Sequence[Edge] = (),
        uncancelled: bool = False,
        note: Note | None = None,
    ) -> Traced:
        """The gradient under what is chosen, and how tensors move: :meth:`kinkcheck.Tape.trace`."""
        with self._backward(), backward_of(self._where):
            chosen = choose(self.tape) if callable(choose) else choose
            return self.tape.trace(
                self.loss, directions, edges, arriving,
                choose=chosen, uncancelled=uncancelled, note=note,
            )  # fmt: skip

    def pull(self, cotangents: Mapping[Edge, Tensor], choose: Chooser | Choose) -> list[Tensor]:
        """The adjoint of tangents under what is chosen, as :meth:`kinkcheck.Tape.pull`."""
        with self._backward(), backward_of(self._where):
            return self.tape.pull(
                cotangents, choose=choose(self.tape) if callable(choose) else choose
            )

    def limit(
        self,
        along: Sequence[Tensor],
        edges: Sequence[Edge],
        directions: Iterable[Sequence[Tensor]] = (),
    ) -> tuple[Traced, Traced]:
        """The limit of gradients along a direction, as :meth:`kinkcheck.Tape.limit`."""
        with self._backward(), backward_of(self._where):
            return self.tape.limit(self.loss, along, edges, directions)

    def output_gradient(self, output: int = 0) -> Tensor:
        """The gradient of the loss with respect to an output of the model."""
        of = self.outputs[output]
        with self._backward(), backward_of(self._where):
            found: Tensor = torch.autograd.grad(self.loss, of, retain_graph=True)[0]
        return found

    def bottleneck(self, samples: int) -> int | None:
        """The number of an output with an entry a sample, on which alone the loss depends.

        Args:
            samples: how many there are.

        Returns:
            None if there is none: the loss has a penalty on parameters, say.
        """
        for number, output in enumerate(self.outputs):
            alike = output.dim() and len(output) == samples and output.requires_grad
            if alike and self._behind(get_gradient_edge(output)) is not None:
                return number
        return None

    def ties_behind(self, output: int) -> bool:
        """Whether there are ties between an output, on which alone the loss depends, and the loss.

        Then how ties move up to the output does not tell how the loss does.
        """
        behind = self._behind(get_gradient_edge(self.outputs[output])) or set()
        return any(
            kinks.site.tied and kinks.edge is not None and tuple(kinks.edge)[:2] in behind
            for kinks in self.kinks
        )

    def listen(self) -> None:
        """See what arrives at the sites in the backward passes from now on."""
        for kinks in self.kinks:
            kinks.listen()

    def disturb(self, size: float, seed: int) -> None:
        """Let backward passes round at every site from now on, at random, by a relative size."""
        generator = torch.Generator().manual_seed(seed)
        for kinks in self.kinks:
            kinks.disturb(size, generator)

    def narrower_than_float64(self) -> str | None:
        """An operation that computes in fewer bits, by its name in autograd; None if none does."""
        for node in nodes(self.loss.grad_fn):
            for follower, place in node.next_functions:
                if follower is None:
                    continue
                dtype = follower._input_metadata[place].dtype
                if dtype.is_floating_point and dtype != torch.float64:
                    return str(follower.name()).removesuffix("Backward0")
        return None

    def _behind(self, output: GradientEdge) -> set[tuple[Node, int]] | None:
        """What is between an output and the loss; None if some way to a parameter goes round it."""
        own = {id(parameter) for parameter in self.model.parameters()}
        seen: set[tuple[Node, int]] = set()
        stack = [(self.loss.grad_fn, self.loss.output_nr)]
        while stack:
            node, number = stack.pop()
            if node is None or (node, number) in seen or (node, number) == tuple(output)[:2]:
                continue
            seen.add((node, number))
            if id(leaf_of(node)) in own:
                return None
            stack += node.next_functions
        return seen

    def _differentiate(
        self, of: Tensor, choose: Chooser | Choose, remember: bool = True
    ) -> Gradient:
        assert self._leaf is None or get_gradient_edge(self._leaf[0]).node is self._leaf[1]
        with self._backward(), backward_of(self._where):
            chosen = choose(self.tape) if callable(choose) else choose
            gradient = self.tape.gradient(of, choose=chosen, remember=remember)
        return {name: g.to_dense() if g.is_sparse else g for name, g in gradient.items()}

    def _watch(self, site: Site, operation: Operation) -> Callable[[Tensor], None]:
        # Where gradients are off a parameter has no edge to be found.
        grad = torch.is_grad_enabled()
        sources = tuple(edge_of(each) if grad else None for each in operation.inputs)
        kept = operation.kept(self._lean)

        def see(output: Tensor) -> None:
            edge = get_gradient_edge(output) if output.requires_grad else None
            value = output.detach()
            self.kinks.append(Kinks(site, kept(value), value, edge, sources, output))

        return see


@contextmanager
def backward_of(where: str) -> Iterator[None]:
    """A context in which what fails is said to be the backward pass at a point.

    >>> with backward_of("batch 0"):
    ...     raise ValueError("no")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: network: backward pass failed (batch 0): ValueError: no
    """
    with blaming(f"network: backward pass failed{where and f' ({where})'}"):
        yield
