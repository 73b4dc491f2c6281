"""The tape: one forward pass, many backward passes, any model.

Nonsmooth calls inside the block are carried out by autograd functions that ask the tape, at
backward time, which selection to use. The model is neither rewritten nor changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode, has_torch_function_unary
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from kinkcheck import ops
from kinkcheck.errors import InputError
from kinkcheck.kernels import Ties
from kinkcheck.ops import Choice, Operation, require_accepted
from kinkcheck.ops.unseen import WHY_UNSEEN
from kinkcheck.segments import Segments
from kinkcheck.selection import Native, Selection, parse


@dataclass(eq=False)
class Site:
    """One call of a nonsmooth operation in a recorded forward pass.

    Attributes:
        layer: name of the module that made the call in the module tree; empty for the root itself
            and outside any module.
        operation: name of the operation, for example ``max_pool2d``.
        call: how often this layer had called this operation before.
        kind: the class of the operation.
    """

    layer: str
    operation: str
    call: int
    kind: type[Operation] = field(repr=False)
    _own: Choice = field(repr=False)
    _ties: Ties = field(init=False, repr=False)
    _chosen: Selection | None = field(default=None, repr=False)

    @property
    def selection(self) -> Selection:
        """What a backward pass uses here.

        The selection of the program itself (native, unless the call comes from a module of
        :mod:`kinkcheck.nn`) except during :meth:`Tape.gradient`.
        """
        return self._own.selection if self._chosen is None else self._chosen

    @property
    def windows(self) -> int:
        """How many windows, or elements of a pointwise operation, there are."""
        return self._ties.windows

    @property
    def tied(self) -> int:
        """How many windows have more than one active branch."""
        return int(self._ties.tied)

    @property
    def tied_at_zero(self) -> int:
        """How many of the tied windows hold nothing but zeros."""
        return int(self._ties.tied_at_zero)


@dataclass(frozen=True)
class Unseen:
    """Something that may have kinks and whose derivative the tape cannot choose.

    Attributes:
        layer: name of the module in which it was met.
        operation: name of the ATen operation, or of the class of the module.
        reason: why it is out of reach.
        calls: how often it was met.
    """

    layer: str
    operation: str
    reason: str
    calls: int


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
        self._layers = _Layers(model, self._miss)
        self._watcher = _Watcher(self._miss)
        self._recording = ExitStack()

    @property
    def unseen(self) -> list[Unseen]:
        """What may have kinks but could not be recorded, one entry a layer and operation."""
        return [Unseen(*what, calls) for what, calls in self._missed.items()]

    def __enter__(self) -> Tape:
        with ExitStack() as stack:
            stack.enter_context(_as_found(self._model))
            stack.enter_context(self._layers)
            stack.enter_context(self._watcher)
            stack.enter_context(_Interceptor(self._meet, self._see_hook))
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
        ones run again only where they differ from it (see :mod:`kinkcheck.segments`), and tensor
        hooks with them; register hooks inside the block. A gradient that the program itself takes
        inside the block (``create_graph=True``) keeps the program's own selections. With activation
        checkpointing this is the only way to differentiate a recorded loss.

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
            with _Interceptor(_run_again):
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


class _Interceptor(TorchFunctionMode):
    """Hands every nonsmooth call to the tape, above autograd."""

    def __init__(
        self,
        meet: Callable[[Operation, Choice], Any],
        see_hook: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._meet = meet
        self._see_hook = see_hook

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.register_hook:
            self._see_hook()
        own: Choice = Native()
        if func is ops.call:
            known, own = args
        else:
            known = ops.operation(func, args, kwargs)
        return func(*args, **kwargs) if known is None else self._meet(known, own)


class _Watcher(TorchDispatchMode):
    """Reports nonsmooth ATen operations that reach the dispatcher without passing the tape."""

    def __init__(self, miss: Callable[[str, str], None]) -> None:
        super().__init__()
        self._miss = miss
        self._away = False

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        """While the tape carries out an operation that it knows."""
        self._away = True
        try:
            yield
        finally:
            self._away = False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        packet = func.overloadpacket
        watching = not self._away and not _in_backward_pass()
        if watching and packet in WHY_UNSEEN and _differentiated(args):
            self._miss(packet.__name__, WHY_UNSEEN[packet])
        # Below autograd there is nothing left to intercept.
        with torch._C.DisableTorchFunction():
            return func(*args, **(kwargs or {}))


def _run_again(operation: Operation, own: Choice) -> Any:
    """Carry out an operation so that it saves what it did as a site, without a new site."""
    with torch._C.DisableTorchFunction():
        return operation.apply(own)


def _checked(inputs: Tensor | Iterable[Tensor]) -> tuple[Tensor, ...]:
    tensors = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    for tensor in tensors:
        if not isinstance(tensor, Tensor) or not tensor.requires_grad:
            given = "one that does not" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InputError(f"inputs: must be tensors that require a gradient, not {given}")
    return tensors


def _in_backward_pass() -> bool:
    return torch._C._current_autograd_node() is not None


def _differentiated(args: tuple[Any, ...]) -> bool:
    return torch.is_grad_enabled() and any(
        isinstance(arg, Tensor) and arg.requires_grad for arg in args
    )


class _Layers:
    """Which module of the tree is being called."""

    def __init__(self, model: nn.Module | None, miss: Callable[[str, str], None]) -> None:
        self._names: dict[nn.Module, str] = {}
        self._stack: list[nn.Module] = []
        self._miss = miss
        self._hooks = ExitStack()
        if model is not None:
            self._name_tree(model)

    @property
    def current(self) -> str:
        """Name of the innermost module that is being called."""
        return self._names[self._stack[-1]] if self._stack else ""

    def __enter__(self) -> None:
        for hook in (
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module, always_call=True),
        ):
            self._hooks.callback(hook.remove)

    def __exit__(self, *_: object) -> None:
        self._hooks.close()
        self._stack.clear()

    def _name_tree(self, root: nn.Module) -> None:
        # Only the first tree goes without the name of its root, so that no two layers share a name.
        prefix = type(root).__name__ if self._names else ""
        for name, module in root.named_modules(prefix=prefix):
            self._names.setdefault(module, name)

    def _enter_module(self, module: nn.Module, _: Any) -> None:
        if module not in self._names:
            self._name_tree(module)
        self._stack.append(module)
        if isinstance(module, torch.jit.ScriptModule):
            self._miss(type(module).__name__, "scripted module")
        # What torch.compile returns; to import its class takes longer than to import PyTorch.
        if hasattr(module, "_orig_mod"):
            self._miss(type(module).__name__, "compiled module, run uncompiled while recorded")

    def _leave_module(self, module: nn.Module, _: Any, __: Any) -> None:
        self._stack.pop()


@contextmanager
def _as_found(model: nn.Module | None) -> Iterator[None]:
    """Put modes, buffers and random state back when the block ends."""
    modules = list(model.modules()) if model is not None else []
    modes = [module.training for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    tensors = [*model.buffers(), *model.parameters()] if model is not None else []
    if any(is_lazy(tensor) for tensor in tensors):
        raise InputError("model: has parameters without a shape yet; call it on a batch first")
    devices = {tensor.device.index for tensor in tensors if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices=devices):
        try:
            # The block works on copies, so that neither a value nor an alias of the original is
            # lost, and what autograd saved of the copies stays valid after the block.
            # A buffer that requires a gradient cannot be overwritten and may be asked for.
            copies: dict[Tensor | None, Tensor] = {
                buffer: buffer.clone()
                for found in buffers
                for buffer in found.values()
                if buffer is not None and not buffer.requires_grad
            }
            for module, found in zip(modules, buffers, strict=True):
                for name, buffer in found.items():
                    module._buffers[name] = copies.get(buffer, buffer)
            yield
        finally:
            for module, found in zip(modules, buffers, strict=True):
                for name in set(module._buffers.keys()) - set(found):
                    del module._buffers[name]
                for name, buffer in found.items():
                    module._buffers[name] = buffer
            for module, training in zip(modules, modes, strict=True):
                module.training = training
