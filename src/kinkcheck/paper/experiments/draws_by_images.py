"""The share of parameter draws that meet a zone within the first n images.

[B21] counts draws for which ReLU'(0) = 1 changes the gradient, by the images that are looked at, a
hundred at a time. [B24] asks how many draws meet the zone of max pooling at all: the gradients of
native and minimal differ by more than 1e-6 at some mini-batch. A draw is left at its first hit.

With batch norm the formula counts. PyTorch's kernel for a CPU computes x·a + b (b = β - mean·a),
in 16 bits with a mean of 16 bits, in 32 bits with one rounding where the processor can; one that
takes the mean away first is 0 wherever x is the rounded mean. Both are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from kinkcheck.data import Images
from kinkcheck.measure.forward import Forward
from kinkcheck.measure.variation import gradient_variation
from kinkcheck.paper.harness import published_values
from kinkcheck.paper.harness.case import Case, Network, Size, replaced
from kinkcheck.paper.harness.comparison import Comparison, Share, of_intervals
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.first_hits import Happens, count_within, first_hits
from kinkcheck.paper.harness.rows import Line, by, line
from kinkcheck.report.ink import INKS, LINES, MARKERS
from kinkcheck.selection import Minimal

_MINIMAL = Minimal()
_THRESHOLD = 1e-6
_BITS = {"16": "float16", "32": "float32"}


@dataclass(frozen=True)
class Row:
    """How many draws of a network have met the zone.

    Attributes:
        network: its name.
        batch_norm: whether it has batch norm.
        mean_first: whether that is :class:`MeanFirst`'s, and not PyTorch's own kernel.
        data: the image set.
        precision: name.
        images: that were looked at.
        draws: of the parameters.
        met: those of them that met the zone.
        percent: the share of these.
        low, high: its 95 % interval, in per cent.
    """

    network: str
    batch_norm: bool
    data: str
    precision: str
    images: int
    draws: int
    met: int
    percent: float
    low: float
    high: float
    mean_first: bool = False


class MeanFirst(nn.Module):
    """Batch norm, ``(x - mean)·(weight/√(variance + eps)) + bias``, each step rounded.

    PyTorch's kernel for CUDA takes the mean away first, too. Statistics are in float32, or higher.

    Args:
        norm: whose parameters it takes over; statistics are those of the mini-batch.

    Shapes: (batch, channels, height, width), returned alike.

    >>> norm = nn.BatchNorm2d(2)
    >>> x = torch.randn(4, 2, 3, 3)
    >>> torch.allclose(MeanFirst(norm)(x), norm(x), atol=1e-6)
    True
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """The normalised mini-batch."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(wide, (0, 2, 3), correction=0, keepdim=True)
        scale = (variance + self.eps).rsqrt() * self.weight.to(wide.dtype).view_as(mean)
        return ((wide - mean) * scale + self.bias.to(wide.dtype).view_as(mean)).to(x.dtype)


class _MeanFirst(Network):
    """A network whose batch norms are :class:`MeanFirst`."""

    def __str__(self) -> str:
        return f"{super().__str__()}, mean first"

    def build(self, images: Images) -> nn.Module:
        return replaced(super().build(images), nn.BatchNorm2d, MeanFirst)


@dataclass(frozen=True)
class Plan:
    """What is looked at.

    Attributes:
        cases: networks and data; of the size the mini-batch is that of one step.
        batches: how many mini-batches the share is told of, rising.
        precisions: names.
    """

    cases: tuple[Case, ...]
    batches: tuple[int, ...]
    precisions: tuple[str, ...]

    def smaller(self, draws: int, batches: tuple[int, ...], *data: str) -> Plan:
        """The same with other counts, on some image sets."""
        cases = (case for case in self.cases if case.data in data)
        return replace(
            self,
            cases=tuple(replace(case, size=case.size._replace(draws=draws)) for case in cases),
            batches=batches,
        )


def measure(
    setup: Setup, plan: Plan, happens: Happens, prepare: Callable[[Images], Images]
) -> list[Row]:
    """The share of draws that meet a zone, by the images looked at.

    Args:
        setup: where.
        plan: what is looked at.
        happens: whether a draw meets the zone at a mini-batch.
        prepare: what is done to an image set first.

    Raises:
        InputError: an image set is not there, or has too few images, which is found before anything
            is counted.
    """
    cases = [
        replace(case, size=case.size._replace(batches=plan.batches[-1])) for case in plan.cases
    ]
    given = [prepare(case.images(setup.data_dir)) for case in cases]
    rows: list[Row] = []
    for case, images in zip(cases, given, strict=True):
        name = f"{case.network} {case.data} {case.size}"
        found = first_hits(setup, name, case, images, plan.precisions, happens)
        for precision, firsts in found.items():
            for batches in plan.batches:
                met = count_within(firsts, batches)
                rows.append(
                    Row(
                        network=case.network.name,
                        batch_norm=case.network.batch_norm,
                        mean_first=isinstance(case.network, _MeanFirst),
                        data=case.data,
                        precision=precision,
                        images=batches * case.size.batch_size,
                        draws=len(firsts),
                        met=met,
                        **vars(Share.of(met, len(firsts))),
                    )
                )
    return rows


def _changes(forward: Forward) -> bool:
    """Whether ReLU'(0) = 1 changes the gradient."""
    if not any(site.tied for site in forward.tape.sites if site.row.family == "relu"):
        return False
    variation = gradient_variation(*map(forward.gradient, ("branch:1", "native")))
    return variation.l1 != 0  # also where it is no number


