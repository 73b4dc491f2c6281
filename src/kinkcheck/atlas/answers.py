"""What is returned at each kink, in words: kinks alike and frameworks that agree side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose

from kinkcheck.atlas.clarke import weights
from kinkcheck.atlas.probes import Probe
from kinkcheck.atlas.table import Column, Found, Table


@dataclass(frozen=True)
class Answer:
    """What some frameworks return at some kinks.

    Attributes:
        returned: in words: ``0.5``; ``first``, ``last``, ``shared`` or ``each 1`` of the entries
            that tie; ``nan``, ``error``, ``lacking``.
        lies: where that is, in the words of :data:`kinkcheck.atlas.clarke.LIES`.
        columns: the names of the columns.
    """

    returned: str
    lies: tuple[str, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Kinks:
    """Kinks of one form of an operation.

    Attributes:
        operation: the row of :mod:`kinkcheck.ops`.
        form: which form of it.
        kinks: where.
    """

    operation: str
    form: str
    kinks: tuple[str, ...]

    @property
    def title(self) -> str:
        """``max, along a dimension``."""
        return f"{self.operation}, {self.form}" if self.form else self.operation

    @property
    def where(self) -> str:
        """The kinks, what they have in common said once: ``tie of 2, 3, 4``."""
        said: dict[str, list[str]] = {}
        for kink in self.kinks:
            start = next((each for each in ("tie of ", "at ") if kink.startswith(each)), "")
            said.setdefault(start, []).append(kink.removeprefix(start))
        return ", ".join(start + ", ".join(ends) for start, ends in said.items())


@dataclass(frozen=True)
class Answers(Kinks):
    """Kinks at which each framework does the same.

    Attributes:
        answers: what is returned, the most frequent first; errors and what is lacking last.
    """

    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Difference(Kinks):
    """Kinks at which two columns differ.

    Attributes:
        how: in which type, compiled or layout; empty for the usual one.
        returned: what each of the two returns.
    """

    how: str
    returned: tuple[str, str]


_NOTHING = ("error", "lacking")


def word(probe: Probe, found: Found | None) -> str:
    """What a probe gave, in a word if there is one.

    >>> from kinkcheck import atlas
    >>> tied = {probe.name: probe for probe in atlas.PROBES}["amax: tie of 3"]
    >>> word(tied, atlas.Found((1 / 3, 1 / 3, 1 / 3))), word(tied, atlas.Found((0.0, 0.0, 1.0)))
    ('shared', 'last')
    """
    if found is None:
        return "lacking"
    if found.error:
        return "error"
    if found.lies == ("nan",):
        return "nan"
    if probe.shape == "Sides":
        return _number(found.derivative[0])
    # Of these the order of the entries is that of the outputs.
    named = weights(probe, found.derivative)
    if named is None:
        return ", ".join(map(_number, found.derivative))
    if not any(named):
        return "0"
    if probe.shape == "Picks":
        count = len(named)
        if sum(named) == max(named) == 1:
            at = named.index(1)
            by_place = "place" in probe.form
            if by_place or 0 < at < count - 1:
                return f"entry {at + 1}"
            return "first" if at == 0 else "last"
        if set(named) == {1.0}:
            return "each 1"
        if all(isclose(each, 1 / count, rel_tol=1e-6) for each in named):
            return "shared"
    return ", ".join(map(_number, named))


def answers(
    table: Table, columns: Sequence[Column], probes: Iterable[Probe], lacking: bool = False
) -> list[Answers]:
    """What some columns have at some probes, in the order of the probes.

    Args:
        table: that has them.
        columns: which.
        probes: which; those that no column has are left out.
        lacking: whether frameworks that lack the operation are listed, too.

    >>> from kinkcheck import atlas
    >>> table = atlas.read()
    >>> (at_zero,) = answers(table, list(table.columns.values()), [table.probes["relu: at 0"]])
    >>> [answer.returned for answer in at_zero.answers]
    ['0']
    """
    found: dict[tuple[str, str, tuple[Answer, ...]], list[str]] = {}
    for probe in probes:
        said = _grouped(probe, {column.name: column.found.get(probe.name) for column in columns})
        kept = tuple(answer for answer in said if lacking or answer.returned != "lacking")
        if any(answer.returned != "lacking" for answer in said):
            found.setdefault((probe.operation, probe.form, kept), []).append(probe.kink)
    return [Answers(*key[:2], tuple(kinks), key[2]) for key, kinks in found.items()]


def _grouped(probe: Probe, found: Mapping[str, Found | None]) -> tuple[Answer, ...]:
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, each in found.items():
        lies = () if each is None else each.lies
        groups.setdefault((word(probe, each), lies), []).append(name)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0] in _NOTHING, -len(item[1])))
    return tuple(Answer(*said, tuple(names)) for said, names in ordered)


def differences(table: Table, one: Column, other: Column) -> list[Difference]:
    """Where two columns differ: also in other types, compiled, or in another layout.

    What both have, and neither fails at.

    >>> from kinkcheck import atlas
    >>> table = atlas.read()
    >>> two = table.column("torch-2.9"), table.column("torch-2.13")
    >>> {each.how for each in differences(table, *two)}
    {'float32, compiled'}
    """
    found: dict[tuple[str, str, str, tuple[str, str]], list[str]] = {}
    for probe in table.probes.values():
        here, there = one.found.get(probe.name), other.found.get(probe.name)
        if here is None or there is None:
            continue
        usual = word(probe, here), word(probe, there)
        ways = [_by_way(each) for each in (here, there)]
        for how in dict.fromkeys([*ways[0], *ways[1]]):
            one_said, other_said = (word(probe, way.get(how, way[""])) for way in ways)
            said = one_said, other_said
            if said[0] != said[1] and "error" not in said and (not how or said != usual):
                found.setdefault((probe.operation, probe.form, how, said), []).append(probe.kink)
    return [
        Difference(operation, form, tuple(kinks), how, said)
        for (operation, form, how, said), kinks in found.items()
    ]


def _by_way(found: Found) -> dict[str, Found]:
    """What was found, by how it was measured."""
    return {"": found, **{departs.how: departs for departs in found.differs}}


def spoken(names: Sequence[str], table: Table) -> str:
    """The names of columns, versions left out where a framework has all of its own.

    >>> from kinkcheck import atlas
    >>> table = atlas.read()
    >>> spoken([name for name in table.columns if name.startswith("torch")], table)
    'torch'
    >>> spoken(["torch-2.6", "torch-2.9", "jax-0.10"], table)
    'torch-2.6 to 2.9, jax'
    """
    of_framework: dict[str, list[str]] = {}
    for name, column in table.columns.items():
        of_framework.setdefault(column.framework, []).append(name)
    if set(names) == set(table.columns):
        return "all"
    said = []
    for framework, versions in of_framework.items():
        here = [name for name in versions if name in names]
        if here == versions:
            said.append(framework)
        elif here:
            places = [versions.index(name) for name in here]
            run = places == list(range(places[0], places[-1] + 1)) and len(here) > 1
            last = here[-1].removeprefix(f"{framework}-")
            said += [f"{here[0]} to {last}"] if run else here
    return ", ".join(said)


def _number(each: float) -> str:
    return f"{each + 0.0:.4g}"
