"""What the arguments of an audit and of a volume stand for together: a grid of points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck.arithmetic import precision
from kinkcheck.arithmetic.precision import Precision
from kinkcheck.audit.points import Factory, Grid
from kinkcheck.errors import InputError
from kinkcheck.measure.runs import Step, device_of, pairs
from kinkcheck.measure.switch import Switch
from kinkcheck.selection import Selection, parse

Loss = Callable[[Any, Any], Tensor]


def grid_of(
    network: nn.Module | Factory,
    batches: Iterable[Any] | None,
    *,
    loss: Loss | None = None,
    step: Step | None = None,
    precisions: Sequence[str | Precision] = ("float32",),
    selections: Sequence[str | Selection] = ("minimal",),
    reference: str | Selection = "native",
    operations: Sequence[str] | None = None,
    draws: int = 1,
    samples: Any = 0,
    layers: bool = False,
    lifted: bool | None = None,
    exact: bool = False,
    device: str | None = None,
    seed: int = 0,
    on_memory: Callable[[int], None] = lambda number: None,
) -> Grid:
    """The grid that the arguments of :func:`kinkcheck.audit` ask for; see there.

    Raises:
        InputError: an argument cannot be used, or two do not go together.

    >>> pair = torch.zeros(1, 2), torch.tensor([0])
    >>> grid = grid_of(nn.Linear(2, 2), [pair], precisions=["16"])
    >>> [each.name for each in grid.precisions], len(grid.first()[1])
    (['float16'], 1)
    """
    for name, given in (("precisions", precisions), ("selections", selections)):
        _require(not isinstance(given, str), f"{name}: must be a list, not {given!r}")
        _require(bool(given), f"{name}: at least one is needed")
    _require(draws >= 1, f"draws: must be at least 1, not {draws}")
    _require(
        draws == 1 or not isinstance(network, nn.Module),
        f"draws: {draws} parameter draws need a function that returns a network, not a module",
    )
    at = [precision.parse(text) for text in precisions]
    on = device if device is not None else "cpu"
    if device is None and isinstance(network, nn.Module):
        on = str(device_of(network))
    for each in at:
        precision.require_available(each, on)
    switch = Switch(parse(reference), [parse(each) for each in selections], operations)
    _require(
        not exact or (lifted is not False and operations is None),
        "exact: decides the zones of lifted points, with the selections at all operations",
    )
    _require(
        loss is None or (step is None and batches is not None),
        "loss: is for batches of inputs and targets; a step returns the loss itself",
    )
    _require(
        not isinstance(batches, Mapping),
        f"batches: must be a list of batches, not one {type(batches).__name__}; put it in a list",
    )
    with torch.random.fork_rng():  # a loader may shuffle
        held = None if batches is None else list(batches)
    if step is None and held is not None:
        _require_pairs(held)
        step = pairs(loss or F.cross_entropy)
    return Grid(
        network, held, step, switch, at, samples=samples, layers=layers, lifted=lifted,
        exact=exact, device=device, seed=seed, on_memory=on_memory,
    )  # fmt: skip


def _require_pairs(batches: Sequence[Any]) -> None:
    _require(bool(batches), "batches: at least one is needed")
    for batch in batches:
        _require(
            isinstance(batch, tuple | list) and len(batch) == 2,
            "batches: must be a list of pairs of inputs and targets; for others give step=, a "
            "function of the model and a batch that returns the loss",
        )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)
