"""A nonsmooth operation as a declaration.

What can be known of operations without PyTorch is known here, so that the command line can answer
at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from kinkcheck.errors import InputError, unknown
from kinkcheck.selection import (
    As,
    Branch,
    Every,
    First,
    Hybrid,
    Kinks,
    Last,
    Limit,
    Minimal,
    Mix,
    Native,
    Random,
    Selection,
    Uniform,
)

OF_ORDERS: tuple[type[Selection], ...] = (Native, Minimal, Hybrid, First, Last, Random, As, Limit)
"""The selections of an operation that gives several outputs their entries at once."""

OF_PICKS: tuple[type[Selection], ...] = (*OF_ORDERS[:-2], Every, Mix, As, Limit)
"""The selections of an operation of which each output is an entry."""

OF_SIDES: tuple[type[Selection], ...] = (
    *OF_ORDERS[:-2], Uniform, Branch, Kinks, Mix, As, Limit,
)  # fmt: skip
"""The selections of a pointwise operation."""

OF_BALL: tuple[type[Selection], ...] = (Native, Minimal, Hybrid, Branch, Mix, As, Limit)
"""The selections of a norm."""


@dataclass(frozen=True, eq=False)
class Row:
    """One nonsmooth operation.

    Attributes:
        name: its name: ``max_pool2d``.
        accepted: the selections that it has.
        read: its :class:`~kinkcheck.ops.branches.Branches` in a call, from the arguments of
            PyTorch's function; None if the call has no kink. An operation that has kernels reads
            its calls itself.
        family: the name that it shares with operations that differ in their windows only; by
            default its own.
        spellings: under which names PyTorch has it, separated by spaces; by default its own. They
            are looked for in ``torch``, ``torch.nn.functional``, ATen, and among the methods of
            tensors, also with an underscore behind; ``linalg.norm`` stands for itself.
        surrogate: of what its derivative is that of, if it is not the derivative of its value.
        once: the autograd node of a call whose derivative some versions of PyTorch cannot
            differentiate; its branches know it
            (:meth:`~kinkcheck.ops.branches.Branches.alone`).
        least: whether PyTorch's own choice is the minimal one, whatever the arguments, in every
            version that kinkcheck runs on.
    """

    name: str
    accepted: tuple[type[Selection], ...]
    read: Callable[..., Any] | None = field(default=None, repr=False)
    family: str = ""
    spellings: str = field(default="", repr=False)
    surrogate: str = field(default="", repr=False)
    once: str = field(default="", repr=False)
    least: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "family", self.family or self.name)
        object.__setattr__(self, "spellings", self.spellings or self.name)

    def has(self, selection: Selection) -> bool:
        """Whether the operation has a selection; a sum, if it has all parts.

        >>> from kinkcheck.selection import parse
        >>> [Row("max", OF_PICKS).has(parse(text)) for text in ("mix:2*last", "mix:1*branch:1")]
        [True, False]
        """
        parts = [part for _, part in selection.parts] if isinstance(selection, Mix) else []
        return isinstance(selection, self.accepted) and all(map(self.has, parts))

    def require(self, selection: Selection) -> Selection:
        """The selection, if the operation has it.

        Raises:
            InputError: the operation does not have this selection.

        >>> from kinkcheck.selection import parse
        >>> Row("max_pool2d", OF_PICKS, family="max_pool").require(parse("branch:1"))
        Traceback (most recent call last):
        ...
        kinkcheck.errors.InputError: max_pool has no selection branch:1; accepted: native, ...
        """
        if self.has(selection):
            return selection
        accepted = ", ".join(kind.form for kind in self.accepted)
        raise InputError(f"{self.family} has no selection {selection}; accepted: {accepted}")

    def require_fixed(self, selection: Selection) -> Selection:
        """The selection, if the operation can be given it for good.

        Raises:
            InputError: the operation does not have this selection, or only a whole program has.

        >>> from kinkcheck.selection import parse
        >>> Row("relu", OF_SIDES).require_fixed(parse("limit:7"))
        Traceback (most recent call last):
        ...
        kinkcheck.errors.InputError: relu: limit:7 belongs to a whole program; ask a tape for ...
        """
        if isinstance(selection, Limit):
            raise InputError(
                f"{self.family}: {selection} belongs to a whole program; ask a tape for it: "
                f'tape.gradient(loss, choose="{selection}")'
            )
        return self.require(selection)


def require_name(name: str, rows: Iterable[Row]) -> None:
    """Check that a name is that of a row or of a family.

    Raises:
        InputError: it is not; the message says which there are.

    >>> require_name("max_pool2d", [Row("max_pool2d", OF_PICKS, family="max_pool")])
    """
    known = {name for row in rows for name in (row.family, row.name)}
    if name not in known:
        raise unknown("operation", name, sorted(known))
