"""[B24], section 3: thresholds, and what they are to tell apart.

The published notebook takes the threshold from D between two programs, and passes α and β in
swapped order: what it compares is ReLU'(0) = 0 with 1, not native with minimal. Its cell of LeNet-5
at 32 bits compares a program with itself. Here all are measured: D of both pairs, and the noise
floor, which is how far one program spreads when it adds its samples up in another order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from matplotlib.figure import Figure
from torch import nn

from kinkcheck import data
from kinkcheck.data import Images
from kinkcheck.data.catalogue import lookup
from kinkcheck.measure.variation import Variation
from kinkcheck.measure.zones import PUBLISHED_THRESHOLDS
from kinkcheck.paper.comparison import Comparison
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.paper.gradients import (
    Batch,
    Network,
    Size,
    against_native,
    drawn,
    largest,
    reordered,
    repeated,
    take,
)
from kinkcheck.paper.parts import kept
from kinkcheck.report.ink import INKS, MARKERS
from kinkcheck.selection import Branch, Minimal

PRECISIONS = ("float16", "float32", "float64")
_FLOOR = "noise floor"
_POOLS, _RELUS = "max pool", "ReLU'(0)"
_LARGE, _SMALL = Size(10, 10), Size(1, 2, 8)


@dataclass(frozen=True)
class Case:
    """A network on a set of images.

    Attributes:
        network: the network.
        data: the image set.
        size: how much is measured.
        stands_for: the set whose normalisation and classes the images are given; empty for their
            own.
    """

    network: Network
    data: str
    size: Size = _LARGE
    stands_for: str = ""

    @property
    def images(self) -> str:
        """The images in words.

        >>> Case(Network("vgg11"), "cifar10", stands_for="svhn").images
        'cifar10 for svhn'
        """
        return f"{self.data} for {self.stands_for}" if self.stands_for else self.data


_VGGS = [Network(f"vgg{depth}") for depth in (11, 13, 16, 19)]
_RESNET, _DENSENET = Network("resnet18"), Network("densenet121-published")
_FULL = (
    Case(Network("lenet5"), "mnist"),
    *(Case(network, "cifar10") for network in (*_VGGS, _RESNET)),
    Case(_VGGS[0], "svhn"),
    Case(_DENSENET, "cifar100"),
)
_REDUCED = (
    Case(Network("lenet5"), "mnist", Size(3, 3)),
    *(Case(network, "cifar10", _SMALL) for network in (*_VGGS, _RESNET)),
    Case(_VGGS[0], "cifar10", _SMALL, stands_for="svhn"),
    Case(_DENSENET, "cifar10", _SMALL, stands_for="cifar100"),
)


def measure(setup: Setup, cases: Sequence[Case] | None = None) -> list[Row]:
    """How far gradients are apart (l1), a row a point and way of getting two of them.

    ``noise floor`` compares runs that are equal over the reals: the sum over two halves of the
    samples, or with batch norm, where samples meet, all of them in another order. ``again`` is the
    same run once more: on a CPU 0; on CUDA also with kernels that are allowed to be
    nondeterministic. The other two ways are pairs of programs.

    Args:
        setup: where.
        cases: what is measured; by default the reduced or the full size.

    Raises:
        InputError: an image set is not there, which is found before anything is measured.
    """
    cases = cases or (_REDUCED if setup.reduced else _FULL)
    given = [data.load(case.data, "train", data_dir=setup.data_dir) for case in cases]
    rows: list[Row] = []
    for case, images in zip(cases, given, strict=True):
        if case.stands_for:
            images = _in_place_of(images, case.stands_for)
        batches = take(images, case.size.batch_size, case.size.batches)
        name = f"{case.network.name}, {case.images}"
        for draw in range(case.size.draws):
            setup.on_progress(name, draw * len(batches), case.size.draws * len(batches))
            part = f"{case.network} {case.images} {case.size} {draw}"
            rows += kept(setup, part, partial(_one_draw, setup, case, images, batches, draw))
        setup.on_progress(name, case.size.points, case.size.points)
    return rows


def _in_place_of(images: Images, name: str) -> Images:
    """Images with the normalisation and the number of classes of another set."""
    entry = lookup(name)
    return replace(images, mean=entry.mean, std=entry.std, classes=entry.classes)


def _one_draw(
    setup: Setup, case: Case, images: Images, batches: Sequence[Batch], draw: int
) -> list[Row]:
    model = drawn(partial(case.network.build, images), draw)
    rows: list[Row] = []
    for index, pair in enumerate(batches):
        for precision in PRECISIONS:
            rows += [
                {
                    "network": case.network.name,
                    "data": case.images,
                    "batch_size": case.size.batch_size,
                    "precision": precision,
                    "way": way,
                    "draw": draw,
                    "batch": index,
                    "l1": found.l1,
                }
                for way, found in _ways(setup, case, model, pair, precision, index)
            ]
        setup.on_progress(
            f"{case.network.name}, {case.images}",
            draw * len(batches) + index + 1,
            case.size.draws * len(batches),
        )
    return rows


def _ways(
    setup: Setup, case: Case, model: nn.Module, pair: Batch, precision: str, seed: int
) -> list[tuple[str, Variation]]:
    again = partial(repeated, model, pair, precision, setup.device)
    with _deterministic(setup.device):
        found = [("again", again())]
        other = reordered(
            model, pair, precision, setup.device, meet=case.network.batch_norm, seed=seed
        )
    if setup.device != "cpu":
        found.append(("again, other kernels", again()))
    return [
        *found,
        (_FLOOR, other),
        (_POOLS, against_native(model, pair, precision, setup.device, "max_pool", Minimal())),
        (_RELUS, against_native(model, pair, precision, setup.device, "relu", Branch(1.0))),
    ]


def _deterministic(device: str) -> AbstractContextManager[object]:
    """Deterministic kernels of cuDNN while it holds; a CPU has no others."""
    if device == "cpu":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False)


def summarise(rows: Sequence[Row]) -> list[Row]:
    """The largest D (l1) of every network and precision, a column a way.

    >>> row = {"network": "lenet5", "data": "mnist", "precision": "float32", "way": "noise floor"}
    >>> [found["noise floor"] for found in summarise([{**row, "l1": d} for d in (1, 4)])]
    [4.0]
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row[column] for column in ("network", "data", "precision"))
        groups.setdefault(key, []).append(row)
    found: list[Row] = []
    for group in groups.values():
        ways: dict[str, list[float]] = {}
        for row in group:
            ways.setdefault(str(row["way"]), []).append(float(row["l1"] or 0))
        found.append(
            {
                "network": group[0]["network"],
                "data": group[0]["data"],
                "precision": group[0]["precision"],
                **{way: largest(values) for way, values in ways.items()},
                "τ": PUBLISHED_THRESHOLDS[str(group[0]["precision"])],
            }
        )
    return found


