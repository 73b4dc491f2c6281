"""[B24], section 3: thresholds, and what they are to tell apart.

The published notebook takes the threshold from D between two programs, and passes α and β in
swapped order: what it compares is ReLU'(0) = 0 with 1, not native with minimal. Its cell of LeNet-5
at 32 bits compares a program with itself. Here all are measured: D of both pairs, and the noise
floor, which is how far one program spreads when it adds its samples up in another order.

The paper speaks of another spread: of one program that is run again and again on a GPU, whose
kernels may add in any order. It is measured where there are such kernels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn

from kinkcheck.data import Images
from kinkcheck.data.catalogue import lookup
from kinkcheck.measure.variation import Variation
from kinkcheck.measure.zones import PUBLISHED_THRESHOLDS
from kinkcheck.paper.harness.case import Batch, Case, Network, Size
from kinkcheck.paper.harness.comparison import Comparison
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.gradients import (
    against_native,
    drawn,
    largest,
    reordered,
    repeated,
)
from kinkcheck.paper.harness.parts import Measure, all_kept
from kinkcheck.paper.harness.rows import Line, by
from kinkcheck.report.ink import INKS, MARKERS
from kinkcheck.selection import Branch, Minimal

PRECISIONS = ("float16", "float32", "float64")
_FLOOR = "noise floor"
_POOLS, _RELUS = "max pool", "ReLU'(0)"
_LARGE, _SMALL = Size(10, 10), Size(1, 2, 8)


@dataclass(frozen=True)
class StandIn(Case):
    """A case whose images have the normalisation and the number of classes of another set.

    Attributes:
        stands_for: the other set.
    """

    stands_for: str = ""

    def images(self, data_dir: Path | None) -> Images:
        """The image set as if it were the other."""
        entry = lookup(self.stands_for)
        return replace(
            super().images(data_dir),
            name=f"{self.data} for {self.stands_for}",
            mean=entry.mean,
            std=entry.std,
            classes=entry.classes,
        )


@dataclass(frozen=True)
class Row:
    """Two gradients at a point.

    Attributes:
        network: its name.
        data: the image set.
        batch_size: images in a mini-batch.
        precision: name.
        way: how the two are got.
        draw, batch: of the point.
        l1: how far they are apart.
    """

    network: str
    data: str
    batch_size: int
    precision: str
    way: str
    draw: int
    batch: int
    l1: float


@dataclass(frozen=True)
class Repeated:
    """One program at a point, run again and again.

    Attributes:
        network, data, batch_size, precision, draw, batch: as in :class:`Row`.
        device: where it ran.
        kernels: which were allowed, one of :func:`kernels`.
        repetitions: how many runs there were beside the first.
        l1: how far they were from the first at most.
    """

    network: str
    data: str
    batch_size: int
    precision: str
    draw: int
    batch: int
    device: str
    kernels: str
    repetitions: int
    l1: float

    @property
    def way(self) -> str:
        """How the gradients are got, as a row says it."""
        return f"repeated, {self.kernels} kernels"


Measured = Row | Repeated


def kernels(device: str) -> dict[str, int]:
    """Which kernels a device lets one allow, and how often runs with them are repeated.

    A CPU has deterministic ones alone, of which one repetition shows that they are.

    >>> kernels("cpu"), kernels("cuda:0")
    ({'deterministic': 1}, {'deterministic': 1, 'any': 10})
    """
    return {"deterministic": 1} if device == "cpu" else {"deterministic": 1, "any": 10}


_VGGS = [Network(f"vgg{depth}") for depth in (11, 13, 16, 19)]
_RESNET, _DENSENET = Network("resnet18"), Network("densenet121-published")
_FULL = (
    Case(Network("lenet5"), "mnist", _LARGE),
    *(Case(network, "cifar10", _LARGE) for network in (*_VGGS, _RESNET)),
    Case(_VGGS[0], "svhn", _LARGE),
    Case(_DENSENET, "cifar100", _LARGE),
)
_REDUCED = (
    Case(Network("lenet5"), "mnist", Size(3, 3)),
    *(Case(network, "cifar10", _SMALL) for network in (*_VGGS, _RESNET)),
    StandIn(_VGGS[0], "cifar10", _SMALL, stands_for="svhn"),
    StandIn(_DENSENET, "cifar10", _SMALL, stands_for="cifar100"),
)


def measure(setup: Setup, cases: Sequence[Case] | None = None) -> list[Measured]:
    """How far gradients are apart (l1), a row a point and way of getting them.

    ``noise floor`` compares runs that are equal over the reals: the sum over two halves of the
    samples, or with batch norm, where samples meet, all of them in another order. The other two
    ways are pairs of programs. A row of runs that were repeated says which kernels were allowed: a
    CPU has deterministic ones alone, and its rows say 0 for that reason; on CUDA the same with any
    kernels is the spread that the published thresholds are said to be of.

    Args:
        setup: where.
        cases: what is measured; by default the reduced or the full size.

    Raises:
        InputError: an image set is not there, which is found before anything is measured.
    """
    cases = cases or (_REDUCED if setup.reduced else _FULL)
    given = [case.images(setup.data_dir) for case in cases]
    parts: dict[str, Measure[Measured]] = {}
    for case, images in zip(cases, given, strict=True):
        batches = case.batches(images)  # the same of every draw
        for draw in range(case.size.draws):
            name = f"{case.network} {images.name} {case.size} {draw}"
            parts[name] = partial(_one_draw, case, images, batches, draw)
    measured: dict[str, list[Measured]] = all_kept(setup, Measured, parts)
    return [row for rows in measured.values() for row in rows]


def _one_draw(
    case: Case, images: Images, batches: Sequence[Batch], draw: int, setup: Setup
) -> list[Measured]:
    model = drawn(case.factory(images), draw)
    named = partial(Row, case.network.name, images.name, case.size.batch_size)
    again = partial(Repeated, case.network.name, images.name, case.size.batch_size)
    rows: list[Measured] = []
    for index, pair in enumerate(batches):
        for precision in PRECISIONS:
            for allowed, times in kernels(setup.device).items():
                with _allowing(allowed, setup.device):
                    apart = repeated(model, pair, precision, setup.device, times)
                rows.append(again(precision, draw, index, setup.device, allowed, times, apart))
            rows += [
                named(precision, way, draw, index, found.l1)
                for way, found in _ways(setup, case, model, pair, precision, index)
            ]
        setup.on_progress(
            f"{case.network.name}, {images.name}",
            draw * len(batches) + index + 1,
            case.size.draws * len(batches),
        )
    return rows


def _ways(
    setup: Setup, case: Case, model: nn.Module, pair: Batch, precision: str, seed: int
) -> list[tuple[str, Variation]]:
    with _allowing("deterministic", setup.device):
        other = reordered(
            model, pair, precision, setup.device, meet=case.network.batch_norm, seed=seed
        )
    return [
        (_FLOOR, other),
        (_POOLS, against_native(model, pair, precision, setup.device, "max_pool", Minimal())),
        (_RELUS, against_native(model, pair, precision, setup.device, "relu", Branch(1.0))),
    ]


@contextmanager
def _allowing(kinds: str, device: str) -> Iterator[None]:
    """Deterministic kernels of cuDNN, or any of PyTorch's, while it holds; a CPU has one kind."""
    if device == "cpu":
        yield
        return
    enabled = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    alone = kinds == "deterministic"
    torch.use_deterministic_algorithms(enabled and alone, warn_only=warns)
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=alone, benchmark=False):
            yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warns)


