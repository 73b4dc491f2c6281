"""Calls of operations that a row declares, over the rationals."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from kinkcheck.errors import InputError
from kinkcheck.exact import kinks
from kinkcheck.exact.record import Record, Variable
from kinkcheck.ops import table
from kinkcheck.ops.calls import functions
from kinkcheck.ops.conventions import Form
from kinkcheck.ops.picks import Between, Picks
from kinkcheck.ops.row import Row
from kinkcheck.ops.sides import Sides

_LINEAR = ("hardtanh", "relu6", "leaky_relu", "abs", "clamp", "clamp_min", "clamp_max")
"""Pointwise operations that are linear between their kinks."""

_LARGEST = {"amax": True, "amin": False, "maximum": True, "minimum": False}
"""Extremes, and whether the largest entry is the output."""

ROWS = [row for row in table.ROWS if row.name in (*_LINEAR, *_LARGEST)]
"""The rows of which all numbers are rational."""


def call(row: Row) -> Callable[..., Variable]:
    """A call of PyTorch's function over the rationals.

    Returns:
        A function of a record and of what PyTorch's function takes.
    """
    compute, *_ = next(functions(row))
    rows = {each: each.read for each in ROWS if each.spellings == row.spellings and each.read}

    def carry_out(record: Record, *args: Any, **kwargs: Any) -> Variable:
        kwargs.pop("inplace", None)
        asked = _Call(record, compute, args, kwargs)
        given, named = asked.filled()
        reading = (each for each, read in rows.items() if read(*given, **named) is not None)
        known = next(reading, row)
        branches = rows[known](*given, **named)
        inputs = [asked.variable(each) for each in getattr(branches, "inputs", ())]
        if isinstance(branches, Sides) and known.name in _LINEAR:
            found = _sides(asked, inputs[0], branches)
        elif isinstance(branches, Picks) and known.name in _LARGEST:
            found = _picks(asked, inputs, branches, _LARGEST[known.name])
        else:
            raise InputError(f"model: the exact arbiter does not cover {row.name} as it is called")
        form = Form(known.name, branches.form, branches.slopes)
        return record.kink(form, inputs, found)

    parameters = list(inspect.signature(rows[row]).parameters.values())
    first = inspect.Parameter("record", inspect.Parameter.POSITIONAL_ONLY)
    carry_out.__signature__ = inspect.Signature([first, *parameters])  # type: ignore[attr-defined]
    return carry_out


class _Call:
    """A call of PyTorch with variables among its arguments, for which tensors stand in."""

    def __init__(
        self, record: Record, compute: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.dtype = record.dtype
        self._compute = compute
        self._args = args
        self._kwargs = kwargs
        given = [each for each in (*args, *kwargs.values()) if isinstance(each, Variable)]
        self._standing = {each: torch.zeros(each.value.shape, dtype=self.dtype) for each in given}

    def filled(self, tensors: dict[Variable, Tensor] | None = None) -> tuple[list[Any], Any]:
        """The arguments, with a tensor in place of each variable."""
        known = self._standing if tensors is None else tensors
        return (
            [known[each] if isinstance(each, Variable) else each for each in self._args],
            {n: known[e] if isinstance(e, Variable) else e for n, e in self._kwargs.items()},
        )

    def variable(self, tensor: Tensor) -> Variable:
        """What a tensor stands for."""
        return next(each for each, standing in self._standing.items() if standing is tensor)

    def computed(self, tensors: dict[Variable, Tensor]) -> Tensor:
        """What PyTorch returns for other tensors."""
        args, kwargs = self.filled(tensors)
        result: Tensor = self._compute(*args, **kwargs)
        return result


def _sides(asked: _Call, input: Variable, branches: Sides) -> kinks.Found:
    held = torch.promote_types(asked.dtype, torch.float32)

    def exact(number: Any, dtype: torch.dtype) -> Fraction:
        if isinstance(number, Tensor):
            raise InputError("model: the exact arbiter covers numbers as bounds and slopes alone")
        return Fraction(float(torch.tensor(number, dtype=dtype)))

    met = sorted(
        (exact(at, asked.dtype), exact(left, held), exact(right, held))
        for at, left, right in branches.kinks
    )
    at = torch.tensor([float(place) for place, _, _ in met], dtype=asked.dtype).requires_grad_()
    with torch.enable_grad():
        value = asked.computed({input: at})
        (native,) = torch.autograd.grad(value.sum(), at)
    anchor = Fraction(float(value[0].detach()))
    return kinks.sides(input.value, met, anchor, [Fraction(float(each)) for each in native])


def _picks(asked: _Call, inputs: Sequence[Variable], branches: Picks, largest: bool) -> kinks.Found:
    contest = branches.contest
    shape = asked.computed(asked._standing).shape

    def native(ordered: list[Tensor]) -> Tensor:
        """The derivative of each output by each of its entries, as PyTorch has it."""
        if isinstance(contest, Between):
            ordered = [each.expand(shape).clone() for each in ordered]
        leaves = [each.requires_grad_() for each in ordered]
        with torch.enable_grad():
            value = asked.computed(dict(zip(inputs, leaves, strict=True)))
            found = torch.autograd.grad(value.sum(), leaves)
        if isinstance(contest, Between):
            return Between.of(*found).entries(*found)
        return contest.entries(*found)

    return kinks.picks([each.value for each in inputs], contest, shape, largest, native)
