"""Assertions for tests of code that is differentiated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from kinkcheck.check import check
from kinkcheck.selection import Selection

__all__ = ["assert_gradient"]


def assert_gradient(
    function: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    selections: Sequence[str | Selection] = ("native",),
    fast_mode: bool = False,
) -> None:
    """Assert that the gradients of a function stand, at kinks too.

    The arguments are those of :func:`kinkcheck.check`.

    Raises:
        AssertionError: a gradient is wrong, or nothing was found that certifies it.
        InputError: what is given, or what the function returns, cannot be checked.

    >>> x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    >>> assert_gradient(torch.abs, x)
    >>> assert_gradient(lambda x: x.abs() * x.sign(), x)
    Traceback (most recent call last):
    ...
    AssertionError: Jacobian mismatch for output 0 with respect to input 0,
    numerical: 1 on the left, 1 on the right
    analytical: 0 (native)
    ...
    """
    __tracebackhide__ = True
    result = check(
        function, inputs, eps=eps, atol=atol, rtol=rtol, selections=selections,
        raise_exception=False, fast_mode=fast_mode,
    )  # fmt: skip
    if not result:
        raise AssertionError(str(result))
