"""[B24], section 3: thresholds, measured as the noise floor of each network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from matplotlib.figure import Figure

from kinkcheck import data
from kinkcheck.audit.variation import Variation
from kinkcheck.audit.zones import PUBLISHED_THRESHOLDS
from kinkcheck.files import write_whole
from kinkcheck.paper.comparison import Comparison
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.paper.gradients import Batch, Network, reordered, repeated, take
from kinkcheck.paper.style import INKS, MARKERS

PRECISIONS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Case:
    """A network on a set of images.

    Attributes:
        network: the network.
        data: the image set.
        batch_size: images in a mini-batch.
        draws: parameter draws.
        batches: mini-batches.
        stands_for: the set whose shape and classes the images are given; empty for their own.
    """

    network: Network
    data: str
    batch_size: int = 128
    draws: int = 10
    batches: int = 10
    stands_for: str = ""


_VGGS = [Network(f"vgg{depth}") for depth in (11, 13, 16, 19)]
_RESNET, _DENSENET = Network("resnet18", batch_norm=True), Network("densenet121", batch_norm=True)
_FULL = (
    Case(Network("lenet5"), "mnist"),
    *(Case(network, "cifar10") for network in (*_VGGS, _RESNET)),
    Case(_VGGS[0], "svhn"),
    Case(_DENSENET, "cifar100"),
)
_REDUCED = (
    Case(Network("lenet5"), "mnist", draws=3, batches=3),
    *(Case(network, "cifar10", 32, 1, 2) for network in (*_VGGS, _RESNET)),
    Case(_VGGS[0], "cifar10", 32, 1, 2, stands_for="svhn"),
    Case(_DENSENET, "cifar10", 8, 1, 2, stands_for="cifar100"),
)


def measure(setup: Setup, cases: Sequence[Case] | None = None) -> list[Row]:
    """How far gradients of one program spread, a row a point and way of running it again.

    ``another order`` are runs that are equal over the reals: the samples in another order, or in
    two halves. ``again`` is the same run once more: on a CPU 0; on CUDA also with kernels that are
    allowed to be nondeterministic.

    Args:
        setup: where.
        cases: what is measured; by default the reduced or the full size.
    """
    rows: list[Row] = []
    for case in cases or (_REDUCED if setup.reduced else _FULL):
        path = setup.work / f"{_file(case)}.json"
        if not path.exists():
            write_whole(path, json.dumps(_case(setup, case)))
        rows += json.loads(path.read_text(encoding="utf-8"))
    return rows


def _file(case: Case) -> str:
    return (
        f"{case.network.name}-{case.stands_for or case.data}-{case.batch_size}-{case.draws}x"
        f"{case.batches}"
    )


def _case(setup: Setup, case: Case) -> list[Row]:
    images = data.load(case.data, "train", data_dir=setup.data_dir)
    name = case.data
    if case.stands_for:
        images = _in_place_of(images, case.stands_for)
        name = f"{case.data} for {case.stands_for}"
    batches = take(images, case.batch_size, case.batches)
    rows: list[Row] = []
    done, total = 0, case.draws * len(batches) * len(PRECISIONS)
    for draw in range(case.draws):
        torch.manual_seed(draw)
        model = case.network.build(images)
        for index, pair in enumerate(batches):
            for precision in PRECISIONS:
                setup.on_progress(f"{case.network.name}, {name}", done, total)
                for way, found in _floors(setup, case, model, pair, precision, index):
                    rows.append(
                        {
                            "network": case.network.name,
                            "batch_norm": case.network.batch_norm,
                            "data": name,
                            "batch_size": case.batch_size,
                            "precision": precision,
                            "way": way,
                            "draw": draw,
                            "batch": index,
                            "l1": found.l1,
                            "linf_by_tensor": found.linf_by_tensor,
                        }
                    )
                done += 1
    setup.on_progress(f"{case.network.name}, {name}", total, total)
    return rows


def _in_place_of(images: data.ImageSet, name: str) -> data.ImageSet:
    """Images with the normalisation and the number of classes of another set."""
    entry = data.lookup(name)
    return replace(images, mean=entry.mean, std=entry.std, classes=entry.classes)


def _floors(
    setup: Setup, case: Case, model: torch.nn.Module, pair: Batch, precision: str, seed: int
) -> list[tuple[str, Variation]]:
    again = partial(repeated, model, pair, precision, setup.device)
    with _deterministic(setup.device):
        found = [("again, deterministic", again())]
        other = reordered(
            model, pair, precision, setup.device, meet=case.network.batch_norm, seed=seed
        )
    if setup.device != "cpu":
        found.append(("again, nondeterministic", again()))
    return [*found, ("another order", other)]


def _deterministic(device: str) -> AbstractContextManager[object]:
    """Deterministic kernels of cuDNN while it holds; a CPU has no others."""
    if device == "cpu":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False)


def summarise(rows: Sequence[Row]) -> list[Row]:
    """The largest spread of every network, precision and way, beside the published threshold.

    >>> row = {"network": "lenet5", "data": "mnist", "precision": "float32",
    ...        "way": "another order", "linf_by_tensor": 1e-8}
    >>> [(f["points"], f["l1"]) for f in summarise([{**row, "l1": d} for d in (1e-8, 4e-8)])]
    [(2, 4e-08)]
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row[column] for column in ("network", "data", "precision", "way"))
        groups.setdefault(key, []).append(row)
    return [
        {
            "network": group[0]["network"],
            "data": group[0]["data"],
            "precision": group[0]["precision"],
            "way": group[0]["way"],
            "points": len(group),
            "l1": max(float(row["l1"] or 0) for row in group),
            "linf_by_tensor": max(float(row["linf_by_tensor"] or 0) for row in group),
            "published": PUBLISHED_THRESHOLDS[str(group[0]["precision"])],
        }
        for group in groups.values()
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """Every measured floor (l1) by network, and the published thresholds as lines."""
    cases = list(dict.fromkeys((row["network"], row["data"]) for row in rows))
    figure = Figure(figsize=(6.4, 3.4))
    axes = figure.subplots()
    for number, precision in enumerate(PRECISIONS):
        here = [row for row in rows if row["precision"] == precision]
        shown = [row for row in here if row["way"] == "another order"]
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
            float(found["l1"] or 0),
            float(found["published"] or 0),
        )
        for found in summarise(rows)
        if found["way"] == "another order"
    ]


THRESHOLDS = Experiment(
    name="thresholds",
    source="B24, section 3: thresholds (the notebook passes α and β in swapped order)",
    shows="how far the gradient of one program spreads, beside the published thresholds",
    cost="100 points at three precisions for each of eight networks; about 8 hours on two cores",
    cost_reduced="2 points at three precisions for each of eight networks, 9 for LeNet-5, small "
    "mini-batches; about 4 minutes on two cores",
    measure=measure,
    draw=draw,
    compare=compare,
    summarise=summarise,
    reduced_cannot="The reduced run has CIFAR-10 images in the place of SVHN and CIFAR-100, "
    "normalised and labelled as these, and mini-batches of 32 or 8: floors of other images and "
    "sizes. It shows the power of ten, not the number; nondeterministic kernels need CUDA.",
)
