"""The audit: for every point one forward pass, and one backward pass a selection."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import ops, precision
from kinkcheck.audit.report import AuditReport, Point, SiteCount, UnseenCount
from kinkcheck.audit.variation import gradient_variation, l1_norm
from kinkcheck.errors import InputError
from kinkcheck.precision import Precision
from kinkcheck.selection import Selection, parse
from kinkcheck.tape import Site, Tape, record

Loss = Callable[[Tensor, Tensor], Tensor]
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
    device: str = "cpu",
    seed: int = 0,
    network_name: str | None = None,
    data_name: str = "batches",
    on_point: Callable[[int, int], None] = lambda done, total: None,
) -> AuditReport:
    """Measure how far a network's gradient depends on the derivative chosen at kinks.

    For each precision, parameter draw and mini-batch the network runs forward once; the backward
    pass runs once for the reference and once for every selection. The network is audited in the
    mode (``train()`` or ``eval()``) in which it is given, and left as it was.

    Args:
        network: a module, audited as it is; or a function without arguments that returns one with
            freshly drawn parameters.
        batches: pairs of inputs and targets, the same for every precision and draw.
        loss: function of outputs and targets that returns a single number.
        precisions: names as in :mod:`kinkcheck.precision`.
        selections: what to compare with the reference; each is applied to the operations that have
            it.
        reference: what the selections are compared with.
        operations: names (``max_pool2d``) or families (``max_pool``) of the operations to switch;
            all others keep their own selection. By default all.
        draws: how many parameter draws; needs a function as ``network`` if more than 1.
        layers: also switch one site at a time to the first selection, which costs one more
            backward pass a site.
        device: where to run.
        seed: parameters of draw ``d`` are drawn with seed ``seed + d``.
        network_name: name for the report; by default that of the class or function.
        data_name: name for the report.
        on_point: called with the number of points done and in all, after each point.

    Returns:
        The report. Without any nonsmooth site its list of sites is empty and every variation is 0.

    Raises:
        InputError: an argument cannot be used, the network fails on a batch, or a loss is not
            finite.

    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Flatten())
    >>> batch = (torch.ones(2, 1, 4, 4), torch.tensor([0, 1]))
    >>> report = audit(network, [batch], precisions=["64"])
    >>> [(site.layer, site.windows, site.tied) for site in report.sites]
    [('1', 8, 8)]
    """
    _require(draws >= 1, f"draws: must be at least 1, not {draws}")
    _require(
        draws == 1 or not isinstance(network, nn.Module),
        f"draws: {draws} parameter draws need a function that returns a network, not a module",
    )
    at = [precision.parse(text) for text in precisions]
    for each in at:
        precision.require_available(each, device)
    selected = [parse(selection) for selection in selections]
    _require(bool(selected), "selections: at least one is needed")
    switch = _Switch(parse(reference), selected, operations)
    census = _Census()
    pairs = list(batches)
    total = len(at) * draws * len(pairs)
    points: list[Point] = []

    with torch.random.fork_rng():
        for each, draw in product(at, range(draws)):
            torch.manual_seed(seed + draw)
            model = each.cast_model(_build(network), device)
            for index, (inputs, targets) in enumerate(pairs):
                torch.manual_seed(seed + index)
                with each.contractions(device):
                    with record(model) as tape, each.computation(device):
                        value = _loss(
                            model,
                            each.cast(inputs, device),
                            each.cast(targets, device),
                            loss,
                            where=f"{each}, draw {draw}, batch {index}",
                        )
                    base = tape.gradient(value, choose=switch.to(tape, switch.reference))
                    norm = l1_norm(base)
                    for selection in selected:
                        gradient = tape.gradient(value, choose=switch.to(tape, selection))
                        points.append(
                            Point(
                                precision=each.name,
                                draw=draw,
                                batch=index,
                                selection=str(selection),
                                loss=value.item(),
                                gradient_l1=norm,
                                variation=gradient_variation(gradient, base),
                            )
                        )
                    alone = switch.one_at_a_time(tape, value, base) if layers else {}
                census.add(each.name, tape, alone)
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
    )


class _Switch:
    """Which sites are switched to a selection, the others keeping their own."""

    def __init__(
        self, reference: Selection, selections: list[Selection], operations: Sequence[str] | None
    ) -> None:
        self.reference = reference
        self._first = selections[0]
        self._kinds = [kind for kind in ops.OPERATIONS if self._named(kind, operations)]
        self._operations = operations
        known = sorted({name for kind in ops.OPERATIONS for name in (kind.family, *kind.names)})
        for name in operations or ():
            _require(name in known, f"unknown operation {name!r}; accepted: {', '.join(known)}")
        for selection in (reference, *selections):
            for kind in self._kinds if operations is not None else ():
                ops.require_accepted(kind, selection)

    @staticmethod
    def _named(kind: type[ops.Operation], operations: Sequence[str] | None) -> bool:
        return operations is None or not {kind.family, *kind.names}.isdisjoint(operations)

    def to(self, tape: Tape, selection: Selection) -> dict[Site, Selection]:
        """The sites of a tape that take a selection."""
        chosen = {
            site: selection
            for site in tape.sites
            if self._operations is None
            or not {site.kind.family, site.operation}.isdisjoint(self._operations)
        }
        met = ", ".join(sorted({site.operation for site in tape.sites}))
        _require(
            bool(chosen) or not tape.sites,
            f"operations: no site of {', '.join(self._operations or ())}; the network has {met}",
        )
        accepted = {site: selection for site in chosen if isinstance(selection, site.kind.accepted)}
        if chosen and not accepted:
            ops.require_accepted(next(iter(chosen)).kind, selection)
        return accepted

    def one_at_a_time(
        self, tape: Tape, loss: Tensor, reference: dict[str, Tensor]
    ) -> dict[Site, float]:
        """The l1 variation when a single site is switched to the first selection."""
        base = self.to(tape, self.reference)
        return {
            site: gradient_variation(
                tape.gradient(loss, choose={**base, site: selection}), reference
            ).l1
            for site, selection in self.to(tape, self._first).items()
        }


class _Census:
    """Counts of sites and of what was unseen, summed over points."""

    def __init__(self) -> None:
        self._points: Counter[str] = Counter()
        self._counts: dict[tuple[str, str, str, int], list[int]] = {}
        self._variation: defaultdict[tuple[str, str, str, int], float] = defaultdict(float)
        self._unseen: Counter[tuple[str, str, str]] = Counter()

    def add(self, precision: str, tape: Tape, variation: dict[Site, float]) -> None:
        """Add one point."""
        self._points[precision] += 1
        for site in tape.sites:
            key = (precision, site.layer, site.operation, site.call)
            counts = self._counts.setdefault(key, [0, 0, 0])
            for place, count in enumerate((site.windows, site.tied, site.tied_at_zero)):
                counts[place] += count
            if site in variation:
                self._variation[key] += variation[site]
        for unseen in tape.unseen:
            self._unseen[unseen.layer, unseen.operation, unseen.reason] += unseen.calls

    def sites(self) -> list[SiteCount]:
        """One entry for each precision and site, in the order in which they were met."""
        return [
            SiteCount(
                precision=key[0],
                layer=key[1],
                operation=key[2],
                call=key[3],
                windows=counts[0],
                tied=counts[1],
                tied_at_zero=counts[2],
                variation_l1=(
                    self._variation[key] / self._points[key[0]] if key in self._variation else None
                ),
            )
            for key, counts in self._counts.items()
        ]

    def unseen(self) -> list[UnseenCount]:
        """One entry for each layer and operation."""
        return [UnseenCount(*key, calls) for key, calls in self._unseen.items()]


def _build(network: nn.Module | Factory) -> nn.Module:
    if isinstance(network, nn.Module):
        return network
    try:
        model = network()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"network: {_name(network)} failed: {_one_line(error)}") from error
    _require(
        isinstance(model, nn.Module),
        f"network: {_name(network)} must return a torch.nn.Module, not {type(model).__name__}",
    )
    return model


def _loss(model: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss, where: str) -> Tensor:
    try:
        value = loss(model(inputs), targets)
    except Exception as error:
        raise InputError(
            f"network: failed on a batch of shape {tuple(inputs.shape)} ({where}): "
            f"{_one_line(error)}"
        ) from error
    _require(
        isinstance(value, Tensor) and value.numel() == 1, f"loss: must be a single number ({where})"
    )
    _require(math.isfinite(value.item()), f"loss: {value.item()} is not finite ({where})")
    return value


def _name(network: object) -> str:
    return getattr(network, "__name__", type(network).__name__)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)
