"""Causes: why a window is tied, and whether it can matter."""

from __future__ import annotations

from dataclasses import dataclass

from kinkcheck.measure.forward import Forward
from kinkcheck.measure.live import live


@dataclass(frozen=True)
class Causes:
    """The tied windows of one site by cause.

    Attributes:
        dead: no choice there can reach a parameter: no gradient arrives, or what made the entries
            lets nothing through at them, as a ReLU at zero.
        exact: live, and the active entries are equal in the lift as well; None without a lift to
            a higher precision.
        rounding: live, and their lifted values differ: the tie is an effect of the precision.
    """

    dead: int
    exact: int | None
    rounding: int | None


def causes(forward: Forward, lifted: Forward | None) -> list[Causes] | None:
    """The causes of the ties at every site.

    Args:
        forward: the forward pass in the audited precision, after the backward passes that it
            listened to.
        lifted: the forward pass at the same point in float64; None if that is the precision.

    Returns:
        One entry a site; None if the lift took another path, so that its sites are others.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.MaxPool1d(2)).double()
    >>> _ = torch.nn.init.zeros_(model[0].weight), torch.nn.init.ones_(model[0].bias)
    >>> forward = Forward(model, lambda: model(torch.ones(1, 4).double()).square().sum())
    >>> forward.listen()
    >>> _ = forward.gradient({})
    >>> causes(forward, forward)
    [Causes(dead=0, exact=2, rounding=0)]
    """
    if len(forward.kinks) != len(forward.tape.sites):
        return None
    lives = live(forward)
    dead = [k.site.tied - int(each.sum()) for k, each in zip(forward.kinks, lives, strict=True)]
    if lifted is None:
        return [Causes(each, None, None) for each in dead]
    if _sites(forward) != _sites(lifted):
        return None
    found = []
    for each, here, alive, there in zip(dead, forward.kinks, lives, lifted.kinks, strict=True):
        number, exact = here.site.tied - each, 0
        if number:
            exact = int((alive & here.operation.persists(there.operation, there.value)).sum())
        found.append(Causes(dead=each, exact=exact, rounding=number - exact))
    return found


def _sites(forward: Forward) -> list[tuple[str, str, object]]:
    return [(k.site.layer, k.site.operation, k.value.shape) for k in forward.kinks]
