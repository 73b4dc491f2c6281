"""The volume of a zone: how likely a point is to lie in it, estimated from points drawn."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck.arithmetic.precision import Precision
from kinkcheck.audit.arguments import Loss, grid_of, place_of, require_points
from kinkcheck.audit.census import Census
from kinkcheck.audit.counts import LeftOut, UnseenCount
from kinkcheck.audit.executor import Executor, Inline
from kinkcheck.audit.intervals import Cell, estimate
from kinkcheck.audit.journal import Journal
from kinkcheck.audit.points import Factory, Place, name_of
from kinkcheck.audit.summary import Summary, summarise
from kinkcheck.errors import InputError, blaming
from kinkcheck.measure.batch import tensors
from kinkcheck.measure.records import Point
from kinkcheck.measure.runs import Step
from kinkcheck.measure.zones import Zone
from kinkcheck.progress import watched
from kinkcheck.ranges import require_confidence
from kinkcheck.selection import Selection

_FIRST_LOOK = 8


@dataclass(frozen=True, repr=False)
class Volume:
    """The estimated volumes, and the points that they were estimated from.

    ``print(volume)`` shows it as ``kinkcheck volume`` does.

    Attributes:
        settings: what the points depend on, by name.
        points: every entry, in the order of visiting.
        visited: pairs of a parameter draw and a mini-batch that the estimate rests on.
        planned: pairs in the whole grid; more than ``visited`` if it stopped early.
        looks: how many times the rule of early stopping might have looked; 1 without one.
        narrow: whether every interval asked for is as narrow as asked; False without a width.
        summaries: proportions with their intervals, one a precision and selection.
        unseen: what may have kinks or jumps and could not be switched.
        left_out: what was not measured, and why.
    """

    settings: dict[str, Any]
    points: list[Point]
    visited: int
    planned: int
    looks: int
    summaries: list[Summary]
    narrow: bool = False
    unseen: list[UnseenCount] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def __repr__(self) -> str:
        """One line: of what, and how much of the grid was visited."""
        of = f"{self.settings.get('network')} on {self.settings.get('data')}"
        return f"<Volume of {of}: {self.visited:,} of {self.planned:,} pairs visited>"

    def __str__(self) -> str:
        """The tables and a sentence, as the command line prints them."""
        from kinkcheck.report.volume import print_volume
        from kinkcheck.terminal import Terminal

        return Terminal.text(lambda out: print_volume(self, out))


def estimate_volume(
    network: nn.Module | Factory,
    batches: Iterable[Any] | None = None,
    *,
    draws: int = 1,
    loss: Loss | None = None,
    step: Step | None = None,
    precisions: Sequence[str | int | torch.dtype | Precision] = ("float32",),
    selections: Sequence[str | Selection] = ("minimal",),
    reference: str | Selection = "native",
    operations: Sequence[str] | None = None,
    samples: Any = 0,
    lifted: bool = True,
    standing: bool = True,
    device: str | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    until_width: float | None = None,
    until_zones: Sequence[Zone] = tuple(Zone),
    out: Path | None = None,
    network_name: str | None = None,
    data_name: str = "batches",
    settings: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    progress: bool = False,
    on_memory: Callable[[int], None] = lambda number: None,
    on_point: Callable[[int, int], None] = lambda done, total: None,
) -> Volume:
    """Estimate the proportion of points in each zone over parameter draws × mini-batches.

    Points are those of :func:`kinkcheck.audit.audit` with the same arguments, visited in the order
    of :func:`visiting_order`: every prefix spreads as evenly as can be over draws and mini-batches,
    so a run that ends early is as fair an estimate as a whole one, only wider. The first
    min(M, N) points share no draw and no mini-batch.

    With ``until_width`` the run stops at the first look at which every interval asked for is as
    narrow. Looking again and again until an interval pleases would make it wrong more often than it
    says. So the looks are fixed beforehand (after 8, 16, 32, ... pairs, after min(M, N), and at the
    end), and with L of them every interval is computed at confidence 1 − (1 − confidence) / L: by
    the union bound the one that is reported holds the truth with the confidence asked, whichever
    look it is. This costs width: at 10 looks about 40 %, and 60 % for a zone without points. Each
    zone's interval has this confidence by itself, not all of them together.

    Args:
        network: a module, audited as it is; or a function without arguments that returns one with
            freshly drawn parameters, or a tuple ``(model, batches, step)``.
        batches: what ``step`` takes, the same for every draw.
        draws: how many parameter draws M; needs a function as ``network`` if more than 1.
        loss: function of outputs and targets that returns a single number, for pairs of them; by
            default cross entropy.
        step: function of the model and a batch that returns the loss, in place of ``loss``.
        precisions: names, short names (``16``, ``bf16``) or types (``torch.float16``): see
            :func:`kinkcheck.arithmetic.precision_names.canonical`.
        selections: what to compare with the reference.
        reference: what the selections are compared with.
        operations: names or families of the operations to switch; by default all.
        samples: where samples are in a batch, as in :func:`kinkcheck.audit.audit`.
        lifted: also judge every point by the lift; the threshold alone takes a third of the time.
        standing: also judge what the gradients are; zones alone take less time and memory.
        device: where to run; by default where the network is.
        seed: parameters of draw ``d`` are drawn with seed ``seed + d``.
        confidence: of every interval, between 0 and 1.
        until_width: stop as soon as intervals are as narrow as this; None visits the whole grid.
        until_zones: the zones whose intervals, by the lift and by the threshold, have to be.
        out: a file of JSON lines (see :class:`kinkcheck.audit.journal.Journal`) that every point is
            added to as it comes, in their order; a killed run loses at most the points it was at.
            Run again with the same arguments it goes on where it stopped, to the same result.
        network_name: name for the file; by default that of the class or function.
        data_name: name for the file.
        settings: more that the points depend on, to be kept in the file and compared with it.
        executor: who measures the points: by default this process; or a Ray cluster, as in
            :mod:`kinkcheck.audit.cluster`, to the same result.
        progress: show a bar, on standard error.
        on_memory: called with about how many bytes of memory it will take, before it starts, if
            this process measures.
        on_point: called with the number of points done and in all, after each point.

    Returns:
        The volumes. What the intervals are about is said in :mod:`kinkcheck.audit.intervals`.

    Raises:
        InputError: an argument cannot be used, the network fails on a batch, no look can reach
            ``until_width``, or ``out`` was written with other settings, which the message names.

    Sources: D. Bertoin et al. (NeurIPS 2021); R. Boustany (TMLR 2024, section 3).

    >>> def network():
    ...     return nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Flatten())
    >>> batches = [(torch.ones(2, 1, 4, 4), torch.tensor([0, 1]))] * 3
    >>> volume = estimate_volume(network, batches, draws=2, precisions=["64"])
    >>> volume.visited, volume.summaries[0].interval_method
    (6, 'McDiarmid')
    """
    require_confidence(confidence)
    if until_width is not None and not 0 < until_width < 1:
        raise InputError(f"until_width: must be between 0 and 1, not {until_width}")
    executor = executor or Inline()
    of_pairs = step is None and batches is not None
    points: list[Point] = []
    census = Census()
    left_out: Counter[str] = Counter()
    visited = 0
    summaries: list[Summary] = []
    narrow = False

    with ExitStack() as stack:
        on = place_of(network, device)
        watching = stack.enter_context(watched(progress, on, on_memory, on_point))
        grid = grid_of(
            network, batches, loss=loss, step=step, precisions=precisions, selections=selections,
            reference=reference, operations=operations, draws=draws, samples=samples,
            lifted=lifted, standing=standing, device=device, seed=seed, executor=executor,
            on_memory=watching.on_memory,
        )  # fmt: skip
        stack.enter_context(torch.random.fork_rng())
        at = grid.precisions
        model, drawn, by = grid.first()
        require_points(draws, len(drawn), len(at))
        depends_on = {
            "network": network_name or name_of(network),
            "data": data_name,
            **(settings or {}),
            "draws": draws,
            "batches": len(drawn),
            "precisions": [each.name for each in at],
            "selections": [str(selection) for selection in grid.switch.selections],
            "reference": str(grid.switch.reference),
            "operations": None if operations is None else list(operations),
            "loss": name_of((loss or F.cross_entropy) if of_pairs else by),
            "lifted": lifted,
            "standing": standing,
            "seed": seed,
            "device": grid.device,
            "threads": torch.get_num_threads(),
            "kinkcheck": version("kinkcheck"),
            "torch": str(torch.__version__),
            "tensors of the batches": _digest(tensors(list(drawn))),
            "parameters of draw 0": _digest_of(model),
        }
        cells = list(visiting_order(draws, len(drawn)))
        planned = len(cells)
        looks = _looks(draws, len(drawn)) if until_width is not None else [planned]
        # What each look may miss, so that all together miss no more than was asked.
        each_confidence = 1 - (1 - confidence) / len(looks)
        if until_width is not None:
            _require_reachable(until_width, looks, cells, each_confidence)
        with Journal(out, depends_on) as journal:
            places = [Place(each, *cell) for cell in cells for each in at]
            watching.on_planned(len(places))
            kept = _placed(out, journal, places, [str(each) for each in grid.switch.selections])
            missing = [place for number, place in enumerate(places) if number not in kept]
            with closing(executor.measure(grid, missing)) as measured:
                for number in range(len(places)):
                    if number in kept:
                        found = journal.found[kept[number]]
                        if number >= journal.lines:
                            journal.keep(kept[number])
                    else:
                        found = next(measured)
                        journal.append(found)
                    points += found.points
                    census.add(places[number].precision.name, found)
                    left_out += Counter(found.left_out)
                    watching.on_point(number + 1, len(places))
                    visited, within = divmod(number + 1, len(at))
                    if within == 0 and visited in looks:
                        summaries = summarise(points, confidence=each_confidence)
                        narrow = until_width is not None and _narrow(
                            summaries, until_zones, until_width
                        )
                        if narrow:
                            break

    return Volume(
        settings=journal.settings,
        points=points,
        visited=visited,
        planned=planned,
        looks=len(looks),
        narrow=narrow,
        summaries=[replace(summary, confidence=confidence) for summary in summaries],
        unseen=census.unseen(),
        left_out=[LeftOut(what, count) for what, count in left_out.items()],
    )


def visiting_order(draws: int, batches: int) -> Iterator[Cell]:
    """Every pair of a draw and a mini-batch once, along diagonals of the grid.

    Each diagonal takes the next draw and the next mini-batch together, so that a prefix of k pairs
    holds every draw k / M times and every mini-batch k / N times, rounded up or down.

    Args:
        draws: M, at least 1.
        batches: N, at least 1.

    >>> list(visiting_order(2, 2)), list(visiting_order(2, 3))[:3]
    ([(0, 0), (1, 1), (0, 1), (1, 0)], [(0, 0), (1, 1), (0, 2)])
    """
    period = math.lcm(draws, batches)
    for k in range(draws * batches):
        yield k % draws, (k + k // period) % batches


def _placed(
    out: Path | None, journal: Journal, places: Sequence[Place], selections: Sequence[str]
) -> dict[int, int]:
    """Where a file holds a point, by the point's number; refuse lines that have no place there."""
    asked = [[(p.precision.name, p.draw, p.batch, s) for s in selections] for p in places]
    placed: dict[int, int] = {}
    number = -1
    for index, found in enumerate(journal.found):
        has = [(p.precision, p.draw, p.batch, p.selection) for p in found.points]
        # Lines that were damaged are gaps, and those behind them stand nearer to the start.
        until = number + 2 if journal.whole else len(asked)
        try:
            number = asked.index(has, number + 1, until)
        except ValueError:
            due = places[number + 1 : number + 2]
            of = f"{due[0].precision.name}, draw {due[0].draw}, batch {due[0].batch}" if due else ""
            raise InputError(
                f"out: line {index + 2} of {out} is not the point that belongs there "
                f"({of or 'nothing'}), as where two processes wrote; name another file"
            ) from None
        placed[number] = index
    return placed


