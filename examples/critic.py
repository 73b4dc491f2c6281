"""A critic with a gradient penalty: the step takes a gradient, and is differentiated once more.

It tells handwritten digits in black and white from noise (Gulrajani et al. 2017). The penalty holds
the norm of a gradient, a site like the LeakyReLUs, which meet their kinks on black paper. Their
slopes jump there, and that the penalty differentiates them is named: no derivative can be chosen::

    kinkcheck audit examples/critic.py:make --selection last
"""

from collections.abc import Callable
from itertools import islice

import torch
from torch import Tensor, nn

from kinkcheck import data


def make() -> tuple[nn.Module, list[Tensor], Callable[[nn.Module, Tensor], Tensor]]:
    """The critic, two mini-batches of real and of made-up images, and the step."""
    critic = nn.Sequential(
        nn.Conv2d(1, 8, 4, stride=2, bias=False),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 16, 4, stride=2, bias=False),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(400, 1),
    )
    digits = data.load("mnist-sample").batches(16, seed=0)
    real = [images.gt(0).float() for images, _ in islice(digits, 2)]
    return critic, [torch.stack([each, torch.rand_like(each)], 1) for each in real], step


def step(critic: nn.Module, pairs: Tensor) -> Tensor:
    """How much better the critic likes noise, and how far its slopes are from 1."""
    real, noise = pairs.unbind(1)
    between = torch.lerp(real, noise, 0.5).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    loss: Tensor = critic(noise).mean() - critic(real).mean() + 10 * penalty
    return loss
