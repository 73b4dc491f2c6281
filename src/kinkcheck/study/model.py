"""The network of a trial, with its selections, in its precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

import kinkcheck.nn
from kinkcheck.arithmetic import precision
from kinkcheck.errors import InputError
from kinkcheck.study.settings import Settings
from kinkcheck.study.spec import alpha_of, beta_of
from kinkcheck.study.streams import stream
from kinkcheck.study.task import Task


def build(
    settings: Settings, task: Task, device: torch.device | str, max_pool: str | None = None
) -> nn.Module:
    """The network of a trial, drawn from its seed of initialisation.

    Equal seeds give equal parameters, whatever the precision (up to its rounding) and the
    selections. Max pooling is always that of :mod:`kinkcheck.nn`, whose native selection is bit for
    bit PyTorch's; other operations without a selection are PyTorch's own.

    Args:
        settings: of the trial.
        task: of the trial.
        device: where to put it.
        max_pool: stands in for the trial's own selection of max pooling.

    Raises:
        InputError: the network cannot be built, or has no module for a selection that it is given.

    >>> from kinkcheck.study.spec import shipped
    >>> from kinkcheck.study.tasks import task_of
    >>> settings = shipped("smoke").trials()[0]
    >>> build(settings, task_of(settings.task, None, ""), "cpu").features[2]
    MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False, selection='hybrid:0')
    """
    held = precision.parse(settings.precision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(settings.init_seed, "init"))
        model = task.network()
    model = held.cast_model(model, device)
    others = dict(settings.selections)
    chosen = others.pop("max_pool", None) if max_pool is None else max_pool
    try:
        if settings.backward == "assigned":
            model = _assigned(model, alpha_of(others.pop("relu", "native")))
        if settings.forward == "compound":
            model = _compound(model, beta_of(chosen or "native"))
        else:
            model = _pooling(model, chosen)
        return kinkcheck.nn.convert(model, **others)
    except InputError as error:
        raise InputError(f"{settings.task.words[0]}: {error}") from None


def require_modules(trials: Iterable[Settings], task_of: Callable[[Settings], Task]) -> None:
    """Check that each network of some trials has the modules that its selections are for.

    Args:
        trials: the settings of the trials.
        task_of: gives the task of one.

    Raises:
        InputError: one cannot be found, or has none.
    """
    kinds = {(*each.task.columns.values(), each.forward, each.backward): each for each in trials}
    for settings in kinds.values():
        try:
            build(settings, task_of(settings), "cpu", *settings.networks[:1])
        except (InputError, KeyboardInterrupt):
            raise
        except BaseException:
            pass  # a user's network: its trials fail and say why, those of others go on


def _pooling(model: nn.Module, chosen: str | None) -> nn.Module:
    """The model under a selection; without one it is native, where there is such a module."""
    if chosen is not None:
        return kinkcheck.nn.convert(model, max_pool=chosen)
    try:
        return kinkcheck.nn.convert(model, max_pool="native")
    except InputError:
        return model


def _assigned(model: nn.Module, alpha: float) -> nn.Module:
    """The model with the published ReLUs in place of its own."""
    relus = _layers(model, nn.ReLU, kinkcheck.nn.ReLU)
    if not relus:
        raise InputError("backward: assigned needs nn.ReLU modules, and the network has none")
    for parent, name, _ in relus:
        setattr(parent, name, kinkcheck.nn.AssignedReLU(alpha))
    return model


def _compound(model: nn.Module, beta: float) -> nn.Module:
    """The model with the published formula in place of its 2-d max pools."""
    pools = _layers(model, nn.MaxPool2d, kinkcheck.nn.MaxPool2d)
    if not pools:
        raise InputError("forward: compound needs nn.MaxPool2d modules, and the network has none")
    for parent, name, pool in pools:
        window = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
        setattr(parent, name, kinkcheck.nn.CompoundMaxPool2d(beta, *window))
    return model


def _layers(model: nn.Module, *kinds: type[nn.Module]) -> list[tuple[nn.Module, str, Any]]:
    """The layers of some kinds, each under all its names, with what it is in.

    As for :func:`kinkcheck.nn.convert`, subclasses that users made are other kinds.
    """
    return [
        (parent, name, child)
        for parent in list(model.modules())
        for name, child in parent._modules.items()
        if type(child) in kinds
    ]
