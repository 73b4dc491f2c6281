"""A call of an operation that a row declares.

PyTorch computes the value, and its own derivative wherever one branch is active; what happens at
ties is replaced (:mod:`kinkcheck.ops.function`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from kinkcheck.kernels import Ties
from kinkcheck.ops.branches import Alone, Branches, Rivals
from kinkcheck.ops.conventions import Form
from kinkcheck.ops.function import at_ties
from kinkcheck.ops.operation import Choice, Operation, forbidden_inplace
from kinkcheck.ops.row import Row


@dataclass(frozen=True)
class Declared(Operation):
    """A call of an operation that a row declares.

    Attributes:
        declaration: the row.
        branches: what competes in this call.
        compute: PyTorch's function, out of place, of the arguments.
        args: what it is given.
        kwargs: what it is given by name.
        in_place: PyTorch's function where the call is one in place; else None.
    """

    declaration: Row
    branches: Branches
    compute: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    in_place: Callable[[], Any] | None = None

    @property
    def row(self) -> Row:
        """The row that declares it."""
        return self.declaration

    @property
    def form(self) -> Form:
        """What a convention depends on in this call."""
        return replace(super().form, form=self.branches.form, slopes=self.branches.slopes)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors that compete."""
        return self.branches.inputs

    @property
    def writes(self) -> bool:
        """Whether the result is written to the input."""
        return self.in_place is not None

    def ties(self) -> Ties:
        """The census of kinks."""
        value = self._value()
        return self.branches.active(value).ties(value, self.inputs)

    def tied(self) -> Tensor:
        """Where several branches are active."""
        return self.branches.active(self._value()).tied()

    def persists(self, lifted: Operation, value: Tensor) -> Tensor:
        """Where the branches that are active here have one value in the lift as well."""
        assert isinstance(lifted, Declared)
        return self.branches.active(self._value()).persists(lifted.branches, value)

    def rivals(self, value: Tensor, tangents: tuple[Tensor, ...]) -> Rivals:
        """What competes at ties when the inputs move along tangents."""
        return self.branches.active(value).rivals(tangents)

    def before(self) -> Declared:
        """This call with a copy of an input that would be overwritten."""
        return self if self.in_place is None else self.of(self.args[0].clone())

    def apply(self, choice: Choice) -> Any:
        """What PyTorch returns, with a backward pass that asks ``choice`` at ties."""
        return self._apply(choice, None)

    def apply_counting(self, choice: Choice) -> tuple[Any, Ties]:
        """The same, and the census."""
        census: list[Ties] = []
        return self._apply(choice, census), census[0]

    def _apply(self, choice: Choice, census: list[Ties] | None) -> Any:
        if self.in_place is not None:
            if _may_ask() and forbidden_inplace(self.args[0]):
                return self.in_place()  # raises PyTorch's error before anything is written
            # What the derivative needs of the input must not be overwritten.
            return self.args[0].copy_(self.of(self.args[0].clone())._apply(choice, census))
        result = self.compute(*self.args, **self.kwargs)
        value = result[0] if isinstance(result, tuple) else result
        active = self.branches.where_tied(value)
        if census is not None:
            census.append(
                self._no_ties(value) if active is None else active.ties(value, self.inputs)
            )
        value = at_ties(value, self.inputs, active, choice, self._alone(value))
        return type(result)((value, *result[1:])) if isinstance(result, tuple) else value

    def _alone(self, value: Tensor) -> Alone | None:
        """The derivative as the branches know it, where PyTorch may not differentiate its own."""
        once = self.declaration.once
        if not once or torch.compiler.is_compiling() or value.grad_fn is None:
            return None
        return self.branches.alone(value) if value.grad_fn.name() == once else None

    def of(self, first: Tensor) -> Declared:
        """This call out of place, with another tensor as its first argument."""
        args = (first, *self.args[1:])
        assert self.declaration.read is not None
        branches: Branches = self.declaration.read(*args, **self.kwargs)
        return replace(self, branches=branches, args=args, in_place=None)

    def _no_ties(self, value: Tensor) -> Ties:
        none = torch.zeros((), dtype=torch.int64)
        return Ties(self.branches.windows(value), none, none)

    def _value(self) -> Tensor:
        with torch.no_grad():
            result = self.compute(*_of_one_type(self.args), **self.kwargs)
        value: Tensor = result[0] if isinstance(result, tuple) else result
        return value.detach()


def _of_one_type(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of one type, also where a parameter has been lifted since the call was made."""
    found = [each for each in args if isinstance(each, Tensor) and each.is_floating_point()]
    if len({each.dtype for each in found}) < 2:
        return args
    widest = reduce(torch.promote_types, (each.dtype for each in found))
    return tuple(
        each.to(widest) if isinstance(each, Tensor) and each.is_floating_point() else each
        for each in args
    )


def _may_ask() -> bool:
    """Whether a tensor can be asked whether it may be written to."""
    compiling = torch.compiler.is_compiling()
    return not compiling and not torch._C._are_functorch_transforms_active()
