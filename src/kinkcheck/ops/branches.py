"""The branches of a call, and what a selection does where several are active.

Three shapes cover nearly all nonsmooth operations: :class:`~kinkcheck.ops.sides.Sides`,
:class:`~kinkcheck.ops.picks.Picks` and :class:`~kinkcheck.ops.ball.Ball`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from kinkcheck.kernels import Ties
from kinkcheck.selection import Selection

LISTED = 2**20
"""How many pairs of an output and an entry are gone through to list what competes."""

Weights = Any
"""What the active branches of a shape are weighed with at ties; the affair of that shape."""


@dataclass(frozen=True)
class Rivals:
    """The tangents of tied outputs through each of their active branches, in one list.

    Attributes:
        of: the output that each belongs to, by its number in row-major order.
        tangent: of the output, through that branch.
        wins: who stays active along it, one of the constants below.
        contest: the contest of each, by number: those of one output that compete with each other.
    """

    SMALLEST: ClassVar[int] = -1
    ORDERED: ClassVar[int] = 0
    """One whose place in the order of all of them decides."""
    LARGEST: ClassVar[int] = 1
    UNLISTED: ClassVar[int] = 2
    """These are only the ends of what competes."""

    of: Tensor
    tangent: Tensor
    wins: Tensor
    contest: Tensor

    @classmethod
    def deciding(
        cls, of: Tensor, tangent: Tensor, wins: int | Tensor, contest: Tensor | None = None
    ) -> Rivals:
        """Rivals at which a rule decides, in one contest an output if nothing else is said."""
        rule = wins if isinstance(wins, Tensor) else torch.full_like(of, wins)
        return cls(of, tangent, rule, of if contest is None else contest)

    @classmethod
    def ends(cls, tied: Tensor, least: Tensor, greatest: Tensor) -> Rivals:
        """The first and the last of branches whose order is all that decides."""
        (of,) = tied.flatten().nonzero(as_tuple=True)
        return cls.joined(
            [cls.deciding(of, end.flatten()[of], cls.UNLISTED) for end in (least, greatest)]
        )

    @classmethod
    def listed(cls, outputs: Tensor, compete: Tensor, tangents: Tensor, wins: int) -> Rivals:
        """What competes along a line of entries for each of its outputs.

        Args:
            outputs: their numbers.
            compete: a bool for each output, and entry, of a line.
            tangents: of the entries.
            wins: which rule decides.
        """
        of = outputs.unsqueeze(-1).expand_as(compete)[compete]
        return cls.deciding(of, tangents.unsqueeze(-2).expand_as(compete)[compete], wins)

    @classmethod
    def joined(cls, parts: Sequence[Rivals]) -> Rivals:
        """Several lists, one behind the other."""
        return cls(
            torch.cat([each.of for each in parts]),
            torch.cat([each.tangent for each in parts]),
            torch.cat([each.wins for each in parts]),
            torch.cat([each.contest for each in parts]),
        )


class Branches(ABC):
    """The branches of one call.

    Attributes:
        inputs: the tensors that are given a gradient at ties, in their order.
    """

    inputs: tuple[Tensor, ...]

    @property
    def form(self) -> str:
        """Which form of its row a call is, in the words of the atlas."""
        return ""

    @property
    def slopes(self) -> tuple[tuple[float, float], ...]:
        """Those that meet at each kink of a function of one number, where they are numbers."""
        return ()

    @abstractmethod
    def active(self, value: Tensor) -> Active:
        """The branches that attain the value that PyTorch returned."""

    def alone(self, value: Tensor) -> Alone | None:
        """The derivative where one branch alone is active; None where only PyTorch knows it."""
        return None

    def windows(self, value: Tensor) -> int:
        """How many places there are where branches may tie, given the output."""
        return value.numel()

    def where_tied(self, value: Tensor) -> Active | None:
        """The same; None where it could be asked and no two branches are active anywhere."""
        active = self.active(value)
        return None if may_ask(value) and not active.any_tied() else active


class Alone(ABC):
    """The derivative of one call where one branch alone is active.

    A dataclass of tensors and plain values, taken apart as :class:`Active` is.

    Attributes:
        native: whether it is PyTorch's at ties as well.
    """

    native: ClassVar[bool] = False

    @abstractmethod
    def push(self, tangents: tuple[Tensor, ...]) -> Tensor:
        """The tangent of the output."""


class Active(ABC):
    """The active branches of one call: a dataclass of tensors and plain values.

    It is taken apart into them for autograd, and must keep no tensor in another way.

    Attributes:
        additive: whether a selection adds to PyTorch's derivative at a tie, rather than to its
            share in it (:func:`kinkcheck.selection.native_share`).
    """

    additive: ClassVar[bool] = False

    @abstractmethod
    def tied(self) -> Tensor:
        """Where several branches are active: a bool tensor of the output's shape."""

    def any_tied(self) -> bool:
        """Whether several branches are active anywhere; only where :func:`may_ask`."""
        return bool(self.tied().any())

    @abstractmethod
    def ties(self, value: Tensor, inputs: tuple[Tensor, ...]) -> Ties:
        """The census, given the output and the inputs."""

    @abstractmethod
    def persists(self, lifted: Branches, value: Tensor) -> Tensor:
        """Where these branches have one value in another call as well.

        Args:
            lifted: the branches of the same call in a higher precision.
            value: the output there.

        Returns:
            A bool tensor of the output's shape, of which only ties mean something.
        """

    def native(self, tangent: Tensor) -> Tensor:
        """The tangent of the output that is the adjoint of PyTorch's own backward pass.

        Args:
            tangent: what PyTorch's own forward mode makes of it.
        """
        return tangent

    @abstractmethod
    def weights(self, selection: Selection) -> Weights:
        """The weight of each branch at ties, beside the share that the native ones have."""

    @abstractmethod
    def along(self, tangents: tuple[Tensor, ...]) -> Weights:
        """The weights of the branches that stay active when the inputs move along tangents."""

    @abstractmethod
    def rivals(self, tangents: tuple[Tensor, ...]) -> Rivals:
        """What competes at ties when the inputs move along tangents; linear in them."""

    @abstractmethod
    def pull(self, weights: Weights, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """What the inputs get at ties from a gradient of the output."""

    @abstractmethod
    def push(self, weights: Weights, tangents: tuple[Tensor, ...]) -> Tensor:
        """The tangent of the output at ties; elsewhere anything."""


def may_ask(tensor: Tensor) -> bool:
    """Whether Python may read a number of a tensor without a graph being broken or a GPU waiting.

    >>> may_ask(torch.zeros(3))
    True
    """
    return not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or tensor.is_cuda
        or isinstance(tensor, FakeTensor)
    )


def times(weight: Tensor | float, direction: Tensor) -> Tensor:
    """Weight × direction in the type of the direction, where a weight of 0 leaves nothing.

    The product is taken in float32 for smaller types and then rounded, as kernels do.

    >>> times(torch.tensor([0.0, 0.5]), torch.tensor([torch.inf, 4.0]))
    tensor([0., 2.])
    """
    if not isinstance(weight, Tensor):
        return torch.zeros_like(direction) if weight == 0 else weight * direction
    computing = torch.promote_types(direction.dtype, torch.float32)
    product = (weight.to(computing) * direction.to(computing)).to(direction.dtype)
    return torch.where(weight == 0, 0.0, product)