def summarise(rows: Sequence[Measured]) -> list[Line]:
    """The largest D (l1) of every network and precision, a column a way.

    >>> rows = [Row("mlp", "mnist", 128, "float32", "max pool", 0, 0, d) for d in (1.0, 4.0)]
    >>> [found["max pool"] for found in summarise(rows)]
    [4.0]
    """
    return [
        {
            "network": network,
            "data": data,
            "precision": precision,
            **{way: largest(values) for way, values in ways.items()},
            "τ": PUBLISHED_THRESHOLDS[precision],
        }
        for (network, data, precision), ways in _by_way(rows).items()
    ]


def _by_way(rows: Sequence[Measured]) -> dict[tuple[str, str, str], dict[str, list[float]]]:
    """D by way, for each network, image set and precision."""
    return {
        key: {way: [row.l1 for row in same] for way, same in by(group, lambda r: r.way).items()}
        for key, group in by(rows, lambda row: (row.network, row.data, row.precision)).items()
    }


_NOTHING = 1e-24  # where a spread of 0 is drawn, on an axis of logarithms
_PANELS = {
    _FLOOR: "noise floor: one program, its samples added up in another order",
    _POOLS: "max pooling, native and minimal",
    _RELUS: "ReLU'(0), 0 and 1: what the notebook compares",
}
_ANY = "repeated, any kernels"


