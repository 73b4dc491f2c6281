"""The standing of the gradients of a recorded program, as far as all of it is in sight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kinkcheck.errors import InputError
from kinkcheck.measure.forward import Chooser, Forward, Gradient
from kinkcheck.measure.standing.program import Program, Told, another
from kinkcheck.measure.standing.records import Kind, Standing
from kinkcheck.measure.standing.search import EQUAL, Search
from kinkcheck.measure.variation import ROUNDINGS, alike
from kinkcheck.ops.table import ROWS
from kinkcheck.selection import Selection
from kinkcheck.tape import Unseen
from kinkcheck.tape.directions import Directions
from kinkcheck.tape.notes import CUSTOM
from kinkcheck.tape.tape import Choose

if TYPE_CHECKING:
    from kinkcheck.exact import ExactPoint

EFFORT = 32
"""About how many times tangents are carried through a network for the standing of one gradient."""

OTHERS: tuple[Chooser | Choose, ...] = (another, "minimal")
"""Choices that what is chosen is compared with. They differ at every tie of an operation that has
more than one, so that what is chosen is like one of them at most."""

_SURROGATES = {row.surrogate for row in ROWS if row.surrogate}


_FINE = 2.0**-23
"""The spacing of numbers at 1 up to which a tangent along one direction tells branches apart. In
coarser types rounding makes ties of many branches that are not one function, and the lift tells."""


def tells(forward: Forward) -> bool:
    """Whether the audited precision itself could tell of ties: all is in sight, in 32 bits or more.

    Args:
        forward: the forward pass.

    >>> import torch
    >>> model = torch.nn.PReLU(1)
    >>> tells(Forward(model, lambda: model(-torch.ones(1)).sum()))
    True
    >>> _ = model.half()
    >>> tells(Forward(model, lambda: model(-torch.ones(1).half()).sum()))
    False
    """
    trained = [each for each in forward.model.parameters() if each.requires_grad]
    met = [kinks.value for kinks in forward.kinks if kinks.value.is_floating_point()]
    coarse = any(torch.finfo(each.dtype).eps > _FINE for each in (*trained, *met))
    return not coarse and not any(map(may_hide, forward.tape.unseen_behind(forward.loss)))


def told(forward: Forward, choose: Chooser | Choose, seed: int = 0) -> Told | None:
    """What the audited precision itself tells of ties.

    Args:
        forward: the forward pass, in any precision.
        choose: what is chosen at the sites.
        seed: of the directions.

    Returns:
        None where it does not (:func:`tells`), or no tangents pass.

    >>> import torch
    >>> model = torch.nn.PReLU(1)
    >>> told(Forward(model, lambda: model(-torch.ones(1)).abs().sum()), "native")
    Told(alike=[], apart=[])
    """
    if not tells(forward):
        return None
    try:
        program = Program(forward, seed)
        found = program.told(choose)
    except InputError:
        return None
    if found is None or found.apart:
        return found
    # A common part absorbs how tangents differ; gradients may consist of just that.
    rounding = ROUNDINGS * torch.finfo(forward.loss.dtype).eps / 2
    return found if _is_one(forward, choose, rounding) else None


def smooth(found: Told | None, seed: int = 0) -> Standing | None:
    """The standing of all gradients of a loss that was told to have no kink; None if it was not.

    >>> smooth(Told([], [])).kind
    <Kind.DERIVATIVE: 'derivative'>
    """
    if found is None or found.apart:
        return None
    ties = sum(outputs.numel() for _, outputs in found.alike)
    return Standing(Kind.DERIVATIVE, ties, ties, rows=0, seed=seed, lifted=False)


def is_one(lifted: Forward, choose: Chooser | Choose) -> bool:
    """Whether the gradient is the same under another choice, over the reals.

    Args:
        lifted: the forward pass in float64.
        choose: what is chosen.

    >>> import torch
    >>> model = torch.nn.PReLU(1).double()
    >>> forward = Forward(model, lambda: torch.relu(model(-torch.ones(1).double()) + 0.25).sum())
    >>> is_one(forward, "native")
    False
    """
    return _is_one(lifted, choose, EQUAL)


def _is_one(forward: Forward, choose: Chooser | Choose, tolerance: float) -> bool:
    chosen = forward.gradient(choose)
    return all(alike(forward.gradient(other), chosen, tolerance) for other in OTHERS)


def ties_more(lifted: Forward, forward: Forward) -> bool:
    """Whether there is a tie in the lift that rounding hides in the audited precision.

    Args:
        lifted: the forward pass in float64.
        forward: that at the same point in the audited precision.

    >>> import torch
    >>> def at(x):
    ...     model = torch.nn.PReLU(1).to(x.dtype)
    ...     return Forward(model, lambda: torch.relu(3 * model(x) - 2 * model(x) - x).sum())
    >>> x = torch.full((1,), 0.1)
    >>> ties_more(at(x.double()), at(x)), ties_more(at(x), at(x))
    (True, False)
    """
    if len(lifted.kinks) != len(forward.kinks):
        return True
    for there, here in zip(lifted.kinks, forward.kinks, strict=True):
        if not there.site.tied:
            continue
        if there.value.shape != here.value.shape or type(there.operation) is not type(
            here.operation
        ):
            return True
        persists = there.operation.persists(here.operation, here.value)
        if bool((there.operation.tied() & ~persists).any()):
            return True
    return False


def standings(
    forward: Forward,
    gradients: Sequence[tuple[Chooser | Choose, Gradient]],
    seed: int = 0,
    again: Callable[[], Forward] | None = None,
) -> list[Standing]:
    """The standing of gradients of one loss.

    The derivative that a surrogate declares is taken for that of its value.

    Args:
        forward: the forward pass, in float64.
        gradients: what was chosen at the sites, and the gradient under it.
        seed: of the directions.
        again: carries the program out once more, with the parameters where they are.

    >>> import torch
    >>> model = torch.nn.PReLU(1).double()
    >>> forward = Forward(model, lambda: model(-torch.ones(1).double()).abs().sum())
    >>> [each.kind for each in standings(forward, [("native", forward.gradient("native"))])]
    [<Kind.DERIVATIVE: 'derivative'>]
    """
    hidden = [each for each in forward.tape.unseen_behind(forward.loss) if may_hide(each)]
    if hidden:
        names = ", ".join(dict.fromkeys(each.operation for each in hidden))
        why = f"the gradient goes through {names}, of which kinkcheck does not know the kinks"
        custom = dict.fromkeys(each.operation for each in hidden if each.reason == CUSTOM)
        if custom:
            why += (
                f"; a custom autograd function ({', '.join(custom)}) has a backward pass of its "
                "own choice: a surrogate if another derivative is meant"
            )
        return [Standing(Kind.UNDECIDED, seed=seed, why=why)] * len(gradients)
    try:
        search = Search(Program(forward, seed, again), effort=EFFORT * len(gradients))
        return [search.standing(choose, gradient) for choose, gradient in gradients]
    except InputError as error:
        return [Standing(Kind.UNDECIDED, seed=seed, why=str(error))] * len(gradients)


def may_hide(unseen: Unseen) -> bool:
    """Whether a kink, or a jump that is met, may be in what the tape does not see.

    >>> may_hide(Unseen("", "mine", CUSTOM, 1))
    True
    """
    if unseen.reason in _SURROGATES:
        return False
    return unseen.elements is None or bool(unseen.on_jump)


def certified_exactly(
    standing: Standing,
    point: ExactPoint,
    cotangent: Tensor,
    selection: Selection,
    reference: Selection,
) -> Standing:
    """A standing, with its certificate looked at over the rationals.

    Args:
        standing: what was found in floating point.
        point: the network at the same point.
        cotangent: the derivative of the loss with respect to the output.
        selection: whose gradient it is.
        reference: what is chosen where operations do not have it.

    >>> from kinkcheck.exact import evaluate
    >>> from kinkcheck.selection import parse
    >>> model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU())
    >>> point, one, native = evaluate(model, torch.ones(1, 1)), torch.ones(1, 1), parse("native")
    >>> certified_exactly(Standing(Kind.DERIVATIVE), point, one, native, native).exact
    0.0
    """
    if not standing.stands or any(each.pulls for each in standing.along):
        return standing  # over the rationals nothing is pulled back
    of = [(w, e.coefficients) for w, e in zip(standing.weights, standing.along, strict=True)]
    directions = Directions(point.shapes(), standing.seed)
    limits = [(w, directions.sum(c)) for w, c in of or [(1.0, [1.0])]]
    away = point.away(cotangent, selection, reference, limits)
    if away <= EQUAL:
        return replace(standing, exact=away)
    return replace(
        standing, kind=Kind.UNDECIDED, exact=away,
        why="over the rationals the gradient is not what was found in floating point",
    )  # fmt: skip
