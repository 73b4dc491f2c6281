"""Ours: of all the points where programs differ, at how many is a gradient right?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kinkcheck.audit.intervals import estimate
from kinkcheck.audit.run import audit
from kinkcheck.data import Images
from kinkcheck.measure.records import Point
from kinkcheck.measure.standing.conditions import conditions
from kinkcheck.measure.standing.records import STANDS, Kind, Standing
from kinkcheck.paper.experiments.volumes import vgg
from kinkcheck.paper.harness.case import Case, Network, Size
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.parts import all_kept
from kinkcheck.paper.harness.rows import Line, by
from kinkcheck.report.ink import HATCHES, INKS

SELECTIONS = ("minimal", "hybrid:10", "last", "random:0", "branch:0.5", "branch:1")
_NARROW = ("float16", "bfloat16", "float32")


@dataclass(frozen=True)
class Quantised(Network):
    """A network whose weights and activations are fake-quantised, as in training for few bits.

    Attributes:
        bits: of weights and of activations.
    """

    bits: int = 8

    def __str__(self) -> str:
        """The network in words.

        >>> str(Quantised("lenet5", bits=4))
        'lenet5, 4 bits'
        """
        return f"{super().__str__()}, {self.bits} bits"

    def build(self, images: Images) -> nn.Module:
        """The network for a set of images."""
        return quantised(super().build(images), self.bits)


@dataclass(frozen=True)
class Part:
    """A case, and the gradients of it that are judged.

    Attributes:
        case: the points.
        precisions: names.
        selections: whose gradients are judged, beside the native one.
    """

    case: Case
    precisions: Sequence[str] = (*_NARROW, "float64")
    selections: Sequence[str] = SELECTIONS

    def __str__(self) -> str:
        images = self.case.size.batch_size
        return f"{self.case.network}, {'1 image' if images == 1 else f'{images} images'}"


def _lenet(size: Size, bits: int | None = None) -> Case:
    network = Network("lenet5", init="kaiming")
    if bits is not None:
        network = Quantised("lenet5", init="kaiming", bits=bits)
    return Case(network, "mnist", size)


def _cifar(network: Network, batches: int = 10, batch_size: int = 128) -> Case:
    return Case(network, "cifar10", Size(1, batches, batch_size))


_VGG_11_BN = vgg(11, batch_norm=True)
_FULL = (
    *(Part(_lenet(Size(3, 30, size))) for size in (16, 64, 128)),
    *(Part(_lenet(Size(1, 30, 64), bits), ("float32",)) for bits in (8, 4)),
    *(Part(_cifar(vgg(depth))) for depth in (11, 13, 16, 19)),
    *(Part(_cifar(vgg(11), batch_size=size)) for size in (64, 256)),
    Part(_cifar(_VGG_11_BN)),
    Part(_cifar(Quantised("vgg11", init="kaiming", bits=8)), ("float32",)),
    Part(_cifar(Network("resnet18", True, "kaiming"))),
)
_FEW = ("minimal", "hybrid:10")
_REDUCED = (
    Part(_lenet(Size(1, 12, 16))),
    Part(_lenet(Size(1, 3, 64)), _NARROW, _FEW),
    *(Part(_lenet(Size(1, 4, 1), bits), ("float32",)) for bits in (8, 4)),
    Part(_cifar(vgg(11), 2, 4), _NARROW, _FEW),
    Part(_cifar(vgg(11), 1, 32), _NARROW[:1], _FEW),
    Part(_cifar(_VGG_11_BN, 2, 4), _NARROW, _FEW),
    Part(_cifar(vgg(16), 1, 4), _NARROW, _FEW),
)


@dataclass(frozen=True)
class Row:
    """A gradient at a point.

    Attributes:
        setting: network, bits and images in words.
        network: in words.
        data: the image set.
        batch_size: images in a mini-batch.
        bits: of fake-quantised weights and activations; None for none.
        precision: name.
        draw, batch: of the point.
        selection: whose gradient it is.
        standing: what it is.
        zone: by the lift, against the native one; None where that was not judged.
        variation: ‖g − native‖₁ / ‖native‖₁.
        ties, flat, kinks, distance, excess, why: see
            :class:`kinkcheck.measure.standing.records.Standing`.
        theorem: whether the conditions of a published theorem are met by which native gradients
            are right (:mod:`kinkcheck.measure.standing.conditions`), and which are not, or that
            nothing speaks against it; None where it was not asked, as in files of earlier versions.
    """

    setting: str
    network: str
    data: str
    batch_size: int
    bits: int | None
    precision: str
    draw: int
    batch: int
    selection: str
    standing: str
    zone: str | None
    variation: float
    ties: int
    flat: int
    kinks: int
    distance: float | None
    excess: float | None
    why: str | None
    theorem: str | None = None


class Rounded(nn.Module):
    """Fake quantisation to whole steps, the largest value of a tensor on the bound of the range.

    Args:
        bits: of the whole numbers.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.top = 2 ** (bits - 1) - 1

    def forward(self, input: Tensor) -> Tensor:
        """The input, rounded; its gradient passes straight through."""
        step = input.detach().abs().amax() / self.top
        zero = torch.zeros((), dtype=torch.int32, device=input.device)
        return torch.fake_quantize_per_tensor_affine(input, step, zero, -self.top, self.top)


