"""What a convention means: the selection by which an operation returns what a framework does.

A column of the atlas has what a framework returned at each kink that was probed. Here that is put
in the words of a selection, which then holds for every tie of the operation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from math import isclose

from kinkcheck.atlas import table
from kinkcheck.atlas.probes import ANSWERED_BY, Probe
from kinkcheck.ops.row import OF_ORDERS
from kinkcheck.ops.table import BY_NAME
from kinkcheck.selection import (
    As,
    Branch,
    Every,
    First,
    Kinks,
    Last,
    Minimal,
    Mix,
    Native,
    Selection,
    ranked,
    weight,
)

Weights = tuple[float, ...]
"""What a framework weighs the branches of one kink with."""


@dataclass(frozen=True)
class Form:
    """What a convention depends on in a call.

    Attributes:
        operation: the name of its row.
        form: which form of the row it is, where frameworks tell forms apart: ``along a dimension``.
        slopes: of a pointwise operation those on the left and right of each kink of the call, where
            they are numbers.
        dtype: the type of its input: ``float16``.
    """

    operation: str
    form: str = ""
    slopes: tuple[tuple[float, float], ...] = ()
    dtype: str = ""


@dataclass(frozen=True)
class Meaning:
    """What a convention is at an operation.

    Attributes:
        selection: the same in other words; native where there are none.
        why: why it stays native though the framework has another convention or none; empty if it
            does not.
    """

    selection: Selection
    why: str = ""


@lru_cache(maxsize=4096)
def meaning(convention: As, of: Form) -> Meaning:
    """What a convention is at an operation.

    Where it is what the installed PyTorch has, it is native, bit for bit.

    Args:
        convention: the convention.
        of: the operation.

    >>> meaning(As("jax"), Form("abs")).selection
    Branch(alpha=1.0)
    >>> meaning(As("tensorflow"), Form("adaptive_max_pool2d"))
    Meaning(selection=Native(), why='tensorflow-2.21 has no adaptive_max_pool2d')
    """
    if convention.name == installed():
        return Meaning(Native())
    name = ANSWERED_BY.get(of.operation, of.operation)
    held = table.read()
    forms = list(dict.fromkeys(p.form for p in held.probes.values() if p.operation == name))
    if not forms:
        return Meaning(Native(), f"{of.operation} was not probed")
    # The places of an order are forms of their own, and tell of the operation together.
    chosen = [each for each in forms if each.startswith("place ")] or [
        of.form if of.form in forms else forms[0]
    ]
    said = {form: held.weights(convention.name, name, form, of.dtype) for form in chosen}
    if installed() in held.columns and said == {
        form: held.weights(installed(), name, form, of.dtype) for form in chosen
    }:
        return Meaning(Native())
    if not any(weights for kinks in said.values() for weights in kinks.values()):
        return Meaning(Native(), _why_not(convention, name, chosen))
    row = BY_NAME[of.operation]
    if row.accepted == OF_ORDERS:
        found = _in_order(said)
    else:
        probes = held.at(name, chosen[0])
        given = [(probes[kink], weights) for kink, weights in said[chosen[0]].items()]
        found = _in_words(of, given) if len(chosen) == 1 else None
    if found is None or not row.has(found):
        return Meaning(Native(), f"no selection is what {convention.name} returns at {name}")
    return Meaning(found)


@cache
def installed() -> str:
    """The name that the column of the installed PyTorch has.

    >>> installed().startswith("torch-")
    True
    """
    return f"torch-{'.'.join(version('torch').split('.')[:2])}"


def _why_not(convention: As, name: str, forms: Sequence[str]) -> str:
    found = table.read().column(convention.name).found
    probes = [p for p in table.read().probes.values() if p.operation == name and p.form in forms]
    given = [found[probe.name] for probe in probes if probe.name in found]
    if not any(each.derivative for each in given):
        return f"{convention.name} has no {name}"
    if any("nan" in each.lies for each in given):
        return f"{convention.name} returns NaN at {name}"
    return f"no selection is what {convention.name} returns at {name}"


def _in_words(of: Form, said: Sequence[tuple[Probe, Weights | None]]) -> Selection | None:
    shape = said[0][0].shape
    if shape == "Sides":
        return _sides(of, said)
    if shape == "Ball":
        points = {each for _, weights in said for each in weights or ()}
        (alpha,) = points if len(points) == 1 else (None,)
        return None if alpha is None else Branch(alpha) if alpha else Minimal()
    ties = {
        len(weights): weights
        for probe, weights in said
        if weights is not None and probe.kink == f"tie of {len(weights)}"
    }
    return next((each for each in _picks(ties) if _gives(each, ties)), None)


def _sides(of: Form, said: Sequence[tuple[Probe, Weights | None]]) -> Selection | None:
    kinks: dict[int, tuple[tuple[float, float], Weights | None]] = {}
    for probe, weights in said:
        (left, *_), (right, *_) = probe.branches
        kinks.setdefault(probe.index, ((left, right), weights))
    known = list(kinks.values())
    if of.slopes and len(of.slopes) != len(known):
        # A clamp with one bound.
        by_slopes = dict(known)
        known = [(slopes, by_slopes.get(slopes)) for slopes in of.slopes]
    if any(weights is None for _, weights in known):
        return None
    alphas = tuple(weights[1] for _, weights in known if weights is not None)
    if len(known) == 1 and not 0 <= alphas[0] <= 1:
        ((left, right), _), (alpha,) = known[0], alphas
        # 0 whatever the slopes are, more likely than a multiple of theirs.
        if isclose((1 - alpha) * left + alpha * right, 0, abs_tol=1e-6):
            return Mix(((0.0, Native()),))
    return Branch(alphas[0]) if len(set(alphas)) == 1 else Kinks(alphas)


def _picks(ties: dict[int, Weights]) -> Iterator[Selection]:
    yield from (Minimal(), First(), Last(), Every())
    if set(ties) == {2}:
        yield Mix(((ties[2][0], First()), (ties[2][1], Last())))


def _gives(selection: Selection, ties: dict[int, Weights]) -> bool:
    return bool(ties) and all(
        isclose(weight(selection, rank if ranked(selection) else None, size, 1 / size, None), each,
                abs_tol=1e-6)
        for size, weights in ties.items()
        for rank, each in enumerate(weights)
    )  # fmt: skip


def _in_order(said: dict[str, dict[str, Weights | None]]) -> Selection | None:
    """``first`` where each place of the order has the entry of its own rank."""
    for place, kinks in enumerate(said.values()):
        for weights in kinks.values():
            if weights is None or [round(w, 6) for w in weights] != [
                float(rank == place) for rank in range(len(weights))
            ]:
                return None
    return First()
