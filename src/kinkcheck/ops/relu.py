"""ReLU: the branches at 0 are the constant 0 and the identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kinkcheck.kernels import Ties, count_equal
from kinkcheck.ops.branches import Rivals, may_ask, times
from kinkcheck.ops.function import like, shared, signed
from kinkcheck.ops.operation import Choice, Operation, forbidden_inplace
from kinkcheck.ops.row import Row
from kinkcheck.ops.sides import ActiveSides
from kinkcheck.ops.table import BY_NAME
from kinkcheck.selection import Limit


@dataclass(frozen=True)
class ReLU(Operation):
    """A call of ReLU in any of its spellings.

    Native and minimal are both the branch 0, so that ``hybrid`` is too; ``branch:α`` is
    ReLU'(0) = α (Bertoin et al. 2021).
    """

    input: Tensor
    inplace: bool = False

    @property
    def row(self) -> Row:
        """``relu``."""
        return BY_NAME["relu"]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The input."""
        return (self.input,)

    @property
    def writes(self) -> bool:
        """Whether the result is written to the input."""
        return self.inplace

    def ties(self) -> Ties:
        """Elements equal to zero."""
        (at_zero,) = count_equal(self.input.detach(), (0.0,))
        count = torch.as_tensor(at_zero)
        return Ties(self.input.numel(), count, count)

    def tied(self) -> Tensor:
        """Elements equal to zero."""
        return self.input.detach() == 0

    def persists(self, lifted: Operation, value: Tensor) -> Tensor:
        """Elements that are zero in the lift."""
        return lifted.tied()

    def rivals(self, value: Tensor, tangents: tuple[Tensor, ...]) -> Rivals:
        """0 and the tangent of the input, at zeros."""
        return _sides(self.tied()).rivals(tangents)

    def before(self) -> ReLU:
        """This call with a copy of an input that would be overwritten."""
        return ReLU(self.input.clone()) if self.inplace else self

    def kept(self, lean: bool) -> Callable[[Tensor], Operation]:
        """This call; or the output, and where the input is 0."""
        if not lean:
            return super().kept(lean)
        _, at_zero = self._met
        return partial(Rectified, at_zero)

    def apply(self, choice: Choice) -> Tensor:
        """The input where it is positive, else 0."""
        return self._apply(choice, self._at_zero(self.ties))

    def apply_counting(self, choice: Choice) -> tuple[Tensor, Ties]:
        """The same, and the census."""
        ties, at_zero = self._met
        return self._apply(choice, at_zero), ties

    @cached_property
    def _met(self) -> tuple[Ties, Tensor | None]:
        """The census, and where the input is 0, before it is overwritten."""
        ties = self.ties()
        return ties, self._at_zero(lambda: ties)

    def _at_zero(self, ties: Callable[[], Ties]) -> Tensor | None:
        """Where the input is 0: PyTorch saves the result alone, which does not tell; else None."""
        none = may_ask(self.input) and not int(ties().tied)
        return None if none else self.input.detach() == 0

    def _apply(self, choice: Choice, at_zero: Tensor | None) -> Tensor:
        if at_zero is None:
            return torch.relu_(self.input) if self.inplace else torch.relu(self.input)
        if not self.inplace:
            function = _ReLU if torch.compiler.is_compiling() else _ReLUWithJvp
            output: Tensor = function.apply(self.input, at_zero, choice)
            return output
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            # Neither takes an autograd function that writes in place.
            return self.input.copy_(ReLU(self.input).apply(choice))
        if forbidden_inplace(self.input):
            return torch.relu_(self.input)  # raises PyTorch's error before anything is written
        output = _InplaceReLU.apply(self.input, at_zero, choice)
        return output


