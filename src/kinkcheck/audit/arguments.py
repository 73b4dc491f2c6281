"""What the arguments of an audit and of a volume stand for together: a grid of points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck.arithmetic import precision
from kinkcheck.arithmetic.precision import Precision
from kinkcheck.audit.executor import Executor, Inline
from kinkcheck.audit.points import Factory, Grid
from kinkcheck.errors import InputError
from kinkcheck.extras import require
from kinkcheck.measure.batch import require_dims
from kinkcheck.measure.runs import Step, device_of, pairs
from kinkcheck.measure.switch import Switch
from kinkcheck.ranges import MOST, MOST_POINTS, MOST_SEED, require_between, require_list
from kinkcheck.selection import Selection, parse

Loss = Callable[[Any, Any], Tensor]


def require_points(draws: int, batches: int, precisions: int) -> None:
    """Check that a grid can be gone through, before it is.

    Raises:
        InputError: it has too many points.

    >>> require_points(10_000, 1000, 3)
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: draws: 10,000 draws of 1,000 mini-batches in 3 precisions are
    30,000,000 points, and at most 10,000,000 are measured at a time
    """
    points = draws * batches * precisions
    if points > MOST_POINTS:
        raise InputError(
            f"draws: {draws:,} draws of {batches:,} mini-batches in {precisions} precisions are "
            f"{points:,} points, and at most {MOST_POINTS:,} are measured at a time"
        )


def grid_of(
    network: nn.Module | Factory,
    batches: Iterable[Any] | None,
    *,
    loss: Loss | None = None,
    step: Step | None = None,
    precisions: Sequence[str | int | torch.dtype | Precision] = ("float32",),
    selections: Sequence[str | Selection] = ("minimal",),
    reference: str | Selection = "native",
    operations: Sequence[str] | None = None,
    draws: int = 1,
    samples: Any = 0,
    layers: bool = False,
    lifted: bool | None = None,
    standing: bool = True,
    exact: bool = False,
    device: str | None = None,
    seed: int = 0,
    on_memory: Callable[[int], None] = lambda number: None,
    executor: Executor | None = None,
) -> Grid:
    """The grid that the arguments of :func:`kinkcheck.audit` ask for; see there.

    ``executor`` is who will measure its points; by default this process.

    Raises:
        InputError: an argument cannot be used, or two do not go together.

    >>> pair = torch.zeros(1, 2), torch.tensor([0])
    >>> grid = grid_of(nn.Linear(2, 2), [pair], precisions=["16"])
    >>> [each.name for each in grid.precisions], len(grid.first()[1])
    (['float16'], 1)
    """
    for name, given in (("precisions", precisions), ("selections", selections)):
        require_list(given, name)
    if operations is not None:
        require_list(operations, "operations")
    require_between(draws, 1, MOST, "draws:")
    require_between(seed, 0, MOST_SEED, "seed:")
    _require(
        draws == 1 or not isinstance(network, nn.Module),
        f"draws: {draws} parameter draws need a function that returns a network, not a module",
    )
    require_dims(samples)
    at = list(dict.fromkeys(precision.parse(each) for each in precisions))
    (executor or Inline()).require(at, place_of(network, device))
    chosen = list(dict.fromkeys(parse(each) for each in selections))
    switch = Switch(parse(reference), chosen, operations)
    _require(
        not exact or (lifted is not False and operations is None),
        "exact: decides the zones of lifted points, with the selections at all operations",
    )
    if exact:
        require("flint", extra="exact")
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
        standing=standing, exact=exact, device=device, seed=seed, on_memory=on_memory,
    )  # fmt: skip


def place_of(network: nn.Module | Factory, device: str | None) -> str:
    """Where a measurement will run, as far as that is known before it begins.

    >>> place_of(nn.Linear(1, 1), None), place_of(lambda: nn.Linear(1, 1), "cuda")
    ('cpu', 'cuda')
    """
    if device is None and isinstance(network, nn.Module):
        return str(device_of(network))
    return device or "cpu"


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