def draw(rows: Sequence[Measured]) -> Figure:
    """A panel a way: every spread (l1) by network, and the published thresholds as lines.

    Repetitions have a panel where kernels could make them differ.
    """
    shown = dict(_PANELS)
    if any(row.way == _ANY for row in rows):
        shown[_ANY] = "one program, run again with kernels that may add in any order"
    cases = list(dict.fromkeys((row.network, row.data) for row in rows))
    figure = Figure(figsize=(6.4, 2.2 * len(shown)))
    panels = figure.subplots(len(shown), 1, sharex=True, sharey=True)
    counts = sorted(set(Counter((r.network, r.data, r.precision, r.way) for r in rows).values()))
    for axes, (way, title) in zip(panels, shown.items(), strict=True):
        for number, precision in enumerate(PRECISIONS):
            here = [row for row in rows if (row.precision, row.way) == (precision, way)]
            axes.plot(
                [cases.index((row.network, row.data)) + 0.22 * (number - 1) for row in here],
                [row.l1 if row.l1 else _NOTHING for row in here],
                MARKERS[number], color=INKS[number], markersize=4, alpha=0.7, label=precision,
            )  # fmt: skip
            axes.axhline(
                PUBLISHED_THRESHOLDS[precision], color=INKS[number],
                linestyle=("-", "--", ":")[number], linewidth=1, label=f"{precision}, published τ",
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_yticks([_NOTHING, *(10.0**power for power in range(-21, 4, 6))])
        axes.yaxis.set_major_formatter(lambda value, _: "0" if value == _NOTHING else f"{value:g}")
        axes.set_ylim(_NOTHING / 5)
        axes.set_title(f"{title}; {' or '.join(map(str, counts))} points each")
    panels[-1].set_xticks(
        range(len(cases)),
        [
            f"{network.replace('-', chr(10))}\n{name.replace(' for ', chr(10) + 'for ')}"
            for network, name in cases
        ],
        fontsize=7,
    )
    figure.supylabel("D, l1", fontsize=9)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=7
    )
    return figure


def compare(rows: Sequence[Measured]) -> list[Comparison]:
    """Beside the published threshold: the largest noise floor, and the rule of the notebook.

    On CUDA the largest spread of repeated runs too, with any kernels.
    The rule takes D of a pair of programs: the least that is not 0 at 16 bits, else the largest.
    The published thresholds came without an interval.
    """
    found = []
    for (network, data, precision), ways in _by_way(rows).items():
        where, published = f"{network}, {data}, {precision}", PUBLISHED_THRESHOLDS[precision]
        found.append(Comparison(f"{where}: floor", largest(ways[_FLOOR]), published))
        if _ANY in ways:
            found.append(Comparison(f"{where}: repeated", largest(ways[_ANY]), published))
        for way in (_POOLS, _RELUS):
            values = ways[way]
            if precision != "float16":
                found.append(Comparison(f"{where}: {way}", largest(values), published))
            elif some := [value for value in values if value > 0]:
                found.append(Comparison(f"{where}: {way}", min(some), published))
    return found


THRESHOLDS = Experiment(
    name="thresholds",
    source="B24, section 3: thresholds",
    shows="D of native against minimal and of ReLU'(0) = 0 against 1, which the published notebook "
    "compares, and how far the gradient of one program spreads, beside the published thresholds",
    cost=Cost(
        "100 points at three precisions for each of eight networks",
        "about 1 day",
        "1 core",
        ("mnist", "cifar10", "svhn", "cifar100"),
    ),
    cost_reduced=Cost(
        "2 points at three precisions for each of eight networks, 9 for LeNet-5, small "
        "mini-batches",
        "3 min",
        "1 busy core",
        ("mnist", "cifar10"),
        measured=True,
    ),
    row=Measured,
    measure=measure,
    draw=draw,
    compare=compare,
    summarise=summarise,
    spreads=True,
    reduced_cannot="The reduced run has CIFAR-10 images in the place of SVHN and CIFAR-100, "
    "normalised and labelled as these, and mini-batches of 8 of all but LeNet-5: spreads of other "
    "images and sizes. It shows which threshold lies below which spread, not the number; "
    "nondeterministic kernels need CUDA, on a CPU repeated runs are equal. A threshold by the rule "
    "of the notebook is an extreme, and moves with the number of points: published, 100 draws by "
    "391 mini-batches and more.",
)
