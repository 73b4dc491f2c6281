"""How much faster is an audit point than the published procedure?

The published procedure (Boustany 2024) runs two networks, each forward and backward: one with
``torch.nn.MaxPool2d``, one whose max pooling spreads the gradient over the tied entries through a
boolean mask. An audit point runs one network forward once, and backward once and a part. Both take
the gradients of native and minimal on the same batch; the ratio of their medians is printed.
*At most* is the ratio to one pass forward and backward with this package's pools, recorded by
nothing: what a point would gain if the second gradient took no time at all.

The second table says what the lift and the noise floors add to a point. The third says what the
standing adds to a point at which it can be told without the lift: the recorded forward pass, the
native gradient with a tangent carried through the program, and the gradient of minimal. The fourth
is the memory of all tensors at its largest, by the records of PyTorch's profiler: of a plain step,
of an audited point without the lift, which is compared with plain autograd on the way, and what is
asked for: twice that of the plain step, and the parameters once more.

    python benchmarks/audit.py
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import kinkcheck
from kinkcheck import networks
from kinkcheck.measure.forward import Forward
from kinkcheck.measure.standing import told
from timing import keep_large_blocks, medians, table, where


class _PublishedMinimal(torch.autograd.Function):
    """Minimal 2×2 max pooling as in the published code: reshape, mask, divide by the count."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tiles = x.reshape(n, c, h // 2, 2, w // 2, 2)
        value = tiles.amax(dim=(3, 5))
        ctx.save_for_backward(tiles, value)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        tiles, value = ctx.saved_tensors
        active = tiles == value[:, :, :, None, :, None]
        spread = torch.zeros_like(tiles)
        spread[active] = grad[:, :, :, None, :, None].expand(tiles.shape)[active]
        spread /= active.sum(dim=(3, 5), keepdim=True)
        n, c, h, _, w, _ = tiles.shape
        return spread.reshape(n, c, 2 * h, 2 * w)


class PublishedMinimal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _PublishedMinimal.apply(x)


def with_published_pools(network: nn.Module) -> nn.Module:
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(parent, name, PublishedMinimal())
    return network


def gradients(models: list[nn.Module], x: Tensor, y: Tensor) -> None:
    for model in models:
        torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))


def recorded(network: nn.Module, x: Tensor, y: Tensor) -> None:
    with kinkcheck.record(network) as tape:
        loss = F.cross_entropy(network(x), y)
    for selection in ("native", "minimal"):
        tape.gradient(loss, choose=selection)


def measure(name: str, channels: int, size: int, repeats: int) -> list[str]:
    torch.manual_seed(0)
    network = networks.build(name, in_channels=channels, classes=10, image_size=size)
    minimal = with_published_pools(copy.deepcopy(network))
    ours = kinkcheck.nn.convert(copy.deepcopy(network))
    x, y = torch.randn(128, channels, size, size), torch.randint(0, 10, (128,))
    before, now, once = medians(
        lambda: gradients([network, minimal], x, y),
        lambda: recorded(network, x, y),
        lambda: gradients([ours], x, y),
        repeats=repeats,
    )
    milliseconds = (f"{1e3 * seconds:.1f}" for seconds in (before, now))
    shape = "x".join(map(str, x.shape))
    return [name, shape, *milliseconds, f"{before / now:.2f}", f"{before / once:.2f}"]


def lift_share(name: str, channels: int, size: int, precision: str, repeats: int) -> list[str]:
    torch.manual_seed(0)
    network = networks.build(name, in_channels=channels, classes=10, image_size=size)
    batch = torch.randn(128, channels, size, size), torch.randint(0, 10, (128,))
    without, lifted = medians(
        lambda: kinkcheck.audit(network, [batch], precisions=[precision], lifted=False),
        lambda: kinkcheck.audit(network, [batch], precisions=[precision], lifted=True),
        repeats=repeats,
    )
    share = f"{100 * (1 - without / lifted):.0f} %"
    return [name, precision, f"{without * 1e3:.0f}", f"{lifted * 1e3:.0f}", share]