_NOTHING = 1e-24  # where a spread of 0 is drawn, on an axis of logarithms
_PANELS = {
    _FLOOR: "noise floor: one program, its samples added up in another order",
    _POOLS: "max pooling, native and minimal",
    _RELUS: "ReLU'(0), 0 and 1: what the notebook compares",
}


def draw(rows: Sequence[Row]) -> Figure:
    """A panel a way: every spread (l1) by network, and the published thresholds as lines."""
    cases = list(dict.fromkeys((row["network"], row["data"]) for row in rows))
    figure = Figure(figsize=(6.4, 6.6))
    panels = figure.subplots(len(_PANELS), 1, sharex=True, sharey=True)
    counts = sorted(
        set(Counter((r["network"], r["data"], r["precision"], r["way"]) for r in rows).values())
    )
    for axes, (way, title) in zip(panels, _PANELS.items(), strict=True):
        for number, precision in enumerate(PRECISIONS):
            here = [row for row in rows if (row["precision"], row["way"]) == (precision, way)]
            axes.plot(
                [cases.index((row["network"], row["data"])) + 0.22 * (number - 1) for row in here],
                [float(row["l1"] or 0) or _NOTHING for row in here],
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
            f"{str(network).replace('-', chr(10))}\n{str(name).replace(' for ', chr(10) + 'for ')}"
            for network, name in cases
        ],
        fontsize=7,
    )
    figure.supylabel("D, l1", fontsize=9)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=7
    )
    return figure


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """Beside the published threshold: the largest noise floor, and the rule of the notebook.

    The rule takes D of a pair of programs: the least that is not 0 at 16 bits, else the largest.
    The published thresholds came without an interval.
    """
    found = []
    for each in summarise(rows):
        where = f"{each['network']}, {each['data']}, {each['precision']}"
        published = float(each["τ"] or 0)
        found.append(Comparison(f"{where}: floor", float(each[_FLOOR] or 0), published))
        for way in (_POOLS, _RELUS):
            values = [
                float(row["l1"] or 0)
                for row in rows
                if row["way"] == way
                and all(row[name] == each[name] for name in ("network", "data", "precision"))
            ]
            if each["precision"] != "float16":
                found.append(Comparison(f"{where}: {way}", largest(values), published))
            elif some := [value for value in values if value > 0]:
                found.append(Comparison(f"{where}: {way}", min(some), published))
    return found


THRESHOLDS = Experiment(
    name="thresholds",
    source="B24, section 3: thresholds",
    shows="D of native against minimal and of ReLU'(0) = 0 against 1, which the published notebook "
    "compares, and how far the gradient of one program spreads, beside the published thresholds",
    cost="100 points at three precisions for each of eight networks; about a day on one core "
    "(an estimate)",
    cost_reduced="2 points at three precisions for each of eight networks, 9 for LeNet-5, small "
    "mini-batches; 3 minutes on one busy core",
    measure=measure,
    draw=draw,
    compare=compare,
    summarise=summarise,
    reduced_cannot="The reduced run has CIFAR-10 images in the place of SVHN and CIFAR-100, "
    "normalised and labelled as these, and mini-batches of 8 of all but LeNet-5: spreads of other "
    "images and sizes. It shows which threshold lies below which spread, not the number; "
    "nondeterministic kernels need CUDA. A threshold by the rule of the notebook is an extreme, "
    "and moves with the number of points: published, 100 draws by 391 mini-batches and more.",
)
