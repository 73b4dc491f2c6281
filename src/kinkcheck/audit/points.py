"""The points of a grid, measured in turn: parameter draws × mini-batches × precisions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from kinkcheck.arithmetic.casting import InPlace
from kinkcheck.arithmetic.precision import Precision
from kinkcheck.errors import InputError, blaming
from kinkcheck.interrupts import held_back, require_none
from kinkcheck.measure.batch import Samples, candidates
from kinkcheck.measure.footprint import estimate
from kinkcheck.measure.point import Measurement, Passes
from kinkcheck.measure.records import Found
from kinkcheck.measure.runs import Runs, Step, device_of
from kinkcheck.measure.switch import Switch


def _silent(number: int) -> None:
    """Nobody is told."""


Factory = Callable[[], Any]
"""Returns a module with freshly drawn parameters; or ``(model, batches, step)``."""


class Drawn(NamedTuple):
    """What is measured at one parameter draw.

    Attributes:
        model: the network.
        batches: the mini-batches; None where none were given.
        step: calls the network on one of them and returns the loss; None where nothing was given.
    """

    model: nn.Module
    batches: Sequence[Any] | None
    step: Step | None


class Place(NamedTuple):
    """One point of the grid.

    Attributes:
        precision: the precision.
        draw: number of the parameter draw.
        batch: number of the mini-batch.
    """

    precision: Precision
    draw: int
    batch: int


class Grid:
    """How the points of a grid are measured.

    Args:
        network: a module; or a function that returns one, or a whole :class:`Drawn`.
        batches: the mini-batches; None if the function returns them, those of its first call.
        step: calls the network; None if the function returns it.
        switch: the reference and the selections.
        precisions: that will be measured.
        samples: where samples are in a batch, as in :class:`kinkcheck.measure.batch.Samples`; None
            if there are none.
        layers: also switch one site at a time.
        lifted: also evaluate every point in float64; None for the first one of each precision, and
            those where the precision itself does not tell the standing. Where the first one has
            ties that rounding hides, it does at none.
        standing: also judge what the gradients are.
        exact: let the exact arbiter decide the zones.
        device: where to run; None for where the network is.
        seed: parameters of draw ``d`` are drawn with seed ``seed + d``.
        on_memory: called with the bytes of memory that it takes, before the first point.

    Attributes:
        precisions, switch: as given.
        batches: the mini-batches by their numbers; None as long as the function has not returned
            them.
    """

    def __init__(
        self,
        network: nn.Module | Factory,
        batches: Sequence[Any] | None,
        step: Step | None,
        switch: Switch,
        precisions: Sequence[Precision],
        *,
        samples: Any = 0,
        layers: bool = False,
        lifted: bool | None = None,
        standing: bool = True,
        exact: bool = False,
        device: str | None = None,
        seed: int = 0,
        on_memory: Callable[[int], None] = lambda number: None,
    ) -> None:
        self.precisions = precisions
        self.switch = switch
        self._on_memory = on_memory
        self._given = network, batches, step
        self.batches: Sequence[Any] | Mapping[int, Any] | None = batches
        self._samples = samples
        self._layers = layers
        self._lifted = True if exact else lifted
        self._standing = standing
        self._exact = exact
        self._device = device
        self._seed = seed
        self._drawn: tuple[int, Drawn, InPlace] | None = None
        self._checked: set[Precision] = set()
        self._hiding: set[Precision] = set()
        self._passes: defaultdict[Precision, Passes] = defaultdict(Passes)

    @property
    def device(self) -> str:
        """Where it runs: the network's place, where none was named."""
        return self._device or str(device_of(self._at(0)[0].model))

    def first(self) -> tuple[nn.Module, Sequence[Any], Step]:
        """What is measured at the first parameter draw: the model, the batches and the step.

        Raises:
            InputError: the function fails, or returns something else, or its module has no shape
                yet; or there are no batches.
        """
        (model, _, step), _ = self._at(0)
        batches = self.batches
        if not batches:
            raise InputError("batches: at least one is needed")
        assert step is not None
        assert isinstance(batches, Sequence)
        return model, batches, step

    def without_batches(self) -> Grid:
        """A copy for another process, which gets ``batches`` by their numbers, and a device."""
        other = copy(self)
        network, batches, step = self._given
        other._given = network, None if batches is None else [], step
        other.batches = {}
        other._drawn = None
        other._device = self._device and self._device.partition(":")[0]
        other._on_memory = _silent
        return other

    def measure(self, places: Iterable[Place]) -> Iterator[tuple[Place, Found]]:
        """Measure points one after the other.

        The first point of each precision is compared with plain autograd.

        Raises:
            InputError: the network fails on a batch, or cannot be judged.
        """
        for place in places:
            require_none()
            check = place.precision not in self._checked
            lifted = True if check or place.precision in self._hiding else None
            first = not self._checked
            with held_back(), torch.enable_grad():
                found = self._measure(
                    place, check, first, lifted if self._lifted is None else self._lifted
                )
            self._checked.add(place.precision)
            if found.hidden:
                self._hiding.add(place.precision)
            yield place, found

    def _measure(self, place: Place, check: bool, first: bool, lifted: bool | None) -> Found:
        runs = self.runs(place)
        measurement = Measurement(
            runs, self.switch, place.draw, place.batch, self.candidates(runs), self._layers, lifted,
            self._standing, self._exact, passes=self._passes[place.precision],
        )  # fmt: skip
        if check:
            with runs.audited():
                measurement.plain = runs.plain()
        if first:
            self._say_memory(runs)
        return measurement.measure()

    def runs(self, place: Place) -> Runs:
        """The runs of a point."""
        precision, draw, batch = place
        (model, _, step), held = self._at(draw)
        assert self.batches is not None
        assert step is not None
        return Runs(
            model, step, self.batches[batch], precision, self._device, self._seed + batch,
            f"{precision}, draw {draw}, batch {batch}", held,
        )  # fmt: skip

    def candidates(self, runs: Runs) -> list[Samples]:
        """Where samples could be in the batch of a point, the likeliest first."""
        return [] if self._samples is None else candidates(runs.batch, self._samples)

    def _say_memory(self, runs: Runs) -> None:
        assert runs.held is not None
        self._on_memory(
            estimate(
                runs.saved_bytes,
                runs.held.numbers,
                measured_at=runs.at,
                precisions=self.precisions,
                selections=len(self.switch.selections),
                lifted=self._lifted is not False,
            )
        )

    def _at(self, draw: int) -> tuple[Drawn, InPlace]:
        if self._drawn is None or self._drawn[0] != draw:
            torch.manual_seed(self._seed + draw)
            made = drawn(*self._given)
            if self.batches is None:
                self.batches = made.batches
            self._drawn = draw, made, InPlace(made.model, made.step)
        return self._drawn[1:]


