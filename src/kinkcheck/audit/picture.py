"""A picture of the ties that one image meets in the first max pooling of a network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from kinkcheck import precision
from kinkcheck.errors import InputError
from kinkcheck.kernels import Windows
from kinkcheck.ops.max_pool import MaxPool
from kinkcheck.ops.relu import ReLU
from kinkcheck.precision import Precision
from kinkcheck.tape import record

Window = tuple[float, float, float, float]

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


def ties_picture(model: nn.Module, image: Tensor, at: str | Precision = "32") -> TiesPicture | None:
    """The tied windows of the first two-dimensional max pooling on one image.

    A tied window is dead if no gradient comes down to it (from a random gradient at the output of
    the network), or if its entries are zeros of the ReLU right before the pooling. Whether a tie
    is exact is seen in the same network in float64. The network runs in evaluation mode, since one
    image is no mini-batch.

    Args:
        model: the network; left as it was.
        image: one input, (channels, height, width).
        at: the precision that is looked at.

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
    at = precision.parse(at)
    model, image = at.cast_model(model, image.device), at.cast(image, image.device)
    met = _met(model, image, at)
    if met is None:
        return None
    entries = _by_place(met.input, met.windows)
    active = entries == entries.amax(0)
    tied = active.sum(0) > 1
    causes = {"dead": tied & met.blocked}
    live = tied & ~met.blocked
    higher = precision.parse("64")
    if at.storage == higher.storage:
        causes["tied"] = live
    else:
        lifted = _met(higher.cast_model(model, image.device), image.double(), higher)
        if lifted is None or lifted.input.shape != met.input.shape:
            return None
        values = _by_place(lifted.input, met.windows)
        highest = values.masked_fill(~active, -math.inf).amax(0)
        lowest = values.masked_fill(~active, math.inf).amin(0)
        causes["exact"] = live & (lowest == highest)
        causes["rounding"] = live & (lowest != highest)
    height, width = image.shape[-2:]
    windows = _boxes(met, height, width)
    places: dict[str, list[Window]] = {}
    free = torch.ones_like(tied[0]).cpu()
    for cause in GRAVEST_FIRST:
        if cause in causes:
            here = causes[cause].any(0).cpu() & free
            free &= ~here
            places[cause] = [_corners(box) for box in windows[here]]
    return TiesPicture(str(at), met.layer, height, width, _grey(image), **places)


@dataclass(frozen=True)
class _Met:
    """The first max pooling of an image.

    Attributes:
        layer: name of the layer.
        input: (channels, height, width).
        windows: the geometry.
        blocked: the windows of which no choice reaches a parameter, of the output's shape.
    """

    layer: str
    input: Tensor
    windows: Windows
    blocked: Tensor


def _met(model: nn.Module, image: Tensor, at: Precision) -> _Met | None:
    with at.contractions(image.device), torch.enable_grad(), record(model) as tape:
        model.eval()
        try:
            with at.computation(image.device):
                output = model(image[None])
        except Exception:  # a picture is an extra: no network has to take one image
            return None
        sites = [s for s in tape.sites if s.kind is MaxPool and s.operation.endswith("2d")]
        if not sites or not isinstance(output, Tensor):
            return None
        nodes = [node for node in _graph(output) if getattr(node, "choice", None) is sites[0]]
        if not nodes:
            return None
        (input,), windows = nodes[0].saved_tensors, nodes[0].windows
        generator = torch.Generator().manual_seed(0)
        cotangent = torch.randn(output.shape, generator=generator).to(output)
        (from_above,) = torch.autograd.grad(output, [GradientEdge(nodes[0], 0)], cotangent)
    below = nodes[0].next_functions[0][0]
    behind_relu = getattr(getattr(below, "choice", None), "kind", None) is ReLU
    blocked = from_above[0] == 0
    if behind_relu:
        blocked = blocked | (windows.torch_max_pool(input.detach())[0] == 0)
    return _Met(sites[0].layer, input.detach()[0], windows, blocked)


def _graph(output: Tensor) -> Iterator[Any]:
    """Every node behind a tensor, once."""
    stack: list[Any] = [output.grad_fn]
    seen = set()
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += [after for after, _ in node.next_functions]
            yield node


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
    rows, columns = met.input.shape[-2:]
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
