"""Selections: which element of the generalised derivative a backward pass returns at a kink.

A selection is a pure value. What it means for an operation is defined by the operation's branches
and by its *native* and *minimal* choice (see :mod:`kinkcheck.ops`); the same selection therefore
means the same thing for every operation:

============== ========================= =========================================================
text           class                     chosen derivative at a kink
============== ========================= =========================================================
``native``     :class:`Native`           what ``torch`` returns, bit for bit
``minimal``    :class:`Minimal`          the element of least norm of the Clarke subdifferential
``hybrid:β``   :class:`Hybrid`           native + β (minimal − native)
``first``      :class:`First`            the first active branch
``last``       :class:`Last`             the last active branch
``random:s``   :class:`Random`           one active branch, drawn with seed s
``uniform:s``  :class:`Uniform`          weight drawn from [0, 1) with seed s on the second of two
``branch:α``   :class:`Branch`           weight α on the second of two branches (ReLU'(0) = α)
``kinks:α,..`` :class:`Kinks`            weight α on the right of each kink, in their order
``every``      :class:`Every`            weight 1 on every active branch
``mix:...``    :class:`Mix`              a sum of others, each with a factor
``as:name``    :class:`As`               what another framework or version of PyTorch returns
``limit:s``    :class:`Limit`            the branch that stays active along a random direction
============== ========================= =========================================================

Source: R. Boustany, TMLR 2024, section 2 (native, minimal, hybrid); D. Bertoin et al., NeurIPS
2021 (ReLU'(0) = α).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from typing import Any, ClassVar

from kinkcheck.atlas import table
from kinkcheck.errors import InputError, unknown


@dataclass(frozen=True)
class Selection:
    """Base class of the selections; ``str(selection)`` is the text form.

    >>> [str(s) for s in (Native(), Hybrid(10), Random(7))]
    ['native', 'hybrid:10', 'random:7']
    """

    form: ClassVar[str]
    """How the text form is written: ``hybrid:BETA``."""

    # Written once, since torch.compile follows the reading of an attribute but not the formatting
    # of a number. No field: the compiler of PyTorch 2.6 would hand it to the constructor.
    _text = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_text", self._write())

    def _write(self) -> str:
        return self.kind

    @property
    def selection(self) -> Selection:
        """Itself: a selection is the simplest choice, one that never changes."""
        return self

    @property
    def kind(self) -> str:
        """The first word of the text form.

        >>> Hybrid(10).kind
        'hybrid'
        """
        return type(self).__name__.lower()

    def __str__(self) -> str:
        return self._text


@dataclass(frozen=True)
class Native(Selection):
    """What ``torch`` returns, bit for bit."""

    form: ClassVar[str] = "native"


@dataclass(frozen=True)
class Minimal(Selection):
    """The element of least norm of the Clarke subdifferential."""

    form: ClassVar[str] = "minimal"


@dataclass(frozen=True)
class Hybrid(Selection):
    """native + β (minimal − native).

    For a maximum with m active branches its squared norm is 1/m + (1 − β)² (1 − 1/m); it lies in
    the Clarke subdifferential exactly when 0 ≤ β ≤ m/(m − 1).

    Raises:
        InputError: β is not a finite number.
    """

    form: ClassVar[str] = "hybrid:BETA"

    beta: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", _finite("hybrid", "beta", self.beta))
        super().__post_init__()

    def _write(self) -> str:
        return f"hybrid:{_shortest(self.beta)}"


@dataclass(frozen=True)
class First(Selection):
    """The first active branch, in the order in which PyTorch scans them."""

    form: ClassVar[str] = "first"


@dataclass(frozen=True)
class Last(Selection):
    """The last active branch, in the order in which PyTorch scans them."""

    form: ClassVar[str] = "last"


@dataclass(frozen=True)
class Random(Selection):
    """One active branch, each as likely as the others.

    The draw depends on the seed and on the position of the kink in its tensor and on nothing
    else, so that the same program at the same point gives the same gradient. Two sites of equal
    shape draw alike.

    Raises:
        InputError: the seed is not an integer in [0, 2⁶⁴).
    """

    form: ClassVar[str] = "random:SEED"

    seed: int

    def __post_init__(self) -> None:
        _require_seed(self.kind, self.seed)
        super().__post_init__()

    def _write(self) -> str:
        return f"random:{self.seed}"


@dataclass(frozen=True)
class Uniform(Selection):
    """A weight drawn uniformly from [0, 1) on the right of each kink, what it leaves on the left.

    Every draw lies between the two slopes: in the Clarke subdifferential of a pointwise operation,
    the only kind that has it. Seed and position decide as for ``random``. Source: the code
    published with D. Bertoin et al., NeurIPS 2021, which draws anew in each backward pass.

    Raises:
        InputError: the seed is not an integer in [0, 2⁶⁴).
    """

    form: ClassVar[str] = "uniform:SEED"

    seed: int

    def __post_init__(self) -> None:
        _require_seed(self.kind, self.seed)
        super().__post_init__()

    def _write(self) -> str:
        return f"uniform:{self.seed}"


@dataclass(frozen=True)
class Branch(Selection):
    """Weight α on the second branch of a two-branch operation, 1 − α on the first.

    For ReLU the branches are 0 and the identity, hence ReLU'(0) = α.

    Raises:
        InputError: α is not a finite number.
    """

    form: ClassVar[str] = "branch:ALPHA"

    alpha: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", _finite("branch", "alpha", self.alpha))
        super().__post_init__()

    def _write(self) -> str:
        return f"branch:{_shortest(self.alpha)}"


@dataclass(frozen=True)
class Kinks(Selection):
    """Weight α on the right of each kink of a pointwise operation, 1 − α on its left.

    ``kinks:1,0`` gives a clamp the slope 1 at both of its bounds. ``branch:α`` has one α for all.

    Attributes:
        alphas: as many as the call has kinks, in their order.

    Raises:
        InputError: there is none, or one is not a finite number.
    """

    form: ClassVar[str] = "kinks:ALPHA,..."

    alphas: tuple[float, ...]

    def __post_init__(self) -> None:
        alphas = tuple(_finite("kinks", "alpha", alpha) for alpha in self.alphas)
        object.__setattr__(self, "alphas", alphas)
        super().__post_init__()

    def _write(self) -> str:
        return "kinks:" + ",".join(map(_shortest, self.alphas))

    def at(self, count: int) -> list[Branch]:
        """What is chosen at each kink of a call.

        Args:
            count: how many there are.

        Raises:
            InputError: there are more or fewer.

        >>> parse("kinks:1,0").at(2)
        [Branch(alpha=1.0), Branch(alpha=0.0)]
        """
        if len(self.alphas) != count:
            raise InputError(f"{self}: the call has {count} kink{'s' * (count != 1)}")
        return [Branch(alpha) for alpha in self.alphas]


@dataclass(frozen=True)
class Every(Selection):
    """Weight 1 on every active branch, as code has that compares entries with their maximum.

    At a tie it is outside the Clarke subdifferential: the branches count more than once in all.
    ``torch.cdist(p=inf)`` returns it.
    """

    form: ClassVar[str] = "every"


@dataclass(frozen=True)
class Mix(Selection):
    """A sum of selections, each with a factor: ``mix:0.5*first,0.5*last``.

    Everything between them, and with factors that do not sum to 1 what no choice gives, such as a
    tie that is counted twice. ``hybrid:β`` is ``mix:(1−β)*native,β*minimal``.

    Attributes:
        parts: factors, and selections other than ``random``, ``uniform``, ``kinks``, ``as``,
            ``limit`` and ``mix``.

    Raises:
        InputError: there is no part, a factor is not a finite number, or a part cannot be mixed.

    >>> str(Mix(((0.5, First()), (0.5, Last()))))
    'mix:0.5*first,0.5*last'
    """

    form: ClassVar[str] = "mix:FACTOR*SELECTION,..."

    parts: tuple[tuple[float, Selection], ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("mix: needs a factor and a selection, such as 0.5*first")
        parts = tuple((_finite("mix", "a factor", factor), part) for factor, part in self.parts)
        for _, part in parts:
            if isinstance(part, Random | Uniform | Kinks | As | Limit | Mix):
                raise InputError(f"mix: {part} cannot be a part of it")
        object.__setattr__(self, "parts", parts)
        super().__post_init__()

    def _write(self) -> str:
        return "mix:" + ",".join(f"{_shortest(factor)}*{part}" for factor, part in self.parts)

    @classmethod
    def read(cls, text: str) -> Mix:
        """The sum that stands behind ``mix:``.

        >>> Mix.read("2*minimal").parts
        ((2.0, Minimal()),)
        """
        split = [part.partition("*") for part in text.split(",")]
        return cls(tuple((float(factor), parse(part)) for factor, _, part in split))


@dataclass(frozen=True)
class As(Selection):
    """The convention of another framework, or of a version of PyTorch, at each operation.

    From the measured table of :mod:`kinkcheck.atlas`. An operation that the framework lacks, or at
    which it returns what no selection gives, stays native
    (:func:`kinkcheck.ops.conventions.meaning` says why).

    Attributes:
        name: a column of the table, such as ``torch-2.14``; of a framework the newest.

    Raises:
        InputError: the table has no such framework.

    >>> str(As("torch-2.13"))
    'as:torch-2.13'
    """

    form: ClassVar[str] = "as:FRAMEWORK"

    name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", table.read().column(self.name).name)
        super().__post_init__()

    def _write(self) -> str:
        return f"as:{self.name}"


@dataclass(frozen=True)
class Limit(Selection):
    """The branch that stays active when what is differentiated moves along a random direction.

    The direction is drawn from the seed. The gradient is, over the reals and for almost every
    direction, a limit of gradients at nearby points where the loss is differentiable: an element of
    its B-subdifferential (Nesterov 2005; Griewank 2013; Khan and Barton 2013, 2015). It belongs to
    a whole program: :meth:`kinkcheck.Tape.gradient` takes it, no single module does.

    Raises:
        InputError: the seed is not an integer in [0, 2⁶⁴).
    """

    form: ClassVar[str] = "limit:SEED"

    seed: int

    def __post_init__(self) -> None:
        _require_seed(self.kind, self.seed)
        super().__post_init__()

    def _write(self) -> str:
        return f"limit:{self.seed}"


def native_share(selection: Selection) -> float:
    """How much of the native derivative a selection keeps at a tie, beside its own weights.

    >>> [native_share(parse(text)) for text in ("native", "minimal", "hybrid:10", "last")]
    [1.0, 0.0, -9.0, 0.0]
    """
    if isinstance(selection, Hybrid):
        return 1 - selection.beta
    if isinstance(selection, Mix):
        return sum(factor * native_share(part) for factor, part in selection.parts)
    return float(isinstance(selection, Native))


def gain(selection: Selection) -> float:
    """How far a selection amplifies roundings of the derivatives that it is made of.

    It is the sum of the absolute values of their factors, 1 where one of them is chosen.

    >>> [gain(parse(text)) for text in ("native", "hybrid:10", "branch:0.5", "mix:2*last,-1*first")]
    [1.0, 19.0, 1.0, 3.0]
    """
    if isinstance(selection, Hybrid):
        return abs(selection.beta) + abs(1 - selection.beta)
    if isinstance(selection, Branch):
        return abs(selection.alpha) + abs(1 - selection.alpha)
    if isinstance(selection, Mix):
        return sum(abs(factor) * gain(part) for factor, part in selection.parts)
    return 1.0


def ranked(selection: Selection) -> bool:
    """Whether the weight of a branch depends on its place among the active ones.

    >>> ranked(parse("last")), ranked(parse("hybrid:10")), ranked(parse("mix:2*last"))
    (True, False, True)
    """
    if isinstance(selection, Mix):
        return any(ranked(part) for _, part in selection.parts)
    return isinstance(selection, (First, Last, Random, Uniform, Branch))


def weight(selection: Selection, rank: Any, size: Any, least: Any, drawn: Any) -> Any:
    """What a selection means: the weight of one active branch, beside its share of native.

    Written for numbers, rational ones too, and for tensors and arrays of them.

    Args:
        selection: any selection but ``limit``, whose weights the directions decide, and ``as``,
            which stands for another one at each operation.
        rank: the place of the branch among the active ones, from 0; asked only where
            :func:`ranked` is true.
        size: how many are active, at least 2.
        least: its weight in the element of least norm.
        drawn: what a seed draws: the rank, of ``random``; the weight on the second of two branches,
            of ``uniform``.

    >>> from fractions import Fraction
    >>> [weight(Hybrid(0.5), rank, 3, Fraction(1, 3), None) for rank in range(3)]
    [Fraction(1, 6), Fraction(1, 6), Fraction(1, 6)]
    """
    # Not by match, which torch.compile does not follow in every version of PyTorch.
    if isinstance(selection, Native):
        return 0 * least
    if isinstance(selection, Minimal):
        return least
    if isinstance(selection, Hybrid):
        return least * _number(selection.beta, least)
    if isinstance(selection, First):
        return (rank == 0) * 1
    if isinstance(selection, Last):
        return (rank == size - 1) * 1
    if isinstance(selection, Random):
        return (rank == drawn) * 1
    if isinstance(selection, (Uniform, Branch)):
        second = drawn if isinstance(selection, Uniform) else _number(selection.alpha, least)
        return rank * second + (1 - rank) * (1 - second)
    if isinstance(selection, Every):
        return 0 * least + 1
    if isinstance(selection, Mix):
        # Where a weight is counted, a factor would be rounded to the default type.
        return sum(
            _number(factor, least) * (weight(part, rank, size, least, drawn) + 0 * least)
            for factor, part in selection.parts
        )
    raise InputError(f"{selection} belongs to a whole program, not to a single operation")


def _number(value: float, like: Any) -> Any:
    """A number that can be multiplied with others without rounding them."""
    return Fraction(value) if isinstance(like, Fraction) else value


def parse(text: str | Selection) -> Selection:
    """The selection that a text form names; a selection is returned unchanged.

    Args:
        text: ``native``, ``minimal``, ``hybrid:BETA``, ``first``, ``last``, ``random:SEED``,
            ``uniform:SEED``, ``branch:ALPHA``, ``kinks:ALPHA,...``, ``every``,
            ``mix:FACTOR*SELECTION,...``, ``as:FRAMEWORK`` or ``limit:SEED``.

    Raises:
        InputError: the text names no selection.

    >>> parse("hybrid:10")
    Hybrid(beta=10.0)
    >>> parse("hybird:10")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: unknown selection 'hybird:10'; did you mean 'hybrid:BETA'? ...
    """
    if isinstance(text, Selection):
        return text
    if not isinstance(text, str):
        raise unknown("selection", text, _READERS)
    kind, colon, argument = text.partition(":")
    try:
        return _READER_OF_KIND[kind, bool(colon)](argument)
    except InputError as error:
        if kind == "as":
            raise
        accepted = ", ".join(_READERS)
        raise InputError(f"unknown selection {text!r} ({error}); accepted: {accepted}") from None
    except (KeyError, ValueError):
        raise unknown("selection", text, _READERS) from None


def separated(text: str) -> list[str]:
    """The text forms in a list with commas between them, which some forms have inside.

    >>> separated("minimal,kinks:0,1,mix:0.5*first,2*last,hybrid:10")
    ['minimal', 'kinks:0,1', 'mix:0.5*first,2*last', 'hybrid:10']
    """
    found: list[str] = []
    for piece in text.split(","):
        last = found[-1] if found else ""
        of_mix = last.startswith("mix:") and "*" in piece and not piece.startswith("mix:")
        if of_mix or (last.startswith("kinks:") and _is_number(piece)):
            found[-1] += f",{piece}"
        else:
            found.append(piece)
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_READERS: dict[str, Callable[[str], Selection]] = {
    Native.form: lambda _: Native(),
    Minimal.form: lambda _: Minimal(),
    Hybrid.form: lambda argument: Hybrid(float(argument)),
    First.form: lambda _: First(),
    Last.form: lambda _: Last(),
    Random.form: lambda argument: Random(int(argument)),
    Uniform.form: lambda argument: Uniform(int(argument)),
    Branch.form: lambda argument: Branch(float(argument)),
    Kinks.form: lambda argument: Kinks(tuple(map(float, argument.split(",")))),
    Every.form: lambda _: Every(),
    Mix.form: Mix.read,
    As.form: As,
    Limit.form: lambda argument: Limit(int(argument)),
}
FORMS = tuple(_READERS)
"""How the text forms of all selections are written."""

_READER_OF_KIND = {
    (form.partition(":")[0], ":" in form): reader for form, reader in _READERS.items()
}


def _require_seed(selection: str, seed: object) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise InputError(f"{selection}: seed must be an integer from 0 to 2**64 - 1, not {seed!r}")


def _finite(selection: str, name: str, value: float) -> float:
    if not isinstance(value, Real) or not abs(value) <= sys.float_info.max:
        raise InputError(f"{selection}: {name} must be a finite number, not {value!r}")
    return float(value)


def _shortest(value: float) -> str:
    """The shortest text that reads back as the same number: 10, 0.5, 1e-4."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
