"""What is measured: the network that NETWORK names, on data or on batches of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import update_wrapper
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from kinkcheck.errors import InputError
from kinkcheck.terminal import Terminal

if TYPE_CHECKING:
    from torch import Tensor

    from kinkcheck.audit.points import Drawn
    from kinkcheck.data import Images

_OF_DATA = {"data_name": "--data", "data_dir": "--data-dir", "batches": "--batches",
            "batch_size": "--batch-size"}  # fmt: skip


class Subject(NamedTuple):
    """A network and its mini-batches.

    Attributes:
        network: draws the network; or returns it with batches and a step. What it returned at the
            first draw is known already: its first call returns that.
        batches: pairs of images and labels; None where the network brings its own.
        data_name: what the batches are called.
    """

    network: Callable[[], Any]
    batches: Sequence[tuple[Tensor, Tensor]] | None
    data_name: str


def subject(
    ctx: typer.Context,
    network: str,
    *,
    data_name: str,
    data_dir: Path | None,
    batches: int,
    batch_size: int,
    batch_norm: bool,
    init: str,
    seed: int,
) -> Subject:
    """What the command line says to measure.

    Raises:
        InputError: the network or the images cannot be had, or options say how to take images where
            the network brings its own batches.
    """
    from kinkcheck.cli.options import built_in, images_of, own_factory

    console = Terminal(stderr=True)
    with console.waiting(f"Making {network} ..."):
        own = own_factory(network)
        first = None if own is None else _first(own, seed)
        if own is not None and first is not None and first.batches is not None:
            for name, option in _OF_DATA.items():
                source = ctx.get_parameter_source(name)
                if source is not None and source.name != "DEFAULT":
                    raise InputError(f"{option}: {network} brings its own batches; leave it out")
            return Subject(_Beginning(first, own), None, "its own batches")
    with console.waiting(f"Reading {data_name} ..."):
        images = images_of(data_name, data_dir)
        pairs = _batches_of(images, batches, batch_size, seed)
        factory = own or built_in(network, images, batch_norm, init)
        model = (first or _first(factory, seed)).model
        return Subject(_Beginning(model, factory), pairs, images.name)


def _first(factory: Callable[[], Any], seed: int) -> Drawn:
    """What a function returns at the first parameter draw."""
    import torch

    from kinkcheck.audit.points import drawn

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return drawn(factory, None, None)


class _Beginning:
    """A function that returns this at its first call, and then what another returns.

    In another process, which has its own first call, it is the other function.
    """

    def __init__(self, first: Any, factory: Callable[[], Any]) -> None:
        update_wrapper(self, factory)
        self._first = [first]
        self._factory = factory

    def __call__(self) -> Any:
        return self._first.pop() if self._first else self._factory()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_first": []}


def _batches_of(
    images: Images, batches: int, batch_size: int, seed: int
) -> list[tuple[Tensor, Tensor]]:
    """As many mini-batches, or a complaint that there are not enough images."""
    at_most = len(images) // batch_size
    if batches > at_most:
        raise InputError(
            f"--batches {batches} of {batch_size} images each: {images.name} has {len(images):,} "
            f"images, enough for {at_most}"
        )
    return list(islice(images.batches(batch_size, seed=seed), batches))
