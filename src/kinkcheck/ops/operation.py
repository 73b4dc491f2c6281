"""What every nonsmooth operation offers, and how a selection is read by one with two branches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from kinkcheck.errors import InputError
from kinkcheck.kernels import Ties, random_rank
from kinkcheck.selection import (
    Branch,
    First,
    Hybrid,
    Last,
    Minimal,
    Native,
    Random,
    Selection,
)


class Choice(Protocol):
    """Whom an operation asks, at backward time, which selection to use.

    A :class:`~kinkcheck.selection.Selection` is a choice that never changes; a site of a tape is
    one that changes from one backward pass to the next.
    """

    @property
    def selection(self) -> Selection:
        """The selection to use now."""


@dataclass(frozen=True)
class Operation(ABC):
    """One call of a nonsmooth operation: its arguments, not yet carried out.

    Attributes:
        input: the tensor whose kinks are met.
    """

    input: Tensor

    family: ClassVar[str]
    """The operation without its number of dimensions: ``max_pool``."""

    names: ClassVar[tuple[str, ...]]
    """The names that the operation can have."""

    accepted: ClassVar[tuple[type[Selection], ...]]
    """The selections that the operation has."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the operation: ``max_pool2d``."""

    @abstractmethod
    def ties(self) -> Ties:
        """The census of kinks; to be asked before :meth:`apply`, which may overwrite the input."""

    @abstractmethod
    def tied(self) -> Tensor:
        """Which windows are tied: a bool tensor of the output's shape."""

    @abstractmethod
    def persists(self, lifted: Tensor) -> Tensor:
        """Where the branches that are active here have one value in another input as well.

        Args:
            lifted: the input of the same call in a higher precision.

        Returns:
            A bool tensor of the output's shape, of which only tied windows mean something.
        """

    def before(self) -> Self:
        """This call with an input that :meth:`apply` will not overwrite."""
        return self

    @abstractmethod
    def apply(self, choice: Choice) -> Any:
        """What PyTorch returns for this call, with a backward pass that asks ``choice``."""

    def apply_counting(self, choice: Choice) -> tuple[Any, Ties]:
        """What :meth:`apply` returns, and the census; in one pass where that saves time."""
        ties = self.ties()
        return self.apply(choice), ties


def second_branch_weight(
    selection: Selection, at: Tensor, native: float, minimal: float
) -> float | Tensor:
    """The weight on the second branch of a two-branch operation, at its kinks.

    Args:
        selection: any selection.
        at: a tensor of the shape of the kinks, on their device.
        native: the weight that PyTorch uses.
        minimal: the weight that makes the derivative smallest.

    Returns:
        One number for all kinks, or for ``random`` an int64 tensor of zeros and ones.

    >>> second_branch_weight(Hybrid(2), torch.zeros(3), native=0.5, minimal=0.0)
    -0.5
    """
    match selection:
        case Native():
            return native
        case Minimal():
            return minimal
        case Hybrid(beta):
            return native + beta * (minimal - native)
        case First():
            return 0.0
        case Last():
            return 1.0
        case Random(seed):
            return random_rank(torch.full_like(at, 2, dtype=torch.int64), seed)
        case Branch(alpha):
            return alpha
    raise InputError(f"unknown selection {selection!r}")
