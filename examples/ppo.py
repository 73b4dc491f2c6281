"""Proximal policy optimisation: a clipped objective, the smaller of two, and a clipped value.

Before the first update the new policy is the old one. Then the ratio of probabilities is 1, both
objectives are equal, and every entry of the smaller of the two is a tie (Schulman et al. 2017,
equation 7). PyTorch halves the gradient between them, which changes nothing where the two have one
derivative; on the bound of the clipped ratio they have not::

    kinkcheck audit examples/ppo.py:make --selection last
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STATE, ACTIONS, CLIP = 4, 3, 0.25


@dataclass
class Rollout:
    """What was done in some states (n, STATE), how likely it was, and what came of it."""

    states: Tensor
    actions: Tensor
    log_probabilities: Tensor
    values: Tensor
    advantages: Tensor


class ActorCritic(nn.Module):
    """A policy and a value on one body."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(STATE, 32), nn.Tanh())
        self.policy = nn.Linear(32, ACTIONS)
        self.value = nn.Linear(32, 1)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(states)
        return F.log_softmax(self.policy(hidden), -1), self.value(hidden).squeeze(-1)


def make() -> tuple[nn.Module, list[Rollout], Callable[[nn.Module, Rollout], Tensor]]:
    """The policy, two rollouts of it, and the step."""
    model = ActorCritic()
    return model, [rollout(model, 64) for _ in range(2)], step


@torch.no_grad()
def rollout(model: nn.Module, steps: int) -> Rollout:
    """Random states, and what the policy does in them."""
    states = torch.randn(steps, STATE)
    log_probabilities, values = model(states)
    actions = torch.multinomial(log_probabilities.exp(), 1).squeeze(-1)
    taken = log_probabilities.gather(1, actions[:, None]).squeeze(1)
    return Rollout(states, actions, taken, values, torch.randn(steps))


def step(model: nn.Module, batch: Rollout) -> Tensor:
    """The loss of the policy and of the value."""
    log_probabilities, values = model(batch.states)
    taken = log_probabilities.gather(1, batch.actions[:, None]).squeeze(1)
    ratio = (taken - batch.log_probabilities).exp()
    plain = ratio * batch.advantages
    clipped = ratio.clamp(1 - CLIP, 1 + CLIP) * batch.advantages
    policy = -torch.minimum(plain, clipped).mean()
    returns = batch.values + batch.advantages
    near = batch.values + (values - batch.values).clamp(-CLIP, CLIP)
    value = torch.maximum((values - returns).square(), (near - returns).square()).mean()
    return policy + value / 2
