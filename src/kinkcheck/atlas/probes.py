"""The smallest inputs that meet each kink of each operation, in the words of no framework.

A probe names a call (``clamp``, with its settings), the numbers that it takes, one number of what
comes out, and what the derivative of that number could be: the derivatives of the smooth pieces
that meet there, or a ball. They are those of the mathematical function; that of the surrogate for
fake quantisation.

Nothing but Python is needed, so that a probe can be read beside any framework.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Numbers = Sequence[Any]
"""Numbers in as many nested lists as there are dimensions."""

TIES = (2, 3, 4)
"""How many entries tie."""


@dataclass(frozen=True)
class Probe:
    """One number of what an operation returns at one of its kinks.

    Attributes:
        operation: the row of :mod:`kinkcheck.ops` that has the kink: ``clamp``.
        form: which form of it, where there are several: ``along a dimension``.
        kink: where: ``at 1``, ``tie of 2``, ``zero``.
        call: what is called: a key of an adapter's calls.
        settings: its arguments that are no tensors.
        inputs: the tensors.
        output: which entry of what comes out, counted row by row.
        value: what that entry is.
        places: the numbers that can move it, each as the input and the place in it, row by row.
        branches: the derivatives of the pieces that meet, each a slope for every place, in the
            order in which the selections count them.
        ball: at the zero of a norm, the power q of the ball {u: ‖u‖_q ≤ 1}; the derivatives are
            the vectors Aᵀu.
        map: A, a row for each entry of the norm.
        index: for a function of one number the number of the kink in its row, from 0.
        rounding: how far its constants are apart between frameworks.
    """

    operation: str
    kink: str
    inputs: tuple[Numbers, ...]
    places: tuple[tuple[int, int], ...]
    form: str = ""
    call: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    output: int = 0
    value: float = 0.0
    branches: tuple[tuple[float, ...], ...] = ()
    ball: float | None = None
    map: tuple[tuple[float, ...], ...] = ()
    index: int = 0
    rounding: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "call", self.call or self.operation)

    @property
    def name(self) -> str:
        """``max, along a dimension: tie of 2``."""
        form = f", {self.form}" if self.form else ""
        return f"{self.operation}{form}: {self.kink}"

    @property
    def shape(self) -> str:
        """The shape of its branches: ``Sides``, ``Picks`` or ``Ball``."""
        if self.ball is not None:
            return "Ball"
        return "Sides" if self.kink.startswith("at ") else "Picks"


def _sides(
    operation: str,
    *kinks: tuple[float, float, float, float],
    also: Sequence[Numbers] = (),
    form: str = "",
    rounding: float = 0.0,
    **settings: Any,
) -> Iterator[Probe]:
    """Each kink is where it is, the value there, and the slopes on its left and right."""
    for index, (at, value, left, right) in enumerate(kinks):
        for where in (at, -0.0) if at == 0 else (at,):
            yield Probe(
                operation, f"at {where:g}", ([where], *also), ((0, 0),), form, settings=settings,
                value=value, branches=((left,), (right,)), index=index, rounding=rounding,
            )  # fmt: skip


def _picks(
    operation: str,
    kink: str,
    inputs: tuple[Numbers, ...],
    places: Sequence[tuple[int, int]],
    value: float = 1.0,
    **others: Any,
) -> Probe:
    """The output is one of the entries at the places."""
    return Probe(
        operation, kink, inputs, tuple(places), value=value, branches=_ones(len(places)), **others
    )


def _ones(count: int) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(place == branch) for place in range(count)) for branch in range(count))


def _tied(places: Sequence[int], size: int, other: float) -> list[float]:
    """A list in which the entries at some places are 1 and the others are equal."""
    return [1.0 if place in places else other for place in range(size)]


_AMONG_FIVE = {2: (1, 3), 3: (1, 3, 4), 4: (0, 1, 3, 4)}
_IN_A_SQUARE = {2: (1, 2), 3: (1, 2, 3), 4: (0, 1, 2, 3)}
_SIGNED_ZEROS = {"tie of 0 and -0": (0.0, -0.0), "tie of -0 and 0": (-0.0, 0.0)}


def _along(
    operation: str, largest: bool, form: str = "", call: str = "", zeros: bool = True,
    **settings: Any,
) -> Iterator[Probe]:  # fmt: skip
    """Some of five entries."""
    others: dict[str, Any] = {"form": form, "call": call, "settings": settings}
    beyond = 0.0 if largest else 2.0
    for count in TIES:
        places = _AMONG_FIVE[count]
        entries = _tied(places, 5, beyond)
        yield _picks(operation, f"tie of {count}", (entries,), [(0, p) for p in places], **others)
    for kink, (one, other) in _SIGNED_ZEROS.items() if zeros else ():
        beyond = -1.0 if largest else 1.0
        entries = [beyond, one, beyond, other, beyond]
        yield _picks(operation, kink, (entries,), [(0, 1), (0, 3)], 0.0, **others)


def _of_two(operation: str, form: str = "", call: str = "") -> Iterator[Probe]:
    for kink, (one, other) in {"tie of 2": (1.0, 1.0), **_SIGNED_ZEROS}.items():
        yield _picks(operation, kink, ([one], [other]), [(0, 0), (1, 0)], one, form=form, call=call)


def _pools() -> Iterator[Probe]:
    for dimensions, kernel in ((1, (4,)), (2, (2, 2)), (3, (1, 2, 2))):
        yield from _window(f"max_pool{dimensions}d", dimensions, kernel=kernel)
        yield from _window(f"adaptive_max_pool{dimensions}d", dimensions, output=(1,) * dimensions)
    for dimensions, kernel in ((2, (2, 2)), (3, (2, 2, 2))):
        yield from _window(f"fractional_max_pool{dimensions}d", dimensions, kernel=kernel)
    part = "of which a part is padding"
    yield from _window("max_pool2d", 2, part, kernel=(3, 3), padding=(1, 1))
    yield _picks(
        "max_pool2d", "tie of 9", ([[_rows([1.0] * 9, 3)]],), _own(9),
        form="3 by 3", settings={"kernel": (3, 3)},
    )  # fmt: skip
    for dimensions in (1, 2, 3):
        size = 2**dimensions
        zeros: list[Any] = [0.0] * size
        for _ in range(dimensions - 1):
            zeros = _rows(zeros, 2)
        yield Probe(
            f"norm_pool{dimensions}d", "zero", ([[zeros]],), _own(size),
            settings={"power": 2.0, "kernel": (2,) * dimensions}, ball=2.0, map=_ones(size),
        )  # fmt: skip


def _window(operation: str, dimensions: int, form: str = "", **settings: Any) -> Iterator[Probe]:
    """Of a window of 2 by 2, in which the places differ row by row and column by column."""
    ties = {f"tie of {count}": _tied(_IN_A_SQUARE[count], 4, 0.0) for count in TIES}
    for kink, (one, other) in _SIGNED_ZEROS.items():
        ties[kink] = [-1.0, one, other, -1.0]
    for kink, entries in ties.items():
        tied = [place for place, entry in enumerate(entries) if entry == max(entries)]
        shaped: list[Any] = entries if dimensions == 1 else _rows(entries, 2)
        if operation == "fractional_max_pool3d":
            # PyTorch wants more than one window; its last one has the entries.
            low = [-2.0] * 3
            shaped = [[low] * 3, [low, *([-2.0, *row] for row in shaped)], [low] * 3]
            tied = [(13, 14, 16, 17)[place] for place in tied]
        elif dimensions == 3:
            shaped = [shaped]
        yield _picks(
            operation, kink, ([[shaped]],), [(0, place) for place in tied], max(entries),
            form=form, settings=settings,
        )  # fmt: skip


def _rows(entries: list[Any], columns: int) -> list[list[Any]]:
    return [entries[start : start + columns] for start in range(0, len(entries), columns)]


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def _pointwise() -> Iterator[Probe]:
    yield from _sides("relu", (0.0, 0.0, 0.0, 1.0))
    yield from _sides("hardtanh", (-1.0, -1.0, 0.0, 1.0), (1.0, 1.0, 1.0, 0.0), min=-1.0, max=1.0)
    yield from _sides("relu6", (0.0, 0.0, 0.0, 1.0), (6.0, 6.0, 1.0, 0.0))
    yield from _sides("leaky_relu", (0.0, 0.0, 0.25, 1.0), slope=0.25)
    yield from _sides("prelu", (0.0, 0.0, 0.25, 1.0), also=([0.25],))
    yield from _sides("rrelu", (0.0, 0.0, 0.25, 1.0), lower=0.125, upper=0.375)
    yield from _sides("clamp", (-1.0, -1.0, 0.0, 1.0), (1.0, 1.0, 1.0, 0.0), min=-1.0, max=1.0)
    yield from _sides(
        "clamp", (1.0, 1.0, 0.0, 0.0), form="no room between the bounds", min=1.0, max=1.0
    )
    for at in (0.0, 1.0):
        yield from _sides("clamp_min", (at, at, 0.0, 1.0), bound=at)
        yield from _sides("clamp_max", (at, at, 1.0, 0.0), bound=at)
    yield from _clamps_between()
    yield from _sides("hardswish", (-3.0, 0.0, 0.0, -0.5), (3.0, 3.0, 1.5, 1.0))
    yield from _sides("hardsigmoid", (-3.0, 0.0, 0.0, 1 / 6), (3.0, 1.0, 1 / 6, 0.0))
    yield from _sides("elu", (0.0, 0.0, 0.5, 1.0), alpha=0.5)
    yield from _sides("selu", (0.0, 0.0, _SELU_SCALE * _SELU_ALPHA, _SELU_SCALE), rounding=1e-5)
    yield from _sides("softshrink", (-0.5, 0.0, 1.0, 0.0), (0.5, 0.0, 0.0, 1.0), lambd=0.5)
    yield from _sides("threshold", (1.0, 1.0, 0.0, 1.0), threshold=1.0)
    yield from _sides("abs", (0.0, 0.0, -1.0, 1.0))
    for operation in ("fake_quantize", "fake_quantize_channel"):
        yield from _sides(
            operation, (-2.0, -2.0, 0.0, 1.0), (1.5, 1.5, 1.0, 0.0), scale=0.5, min=-4, max=3
        )


def _clamps_between() -> Iterator[Probe]:
    one, two = (0, 0), (1, 0)
    yield _picks("clamp_between", "tie of 2", ([1.0], [1.0], [2.0]), [one, two], form="lower bound")
    yield _picks(
        "clamp_between", "tie of 2", ([1.0], [0.0], [1.0]), [one, (2, 0)], form="upper bound"
    )
    yield _picks("clamp_between", "tie of 3", ([1.0], [1.0], [1.0]), [one, two, (2, 0)])
    yield from _of_two("clamp_min_between")
    yield from _of_two("clamp_max_between")


def _extremes() -> Iterator[Probe]:
    for operation, largest in (("max", True), ("min", False)):
        yield from _along(operation, largest, "of all entries", f"{operation} of all")
        yield from _along(operation, largest, "along a dimension", f"{operation} along")
        yield from _of_two(operation, "of two tensors", f"{operation} of two")
        yield from _along(f"a{operation}", largest)
    for operation in ("maximum", "minimum", "fmax", "fmin"):
        yield from _of_two(operation)


def _scattered() -> Iterator[Probe]:
    for reduce, largest in (("amax", True), ("amin", False)):
        beyond = 0.0 if largest else 2.0
        for operation in ("scatter_reduce", "index_reduce"):
            for count in TIES:
                settings = {"reduce": reduce}
                places = _AMONG_FIVE[count]
                yield _picks(
                    operation, f"tie of {count}", ([beyond], _tied(places, 5, beyond)),
                    [(1, place) for place in places], form=reduce, settings=settings,
                )  # fmt: skip
                places = places[1:]
                yield _picks(
                    operation, f"tie of {count}", ([1.0], _tied(places, 5, beyond)),
                    [(0, 0), *((1, place) for place in places)],
                    form=f"{reduce} with what was there", settings=settings,
                )  # fmt: skip
    for reduce, largest in (("max", True), ("min", False)):
        yield from _along("segment_reduce", largest, reduce, reduce=reduce)
    yield from _along("embedding_bag", True)


def _orders() -> Iterator[Probe]:
    for operation, largest in (
        ("sort", False), ("msort", False), ("topk", True), ("kthvalue", False),
    ):  # fmt: skip
        for count in TIES:
            places = _AMONG_FIVE[count]
            entries = _tied(places, 5, 0.0 if largest else 2.0)
            for place in range(count):
                own = {"topk": {"k": 4}, "kthvalue": {"k": place + 1}}.get(operation, {})
                yield _picks(
                    operation, f"tie of {count}", (entries,), [(0, p) for p in places],
                    form=f"place {place + 1} of the tie", settings=own,
                    output=0 if operation == "kthvalue" else place,
                )  # fmt: skip
    for count, entries in {
        2: [0.0, 1.0, 9.0, 1.0, -1.0], 3: [0.0, 1.0, 9.0, 1.0, 1.0], 4: [1.0, 1.0, 9.0, 1.0, 1.0],
    }.items():  # fmt: skip
        tied = [(0, place) for place in _AMONG_FIVE[count]]
        for operation in ("median", "nanmedian"):
            for form, call in (("of all entries", "of all"), ("along a dimension", "along")):
                yield _picks(
                    operation, f"tie of {count}", (entries,), tied,
                    form=form, call=f"{operation} {call}",
                )  # fmt: skip
    for count, entries in {
        2: [0.0, 1.0, 2.0, 1.0, 3.0], 3: [0.0, 1.0, 2.0, 1.0, 1.0], 4: [1.0, 1.0, 0.0, 1.0, 1.0],
    }.items():  # fmt: skip
        tied = [(0, place) for place in _AMONG_FIVE[count]]
        yield _picks("mode", f"tie of {count}", (entries,), tied)
    for operation, largest in (("cummax", True), ("cummin", False)):
        for count in TIES:
            entries = _tied(range(count), 5, 0.0 if largest else 2.0)
            yield _picks(
                operation, f"tie of {count}", (entries,), [(0, p) for p in range(count)],
                output=count - 1,
            )  # fmt: skip


def _norms() -> Iterator[Probe]:
    yield from _norm("norm", lambda entries: ((entries,), _own(len(entries)), 1))
    yield from _norm("dist", lambda entries: (_apart(entries), _pair(len(entries)), 2))
    yield from _norm("cdist", _rows_apart)
    yield from _norm("pdist", _rows_of_one)
    yield Probe("abs_complex", "zero", ([0.0], [0.0]), ((0, 0), (1, 0)), ball=2.0, map=_ones(2))
    # The norm of three entries less their mean, over the root of 2.
    centred = tuple(
        tuple(((row == column) - 1 / 3) / 2**0.5 for column in range(3)) for row in range(3)
    )
    yield Probe("std", "zero", ([1.0, 1.0, 1.0],), _own(3), ball=2.0, map=centred)


_Places = tuple[tuple[int, int], ...]


def _own(count: int) -> _Places:
    return tuple((0, place) for place in range(count))


def _pair(count: int) -> _Places:
    return (*_own(count), *((1, place) for place in range(count)))


def _apart(entries: list[float]) -> tuple[Numbers, ...]:
    """Two vectors of which the entries are the difference."""
    return [entry + 1.0 for entry in entries], [1.0] * len(entries)


def _rows_apart(entries: list[float]) -> tuple[tuple[Numbers, ...], _Places, int]:
    one, other = _apart(entries)
    return ([one], [other]), _pair(len(entries)), 2


def _rows_of_one(entries: list[float]) -> tuple[tuple[Numbers, ...], _Places, int]:
    one, other = _apart(entries)
    return ([one, other],), _own(2 * len(entries)), 2


def _norm(operation: str, made: Any) -> Iterator[Probe]:
    """The kinks of a norm, from how its inputs and places are made of its entries."""

    def probe(name: str, kink: str, entries: list[float], **others: Any) -> Probe:
        inputs, places, _ = made(entries)
        return Probe(name, kink, inputs, places, call=operation, **others)

    def slopes(*branches: Sequence[float]) -> tuple[tuple[float, ...], ...]:
        """The second vector moves the other way."""
        signs = (1.0, -1.0)[: made([0.0])[2]]
        return tuple(
            tuple(sign * slope if slope else 0.0 for sign in signs for slope in branch)
            for branch in branches
        )

    for power, dual, form in ((2.0, 2.0, ""), (3.0, 1.5, "power 3")):
        yield probe(
            operation, "zero", [0.0, 0.0], form=form, settings={"power": power},
            ball=dual, map=slopes(*_ones(2)),
        )  # fmt: skip
    yield probe(
        f"{operation}_1", "at 0", [0.0], settings={"power": 1.0}, branches=slopes((-1.0,), (1.0,))
    )
    infinite = {"power": float("inf")}
    for count in TIES:
        signs = [(-1.0) ** place for place in range(count)]
        active = [[sign * slope for sign, slope in zip(signs, one, strict=True)]
                  for one in _ones(count)]  # fmt: skip
        yield probe(
            f"{operation}_inf", f"tie of {count}", signs, settings=infinite, value=1.0,
            branches=slopes(*active),
        )  # fmt: skip
    yield probe(
        f"{operation}_inf", "zero", [0.0, 0.0], settings=infinite, ball=1.0,
        map=slopes(*_ones(2)),
    )  # fmt: skip


def _all() -> Iterator[Probe]:
    by_operation: dict[str, list[Probe]] = {}
    for probes in (_pools, _pointwise, _extremes, _scattered, _orders, _norms):
        for probe in probes():
            by_operation.setdefault(probe.operation, []).append(probe)
    for together in by_operation.values():
        yield from together


PROBES: tuple[Probe, ...] = tuple(_all())
"""All probes; those of one operation are side by side."""

ANSWERED_BY: dict[str, str] = {"prelu_kernel": "prelu"}
"""Rows whose kinks another row has, under another name of PyTorch."""
