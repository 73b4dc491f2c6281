"""The audit: for every point one forward pass, and one backward pass a selection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from kinkcheck.arithmetic.precision import Precision
from kinkcheck.audit.arguments import Loss, grid_of, place_of, require_points
from kinkcheck.audit.census import Census
from kinkcheck.audit.counts import LeftOut
from kinkcheck.audit.picture import MOST_PIXELS, TiesPicture, ties_picture
from kinkcheck.audit.points import Factory, Place, name_of
from kinkcheck.audit.report import AuditReport
from kinkcheck.errors import InputError
from kinkcheck.interrupts import held_back
from kinkcheck.measure.batch import candidates
from kinkcheck.measure.point import NO_SAMPLES
from kinkcheck.measure.records import Point
from kinkcheck.measure.runs import Step, device_of
from kinkcheck.nn import converts
from kinkcheck.progress import watched
from kinkcheck.selection import Selection


def audit(
    network: nn.Module | Factory,
    batches: Iterable[Any] | None = None,
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
    exact: bool = False,
    device: str | None = None,
    seed: int = 0,
    network_name: str | None = None,
    data_name: str = "batches",
    progress: bool = False,
    on_memory: Callable[[int], None] = lambda number: None,
    on_point: Callable[[int, int], None] = lambda done, total: None,
) -> AuditReport:
    """Measure how far a network's gradient depends on the derivative chosen at kinks.

    For each precision, parameter draw and mini-batch the program runs forward once; the backward
    pass runs once for the reference and once for every selection. Then the lift says what the
    variation means. What is audited is the user's own object, in the mode (``train()`` or
    ``eval()``) in which it is given: its parameters and buffers are cast in place, so that hooks,
    penalties and cached references act as in training, and put back whatever happens. The first
    point of each precision is compared, bit for bit, with what plain autograd returns.

    Args:
        network: a module; or a function without arguments that returns one with freshly drawn
            parameters, or a tuple ``(model, batches, step)``.
        batches: what ``step`` takes, the same for every precision and draw; anything that holds
            tensors.
        loss: function of outputs and targets that returns a single number, for batches that are
            pairs of inputs and targets; by default cross entropy.
        step: function of the model and a batch that returns the loss, in place of ``loss``.
        precisions: names, short names (``16``, ``bf16``) or types (``torch.float16``): see
            :func:`kinkcheck.arithmetic.precision_names.canonical`.
        selections: what to compare with the reference; each is applied to the operations that have
            it, the others stay at the reference.
        reference: what the selections are compared with.
        operations: names (``max_pool2d``) or families (``max_pool``) of the operations to switch;
            all others keep their own selection. By default all.
        draws: how many parameter draws; needs a function as ``network`` if more than 1.
        samples: which dimension of each tensor of a batch counts samples, as ``in_dims`` of
            :func:`torch.vmap`: a number, or the same in the structure of the batch, None for what
            all samples share. It is seen whether they are samples; where not, what needs samples is
            left out, and ``left_out`` of the report says so. None if there are none.
        layers: also switch one site at a time to the first selection, which costs one more
            backward pass a site.
        lifted: also run every point in float64 and under other orders of its samples, which tells
            compensation from bifurcation, says how far rounding has moved each gradient anyway, and
            why windows are tied (see :mod:`kinkcheck.measure.lift`). False for no point; None, the
            default, for the first point of each precision and for those where the precision itself
            does not tell what is right: there all ties are flat, and what moves is rounding.
        exact: let the exact arbiter decide the zones of lifted points, for small networks that it
            covers (see :mod:`kinkcheck.exact`).
        device: where to run; by default where the network is.
        seed: parameters of draw ``d`` are drawn with seed ``seed + d``.
        network_name: name for the report; by default that of the class or function.
        data_name: name for the report.
        progress: show a bar, on standard error, that says how much memory it takes as well.
        on_memory: called with about how many bytes of memory it will take, before it starts.
        on_point: called with the number of points done and in all, after each point.

    Returns:
        The report. Without any nonsmooth site its list of sites is empty and every variation is 0.

    Raises:
        InputError: an argument cannot be used, the network fails on a batch, or what was recorded
            is not what the program does without kinkcheck.

    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Flatten())
    >>> batch = (torch.ones(2, 1, 4, 4), torch.tensor([0, 1]))
    >>> report = audit(network, [batch], precisions=["64"])
    >>> [(site.layer, site.windows, site.tied) for site in report.sites]
    [('1', 8, 8)]
    """
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    of_pairs = step is None and batches is not None
    census = Census()
    points: dict[Place, list[Point]] = {}
    left_out: Counter[str] = Counter()
    with ExitStack() as stack:
        on = place_of(network, device)
        watching = stack.enter_context(watched(progress, on, on_memory, on_point))
        grid = grid_of(
            network, batches, loss=loss, step=step, precisions=precisions, selections=selections,
            reference=reference, operations=operations, draws=draws, samples=samples,
            layers=layers, lifted=lifted, exact=exact, device=device, seed=seed,
            on_memory=watching.on_memory,
        )  # fmt: skip
        stack.enter_context(torch.random.fork_rng())
        model, drawn, _ = grid.first()
        if exact:
            from kinkcheck.exact import uncovered

            if missing := uncovered(model):
                raise InputError(f"exact: the exact arbiter does not cover {', '.join(missing)}")
        require_points(draws, len(drawn), len(grid.precisions))
        places = [
            Place(each, draw, batch)
            for draw, each, batch in product(range(draws), grid.precisions, range(len(drawn)))
        ]
        watching.on_planned(len(places))
        for place, found in grid.measure(places):
            points[place] = found.points
            census.add(place.precision.name, found)
            left_out += Counter(found.left_out)
            watching.on_point(len(points), len(places))
        picture = _picture(model, drawn[0][0], grid.precisions[0], device) if of_pairs else None
        told = samples is not None and NO_SAMPLES not in left_out
        sizes = {each.count for each in candidates(drawn[0], samples)} if told else set()

    return AuditReport(
        kinkcheck=version("kinkcheck"),
        torch=str(torch.__version__),
        device=device or str(device_of(model)),
        network=network_name or name_of(network),
        data=data_name,
        seed=seed,
        reference=str(grid.switch.reference),
        selections=[str(selection) for selection in grid.switch.selections],
        points=[
            point
            for place in product(grid.precisions, range(draws), range(len(drawn)))
            for point in points[Place(*place)]
        ],
        sites=[
            replace(site, converts=converts(model, site.layer, site.operation))
            for site in census.sites()
        ],
        unseen=census.unseen(),
        operations=None if operations is None else list(operations),
        left_out=[LeftOut(what, count) for what, count in left_out.items()],
        ties_picture=picture,
        batches=len(drawn),
        batch_size=sizes.pop() if len(sizes) == 1 else None,
        date=date,
    )


def _picture(
    model: nn.Module, inputs: Any, at: Precision, device: str | None
) -> TiesPicture | None:
    """Where the first of the inputs meets ties, if they are images."""
    if not isinstance(inputs, Tensor) or inputs.dim() != 4 or not len(inputs):
        return None
    if inputs.shape[-2:].numel() > MOST_PIXELS:
        return None
    with held_back(), torch.enable_grad():
        return ties_picture(model, inputs[0], at, device)