def _digest_of(model: nn.Module) -> str:
    with blaming("network: its parameters and buffers cannot be read"):
        return _digest(model.state_dict().values())


def _digest(values: Any) -> str:
    """Tells other tensors apart; 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for tensor in values:
        if isinstance(tensor, Tensor):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            dense = tensor if tensor.layout == torch.strided else tensor.to_dense()
            flat = dense.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def _looks(draws: int, batches: int) -> list[int]:
    """After how many pairs the intervals are looked at, known before the first point is."""
    planned = draws * batches
    looks = {planned}
    # The last pair at which nothing drawn was met twice: after it the interval widens.
    looks |= {min(draws, batches)} if draws > 1 and batches > 1 else set()
    doubling = _FIRST_LOOK
    while doubling < planned:
        looks.add(doubling)
        doubling *= 2
    return sorted(looks)


def _require_reachable(
    width: float, looks: Sequence[int], cells: Sequence[Cell], confidence: float
) -> None:
    """Complain of a width that not even a zone without points can reach, before days are spent."""
    least = min(estimate(0, cells[:look], confidence).width for look in looks)
    if least > width:
        raise InputError(
            f"until_width: {width:g} is out of reach with {len({d for d, _ in cells})} draws and "
            f"{len({b for _, b in cells})} mini-batches, "
            f"whose intervals are {least:.2g} wide at least; ask for more of both, as many draws "
            "as mini-batches, or for a wider interval"
        )


def _narrow(summaries: Sequence[Summary], zones: Sequence[Zone], width: float) -> bool:
    """Whether every interval of these zones is as narrow as asked; False if there is none."""
    widths = [
        high - low
        for summary in summaries
        for shares in (summary.zones, summary.zones_by_threshold)
        for low, high in (shares[zone].interval for zone in zones if shares)
    ]
    return bool(widths) and max(widths) <= width
