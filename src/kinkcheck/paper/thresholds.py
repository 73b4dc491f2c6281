"""[B24], section 3: thresholds, measured as the noise floor of each network.

The published notebook passes α and β in swapped order, and its cell of LeNet-5 at 32 bits compares
a program with itself. Here no two selections are compared: a floor is the spread of one program,
run again or over its samples in another order, so that neither can be got wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from matplotlib.figure import Figure
from torch import nn

from kinkcheck import data
from kinkcheck.audit.variation import Variation
from kinkcheck.audit.zones import PUBLISHED_THRESHOLDS
from kinkcheck.data import Images
from kinkcheck.data.catalogue import lookup
from kinkcheck.paper.comparison import Comparison
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.paper.gradients import Batch, Network, Size, drawn, reordered, repeated, take
from kinkcheck.paper.parts import kept
from kinkcheck.report.ink import INKS, MARKERS

PRECISIONS = ("float16", "float32", "float64")
_FLOOR = "another order"
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
_RESNET, _DENSENET = Network("resnet18", batch_norm=True), Network("densenet121", batch_norm=True)
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
    """How far gradients of one program spread, a row a point and way of running it again.

    ``another order`` are runs that are equal over the reals: the samples in another order, or in
    two halves. ``again`` is the same run once more: on a CPU 0; on CUDA also with kernels that are
    allowed to be nondeterministic.

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
            file = f"{case.network.name}-{case.stands_for or case.data}-{case.size}-{draw}.json"
            rows += kept(setup.work / file, partial(_one_draw, setup, case, images, batches, draw))
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
                    "batch_norm": case.network.batch_norm,
                    "data": case.images,
                    "batch_size": case.size.batch_size,
                    "precision": precision,
                    "way": way,
                    "draw": draw,
                    "batch": index,
                    "l1": found.l1,
                    "linf_by_tensor": found.linf_by_tensor,
                }
                for way, found in _floors(setup, case, model, pair, precision, index)
            ]
        setup.on_progress(
            f"{case.network.name}, {case.images}",
            draw * len(batches) + index + 1,
            case.size.draws * len(batches),
        )
    return rows


def _floors(
    setup: Setup, case: Case, model: nn.Module, pair: Batch, precision: str, seed: int
) -> list[tuple[str, Variation]]:
    again = partial(repeated, model, pair, precision, setup.device)
    with _deterministic(setup.device):
        found = [("again, deterministic", again())]
        other = reordered(
            model, pair, precision, setup.device, meet=case.network.batch_norm, seed=seed
        )
    if setup.device != "cpu":
        found.append(("again, nondeterministic", again()))
    return [*found, (_FLOOR, other)]


def _deterministic(device: str) -> AbstractContextManager[object]:
    """Deterministic kernels of cuDNN while it holds; a CPU has no others."""
    if device == "cpu":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False)


def summarise(rows: Sequence[Row]) -> list[Row]:
    """The largest spread (l1) of every network and precision, a column a way.

    >>> row = {"network": "lenet5", "data": "mnist", "precision": "float32", "way": "another order"}
    >>> [(f["points"], f["another order"]) for f in summarise([{**row, "l1": d} for d in (1, 4)])]
    [(2, 4.0)]
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
                "points": len(ways[_FLOOR]),
                **{way: max(values) for way, values in ways.items()},
                "published": PUBLISHED_THRESHOLDS[str(group[0]["precision"])],
            }
        )
    return found


def draw(rows: Sequence[Row]) -> Figure:
    """Every measured floor (l1) by network, and the published thresholds as lines."""
    cases = list(dict.fromkeys((row["network"], row["data"]) for row in rows))
    figure = Figure(figsize=(6.4, 3.4))
    axes = figure.subplots()
    for number, precision in enumerate(PRECISIONS):
        here = [row for row in rows if row["precision"] == precision]
        shown = [row for row in here if row["way"] == _FLOOR]
        axes.plot(
            [cases.index((row["network"], row["data"])) + 0.22 * (number - 1) for row in shown],
            [float(row["l1"] or 0) for row in shown],
            MARKERS[number], color=INKS[number], markersize=4, alpha=0.7,
            label=f"{precision}, noise floor",
        )  # fmt: skip
        axes.axhline(
            PUBLISHED_THRESHOLDS[precision], color=INKS[number], linestyle=("-", "--", ":")[number],
            linewidth=1, label=f"{precision}, published τ",
        )  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xticks(
        range(len(cases)),
        [f"{network}\n{str(name).replace(' for ', chr(10) + 'for ')}" for network, name in cases],
        fontsize=7,
    )
    axes.set_ylabel("spread of one program's gradient, l1")
    counts = sorted({int(found["points"] or 0) for found in summarise(rows)})
    axes.set_title(f"{' or '.join(map(str, counts))} points each")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=7)
    return figure


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """The largest noise floor beside the published threshold, which came without an interval."""
    return [
        Comparison(
            f"{found['network']}, {found['data']}, {found['precision']}: l1",
            float(found[_FLOOR] or 0),
            float(found["published"] or 0),
        )
        for found in summarise(rows)
    ]


THRESHOLDS = Experiment(
    name="thresholds",
    source="B24, section 3: thresholds",
    shows="how far the gradient of one program spreads, beside the published thresholds; the "
    "notebook behind these passes α and β in swapped order, and at 32 bits compares LeNet-5 with "
    "itself, which gives 0 and says nothing of 32 bits",
    cost="100 points at three precisions for each of eight networks; about a day on one core "
    "(an estimate)",
    cost_reduced="2 points at three precisions for each of eight networks, 9 for LeNet-5, small "
    "mini-batches; about 2 minutes on one core",
    measure=measure,
    draw=draw,
    compare=compare,
    summarise=summarise,
    reduced_cannot="The reduced run has CIFAR-10 images in the place of SVHN and CIFAR-100, "
    "normalised and labelled as these, and mini-batches of 8 of all but LeNet-5: floors of other "
    "images and sizes. It shows which threshold lies below a floor, not the number; "
    "nondeterministic kernels need CUDA.",
)