def _beyond_threshold(forward: Forward) -> bool:
    """Whether minimal max pooling gives a gradient more than 1e-6 away from the native one.

    As in the published volumes the distance is the sum over tensors of ∞-norms.
    """
    if not any(site.tied for site in forward.tape.sites if site.row.family == "max_pool"):
        return False

    variation = gradient_variation(
        forward.gradient(
            lambda tape: {s: _MINIMAL for s in tape.sites if s.row.family == "max_pool"}
        ),
        forward.gradient({}),
    )
    return not variation.linf_by_tensor <= _THRESHOLD


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """Beside the published counts among 1,000 draws, which are of CIFAR-10."""
    published = {
        (
            row["network"], row["batch_norm"] == "True", _BITS[row["precision_bits"]],
            int(row["images"]),
        ): (int(row["draws_in_zone"]), int(row["draws"]))
        for row in published_values.table("relu_sample_volumes")
    }  # fmt: skip
    found = []
    for row in rows:
        theirs = published.get((row.network, row.batch_norm, row.precision, row.images))
        if theirs and row.data == "cifar10":
            found.append(
                of_intervals(
                    f"{_title(row)}, {row.precision}, {row.images} images: %",
                    (row.percent, row.low, row.high),
                    Share.of(*theirs).interval,
                )
            )
    return found


def summarise(rows: Sequence[Row]) -> list[Line]:
    """The share of draws by images, a column a precision.

    >>> row = Row("vgg11", False, "cifar10", "float32", 100, 10, 1, 10.0, 0.3, 44.5)
    >>> summarise([row])
    [{'network': 'vgg11', 'data': 'cifar10', 'images': 100, 'draws': 10, 'float32': 10.0}]
    """
    return [
        {
            "network": _named(together[0]),
            **line(together[0], "data", "images", "draws"),
            **{row.precision: row.percent for row in together},
        }
        for together in by(rows, lambda row: (_title(row), row.images)).values()
    ]


def _named(row: Row) -> str:
    kind = _MeanFirst if row.mean_first else Network
    return str(kind(row.network, row.batch_norm))


def _title(row: Row) -> str:
    return f"{_named(row)}, {row.data}"


