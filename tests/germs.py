"""Small random programs, and all limits of their gradients, in exact rational arithmetic.

Near a point a piecewise linear program is, along each direction, one of finitely many linear
functions. Here every number is a germ: its value at the point, and its derivative in the directions
that are looked at, an open polyhedral cone. Where two germs of one value are compared, the cone is
cut in two. Nothing here calls PyTorch or kinkcheck for its answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cmp_to_key, reduce
from itertools import pairwise
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Row = tuple[Fraction, ...]
Vector = list["Germ"]
Compare = Callable[["Germ", "Germ"], int]


@dataclass(frozen=True)
class Germ:
    """A value, and a derivative by each parameter."""

    value: Fraction
    row: Row

    def __add__(self, other: Germ) -> Germ:
        return Germ(
            self.value + other.value, tuple(a + b for a, b in zip(self.row, other.row, strict=True))
        )

    def __mul__(self, other: Germ) -> Germ:
        return Germ(
            self.value * other.value,
            tuple(
                self.value * b + other.value * a for a, b in zip(self.row, other.row, strict=True)
            ),
        )

    def times(self, number: Fraction) -> Germ:
        return Germ(number * self.value, tuple(number * a for a in self.row))


class _UnknownError(Exception):
    """The order of two germs is not the same in all of the cone."""

    def __init__(self, row: Row) -> None:
        self.row = row


def nonempty(rows: Sequence[Row]) -> bool:
    """Whether some direction has a positive product with each row (Fourier and Motzkin)."""
    left = {_primitive(row) for row in rows}
    while left:
        if any(not any(row) for row in left):
            return False
        if not next(iter(left)):
            return True
        ahead = [row for row in left if row[-1] > 0]
        behind = [row for row in left if row[-1] < 0]
        kept = {row[:-1] for row in left if row[-1] == 0}
        kept |= {
            tuple(-b[-1] * x + a[-1] * y for x, y in zip(a[:-1], b[:-1], strict=True))
            for a in ahead
            for b in behind
        }
        left = {_primitive(row) for row in kept}
    return True


def _primitive(row: Row) -> Row:
    common = reduce(lambda a, b: a * b // gcd(a, b), (x.denominator for x in row), 1)
    whole = [int(x * common) for x in row]
    divisor = gcd(*whole) or 1
    return tuple(Fraction(x // divisor) for x in whole)


def limits(evaluate: Callable[[Compare], Germ]) -> set[Row]:
    """The gradient in every cell of directions.

    Args:
        evaluate: the program at the point, given what compares two germs.
    """
    found, waiting = set(), [()]
    while waiting:
        cone: tuple[Row, ...] = waiting.pop()

        def compare(a: Germ, b: Germ, cone: tuple[Row, ...] = cone) -> int:
            if a.value != b.value:
                return 1 if a.value > b.value else -1
            row = tuple(x - y for x, y in zip(a.row, b.row, strict=True))
            if not any(row):
                return 0
            above = nonempty([*cone, row])
            if above and nonempty([*cone, tuple(-x for x in row)]):
                raise _UnknownError(row)
            return 1 if above else -1

        try:
            found.add(evaluate(compare).row)
        except _UnknownError as unknown:
            waiting += [(*cone, unknown.row), (*cone, tuple(-x for x in unknown.row))]
    return found


@dataclass(frozen=True)
class Step:
    """One operation, on earlier vectors."""

    name: str
    of: tuple[int, ...]
    matrix: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Straight:
    """A straight-line program: its parameters, its steps, and the weights of all numbers."""

    start: tuple[int, ...]
    steps: tuple[Step, ...]
    weights: tuple[int, ...]

    def __str__(self) -> str:
        lines = [f"x0 = {list(self.start)}"]
        for number, step in enumerate(self.steps, 1):
            given = ", ".join(f"x{i}" for i in step.of)
            lines.append(f"x{number} = {step.name}({given}) {step.matrix or ''}")
        return "\n".join([*lines, f"loss: {self.weights}"])

    def exact(self, compare: Compare) -> Germ:
        """The loss."""
        count = len(self.start)
        vectors = [
            [
                Germ(Fraction(value), tuple(Fraction(i == j) for j in range(count)))
                for i, value in enumerate(self.start)
            ]
        ]
        for step in self.steps:
            given = [vectors[i] for i in step.of]
            vectors.append(_exact(step, given, compare, count))
        numbers = [each for vector in vectors for each in vector]
        return _sum(numbers, self.weights, count)

    def module(self) -> nn.Module:
        """The same in PyTorch."""
        return _Module(self)


class _Module(nn.Module):
    def __init__(self, program: Straight) -> None:
        super().__init__()
        self.program = program
        self.x = nn.Parameter(torch.tensor(program.start, dtype=torch.float64))

    def forward(self) -> Tensor:
        vectors = [self.x]
        for step in self.program.steps:
            vectors.append(_in_torch(step, [vectors[i] for i in step.of]))
        weights = torch.tensor(self.program.weights, dtype=torch.float64)
        return (torch.cat(vectors) * weights).sum()


def _constant(number: int | Fraction, count: int) -> Germ:
    return Germ(Fraction(number), (Fraction(0),) * count)


def _sum(germs: Sequence[Germ], weights: Sequence[int], count: int) -> Germ:
    terms = (g.times(Fraction(w)) for g, w in zip(germs, weights, strict=True) if w)
    return reduce(Germ.__add__, terms, _constant(0, count))


def _exact(step: Step, given: list[Vector], compare: Compare, count: int) -> Vector:
    """An operation by what it means."""

    def most(*germs: Germ) -> Germ:
        return max(germs, key=cmp_to_key(compare))

    def least(*germs: Germ) -> Germ:
        return min(germs, key=cmp_to_key(compare))

    def in_order(vector: Vector) -> Vector:
        return sorted(vector, key=cmp_to_key(compare))

    x = given[0]
    zero, one, six = (_constant(number, count) for number in (0, 1, 6))
    minus = one.times(Fraction(-1))
    match step.name:
        case "linear":
            return [_sum(x, row[:-1], count) + _constant(row[-1], count) for row in step.matrix]
        case "relu" | "clamp_min":
            return [most(each, zero) for each in x]
        case "clamp_max":
            return [least(each, zero) for each in x]
        case "abs":
            return [most(each, each.times(Fraction(-1))) for each in x]
        case "leaky_relu":
            return [most(each, each.times(Fraction(1, 4))) for each in x]
        case "clamp" | "hardtanh":
            return [least(most(each, minus), one) for each in x]
        case "relu6":
            return [least(most(each, zero), six) for each in x]
        case "maximum":
            return [most(a, b) for a, b in zip(*given, strict=False)]
        case "minimum":
            return [least(a, b) for a, b in zip(*given, strict=False)]
        case "between":
            low, high = given[1], given[2]
            return [least(most(a, b), c) for a, b, c in zip(x, low, high, strict=False)]
        case "max" | "amax":
            return [most(*x)]
        case "min" | "amin":
            return [least(*x)]
        case "median":
            return [in_order(x)[(len(x) - 1) // 2]]
        case "kthvalue":
            return [in_order(x)[len(x) - 1]]
        case "sort":
            return in_order(x)
        case "topk":
            return in_order(x)[::-1][:2]
        case "cummax":
            return [most(*x[: i + 1]) for i in range(len(x))]
        case "max_pool1d":
            return [most(a, b) for a, b in pairwise(x)] or x
        case "norm":
            ones = (1,) * len(x)
            return [_sum([most(each, each.times(Fraction(-1))) for each in x], ones, count)]
        case "product":
            return [a * b for a, b in zip(*given, strict=False)]
    raise AssertionError(step.name)


def _in_torch(step: Step, given: list[Tensor]) -> Tensor:
    """The same operation of PyTorch."""
    length = min(map(len, given))
    x, *others = (each[:length] for each in given) if len(given) > 1 else given
    match step.name:
        case "linear":
            matrix = torch.tensor(step.matrix, dtype=torch.float64)
            return matrix[:, :-1] @ x + matrix[:, -1]
        case "clamp_min":
            return x.clamp(min=0)
        case "clamp_max":
            return x.clamp(max=0)
        case "leaky_relu":
            return F.leaky_relu(x, 0.25)
        case "clamp":
            return x.clamp(-1, 1)
        case "hardtanh" | "relu6" | "relu":
            return getattr(F, step.name)(x)
        case "between":
            return torch.clamp(x, *others)
        case "kthvalue":
            return x.kthvalue(len(x)).values.reshape(1)
        case "sort" | "cummax":
            arguments = () if step.name == "sort" else (0,)
            return getattr(x, step.name)(*arguments).values
        case "topk":
            return x.topk(min(2, len(x))).values
        case "max_pool1d":
            return F.max_pool1d(x[None], 2, 1)[0] if len(x) > 1 else x
        case "norm":
            return torch.linalg.vector_norm(x, 1).reshape(1)
        case "product":
            return x * others[0]
    return getattr(torch, step.name)(x, *others).reshape(-1)


_ONE = (
    "relu", "relu", "relu", "abs", "leaky_relu", "clamp", "hardtanh", "relu6", "clamp_min",
    "clamp_max", "max", "amax", "amin", "min", "median", "kthvalue", "sort", "topk", "cummax",
    "max_pool1d", "norm",
)  # fmt: skip
_SEVERAL = {"maximum": 2, "minimum": 2, "between": 3, "product": 2}


def straight(seed: int, products: bool = False) -> Straight:
    """A random program."""
    draw = random.Random(seed)
    start = tuple(draw.choice((0, 0, 0, 1, -1)) for _ in range(draw.randint(1, 3)))
    lengths, steps = [len(start)], []

    def add(step: Step, length: int) -> None:
        steps.append(step)
        lengths.append(length)

    for _ in range(draw.randint(2, 4)):
        of = draw.randrange(len(lengths))
        if draw.random() < 0.7:
            rows = draw.randint(1, 3)
            matrix = tuple(
                (*(draw.choice((0, 1, 1, -1, -1, 2)) for _ in range(lengths[of])),
                 draw.choice((0, 0, 0, 0, 1)))
                for _ in range(rows)
            )  # fmt: skip
            if rows == 2 and draw.random() < 0.4:  # relu(x) - relu(-x) and the like
                matrix = (matrix[0], tuple(-each for each in matrix[0]))
            add(Step("linear", (of,), matrix), rows)
            of = len(lengths) - 1
        name = draw.choice((*_ONE, *(n for n in _SEVERAL if products or n != "product")))
        others = tuple(draw.randrange(len(lengths)) for _ in range(_SEVERAL.get(name, 1) - 1))
        length = min(lengths[i] for i in (of, *others))
        if name in ("max", "amax", "amin", "min", "median", "kthvalue", "norm"):
            length = 1
        elif name == "topk":
            length = min(2, length)
        elif name == "max_pool1d":
            length = max(1, length - 1)
        add(Step(name, (of, *others)), length)
    weights = [draw.choice((0, 1, -1, 2)) for _ in range(sum(lengths))]
    weights[-1] = weights[-1] or 1
    return Straight(start, tuple(steps), tuple(weights))
