"""Functions with a kink, and the ways in which people write each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from kinkcheck import programs

Vector: TypeAlias = tuple[float, ...]
Spelling: TypeAlias = Callable[[Tensor], Tensor]

SLOPE = 0.1
"""Of the leaky ReLU, on the left of 0."""


@dataclass(frozen=True)
class Spelled:
    """A function of a vector, or of a number as a vector of one entry, in several spellings.

    Attributes:
        name: of the function.
        kinks: where it has a kink, and all limits of its derivatives there, whose hull is what a
            gradient may be; None for the unit ball.
        spellings: programs that compute it, as they are written.
    """

    name: str
    kinks: Mapping[Vector, tuple[Vector, ...] | None]
    spellings: Mapping[str, Spelling]


def right(limits: tuple[Vector, ...] | None) -> str:
    """What a gradient may be, in words.

    >>> right(((0.1,), (1.0,))), right(((0.0, 1.0), (1.0, 0.0))), right(((1.0,),)), right(None)
    ('0.1 to 1', 'between (0, 1), (1, 0)', '1', 'the unit ball')
    """
    if limits is None:
        return "the unit ball"
    if len(limits) == 1:
        return vector_text(limits[0])
    if len(limits[0]) == 1:
        return f"{min(limits)[0]:g} to {max(limits)[0]:g}"
    return f"between {', '.join(map(vector_text, limits))}"


def vector_text(vector: Vector) -> str:
    """A vector as text; a number where it has one entry.

    >>> vector_text((0.1,)), vector_text((1 / 3, -0.0))
    ('0.1', '(0.3333, 0)')
    """
    texts = [f"{entry + 0.0:.4g}" for entry in vector]  # no −0
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"


def _zero(x: Tensor) -> Tensor:
    return x.new_zeros(())


def _of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Spelling:
    return lambda x: function(x[0], x[1])


def _of_three(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Spelling:
    return lambda x: function(x[0], x[1], x[2])


def _distance(p: float) -> Spelling:
    return lambda x: torch.cdist(x[None], torch.zeros_like(x)[None], p=p)


LEAKY_RELU: dict[str, Spelling] = {
    "leaky_relu(x, a)": lambda x: F.leaky_relu(x, SLOPE),
    "where(x > 0, x, a*x)": lambda x: torch.where(x > 0, x, SLOPE * x),
    "where(x >= 0, x, a*x)": lambda x: torch.where(x >= 0, x, SLOPE * x),
    "maximum(x, a*x)": lambda x: torch.maximum(x, SLOPE * x),
    "maximum(x, 0) + a*minimum(x, 0)": lambda x: (
        torch.maximum(x, _zero(x)) + SLOPE * torch.minimum(x, _zero(x))
    ),
    "relu(x) - a*relu(-x)": lambda x: torch.relu(x) - SLOPE * torch.relu(-x),
    "x*(x > 0) + a*x*(x < 0)": lambda x: x * (x > 0) + SLOPE * x * (x < 0),
    "clamp(x, min=0) + a*clamp(x, max=0)": lambda x: x.clamp(min=0) + SLOPE * x.clamp(max=0),
}
"""The leaky ReLU of slope a = 0.1; ``relu(x) - a*relu(-x)`` is how Keras wrote its PReLU."""

_HALVES = ((0.0, 1.0), (1.0, 0.0))
_THIRDS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

FUNCTIONS = (
    Spelled("leaky ReLU, a = 0.1", {(0.0,): ((SLOPE,), (1.0,))}, LEAKY_RELU),
    Spelled(
        "ReLU",
        {(0.0,): ((0.0,), (1.0,))},
        {
            "relu(x)": torch.relu,
            "clamp(x, min=0)": lambda x: x.clamp(min=0),
            "maximum(x, 0)": lambda x: torch.maximum(x, _zero(x)),
            "where(x >= 0, x, 0)": lambda x: torch.where(x >= 0, x, 0.0),
            "x*(x > 0)": lambda x: x * (x > 0),
            "(x + abs(x))/2": lambda x: (x + x.abs()) / 2,
        },
    ),
    Spelled(
        "identity",
        {(0.0,): ((1.0,),)},
        {
            "relu(x) - relu(-x)": lambda x: torch.relu(x) - torch.relu(-x),
            "clamp(x, min=0) + clamp(x, max=0)": lambda x: x.clamp(min=0) + x.clamp(max=0),
            "maximum(x, 0) + minimum(x, 0)": lambda x: (
                torch.maximum(x, _zero(x)) + torch.minimum(x, _zero(x))
            ),
            "sign(x)*abs(x)": lambda x: x.sign() * x.abs(),
        },
    ),
    Spelled(
        "absolute value",
        {(0.0,): ((-1.0,), (1.0,))},
        {
            "abs(x)": torch.abs,
            "sign(x)*x": lambda x: x.sign() * x,
            "maximum(x, -x)": lambda x: torch.maximum(x, -x),
            "relu(x) + relu(-x)": lambda x: torch.relu(x) + torch.relu(-x),
            "where(x > 0, x, -x)": lambda x: torch.where(x > 0, x, -x),
            "sqrt(x*x)": lambda x: (x * x).sqrt(),
        },
    ),
    Spelled(
        "hard tanh",
        {(-1.0,): ((0.0,), (1.0,)), (1.0,): ((0.0,), (1.0,))},
        {
            "hardtanh(x)": F.hardtanh,
            "clamp(x, -1, 1)": lambda x: x.clamp(-1, 1),
            "maximum(-1, minimum(x, 1))": lambda x: torch.maximum(
                _zero(x) - 1, torch.minimum(x, _zero(x) + 1)
            ),
            "relu(x + 1) - relu(x - 1) - 1": lambda x: torch.relu(x + 1) - torch.relu(x - 1) - 1,
            "(abs(x + 1) - abs(x - 1))/2": lambda x: ((x + 1).abs() - (x - 1).abs()) / 2,
            "where(abs(x) < 1, x, sign(x))": lambda x: torch.where(x.abs() < 1, x, x.sign()),
        },
    ),
    Spelled(
        "hard sigmoid",
        {(-3.0,): ((0.0,), (1 / 6,)), (3.0,): ((0.0,), (1 / 6,))},
        {
            "hardsigmoid(x)": F.hardsigmoid,
            "relu6(x + 3)/6": lambda x: F.relu6(x + 3) / 6,
            "clamp(x + 3, 0, 6)/6": lambda x: (x + 3).clamp(0, 6) / 6,
            "(hardtanh(x/3) + 1)/2": lambda x: (F.hardtanh(x / 3) + 1) / 2,
            "(relu(x + 3) - relu(x - 3))/6": lambda x: (torch.relu(x + 3) - torch.relu(x - 3)) / 6,
        },
    ),
    Spelled(
        "hinge",
        {(1.0,): ((-1.0,), (0.0,))},
        {
            "relu(1 - x)": lambda x: torch.relu(1 - x),
            "clamp(1 - x, min=0)": lambda x: (1 - x).clamp(min=0),
            "1 - clamp(x, max=1)": lambda x: 1 - x.clamp(max=1),
            "maximum(1 - x, 0)": lambda x: torch.maximum(1 - x, _zero(x)),
            "hinge_embedding_loss(x, -1)": lambda x: F.hinge_embedding_loss(x, -torch.ones_like(x)),
            "(1 - x)*(x < 1)": lambda x: (1 - x) * (x < 1),
        },
    ),
    Spelled(
        "maximum of two",
        {(0.0, 0.0): _HALVES},
        {
            "maximum(x, y)": _of_two(torch.maximum),
            "fmax(x, y)": _of_two(torch.fmax),
            "stack((x, y)).max(0)": lambda x: x.max(0).values,
            "where(x > y, x, y)": _of_two(lambda x, y: torch.where(x > y, x, y)),
            "x + relu(y - x)": _of_two(lambda x, y: x + torch.relu(y - x)),
            "(x + y + abs(x - y))/2": _of_two(lambda x, y: (x + y + (x - y).abs()) / 2),
            "relu(x) - relu(-x) + relu(y - x)": _of_two(
                lambda x, y: torch.relu(x) - torch.relu(-x) + torch.relu(y - x)
            ),
        },
    ),
    Spelled(
        "norm",
        {(0.0, 0.0): None},
        {
            "vector_norm(x)": torch.linalg.vector_norm,
            "cdist(x, 0)": _distance(2.0),
            "hypot(x, y)": _of_two(torch.hypot),
            "sqrt(sum(x*x))": lambda x: x.square().sum().sqrt(),
            "where(sum(x*x) > 0, sqrt(sum(x*x)), 0)": lambda x: torch.where(
                x.square().sum() > 0, x.square().sum().sqrt(), 0.0
            ),
        },
    ),
    Spelled(
        "largest absolute value",
        {(1.0, 1.0): _HALVES},
        {
            "vector_norm(x, inf)": lambda x: torch.linalg.vector_norm(x, float("inf")),
            "abs(x).amax()": lambda x: x.abs().amax(),
            "abs(x).max(0)": lambda x: x.abs().max(0).values,
            "cdist(x, 0, p=inf)": _distance(float("inf")),
        },
    ),
    Spelled(
        "median of three",
        {(0.0, 0.0, 0.0): _THIRDS},
        {
            "median(x)": torch.median,
            "sort(x)[1]": lambda x: x.sort().values[1],
            "quantile(x, 0.5)": lambda x: x.quantile(0.5),
            "clamp(z, min(x, y), max(x, y))": _of_three(
                lambda x, y, z: z.clamp(torch.minimum(x, y), torch.maximum(x, y))
            ),
            "maximum(min(x, y), minimum(max(x, y), z))": _of_three(
                lambda x, y, z: torch.maximum(
                    torch.minimum(x, y), torch.minimum(torch.maximum(x, y), z)
                )
            ),
            "sum(x) - x.amax() - x.amin()": lambda x: x.sum() - x.amax() - x.amin(),
            "sum(x) - x.max(0) - x.min(0)": lambda x: x.sum() - x.max(0).values - x.min(0).values,
        },
    ),
    Spelled(
        "zero",
        {(0.0,): ((0.0,),)},
        {
            "max1(t*v) - max2(t*v)": lambda t: programs.zero(t, t.new_tensor(programs.ENTRIES[0])),
            "the same by trees of relu": lambda t: programs.zero_of_relus(
                t, t.new_tensor(programs.ENTRIES[0])
            ),
        },
    ),
)
"""What people write, and what is known in closed form of the function that it computes."""
