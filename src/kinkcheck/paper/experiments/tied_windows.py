"""[B24], introduction: an input picture, and the windows that tie on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from kinkcheck.audit.picture import GRAVEST_FIRST, TiesPicture, ties_picture
from kinkcheck.errors import InputError
from kinkcheck.paper.harness.case import Case, Network, Size
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.gradients import drawn
from kinkcheck.paper.harness.rows import Line, by
from kinkcheck.report.ink import HATCHES, INKS

_PIXELS = "pixels"  # pooling of the picture itself
_CASES = (
    Case(Network("lenet5"), "mnist", Size(1, 1, 1)),
    Case(Network("vgg11"), "cifar10", Size(1, 1, 1)),
)
_PRECISIONS = ("float16", "float32")


@dataclass(frozen=True)
class Pixel:
    """A pixel of a picture.

    Attributes:
        image: the set that the picture is from.
        panel, kind: ``image`` and ``pixel``.
        top, left: where it is.
        grey: mean of its channels, from 0, the darkest of the picture, to 1.
    """

    image: str
    panel: str
    kind: str
    top: int
    left: int
    grey: float


@dataclass(frozen=True)
class Window:
    """A window that is tied, in pixels of the picture.

    Attributes:
        image: the set that the picture is from.
        panel: whose pooling: network and precision, or that of the pixels themselves.
        kind: ``window``.
        cause: of the tie.
        top, left, bottom, right: its edges.
    """

    image: str
    panel: str
    kind: str
    cause: str
    top: float
    left: float
    bottom: float
    right: float


Row = Pixel | Window


def measure(setup: Setup) -> list[Row]:
    """The pixels of the first training image of a set, and the tied windows of its first pooling.

    Pooling of the picture itself comes first: 2×2 windows of pixels, of which one tie is as good as
    another. Then come LeNet-5 on the digit and VGG-11 on the photograph, with the parameters of
    seed 0: a place is listed once, under the gravest cause over the channels.
    """
    rows: list[Row] = []
    for done, case in enumerate(_CASES):
        setup.on_progress("pictures", done, len(_CASES))
        images = case.images(setup.data_dir)
        (image, _) = next(images.batches(1))
        model = drawn(case.factory(images), 0)
        rows += _pixels(case.data, image[0])
        rows += _tied_pixels(case.data, image[0])
        for precision in _PRECISIONS:
            found = ties_picture(model, image[0], precision)
            if found is None:
                raise InputError(
                    f"{case.network} has no max pooling that a picture could be made of"
                )
            rows += _windows(case.data, f"{case.network}, {precision}", found)
    setup.on_progress("pictures", len(_CASES), len(_CASES))
    return rows


def _pixels(name: str, image: Tensor) -> list[Pixel]:
    grey = image.mean(0)
    grey = (grey - grey.min()) / (grey.max() - grey.min()).clamp(min=1e-12)
    return [
        Pixel(name, "image", "pixel", y, x, value)
        for y, line in enumerate(grey.tolist())
        for x, value in enumerate(line)
    ]


def _tied_pixels(name: str, image: Tensor) -> list[Window]:
    """The 2×2 windows of the picture whose largest value is met more than once."""
    windows = image.unfold(1, 2, 2).unfold(2, 2, 2).flatten(-2)
    tied = ((windows == windows.amax(-1, keepdim=True)).sum(-1) > 1).any(0)
    return [
        Window(name, _PIXELS, "window", "tied", 2 * y, 2 * x, 2 * y + 2, 2 * x + 2)
        for y, x in tied.nonzero().tolist()
    ]


def _windows(name: str, panel: str, found: TiesPicture) -> list[Window]:
    return [
        Window(name, panel, "window", cause, *edges)
        for cause in GRAVEST_FIRST
        for edges in getattr(found, cause)
    ]


def summarise(rows: Sequence[Row]) -> list[Line]:
    """How many places of each panel tie, by cause.

    >>> row = Window("mnist", "pixels", "window", "tied", 0, 0, 2, 2)
    >>> [(found["tied"], found["dead"]) for found in summarise([row, row])]
    [(2, 0)]
    """
    return [
        {
            "image": image,
            "panel": panel,
            **{cause: sum(row.cause == cause for row in tied) for cause in GRAVEST_FIRST},
        }
        for (image, panel), tied in by(
            (row for row in rows if isinstance(row, Window)), lambda row: (row.image, row.panel)
        ).items()
    ]


_INKS = {"dead": INKS[6], "tied": INKS[3], "exact": INKS[2], "rounding": INKS[1]}
_HATCH = {"dead": HATCHES[0], "tied": HATCHES[0], "exact": HATCHES[1], "rounding": HATCHES[3]}


def draw(rows: Sequence[Row]) -> Figure:
    """A line of panels for every picture: its tied windows over the picture in grey."""
    pixels = by((row for row in rows if isinstance(row, Pixel)), lambda row: row.image)
    windows = by((row for row in rows if isinstance(row, Window)), lambda row: row.image)
    panels = {image: by(tied, lambda row: row.panel) for image, tied in windows.items()}
    columns = max(map(len, panels.values()))
    figure = Figure(figsize=(2.3 * columns, 2.7 * len(pixels) + 0.3))
    grid = figure.subplots(len(pixels), columns, squeeze=False)
    for places, (image, shown) in zip(grid, pixels.items(), strict=True):
        here = panels.get(image, {})
        for axes in places[len(here) :]:
            axes.set_axis_off()
        for axes, (panel, tied) in zip(places, here.items(), strict=False):
            _panel(axes, shown, tied)
            axes.set_title(f"{image}: {panel}\n{len(tied)} places tied")
    met = {row.cause for row in rows if isinstance(row, Window)}
    keys = [
        Patch(
            facecolor=(_INKS[cause], 0.35), edgecolor=_INKS[cause], hatch=_HATCH[cause], label=cause
        )
        for cause in _INKS
        if cause in met
    ]
    if keys:
        figure.legend(handles=keys, loc="outside upper left", ncols=4)
    return figure


def _panel(axes: Axes, pixels: Sequence[Pixel], tied: Sequence[Window]) -> None:
    side = 1 + max(row.left for row in pixels)
    grey = [row.grey for row in pixels]
    picture = [grey[start : start + side] for start in range(0, len(grey), side)]
    axes.imshow(
        picture, cmap="gray", vmin=0, vmax=1, interpolation="none",
        extent=(0, side, len(picture), 0),
    )  # fmt: skip
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for row in tied:
        axes.add_patch(
            Rectangle(
                (row.left, row.top),
                row.right - row.left,
                row.bottom - row.top,
                facecolor=(_INKS[row.cause], 0.35),
                edgecolor=_INKS[row.cause],
                hatch=_HATCH[row.cause],
                linewidth=0.6,
            )
        )


TIED_WINDOWS = Experiment(
    name="tied-windows",
    source="B24, introduction: an input and its tied windows",
    shows="where windows tie on a digit and on a photograph, and why",
    cost=Cost("two pictures", "seconds", "1 core", ("mnist", "cifar10"), measured=True),
    cost_reduced=Cost("the same", "seconds", "1 core", ("mnist", "cifar10"), measured=True),
    row=Row,
    measure=measure,
    draw=draw,
    summarise=summarise,
    reduced_cannot="The reduced run is the whole experiment, on one picture of each set.",
)
