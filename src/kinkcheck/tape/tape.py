"""One forward pass, many backward passes, any model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.overrides import has_torch_function_unary
from torch.utils.weak import WeakTensorKeyDictionary

from kinkcheck import ops
from kinkcheck.errors import InputError
from kinkcheck.kernels import Ties
from kinkcheck.ops import Choice, Operation, require_accepted
from kinkcheck.selection import Selection, parse
from kinkcheck.tape.as_found import as_found
from kinkcheck.tape.interceptor import Interceptor, run_again
from kinkcheck.tape.layers import Layers
from kinkcheck.tape.segments import Segments
from kinkcheck.tape.site import Site
from kinkcheck.tape.unseen import Unseen, Watcher

Choose = str | Selection | Mapping[str, str | Selection] | Mapping[Site, str | Selection]

Watch = Callable[[Site, Operation, Tensor], None]


def record(model: nn.Module | None = None, *, watch: Watch | None = None) -> Tape:
    """Record the nonsmooth calls of a block, so that their derivatives can be chosen afterwards.

    When the block ends the model is as it was found: modes, buffers (batch-norm statistics) and
    random state. Two blocks one after the other draw the same dropout masks; to train under a
    selection use :mod:`kinkcheck.nn`.

    Args:
        model: the model whose parameters :meth:`Tape.gradient` differentiates by default and whose
            module tree names the layers. Without one, whatever is called in the block is recorded,
            and each outermost module names the layers below it; from the second on, under the
            name of its class.
        watch: called with every new site, the operation as it was before it was carried out, and
            its output.

    Returns:
        The tape, a context manager.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> with record(model) as tape:
    ...     loss = model(torch.zeros(1, 2)).sum()
    >>> tape.sites
    [Site(layer='1', operation='relu', call=0)]
    """
    return Tape(model, watch)


class Tape:
    """The sites of a forward pass, and backward passes through them under any selection.

    Made by :func:`record`.

    Attributes:
        sites: the nonsmooth calls that were recorded, in order.
    """

    def __init__(self, model: nn.Module | None = None, watch: Watch | None = None) -> None:
        self.sites: list[Site] = []
        self._model = model
        self._watch = watch
        self._known: set[Site] = set()
        self._hooked = False
        self._passes: MutableMapping[Tensor, dict[tuple[int, ...], Segments]] = (
            WeakTensorKeyDictionary()
        )
        self._calls: Counter[tuple[str, str]] = Counter()
        self._missed: Counter[tuple[str, str, str]] = Counter()
        self._layers = Layers(model, self._miss)
        self._watcher = Watcher(self._miss)
        self._recording = ExitStack()

    @property
    def unseen(self) -> list[Unseen]:
        """What may have kinks but could not be recorded, one entry a layer and operation."""
        return [Unseen(*what, calls) for what, calls in self._missed.items()]

    def __enter__(self) -> Tape:
        with ExitStack() as stack:
            stack.enter_context(as_found(self._model))
            stack.enter_context(self._layers)
            stack.enter_context(self._watcher)
            stack.enter_context(Interceptor(self._meet, self._see_hook))
            self._recording = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._recording.__exit__(kind, error, traceback)
        self._watch = None  # who watched may hold this tape: a circle, which would keep the graph

    @overload
    def gradient(self, loss: Tensor, *, choose: Choose = ...) -> dict[str, Tensor]: ...

    @overload
    def gradient(
        self, loss: Tensor, inputs: Tensor | Iterable[Tensor], *, choose: Choose = ...
    ) -> tuple[Tensor, ...]: ...

    def gradient(
        self,
        loss: Tensor,
        inputs: Tensor | Iterable[Tensor] | None = None,
        *,
        choose: Choose = "native",
    ) -> dict[str, Tensor] | tuple[Tensor, ...]:
        """The gradient of a recorded loss, under a selection at every site.

        May be called any number of times, inside the block or after it, as long as the loss lives;
        ``.grad`` of the parameters is left alone. The first call is a whole backward pass; later
        ones run again only where they differ from it (see :mod:`kinkcheck.tape.segments`), and
        tensor hooks with them; register hooks inside the block. A gradient that the program
        itself takes inside the block (``create_graph=True``) keeps the program's own selections.
        With activation checkpointing this is the only way to differentiate a recorded loss.

        Args:
            loss: a scalar computed inside the block.
            inputs: the tensor or tensors to differentiate with respect to; by default the
                parameters of the recorded model that require a gradient.
            choose: one selection for all sites that have it, the others keeping their own; or a
                mapping from layer names, or from sites, to selections, all other sites keeping
                their own.

        Returns:
            The gradients by parameter name, or in the order of ``inputs``; zeros where the loss
            does not depend on a tensor.

        Raises:
            InputError: a selection that no site has, a layer without a site, or no model to take
                the parameters from.

        >>> x = torch.zeros(1, requires_grad=True)
        >>> with record() as tape:
        ...     loss = torch.relu(x).sum()
        >>> [tape.gradient(loss, [x], choose=c)[0].item() for c in ("native", "branch:0.5")]
        [0.0, 0.5]
        """
        chosen = self._chosen(choose)
        names, tensors = self._parameters() if inputs is None else (None, _checked(inputs))
        try:
            for site, selection in chosen.items():
                site._chosen = selection
            # Activation checkpointing runs calls again inside the backward pass; they have to save
            # what the recorded ones saved.
            with Interceptor(run_again):
                gradients = self._segments(loss, tensors).gradients(
                    {site: site.selection for site in self.sites}
                )
        finally:
            for site in chosen:
                site._chosen = None
        return gradients if names is None else dict(zip(names, gradients, strict=True))

    def _chosen(self, choose: Choose) -> dict[Site, Selection]:
        if isinstance(choose, str | Selection):
            selection = parse(choose)
            chosen = {s: selection for s in self.sites if isinstance(selection, s.kind.accepted)}
            if self.sites and not chosen:
                require_accepted(self.sites[0].kind, selection)
            return chosen
        chosen = {}
        for key, text in choose.items():
            sites = [key] if isinstance(key, Site) else [s for s in self.sites if s.layer == key]
            if not sites or sites[0] not in self.sites:
                layers = ", ".join(dict.fromkeys(site.layer for site in self.sites)) or "none"
                raise InputError(f"choose: no site in layer {key!r}; layers with sites: {layers}")
            for site in sites:
                chosen[site] = require_accepted(site.kind, parse(text))
        return chosen

    def _parameters(self) -> tuple[list[str], list[Tensor]]:
        if self._model is None:
            raise InputError(
                "inputs: needed when nothing was passed to record(); pass the tensors to "
                "differentiate with respect to, or record(model)"
            )
        named = [(name, p) for name, p in self._model.named_parameters() if p.requires_grad]
        if not named:
            raise InputError("inputs: no parameter of the recorded model requires a gradient")
        return [name for name, _ in named], [parameter for _, parameter in named]

    def _segments(self, loss: Tensor, tensors: Sequence[Tensor]) -> Segments:
        """The backward passes of a loss, which remember the first of them."""
        if loss.numel() != 1:
            raise InputError(
                f"loss: must be a single number, not a tensor of shape {tuple(loss.shape)}"
            )
        if loss.grad_fn is None:
            raise InputError("loss: does not depend on anything that requires a gradient")
        of_loss = self._passes.setdefault(loss, {})
        # An operation in place gives the same tensor another graph.
        key = (id(loss.grad_fn), loss.output_nr, *map(id, tensors))
        if key not in of_loss:
            of_loss[key] = Segments(loss, tensors, self._site_at, whole=self._hooked)
        return of_loss[key]

    def _site_at(self, node: Any) -> Site | None:
        """The site of this tape that a node of the graph asks for its selection."""
        choice = getattr(node, "choice", None)
        while isinstance(choice, Site) and choice not in self._known:
            choice = choice._own  # the site of another tape around this one
        return choice if isinstance(choice, Site) else None

    def _meet(self, operation: Operation, own: Choice) -> Any:
        """Carry out an operation as a new site, also of the tapes around this one."""
        layer, name = self._layers.current, operation.name
        site = Site(layer, name, self._calls[layer, name], type(operation), own)
        self._calls[layer, name] += 1
        self.sites.append(site)
        self._known.add(site)
        with self._watcher.looking_away():
            if torch._C._are_functorch_transforms_active():
                self._miss(name, "ties are not counted under torch.func and vmap")
                site._ties = Ties(0, torch.zeros(()), torch.zeros(()))
                return operation.apply(site)
            if not torch.is_grad_enabled():
                self._miss(name, "called where gradients are off")
            if has_torch_function_unary(operation.input):
                with torch._C.DisableTorchFunction():
                    site._ties = operation.ties()
                return ops.call(operation, site)
            before = operation.before() if self._watch else operation
            output, site._ties = operation.apply_counting(site)
            if self._watch:
                with torch._C.DisableTorchFunction():
                    self._watch(site, before, output[0] if isinstance(output, tuple) else output)
        return output

    def _see_hook(self) -> None:
        self._hooked = True

    def _miss(self, operation: str, reason: str) -> None:
        self._missed[self._layers.current, operation, reason] += 1


def _checked(inputs: Tensor | Iterable[Tensor]) -> tuple[Tensor, ...]:
    tensors = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    for tensor in tensors:
        if not isinstance(tensor, Tensor) or not tensor.requires_grad:
            given = "one that does not" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InputError(f"inputs: must be tensors that require a gradient, not {given}")
    return tensors
