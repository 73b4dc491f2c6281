"""What a batch holds: its tensors, and where in it the samples are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from kinkcheck.errors import InputError

_WHOLE = (
    str, bytes, int, float, complex, type(None), type, FunctionType, MethodType, ModuleType,
    torch.dtype, torch.device, torch.Generator, nn.Module,
)  # fmt: skip
"""What is passed on as it is: it holds no samples."""


def moved(batch: Any, convert: Callable[[Tensor], Tensor]) -> Any:
    """A batch with every tensor converted: in tuples, lists, mappings, dataclasses, other objects.

    What holds no tensor is passed on as it is; of what does, a copy is made that keeps its class.
    A tensor that is met twice is converted once.

    Args:
        batch: anything.
        convert: a function of a tensor.

    >>> moved({"x": [torch.zeros(2)], "name": "a"}, torch.exp)
    {'x': [tensor([1., 1.])], 'name': 'a'}
    """
    return _moved(batch, {}, convert)


def tensors(batch: Any) -> list[Tensor]:
    """The tensors of a batch, each once.

    >>> [tensor.shape for tensor in tensors((torch.zeros(2), [torch.zeros(1)]))]
    [torch.Size([2]), torch.Size([1])]
    """
    return [value for value in _everything(batch) if isinstance(value, Tensor)]


def opaque(batch: Any) -> list[str]:
    """The classes of the objects in a batch that :func:`moved` cannot look into.

    >>> opaque((torch.zeros(1), iter([])))
    ['list_iterator']
    """
    found = (type(value).__name__ for value in _everything(batch) if _parts(value) is None)
    return list(dict.fromkeys(found))


def _everything(batch: Any) -> Iterator[Any]:
    """A batch and all that it is made of, each object once, the first before what comes after."""
    waiting, seen = [batch], set[int]()
    while waiting:
        value = waiting.pop()
        if id(value) not in seen:
            seen.add(id(value))
            yield value
            waiting += reversed(_parts(value) or ())


def _parts(value: Any) -> list[Any] | None:
    """What a value is made of; None if that cannot be seen."""
    if isinstance(value, (Tensor, *_WHOLE)):
        return []
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    attributes = _attributes(value)
    if isinstance(value, Mapping):
        return [*value.values(), *attributes.values()]
    if attributes or hasattr(value, "__dict__"):
        return list(attributes.values())
    # Numbers, dates and arrays of other packages hold no tensors; other objects written in C might.
    return [] if type(value).__module__.partition(".")[0] in ("numpy", "datetime") else None


def _attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object, in its ``__dict__`` or in slots."""
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    named = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return {**named, **getattr(value, "__dict__", {})}


def _moved(
    value: Any, done: dict[int, tuple[Any, Any]], convert: Callable[[Tensor], Tensor]
) -> Any:
    if id(value) in done:
        return done[id(value)][1]
    made: Any
    if isinstance(value, Tensor):
        made = convert(value)
    elif not any(isinstance(each, Tensor) for each in _everything(value)):
        made = value
    elif isinstance(value, tuple):
        items = [_moved(item, done, convert) for item in value]
        made = type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    elif isinstance(value, list):
        made = copy.copy(value)
        made[:] = [_moved(item, done, convert) for item in value]
    else:
        made = copy.copy(value)
        done[id(value)] = value, made  # it may be met again inside itself
        for name, item in _attributes(value).items():
            object.__setattr__(made, name, _moved(item, done, convert))
        if isinstance(value, MutableMapping):
            for key, item in value.items():
                made[key] = _moved(item, done, convert)
    # The original is kept beside it, so that no other object gets its number meanwhile.
    done[id(value)] = value, made
    return made