def drawn(network: Any, batches: Sequence[Any] | None, step: Step | None) -> Drawn:
    """What the arguments ``network``, ``batches`` and ``step`` stand for together.

    Raises:
        InputError: the function fails, or returns something else, or what is given already, or its
            module has no shape yet.

    >>> drawn(lambda: nn.Linear(1, 1), [torch.ones(1)], lambda model, x: model(x)).model
    Linear(in_features=1, out_features=1, bias=True)
    """
    with blaming(f"network: {name_of(network)} failed"):
        made: Any = network if isinstance(network, nn.Module) else network()
    whole = isinstance(made, tuple | list) and len(made) == 3
    if whole:
        for name, given in (("batches", batches), ("step", step)):
            if given is not None:
                raise InputError(f"{name}: {name_of(network)} returns its own; leave it out")
        model, batches, step = made
    else:
        model = made
    if not isinstance(model, nn.Module):
        raise InputError(
            f"network: {name_of(network)} must return a torch.nn.Module, or (model, batches, step),"
            f" not {_type(made)}"
        )
    with blaming(f"network: {name_of(network)} has no tensors that can be listed"):
        held = [*model.parameters(), *model.buffers()]
    if any(each.is_meta for each in held):
        raise InputError(
            f"network: {name_of(network)} has parameters on the device meta, which keeps no numbers"
        )
    if any(map(is_lazy, held)):
        raise InputError(
            f"network: {name_of(network)} has parameters without a shape yet; call it on a batch "
            "first"
        )
    if batches is not None and not callable(step):
        raise InputError("step: must be a function of the model and a batch that returns the loss")
    with blaming(f"batches: those of {name_of(network)} cannot be listed"):
        return Drawn(model, None if batches is None else list(batches), step)


def _type(made: object) -> str:
    if isinstance(made, tuple | list):
        return f"({', '.join(type(each).__name__ for each in made)})"
    return type(made).__name__


def name_of(network: object) -> str:
    """What a network is called where it was given no name.

    >>> name_of(nn.Linear(1, 1))
    'Linear'
    """
    return getattr(network, "__name__", type(network).__name__)
