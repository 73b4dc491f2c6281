"""Masks, indices and rounded numbers that a jump has made of the parameters.

Autograd takes them for constants: no node of the graph tells where they come from. So what every
call in the block makes is followed from tensor to tensor, by the memory that holds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from kinkcheck.ops.jumps import equal
from kinkcheck.tape.memory import address, tensors_in

COMPARISONS = frozenset({"gt", "ge", "lt", "le", "eq", "ne"})

_CALLED = {"_to_copy": "a conversion to integers"}

# What they make does not depend on what they are given, or only on whether it is finite.
_CLEAN = frozenset((
    "empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like",
    "new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided",
    "isnan", "isinf", "isfinite", "isposinf", "isneginf",
))  # fmt: skip

_INDEXING = frozenset((
    "index", "index_put", "index_put_", "gather", "index_select", "embedding", "take",
    "scatter", "scatter_", "scatter_add", "scatter_add_", "scatter_reduce", "index_add",
    "index_add_", "index_copy", "index_copy_", "index_fill", "index_fill_",
    "max_unpool2d", "max_unpool3d",
))  # fmt: skip


GET_DATA: Any = Tensor.data.__get__  # type: ignore[attr-defined]
"""What ``tensor.data`` calls, which no dispatcher sees."""


class Jumps:
    """What jumped on its way from the parameters to a tensor."""

    def __init__(self) -> None:
        # By the memory of a tensor: the name of the last operation that jumped, or "".
        self._made_by: dict[int, str] = {}
        # Of comparisons: which of the elements compared are equal.
        self._equal: dict[int, Tensor] = {}
        self._jumped_once = False
        # Keeps addresses from being used again, not the memory itself.
        self._addresses: list[StorageWeakRef] = []

    def made(
        self,
        outputs: Any,
        inputs: Sequence[Tensor],
        name: str,
        jumps: bool,
        args: tuple[Any, ...] = (),
    ) -> None:
        """Follow a call.

        Args:
            outputs: what it returned.
            inputs: the tensors that it was given.
            name: of the operation.
            jumps: whether the operation jumps where its outputs are real numbers; what makes bools
                and integers of real numbers always does.
            args: all that it was given by position.
        """
        made = tensors_in(outputs)
        if not jumps and self._in_graph(made, inputs, name):
            return
        source = self._jumped(inputs)
        if source is None or name in _CLEAN:
            return
        if name.removesuffix("_") in COMPARISONS:
            source = f"a comparison ({name})"
        new = source or _CALLED.get(name, name)
        from_real = jumps or any(map(_is_real, inputs))
        for output in made:
            self._mark(output, new if jumps or from_real > _is_real(output) else source)
        self._meets_equality(made, inputs, name, args)

    def _meets_equality(
        self, made: list[Tensor], inputs: Sequence[Tensor], name: str, args: tuple[Any, ...]
    ) -> None:
        """Keep where a comparison meets equality, for what is made of its result alone as well."""
        met = self.on_jump(inputs) if len(inputs) == 1 else None
        if name.removesuffix("_") in COMPARISONS and len(args) > 1 and any(map(_is_real, inputs)):
            met = equal(*args[:2])
        where = address(made[0]) if made else None
        if met is not None and where is not None and made[0].numel() == met.numel():
            self._equal[where] = met

    def leaves_graph(self, tensor: Tensor) -> None:
        """Follow a tensor whose numbers are about to be used as constants."""
        if tensor.requires_grad:
            self._mark(tensor, "")

    def _in_graph(self, made: list[Tensor], inputs: Sequence[Tensor], name: str) -> bool:
        """Whether that what was made requires a gradient tells all there is to know of it."""
        return (
            not self._jumped_once
            and torch.is_grad_enabled()
            and name != "detach"
            and all(map(_is_real, made))
            and any(tensor.requires_grad for tensor in inputs)
        )

    def on_jump(self, inputs: Sequence[Tensor]) -> Tensor | None:
        """Where the comparison that steers a call meets equality, if it does so directly."""
        for tensor in inputs:
            where = None if tensor.requires_grad else address(tensor)
            if where in self._equal:
                return self._equal[where]
        return None

    def forget(self) -> None:
        """Nothing is followed any more."""
        self._equal.clear()
        self._made_by.clear()
        self._addresses.clear()

    def steering(self, inputs: Sequence[Tensor], name: str) -> str | None:
        """How the result of a jump steers a call that autograd differentiates, or None."""
        if not self._jumped_once or name in COMPARISONS:
            return None
        for tensor in inputs:
            source = None if tensor.requires_grad else self._source(tensor)
            if source:
                if source.startswith("a comparison"):
                    return f"steered by {source}"
                if name in _INDEXING and not _is_real(tensor):
                    return f"indexed by {source}"
                return f"given the result of {source}, which jumps"
        return None

    def decided(self, name: str, inputs: Sequence[Tensor]) -> str | None:
        """What jumped in the bool or the index that a call makes for Python or C++, or None.

        Args:
            name: of the operation.
            inputs: the tensors that it was given.
        """
        if name == "equal":
            return None if self._jumped(inputs) is None else "a comparison (equal)"
        if name != "_local_scalar_dense" or _is_real(inputs[0]):
            return None
        source = self._source(inputs[0])
        if not source:
            return None
        # A number of comparisons that hold is read to be shown: an accuracy.
        counted = source.startswith("a comparison") and inputs[0].dtype != torch.bool
        return None if counted else source

    def _jumped(self, inputs: Iterable[Tensor]) -> str | None:
        """What jumped on the way to the inputs; None where they do not depend on parameters."""
        found = None
        for tensor in inputs:
            source = self._source(tensor)
            if source:
                return source
            if source is not None or tensor.requires_grad:
                found = ""
        return found

    def _source(self, tensor: Tensor) -> str | None:
        if not self._made_by:
            return None
        where = address(tensor)
        return None if where is None else self._made_by.get(where)

    def _mark(self, tensor: Tensor, source: str) -> None:
        where = address(tensor)
        if where is None:
            return
        if where not in self._made_by:
            self._addresses.append(StorageWeakRef(tensor.untyped_storage()))
        self._made_by[where] = source or self._made_by.get(where, "")
        self._jumped_once = self._jumped_once or bool(source)


def only_tells_finite(name: str, args: tuple[Any, ...]) -> bool:
    """Whether a comparison asks for NaN or infinity alone, as ``isnan`` and ``isfinite`` do.

    >>> x = torch.ones(1)
    >>> only_tells_finite("ne", (x, x)), only_tells_finite("ne", (x, 0.0))
    (True, False)
    """
    if name.removesuffix("_") not in COMPARISONS or len(args) < 2:
        return False
    one, other = args[:2]
    return one is other or (isinstance(other, float) and not math.isfinite(other))


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
