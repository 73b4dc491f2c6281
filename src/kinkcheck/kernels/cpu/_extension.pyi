"""The compiled part. Tensors are addresses of dense memory; threads are a number."""

from typing import Final

Axis = tuple[int, ...]

openmp: Final[bool]

class Problem:
    """outer × depth × height × width × inner.

    An axis is inputs, outputs, kernel, stride, padding, dilation.
    """

    def __init__(self, outer: int, inner: int, depth: Axis, height: Axis, width: Axis) -> None: ...

class Choice:
    def __init__(self, kind: str, seed: int, picked: list[float], others: list[float]) -> None: ...

def forward(problem: Problem, element: int, input: int, output: int, threads: int) -> None: ...
def ties(
    problem: Problem, element: int, input: int, output: int, threads: int
) -> tuple[int, int]: ...
def count_equal(
    bytes: int, entries: int, count: int, numbers: int, how_many: int, threads: int
) -> list[int]: ...
def count_attained(
    bytes: int, entries: int, values: int, outer: int, count: int, inner: int, threads: int
) -> int: ...
def count_gathered(
    bytes: int,
    entries: int,
    rows: int,
    where: int,
    of: int,
    none: int,
    values: int,
    inner: int,
    threads: int,
) -> int: ...
def linear(
    problem: Problem,
    element: int,
    choice: Choice,
    watch_infinity: bool,
    input: int,
    given: int,
    result: int,
    threads: int,
    backward: bool,
) -> bool: ...
def instruction_sets() -> list[str]: ...
def use_instruction_set(name: str) -> None: ...
def instruction_set_in_use() -> str: ...
