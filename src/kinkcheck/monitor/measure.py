"""Ties, gradient and gradient variation at the point where a training run stands."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kinkcheck.measure.forward import Forward
from kinkcheck.measure.standing import Kind, Standing
from kinkcheck.measure.variation import Variation, gradient_variation
from kinkcheck.monitor.standing import standing_there
from kinkcheck.selection import Selection
from kinkcheck.tape import Site
from kinkcheck.tape.as_found import as_found


@dataclass(frozen=True)
class SiteTies:
    """How many windows of one site are tied.

    Attributes:
        layer: name of the layer; empty for the model itself.
        operation: name of the operation, for example ``max_pool2d``.
        call: how often the layer had called this operation before in the same forward pass.
        windows: how many windows, or elements of a pointwise operation, there are.
        tied: how many have more than one active branch.
    """

    layer: str
    operation: str
    call: int
    windows: int
    tied: int

    @property
    def name(self) -> str:
        """The site in one word.

        >>> SiteTies("block.relu", "relu", 1, 8, 2).name
        'block.relu.relu.1'
        """
        words = (self.layer, self.operation, str(self.call) if self.call else "")
        return ".".join(filter(None, words))

    @property
    def rate(self) -> float:
        """Share of windows that are tied.

        >>> SiteTies("2", "max_pool2d", 0, 8, 2).rate
        0.25
        """
        return self.tied / self.windows if self.windows else 0.0


@dataclass(frozen=True)
class Record:
    """What was found at one point of a training run.

    Attributes:
        step: steps that came before.
        loss: the loss, the same for every selection.
        gradient_norm: 2-norm of the gradient under the first selection, summed in float64.
        variation: how far the gradient under the second selection is from it.
        ties: of each site, in the order of their calls.
        seconds: that the measurement took.
        standing: of the gradient under the first selection; None where it was not asked for.
    """

    step: int
    loss: float
    gradient_norm: float
    variation: Variation
    ties: tuple[SiteTies, ...]
    seconds: float = field(compare=False)
    standing: Standing | None = None

    def scalars(self) -> dict[str, float]:
        """The numbers by name, for a logger: ``wandb.log(record.scalars())``.

        >>> ties = (SiteTies("2", "max_pool2d", 0, 8, 2),)
        >>> found = Record(0, 2.3, 5.0, Variation(4.0, 3.0, 2.0, 2.0, 0.1), ties, 0.01)
        >>> for name, value in found.scalars().items():
        ...     print(name, value)
        loss 2.3
        gradient_norm 5.0
        variation/l1 4.0
        variation/l2 3.0
        variation/linf 2.0
        variation/relative_l1 0.1
        ties/2.max_pool2d 0.25
        """
        found = self.standing
        standing: dict[str, float] = {}
        if found is not None:
            standing = {f"standing/{kind}": float(found.kind is kind) for kind in Kind}
            standing["standing/kinks"] = found.kinks
        return {
            "loss": self.loss,
            "gradient_norm": self.gradient_norm,
            "variation/l1": self.variation.l1,
            "variation/l2": self.variation.l2,
            "variation/linf": self.variation.linf,
            "variation/relative_l1": self.variation.relative_l1,
            **standing,
            **{f"ties/{ties.name}": ties.rate for ties in self.ties},
        }


def measure(
    model: nn.Module,
    loss: Callable[[], Tensor],
    selections: tuple[Selection, Selection],
    step: int = 0,
    standing: bool = False,
) -> Record:
    """Measure a model and leave everything as it was found.

    Modes, buffers, ``.grad`` and the random states of PyTorch, NumPy and Python are untouched.
    The forward pass runs in the context of the caller, so call this under the same autocast as
    the training.

    Args:
        model: in the mode of the run.
        loss: calls the model and returns the loss, a single number.
        selections: the two that are compared.
        step: to be noted.
        standing: whether to look for the standing of the gradient under the first.

    Raises:
        InputError: the loss does not depend on a parameter, or no site has a selection.

    >>> from kinkcheck.selection import parse
    >>> pool = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2))
    >>> loss = lambda: pool(torch.ones(1, 1, 4, 4)).sum()
    >>> [ties.rate for ties in measure(pool, loss, (parse("native"), parse("minimal"))).ties]
    [1.0]
    """
    started = time.perf_counter()
    # The backward passes run inside the recording as well: activation checkpointing calls modules
    # again, which update buffers and draw random numbers.
    with torch.enable_grad(), as_found(model):
        forward = Forward(model, loss)
        with torch.autocast(forward.loss.device.type, enabled=False):
            reference, other = map(forward.gradient, selections)
        found = standing_there(forward, loss, selections[0]) if standing else None
    return Record(
        step=step,
        loss=forward.loss.item(),
        gradient_norm=_norm(reference),
        variation=gradient_variation(other, reference),
        ties=tuple(_ties(site) for site in forward.tape.sites),
        seconds=time.perf_counter() - started,
        standing=found,
    )


def _ties(site: Site) -> SiteTies:
    return SiteTies(site.layer, site.operation, site.call, site.windows, site.tied)


def _norm(gradient: Mapping[str, Tensor]) -> float:
    norms = (torch.linalg.vector_norm(g, dtype=torch.float64).item() for g in gradient.values())
    return math.hypot(*norms)
