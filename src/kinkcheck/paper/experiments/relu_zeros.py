"""[B21]: how often a ReLU is given exactly 0, by architecture.

Without batch norm the ReLUs of DenseNet are given what other ReLUs have made 0. Such zeros are met
in every precision and change no gradient: the ReLU before lets nothing through there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from matplotlib.figure import Figure

from kinkcheck.audit import audit
from kinkcheck.data import Images
from kinkcheck.paper.harness.case import Case, Network, Size
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.parts import all_kept
from kinkcheck.paper.harness.rows import Line, line
from kinkcheck.report.ink import HATCHES, INKS

PRECISIONS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Row:
    """A network in one precision.

    Attributes:
        network: in words.
        data: the image set.
        precision: name.
        points: draws by mini-batches.
        batch_size: images in each.
        inputs: numbers that ReLUs were given, at all points.
        zeros: those of them that are exactly 0.
        zeros_per_million: of the inputs.
        points_that_differ: where ReLU'(0) = 1 gives another gradient than 0.
    """

    network: str
    data: str
    precision: str
    points: int
    batch_size: int
    inputs: int
    zeros: int
    zeros_per_million: float
    points_that_differ: int


_FULL = tuple(
    Case(network, name, Size(10, 20), "validation" if name == "imagenet" else "train")
    for network, name in (
        (Network("mlp"), "mnist"),
        (Network("lenet5"), "mnist"),
        *(
            (Network(name, batch_norm), "cifar10")
            for name in ("vgg11", "resnet18", "densenet121")
            for batch_norm in (False, True)
        ),
        (Network("resnet50", batch_norm=True), "imagenet"),
    )
)
_SIZES = {"mnist": Size(2, 4), "cifar10": Size(1, 2, 8), "imagenet": Size(1, 1, 8)}
_REDUCED = tuple(replace(case, size=_SIZES[case.data]) for case in _FULL)


def measure(setup: Setup, cases: Sequence[Case] | None = None) -> list[Row]:
    """How many inputs of ReLUs are exactly 0, a row a network and precision.

    Args:
        setup: where.
        cases: what is counted; by default the reduced or the full size.

    Raises:
        InputError: an image set is not there, which is found before anything is counted.
    """
    cases = cases or (_REDUCED if setup.reduced else _FULL)
    given = [case.images(setup.data_dir) for case in cases]
    parts = {
        f"{case.network} {case.data} {precision} {case.size}": partial(
            _count, case, images, precision
        )
        for case, images in zip(cases, given, strict=True)
        for precision in PRECISIONS
    }
    return [row for rows in all_kept(setup, Row, parts).values() for row in rows]


def _count(case: Case, images: Images, precision: str, setup: Setup) -> list[Row]:
    report = audit(
        case.factory(images),
        case.batches(images),
        draws=case.size.draws,
        precisions=[precision],
        selections=["branch:1"],
        operations=["relu"],
        lifted=False,
        device=setup.device,
        on_point=partial(setup.on_progress, f"{case.network}, {precision}"),
    )
    sites = [site for site in report.sites if site.operation == "relu"]
    inputs, zeros = sum(site.windows for site in sites), sum(site.tied for site in sites)
    return [
        Row(
            network=str(case.network),
            data=case.data,
            precision=precision,
            points=len(report.points),
            batch_size=case.size.batch_size,
            inputs=inputs,
            zeros=zeros,
            zeros_per_million=1e6 * zeros / inputs,
            points_that_differ=sum(point.variation.l1 != 0 for point in report.points),
        )
    ]


def summarise(rows: Sequence[Row]) -> list[Line]:
    """The rows without what the figure says of their size."""
    names = ("network", "data", "precision", "points", "zeros", "zeros_per_million")
    return [line(row, *names, "points_that_differ") for row in rows]


def draw(rows: Sequence[Row]) -> Figure:
    """Bars of zeros per million inputs, a group for each network."""
    names = list(dict.fromkeys((row.network, row.data) for row in rows))
    figure = Figure(figsize=(6.4, 0.9 + 0.5 * len(names)))
    axes = figure.subplots()
    foot = min((row.zeros_per_million for row in rows if row.zeros), default=1.0) / 5
    for number, precision in enumerate(PRECISIONS):
        for row in rows:
            if row.precision != precision:
                continue
            place = names.index((row.network, row.data)) + 0.27 * (number - 1)
            value = row.zeros_per_million
            axes.barh(
                place, value, 0.25, color=INKS[number], hatch=HATCHES[number], edgecolor="white"
            )
            axes.text(max(value, foot) * 1.1, place, f"{row.zeros:,}", va="center", fontsize=6)
        axes.barh(
            0, 0, color=INKS[number], hatch=HATCHES[number], edgecolor="white", label=precision
        )
    axes.set_xlim(foot, 1e6)  # first: a scale of logarithms has no place for the bars of 0
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.set_yticks(range(len(names)), [f"{network}\n{name}" for network, name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("zeros at ReLU, per million inputs (beside the bars: how many)")
    points, sizes = (
        " to ".join(str(value) for value in dict.fromkeys((min(counts), max(counts))))
        for counts in ([row.points for row in rows], [row.batch_size for row in rows])
    )
    axes.set_title(f"{points} points a bar, mini-batches of {sizes}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


RELU_ZEROS = Experiment(
    name="relu-zeros",
    source="after B21, section 4: exact zeros at ReLU, there of MLPs over a training",
    shows="how many inputs of ReLUs are exactly 0, and at how many points ReLU'(0) changes the "
    "gradient; without batch norm DenseNet meets zeros of other ReLUs, which change nothing",
    cost=Cost(
        "200 points at three precisions for each of nine networks",
        "about 2 days",
        "1 core",
        ("mnist", "cifar10", "imagenet"),
    ),
    cost_reduced=Cost(
        "1 or 2 points of 8 images at three precisions for each of nine networks, 8 of "
        "128 digits on MNIST",
        "1 min",
        "1 core",
        ("mnist", "cifar10", "imagenet"),
        measured=True,
    ),
    row=Row,
    measure=measure,
    draw=draw,
    summarise=summarise,
    spreads=True,
    reduced_cannot="The reduced run shows the power of ten where zeros are met at all, at freshly "
    "drawn parameters of one or two seeds.",
)