def quantised(model: nn.Module, bits: int) -> nn.Module:
    """A network whose weights and activations are fake-quantised, as in training for few bits.

    Args:
        model: is changed in place: its convolutions, linear layers and ReLUs.
        bits: of weights and of activations.

    >>> model = quantised(nn.Sequential(nn.Linear(4, 100), nn.ReLU()), 2)
    >>> len(model(torch.rand(50, 4)).unique())  # 0 and one step
    2
    """
    for module in list(model.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            parametrize.register_parametrization(module, "weight", Rounded(bits))
        elif isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda _, __, output: Rounded(bits)(output))
    return model


def measure(setup: Setup, parts: Sequence[Part] | None = None) -> list[Row]:
    """The standing of each gradient at each point.

    Args:
        setup: where.
        parts: what is measured; by default the reduced or the full size.

    Raises:
        InputError: an image set is not there, which is found before anything is measured.
    """
    chosen = parts or (_REDUCED if setup.reduced else _FULL)
    given = [part.case.images(setup.data_dir) for part in chosen]
    sizes = [part.case.size for part in chosen]
    measured = {
        f"{part.case.data}, {part}, {size.batches}, {size.draws}": partial(_audited, part, images)
        for part, size, images in zip(chosen, sizes, given, strict=True)
    }
    return [row for rows in all_kept(setup, Row, measured).values() for row in rows]


def _audited(part: Part, images: Images, setup: Setup) -> list[Row]:
    case = part.case
    report = audit(
        case.factory(images),
        case.batches(images),
        precisions=part.precisions,
        selections=part.selections,
        draws=case.size.draws,
        device=setup.device,
        on_point=lambda done, total: setup.on_progress(str(part), done, total),
    )
    theorem = str(conditions(case.network.build(images), case.size.batch_size))
    first = report.selections[0]
    rows: list[Row] = []
    for point in report.points:
        if point.selection == first:
            rows.append(_row(part, point, "native", point.reference_standing, 0.0, theorem))
        moved = point.variation.relative_l1
        rows.append(_row(part, point, point.selection, point.standing, moved, theorem))
    return rows


def _row(
    part: Part,
    point: Point,
    selection: str,
    standing: Standing | None,
    variation: float,
    theorem: str,
) -> Row:
    assert standing is not None  # every point is lifted
    network = part.case.network
    return Row(
        setting=str(part), network=str(network), data=part.case.data,
        batch_size=part.case.size.batch_size,
        bits=network.bits if isinstance(network, Quantised) else None, precision=point.precision,
        draw=point.draw, batch=point.batch, selection=selection, standing=str(standing.kind),
        zone=None if point.zone is None else str(point.zone), variation=variation,
        ties=standing.ties, flat=standing.flat, kinks=standing.kinks, distance=standing.distance,
        excess=standing.excess, why=standing.why, theorem=theorem,
    )  # fmt: skip


@dataclass(frozen=True)
class Share:
    """At how many points of one setting and precision the gradient of one selection is right.

    Attributes:
        setting, precision, selection: which.
        points: how many.
        kinks: the mean number of kinks of the loss at a point.
        variation: the mean of ‖g − native‖₁ / ‖native‖₁, in percent.
        kinds: points by standing.
        right: the share of points whose gradient is certified to be right, in percent; one that is
            undecided counts as not certified.
        low, high: its 95 % interval.
    """

    setting: str
    precision: str
    selection: str
    points: int
    kinks: float
    variation: float
    kinds: Mapping[Kind, int]
    right: float
    low: float
    high: float

    def __str__(self) -> str:
        """How many are right, and what the others are."""
        right = sum(self.kinds[kind] for kind in STANDS)
        others = [
            f", {self.kinds[kind]} {kind}"
            for kind in (Kind.WRONG, Kind.UNDECIDED)
            if self.kinds[kind]
        ]
        return f"{right} of {self.points}{''.join(others)}"


