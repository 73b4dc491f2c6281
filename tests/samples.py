"""PyTorch's samples of whatever a row or a composition names, as functions of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from kinkcheck import ops
from kinkcheck.ops.compositions import COMPOSITIONS
from kinkcheck.ops.table import ROWS
from kinkcheck.selection import Selection, parse
from strategies import filled

with pytest.MonkeyPatch.context() as patch:
    patch.setattr("sys.argv", ["pytest"])  # PyTorch's own tests read the command line
    from torch.testing._internal.common_methods_invocations import (
        foreach_binary_op_db,
        foreach_reduce_op_db,
        foreach_unary_op_db,
        op_db,
    )

TYING = (-1.0, 0.0, -0.0, 1.0, 3.0, 6.0, 0.5)
NOT_BESIDE = {
    "nn.functional.hinge_embedding_loss": "it jumps where the target leaves 1",
    "nn.functional.cosine_embedding_loss": "it jumps where the target leaves 1",
    "nn.functional.cosine_similarity": "it bends within 1e-8, nearer than inputs are moved",
    "nn.functional.normalize": "it bends within 1e-12, nearer than inputs are moved",
    "nn.functional.rrelu": "it draws a number for each input that is not positive",
}
"""Calls that a small move takes elsewhere."""


def _short(name: str) -> str:
    return name.replace(".", "_").removeprefix("nn_functional_").removeprefix("linalg_").strip("_")


def _named(info: Any) -> set[str]:
    return {_short(name) for name in (info.name, *(each.name for each in info.aliases))}


ROWS_OF: dict[str, set[str]] = {}
INFOS: dict[str, Any] = {}
"""PyTorch's samples of whatever a row or a composition names."""

for _info in (*op_db, *foreach_unary_op_db, *foreach_binary_op_db, *foreach_reduce_op_db):
    _rows = {
        row.name
        for row in ROWS
        if _named(_info) & {_short(each.rpartition(".")[2]) for each in row.spellings.split()}
    }
    if _rows or _named(_info) & {_short(function.__name__) for function in COMPOSITIONS}:
        _name = f"{_info.name} {_info.variant_test_name}".strip()
        INFOS[_name], ROWS_OF[_name] = _info, _rows


@dataclass(frozen=True)
class Call:
    """A call of PyTorch as a function of its tensors of floating point numbers."""

    function: Callable[..., Any]
    spec: Any
    given: tuple[Any, ...]

    @staticmethod
    def of(info: Any, sample: Any) -> Call:
        given, spec = tree_flatten((sample.input, sample.args, sample.kwargs))
        return Call(info.op, spec, tuple(given))

    @property
    def leaves(self) -> list[Tensor]:
        return [each for each in self.given if differentiable(each)]

    def filled(self, palette: tuple[float, ...]) -> list[Tensor]:
        return [
            filled(tuple(each.shape), palette, each.dtype, seed)
            if each.is_floating_point()
            else each
            for seed, each in enumerate(self.leaves)
        ]

    def side_by_side(self, palette: tuple[float, ...]) -> list[Tensor] | None:
        """Images with their channels side by side, if all tensors that are given have one shape."""
        leaves = self.leaves
        given = [each for each in self.given if isinstance(each, Tensor)]
        alike = all(map(differentiable, given)) and len({each.shape for each in given}) == 1
        if not alike or not leaves[0].dim():
            return None
        shape = tuple(leaves[0].shape) if leaves[0].dim() == 4 else (2, 3, 4, 3)
        return [
            filled(shape, palette, each.dtype, seed).contiguous(memory_format=torch.channels_last)
            if each.is_floating_point()
            else filled(shape, palette, torch.float32, seed).to(each.dtype)
            for seed, each in enumerate(leaves)
        ]

    def __call__(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        rest = iter(leaves)
        given = [next(rest) if differentiable(each) else each for each in self.given]
        input, args, kwargs = tree_unflatten(given, self.spec)
        torch.manual_seed(0)  # some operations draw
        return tuple(tree_leaves(self.function(input, *args, **kwargs)))

    def outputs(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Those that a gradient passes."""
        return tuple(each for each in self(*leaves) if differentiable(each))

    def under(self, selection: str) -> Callable[..., tuple[Tensor, ...]]:
        """The same under a selection."""

        def function(*leaves: Tensor) -> tuple[Tensor, ...]:
            with Selected(parse(selection)):
                return self.outputs(*leaves)

        return function


class Selected(TorchFunctionMode):
    """Carries out nonsmooth calls under one selection, others as they are."""

    def __init__(self, selection: Selection) -> None:
        super().__init__()
        self.selection = selection

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in COMPOSITIONS:
            with self:
                return COMPOSITIONS[function](*args, **kwargs)
        found = ops.operation(function, args, kwargs)
        if found is not None and isinstance(self.selection, found.row.accepted):
            return found.apply(self.selection)
        return function(*args, **kwargs)


def differentiable(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def calls(info: Any, dtype: torch.dtype, more: int = 2) -> Iterator[Call]:
    """The first three samples and some behind them."""
    samples = list(islice(info.sample_inputs("cpu", dtype, requires_grad=False), 60))
    for sample in [*samples[:3], *samples[:2:-1][:: 1 + len(samples) // more][:more]]:
        call = Call.of(info, sample)
        if call.leaves:
            yield call


def asked(leaves: Sequence[Tensor]) -> list[Tensor]:
    return [each.detach().clone().requires_grad_() for each in leaves]


def loss_of(outputs: Sequence[Tensor]) -> Tensor:
    """A number that depends on each entry in a way of its own."""
    total = torch.zeros((), dtype=torch.float64)
    for seed, each in enumerate(outputs):
        weights = filled(tuple(each.shape), (-2.0, -1.0, 0.5, 1.0, 3.0), torch.float64, seed)
        total = total + (each * weights.to(each.dtype)).sum().real.double()
    return total


def gradients_of(loss: Tensor, leaves: Sequence[Tensor], **named: Any) -> list[Tensor]:
    found = torch.autograd.grad(loss, leaves, allow_unused=True, **named)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


def plainly(call: Call, at: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], list[Tensor]] | None:
    """What PyTorch makes of a call; None if it refuses it or there is no gradient."""
    leaves = asked(at)
    try:
        outputs = call(*leaves)
    except (RuntimeError, ValueError):
        return None
    ways = [each for each in outputs if differentiable(each) and each.requires_grad]
    try:
        return (outputs, gradients_of(loss_of(ways), leaves)) if ways else None
    except RuntimeError as error:  # aminmax, up to PyTorch 2.9
        if "is not implemented" not in str(error):
            raise
        return None


def tied(name: str) -> Iterator[tuple[Call, list[Tensor]]]:
    """Calls in float64 whose inputs tie, or are equal to what an operation is compared with."""
    info = INFOS[name]
    for call in calls(info, torch.float64):
        at = call.filled(TYING)
        if plainly(call, at) is not None:
            yield call, at