@dataclass(frozen=True)
class Samples:
    """Where in a batch its samples are.

    Attributes:
        count: how many there are.
        dims: which dimension of each tensor counts them, as ``in_dims`` of :func:`torch.vmap` says
            it: a number for all that a part holds, None for what all samples share, or the same for
            each item of a tuple, list or mapping, or attribute of an object. A list that is no
            list of tensors with that dimension holds an item a sample.
        drawn: which dimension of what is drawn at random does, where it has as many entries.
    """

    count: int
    dims: Any = 0
    drawn: int = 0

    def take(self, batch: Any, order: Tensor) -> Any:
        """The batch of some samples, in an order.

        Args:
            batch: with ``count`` samples.
            order: their numbers, (n,).

        >>> Samples(3).take((torch.arange(3), ["a", "b", "c"]), torch.tensor([2, 0]))
        (tensor([2, 0]), ['c', 'a'])
        """
        return self._take(batch, self.dims, order)

    def _take(self, value: Any, dims: Any, order: Tensor) -> Any:
        if dims is None:
            return value
        if isinstance(value, Tensor):
            taken: Tensor = value.detach().index_select(dims, order.to(value.device))
            return taken.requires_grad_(value.requires_grad)
        by_sample = isinstance(value, list) and isinstance(dims, int)
        if by_sample and not _stacked(value, dims, self.count):
            return [value[index] for index in order.tolist()]
        if isinstance(value, list | tuple):
            each = dims if isinstance(dims, list | tuple) else [dims] * len(value)
            items = [self._take(item, dim, order) for item, dim in zip(value, each, strict=True)]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if isinstance(value, _WHOLE) or _parts(value) is None:
            return value
        made = copy.copy(value)
        for name, item in _attributes(value).items():
            dim = dims.get(name) if isinstance(dims, Mapping) else dims
            if not isinstance(value, Mapping):
                object.__setattr__(made, name, self._take(item, dim, order))
        if isinstance(value, MutableMapping):
            for key, item in value.items():
                dim = dims.get(key) if isinstance(dims, Mapping) else dims
                made[key] = self._take(item, dim, order)
        return made


def _stacked(items: list[Any], dim: int, count: int) -> bool:
    """Whether a list holds tensors that each have all samples, and is no list of samples."""
    held = [tensor for item in items for tensor in tensors(item)]
    return bool(held) and all(t.dim() > dim and t.shape[dim] == count for t in held)


def require_dims(dims: Any) -> None:
    """Check that something says which dimensions count samples, in whatever batch.

    Raises:
        InputError: it does not.

    >>> require_dims({"x": 1, "y": (0, None)})
    >>> require_dims([0, 1.5])
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: samples: must be the number of a dimension, None, or a tuple, list
    or dict of these in the structure of the batch, not 1.5
    """
    if isinstance(dims, list | tuple | Mapping):
        for each in dims.values() if isinstance(dims, Mapping) else dims:
            require_dims(each)
    elif not isinstance(dims, int | None):
        raise InputError(
            "samples: must be the number of a dimension, None, or a tuple, list or dict of these "
            f"in the structure of the batch, not {dims!r}"
        )


def candidates(batch: Any, dims: Any = 0) -> list[Samples]:
    """Where the samples of a batch could be, the likeliest first; whether they are is to be seen.

    Args:
        batch: anything.
        dims: as in :class:`Samples`.

    Returns:
        All tensors having one size there; all lists having one length; what is drawn, having them
        along one of the dimensions of the batch. Empty if neither of the former is so.

    Raises:
        InputError: ``dims`` has more or fewer entries than the batch.

    >>> candidates((torch.zeros(4, 3), torch.zeros(4)))
    [Samples(count=4, dims=0, drawn=0)]
    >>> candidates((torch.zeros(4, 3), torch.zeros(5)))
    []
    """
    counts: list[int] = []
    for lists in (False, True):
        sizes = set(_sizes(batch, dims, lists))
        if len(sizes) == 1:
            counts += [size for size in sizes if size]
    drawn = dict.fromkeys([*_numbers(dims), 0])
    return [Samples(count, dims, each) for count in dict.fromkeys(counts) for each in drawn]


def _numbers(dims: Any) -> Iterator[int]:
    """The dimensions that count samples somewhere in a batch."""
    if isinstance(dims, int):
        yield dims
    elif isinstance(dims, list | tuple | Mapping):
        for each in dims.values() if isinstance(dims, Mapping) else dims:
            yield from _numbers(each)


def _sizes(value: Any, dims: Any, lists: bool) -> Iterator[int | None]:
    """How many samples each part seems to have; None where a tensor lacks the dimension."""
    if dims is None or isinstance(value, _WHOLE):
        return
    if isinstance(value, Tensor):
        fits = isinstance(dims, int) and -value.dim() <= dims < value.dim()
        yield value.shape[dims] if fits and not value.is_nested else None
    elif isinstance(value, list) and lists and isinstance(dims, int):
        yield len(value)
    elif isinstance(value, list | tuple):
        each = dims if isinstance(dims, list | tuple) else [dims] * len(value)
        if len(each) != len(value):
            raise InputError(
                f"samples: {dims} has {len(each)} entries for a part of the batch that has "
                f"{len(value)}; give one for each, or a number for all"
            )
        for item, dim in zip(value, each, strict=True):
            yield from _sizes(item, dim, lists)
    else:
        items = dict(value) if isinstance(value, Mapping) else _attributes(value)
        for key, item in items.items():
            yield from _sizes(item, dims.get(key) if isinstance(dims, Mapping) else dims, lists)
