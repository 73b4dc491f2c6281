"""A picture of the ties that one image meets in the first max pooling of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kinkcheck.arithmetic import precision
from kinkcheck.arithmetic.precision import Precision
from kinkcheck.errors import InputError
from kinkcheck.kernels import Windows
from kinkcheck.measure.forward import Kinks
from kinkcheck.measure.live import live
from kinkcheck.measure.runs import Runs
from kinkcheck.ops.max_pool import MaxPool

Window = tuple[float, float, float, float]

MOST_PIXELS = 512 * 512
"""Of an image that is shown: a file holds each of them as a number."""

GRAVEST_FIRST = ("rounding", "exact", "tied", "dead")


@dataclass(frozen=True)
class TiesPicture:
    """The tied windows of the first two-dimensional max pooling, drawn on the image they come from.

    A window of the feature map is stretched to the image, as if both covered the same ground: what
    a convolution without padding cuts off at the border is ignored. The channels lie on top of
    each other; a place is listed once, under the gravest cause of its tied windows: ``rounding``
    before ``exact`` before ``tied`` before ``dead``.

    Attributes:
        precision: name of the precision.
        layer: name of the layer that pools.
        height, width: of the image, in pixels.
        image: grey values from 0 (the least) to 1, ``height`` rows of ``width`` numbers.
        dead: windows ``(top, left, bottom, right)`` in pixels, whose choice reaches no parameter.
        exact: those whose active entries are still equal in float64.
        rounding: those whose active entries differ in float64.
        tied: those of which only the tie is known, because float64 is what was audited.
    """

    precision: str
    layer: str
    height: int
    width: int
    image: list[list[float]]
    dead: list[Window] = field(default_factory=list)
    exact: list[Window] = field(default_factory=list)
    rounding: list[Window] = field(default_factory=list)
    tied: list[Window] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = {len(row) for row in self.image}
        if len(self.image) != self.height or rows != {self.width} or not self.width:
            raise InputError(f"ties_picture.image: must have {self.height} rows of {self.width}")


def ties_picture(
    model: nn.Module, image: Tensor, at: str | Precision = "32", device: str | None = None
) -> TiesPicture | None:
    """The tied windows of the first two-dimensional max pooling on one image.

    A tied window is dead if no gradient comes down to it (from a random gradient at the output of
    the network), or if its entries are zeros of the ReLU right before the pooling. Whether a tie
    is exact is seen in the same network in float64. The network runs in evaluation mode, since one
    image is no mini-batch.

    Args:
        model: the network; left as it was.
        image: one input, (channels, height, width).
        at: the precision that is looked at.
        device: where to run; by default where the model is.

    Returns:
        The picture; None if the input is no image, or there is no such pooling between it and the
        output, or no parameter below, or the network does not take a single image.

    >>> model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.MaxPool2d(2))
    >>> _ = nn.init.ones_(model[0].weight)
    >>> picture = ties_picture(model, torch.tensor([[[1.0, 1.0, 0.0, 2.0], [0.0] * 4]]))
    >>> picture.layer, picture.exact
    ('1', [(0.0, 0.0, 2.0, 2.0)])
    """
    if image.dim() != 3:
        return None
    runs = Runs(model, _random_direction, image, precision.parse(at), device)
    with runs.audited():
        met = _met(runs)
    if met is None:
        return None
    operation, tied, live = met.kinks.operation, met.kinks.operation.tied()[0], met.live
    causes = {"dead": tied & ~live}
    if runs.at.storage == torch.float64:
        causes["tied"] = live
    else:
        with runs.lifted():
            lifted = _met(runs)
        if lifted is None or lifted.kinks.value.shape != met.kinks.value.shape:
            return None
        exact = operation.persists(lifted.kinks.operation, lifted.kinks.value)[0]
        causes["exact"] = live & exact
        causes["rounding"] = live & ~exact
    height, width = image.shape[-2:]
    windows = _boxes(met, height, width)
    places: dict[str, list[Window]] = {}
    free = torch.ones_like(tied[0]).cpu()
    for cause in GRAVEST_FIRST:
        if cause in causes:
            here = causes[cause].any(0).cpu() & free
            free &= ~here
            places[cause] = [_corners(box) for box in windows[here]]
    layer, grey = met.kinks.site.layer, _grey(runs.at.cast(image))
    return TiesPicture(str(runs.at), layer, height, width, grey, **places)


@dataclass(frozen=True)
class _Met:
    """The first max pooling of an image.

    Attributes:
        kinks: its kinks.
        live: the tied windows of which a choice reaches a parameter, (channels, *output).
    """

    kinks: Kinks
    live: Tensor

    @property
    def windows(self) -> Windows:
        """The geometry."""
        assert isinstance(self.kinks.operation, MaxPool)
        return self.kinks.operation.windows


def _random_direction(model: nn.Module, image: Tensor) -> Tensor:
    """The output for one image along a random direction."""
    output = model.eval()(image[None])
    generator = torch.Generator().manual_seed(0)
    along: Tensor = (output * torch.randn(output.shape, generator=generator).to(output)).sum()
    return along


def _met(runs: Runs) -> _Met | None:
    try:
        forward = runs.forward()
        forward.listen()
        forward.gradient({})
    except InputError:  # a picture is an extra: no network has to take one image
        return None
    for kinks, alive in zip(forward.kinks, live(forward), strict=True):
        if kinks.site.row.family == "max_pool" and kinks.site.operation.endswith("2d"):
            if kinks.edge is None:
                return None
            none = torch.zeros(kinks.value.shape[1:], dtype=torch.bool, device=alive.device)
            return _Met(kinks, alive[0] if alive.dim() else none)
    return None


def _by_place(input: Tensor, windows: Windows) -> Tensor:
    """The entries of the windows, (places, *output); −∞ where a window has no such place."""
    output = windows.torch_max_pool(input)
    places = list(windows.entries(input.shape[-2:], output.shape[-2:]))
    entries = input.new_full((len(places), *output.shape), -math.inf)
    for entry, (of, at) in zip(entries, places, strict=True):
        entry[..., *of] = input[..., *at]
    return entries


def _boxes(met: _Met, height: int, width: int) -> Tensor:
    """The windows in pixels of the image: (rows, columns, 4)."""
    rows, columns = met.kinks.operation.inputs[0].shape[-2:]
    row = torch.arange(rows, dtype=torch.float64).reshape(-1, 1).expand(rows, columns)
    column = torch.arange(columns, dtype=torch.float64).expand(rows, columns)
    edges = [
        # Absent places are −∞, never the greatest: the least is the greatest of what is negated.
        (_by_place(sign * index[None], met.windows).amax(0)[0].abs() + extra) * pixels / size
        for sign, extra in ((-1, 0), (1, 1))
        for index, pixels, size in ((row, height, rows), (column, width, columns))
    ]
    return torch.stack(edges, -1)


def _corners(box: Tensor) -> Window:
    top, left, bottom, right = box.tolist()
    return top, left, bottom, right


def _grey(image: Tensor) -> list[list[float]]:
    grey = image.double().mean(0)
    span = grey.max() - grey.min()
    return (((grey - grey.min()) / span) if span > 0 else grey.clamp(0, 1)).tolist()
