"""The exact point: a forward pass, its ties, and the difference of two backward passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import inf

import numpy as np
import torch
from torch import Tensor, nn

from kinkcheck.errors import InputError
from kinkcheck.exact.network import Network
from kinkcheck.exact.rationals import Rationals, from_floats
from kinkcheck.exact.record import ExactSite, Record, Variable
from kinkcheck.ops.conventions import meaning
from kinkcheck.ops.table import BY_NAME
from kinkcheck.selection import As, First, Limit, Selection, parse


@dataclass(frozen=True)
class Difference:
    """The gradient of one program minus that of another, over the rationals.

    Attributes:
        by_parameter: the difference by name of the parameter.
    """

    by_parameter: Mapping[str, Rationals]

    @cached_property
    def l1(self) -> Fraction:
        """The sum of absolute values: 0 exactly if the programs agree over the reals.

        >>> Difference({"weight": Rationals(np.array([1, -2], object), 4)}).l1
        Fraction(3, 4)
        """
        return sum((each.l1() for each in self.by_parameter.values()), Fraction(0))


_OF_OUTPUT = 1e-9
"""By how much of its largest entry an output may differ: ten million roundings to float64, far
above what a forward pass gathers, and below what a constant in float32 instead of float64 does."""

_OF_GRADIENT = 1e-6
"""The same for the l1 norm of a gradient, whose parts cancel more."""


class ExactPoint:
    """A network at one point over the rationals; made by :func:`evaluate`.

    Attributes:
        ties: how many windows, or elements of a pointwise operation, are tied at each site, in the
            order in which the sites were met.
        windows: how many there are.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._record, self._output = network.carry_out()
        self.ties: dict[ExactSite, int] = self._record.ties
        self.windows: dict[ExactSite, int] = self._record.windows

    @property
    def output(self) -> Rationals:
        """What the network returns."""
        return self._output.value

    def gradient(
        self, cotangent: Tensor, selection: str | Selection = "native"
    ) -> dict[str, Rationals]:
        """The gradient of ⟨cotangent, output⟩ under a selection.

        Under ``limit:SEED`` the parameters move along the direction that a tape takes, and each
        site takes the branch that stays active; the first one where several do, to the first order.

        Args:
            cotangent: floating-point numbers in the shape of the output, taken as they are: the
                derivative of the loss with respect to the output.
            selection: for all sites whose operation has it, the others keeping their own.

        Returns:
            By name, for every parameter that requires a gradient.

        Raises:
            InputError: no site has the selection, or the cotangent has another shape.

        >>> point = evaluate(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), torch.zeros(2, 1))
        >>> sorted(point.gradient(torch.ones(2, 1)))
        ['0.bias', '0.weight']
        """
        return self._gradient(cotangent, self._chosen(parse(selection)))

    def difference(
        self,
        cotangent: Tensor,
        selection: str | Selection = "minimal",
        reference: str | Selection = "native",
    ) -> Difference:
        """The gradient under a selection minus that under a reference, of ⟨cotangent, output⟩.

        Args:
            cotangent: floating-point numbers in the shape of the output, taken as they are.
            selection: for all sites whose operation has it, the others staying at the reference.
            reference: the same, the others keeping their own.

        Returns:
            The difference; its ``l1`` is 0 exactly if the two programs agree over the reals.

        Raises:
            InputError: no site has a selection, the cotangent has another shape, or some sites
                alone are to have a limit.

        >>> layer = nn.Linear(1, 4)
        >>> _ = nn.init.ones_(layer.weight), nn.init.ones_(layer.bias)
        >>> model = nn.Sequential(layer, nn.MaxPool1d(4))
        >>> evaluate(model, torch.ones(1, 1)).difference(torch.ones(1, 1)).l1
        Fraction(3, 1)
        """
        base = self._chosen(parse(reference))
        chosen = self._chosen(parse(selection), base)
        minuend, subtrahend = self._gradient(cotangent, chosen), self._gradient(cotangent, base)
        return Difference({name: minuend[name] - subtrahend[name] for name in minuend})

    def shapes(self) -> list[Tensor]:
        """Zeros in float64 in the shapes of the parameters that require a gradient."""
        return self._network.shapes()

    def away(
        self,
        cotangent: Tensor,
        selection: str | Selection,
        reference: str | Selection,
        limits: Sequence[tuple[float, Sequence[Tensor]]],
    ) -> float:
        """How far the gradient under a selection is from a combination of limits.

        Args:
            cotangent: as for :meth:`gradient`.
            selection: as for :meth:`difference`.
            reference: as for :meth:`difference`.
            limits: the weight of each limit, and the direction along which it is taken: how each
                parameter that requires a gradient moves.

        Returns:
            The l1 norm of the difference, in units of that of the gradient; 0 if both are equal.

        >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
        >>> _ = nn.init.zeros_(model[0].weight)
        >>> one = torch.ones(1, 1)
        >>> point = evaluate(model, one)
        >>> [point.away(one, "native", "native", [(1.0, [way])]) for way in (-one, one)]
        [0.0, inf]
        """
        chosen = self._chosen(parse(selection), self._chosen(parse(reference)))
        own = self._gradient(cotangent, chosen)
        rest = dict(own)
        for weight, direction in limits:
            times = from_floats(torch.tensor(weight, dtype=torch.float64))
            for name, each in self._limit(cotangent, direction).items():
                rest[name] = rest[name] - each * times
        apart, norm = (sum(each.l1() for each in g.values()) for g in (rest, own))
        return float(apart / norm) if norm else inf if apart else 0.0

    def require_agreement(
        self,
        output: Tensor,
        ties: Mapping[tuple[str, str, int], int],
        cotangent: Tensor,
        gradient: Mapping[str, Tensor],
        selection: str | Selection = "native",
    ) -> None:
        """Refuse a point that is not that of a recorded program.

        Args:
            output: of the model in a recorded forward pass in float64, at the same parameters and
                inputs.
            ties: how many windows were tied in it, for every site, by layer, operation and call.
            cotangent: as for :meth:`gradient`.
            gradient: of ⟨cotangent, output⟩ in float64 by name of the parameter, through the
                recorded forward pass under the selection.
            selection: as for :meth:`gradient`.

        Raises:
            InputError: the outputs differ, one of the two has a site that the other has not, or, at
                the same ties, the gradients differ, each by more than rounding explains.

        >>> model, x, one = nn.Linear(1, 1).double(), torch.ones(1, 1), torch.ones(1, 1)
        >>> gradient = {name: torch.ones_like(p) for name, p in model.named_parameters()}
        >>> evaluate(model, x).require_agreement(model(x.double()), {}, one, gradient)
        >>> evaluate(model, x).require_agreement(model(x.double()) + 1, {}, one, gradient)
        Traceback (most recent call last):
        ...
        kinkcheck.errors.InputError: exact: the exact trace gives ... where the recorded ...
        """
        _require_close({"output": self.output}, {"output": output}, _largest, _OF_OUTPUT)
        for layer, operation, call in sorted(ties.keys() - self.ties.keys()):
            raise InputError(
                f"exact: the recorded program calls {operation} in layer {layer!r} (call {call}) "
                "where the exact trace of the model does not, as in a loss, so that a choice there "
                "would be left out"
            )
        for layer, operation, call in sorted(self.ties.keys() - ties.keys()):
            raise InputError(
                f"exact: the exact trace calls {operation} in layer {layer!r} (call {call}) where "
                "the recorded program does not, so that it judges another program"
            )
        # Rounding breaks ties and makes some, also in float64. Then another branch may be taken
        # there, rightly, and the gradients are those of different branches.
        if self.ties != ties:
            return
        _require_close(self.gradient(cotangent, selection), gradient, _l1, _OF_GRADIENT)

    def _chosen(
        self, selection: Selection, others: Mapping[ExactSite, Selection] | None = None
    ) -> dict[ExactSite, Selection]:
        """A selection wherever the operation has it, and that of others, or its own, elsewhere."""
        rows = {site: BY_NAME[site.operation] for site in self._record.ties}
        accepted = [site for site, row in rows.items() if row.has(selection)]
        if rows and not accepted:
            next(iter(rows.values())).require(selection)
        chosen = {
            site: meaning(selection, self._record.forms[site]).selection
            if isinstance(selection, As)
            else selection
            for site in accepted
        }
        return {**(others or self._record.selections), **chosen}

    def _gradient(
        self, cotangent: Tensor, chosen: Mapping[ExactSite, Selection]
    ) -> dict[str, Rationals]:
        if tuple(cotangent.shape) != self.output.shape:
            raise InputError(
                f"cotangent: must have the shape of the output {self.output.shape}, "
                f"not {tuple(cotangent.shape)}"
            )
        limit = next((each for each in chosen.values() if isinstance(each, Limit)), None)
        if limit is not None:
            if others := set(chosen.values()) - {limit}:
                raise InputError(
                    f"exact: {limit} is that of a whole program, but other sites have "
                    f"{', '.join(sorted(map(str, others)))}"
                )
            return self._limit(cotangent, self._network.direction(limit.seed))
        return self._pulled_back(cotangent, self._record, self._output, chosen, {})

    def _limit(self, cotangent: Tensor, direction: Sequence[Tensor]) -> dict[str, Rationals]:
        moving = self._network.along(direction)
        record, output = self._network.carry_out(moving)
        chosen = dict.fromkeys(self._record.selections, First())
        return self._pulled_back(cotangent, record, output, chosen, moving)

    def _pulled_back(
        self,
        cotangent: Tensor,
        record: Record,
        output: Variable,
        chosen: Mapping[ExactSite, Selection],
        moving: Mapping[Variable, Variable],
    ) -> dict[str, Rationals]:
        gradients = record.pull_back(output, from_floats(cotangent, "cotangent"), chosen)
        return {
            name: gradients[at].at_rest()
            if (at := moving.get(variable, variable)) in gradients
            else Rationals(np.zeros(variable.value.shape, object))
            for name, variable in self._network.parameters.items()
        }


