"""Numbers written in a program, as a precision takes them.

``x - 0.1`` on a float32 tensor subtracts float32(0.1), which is another number than the 0.1 that
the same line subtracts on a float64 tensor. A lift that is to evaluate the same function therefore
has to round such numbers first: as float32 does, or, for 16 bits, as the operation at hand does.
PyTorch rounds some of them to 16 bits and takes others in float32; which is measured, not assumed.

In the same way a tensor that a program makes of nothing (``torch.linspace``) has the numbers that
it has in that precision; and a cast to a fixed type (``x.float()``), which only rounds, is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kinkcheck.arithmetic import products
from kinkcheck.arithmetic.precision import Precision

_aten = torch.ops.aten

_STORING = frozenset(
    getattr(_aten, name)
    for name in (
        "constant_pad_nd", "fill", "fill_", "full", "full_like", "new_full", "masked_fill",
        "masked_fill_", "scalar_tensor",
    )
)  # fmt: skip
"""What stores a number in a tensor."""


class ConstantsAs(TorchDispatchMode):
    """A context in which operations take numbers as a lower precision takes them.

    All that is computed is computed in the type of the lift, whatever type a program names; float64
    convolutions of small images as one product (see :mod:`kinkcheck.arithmetic.products`).

    Args:
        precision: the precision; if it is that of the lift nothing is changed.
        to: the type of the lift.

    Attributes:
        failed: the name of the last operation that failed here.

    >>> from kinkcheck.arithmetic.precision import parse
    >>> with ConstantsAs(parse("32")):
    ...     (torch.zeros(1, dtype=torch.float64) + 0.1).item() == torch.tensor(0.1).double().item()
    True
    """

    def __init__(self, precision: Precision, to: torch.dtype = torch.float64) -> None:
        super().__init__()
        self._type = precision.computing or precision.storage
        self._to = to
        self.failed = ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        named = kwargs.get("dtype")
        of_nothing = func is _aten.lift_fresh.default or not _any_tensor(args, kwargs)
        if not of_nothing:
            given = {type(each) for each in (*args, *kwargs.values())}
            if torch.dtype in given and func is not _aten.view.dtype:  # which tells bits
                args = tuple(self._widened(e) if type(e) is torch.dtype else e for e in args)
                kwargs = {
                    n: self._widened(v) if type(v) is torch.dtype else v for n, v in kwargs.items()
                }
            if float in given and not _draws(func):
                to = held_in(func, self._type, _device(args), args, kwargs)
                to = named if named in (torch.float16, torch.bfloat16, torch.float32) else to
                args = tuple(rounded(each, to) if type(each) is float else each for each in args)
                kwargs = {n: rounded(v, to) if type(v) is float else v for n, v in kwargs.items()}
        elif named == self._to and not _draws(func):  # the type of a tensor of the lift
            kwargs["dtype"] = self._type
            args = tuple(_within(each, self._type) for each in args)
        elif func is _aten.lift_fresh.default and args[0].dtype == self._to:
            most = torch.finfo(self._type).max
            made = args[0]  # by torch.tensor or new_tensor
            args = (made.where(made.isinf(), made.clamp(-most, most)).to(self._type),)
        try:
            made = products.call(func, args, kwargs)
        except Exception:
            self.failed = str(func.overloadpacket.__name__)
            raise
        return (
            made.to(self._widened(made.dtype)) if of_nothing and isinstance(made, Tensor) else made
        )

    def _widened(self, dtype: torch.dtype) -> torch.dtype:
        if dtype.is_complex:
            return self._to.to_complex()
        return self._to if dtype.is_floating_point else dtype


def _draws(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags


def _any_tensor(args: Any, kwargs: dict[str, Any]) -> bool:
    if args and isinstance(args[0], Tensor):
        return True
    return any(isinstance(each, Tensor) for each in tree_leaves((args, kwargs)))


def _device(args: Sequence[Any]) -> torch.device | str:
    return next((each.device for each in args if isinstance(each, Tensor)), "cpu")


def rounded(number: float, dtype: torch.dtype) -> float:
    """A number rounded to a type; what is beyond its range becomes its largest.

    >>> rounded(0.1, torch.float32) == 0.1, rounded(0.5, torch.float16) == 0.5
    (False, True)
    >>> rounded(-1e300, torch.float16)
    -65504.0
    """
    return float(torch.tensor(_within(number, dtype), dtype=torch.float64).to(dtype).item())


def _within(number: Any, dtype: torch.dtype) -> Any:
    """A number; for one that only float64 has, such as its ``finfo``'s least, the type's own."""
    most = torch.finfo(dtype).max
    beyond = type(number) is float and math.isfinite(number) and abs(number) > most
    return math.copysign(most, number) if beyond else number


def as_taken(
    number: float, operation: Any, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> float:
    """A Python number as an elementwise operation takes it beside a tensor.

    Args:
        number: it.
        operation: a function of a tensor and a number, such as ``operator.add``.
        dtype: of the tensor, a floating-point type.
        device: of the tensor.

    >>> import operator
    >>> as_taken(0.1, operator.sub, torch.float32)
    0.10000000149011612
    """
    return rounded(number, held_in(operation, dtype, device, (Tensor, float), {}))


def held_in(
    operation: Any,
    dtype: torch.dtype,
    device: torch.device | str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> torch.dtype:
    """The type in which an operation on tensors of a type holds a number that it is given.

    In float32 and float64 that is the type itself. At 16 bits an elementwise operation is asked:
    if its results are the same for a number and for the number rounded to 16 bits, it is that
    type. Others, such as norms with their ε, hold numbers in float32.

    Args:
        operation: an overload of an ATen operation; or any elementwise function.
        dtype: the floating-point type of the tensors.
        device: where they are.
        args: arguments of the call: a tensor or a number, or its class, stands for any other.
        kwargs: the same by keyword.

    >>> held_in(torch.ops.aten.mul.Tensor, torch.bfloat16, "cpu", (Tensor, float), {})
    torch.float32
    """
    if dtype in (torch.float32, torch.float64):
        return dtype
    if getattr(operation, "overloadpacket", None) in _STORING:
        return dtype
    if torch.Tag.pointwise not in getattr(operation, "tags", (torch.Tag.pointwise,)):
        return torch.float32
    like = [("", _kind(each)) for each in args]
    like += [(name, _kind(each)) for name, each in kwargs.items()]
    return dtype if _is_stored(operation, dtype, str(device), tuple(like)) else torch.float32


def _kind(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return torch.bool if argument.dtype == torch.bool else Tensor
    return float if type(argument) is float else argument


@cache
def _is_stored(
    operation: Any, dtype: torch.dtype, device: str, like: tuple[tuple[str, Any], ...]
) -> bool:
    generator = torch.Generator().manual_seed(0)
    for number in (0.3, 0.7, 1.1, 0.011):
        narrow = rounded(number, dtype)
        drawn = [torch.randn(256, generator=generator).to(device, dtype) for _ in like]
        for tensor in drawn:
            tensor[0] = narrow  # which a comparison tells from the number itself
        try:
            found, same = (
                operation(*args, **kwargs)
                for args, kwargs in (_arguments(like, drawn, each) for each in (number, narrow))
            )
        except (RuntimeError, TypeError, NotImplementedError):
            return False
        if not torch.allclose(found, same, rtol=0, atol=0, equal_nan=True):
            return False
    return True


def _arguments(
    like: Sequence[tuple[str, Any]], tensors: Sequence[Tensor], number: float
) -> tuple[list[Any], dict[str, Any]]:
    """Arguments that stand for those of a call: tensors and a number in their places."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for (name, kind), tensor in zip(like, tensors, strict=True):
        value = kind
        if kind is Tensor:
            value = tensor.clone()
        elif kind is torch.bool:
            value = tensor > 0
        elif kind is float:
            value = number
        if name:
            kwargs[name] = value
        else:
            args.append(value)
    return args, kwargs
