"""One call of a nonsmooth operation, and whom it asks for a selection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from kinkcheck.kernels import Ties
from kinkcheck.ops.branches import Rivals
from kinkcheck.ops.conventions import Form
from kinkcheck.ops.row import Row
from kinkcheck.selection import Selection


class Choice(Protocol):
    """Whom an operation asks, at backward time, which selection to use.

    A :class:`~kinkcheck.selection.Selection` is a choice that never changes; a site of a tape is
    one that changes from one backward pass to the next.
    """

    @property
    def selection(self) -> Selection:
        """The selection to use now."""


class Operation(ABC):
    """One call of a nonsmooth operation: its arguments, not yet carried out."""

    @property
    @abstractmethod
    def row(self) -> Row:
        """The operation."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors whose kinks are met."""

    @property
    def writes(self) -> bool:
        """Whether the result is written to the input."""
        return False

    @property
    def name(self) -> str:
        """The name of the operation: ``max_pool2d``."""
        return self.row.name

    @property
    def form(self) -> Form:
        """What a convention depends on in this call."""
        dtype = str(self.inputs[0].dtype).removeprefix("torch.")
        return Form(self.name, dtype=dtype)

    @abstractmethod
    def ties(self) -> Ties:
        """The census of kinks; to be asked before :meth:`apply`, which may overwrite the input."""

    @abstractmethod
    def tied(self) -> Tensor:
        """Which outputs are tied: a bool tensor of the output's shape."""

    @abstractmethod
    def persists(self, lifted: Operation, value: Tensor) -> Tensor:
        """Where the branches that are active here have one value in another call as well.

        Args:
            lifted: the same call in a higher precision.
            value: its output.

        Returns:
            A bool tensor of the output's shape, of which only ties mean something.
        """

    @abstractmethod
    def rivals(self, value: Tensor, tangents: tuple[Tensor, ...]) -> Rivals:
        """What competes at ties when the inputs move along tangents.

        Args:
            value: the output.
            tangents: of the inputs.
        """

    def before(self) -> Self:
        """This call with an input that :meth:`apply` will not overwrite."""
        return self

    def kept(self, lean: bool) -> Callable[[Tensor], Operation]:
        """What gives, of the output, this call as it was before :meth:`apply`.

        To be asked before that, which may overwrite the input.

        Args:
            lean: without the input, where the output tells of it what ties need.
        """
        before = self.before()
        return lambda value: before

    @abstractmethod
    def apply(self, choice: Choice) -> Any:
        """What PyTorch returns for this call, with a backward pass that asks ``choice``."""

    def apply_counting(self, choice: Choice) -> tuple[Any, Ties]:
        """What :meth:`apply` returns, and the census; in one pass where that saves time."""
        ties = self.ties()
        return self.apply(choice), ties


def forbidden_inplace(input: Tensor) -> bool:
    """Whether autograd forbids to write to a tensor: a leaf that it differentiates, or some views.

    >>> leaf = torch.zeros(4, requires_grad=True)
    >>> [forbidden_inplace(x) for x in (leaf, leaf[1:], leaf.clone()[1:], leaf.clone().chunk(2)[0])]
    [True, True, False, True]
    """
    if not torch.is_grad_enabled() or not input.requires_grad:
        return False
    if not input._is_view():
        return input.is_leaf
    base, made = input._base, torch._C._autograd._get_creation_meta(input)
    return bool(base is None or base.is_leaf or made != torch._C._autograd.CreationMeta.DEFAULT)
