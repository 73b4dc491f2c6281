"""Norm pooling: the 2-norm of a window, whose only kink is the window of zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kinkcheck.families import NORM_POOL
from kinkcheck.kernels import Ties
from kinkcheck.ops.operation import Choice, Operation, second_branch_weight
from kinkcheck.selection import Selection


@dataclass(frozen=True)
class NormPool(Operation):
    """A call of ``torch.nn.functional.lp_pool2d`` with exponent 2.

    The Clarke subdifferential of the norm at 0 is the unit ball. Native and minimal are both its
    centre 0, so that ``hybrid`` is too. ``branch:α`` is the vector α·(1, ..., 1), which lies in
    the ball of a window of K entries when |α| ≤ 1/√K; the published experiment uses α = 1, outside
    of it (Boustany 2024, norm pooling).
    """

    kernel_size: int | tuple[int, int]
    stride: int | tuple[int, int] | None = None
    ceil_mode: bool = False

    family: ClassVar[str] = NORM_POOL.family
    names: ClassVar[tuple[str, ...]] = NORM_POOL.names
    accepted: ClassVar[tuple[type[Selection], ...]] = NORM_POOL.accepted

    @property
    def name(self) -> str:
        """``norm_pool2d``."""
        return "norm_pool2d"

    def ties(self) -> Ties:
        """Windows whose norm is zero, and those whose entries are all zero.

        The two differ where squares underflow.
        """
        input = self.input.detach()
        norm = self._norm(input)
        largest = F.max_pool2d(input.abs(), self.kernel_size, self.stride, ceil_mode=self.ceil_mode)
        return Ties(norm.numel(), torch.count_nonzero(norm == 0), torch.count_nonzero(largest == 0))

    def tied(self) -> Tensor:
        """Windows whose norm is zero."""
        return self._norm(self.input.detach()) == 0

    def persists(self, lifted: Tensor) -> Tensor:
        """Windows whose norm is zero in the lift."""
        return self._norm(lifted) == 0

    def apply(self, choice: Choice) -> Tensor:
        """The norm of each window, as PyTorch computes it."""
        function = _AtZero if torch.compiler.is_compiling() else _AtZeroWithJvp
        output: Tensor = function.apply(self._norm(self.input), self.input, self, choice)
        return output

    def _norm(self, input: Tensor) -> Tensor:
        return F.lp_pool2d(input, 2.0, self.kernel_size, self.stride, self.ceil_mode)

    def sums(self, input: Tensor) -> Tensor:
        """The sum of each window: the derivative at 0 along the vector of ones.

        >>> NormPool(torch.zeros(1, 1, 2, 2), 2).sums(torch.ones(1, 1, 2, 2))
        tensor([[[[4.]]]])
        """
        return F.avg_pool2d(
            input, self.kernel_size, self.stride, ceil_mode=self.ceil_mode, divisor_override=1
        )

    def spread(self, output: Tensor, like: Tensor) -> Tensor:
        """The adjoint of :meth:`sums`: every entry of a window gets what the window has.

        >>> x = torch.zeros(1, 1, 2, 2)
        >>> NormPool(x, 2).spread(torch.ones(1, 1, 1, 1), x)
        tensor([[[[1., 1.],
                  [1., 1.]]]])
        """
        spread: Tensor = torch.ops.aten.avg_pool2d_backward(
            output,
            like,
            _pair(self.kernel_size),
            _pair(self.kernel_size if self.stride is None else self.stride),
            [0, 0],
            self.ceil_mode,
            True,
            1,
        )
        return spread


def _pair(size: int | tuple[int, int]) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)


def read(
    input: Tensor,
    norm_type: float,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    ceil_mode: bool = False,
) -> NormPool | None:
    """The call that the arguments of ``torch.nn.functional.lp_pool2d`` describe, if its norm is 2.

    >>> read(torch.zeros(1, 1, 4, 4), 2, 2).name
    'norm_pool2d'
    """
    return NormPool(input, kernel_size, stride, ceil_mode) if norm_type == 2 else None


class _AtZero(torch.autograd.Function):
    """The norm unchanged, with the chosen derivative where it is zero.

    PyTorch's own derivative of the norm is 0 there, so that what is chosen only has to be added.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(norm: Tensor, input: Tensor, operation: NormPool, choice: Choice) -> Tensor:
        # A copy, since a view made here could not be overwritten by an operation in place.
        return norm.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        norm, input, ctx.operation, ctx.choice = inputs
        ctx.save_for_backward(norm == 0, input)
        ctx.save_for_forward(norm == 0)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        (grad,) = grad_outputs
        at_zero, input = ctx.saved_tensors
        alpha = _alpha(ctx.choice, grad)
        if alpha == 0:
            return grad, None, None, None
        spread = ctx.operation.spread(torch.where(at_zero, alpha * grad, 0.0), input)
        return grad, spread, None, None


class _AtZeroWithJvp(_AtZero):
    """The same with forward-mode AD, which torch.compile does not take."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        norm_tangent, input_tangent = tangents[:2]
        (at_zero,) = ctx.saved_tensors
        along_ones: Tensor = _alpha(ctx.choice, norm_tangent) * ctx.operation.sums(input_tangent)
        return torch.where(at_zero, along_ones, norm_tangent)


def _alpha(choice: Choice, at: Tensor) -> float:
    return float(second_branch_weight(choice.selection, at, native=0.0, minimal=0.0))
