"""How far networks move apart that start equal and see the same mini-batches.

The experiment of R. Boustany (TMLR 2024): networks P_0, ..., P_6 with one selection each take the
steps θ ← θ - γ α_q g on the same mini-batches, with the step size γ drawn once and α_q = 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from kinkcheck.study.job import Distance, Score
from kinkcheck.study.learner import Learner


def distance(first: nn.Module, other: nn.Module) -> float:
    """‖θ - θ'‖₁, the sum of |θ_j - θ'_j| over all parameters, in float64.

    >>> ones, zeros = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> with torch.no_grad():
    ...     for linear, value in ((ones, 1.0), (zeros, 0.0)):
    ...         for parameter in linear.parameters():
    ...             _ = parameter.fill_(value)
    >>> distance(ones, zeros)
    3.0
    """
    with torch.no_grad():
        parts = [
            (p.double() - q.double()).abs().sum()
            for p, q in zip(first.parameters(), other.parameters(), strict=True)
        ]
        return torch.stack(parts).sum().item()


def distances(
    selections: Sequence[str],
    learners: Sequence[Learner],
    trained: Sequence[Score],
    tested: Sequence[Score],
) -> tuple[Distance, ...]:
    """Each network after an epoch: its distance from network 0, its losses, how it is judged.

    Args:
        selections: of the networks.
        learners: the networks, number 0 first.
        trained: their scores on the epoch.
        tested: their scores on the test set.
    """
    found = []
    rows = zip(selections, learners, trained, tested, strict=True)
    for number, (selection, learner, train, test) in enumerate(rows):
        broken = learner.broken
        found.append(
            Distance(
                network=number,
                max_pool=selection,
                l1=distance(learners[0].model, learner.model),
                train_loss=train.loss,
                test_loss=test.loss,
                test_value=test.value,
                diverged_step=None if broken is None else broken.step,
                diverged_layer=None if broken is None else broken.layer,
            )
        )
    return tuple(found)
