"""How much do the kernels and float16 contractions save in whole networks?

VGG-11 on batches of 128 random images of 3×32×32, forward and backward:

* float32, a training step of SGD, with ``kinkcheck.nn`` pooling against ``torch.nn`` pooling;
* float16 on the CPU, with contractions accumulated in float32 against PyTorch alone.

The training step cannot gain more than PyTorch's pooling takes of it: *at most* says how much it
would gain if pooling took no time.

    python benchmarks/networks.py
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

import kinkcheck
from kinkcheck import networks
from kinkcheck.arithmetic.contractions import float32_contractions
from timing import medians, table, where


def vgg11() -> nn.Module:
    torch.manual_seed(0)
    return networks.build("vgg11", in_channels=3, classes=10, image_size=32)


def training_step() -> list[str]:
    plain = vgg11()
    ours = kinkcheck.nn.convert(copy.deepcopy(plain), max_pool="hybrid:10")
    x, y = torch.randn(128, 3, 32, 32), torch.randint(0, 10, (128,))

    def step(network: nn.Module) -> None:
        F.cross_entropy(network(x), y).backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= 1e-4 * parameter.grad
                parameter.grad = None

    pooled = inputs_of_pools(plain, x)

    def pools() -> None:
        for pool, leaf in pooled:
            value = pool(leaf)
            torch.autograd.grad(value, leaf, torch.ones_like(value))

    before, now, pooling = medians(lambda: step(plain), lambda: step(ours), pools, repeats=9)
    at_most = f"{before / (before - pooling):.2f}"
    return ["training step, float32", "torch.nn.MaxPool2d", *_row(before, now), at_most]


def inputs_of_pools(network: nn.Module, x: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """Each max pooling of a network and what it takes in, as a leaf."""
    found: list[tuple[nn.Module, Tensor]] = []

    def note(pool: nn.Module, args: tuple[Tensor, ...]) -> None:
        found.append((pool, args[0].detach().requires_grad_()))

    pools = [module for module in network.modules() if isinstance(module, nn.MaxPool2d)]
    hooks = [pool.register_forward_pre_hook(note) for pool in pools]
    network(x)
    for hook in hooks:
        hook.remove()
    return found


def float16() -> list[str]:
    network = vgg11().half()
    x, y = torch.randn(128, 3, 32, 32).half(), torch.randint(0, 10, (128,))

    def both_passes() -> None:
        torch.autograd.grad(F.cross_entropy(network(x), y), list(network.parameters()))

    def accumulated() -> None:
        with float32_contractions():
            both_passes()

    (before,) = medians(both_passes, repeats=1)
    (now,) = medians(accumulated, repeats=5)
    return ["forward and backward, float16", "PyTorch's float16", *_row(before, now), ""]


def _row(before: float, now: float) -> list[str]:
    return [f"{before * 1e3:.0f}", f"{now * 1e3:.0f}", f"{before / now:.2f}"]


if __name__ == "__main__":
    numbers = ["its ms", "ms", "ratio", "at most"]
    rows = table(f"VGG-11, batch 128; {where()}", ["what", "against"], numbers)
    for measure in (training_step, float16):
        rows.add_row(*measure())
    Console(width=100).print(rows)
