"""``check``: PyTorch's ``gradcheck`` for functions that have kinks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from kinkcheck.errors import InputError
from kinkcheck.measure.forward import Chooser, Gradient
from kinkcheck.measure.function import Entry, Function
from kinkcheck.measure.quotients import ELEMENTS, Floats, Slopes, Values, unit
from kinkcheck.measure.standing import STANDS, Kind, Program, Search
from kinkcheck.measure.standing.dependence import dependent
from kinkcheck.measure.switch import Switch
from kinkcheck.ranges import require_list
from kinkcheck.selection import Native, Selection, parse
from kinkcheck.tape import Site, Unseen
from kinkcheck.tape.as_found import as_found
from kinkcheck.tape.notes import CUSTOM

_DIRECTIONS = 4
"""How many random directions are followed to both sides."""

_PROGRAMS = 1024
"""About the most linear programs by which cells of directions are enumerated, one a kink."""

_BY_STRENGTH = (Kind.DERIVATIVE, Kind.LIMIT, Kind.SUBGRADIENT, Kind.UNDECIDED, Kind.WRONG)


class GradientError(GradcheckError):
    """A gradient does not stand; raised by :func:`check`.

    Attributes:
        result: what was found, a :class:`CheckResult`.
    """

    def __init__(self, result: CheckResult) -> None:
        super().__init__(str(result))
        self.result = result


@dataclass(frozen=True)
class Misfit:
    """Where a gradient fits least.

    Attributes:
        element: the element of an input that becomes smaller or larger alone; None for a direction
            of all of them, where no element alone shows it.
        left, right: the slopes of the function to both sides, by difference quotients: how fast it
            grows when the element does, just below its value and just above it.
        slope: what the gradient has in their place.
    """

    element: Entry | None
    left: float
    right: float
    slope: float


@dataclass(frozen=True)
class Checked:
    """The gradient of one number that a function returns, under one selection.

    Attributes:
        selection: what is chosen at kinks.
        output: the number of the output.
        index: the entry of it; None for a random combination of all entries.
        kind: what the gradient is.
        kinks: how many kinks the operations have there that are kinks of the number as well.
        by_quotients: whether difference quotients alone tell, for want of anything else or because
            they contradict what is known of the operations.
        why: why it could not be decided.
        misfit: of a gradient that does not stand, where it fits least.
        met: of a gradient that does not stand, the operations with kinks there.
        dependent: whether their kinks depend on each other, so that choices made at one and at
            another may belong to no direction.
        unseen: what is on its way and not known to kinkcheck.
        surrogates: operations whose backward pass is by intention that of another function. The
            gradient is judged as that of the other function, of which there are no quotients.
    """

    selection: str
    output: int
    index: tuple[int, ...] | None
    kind: Kind
    kinks: int = 0
    by_quotients: bool = False
    why: str | None = None
    misfit: Misfit | None = None
    met: list[str] = field(default_factory=list)
    dependent: bool = False
    unseen: list[Unseen] = field(default_factory=list)
    surrogates: list[str] = field(default_factory=list)

    @property
    def stands(self) -> bool:
        """Whether the gradient is right."""
        return self.kind in STANDS

    def __str__(self) -> str:
        return "\n".join(_complaint(self))


@dataclass(frozen=True, repr=False)
class CheckResult:
    """What :func:`check` found; true if every gradient stands.

    Attributes:
        entries: one for each number that was differentiated and each selection.
    """

    entries: list[Checked]

    @property
    def kind(self) -> Kind:
        """The weakest of what was found."""
        return max((e.kind for e in self.entries), key=_BY_STRENGTH.index, default=Kind.DERIVATIVE)

    @property
    def failed(self) -> list[Checked]:
        """The gradients that do not stand, first those that are wrong."""
        fallen = [each for each in self.entries if not each.stands]
        return sorted(fallen, key=lambda each: each.kind is not Kind.WRONG)

    def __bool__(self) -> bool:
        return not self.failed

    def __repr__(self) -> str:
        return f"CheckResult({self.kind.value}, entries={len(self.entries)})"

    def __str__(self) -> str:
        if not self.entries:
            return "There is no number to differentiate."
        if not self.failed:
            names = sorted({name for each in self.entries for name in each.surrogates})
            of = f" as that of the surrogate of {', '.join(names)}" if names else ""
            alone = sum(each.by_quotients for each in self.entries)
            how = f" Of {alone} difference quotients alone tell this." if alone else ""
            unseen = [u for each in self.entries if not each.surrogates for u in each.unseen]
            found = f"Every gradient stands{of}: {_AT_LEAST[self.kind]}.{how}"
            return "\n".join([found, *_not_known(unseen)])
        others = len(self.failed) - 1
        rest = f"{others} more of {len(self.entries)} gradients do not stand either."
        return str(self.failed[0]) + (f"\n{rest}" if others else "")


_AT_LEAST = {
    Kind.DERIVATIVE: "each is the derivative",
    Kind.LIMIT: "each is the derivative or a limit of derivatives",
    Kind.SUBGRADIENT: "each is the derivative, a limit of derivatives or between such limits",
}


def check(
    function: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    selections: Sequence[str | Selection] = ("native",),
    raise_exception: bool = True,
    fast_mode: bool = False,
) -> CheckResult:
    """Check the gradients of a function, at kinks too.

    As ``torch.autograd.gradcheck`` does, this compares what autograd returns with difference
    quotients in float64. At a kink the quotients of the two sides differ and no gradient is *the*
    derivative: there one stands if it is a limit of derivatives at points nearby, or a convex
    combination of such limits (an element of the Clarke subdifferential). What limits there are,
    the operations tell, and the quotients on both sides have to agree with them. Where they do not,
    the program holds something that kinkcheck does not know (a mask made by a comparison, a
    detached tensor, a wrong backward pass), and the quotients judge alone.

    Args:
        function: takes the inputs and returns a tensor, or several. It is called often, each time
            from the same random state, and what it refers to is left as it was found.
        inputs: a tensor, or a sequence of tensors and other values. Checked are the gradients with
            respect to tensors that require one, which may lie in no list. Tensors of less than
            float64 are lifted to it.
        eps: the step of the difference quotients; for an element above 1, in units of it.
        atol: how far apart two equal slopes may be, beside ``rtol`` and what rounding does.
        rtol: the same, in units of the slope.
        selections: what is chosen at kinks: each is checked. ``native`` is what PyTorch returns;
            modules of :mod:`kinkcheck.nn` keep their own selection under it.
        raise_exception: whether a gradient that does not stand is an error.
        fast_mode: take one random combination of all entries of each output, along random
            directions, instead of each entry, along each element.

    Returns:
        What was found: true if every gradient stands.

    Raises:
        GradientError: a gradient is wrong, or nothing was found that certifies it.
        InputError: what is given, or what the function returns, cannot be checked.

    >>> x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    >>> check(torch.relu, x)
    CheckResult(limit, entries=2)
    >>> check(lambda x: torch.relu(x) - torch.relu(-x), x)
    Traceback (most recent call last):
    ...
    kinkcheck.check.GradientError: Jacobian mismatch for output 0 with respect to input 0,
    numerical: 1 on the left, 1 on the right
    analytical: 0 (native)
    at entry (0,) of output 0 and element (0,) of the input: wrong.
    Kinks there, which depend on each other: relu (call 0), relu (call 1).
    1 more of 2 gradients do not stand either.
    """
    sizes: dict[str, Any] = {"eps": eps, "atol": atol, "rtol": rtol}
    for name, given in sizes.items():
        if not (isinstance(given, Real) and 0 < float(given) < np.inf):
            raise InputError(f"{name}: must be a number above 0, not {given!r}")
    require_list(selections, "selections")
    chosen = [parse(each) for each in selections]
    with as_found(None, [function]), torch.enable_grad():
        recorded = Function(function, inputs)
        values = Values(recorded.value, recorded.at, eps)
        directions = _directions(len(recorded.at), fast_mode)
        entries = []
        for cotangent, output, index in _rows(recorded, fast_mode):
            number = _Number(recorded, Slopes(values, cotangent, atol, rtol), directions)
            entries += [number.checked(selection, output, index) for selection in chosen]
        recorded.require_steady()
    result = CheckResult(entries)
    if raise_exception and not result:
        raise GradientError(result)
    return result


def _rows(recorded: Function, fast: bool) -> Iterator[tuple[Tensor, int, tuple[int, ...] | None]]:
    """How much of each output makes a number to differentiate; and the output, or its entry."""
    count = len(recorded.entries)
    if not fast:
        for place, entry in enumerate(recorded.entries):
            cotangent = torch.zeros(count, dtype=torch.float64)
            cotangent[place] = 1
            yield cotangent, entry.tensor, entry.index
        return
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(count, dtype=torch.float64, generator=generator)
    drawn = torch.where(drawn < 0.5, drawn - 1, drawn)  # none is small
    of = torch.tensor([entry.tensor for entry in recorded.entries])
    for output in sorted({entry.tensor for entry in recorded.entries}):
        yield torch.where(of == output, drawn, 0.0), output, None


class _Judged(NamedTuple):
    """What a gradient is, and who tells.

    Attributes:
        kind: what it is.
        why: why nothing was decided.
        by_quotients: whether difference quotients alone tell.
        explained: whether nothing contradicts what is known of the operations.
    """

    kind: Kind
    why: str | None = None
    by_quotients: bool = False
    explained: bool = True


class _Number:
    """One number that a function returns: its gradients, and what judges them.

    Args:
        recorded: the function.
        slopes: of the number.
        directions: along which slopes are compared.
    """

    def __init__(self, recorded: Function, slopes: Slopes, directions: list[Floats]) -> None:
        self._recorded = recorded
        self._slopes = slopes
        cotangent = slopes.cotangent.to(recorded.outputs.device)
        self._forward = recorded.forward.of((cotangent * recorded.outputs).sum())
        self._directions = directions
        self._search: Search | None = None
        self._surrogates: list[str] = []
        self._unseen: list[Unseen] = []
        if self._forward.loss.requires_grad:
            self._unseen = self._forward.tape.unseen_behind(self._forward.loss)
            self._surrogates = sorted(self._declared())
            with suppress(InputError):  # no tangents pass: then quotients judge alone
                self._search = Search(Program(self._forward, again=recorded.again))
                self._search.budget = _PROGRAMS // max(1, self._search.census.kinks)

    def checked(self, selection: Selection, output: int, index: tuple[int, ...] | None) -> Checked:
        """What its gradient is under a selection."""
        choose = _chooser(selection)
        gradient = self._forward.gradient(choose) if self._forward.loss.requires_grad else {}
        vector = self._vector(gradient)
        judged = self._judge(choose, gradient, vector)
        found = Checked(
            str(selection), output, index, judged.kind,
            kinks=self._search.census.kinks if self._search else 0,
            by_quotients=judged.by_quotients, why=judged.why,
            unseen=self._unseen, surrogates=self._surrogates,
        )  # fmt: skip
        if found.stands:
            return found
        met, dependent = self._met() if judged.explained else ([], False)
        misfit = None if self._surrogates else self._misfit(vector)
        return replace(found, misfit=misfit, met=met, dependent=dependent)

    def _judge(self, choose: Chooser, gradient: Gradient, vector: Floats) -> _Judged:
        standing = None
        if self._search is not None and np.isfinite(vector).all():
            with suppress(InputError):  # as above
                standing = self._search.standing(choose, gradient)
        if self._surrogates:
            if standing is None or any(u.operation not in self._surrogates for u in self._unseen):
                why = "a surrogate has no difference quotients, and operations do not tell"
                return _Judged(Kind.UNDECIDED, why)
            return _Judged(standing.kind, standing.why)
        if self._slopes.blunt(self._directions):
            why = "rounding of values as large as these hides its slopes"
            return _Judged(Kind.UNDECIDED, why, by_quotients=True)
        if standing is None or not all(self._explains(d, vector) for d in self._directions):
            judged = self._slopes.judge(vector, self._directions)
            custom = [each.operation for each in self._unseen if each.reason == CUSTOM]
            if judged.kind is Kind.WRONG and custom:
                return _Judged(Kind.UNDECIDED, _surrogate(custom), True, explained=False)
            return _Judged(judged.kind, judged.why, True, explained=standing is None)
        if standing.stands or (standing.kind is Kind.WRONG and self._shows(vector)):
            return _Judged(standing.kind)
        if standing.kind is Kind.UNDECIDED and len(vector) > ELEMENTS and self._kinked():
            # Of gradients with so many elements quotients see a part, which tells nothing.
            return _Judged(Kind.UNDECIDED, standing.why)
        judged = self._slopes.judge(vector, self._directions)
        if standing.kind is Kind.UNDECIDED:
            return _Judged(judged.kind, judged.why and f"{standing.why}; {judged.why}", True)
        if judged.kind in STANDS:
            return _Judged(Kind.UNDECIDED, "quotients do not bear out that it is wrong")
        return _Judged(Kind.WRONG)

    def _kinked(self) -> bool:
        """Whether the function is not smooth nearby, along random directions."""
        return self._slopes.varies(self._directions[-2 * _DIRECTIONS :: 2])

    def _vector(self, gradient: Gradient) -> Floats:
        """A gradient in one vector, in units of the scale of the quotients."""
        if not gradient:
            return np.zeros(len(self._recorded.at))
        flat = torch.cat([each.flatten().cpu() for each in gradient.values()])
        found: Floats = flat.numpy() * self._slopes.values.scale
        return found

    def _explains(self, direction: Floats, gradient: Floats) -> bool:
        """Whether the slope along a direction is as its operations tell."""
        if self._slopes.meets(direction, float(gradient @ direction)):
            return True
        if not self._search or not self._search.census.kinks:
            return False
        along = self._recorded.direction(direction * self._slopes.values.scale)
        _, limit = self._forward.limit(along, ())
        slope = sum(
            float((each * moved).sum())
            for each, moved in zip(limit.gradients, along, strict=True)
            if each is not None
        )
        return self._slopes.meets(direction, slope)

    def _shows(self, gradient: Floats) -> bool:
        """Whether a gradient has a slope at the point that is outside those to both sides."""
        return any(self._slopes.beyond(d, float(gradient @ d)) > 0 for d in self._directions)

    def _declared(self) -> set[str]:
        """The surrogates on the way of the gradient."""
        tape = self._forward.tape
        declared = {s.operation: s.row.surrogate for s in tape.sites if s.row.surrogate}
        return {u.operation for u in self._unseen if declared.get(u.operation) == u.reason}

    def _met(self) -> tuple[list[str], bool]:
        """Operations at whose kinks a gradient was put together; whether these are dependent."""
        if self._search is None:
            return [_name(site) for site in self._forward.tape.sites if site.tied], False
        sites: list[Site] = []
        with suppress(InputError):
            sites = dependent(self._search.program, self._search.census)
        apart = [each.kinks.site for each in self._search.census.apart]
        return [_name(site) for site in sites or apart], bool(sites)

    def _misfit(self, gradient: Floats) -> Misfit | None:
        """The element, or else the direction, where it fits least."""
        count, scale = len(gradient), self._slopes.values.scale
        told = self._slopes.telling(gradient)
        beyond = [self._slopes.beyond(unit(count, n), gradient[n]) for n in told]
        place = int(told[np.argmax(beyond)])
        if max(beyond) > 0:
            element = self._recorded.elements[place]
            return self._beside(element, unit(count, place), gradient, scale[place])
        along = [*self._directions, np.ones(count) / np.sqrt(count)]
        worst = max(along, key=lambda each: self._slopes.beyond(each, float(gradient @ each)))
        if self._slopes.beyond(worst, float(gradient @ worst)) > 0:
            return self._beside(None, worst, gradient)
        return None

    def _beside(
        self, element: Entry | None, direction: Floats, gradient: Floats, scale: float = 1.0
    ) -> Misfit:
        right, left = self._slopes.along(direction), -self._slopes.along(-direction)
        slopes = left, right, float(gradient @ direction)
        return Misfit(element, *(each / scale + 0.0 for each in slopes))  # no −0


def _directions(count: int, fast: bool) -> list[Floats]:
    """Directions to both sides: of every element unless fast, and random ones."""
    drawn = np.random.default_rng(0).standard_normal((_DIRECTIONS, count))
    found = [] if fast else [unit(count, n) for n in range(count)]
    found += [each / np.linalg.norm(each) for each in drawn] if count else []
    return [side * each for each in found for side in (1, -1)]


def _chooser(selection: Selection) -> Chooser:
    if isinstance(selection, Native):
        return lambda tape: {}
    return lambda tape: Switch(Native(), [selection], None).to(tape, selection)


def _surrogate(custom: Sequence[str]) -> str:
    """What is said of a gradient that another one than the derivative was written for."""
    names = ", ".join(dict.fromkeys(custom))
    return (
        f"it goes through a custom autograd function ({names}), whose backward pass is its own "
        "choice: a surrogate if another derivative is meant, and wrong if not"
    )


def _name(site: Site) -> str:
    layer = f"{site.layer}: " if site.layer else ""
    return f"{layer}{site.operation} (call {site.call})"


def _complaint(found: Checked) -> Iterator[str]:
    """The lines that say why a gradient does not stand."""
    misfit, wrong = found.misfit, found.kind is Kind.WRONG
    at = f"output {found.output}"
    if found.index is None:
        at = f"a random combination of {at}"
    elif found.index:
        at = f"entry {found.index} of {at}"
    if misfit is None:
        yield f"Jacobian {'mismatch' if wrong else 'not certified'} for output {found.output},"
        yield f"analytical: {found.selection}"
    else:
        to = "all inputs" if misfit.element is None else f"input {misfit.element.tensor}"
        yield f"Jacobian mismatch for output {found.output} with respect to {to},"
        yield f"numerical: {misfit.left:.6g} on the left, {misfit.right:.6g} on the right"
        yield f"analytical: {misfit.slope:.6g} ({found.selection})"
        if misfit.element is None:
            at += ", along a direction (each element alone fits)"
        else:
            at += f" and element {misfit.element.index} of the input"
    yield f"at {at}: {'wrong' if wrong else f'undecided, since {found.why}'}."
    if found.surrogates:
        yield f"It was taken as the gradient of the surrogate of {', '.join(found.surrogates)}."
    if found.met:
        how = ", which depend on each other" if found.dependent else ""
        yield f"Kinks there{how}: {', '.join(found.met)}."
    if found.by_quotients:
        yield "Difference quotients alone tell this."
    yield from _not_known(found.unseen)
    if wrong and found.by_quotients and not (found.met or found.unseen):
        yield "On its way kinkcheck recognises nothing that explains it; a detached tensor would."


def _not_known(unseen: list[Unseen]) -> Iterator[str]:
    if unseen:
        listed = dict.fromkeys(f"{each.operation} ({each.reason})" for each in unseen)
        yield f"On the way, and not known to kinkcheck: {', '.join(listed)}."
