"""``explain``: why a gradient from elsewhere is not the one that the program has here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from textwrap import wrap
from typing import Any

import torch
from torch import Tensor, nn

from kinkcheck import ops
from kinkcheck.arithmetic.precision import Precision, parse
from kinkcheck.atlas import table
from kinkcheck.errors import InputError
from kinkcheck.measure.elsewhere import elsewhere
from kinkcheck.measure.fitting import Fit, Fitted
from kinkcheck.measure.forward import Forward, Gradient, Kinks
from kinkcheck.measure.lift import whole
from kinkcheck.measure.runs import Runs, Step
from kinkcheck.measure.unknowns import allows, rounded, sides
from kinkcheck.measure.variation import ROUNDINGS, l1_distance, l1_norm
from kinkcheck.ops.conventions import meaning
from kinkcheck.selection import (
    As,
    Branch,
    Every,
    First,
    Last,
    Minimal,
    Native,
    Selection,
)
from kinkcheck.selection import Kinks as ByKink

_ELSEWHERE = 10
"""How many times as far as rounding was seen to move a gradient here it may move one elsewhere,
where sums are added in another order."""

_ROUNDED = 4
"""How many unit roundoffs of its sum of absolute values the gradient of a parameter may be apart in
any case."""

_NEARLY = 0.1
"""What a choice may leave of a difference, parameter by parameter, that rounding could explain."""

_ENTRIES = 8
"""How many entries differ for each site at which a choice does so."""

_DIGITS = 3
"""How many digits behind the point its numbers have at most."""

_NAMED = 3
"""How many sites or parameters a sentence names."""

_WIDTH = 80


class Cause(StrEnum):
    """Why two gradients differ."""

    ROUNDING = "rounding"
    """They are one but for rounding."""

    CHOICE = "choice"
    """Another derivative was chosen at recorded ties, one that the operations allow."""

    OUTSIDE = "outside"
    """Ties have weights there that are no choice between the branches: a tie counts twice, say."""

    UNEXPLAINED = "unexplained"
    """Neither."""


@dataclass(frozen=True)
class Chosen:
    """A site at which the other gradient has another choice.

    Attributes:
        layer, operation, call: the site, as in :class:`kinkcheck.Site`.
        tied: how many of its windows are tied.
        selection: the choice, to be passed to :meth:`kinkcheck.Tape.gradient`.
        allowed: whether it is one between the branches of the operation.
        moves: by how much it moves the gradient when it is made here alone, in the sum of absolute
            values.
        words: what the other gradient does there.
    """

    layer: str
    operation: str
    call: int
    tied: int
    selection: str
    allowed: bool
    moves: float
    words: str

    def __str__(self) -> str:
        if not self.layer:
            return f"{self.operation} (call {self.call})"
        calls = f", call {self.call}" if self.call else ""
        return f"`{self.layer}` ({self.operation}{calls})"


@dataclass(frozen=True)
class Explanation:
    """What :func:`explain` found; its text begins with the answer.

    All distances are sums of absolute differences over all parameters.

    Attributes:
        cause: why the gradients differ.
        chosen: the sites at which another choice was found; where nothing explains the difference,
            the choices that bring the gradients nearest to each other.
        ties: at how many sites there are ties.
        precision: of the program.
        norm: the sum of absolute values of the program's own gradient.
        difference: how far the other gradient is from it.
        remainder: how far it is from the gradient that the tape replays under the choices.
        rounding: how far rounding may put two gradients apart that are one over the reals.
        lifted: whether rounding was measured against float64; else by disturbing the pass alone.
        remainders: what remains, for each parameter where it is more than rounding.
        scale: the number by which the program's gradient, multiplied, is the other one up to
            rounding; None if there is none but 1.
        conventions: the selections ``as:...`` under which the program's gradient is the other one.
        unseen: the operations behind the loss that may have kinks and cannot be switched.
    """

    cause: Cause
    chosen: list[Chosen]
    ties: int
    precision: str
    norm: float
    difference: float
    remainder: float
    rounding: float
    lifted: bool
    remainders: dict[str, float] = field(default_factory=dict, repr=False)
    scale: float | None = None
    conventions: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [*wrap(self.answer, _WIDTH), *_table(self.chosen), *_numbers(self)]
        return "\n".join(lines)

    @property
    def answer(self) -> str:
        """The first line."""
        named = [str(each) for each in self.chosen[:_NAMED]]
        where = _listed(named, len(self.chosen), "sites")
        one = len(self.chosen) == 1
        says = f": the other gradient {self.chosen[0].words} there" if one else ""
        match self.cause:
            case Cause.ROUNDING if not self.difference:
                return "There is no difference: the gradients are equal."
            case Cause.ROUNDING:
                return "The difference is explained by rounding."
            case Cause.CHOICE:
                noun = "choice" if one else "choices"
                return f"The difference is explained by the {noun} at {where}{says}."
            case Cause.OUTSIDE:
                return (
                    f"The difference is explained by the weights of ties at {where}, which no "
                    f"choice between branches gives{says}."
                )
        if not self.ties:
            return "The difference is not explained: no tie was met, and it is more than rounding."
        least = max(0.0, 1 - self.remainder / self.difference)
        return (
            "The difference is not explained: it is more than rounding, and choices at the "
            f"{self.ties} site{'s' * (self.ties > 1)} with ties make up for {least:.0%} of it."
        )


def explain(
    model: nn.Module,
    step: Step,
    batch: Any,
    other: Mapping[str, Any] | str | Path,
    *,
    seed: int = 0,
) -> Explanation:
    """Tell why a gradient from elsewhere differs from the program's own.

    A port to another framework, another version, device or memory layout computes the same function
    and may return another gradient: because it chooses another derivative where branches tie, by
    rounding, or because something is wrong. One forward pass is recorded. The choices at its ties
    are fitted to the other gradient, and what was found is replayed on the tape: it explains the
    difference if the replayed gradient is the other one up to rounding, for every parameter.

    Args:
        model: the program's model, with the parameters that the other gradient was taken at. It is
            left as it was found.
        step: function of the model and a batch that returns the loss.
        batch: what the other gradient was taken on.
        other: the other gradient: arrays or tensors by parameter name, or an ``.npz`` or
            ``.safetensors`` file of them.
        seed: of what the step draws at random.

    Returns:
        The explanation.

    Raises:
        InputError: the other gradient has other names or shapes or is not finite, its file cannot
            be read, or the program fails.

    >>> model = nn.Linear(1, 1)
    >>> _ = [nn.init.zeros_(parameter) for parameter in model.parameters()]
    >>> def step(model, x):
    ...     return torch.relu(model(x)).sum()
    >>> other = {"weight": [[1.5]], "bias": [1.0]}  # ReLU'(0) = 1/2, as of maximum(x, 0)
    >>> print(explain(model, step, torch.tensor([[1.0], [2.0]]), other).answer)
    The difference is explained by the choice at relu (call 0): the other gradient has the slope
    0.5 at 0 there.
    """
    given = elsewhere(other, model)
    at = _precision(model)
    runs = Runs(model, step, batch, at, seed=seed, where="the batch")
    with runs.audited():
        forward = runs.forward()
        own = _on_cpu(forward.gradient({}))
        disturbed = runs.forward()
        disturbed.disturb(_ROUNDED * at.unit_roundoff, seed)
        spread = _on_cpu(disturbed.gradient({}))
        _require_plain(own, _on_cpu(runs.plain()), at)
    lifted = _lifted(runs)
    rounding = _rounding(own, spread, lifted, given, at)
    bounds = {name: _ELSEWHERE * each for name, each in rounding.items()}
    with runs.audited():
        forward = runs.forward()
        fit = Fit(forward, given, bounds)
        found = fit.fitted()
        if found.explains and not found.chosen:
            nearer = _nearer(forward, given, found)
            fit, found = nearer or (fit, found)
        conventions = [] if found.explains and not found.chosen else _conventions(fit)
        if conventions and not found.explains:
            sites = [kinks.site for kinks in fit.ties]
            found = fit.replayed({s: meaning(conventions[0], s.form).selection for s in sites})
        of = {kinks.site: kinks for kinks in fit.ties}
        chosen = [_chosen(of[site], selection, fit) for site, selection in found.chosen.items()]
        unseen = sorted({u.operation for u in forward.tape.unseen_behind(forward.loss)})
        remainders = fit.remainders(found.gradient)
    return Explanation(
        cause=_cause(found, chosen),
        chosen=chosen,
        ties=len(fit.ties),
        precision=at.name,
        norm=l1_norm(own),
        difference=l1_distance(given, own),
        remainder=sum(remainders.values()),
        rounding=sum(bounds.values()),
        lifted=lifted is not None,
        remainders={n: each for n, each in remainders.items() if each > bounds[n]},
        scale=None if found.explains else _scale(own, given, bounds),
        conventions=list(map(str, conventions)),
        unseen=unseen,
    )


def _nearer(forward: Forward, given: Gradient, own: Fitted) -> tuple[Fit, Fitted] | None:
    """A choice that explains nearly all of a difference that rounding could explain as well.

    In few bits rounding may be larger than what a choice moves. But rounding falls on every entry
    in another way, and hardly ever as a few choices in round numbers would have it.
    """
    remains = Fit(forward, given, {}).remainders(own.gradient)
    apart = sum(
        int(torch.count_nonzero(each != own.gradient[name].cpu())) for name, each in given.items()
    )
    if not apart:
        return None
    fit = Fit(forward, given, {name: each * _NEARLY for name, each in remains.items()})
    found = fit.fitted()
    plain = all(each == rounded(each, _DIGITS) for each in found.chosen.values())
    enough = apart >= _ENTRIES * len(found.chosen)
    return (fit, found) if found.explains and found.chosen and plain and enough else None


def _conventions(fit: Fit) -> list[As]:
    """The conventions of other frameworks that explain the gradient all alone."""
    found = []
    for name in table.read().columns if fit.ties else ():
        convention = As(name)
        if fit.replayed({kinks.site: convention for kinks in fit.ties}).explains:
            found.append(convention)
    return found


def _cause(found: Fitted, chosen: list[Chosen]) -> Cause:
    if not found.explains:
        return Cause.UNEXPLAINED
    if not chosen:
        return Cause.ROUNDING
    return Cause.CHOICE if all(each.allowed for each in chosen) else Cause.OUTSIDE


def _chosen(kinks: Kinks, selection: Selection, fit: Fit) -> Chosen:
    site = kinks.site
    alone = fit.replayed({site: selection}).gradient
    return Chosen(
        site.layer, site.operation, site.call, site.tied, str(selection),
        allows(selection, kinks), l1_distance(alone, fit.own), _words(selection, kinks),
    )  # fmt: skip


def _precision(model: nn.Module) -> Precision:
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            return parse(str(parameter.dtype).removeprefix("torch."))
    raise InputError("model: no parameter of it requires a gradient")


def _on_cpu(gradient: Gradient) -> Gradient:
    return {name: each.detach().cpu() for name, each in gradient.items()}


def _require_plain(own: Gradient, plain: Gradient, at: Precision) -> None:
    apart = l1_distance(own, plain)
    if apart > ROUNDINGS * at.unit_roundoff * l1_norm(plain):
        raise InputError(
            "model: its recorded gradient is not the one that plain autograd returns: l1 norm "
            f"{l1_norm(own):.9g} against {l1_norm(plain):.9g}"
        )


def _lifted(runs: Runs) -> Gradient | None:
    """The gradient in float64; None where the program cannot be lifted."""
    try:
        with ExitStack() as stack:
            return _on_cpu(whole(runs, stack).gradient({}))
    except InputError:
        return None


def _rounding(
    own: Gradient, spread: Gradient, lifted: Gradient | None, given: Gradient, at: Precision
) -> dict[str, float]:
    """How far rounding moves the gradient of each parameter.

    The distance from the lift, but no more than a hundred unit roundoffs of the whole gradient, for
    ties that the lift does not have are no rounding; or from a pass that was disturbed.
    """
    most = ROUNDINGS * at.unit_roundoff * l1_norm(own)
    found = {}
    for name, gradient in own.items():
        unit = max(at.unit_roundoff, torch.finfo(given[name].dtype).eps / 2)
        parts = [_ROUNDED * unit * _l1(gradient), _apart(gradient, spread[name])]
        if lifted is not None:
            parts.append(min(most, _apart(gradient, lifted[name])))
        found[name] = max(parts)
    return found


def _scale(own: Gradient, given: Gradient, bounds: Mapping[str, float]) -> float | None:
    """The factor between two gradients; None if they are not multiples of each other."""
    square = sum(each.double().square().sum().item() for each in own.values())
    product = sum((each.double() * given[n].double()).sum().item() for n, each in own.items())
    if not square or not product:
        return None
    scale = product / square
    times = max(1.0, abs(scale))
    near = all(_apart(scale * g.double(), given[n]) <= times * bounds[n] for n, g in own.items())
    return scale if near else None


def _l1(tensor: Tensor) -> float:
    return tensor.double().abs().sum().item()


def _apart(one: Tensor, other: Tensor) -> float:
    return _l1(one.double() - other.double())


def _words(selection: Selection, kinks: Kinks) -> str:
    row = kinks.site.row
    slopes = _slopes(selection, kinks) if row.has(Branch(0)) and row.has(First()) else []
    if slopes:
        return f"has the slope {_listed(slopes, len(slopes), 'kinks')}"
    match selection:
        case Native():
            return "has what PyTorch returns"
        case Minimal() if row.has(First()):
            return "shares ties equally"
        case Minimal():
            return "has the derivative 0"
        case First():
            return "takes the first of tied entries"
        case Last():
            return "takes the last of tied entries"
        case Every():
            return "gives each tied entry the whole gradient"
    return f"has {selection}"


def _slopes(selection: Selection, kinks: Kinks) -> list[str]:
    """The slopes at the kinks that are met, where they are numbers."""
    found = []
    places = sides(kinks)
    match selection:
        case ByKink(alphas):
            weights = list(alphas)
        case Branch(alpha):
            weights = [alpha] * len(places)
        case First() | Last():
            weights = [float(isinstance(selection, Last))] * len(places)
        case Minimal():
            weights = [_least(left, right) for _, left, right in places]
        case _:
            return []
    met = _met(kinks)
    for (at, left, right), alpha in zip(places, weights, strict=True):
        if any(isinstance(each, Tensor) for each in (at, left, right)):
            return []
        if met is None or bool((met == at).any()):
            found.append(f"{(1 - alpha) * left + alpha * right:.6g} at {at:g}")
    return found


def _least(left: Any, right: Any) -> float:
    numbers = not isinstance(left, Tensor) and not isinstance(right, Tensor)
    return min(max(-left / (right - left), 0.0), 1.0) if numbers and left != right else 0.0


def _met(kinks: Kinks) -> Tensor | None:
    branches = getattr(kinks.operation, "branches", None)
    if not isinstance(branches, ops.Sides):
        return None
    return (branches.input if branches.on is None else branches.on).detach()


def _table(chosen: list[Chosen]) -> list[str]:
    if not chosen:
        return []
    rows = [("site", "tied", "choice", "moved by", "the other gradient")]
    rows += [(str(e), f"{e.tied:,}", e.selection, f"{e.moves:.3g}", e.words) for e in chosen]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    return ["", *lines, ""]


def _numbers(of: Explanation) -> list[str]:
    remains = f"{of.remainder:.3g} remains under these choices, and " if of.chosen else ""
    how = "measured against float64" if of.lifted else "measured without float64"
    lines = [
        f"The gradients differ by {of.difference:.3g} (l1 norm {of.norm:.6g}, {of.precision}); "
        f"{remains}rounding may come to {of.rounding:.3g} ({how})."
    ]
    if of.conventions:
        named = _listed(of.conventions[:_NAMED], len(of.conventions), "conventions")
        lines.append(f"The other gradient is the program's own under {named}.")
    if of.scale is not None:
        lines.append(f"The other gradient is {of.scale:.9g} times the program's own.")
    elif of.remainders:
        by_size = sorted(of.remainders, key=lambda name: -of.remainders[name])
        most = [f"{name} ({of.remainders[name]:.3g})" for name in by_size[:_NAMED]]
        lines.append(f"More than rounding remains at {_listed(most, len(by_size), 'parameters')}.")
    if of.cause is Cause.UNEXPLAINED and of.unseen:
        named = _listed(of.unseen[:_NAMED], len(of.unseen), "operations")
        lines.append(f"Not switched, though it may have kinks or jumps: {named}.")
    return [line for text in lines for line in wrap(text, _WIDTH)]


def _listed(names: Sequence[str], count: int, what: str) -> str:
    """The first names, and how many more there are."""
    if count > len(names):
        names = [*names, f"{count - len(names)} more {what}"]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