def evaluate(model: nn.Module, inputs: Tensor) -> ExactPoint:
    """The forward pass of a network over the rationals, at its parameters as they are.

    Covered are linear layers and convolutions (1d, 2d), ReLU, Hardtanh, ReLU6, LeakyReLU, clamp
    with numbers, abs, amax, amin, maximum and minimum, max and average pooling (1d, 2d, also
    adaptive), flattening, sums, differences and products of tensors, dropout and batch norm in
    evaluation mode, as modules or functions, in any model that ``torch.fx`` can trace; and Python
    numbers added, subtracted, multiplied or divided by, each as the type of the parameters takes it
    (see :mod:`kinkcheck.arithmetic.constants`). What is made where gradients are off, or detached,
    is a constant. Autocast changes nothing here, since it only rounds. Batch norm needs
    1/√(var + eps), which is not rational: its float64 value, rounded once, is taken for the number
    itself, eps being that of the type; all else of batch norm, (x − mean) · that · weight + bias,
    is exact.

    What a trace can show otherwise than the program has it (hooks, custom autograd functions, calls
    in place whose tensor is seen elsewhere, ...) is not covered. A model can still show it
    something else, by asking what it is given: :meth:`ExactPoint.require_agreement` tells.

    Args:
        model: in the mode in which it is to be evaluated.
        inputs: a batch of floating-point numbers of any type.

    Raises:
        InputError: a layer is not covered (see :func:`uncovered`), a number is not finite, or
            python-flint is not installed.

    >>> point = evaluate(nn.Sequential(nn.ReLU(), nn.MaxPool1d(2)), torch.zeros(1, 1, 4))
    >>> {tuple(site): tied for site, tied in point.ties.items()}
    {('0', 'relu', 0): 4, ('1', 'max_pool1d', 0): 2}
    """
    return ExactPoint(Network(model, inputs))


