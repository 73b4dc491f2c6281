"""The families of nonsmooth operations, as they are named and chosen in.

What they compute is in :mod:`kinkcheck.ops`; this is what can be known of them without PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kinkcheck.errors import InputError, unknown
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


class Accepting(Protocol):
    """A family, or an operation of one."""

    @property
    def family(self) -> str:
        """``max_pool``."""

    @property
    def accepted(self) -> tuple[type[Selection], ...]:
        """The selections that it has."""


@dataclass(frozen=True)
class Family:
    """Operations that differ in their windows only.

    Attributes:
        family: the operation without its number of dimensions: ``max_pool``.
        names: the names that the operation can have: ``max_pool2d``.
        accepted: the selections that the operation has.
    """

    family: str
    names: tuple[str, ...]
    accepted: tuple[type[Selection], ...]


MAX_POOL = Family(
    "max_pool",
    (
        "max_pool1d", "max_pool2d", "max_pool3d",
        "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    ),
    (Native, Minimal, Hybrid, First, Last, Random),
)  # fmt: skip
RELU = Family("relu", ("relu",), (Native, Minimal, Hybrid, First, Last, Random, Branch))
NORM_POOL = Family("norm_pool", ("norm_pool2d",), (Native, Minimal, Hybrid, Branch))

FAMILIES = (MAX_POOL, RELU, NORM_POOL)
"""All families."""


def require_operation(name: str) -> None:
    """Check that a name is that of a family or of an operation.

    Raises:
        InputError: it is not; the message says which there are.

    >>> require_operation("max_pool2d")
    >>> require_operation("max_pool4d")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: unknown operation 'max_pool4d'; did you mean 'max_pool3d'? ...
    """
    known = {name for family in FAMILIES for name in (family.family, *family.names)}
    if name not in known:
        raise unknown("operation", name, sorted(known))


def require_accepted(operation: Accepting, selection: Selection) -> Selection:
    """The selection, if the operation has it.

    Raises:
        InputError: the operation does not have this selection.

    >>> require_accepted(RELU, Branch(0.5))
    Branch(alpha=0.5)
    """
    if isinstance(selection, operation.accepted):
        return selection
    accepted = ", ".join(kind.form for kind in operation.accepted)
    raise InputError(f"{operation.family} has no selection {selection}; accepted: {accepted}")
