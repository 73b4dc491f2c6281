"""Where operations jump: which elements lie exactly on a jump.

A jump has no derivative to choose, so that it is no site; it is counted and named.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kinkcheck.ops.unseen import Argument


def on_jump(operation: str, argument: Argument) -> Tensor | None:
    """Which elements of a call lie exactly on a jump: a bool for each.

    Args:
        operation: the name of the operation in ATen.
        argument: tells an argument of the call.

    Returns:
        None where it is not known where the operation jumps.

    >>> on_jump("round", {"self": torch.tensor([0.5, 1.0])}.get)
    tensor([ True, False])
    """
    met = _MET.get(operation.removesuffix("_"))
    return None if met is None else met(argument)


def equal(one: Any, other: Any) -> Tensor | None:
    """Where a comparison meets equality; None of numbers alone.

    >>> equal(torch.tensor([0.0, 1.0]), 0)
    tensor([ True, False])
    """
    if isinstance(one, Tensor):
        return torch.eq(one, other)
    return torch.eq(other, one) if isinstance(other, Tensor) else None


def _whole(argument: Argument) -> Tensor:
    x: Tensor = argument("self")
    whole: Tensor = torch.eq(x, x.round())
    return whole


def _whole_but_zero(argument: Argument) -> Tensor:
    return _whole(argument) & torch.ne(argument("self"), 0)


def _half(argument: Argument) -> Tensor | None:
    if argument("decimals"):
        return None
    x: Tensor = argument("self")
    return torch.eq(x - x.floor(), 0.5)


def _zero(name: str) -> Callable[[Argument], Tensor]:
    return lambda argument: torch.eq(argument(name), 0)


def _divides(argument: Argument) -> Tensor | None:
    return equal(torch.remainder(argument("self"), argument("other")), 0)


_MET: dict[str, Callable[[Argument], Tensor | None]] = {
    "round": _half,
    "floor": _whole,
    "ceil": _whole,
    "trunc": _whole_but_zero,
    "frac": _whole_but_zero,
    "sign": _zero("self"),
    "sgn": _zero("self"),
    "heaviside": _zero("self"),
    "copysign": lambda argument: equal(argument("other"), 0),
    **dict.fromkeys(
        ("gt", "ge", "lt", "le", "eq", "ne"),
        lambda argument: equal(argument("self"), argument("other")),
    ),
    "remainder": _divides,
    "fmod": _divides,
    "div": _divides,
    "floor_divide": _divides,
    "hardshrink": lambda argument: argument("self").abs() == argument("lambd"),
    "threshold": lambda argument: argument("self") == argument("threshold"),
}