def _largest(tensors: Mapping[str, Tensor]) -> float:
    return max(float(tensor.abs().max()) for tensor in tensors.values())


def _l1(tensors: Mapping[str, Tensor]) -> float:
    return sum(float(tensor.abs().sum()) for tensor in tensors.values())


def _require_close(
    exact: Mapping[str, Rationals],
    recorded: Mapping[str, Tensor],
    norm: Callable[[dict[str, Tensor]], float],
    relative: float,
) -> None:
    """Refuse tensors by name whose difference is larger than that part of them, in a norm."""
    ours = {name: each.to_float64() for name, each in exact.items()}
    theirs = {name: recorded[name].detach().cpu().double() for name in ours}
    for name in ours:
        if ours[name].shape != theirs[name].shape:
            raise InputError(
                f"exact: {name} has shape {tuple(ours[name].shape)} in the exact trace and "
                f"{tuple(theirs[name].shape)} in the recorded program"
            )
    apart = {name: (ours[name] - theirs[name]).abs() for name in ours}
    if not ours or norm(apart) <= relative * norm(ours):
        return
    # A NaN is the largest of all.
    worst = max(apart, key=lambda name: float(apart[name].nan_to_num(nan=inf).sum()))
    at = tuple(
        int(each) for each in np.unravel_index(int(apart[worst].argmax()), apart[worst].shape)
    )
    raise InputError(
        f"exact: the exact trace gives {ours[worst][at].item()!r} where the recorded program gives "
        f"{theirs[worst][at].item()!r} ({worst}, entry {at}), so that it judges another program"
    )
