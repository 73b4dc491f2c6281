"""Programs for tests, and what plain PyTorch says of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Program(nn.Module):
    """Some layers, and a forward pass that a test writes."""

    def __init__(self, body: Callable[[Program, Tensor], Any]) -> None:
        super().__init__()
        self.body = body
        self.one = nn.Conv2d(1, 2, 2)
        self.two = nn.Conv2d(1, 2, 2)
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(2, 1)
        self.drop = nn.Dropout()
        self.head = nn.Linear(8, 3)
        self.register_buffer("offset", torch.full((8,), 0.25))
        self.scale = torch.full((8,), 0.5)
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def usual(m: Program, x: Tensor) -> Tensor:
    scores: Tensor = m.head(m.pool(m.act(m.one(x))).flatten(1))
    return scores


def on_a_grid(body: Callable[[Program, Tensor], Any]) -> tuple[Program, Tensor]:
    """With numbers that float64 carries exactly, and inputs at which pools tie."""
    torch.manual_seed(1)
    model = Program(body)
    for parameter in model.parameters():
        parameter.data = torch.randint(-4, 5, parameter.shape) / 4
    return model, torch.randint(0, 2, (2, 1, 4, 4)) / 2


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.MaxPool1d(2), nn.Linear(2, 3))


def labelled(count: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, generator=generator), torch.arange(count) % 3


def gradient_l1(model: nn.Module, loss: Tensor) -> float:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return sum(g.abs().sum(dtype=torch.float64).item() for g in found if g is not None)


def scaled(module: nn.Module, inputs: Any, outputs: Tensor) -> Tensor:
    return 2 * outputs


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
