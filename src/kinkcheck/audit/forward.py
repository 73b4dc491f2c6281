"""One forward pass of a model at a point, and what its backward passes find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.utils._pytree import tree_leaves, tree_map_only

from kinkcheck.audit.dropout import dropout_by_sample
from kinkcheck.errors import InputError
from kinkcheck.ops import Operation
from kinkcheck.precision import Precision
from kinkcheck.selection import Selection
from kinkcheck.tape import Site, Tape, record
from kinkcheck.tape.hooks import look_at

Loss = Callable[[Any, Any], Tensor]
Gradient = dict[str, Tensor]
Program = Callable[[Tape], dict[Site, Selection]]
"""Which site of a forward pass takes which selection."""


@dataclass(eq=False)
class Kinks:
    """The kinks of one site, kept to be compared with those of the same site in the lift.

    Attributes:
        site: the site.
        operation: the call, with its input.
        value: the output.
        producer: the autograd node that made the input; None for an input of the network.
        edge: where the gradient of the output arrives; None if none can.
    """

    site: Site
    operation: Operation
    value: Tensor
    producer: Node | None
    edge: GradientEdge | None
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

        def see(gradients: tuple[Tensor | None, ...]) -> None:
            if (gradient := gradients[place]) is not None:
                here = gradient != 0
                arrived[:] = [here | arrived[0]] if arrived else [here]

        look_at(self.edge.node, see)

    def disturb(self, size: float) -> None:
        """Multiply what arrives by 1 ± ``size``, each number by its own, from now on."""
        if self.edge is None:
            return
        place = self.edge.output_nr

        def alter(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
            altered = list(gradients)
            if (gradient := altered[place]) is not None:
                sign = torch.empty_like(gradient).bernoulli_().mul_(2).sub_(1)
                altered[place] = gradient * sign.mul_(size).add_(1)
            return tuple(altered)

        self.edge.node.register_prehook(alter)


class Forward:
    """A forward pass on a tape; to be used in the context of ``at.contractions(device)``.

    Args:
        model: already in the precision ``at``.
        pair: inputs and targets, which are cast.
        loss: function of outputs and targets.
        at: the precision.
        device: where the model is.
        where: how a complaint names the point.
        order: the numbers of the samples to take, in their order; by default all in their own.
            Dropout drops of each sample what it drops there, from the same random state.

    Attributes:
        samples: how many samples it took; None if the batch is no list of samples.
        outputs: what the model returned.
        draws: whether it drew random numbers other than for dropout.
        loss: the loss.
        tape: the sites, and the gradients.
        kinks: one entry a site, in order.

    Raises:
        InputError: the model or the loss fails on the batch.

    >>> from kinkcheck import precision
    >>> model, at = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), precision.parse("32")
    >>> pair = torch.zeros(1, 2), torch.zeros(1, 2)
    >>> forward = Forward(model, pair, nn.functional.mse_loss, at, "cpu", "batch 0")
    >>> [kinks.site.layer for kinks in forward.kinks]
    ['1']
    """

    def __init__(
        self,
        model: nn.Module,
        pair: tuple[Any, Any],
        loss: Loss,
        at: Precision,
        device: str,
        where: str,
        order: Tensor | None = None,
    ) -> None:
        self.samples = samples(pair) if order is None else len(order)
        count = samples(pair)
        if order is not None:
            pair = tree_map_only(Tensor, lambda t: t.index_select(0, order.to(t.device)), pair)
        inputs, targets = tree_map_only(Tensor, lambda tensor: at.cast(tensor, device), pair)
        dropout: AbstractContextManager[None] = nullcontext()
        if count is not None:
            dropout = dropout_by_sample(torch.arange(count) if order is None else order, count)
        self.kinks: list[Kinks] = []
        self._where = where
        try:
            with record(model, watch=self._watch) as self.tape, at.computation(device), dropout:
                before = _random_state(device)
                self.outputs = model(inputs)
                self.loss = loss(self.outputs, targets)
                self.draws = not torch.equal(before, _random_state(device))
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(
                f"network: failed on a batch{_shape(inputs)} ({where}): {one_line(error)}"
            ) from error
        if not isinstance(self.loss, Tensor) or self.loss.numel() != 1:
            raise InputError(f"loss: must be a single number ({where})")
        if not self.loss.requires_grad:
            raise InputError(f"loss: does not depend on any parameter ({where})")

    def gradient(self, program: Program) -> Gradient:
        """The gradient of a program, by parameter name.

        Raises:
            InputError: the backward pass fails.
        """
        return self._differentiate(self.loss, program)

    def gradients_along(self, direction: Tensor, programs: Sequence[Program]) -> list[Gradient]:
        """Of each program the gradient of ⟨direction, outputs⟩; the outputs have to be a tensor."""
        along = (self.outputs * direction).sum()
        return [self._differentiate(along, program) for program in programs]

    def output_gradient(self) -> Tensor:
        """The gradient of the loss with respect to the outputs of the model, a tensor."""
        gradient: Tensor = torch.autograd.grad(self.loss, self.outputs, retain_graph=True)[0]
        return gradient

    def listen(self) -> None:
        """See what arrives at the sites in the backward passes from now on, for :meth:`live`."""
        for kinks in self.kinks:
            kinks.listen()

    def disturb(self, size: float) -> None:
        """Let backward passes round at every site from now on, at random, by a relative size."""
        for kinks in self.kinks:
            kinks.disturb(size)

    def live(self) -> list[Tensor]:
        """For every site, which tied windows could pass a choice on to a parameter.

        A tied window is dead if no gradient has arrived at it in any backward pass, or if its
        entries are zeros of a ReLU, which lets nothing through there. Bool tensors of the shape of
        the site's output; of no dimension where no window is tied.
        """
        rectifiers = {
            kinks.edge.node
            for kinks in self.kinks
            if kinks.edge is not None and kinks.site.kind.family == "relu"
        }
        live = []
        for kinks in self.kinks:
            if not kinks.site.tied:
                live.append(torch.tensor(False))
                continue
            tied = kinks.operation.tied()
            if kinks.reached is None:
                live.append(torch.zeros_like(tied))
                continue
            passes = tied & kinks.reached
            if _behind_views(kinks.producer) in rectifiers:
                passes &= kinks.value != 0
            live.append(passes)
        return live

    def narrower_than_float64(self) -> str | None:
        """An operation that computes in fewer bits, by its name in autograd; None if none does."""
        seen: set[Node] = set()
        stack = [self.loss.grad_fn]
        while stack:
            node = stack.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if any(each.dtype != torch.float64 for each in node._input_metadata):
                return node.name().removesuffix("Backward0")
            stack += [after for after, _ in node.next_functions]
        return None

    def _differentiate(self, of: Tensor, program: Program) -> Gradient:
        try:
            return self.tape.gradient(of, choose=program(self.tape))
        except RuntimeError as error:
            raise InputError(
                f"network: backward pass failed ({self._where}): {one_line(error)}"
            ) from error

    def _watch(self, site: Site, operation: Operation, output: Tensor) -> None:
        edge = get_gradient_edge(output) if output.requires_grad else None
        self.kinks.append(Kinks(site, operation, output.detach(), operation.input.grad_fn, edge))


def part_of(
    whole: Forward, run: Callable[[Tensor], Forward], some: Tensor, *, tolerance: float
) -> Forward | None:
    """A forward pass on some samples; None where it is not their part in that of the mini-batch.

    Args:
        whole: the forward pass on the whole mini-batch.
        run: the same on the samples whose numbers it takes.
        some: these numbers.
        tolerance: how far an output may be away, in units of the largest of them.

    >>> from kinkcheck import precision
    >>> at, pair = precision.parse("32"), (torch.rand(8, 3), torch.zeros(8, 3))
    >>> def part(model):
    ...     def run(order=None):
    ...         return Forward(model, pair, nn.functional.mse_loss, at, "cpu", "here", order)
    ...     return part_of(run(), run, torch.tensor([2, 3]), tolerance=1e-4)
    >>> part(nn.Linear(3, 3)) is None, part(nn.BatchNorm1d(3)) is None
    (False, True)
    """
    outputs = whole.outputs
    if not isinstance(outputs, Tensor) or not outputs.dim() or len(outputs) != whole.samples:
        return None
    try:
        part = run(some)
    except InputError:  # batch norm, for one, refuses a single sample
        return None
    rows = outputs.detach()[some]
    if not isinstance(part.outputs, Tensor) or part.outputs.shape != rows.shape:
        return None
    near = tolerance * float(rows.abs().max())
    return part if torch.allclose(part.outputs.detach(), rows, rtol=0, atol=near) else None


def samples(pair: tuple[Any, Any]) -> int | None:
    """How many samples a batch has; None if its tensors do not agree on their first dimension.

    >>> samples((torch.zeros(2, 3), torch.zeros(2)))
    2
    """
    sizes = {t.shape[0] if t.dim() else None for t in tree_leaves(pair) if isinstance(t, Tensor)}
    return sizes.pop() if len(sizes) == 1 else None


def one_line(error: BaseException) -> str:
    """An exception of somebody else's code, for a complaint of ours.

    >>> one_line(ValueError("no"))
    'ValueError: no'
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


_VIEWS = ("View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "Alias", "Clone")


def _behind_views(node: Node | None) -> Node | None:
    """The node that made what a tensor shows in another shape."""
    while node is not None and node.name().startswith(_VIEWS) and node.next_functions:
        node = node.next_functions[0][0]
    return node


def _random_state(device: str) -> Tensor:
    state = torch.get_rng_state()
    on = torch.device(device)
    return torch.cat([state, torch.cuda.get_rng_state(on)]) if on.type == "cuda" else state


def _shape(inputs: Any) -> str:
    return f" of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else ""
