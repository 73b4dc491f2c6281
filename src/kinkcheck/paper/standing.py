"""Ours: of all the points where programs differ, at how many is a gradient right?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kinkcheck import data
from kinkcheck.audit.intervals import estimate
from kinkcheck.audit.run import audit
from kinkcheck.data import Images
from kinkcheck.measure.records import Point
from kinkcheck.measure.standing.conditions import conditions
from kinkcheck.measure.standing.records import STANDS, Kind, Standing
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.paper.gradients import Network, take
from kinkcheck.paper.parts import kept
from kinkcheck.paper.training_figures import by
from kinkcheck.paper.trainings import number
from kinkcheck.report.ink import HATCHES, INKS

SELECTIONS = ("minimal", "hybrid:10", "last", "random:0", "branch:0.5", "branch:1")
_NARROW = ("float16", "bfloat16", "float32")


@dataclass(frozen=True)
class Part:
    """Points of one network.

    Attributes:
        network: the network.
        data: the image set.
        batch_size: images in a mini-batch.
        batches: how many.
        draws: parameter draws.
        bits: of fake-quantised weights and activations; None for none.
        precisions: names.
        selections: whose gradients are judged, beside the native one.
    """

    network: Network
    data: str = "cifar10"
    batch_size: int = 128
    batches: int = 30
    draws: int = 1
    bits: int | None = None
    precisions: Sequence[str] = (*_NARROW, "float64")
    selections: Sequence[str] = SELECTIONS

    def __str__(self) -> str:
        quantised = f", {self.bits} bits" if self.bits else ""
        return f"{self.network}{quantised}, {self.batch_size} images"


def _vgg(depth: int, batch_norm: bool = False) -> Network:
    return Network(f"vgg{depth}", batch_norm, "kaiming")


_LENET = Network("lenet5", init="kaiming")
_FULL = (
    *(Part(_LENET, "mnist", size, draws=3) for size in (16, 64, 128)),
    *(Part(_LENET, "mnist", 64, bits=bits, precisions=("float32",)) for bits in (8, 4)),
    *(Part(_vgg(depth), batches=10) for depth in (11, 13, 16, 19)),
    *(Part(_vgg(11), batch_size=size, batches=10) for size in (64, 256)),
    Part(_vgg(11, batch_norm=True), batches=10),
    Part(_vgg(11), batches=10, bits=8, precisions=("float32",)),
    Part(Network("resnet18", True, "kaiming"), batches=10),
)
_FEW = ("minimal", "hybrid:10")
_REDUCED = (
    Part(_LENET, "mnist", 16, 12),
    Part(_LENET, "mnist", 64, 3, precisions=_NARROW, selections=_FEW),
    *(Part(_LENET, "mnist", 1, 4, bits=bits, precisions=_NARROW[2:]) for bits in (8, 4)),
    Part(_vgg(11), batch_size=4, batches=2, precisions=_NARROW, selections=_FEW),
    Part(_vgg(11), batch_size=32, batches=1, precisions=_NARROW[:1], selections=_FEW),
    Part(_vgg(11, batch_norm=True), batch_size=4, batches=2, precisions=_NARROW, selections=_FEW),
    Part(_vgg(16), batch_size=4, batches=1, precisions=_NARROW, selections=_FEW),
)


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
    """
    chosen = parts or (_REDUCED if setup.reduced else _FULL)
    images = {
        name: data.load(name, "train", data_dir=setup.data_dir)
        for name in {part.data for part in chosen}
    }
    rows: list[Row] = []
    for part in chosen:
        name = f"{part.data}, {part}, {part.batches}, {part.draws}"
        rows += kept(setup, name, partial(_audited, setup, part, images[part.data]))
    return rows


def _audited(setup: Setup, part: Part, images: Images) -> list[Row]:
    def network() -> nn.Module:
        model = part.network.build(images)
        return quantised(model, part.bits) if part.bits else model

    report = audit(
        network,
        take(images, part.batch_size, part.batches),
        precisions=part.precisions,
        selections=part.selections,
        draws=part.draws,
        device=setup.device,
        on_point=lambda done, total: setup.on_progress(str(part), done, total),
    )
    first = report.selections[0]
    rows: list[Row] = []
    for point in report.points:
        if point.selection == first:
            rows.append(_row(part, point, "native", point.reference_standing, 0.0))
        moved = point.variation.relative_l1
        rows.append(_row(part, point, point.selection, point.standing, moved))
    theorem = str(conditions(network(), part.batch_size))
    return [{**row, "theorem": theorem} for row in rows]


def _row(
    part: Part, point: Point, selection: str, standing: Standing | None, variation: float
) -> Row:
    assert standing is not None  # every point is lifted
    return {
        "setting": str(part), "network": str(part.network), "data": part.data,
        "batch_size": part.batch_size, "bits": part.bits, "precision": point.precision,
        "draw": point.draw, "batch": point.batch, "selection": selection,
        "standing": str(standing.kind), "zone": None if point.zone is None else str(point.zone),
        "variation": variation, "ties": standing.ties, "flat": standing.flat,
        "kinks": standing.kinks, "distance": standing.distance, "excess": standing.excess,
        "why": standing.why,
    }  # fmt: skip