def draw(rows: Sequence[Row]) -> Figure:
    """A panel for each network and image set, a line for each precision, with intervals."""
    cases = by(rows, _title)
    across = min(4, len(cases))
    down = -(-len(cases) // across)
    figure = Figure(figsize=(0.8 + 2.2 * across, 0.6 + 2.3 * down))
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    precisions = list(dict.fromkeys(row.precision for row in rows))
    for axes, (title, here) in zip(panels.flat, cases.items(), strict=False):
        for number, precision in enumerate(precisions):
            found = [row for row in here if row.precision == precision]
            below = [row.percent - row.low for row in found]
            above = [row.high - row.percent for row in found]
            axes.errorbar(
                [row.images for row in found], [row.percent for row in found],
                yerr=(below, above), color=INKS[number], linestyle=LINES[number],
                marker=MARKERS[number], markersize=4, capsize=2, linewidth=1, elinewidth=0.7,
                label=precision,
            )  # fmt: skip
        axes.set_title(title, fontsize=8)
        axes.set_ylim(-3, 103)
    for axes in panels.flat[len(cases) :]:
        axes.set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("images looked at")
    for axes in panels[:, 0]:
        axes.set_ylabel(f"of {rows[0].draws} draws, %")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def _as_drawn(images: Images) -> Images:
    """The set with pixels from 0 to 1, not normalised, as [B21] has them."""
    return replace(images, mean=(0.0,) * images.channels, std=(1.0,) * images.channels)


def _measuring(
    full: Plan, reduced: Plan, happens: Happens, prepare: Callable[[Images], Images]
) -> Callable[[Setup], list[Row]]:
    def measured(setup: Setup) -> list[Row]:
        return measure(setup, reduced if setup.reduced else full, happens, prepare)

    return measured


_RELU = Plan(
    cases=(
        *(
            Case(network, data, Size(1_000, None, 100))
            for data in ("cifar10", "svhn")
            for name in ("vgg11", "resnet18")
            for network in (Network(name), Network(name, True), _MeanFirst(name, True))
        ),
        *(Case(Network(name), "mnist", Size(1_000, None, 100)) for name in ("mlp", "lenet5")),
    ),
    batches=(1, 2, 3, 4, 6, 9, 13, 19, 26, 36, 51, 76, 101, 141),
    precisions=("float16", "float32"),
)
_POOLING = Plan(
    cases=tuple(
        Case(Network("vgg11", batch_norm, "kaiming"), "cifar10", Size(1_000, None, 128))
        for batch_norm in (False, True)
    ),
    batches=(1, 2, 5, 10, 20, 50, 100, 200, 390),
    precisions=("float16", "float32", "float64"),
)

RELU_SAMPLE_VOLUMES = Experiment(
    name="relu-sample-volumes",
    source="B21, section 3: VGG-11 and ResNet-18, CIFAR-10 and SVHN",
    shows="the share of parameter draws for which ReLU'(0) = 1 changes a gradient within the first "
    "images, with and without batch norm",
    cost=Cost(
        "1,000 draws of 14 networks and image sets, up to 14,100 images",
        "weeks",
        "1 GPU",
        ("cifar10", "svhn", "mnist"),
    ),
    cost_reduced=Cost(
        "8 draws of six networks on CIFAR-10 and two on MNIST, up to 400 images",
        "5 min",
        "1 core",
        ("cifar10", "mnist"),
        measured=True,
    ),
    row=Row,
    measure=_measuring(
        _RELU,
        _RELU.smaller(8, (1, 2, 3, 4), "cifar10", "mnist"),
        _changes,
        _as_drawn,
    ),
    draw=draw,
    compare=compare,
    summarise=summarise,
    spreads=True,
    reduced_cannot="The reduced run has 8 draws, so that intervals are up to 70 percentage points "
    "wide: it can show what batch norm and 16 bits do, hardly a share.",
)

DRAWS_IN_ZONE = Experiment(
    name="draws-in-zone",
    source="B24, section 3: VGG-11, CIFAR-10",
    shows="the share of parameter draws at which native and minimal max pooling differ by more "
    "than 1e-6 at some mini-batch",
    cost=Cost(
        "1,000 draws of two networks at three precisions, up to 390 mini-batches",
        "weeks",
        "1 GPU",
        ("cifar10",),
    ),
    cost_reduced=Cost(
        "4 draws of two networks, up to 5 mini-batches",
        "4 min",
        "1 core",
        ("cifar10",),
        measured=True,
    ),
    row=Row,
    measure=_measuring(
        _POOLING,
        _POOLING.smaller(4, (1, 2, 5), "cifar10"),
        _beyond_threshold,
        lambda images: images,
    ),
    draw=draw,
    summarise=summarise,
    spreads=True,
    reduced_cannot="The reduced run has 4 draws and 5 mini-batches: a draw that meets the zone in "
    "one mini-batch of a hundred is most likely missed.",
)
