"""The calls of nonsmooth operations in a recorded forward pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

from kinkcheck.kernels import Ties
from kinkcheck.ops import Choice
from kinkcheck.ops.branches import Weights
from kinkcheck.ops.conventions import Form, meaning
from kinkcheck.ops.row import Row
from kinkcheck.selection import As, Selection
from kinkcheck.terminal import shown


@dataclass(eq=False)
class Site:
    """One call of a nonsmooth operation in a recorded forward pass.

    Attributes:
        layer: name of the module that made the call in the module tree; empty for the root itself
            and outside any module.
        operation: name of the operation, for example ``max_pool2d``.
        call: how often this layer had called this operation before.
        row: what is known of the operation.
        form: what the convention of a framework depends on in the call.
        differentiable: whether autograd saw the call. Where it did not, because gradients are off
            (also in the forward of a custom autograd function) or because nothing here requires
            one, a choice at this site reaches no gradient.
        in_view: whether the call wrote into a view. Its gradient arrives inside of a node of the
            tensor that is viewed, where nothing else sees it.
    """

    layer: str
    operation: str
    call: int
    row: Row = field(repr=False)
    form: Form = field(repr=False)
    differentiable: bool = field(repr=False)
    in_view: bool = field(repr=False)
    _own: Choice = field(repr=False)
    _ties: Ties | None = field(default=None, init=False, repr=False)
    _chosen: Selection | None = field(default=None, repr=False)
    winners: Weights | None = field(default=None, init=False, repr=False)

    @property
    def selection(self) -> Selection:
        """What a backward pass uses here.

        The selection of the program itself (native, unless the call comes from a module of
        :mod:`kinkcheck.nn`) except during :meth:`Tape.gradient`.
        """
        return self._own.selection if self._chosen is None else self._chosen

    def choose(self, selection: Selection) -> None:
        """Let backward passes use a selection that the operation has, from now on."""
        held = meaning(selection, self.form).selection if isinstance(selection, As) else selection
        self._chosen = held

    @property
    def switched(self) -> bool:
        """Whether a pass of the tape chose what is used here now."""
        return self._chosen is not None

    @property
    def windows(self) -> int:
        """How many windows, or elements of a pointwise operation, there are."""
        return self._ties.windows if self._ties else 0

    @property
    def tied(self) -> int:
        """How many windows have more than one active branch."""
        return int(self._ties.tied) if self._ties else 0

    @property
    def tied_at_zero(self) -> int:
        """How many of the tied windows hold nothing but zeros."""
        return int(self._ties.tied_at_zero) if self._ties else 0


class Sites(list[Site]):
    """The sites of a tape, in order: a list that is shown as a table.

    >>> Sites()
    no nonsmooth call
    """

    def __repr__(self) -> str:
        rows = [_HEAD, *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(map(_aligned, row, widths, _RIGHT)).rstrip() for row in rows)
        return "\n".join(lines) if self else "no nonsmooth call"

    def _repr_html_(self) -> str:
        """The table, in a notebook."""
        head = "".join(f"<th>{cell}</th>" for cell in _HEAD)
        rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in self._rows())
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><tr>{head}</tr>{body}</table>" if self else f"<p>{self!r}</p>"

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                (shown(site.layer) or "(root)") + (f" #{site.call}" if site.call else ""),
                site.operation,
                f"{site.windows:,}",
                f"{site.tied:,}",
            )
            for site in self
        ]


_HEAD = ("layer", "operation", "windows", "ties")
_RIGHT = (False, False, True, True)  # numbers


def _aligned(cell: str, width: int, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)
