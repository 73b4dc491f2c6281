"""A model left as it was found."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import partial
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kinkcheck.errors import InputError
from kinkcheck.interrupts import afterwards
from kinkcheck.reach import fixed, namespaces
from kinkcheck.tape.memory import address

# Hooks that a block adds are its own affair.
_LEFT_ALONE = frozenset(vars(nn.Module())) - {"training", "_parameters", "_buffers", "_modules"}

_MANY = 10_000
"""Of a container with more entries than that these alone are put back, not what they hold."""

_Container = MutableMapping[Any, Any] | list[Any] | set[Any] | deque[Any]
_ATOMS = frozenset((type(None), bool, int, float, str, nn.Parameter))
_CONTAINERS = frozenset((dict, OrderedDict, defaultdict, Counter, list, set, deque))


@contextmanager
def as_found(model: nn.Module | None, program: list[Any] | None = None) -> Iterator[None]:
    """Put a model, a program and all random states back when the block ends.

    What is put back is what can be reached from the model through modules and Python's own
    containers: attributes, entries of containers, modes, buffers and other tensors that require no
    gradient, generators. What autograd saved of them in the block stays valid after it.

    Args:
        model: None to put back the random states of PyTorch, NumPy and Python alone.
        program: functions and anything else, from which objects of every kind are followed too:
            what a function refers to by closure or global name, attributes, NumPy arrays. Where
            something in the list itself holds tensors, the block finds copies in its place.

    Raises:
        InputError: a parameter has no shape yet.

    >>> model = nn.BatchNorm1d(2)
    >>> with as_found(model):
    ...     model.seen = model(torch.ones(3, 2))
    >>> model.num_batches_tracked, hasattr(model, "seen")
    (tensor(0), False)
    """
    tensors = [] if model is None else [*model.buffers(), *model.parameters()]
    if any(is_lazy(tensor) for tensor in tensors):
        raise InputError("model: has parameters without a shape yet; call it on a batch first")
    devices = {tensor.device.index for tensor in tensors if tensor.device.type == "cuda"}
    with (
        torch.random.fork_rng(devices=devices),
        afterwards(partial(random.setstate, random.getstate())),
        afterwards(partial(np.random.set_state, np.random.get_state())),
        _Found([model, program], objects=program is not None).copied(),
    ):
        yield


class _Found:
    """What can be reached from a list, as it is now."""

    def __init__(self, roots: list[Any], objects: bool) -> None:
        self._objects = objects
        self._containers: list[tuple[_Container, Any]] = []
        # Where in them a tensor lies that the block may overwrite.
        self._places: list[tuple[_Container, Any, Any]] = []
        self._scripted: list[tuple[nn.Module, bool, dict[str, Tensor | None]]] = []
        self._generators: list[Callable[[], object]] = []
        self._tensors: dict[int, Tensor] = {}
        self._arrays: dict[int, np.ndarray[Any, Any]] = {}
        self._seen: set[int] = set()
        self._kept: list[object] = []  # so that no other object gets the number of one seen
        self._look(roots)

    @contextmanager
    def copied(self) -> Iterator[None]:
        """A context that works on copies of tensors and arrays, and puts all back."""
        with afterwards(self._put_back):
            self._copy()
            yield

    def _copy(self) -> None:
        # The block works on copies, so that neither a value nor an alias of the original is lost,
        # and what autograd saved of the copies stays valid after the block.
        copies = _copies(self._tensors.values())
        arrays = {key: array.copy() for key, array in self._arrays.items()}
        for container, key, value in self._places:
            container[key] = _replaced(value, {**copies, **arrays})  # type: ignore[index]
        for module, _, buffers in self._scripted:
            for name, buffer in buffers.items():
                module._buffers[name] = copies.get(id(buffer), buffer)

    def _put_back(self) -> None:
        for container, found in self._containers:
            _put_back(container, found)
        for module, training, buffers in self._scripted:
            module.training = training
            for name, buffer in buffers.items():
                module._buffers[name] = buffer
        for put_back in self._generators:
            put_back()

    def _look(self, value: Any) -> bool:
        """Note a value and all that can be reached from it; tells whether it has to be replaced."""
        kind = type(value)
        if kind in _ATOMS:
            return False
        if kind in _CONTAINERS:
            if id(value) not in self._seen:
                self._seen.add(id(value))
                keys = value if isinstance(value, dict | set) else range(len(value))
                self._look_into(value, keys)
            return False
        if kind is tuple:
            return any([self._look(entry) for entry in value])
        if isinstance(value, nn.Module):
            if id(value) not in self._seen:
                self._seen.add(id(value))
                if isinstance(value, torch.jit.ScriptModule):
                    self._look_into_scripted(value)
                else:
                    self._look_into(vars(value), vars(value).keys() - _LEFT_ALONE)
        elif isinstance(value, Tensor):
            # One that requires a gradient cannot be overwritten, and may be asked for.
            if not value.requires_grad and not isinstance(value, nn.Parameter):
                self._tensors[id(value)] = value
                return True
        elif isinstance(value, torch.Generator):
            self._generators.append(partial(value.set_state, value.get_state()))
        elif self._objects:
            return self._look_at_object(value)
        return False

    def _look_at_object(self, value: Any) -> bool:
        if isinstance(value, np.ndarray):
            self._arrays[id(value)] = value
            return True
        if id(value) in self._seen:
            return False
        self._seen.add(id(value))
        if isinstance(value, np.random.Generator):
            bits = value.bit_generator
            self._generators.append(partial(setattr, bits, "state", bits.state))
        elif isinstance(value, random.Random):
            self._generators.append(partial(value.setstate, value.getstate()))
        if isinstance(value, dict | list | set | deque):  # of a class of its own
            keys = value if isinstance(value, dict | set) else range(len(value))
            self._look_into(value, keys)
        for namespace in namespaces(value):
            self._look_into(namespace, namespace)
        for part in fixed(value):
            self._kept.append(part)
            self._look(part)
        return False

    def _look_into(self, container: _Container, keys: Iterable[Any]) -> None:
        self._containers.append((container, _copied(container)))
        if len(container) > _MANY:
            return
        if isinstance(container, set):
            for value in container:
                self._look(value)
            return
        for key in keys:
            value = container[key]
            if type(value) not in _ATOMS and self._look(value):
                self._places.append((container, key, value))

    def _look_into_scripted(self, module: torch.jit.ScriptModule) -> None:
        buffers = dict(module._buffers.items())
        self._scripted.append((module, module.training, buffers))
        for value in (*buffers.values(), *module.children()):
            self._look(value)


def _copied(container: _Container) -> Any:
    if isinstance(container, dict | MutableMapping):
        return dict(container)
    return set(container) if isinstance(container, set) else list(container)


def _replaced(value: Any, copies: dict[int, Any]) -> Any:
    """A tensor, or a tuple of some, with copies in their place."""
    if type(value) is tuple:
        return tuple(_replaced(entry, copies) for entry in value)
    return copies.get(id(value), value)


def _put_back(container: _Container, found: Any) -> None:
    if not container and not found:
        return
    same = len(container) == len(found) and all(map(is_, container, found))
    if isinstance(container, dict | MutableMapping):
        if same and all(map(is_, container.values(), found.values())):
            return
        found = {key: container.get(key) if key in _LEFT_ALONE else found[key] for key in found}
        # At no moment is anything missing that belongs here, should this be interrupted.
        for key in [*container]:
            if key not in found:
                del container[key]
        for key, value in found.items():
            if container.get(key) is not value or key not in container:
                container[key] = value
        if not all(map(is_, container, found)):
            for key, value in found.items():  # in their order
                del container[key]
                container[key] = value
    elif not same:
        container.clear()
        (container.update if isinstance(container, set) else container.extend)(found)


def _copies(tensors: Iterable[Tensor]) -> dict[int, Tensor]:
    """Copies that share memory with each other where the tensors do."""
    together: defaultdict[int, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        where = address(tensor)
        together[-id(tensor) if where is None else where].append(tensor)
    copies: dict[int, Tensor] = {}
    for group in together.values():
        if len(group) == 1:
            copies[id(group[0])] = group[0].clone()
            continue
        memory = group[0].untyped_storage().clone()
        for tensor in group:
            copy = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
            place = tensor.storage_offset(), tensor.size(), tensor.stride()
            copies[id(tensor)] = copy.set_(memory, *place)
    return copies
