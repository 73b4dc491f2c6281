"""The network of a trial, with its selections, in its precision."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

import kinkcheck.nn
from kinkcheck import networks
from kinkcheck.arithmetic import precision
from kinkcheck.data import Images
from kinkcheck.errors import InputError
from kinkcheck.networks.factory import load_factory
from kinkcheck.study.settings import Settings
from kinkcheck.study.spec import beta_of
from kinkcheck.study.streams import stream


def build(
    settings: Settings, images: Images, device: torch.device | str, max_pool: str | None = None
) -> nn.Module:
    """The network of a trial, drawn from its seed of initialisation.

    Equal seeds give equal parameters, whatever the precision (up to its rounding) and the
    selections. Max pooling is always that of :mod:`kinkcheck.nn`, whose native selection is bit for
    bit PyTorch's; other operations without a selection are PyTorch's own.

    Args:
        settings: of the trial.
        images: the data set, for the shape of an image and the number of classes.
        device: where to put it.
        max_pool: stands in for the trial's own selection of max pooling.

    Raises:
        InputError: the network cannot be built, or has no module for a selection that it is given.

    >>> from kinkcheck import data
    >>> from kinkcheck.study.spec import shipped
    >>> build(shipped("smoke").trials()[0], data.load("mnist-sample"), "cpu").features[2]
    MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False, selection='hybrid:0')
    """
    held = precision.parse(settings.precision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(settings.init_seed, "init"))
        model = _drawn(settings, images)
    model = held.cast_model(model, device)
    if images.channels == 1:
        # Grey images are channels_last as they are, and a step of LeNet-5 gets a third faster so.
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    others = dict(settings.selections)
    chosen = others.pop("max_pool", None) if max_pool is None else max_pool
    try:
        if settings.forward == "compound":
            model = _compound(model, beta_of(chosen or "native"))
        else:
            model = _pooling(model, chosen)
        return kinkcheck.nn.convert(model, **others)
    except InputError as error:
        raise InputError(f"{settings.network}: {error}") from None


def require_modules(trials: Iterable[Settings], images: Images) -> None:
    """Check that each network of some trials has the modules that its selections are for.

    Raises:
        InputError: one cannot be found, or has none.
    """
    kinds = {(each.network, each.batch_norm, each.forward): each for each in trials}
    for settings in kinds.values():
        try:
            build(settings, images, "cpu", *settings.networks[:1])
        except InputError:
            raise
        except Exception:
            pass  # a user's network: its trials fail and say why, those of others go on


def _drawn(settings: Settings, images: Images) -> nn.Module:
    if ":" in settings.network:
        model = load_factory(settings.network)()
        if not isinstance(model, nn.Module):
            raise InputError(
                f"network: {settings.network} must return an nn.Module, not {type(model).__name__}"
            )
        return model
    return networks.build(
        settings.network,
        in_channels=images.channels,
        classes=images.classes,
        image_size=images.image_size[0],
        batch_norm=settings.batch_norm,
        init=settings.init,
    )


def _pooling(model: nn.Module, chosen: str | None) -> nn.Module:
    """The model under a selection; without one it is native, where there is such a module."""
    if chosen is not None:
        return kinkcheck.nn.convert(model, max_pool=chosen)
    try:
        return kinkcheck.nn.convert(model, max_pool="native")
    except InputError:
        return model


def _compound(model: nn.Module, beta: float) -> nn.Module:
    """The model with the published formula in place of its 2-d max pools."""
    pools = [
        (parent, name, child)
        for parent in list(model.modules())
        for name, child in parent.named_children()
        if isinstance(child, nn.MaxPool2d)
    ]
    if not pools:
        raise InputError("forward: compound needs nn.MaxPool2d modules, and the network has none")
    for parent, name, pool in pools:
        window = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
        setattr(parent, name, kinkcheck.nn.CompoundMaxPool2d(beta, *window))
    return model
