"""One forward pass, many backward passes, any model."""

from __future__ import annotations

from collections import Counter
from collections.abc import (
    Callable,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.overrides import has_torch_function_unary
from torch.utils.checkpoint import CheckpointFunction
from torch.utils.weak import WeakTensorKeyDictionary

from kinkcheck import ops
from kinkcheck.errors import InputError, nearest
from kinkcheck.kernels import Ties
from kinkcheck.ops import Choice, Operation
from kinkcheck.selection import Limit, Selection, parse
from kinkcheck.tape.as_found import as_found
from kinkcheck.tape.directions import direction
from kinkcheck.tape.graph import function_of, leaf_of, nodes
from kinkcheck.tape.hooks import registered
from kinkcheck.tape.interceptor import (
    Interceptor,
    in_compiled_function,
    run_again,
    under_saved_tensor_hooks,
)
from kinkcheck.tape.jumps import Jumps
from kinkcheck.tape.layers import Layers
from kinkcheck.tape.notes import Notes, Unseen, next_number
from kinkcheck.tape.parameters import Parameters
from kinkcheck.tape.segments import Segments, whole_pass
from kinkcheck.tape.site import Site, Sites
from kinkcheck.tape.tangents import Edge, Note, Traced, pull, trace
from kinkcheck.tape.watcher import Draw, Watcher

if torch.__version__ < "2.7":
    # Checkpointing, optimizers and vmap import it, which fails there while a block is recorded.
    import torch._dynamo

Choose = str | Selection | Mapping[str, str | Selection] | Mapping[Site, str | Selection]

Watch = Callable[[Site, Operation], Callable[[Tensor], None]]


def record(
    model: nn.Module | None = None,
    *,
    watch: Watch | None = None,
    program: list[Any] | None = None,
    draw: Draw | None = None,
) -> Tape:
    """Record the nonsmooth calls of a block, so that their derivatives can be chosen afterwards.

    When the block ends the model is as it was found: modes, buffers (batch-norm statistics),
    attributes of its modules and what is in their lists, dicts and sets, parameters that the block
    wrote, and the random states of PyTorch, NumPy and Python. Two blocks one after the other draw
    the same dropout masks; to train under a selection use :mod:`kinkcheck.nn`. So what a module
    keeps of a forward pass (``self.feat = ...``) is to be used inside the block. Left alone are
    ``.grad``, hooks that the block registers, tensors that require a gradient and are not
    parameters, and objects other than modules, tensors and Python's own containers.

    Args:
        model: the model whose parameters :meth:`Tape.gradient` differentiates by default and whose
            module tree names the layers. Without one, whatever is called in the block is recorded,
            and each outermost module names the layers below it; from the second on, under the
            name of its class.
        watch: called with every new site and the operation, before it is carried out; what it
            returns is called with the output.
        program: what else is left as it was found: functions that the block calls and anything
            that they are given, with what they refer to. Where an entry holds tensors, the block
            finds copies in its place.
        draw: carries out each operation of ATen that draws random numbers; called with it, its
            arguments and its keyword arguments.

    Returns:
        The tape, a context manager.

    >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    >>> with record(model) as tape:
    ...     loss = model(torch.zeros(1, 2)).sum()
    >>> tape.sites
    layer  operation  windows  ties
    1      relu             2     2
    """
    return Tape(model, watch, program, draw)


class Tape:
    """The sites of a forward pass, and backward passes through them under any selection.

    Made by :func:`record`.

    Attributes:
        sites: the nonsmooth calls that were recorded, in order: a list, shown as a table.

    >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    >>> with record(model) as tape:
    ...     loss = model(torch.zeros(1, 2)).sum()
    >>> tape
    <Tape of Sequential: 1 site, 2 of 2 windows tied>
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        watch: Watch | None = None,
        program: list[Any] | None = None,
        draw: Draw | None = None,
    ) -> None:
        self.sites = Sites()
        self._model = model
        self._watch = watch
        self._program = program
        self._known: set[Site] = set()
        self._made_by: dict[int, Site] = {}
        self._hooks_before = 0
        self._nodes_before = 0
        self._kept_gradients = False
        self._runs_again = False
        self._passes: MutableMapping[Tensor, dict[tuple[object, ...], Segments | None]] = (
            WeakTensorKeyDictionary()
        )
        self._calls: Counter[tuple[str, str]] = Counter()
        self._notes = Notes()
        self._compiled_since: int | None = None
        self._jumps = Jumps()
        self._layers = Layers(model, self._notes)
        self._parameters = Parameters()
        self._watcher = Watcher(
            self._notes, self._jumps, self._parameters, lambda: self._layers.current, draw
        )
        self._recording = ExitStack()

    def __repr__(self) -> str:
        named = "" if self._model is None else f" of {type(self._model).__name__}"
        sites = f"{len(self.sites)} site{'s' * (len(self.sites) != 1)}"
        tied, windows = (sum(getattr(s, of) for s in self.sites) for of in ("tied", "windows"))
        return f"<Tape{named}: {sites}, {tied:,} of {windows:,} windows tied>"

    @property
    def unseen(self) -> list[Unseen]:
        """What was met in the block that may have kinks but could not be recorded.

        One entry a layer, operation and reason; some may reach no gradient. What a gradient goes
        through, custom autograd functions too, is told by :meth:`unseen_behind`.
        """
        return self._notes.all()

    def unseen_behind(
        self, loss: Tensor, inputs: Tensor | Iterable[Tensor] | None = None
    ) -> list[Unseen]:
        """What may have kinks or jumps on the way of the gradient, and no tape can switch.

        The graph of the loss is followed down to the inputs. Listed are its operations that may
        have kinks (wherever they were called from), custom autograd functions, compiled and
        scripted parts, and jumps that steer the way: masks, indices and rounded numbers made of
        what depends on parameters, from which no gradient comes back. A bool that Python reads is
        a jump that may steer all that comes after.

        An empty list says that none was recognised. Out of sight are jumps in code that leaves
        PyTorch (NumPy), in other threads, in scripted parts and in backward passes, and what custom
        functions, compiled parts and operations of other packages do inside.

        Args:
            loss: a scalar computed inside the block.
            inputs: what its gradient is taken with respect to, as in :meth:`gradient`.

        Returns:
            One entry a layer, operation and reason.

        Raises:
            InputError: no gradient can be taken.

        >>> x = torch.ones(1, requires_grad=True)
        >>> with record() as tape:
        ...     loss = torch.where(x > 0, x, 0 * x) + x.exp()
        ...     other = x.abs()
        >>> tape.unseen_behind(loss, x)
        [Unseen(layer='', operation='where', reason='steered by a comparison (gt)', calls=1,
        elements=1, on_jump=0)]
        """
        tensors = self._trained()[1] if inputs is None else _checked(inputs)
        _require_graph(loss)
        return self._notes.behind(loss, tensors)

    def __enter__(self) -> Tape:
        with ExitStack() as stack:
            stack.enter_context(as_found(self._model, self._program))
            stack.callback(self._parameters.put_back)
            if self._model is not None:
                self._parameters.find(self._model.parameters())
            stack.enter_context(self._layers)
            stack.enter_context(self._watcher)
            stack.enter_context(Interceptor(self._meet, self._look))
            self._recording = stack.pop_all()
        self._hooks_before = registered()
        self._nodes_before = next_number()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._recording.__exit__(kind, error, traceback)
        self._leave_compiled()
        self._jumps.forget()
        self._program = None
        self._watch = None  # who watched may hold this tape: a circle, which would keep the graph

    @overload
    def gradient(
        self, loss: Tensor, *, choose: Choose = ..., remember: bool = ...
    ) -> dict[str, Tensor]: ...

    @overload
    def gradient(
        self,
        loss: Tensor,
        inputs: Tensor | Iterable[Tensor],
        *,
        choose: Choose = ...,
        remember: bool = ...,
    ) -> tuple[Tensor, ...]: ...

    def gradient(
        self,
        loss: Tensor,
        inputs: Tensor | Iterable[Tensor] | None = None,
        *,
        choose: Choose = "native",
        remember: bool = True,
    ) -> dict[str, Tensor] | tuple[Tensor, ...]:
        """The gradient of a recorded loss, under a selection at every site.

        May be called any number of times, inside the block or after it, as long as the loss lives;
        ``.grad`` of the parameters is left alone. The first call is a whole backward pass; later
        ones run again only where they differ from it (see :mod:`kinkcheck.tape.segments`).

        Hooks act as they do in ``torch.autograd.grad``, whatever was asked before: of modules, of
        tensors, of nodes of the graph, registered before the block, in it or after it. Where one
        may act every call is a whole pass: where any hook was registered since the block began,
        where a tensor of ``inputs`` has one, and where the graph reaches nodes made before the
        block. So each call runs all hooks once, and adds to ``.grad`` of tensors that retain it;
        only ``retain_grad`` after the block is not seen, and adds in the parts that run again.

        A gradient that the program itself takes inside the block (``create_graph=True``) keeps
        the program's own selections. With activation checkpointing (``use_reentrant=False``) this
        is the only way to differentiate a recorded loss.

        Under ``limit:SEED`` the tensors move along a direction drawn from the seed, and each site
        takes the branch that stays active (see :mod:`kinkcheck.tape.directions`).

        Args:
            loss: a scalar computed inside the block.
            inputs: the tensor or tensors to differentiate with respect to; by default the
                parameters of the recorded model that require a gradient.
            choose: one selection for all sites that have it, the others keeping their own; or a
                mapping from layer names, or from sites, to selections, all other sites keeping
                their own.
            remember: whether to use what other calls found and to keep what this one finds for
                them, which takes memory for some gradients of activations; else a whole pass.

        Returns:
            The gradients by parameter name, or in the order of ``inputs``; zeros where the loss
            does not depend on a tensor, and sparse where PyTorch returns a sparse tensor.

        Raises:
            InputError: a selection that no site has, a layer without a site, no model to take the
                parameters from, or reentrant activation checkpointing, which hides its graph.

        >>> x = torch.zeros(1, requires_grad=True)
        >>> with record() as tape:
        ...     loss = torch.relu(x).sum()
        >>> [tape.gradient(loss, [x], choose=c)[0].item() for c in ("native", "branch:0.5")]
        [0.0, 0.5]
        """
        names, tensors = self._trained() if inputs is None else (None, _checked(inputs))
        chosen = self._chosen(choose)
        seeds = _seeds(chosen.values())
        with self._under(chosen):
            segments = self._segments(loss, tensors) if remember or seeds else None
            if seeds:
                bare = segments is not None and not self._runs_again
                trace(loss, tensors, [direction(tensors, seeds.pop())], bare=bare)
                gradients = whole_pass(loss, tensors)
            elif segments is None:
                gradients = whole_pass(loss, tensors)
            else:
                gradients = segments.gradients(self._at_ties())
        return gradients if names is None else dict(zip(names, gradients, strict=True))

    def trace(
        self,
        loss: Tensor,
        directions: Iterable[Sequence[Tensor]],
        edges: Iterable[Edge] = (),
        arriving: Iterable[Edge] = (),
        *,
        choose: Choose = "native",
        uncancelled: bool = False,
        note: Note | None = None,
    ) -> Traced:
        """The gradient of a recorded loss, and how tensors move when the parameters move.

        Args:
            loss: a scalar computed inside the block.
            directions: for each direction how each parameter that requires a gradient moves.
            edges: where the gradients of the tensors arrive whose tangents are asked for.
            arriving: where those of the tensors do whose gradients are.
            choose: as in :meth:`gradient`. A limit is along the direction: of several, each decides
                for itself.
            uncancelled: whether gradients are kept from cancelling
                (:func:`kinkcheck.tape.tangents.trace`).
            note: called with the tangents in place of keeping them (see there).

        Raises:
            InputError: an operation on the way has no forward mode.

        >>> model = nn.Linear(1, 1)
        >>> with record(model) as tape:
        ...     loss = model(torch.ones(1)).sum()
        >>> len(tape.trace(loss, [[torch.ones(1, 1), torch.ones(1)]]).gradients)
        2
        """
        _, tensors = self._trained()
        _require_graph(loss)
        chosen = self._chosen(choose)
        with self._under(chosen):
            segments = self._segments(loss, tensors)
            bare = segments is not None and not self._runs_again
            if segments is None or segments.begun or uncancelled or _seeds(chosen.values()):
                return trace(
                    loss, tensors, directions, edges, arriving,
                    uncancelled=uncancelled, bare=bare, note=note,
                )  # fmt: skip
            found = trace(
                loss, tensors, directions, edges, arriving,
                cuts=segments.cuts, bare=bare, note=note,
            )  # fmt: skip
            segments.begin([*found.gradients, *found.at_cuts], self._at_ties())
            return found

    def pull(self, cotangents: Mapping[Edge, Tensor], *, choose: Choose = "native") -> list[Tensor]:
        """The direction in which a sum of products of recorded tensors grows fastest.

        Args:
            cotangents: what each tensor, given by its edge, is multiplied with.
            choose: as in :meth:`gradient`.

        Returns:
            How each parameter that requires a gradient moves.

        >>> model = nn.PReLU(1)
        >>> with record(model) as tape:
        ...     y = model(-torch.ones(1))
        >>> edge = y.grad_fn, y.output_nr
        >>> tape.pull({edge: torch.ones(1)})
        [tensor([-1.])]
        """
        with self._under(self._chosen(choose)):
            return pull(cotangents, self._trained()[1])

    def limit(
        self,
        loss: Tensor,
        along: Sequence[Tensor],
        edges: Sequence[Edge] = (),
        directions: Iterable[Sequence[Tensor]] = (),
    ) -> tuple[Traced, Traced]:
        """The limit of gradients along a direction, and how tensors move.

        Args:
            loss: a scalar computed inside the block.
            along: how each parameter that requires a gradient moves.
            edges: as in :meth:`trace`.
            directions: other ones, to be followed through the branches that the first decides for.

        Returns:
            What is traced along the direction; and the limit of gradients, with what is traced
            along the others.

        Raises:
            InputError: an operation on the way has no forward mode.

        >>> model = nn.PReLU(1)
        >>> with record(model) as tape:
        ...     loss = model(-torch.ones(1)).abs().sum()
        >>> tape.limit(loss, [torch.ones(1)])[1].gradients
        (tensor([1.]),)
        """
        _, tensors = self._trained()
        _require_graph(loss)
        with self._under(dict.fromkeys(self.sites, Limit(0))):
            bare = self._segments(loss, tensors) is not None and not self._runs_again
            deciding = trace(loss, tensors, [along], edges, bare=bare)
            return deciding, trace(loss, tensors, directions, edges, bare=bare)

    def forget(self) -> None:
        """Let go of what is remembered of backward passes; the next one is a whole one.

        It may take as much memory as what the forward pass has saved.

        >>> x = torch.zeros(1, requires_grad=True)
        >>> with record() as tape:
        ...     loss = torch.relu(x).sum()
        >>> before = tape.gradient(loss, [x])
        >>> tape.forget()
        >>> tape.gradient(loss, [x]) == before
        True
        """
        self._passes.clear()

    @contextmanager
    def _under(self, chosen: Mapping[Site, Selection]) -> Iterator[None]:
        """A context of backward passes in which sites have what is chosen."""
        try:
            for site, selection in chosen.items():
                site.choose(selection)
            with self._running_again(), self._parameters.as_written():
                yield
        finally:
            for site in chosen:
                site._chosen = site.winners = None

    def _at_ties(self) -> dict[Hashable, Selection]:
        """What is chosen now at the sites where that makes a difference."""
        return {site: site.selection for site in self.sites if _may_differ(site)}

    def _running_again(self) -> ExitStack:
        """The context of a backward pass."""
        with ExitStack() as stack:
            if self._runs_again:
                # Activation checkpointing runs calls again inside the backward pass; they have to
                # save what the recorded ones saved.
                # They may change the model once more, and random states.
                stack.enter_context(as_found(self._model))
                stack.enter_context(Interceptor(run_again))
            return stack.pop_all()

    def _chosen(self, choose: Choose) -> dict[Site, Selection]:
        if isinstance(choose, str | Selection):
            selection = parse(choose)
            chosen = {s: selection for s in self.sites if s.row.has(selection)}
            if self.sites and not chosen:
                self.sites[0].row.require(selection)
            return chosen
        chosen = {}
        for key, text in choose.items():
            sites = [key] if isinstance(key, Site) else [s for s in self.sites if s.layer == key]
            if not sites or sites[0] not in self.sites:
                layers = list(dict.fromkeys(site.layer for site in self.sites))
                near = nearest(key, layers) if isinstance(key, str) and key else ""
                raise InputError(
                    f"choose: no site in layer {key!r};{near} layers with sites: "
                    f"{', '.join(layers) or 'none'}"
                )
            for site in sites:
                chosen[site] = site.row.require(parse(text))
        return chosen

    def _trained(self) -> tuple[list[str], list[Tensor]]:
        if self._model is None:
            raise InputError(
                "inputs: needed when nothing was passed to record(); pass the tensors to "
                "differentiate with respect to, or record(model)"
            )
        named = [(name, p) for name, p in self._model.named_parameters() if p.requires_grad]
        if not named:
            raise InputError("inputs: no parameter of the recorded model requires a gradient")
        return [name for name, _ in named], [parameter for _, parameter in named]

    def _segments(self, loss: Tensor, tensors: Sequence[Tensor]) -> Segments | None:
        """The backward passes of a loss, which remember the first; None where hooks may act."""
        _require_graph(loss)
        of_loss = self._passes.setdefault(loss, {})
        # An operation in place gives the same tensor another graph.
        key = (loss.grad_fn, loss.output_nr, *map(id, tensors))
        if key not in of_loss:
            graph = list(nodes(loss.grad_fn))
            _refuse_reentrant(graph)
            older = self._reaches_out(graph)
            of_loss[key] = None if older else Segments(loss, tensors, self._site_at, _may_differ)
        return None if self._hooked(tensors) else of_loss[key]

    def _hooked(self, tensors: Sequence[Tensor]) -> bool:
        return (
            self._kept_gradients
            or registered() != self._hooks_before
            or any(tensor._backward_hooks for tensor in tensors)
        )

    def _reaches_out(self, graph: Iterable[Any]) -> bool:
        """Whether a graph has nodes from before the block, which may have been hooked then."""
        return any(
            node._sequence_nr() < self._nodes_before and leaf_of(node) is None for node in graph
        )

    def _site_at(self, node: Any) -> Site | None:
        """The site of this tape that a node of the graph belongs to.

        The node asks it for its selection, or is PyTorch's own where nothing is tied.
        """
        choice = getattr(node, "choice", None)
        while isinstance(choice, Site) and choice not in self._known:
            choice = choice._own  # the site of another tape around this one
        return choice if isinstance(choice, Site) else self._made_by.get(node._sequence_nr())

    def _meet(self, operation: Operation, own: Choice) -> Any:
        """Carry out an operation as a new site, also of the tapes around this one."""
        layer, name = self._layers.current, operation.name
        seen = torch.is_grad_enabled() and any(each.requires_grad for each in operation.inputs)
        in_view = operation.writes and operation.inputs[0]._is_view()
        call, row, form = self._calls[layer, name], operation.row, operation.form
        site = Site(layer, name, call, row, form, seen, in_view, own)
        self._calls[layer, name] += 1
        self.sites.append(site)
        self._known.add(site)
        first = next_number()
        hides = not torch.is_grad_enabled() and operation.inputs[0].grad_fn is not None
        with self._watcher.looking_away():
            output = self._carry_out(operation, site)
        self._notes.site(first)
        if next_number() > first and not site.in_view:
            self._made_by[next_number() - 1] = site
        if operation.row.surrogate:
            self._notes.span(first, layer, name, operation.row.surrogate)
        with torch._C.DisableTorchFunction():
            self._jumps.made(output, operation.inputs, name, jumps=False)
        if torch._C._are_functorch_transforms_active():
            reason = "ties are not counted under torch.func and vmap"
            self._notes.span(first, layer, name, reason)
        elif operation.writes and hides:
            reason = "writes into a tensor of the graph where gradients are off"
            self._notes.from_here(layer, f"{name}_", reason)
        elif not torch.is_grad_enabled():
            self._notes.met(layer, name, "called where gradients are off")
        return output

    def _carry_out(self, operation: Operation, site: Site) -> Any:
        if torch._C._are_functorch_transforms_active():
            site._ties = Ties(0, torch.zeros(()), torch.zeros(()))
            return operation.apply(site)
        if has_torch_function_unary(operation.inputs[0]):
            with torch._C.DisableTorchFunction():
                site._ties = operation.ties()
            return ops.call(operation, site)
        see = self._watch(site, operation) if self._watch else None
        output, site._ties = operation.apply_counting(site)
        if see is not None:
            with torch._C.DisableTorchFunction():
                see(output[0] if isinstance(output, tuple) else output)
        return output

    def _look(self, function: Any, args: tuple[Any, ...]) -> None:
        """See what is about to be called."""
        if function is Tensor.retain_grad:
            self._kept_gradients = True
        self._runs_again = self._runs_again or under_saved_tensor_hooks()
        self._watcher.see(function, args)
        if not in_compiled_function() or self._layers.in_compiled_module:
            self._leave_compiled()
        elif self._compiled_since is None:
            self._compiled_since = next_number()

    def _leave_compiled(self) -> None:
        if self._compiled_since is not None:
            reason = "a compiled function, run uncompiled while recorded"
            self._notes.span(self._compiled_since, self._layers.current, "compile", reason)
            self._compiled_since = None


def _may_differ(site: Site) -> bool:
    """Whether two choices may give two gradients."""
    # Under torch.func ties are not counted, nor windows.
    return bool(site.tied or not site.windows)


def _seeds(chosen: Iterable[Selection]) -> set[int]:
    """The seed of the direction that a limit is asked for; none, or one."""
    seeds = {each.seed for each in chosen if isinstance(each, Limit)}
    if len(seeds) > 1:
        listed = ", ".join(f"limit:{seed}" for seed in sorted(seeds))
        raise InputError(f"choose: a limit is along one direction, not several ({listed})")
    return seeds


def _checked(inputs: Tensor | Iterable[Tensor]) -> tuple[Tensor, ...]:
    tensors = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    for tensor in tensors:
        if not isinstance(tensor, Tensor) or not tensor.requires_grad:
            given = "one that does not" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InputError(f"inputs: must be tensors that require a gradient, not {given}")
    return tensors


def _require_graph(loss: Tensor) -> None:
    if loss.numel() != 1:
        raise InputError(
            f"loss: must be a single number, not a tensor of shape {tuple(loss.shape)}"
        )
    if loss.grad_fn is None:
        raise InputError("loss: does not depend on anything that requires a gradient")


def _refuse_reentrant(graph: Iterable[Any]) -> None:
    """Refuse a graph that hides the parameters of a checkpointed part, as PyTorch does."""
    if any(function_of(node) is CheckpointFunction for node in graph):
        raise InputError(
            "loss: activation checkpointing with use_reentrant=True hides part of its graph; "
            "checkpoint with use_reentrant=False"
        )
