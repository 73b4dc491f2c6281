"""Dropout that is the same for each sample in whatever run it takes part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


@contextmanager
def dropout_by_sample(order: Tensor, samples: int) -> Iterator[None]:
    """Let dropout drop of each sample what it drops in the whole mini-batch in its own order.

    The masks depend on the seed, the shape and how many there were before, not on memory format or
    precision, so that a point and its lift have one mask. They leave the random state alone. A
    tensor whose first dimension is not that of the samples drops as PyTorch does.

    Args:
        order: the numbers of the samples of the run, in their order there.
        samples: how many the whole mini-batch has.

    >>> x, order = torch.ones(4, 8), torch.tensor([3, 1])
    >>> with dropout_by_sample(torch.arange(4), samples=4):
    ...     whole = torch.nn.functional.dropout(x)
    >>> with dropout_by_sample(order, samples=4):
    ...     torch.equal(torch.nn.functional.dropout(x[order]), whole[order])
    True
    """
    with _DropoutBySample(order, samples):
        yield


_F = torch.nn.functional
_DROPOUTS: set[Callable[..., Any]] = {_F.dropout, _F.dropout1d, _F.dropout2d, _F.dropout3d}


class _DropoutBySample(TorchFunctionMode):
    def __init__(self, order: Tensor, samples: int) -> None:
        super().__init__()
        self._order = order
        self._samples = samples
        self._masks = 0

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func not in _DROPOUTS:
            return func(*args, **(kwargs or {}))
        return self._dropout(func, *args, **(kwargs or {}))

    def _dropout(
        self, func: Any, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        drops = training and p > 0
        if not drops or input.dim() == 0 or len(input) != len(self._order):
            dropped: Tensor = func(input, p, training, inplace)
            return dropped
        self._masks += 1
        seed = (torch.initial_seed() + self._masks) % 2**63
        devices = [input.device] if input.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            # New, and so contiguous: masks are drawn in the order of memory.
            whole = input.new_ones((self._samples, *input.shape[1:]))
            kept = func(whole, p).index_select(0, self._order.to(input.device))
        return input.mul_(kept) if inplace else input * kept
