"""[B24], introduction: an input picture, and the windows that tie on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from kinkcheck import data, networks
from kinkcheck.audit.picture import GRAVEST_FIRST, TiesPicture, ties_picture
from kinkcheck.errors import InputError
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.report.ink import HATCHES, INKS

_PIXELS = "pixels"  # pooling of the picture itself
_NETWORKS = (("lenet5", "mnist"), ("vgg11", "cifar10"))
_PRECISIONS = ("float16", "float32")


def measure(setup: Setup) -> list[Row]:
    """The pixels of the first training image of a set, and the tied windows of its first pooling.

    Pooling of the picture itself comes first: 2×2 windows of pixels, of which one tie is as good as
    another. Then come LeNet-5 on the digit and VGG-11 on the photograph, with the parameters of
    seed 0: a place is listed once, under the gravest cause over the channels.
    """
    rows: list[Row] = []
    for done, (network, name) in enumerate(_NETWORKS):
        setup.on_progress("pictures", done, len(_NETWORKS))
        images = data.load(name, "train", data_dir=setup.data_dir)
        (image, _) = next(images.batches(1))
        torch.manual_seed(0)
        model = networks.build(
            network,
            in_channels=images.channels,
            classes=images.classes,
            image_size=images.image_size[0],
        )
        rows += _pixels(name, image[0])
        rows += _tied_pixels(name, image[0])
        for precision in _PRECISIONS:
            found = ties_picture(model, image[0], precision)
            if found is None:
                raise InputError(f"{network} has no max pooling that a picture could be made of")
            rows += _windows(name, f"{network}, {precision}", found)
    setup.on_progress("pictures", len(_NETWORKS), len(_NETWORKS))
    return rows


def _pixels(name: str, image: Tensor) -> list[Row]:
    grey = image.mean(0)
    grey = (grey - grey.min()) / (grey.max() - grey.min()).clamp(min=1e-12)
    return [
        {"image": name, "panel": "image", "kind": "pixel", "top": y, "left": x, "grey": value}
        for y, line in enumerate(grey.tolist())
        for x, value in enumerate(line)
    ]


def _tied_pixels(name: str, image: Tensor) -> list[Row]:
    """The 2×2 windows of the picture whose largest value is met more than once."""
    windows = image.unfold(1, 2, 2).unfold(2, 2, 2).flatten(-2)
    tied = ((windows == windows.amax(-1, keepdim=True)).sum(-1) > 1).any(0)
    return [
        {
            "image": name, "panel": _PIXELS, "kind": "window", "cause": "tied",
            "top": 2 * y, "left": 2 * x, "bottom": 2 * y + 2, "right": 2 * x + 2,
        }
        for y, x in tied.nonzero().tolist()
    ]  # fmt: skip


def _windows(name: str, panel: str, found: TiesPicture) -> list[Row]:
    return [
        {
            "image": name, "panel": panel, "kind": "window", "cause": cause,
            "top": top, "left": left, "bottom": bottom, "right": right,
        }
        for cause in GRAVEST_FIRST
        for top, left, bottom, right in getattr(found, cause)
    ]  # fmt: skip


def summarise(rows: Sequence[Row]) -> list[Row]:
    """How many places of each panel tie, by cause.

    >>> row = {"image": "mnist", "panel": "pixels", "kind": "window", "cause": "tied"}
    >>> [(found["tied"], found["dead"]) for found in summarise([row, row])]
    [(2, 0)]
    """
    return [
        {
            "image": image,
            "panel": panel,
            **{
                cause: sum(
                    row["image"] == image and row["panel"] == panel and row["cause"] == cause
                    for row in rows
                    if row["kind"] == "window"
                )
                for cause in GRAVEST_FIRST
            },
        }
        for image, panel in dict.fromkeys(
            (row["image"], row["panel"]) for row in rows if row["kind"] == "window"
        )
    ]


_INKS = {"dead": INKS[6], "tied": INKS[3], "exact": INKS[2], "rounding": INKS[1]}
_HATCH = {"dead": HATCHES[0], "tied": HATCHES[0], "exact": HATCHES[1], "rounding": HATCHES[3]}


def draw(rows: Sequence[Row]) -> Figure:
    """A line of panels for every picture: its tied windows over the picture in grey."""
    images = list(dict.fromkeys(str(row["image"]) for row in rows))
    found = summarise(rows)
    columns = max(sum(each["image"] == image for each in found) for image in images)
    figure = Figure(figsize=(2.3 * columns, 2.7 * len(images) + 0.3))
    grid = figure.subplots(len(images), columns, squeeze=False)
    met = set()
    for line, image in zip(grid, images, strict=True):
        pixels = [row for row in rows if row["image"] == image and row["kind"] == "pixel"]
        side = 1 + max(int(row["left"] or 0) for row in pixels)
        grey = [float(row["grey"] or 0) for row in pixels]
        picture = [grey[start : start + side] for start in range(0, len(grey), side)]
        panels = [each for each in found if each["image"] == image]
        for axes in line[len(panels) :]:
            axes.set_axis_off()
        for axes, panel in zip(line, panels, strict=False):
            axes.imshow(
                picture, cmap="gray", vmin=0, vmax=1, interpolation="none",
                extent=(0, side, len(picture), 0),
            )  # fmt: skip
            axes.grid(visible=False)
            axes.set_xticks([])
            axes.set_yticks([])
            count = 0
            for row in rows:
                if (row["image"], row["panel"], row["kind"]) != (image, panel["panel"], "window"):
                    continue
                top, left, bottom, right = (
                    float(row[edge] or 0) for edge in ("top", "left", "bottom", "right")
                )
                cause = str(row["cause"])
                met.add(cause)
                count += 1
                axes.add_patch(
                    Rectangle(
                        (left, top),
                        right - left,
                        bottom - top,
                        facecolor=(_INKS[cause], 0.35),
                        edgecolor=_INKS[cause],
                        hatch=_HATCH[cause],
                        linewidth=0.6,
                    )
                )
            axes.set_title(f"{image}: {panel['panel']}\n{count} places tied")
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


TIED_WINDOWS = Experiment(
    name="tied-windows",
    source="B24, introduction: an input and its tied windows",
    shows="where windows tie on a digit and on a photograph, and why",
    cost="two pictures; seconds",
    cost_reduced="the same",
    measure=measure,
    draw=draw,
    summarise=summarise,
    reduced_cannot="The reduced run is the whole experiment, on one picture of each set.",
)