@dataclass(frozen=True)
class Rectified(Operation):
    """A call of ReLU that was carried out, without its input.

    The output tells all of the input but which of its zeros were zeros, and how far below 0 the
    others were.

    Attributes:
        at_zero: where the input was 0; None where nowhere.
        output: the output.

    >>> x = torch.tensor([-3.0, 0.0, 2.0])
    >>> Rectified(x == 0, torch.relu(x)).inputs
    (tensor([-1.,  0.,  2.]),)
    """

    at_zero: Tensor | None
    output: Tensor

    @property
    def row(self) -> Row:
        """``relu``."""
        return BY_NAME["relu"]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """An input that has the same ties and the same output: -1 in the place of what is below."""
        return (self.output.masked_fill((self.output == 0) & ~self.tied(), -1),)

    def ties(self) -> Ties:
        """Elements that were zero."""
        count = self.tied().count_nonzero()
        return Ties(self.output.numel(), count, count)

    def tied(self) -> Tensor:
        """Elements that were zero."""
        if self.at_zero is None:
            return torch.zeros_like(self.output, dtype=torch.bool)
        return self.at_zero

    def persists(self, lifted: Operation, value: Tensor) -> Tensor:
        """Elements that are zero in the lift."""
        return lifted.tied()

    def rivals(self, value: Tensor, tangents: tuple[Tensor, ...]) -> Rivals:
        """0 and the tangent of the input, at zeros."""
        return _sides(self.tied()).rivals(tangents)

    def apply(self, choice: Choice) -> Tensor:
        """The output once more."""
        (input,) = self.inputs
        return ReLU(input).apply(choice)


def read(input: Tensor, inplace: bool = False) -> ReLU:
    """The call that the arguments of ``torch.nn.functional.relu`` describe.

    >>> read(torch.zeros(3)).inplace
    False
    """
    return ReLU(input, inplace)


def read_inplace(input: Tensor) -> ReLU:
    """The call that the argument of ``torch.relu_`` describes.

    >>> read_inplace(torch.zeros(3)).inplace
    True
    """
    return ReLU(input, inplace=True)


class _ReLU(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    @signed
    def forward(input: Tensor, at_zero: Tensor, choice: Choice) -> Tensor:
        return torch.relu(input)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, at_zero, ctx.choice = inputs
        ctx.save_for_backward(output, at_zero)
        ctx.save_for_forward(output, at_zero)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = grad_outputs
        if not isinstance(ctx.choice.selection, Limit):
            return _times(gradient, ctx), None, None
        output, at_zero = ctx.saved_tensors
        native, (found,) = shared(_sides(at_zero), ctx.choice, gradient, like([output]))
        product: Tensor = torch.ops.aten.threshold_backward(native, output, 0)
        return product if found is None else product + found, None, None


class _ReLUWithJvp(_ReLU):
    """The same with forward-mode AD, which torch.compile does not take."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _times(tangents[0], ctx)


class _InplaceReLU(_ReLU):
    @staticmethod
    @signed
    def forward(input: Tensor, at_zero: Tensor, choice: Choice) -> Tensor:
        return torch.relu_(input)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_dirty(inputs[0])
        _ReLU.setup_context(ctx, inputs, output)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        tangent: Tensor = tangents[0]
        return tangent.copy_(_times(tangent, ctx))


def _sides(at_zero: Tensor) -> ActiveSides:
    return ActiveSides(at_zero, ((True, 0.0, 1.0),))


def _times(direction: Tensor, ctx: Any) -> Tensor:
    """The derivative, which is diagonal and so its own adjoint, times a direction."""
    output, at_zero = ctx.saved_tensors
    product: Tensor = torch.ops.aten.threshold_backward(direction, output, 0)
    active, selection = _sides(at_zero), ctx.choice.selection
    along = isinstance(selection, Limit)
    (slope,) = active.along((direction,)) if along else active.weights(selection)
    if not isinstance(slope, Tensor) and slope == 0:
        return product
    return torch.where(at_zero, times(slope, direction), product)


READERS: dict[Any, Callable[..., ReLU]] = {
    F.relu: read,
    F.relu_: read_inplace,
    torch.relu: read,
    torch.relu_: read_inplace,
    Tensor.relu: read,
    Tensor.relu_: read_inplace,
    torch.ops.aten.relu: read,
    torch.ops.aten.relu.default: read,
    torch.ops.aten.relu_: read_inplace,
    torch.ops.aten.relu_.default: read_inplace,
}
"""The reader of each function of PyTorch."""