def by_setting(rows: Sequence[Row]) -> list[Share]:
    """The shares of each setting, precision and selection."""
    found: list[Share] = []
    for key, together in by(rows, lambda r: (r.setting, r.precision, r.selection)).items():
        kinds = [Kind(row.standing) for row in together]
        share = estimate(
            sum(kind in STANDS for kind in kinds), [(row.draw, row.batch) for row in together]
        )
        low, high = share.interval
        found.append(
            Share(
                *key,
                points=len(together),
                kinks=fmean(row.kinks for row in together),
                variation=100 * fmean(row.variation for row in together),
                kinds={kind: kinds.count(kind) for kind in Kind},
                right=100 * share.proportion,
                low=100 * low,
                high=100 * high,
            )
        )
    return found


def summarise(rows: Sequence[Row]) -> list[Line]:
    """A line a setting and precision: how many gradients of each selection are right.

    ``kinked`` counts the points where the loss has a kink; ``at_least`` is the lower end of the
    95 % interval of the share of points where the native gradient is right, in percent; ``moved``
    is how far the selection that moves the gradient most does, as ``variation`` of
    :class:`Share`; ``theorem`` whether the conditions of the theorem are met: the rows say which
    are not.
    """
    shares = by(by_setting(rows), lambda share: (share.setting, share.precision))
    natives = by(
        (row for row in rows if row.selection == "native"),
        lambda row: (row.setting, row.precision),
    )
    found: list[Line] = []
    for key, together in shares.items():
        native, theorem = natives[key], natives[key][0].theorem
        found.append(
            {
                "setting": together[0].setting,
                "precision": together[0].precision,
                "kinked": sum(row.kinks > 0 for row in native),
                "kinks": together[0].kinks,
                **{share.selection: str(share) for share in together},
                "at_least": together[0].low,
                "moved": max(share.variation for share in together),
                "theorem": None if theorem is None else theorem.partition(":")[0],
            }
        )
    return found


_INKS = {
    Kind.DERIVATIVE: (INKS[2], HATCHES[0]), Kind.LIMIT: (INKS[4], HATCHES[2]),
    Kind.SUBGRADIENT: (INKS[3], HATCHES[1]), Kind.WRONG: (INKS[1], HATCHES[0]),
    Kind.UNDECIDED: ("#cccccc", HATCHES[3]),
}  # fmt: skip


def draw(rows: Sequence[Row]) -> Figure:
    """A panel a selection: the shares of points by standing, a bar a setting and precision."""
    judged = by_setting(rows)
    lines = list(dict.fromkeys((share.setting, share.precision) for share in judged))
    panels = by(judged, lambda share: share.selection)
    figure = Figure(figsize=(3.2 + 1.3 * len(panels), 1.6 + 0.24 * len(lines)))
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (selection, together) in zip(all_axes, panels.items(), strict=True):
        _shares(axes, together, lines)
        axes.set_title(selection)
    all_axes[0].set_yticks(range(len(lines)), [f"{s}, {p}" for s, p in lines], fontsize=7)
    all_axes[0].set_ylim(len(lines) - 0.4, -0.6)
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(Kind))
    return figure


def _shares(axes: Axes, shares: Sequence[Share], lines: Sequence[tuple[str, str]]) -> None:
    places = [lines.index((share.setting, share.precision)) for share in shares]
    start = [0.0] * len(shares)
    for kind, (ink, hatch) in _INKS.items():
        widths = [100 * share.kinds[kind] / share.points for share in shares]
        axes.barh(
            places, widths, 0.7, left=start, color=ink, hatch=hatch, edgecolor="white", label=kind
        )
        start = [a + b for a, b in zip(start, widths, strict=True)]
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 50, 100])
    axes.set_xlabel("% of points")


STANDING = Experiment(
    name="standing",
    source="kinkcheck",
    shows="at how many points the gradient is the derivative, a limit, a subgradient, or wrong, by "
    "network, precision and selection",
    cost=Cost(
        "270 points of LeNet-5 and 80 to 240 of VGG and ResNet-18 at four precisions",
        "days",
        "1 core",
        ("mnist", "cifar10"),
    ),
    cost_reduced=Cost(
        "1 to 12 mini-batches of each setting",
        "4 min",
        "1 busy core",
        ("mnist", "cifar10"),
        measured=True,
    ),
    row=Row,
    measure=measure,
    draw=draw,
    summarise=summarise,
    spreads=True,
    reduced_cannot=(
        "The reduced run can show that a kind of standing occurs, not how rare one is that it did "
        "not meet; mini-batches of VGG networks are of 4 and 8 images, where kinks of the loss are "
        "rarer than at 128."
    ),
)