def parts(name: str, batch: int, size: int, repeats: int) -> list[str]:
    """What a point costs in which it can be told without the lift that all ties are flat."""
    torch.manual_seed(0)
    network = networks.build(name, in_channels=3, classes=10, image_size=size)
    x, y = torch.randn(batch, 3, size, size), torch.randint(0, 10, (batch,))
    made: list[Forward] = []

    def forward() -> None:
        made[:] = [Forward(network, lambda: F.cross_entropy(network(x), y))]

    def standing() -> None:
        forward()
        if told(made[0], "native") is None:
            raise SystemExit(f"{name}: not all ties are in sight")

    def point(*selections: str) -> None:
        standing()
        for selection in selections:
            made[0].gradient(selection)

    plain, once, certified, whole = medians(
        lambda: gradients([network], x, y),
        forward,
        standing,
        lambda: point("native", "minimal"),
        repeats=repeats,
    )
    ratios = (once, certified - once, whole - certified, whole)
    shape = "x".join(map(str, x.shape))
    return [name, shape, f"{1e3 * plain:.0f}", *(f"{each / plain:.2f}" for each in ratios)]


def memory(name: str, batch: int, size: int, batch_norm: bool = False) -> list[str]:
    """Memory of all tensors at its largest: of a plain step, and of an audited point."""
    torch.manual_seed(0)
    network = networks.build(
        name, in_channels=3, classes=10, image_size=size, batch_norm=batch_norm
    )
    parameters = sum(each.nbytes for each in network.parameters())
    x, y = torch.randn(batch, 3, size, size), torch.randint(0, 10, (batch,))
    how = {"precisions": ["float32"], "selections": ["minimal"], "lifted": False}
    plain, point = (
        parameters + largest(run)
        for run in (
            lambda: gradients([network], x, y),
            lambda: kinkcheck.audit(network, [(x, y)], loss=F.cross_entropy, **how),
        )
    )
    megabytes = (f"{each / 1e6:.0f}" for each in (plain, point, 2 * plain + parameters))
    name = f"{name}{', batch norm' * batch_norm}"
    return [name, "x".join(map(str, x.shape)), *megabytes, f"{point / plain:.2f}"]


def largest(run: Callable[[], object]) -> int:
    """How many bytes more than before are held at most while something runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    found = (
        (event.start_ns(), event.nbytes())
        for event in profiled.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )
    return max(accumulate(change for _, change in sorted(found)))


if __name__ == "__main__":
    keep_large_blocks()
    rows = table(
        f"Audit point, native against minimal, float32; {where()}",
        ["network", "input"],
        ["published (ms)", "audit point (ms)", "ratio", "at most"],
    )
    rows.add_row(*measure("lenet5", channels=1, size=28, repeats=30))
    rows.add_row(*measure("vgg11", channels=3, size=32, repeats=5))
    Console(width=100).print(rows)
    rows = table(
        f"The lift's share of an audit point, batch of 128; {where()}",
        ["network", "precision"],
        ["without (ms)", "with (ms)", "share"],
    )
    for each in ("float16", "float32", "float64"):
        rows.add_row(*lift_share("lenet5", 1, 28, each, repeats=5))
    rows.add_row(*lift_share("vgg11", 3, 32, "float32", repeats=3))
    Console(width=100).print(rows)
    rows = table(
        f"A point with standing, no lift, in units of the plain step, float32; {where()}",
        ["network", "input"],
        ["plain (ms)", "forward", "standing + native", "minimal", "whole"],
    )
    rows.add_row(*parts("vgg11", 128, 32, repeats=5))
    rows.add_row(*parts("resnet50", 8, 224, repeats=3))
    Console(width=100).print(rows)
    rows = table(
        "Memory of all tensors at its largest (MB), no lift, float32",
        ["network", "input"],
        ["plain step", "point", "asked", "point / plain"],
    )
    rows.add_row(*memory("vgg11", 128, 32))
    rows.add_row(*memory("resnet50", 8, 224))
    rows.add_row(*memory("resnet50", 8, 224, batch_norm=True))
    Console(width=100).print(rows)
