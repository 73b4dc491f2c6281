"""The audit: for every point one forward pass, and one backward pass a selection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kinkcheck import precision
from kinkcheck.audit.census import Census
from kinkcheck.audit.forward import Loss, one_line
from kinkcheck.audit.point import Measurement
from kinkcheck.audit.report import AuditReport, Point
from kinkcheck.audit.switch import Switch
from kinkcheck.errors import InputError
from kinkcheck.precision import Precision
from kinkcheck.selection import Selection, parse

Factory = Callable[[], nn.Module]


def audit(
    network: nn.Module | Factory,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    loss: Loss = F.cross_entropy,
    precisions: Sequence[str | Precision] = ("float32",),
    selections: Sequence[str | Selection] = ("minimal",),
    reference: str | Selection = "native",
    operations: Sequence[str] | None = None,
    draws: int = 1,
    layers: bool = False,
    lifted: bool = True,
    exact: bool = False,
    device: str = "cpu",
    seed: int = 0,
    network_name: str | None = None,
    data_name: str = "batches",
    on_point: Callable[[int, int], None] = lambda done, total: None,
) -> AuditReport:
    """Measure how far a network's gradient depends on the derivative chosen at kinks.

    For each precision, parameter draw and mini-batch the network runs forward once; the backward
    pass runs once for the reference and once for every selection. Then the lift says what the
    variation means. The network is audited in the
    mode (``train()`` or ``eval()``) in which it is given, and left as it was.

    Args:
        network: a module, audited as it is; or a function without arguments that returns one with
            freshly drawn parameters.
        batches: pairs of inputs and targets, the same for every precision and draw.
        loss: function of outputs and targets that returns a single number.
        precisions: names as in :mod:`kinkcheck.precision`.
        selections: what to compare with the reference; each is applied to the operations that have
            it, the others stay at the reference.
        reference: what the selections are compared with.
        operations: names (``max_pool2d``) or families (``max_pool``) of the operations to switch;
            all others keep their own selection. By default all.
        draws: how many parameter draws; needs a function as ``network`` if more than 1.
        layers: also switch one site at a time to the first selection, which costs one more
            backward pass a site.
        lifted: also run every point in float64 and under other orders of its samples, which tells
            compensation from bifurcation, says how far rounding has moved each gradient anyway, and
            why windows are tied (see :mod:`kinkcheck.audit.lift`).
        exact: let the exact arbiter decide the zones of lifted points, for small networks that it
            covers (see :mod:`kinkcheck.audit.exact`).
        device: where to run.
        seed: parameters of draw ``d`` are drawn with seed ``seed + d``.
        network_name: name for the report; by default that of the class or function.
        data_name: name for the report.
        on_point: called with the number of points done and in all, after each point.

    Returns:
        The report. Without any nonsmooth site its list of sites is empty and every variation is 0.

    Raises:
        InputError: an argument cannot be used, the network fails on a batch, or its gradient
            depends on the order of the samples.

    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Flatten())
    >>> batch = (torch.ones(2, 1, 4, 4), torch.tensor([0, 1]))
    >>> report = audit(network, [batch], precisions=["64"])
    >>> [(site.layer, site.windows, site.tied) for site in report.sites]
    [('1', 8, 8)]
    """
    at, selected = checked(network, draws, precisions, selections, device)
    switch = Switch(parse(reference), selected, operations)
    census = Census()
    pairs = list(batches)
    _require(bool(pairs), "batches: at least one is needed")
    for pair in pairs:
        _require(
            isinstance(pair, tuple | list) and len(pair) == 2,
            "batches: must be a list of pairs of inputs and targets",
        )
    _require(
        not exact or (lifted and operations is None),
        "exact: decides the zones of lifted points, with the selections at all operations",
    )
    total = len(at) * draws * len(pairs)
    points: list[Point] = []

    with torch.random.fork_rng():
        for each, draw in product(at, range(draws)):
            torch.manual_seed(seed + draw)
            model = _cast(build(network), each, device)
            if exact:
                _require_exact(model, pairs)
            for index, pair in enumerate(pairs):
                point = Measurement(
                    model, pair, loss, each, device, switch, seed + index,
                    f"{each}, draw {draw}, batch {index}", layers, lifted, exact,
                )  # fmt: skip
                points += [
                    Point(each.name, draw, index, **found) for found in point.measure(census)
                ]
                on_point(len(points) // len(selected), total)

    return AuditReport(
        kinkcheck=version("kinkcheck"),
        torch=str(torch.__version__),
        device=device,
        network=network_name or _name(network),
        data=data_name,
        seed=seed,
        reference=str(switch.reference),
        selections=[str(selection) for selection in selected],
        points=points,
        sites=census.sites(),
        unseen=census.unseen(),
        operations=None if operations is None else list(operations),
    )


def checked(
    network: nn.Module | Factory,
    draws: int,
    precisions: Sequence[str | Precision],
    selections: Sequence[str | Selection],
    device: str,
) -> tuple[list[Precision], list[Selection]]:
    """The precisions and selections that texts stand for.

    Raises:
        InputError: there is none, one is unknown or not available on the device, or a module is to
            be drawn several times.

    >>> checked(nn.Linear(1, 1), 1, ["16"], ["minimal"], "cpu")[0][0].name
    'float16'
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
    for each in at:
        precision.require_available(each, device)
    return at, [parse(selection) for selection in selections]


def build(network: nn.Module | Factory) -> nn.Module:
    """The network that an argument ``network`` stands for.

    Raises:
        InputError: the function fails, returns something else, or its module has no shape yet.

    >>> build(lambda: nn.Linear(1, 1))
    Linear(in_features=1, out_features=1, bias=True)
    """
    try:
        model = network if isinstance(network, nn.Module) else network()
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"network: {_name(network)} failed: {one_line(error)}") from error
    _require(
        isinstance(model, nn.Module),
        f"network: {_name(network)} must return a torch.nn.Module, not {type(model).__name__}",
    )
    _require(
        not any(map(is_lazy, (*model.parameters(), *model.buffers()))),
        f"network: {_name(network)} has parameters without a shape yet; call it on a batch first",
    )
    return model


def _require_exact(model: nn.Module, pairs: Sequence[tuple[Any, Any]]) -> None:
    from kinkcheck.audit.exact import uncovered

    missing = uncovered(model)
    _require(not missing, f"exact: the exact arbiter does not cover {', '.join(missing)}")
    for inputs, _ in pairs:
        given = type(inputs).__name__
        _require(
            isinstance(inputs, Tensor), f"exact: needs inputs that are one tensor, not {given}"
        )


def _cast(model: nn.Module, to: Precision, device: str) -> nn.Module:
    try:
        return to.cast_model(model, device)
    except Exception as error:
        raise InputError(f"network: cannot be copied to {to}: {one_line(error)}") from error


def _name(network: object) -> str:
    return getattr(network, "__name__", type(network).__name__)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)