def by_setting(rows: Sequence[Row]) -> list[Row]:
    """Of each setting, precision and selection how many points have which standing.

    ``right`` is the share of points whose gradient is certified to be right, in percent, with its
    95 % interval; a point that is undecided counts as not certified. ``kinks`` is the mean number
    of kinks of the loss at a point, ``variation`` the mean of ‖g − native‖₁ / ‖native‖₁ in percent.

    >>> row = {"setting": "lenet5", "precision": "float16", "selection": "native", "draw": 0,
    ...        "kinks": 2, "variation": 0.0}
    >>> rows = [{**row, "batch": n, "standing": kind}
    ...         for n, kind in enumerate(("derivative", "limit", "wrong"))]
    >>> found, = by_setting(rows)
    >>> found["derivative"], found["limit"], found["wrong"], round(found["right"], 1)
    (1, 1, 1, 66.7)
    """
    found: list[Row] = []
    for together in by(rows, ["setting", "precision", "selection"]).values():
        kinds = [str(row["standing"]) for row in together]
        share = estimate(
            sum(kind in STANDS for kind in kinds),
            [(int(number(row["draw"])), int(number(row["batch"]))) for row in together],
        )
        low, high = share.interval
        count = len(together)
        found.append(
            {
                **{key: together[0][key] for key in ("setting", "precision", "selection")},
                "points": count,
                "kinks": sum(number(row["kinks"]) for row in together) / count,
                "variation": 100 * sum(number(row["variation"]) for row in together) / count,
                **{str(kind): kinds.count(kind) for kind in Kind},
                "right": 100 * share.proportion,
                "low": 100 * low,
                "high": 100 * high,
            }
        )
    return found


def summarise(rows: Sequence[Row]) -> list[Row]:
    """A line a setting and precision: how many gradients of each selection are right.

    ``kinked`` counts the points where the loss has a kink; ``at_least`` is the lower end of the
    95 % interval of the share of points where the native gradient is right, in percent; ``moved``
    is how far the selection that moves the gradient most does, as ``variation`` of
    :func:`by_setting`; ``theorem`` whether the conditions of a published theorem by which native
    gradients are right are met (:mod:`kinkcheck.measure.standing.conditions`); the rows say which
    are not.

    >>> row = {"setting": "lenet5", "precision": "float16", "selection": "native", "draw": 0,
    ...        "kinks": 2, "variation": 0.0}
    >>> rows = [{**row, "batch": n, "standing": kind} for n, kind in enumerate(("limit", "wrong"))]
    >>> summarise(rows)[0]["native"]
    '1 of 2, 1 wrong'
    """
    judged = by_setting(rows)
    found: list[Row] = []
    for (setting, precision), together in by(judged, ["setting", "precision"]).items():
        native = [
            row
            for row in rows
            if (row["setting"], row["precision"], row["selection"])
            == (setting, precision, "native")
        ]
        found.append(
            {
                "setting": str(setting),
                "precision": str(precision),
                "kinked": sum(number(row["kinks"]) > 0 for row in native),
                "kinks": together[0]["kinks"],
                **{str(row["selection"]): _said(row) for row in together},
                "at_least": together[0]["low"],
                "moved": max(number(row["variation"]) for row in together),
                # Rows that were kept earlier have none.
                "theorem": str(native[0].get("theorem") or "").partition(":")[0] or None,
            }
        )
    return found


def _said(row: Row) -> str:
    right = sum(int(number(row[kind])) for kind in STANDS)
    others = [f", {row[kind]} {kind}" for kind in (Kind.WRONG, Kind.UNDECIDED) if number(row[kind])]
    return f"{right} of {row['points']}{''.join(others)}"


_INKS = {
    Kind.DERIVATIVE: (INKS[2], HATCHES[0]), Kind.LIMIT: (INKS[4], HATCHES[2]),
    Kind.SUBGRADIENT: (INKS[3], HATCHES[1]), Kind.WRONG: (INKS[1], HATCHES[0]),
    Kind.UNDECIDED: ("#cccccc", HATCHES[3]),
}  # fmt: skip


def draw(rows: Sequence[Row]) -> Figure:
    """A panel a selection: the shares of points by standing, a bar a setting and precision."""
    judged = by_setting(rows)
    lines = list(dict.fromkeys((row["setting"], row["precision"]) for row in judged))
    panels = by(judged, ["selection"])
    figure = Figure(figsize=(3.2 + 1.3 * len(panels), 1.6 + 0.24 * len(lines)))
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, ((selection,), together) in zip(all_axes, panels.items(), strict=True):
        _shares(axes, together, lines)
        axes.set_title(str(selection))
    all_axes[0].set_yticks(range(len(lines)), [f"{s}, {p}" for s, p in lines], fontsize=7)
    all_axes[0].set_ylim(len(lines) - 0.4, -0.6)
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(Kind))
    return figure


def _shares(axes: Axes, rows: Sequence[Row], lines: Sequence[tuple[object, object]]) -> None:
    places = [lines.index((row["setting"], row["precision"])) for row in rows]
    start = [0.0] * len(rows)
    for kind, (ink, hatch) in _INKS.items():
        widths = [100 * number(row[kind]) / number(row["points"]) for row in rows]
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
    cost="270 points of LeNet-5 and 80 to 240 of VGG and ResNet-18 at four precisions; days on one "
    "CPU (an estimate)",
    cost_reduced="1 to 12 mini-batches of each setting; 4 minutes on one busy core",
    measure=measure,
    draw=draw,
    summarise=summarise,
    reduced_cannot=(
        "The reduced run can show that a kind of standing occurs, not how rare one is that it did "
        "not meet; mini-batches of VGG networks are of 4 and 8 images, where kinks of the loss are "
        "rarer than at 128."
    ),
)
