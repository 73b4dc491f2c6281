"""Do trials that differ only in their seed train faster side by side than one after the other?

Training steps of SGD with momentum on batches of 128 random digits, max pooling and ReLU from
``kinkcheck.nn``:

* one after the other: a step of each network;
* side by side: ``torch.func.stack_module_state`` and ``vmap``, one step of all networks, each on a
  batch of its own.

Trials that differ in β would need a kernel with a selection for each network; they are no faster
than those that differ in their seed.

    python benchmarks/ensemble.py
    python benchmarks/ensemble.py --precision 16
    python benchmarks/ensemble.py --device cuda
    python benchmarks/ensemble.py --cpu-time --threads 1   on a busy machine
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.optim import SGD

import kinkcheck
from kinkcheck import networks
from kinkcheck.arithmetic import precision
from kinkcheck.arithmetic.precision import Precision
from timing import keep_large_blocks, medians, processor, table

NETWORKS = ["lenet5", "mlp"]
MEMBERS = [3, 8]
BATCH = 128


def members(name: str, count: int, held: Precision, device: str) -> list[nn.Module]:
    """Networks from different seeds."""
    torch.manual_seed(0)
    made = [networks.build(name, in_channels=1, classes=10, image_size=28) for _ in range(count)]
    return [held.cast_model(_selecting(network), device) for network in made]


def _selecting(network: nn.Module) -> nn.Module:
    if any(isinstance(module, nn.MaxPool2d) for module in network.modules()):
        network = kinkcheck.nn.convert(network, max_pool="hybrid:10")
    return kinkcheck.nn.convert(network, relu="branch:0.5")


def optimizer(parameters: list[Tensor]) -> SGD:
    return SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4)


def one_after_the_other(made: list[nn.Module], x: Tensor, y: Tensor) -> Callable[[], None]:
    optimizers = [optimizer(list(network.parameters())) for network in made]

    def step() -> None:
        for network, steps, inputs, targets in zip(made, optimizers, x, y, strict=True):
            steps.zero_grad()
            F.cross_entropy(network(inputs), targets).backward()
            steps.step()

    return step


def side_by_side(
    made: list[nn.Module], x: Tensor, y: Tensor
) -> tuple[dict[str, Tensor], Callable[[], None]]:
    """The stacked parameters, and a step of them."""
    stacked, buffers = stack_module_state(made)
    base = copy.deepcopy(made[0]).to("meta")
    steps = optimizer(list(stacked.values()))

    def loss(
        parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> Tensor:
        return F.cross_entropy(functional_call(base, (parameters, buffers), (x,)), y)

    losses = vmap(loss)

    def step() -> None:
        steps.zero_grad()
        losses(stacked, buffers, x, y).sum().backward()
        steps.step()

    return stacked, step


def check(name: str, held: Precision, device: str) -> None:
    """Both ways lead to the same parameters, up to rounding."""
    made = members(name, 3, held, device)
    x, y = batches(3, held, device)
    parameters, together = side_by_side(made, x, y)
    apart = one_after_the_other(made, x, y)
    for _ in range(3):
        together()
        apart()
    for key, stacked in parameters.items():
        for network, parameter in zip(made, stacked, strict=True):
            expected = network.get_parameter(key)
            rounding = 1000 * held.unit_roundoff
            torch.testing.assert_close(parameter, expected, rtol=rounding, atol=rounding)


def batches(count: int, held: Precision, device: str) -> tuple[Tensor, Tensor]:
    x = held.cast(torch.randn(count, BATCH, 1, 28, 28), device)
    return x, torch.randint(10, (count, BATCH), device=device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", type=precision.parse, default=precision.parse("32"))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--members", type=int, nargs="+", default=MEMBERS)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--cpu-time", action="store_true", help="the processor's time")
    options = parser.parse_args()
    keep_large_blocks()
    rows = table(
        f"Training steps, batch {BATCH}, {options.precision}, {options.device}; {processor()}, "
        f"torch {torch.__version__}",
        ["network"],
        ["members", "threads", "one after the other, ms", "side by side, ms", "ratio"],
    )
    with options.precision.contractions(options.device):
        for name in options.networks:
            check(name, options.precision, options.device)
            for count, threads in product(options.members, options.threads):
                rows.add_row(
                    name, str(count), str(threads), *compare(name, count, threads, options)
                )
    Console(width=110).print(rows)


def compare(name: str, count: int, threads: int, options: argparse.Namespace) -> list[str]:
    """Milliseconds for a step of all networks, both ways, and their ratio."""
    torch.set_num_threads(threads)
    made = members(name, count, options.precision, options.device)
    x, y = batches(count, options.precision, options.device)
    ways = one_after_the_other(made, x, y), side_by_side(made, x, y)[1]
    apart, together = medians(
        *(finished(way, options.device) for way in ways),
        repeats=options.repeats,
        clock=time.process_time if options.cpu_time else time.perf_counter,
    )
    return [f"{apart * 1e3:.1f}", f"{together * 1e3:.1f}", f"{apart / together:.2f}"]


def finished(run: Callable[[], None], device: str) -> Callable[[], None]:
    """A run that waits for the device."""

    def to_the_end() -> None:
        run()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()

    return to_the_end


if __name__ == "__main__":
    main()
