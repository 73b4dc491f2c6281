"""What the experiments that audit share: drawn networks, and how far two gradients are apart."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn

from kinkcheck.arithmetic import precision
from kinkcheck.audit.points import Factory
from kinkcheck.measure.batch import Samples
from kinkcheck.measure.noise import noise
from kinkcheck.measure.runs import Runs, pairs
from kinkcheck.measure.variation import Variation, gradient_variation
from kinkcheck.paper.harness.case import Batch
from kinkcheck.selection import Selection
from kinkcheck.tape import Site, Tape


def largest(values: Iterable[float]) -> float:
    """The largest of some numbers; not a number if one of them is none.

    >>> largest([1.0, math.nan, 0.5])
    nan
    """
    found = list(values)
    return math.nan if any(map(math.isnan, found)) else max(found)


def drawn(network: Factory, seed: int) -> nn.Module:
    """A network with the parameters of a seed, as an audit draws them; the generator is left alone.

    >>> def network():
    ...     return nn.Linear(1, 1)
    >>> bool(drawn(network, 0).weight == drawn(network, 0).weight)
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = network()
        return model


def repeated(model: nn.Module, pair: Batch, at: str, device: str, times: int = 1) -> float:
    """How far runs of one program are apart: forward and backward again, nothing changed.

    Args:
        model: in any precision.
        pair: images and labels.
        at: name of the precision.
        device: where to run.
        times: how often the first run is repeated.

    Returns:
        The largest distance of a repetition from the first run, in the 1-norm.

    >>> pair = torch.rand(4, 3), torch.tensor([0, 1, 0, 1])
    >>> repeated(nn.Linear(3, 2), pair, "float32", "cpu", times=2)
    0.0
    """
    runs = _runs(model, pair, at, device)
    with runs.audited():
        first = runs.plain()
        return largest(gradient_variation(runs.plain(), first).l1 for _ in range(times))


def reordered(
    model: nn.Module, pair: Batch, at: str, device: str, *, meet: bool, seed: int = 0
) -> Variation:
    """How far runs are apart that are equal over the reals: another order, or two halves.

    Args:
        model: in any precision.
        pair: images and labels.
        at: name of the precision.
        device: where to run.
        meet: whether samples meet in the network, as in batch norm; then no halves are added.
        seed: of the order.

    >>> pair = torch.rand(8, 3), torch.tensor([0, 1] * 4)
    >>> reordered(nn.Linear(3, 2), pair, "float32", "cpu", meet=False).relative_l1 < 1e-5
    True
    """
    runs, samples = _runs(model, pair, at, device), Samples(len(pair[1]))
    with runs.audited():
        whole = runs.forward()
        floor = noise(
            lambda order: runs.forward(samples, order),
            samples.count,
            whole.gradient(_native),
            _native,
            bottleneck=None if meet else (0, whole.output_gradient()),
            seed=seed,
        )
    assert floor is not None  # images can be put into any order
    return floor


def against_native(
    model: nn.Module, pair: Batch, at: str, device: str, family: str, selection: Selection
) -> Variation:
    """How far the gradient under a selection of one family is from the native one.

    Args:
        model: in any precision.
        pair: images and labels.
        at: name of the precision.
        device: where to run.
        family: of the operations that are switched, ``max_pool`` or ``relu``.
        selection: what they are switched to.

    >>> from kinkcheck.selection import Branch
    >>> pair = torch.zeros(2, 3), torch.tensor([0, 1])
    >>> model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU())
    >>> against_native(model, pair, "float32", "cpu", "relu", Branch(1.0)).l1
    0.0
    """

    def chosen(tape: Tape) -> dict[Site, Selection]:
        return {site: selection for site in tape.sites if site.row.family == family}

    runs = _runs(model, pair, at, device)
    with runs.audited():
        forward = runs.forward()
        return gradient_variation(forward.gradient(chosen), forward.gradient(_native))


def _runs(model: nn.Module, pair: Batch, at: str, device: str) -> Runs:
    return Runs(model, pairs(F.cross_entropy), pair, precision.parse(at), device, where=at)


def _native(tape: Tape) -> dict[Site, Selection]:
    """Every site as PyTorch has it."""
    return {}
