"""What an exact forward pass leaves behind, and the backward pass through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from kinkcheck.arithmetic.constants import as_taken
from kinkcheck.exact.kinks import Found, KinkAdjoint
from kinkcheck.exact.layers import Adjoint
from kinkcheck.exact.rationals import Rationals, from_floats
from kinkcheck.ops.conventions import Form
from kinkcheck.selection import Native, Selection


class ExactSite(NamedTuple):
    """One call of a nonsmooth operation, named as :class:`kinkcheck.Site` names it.

    Attributes:
        layer: name of the module that made the call; empty for the model itself.
        operation: name of the operation.
        call: how often this layer had called this operation before.
    """

    layer: str
    operation: str
    call: int


@dataclass(eq=False)
class Variable:
    """A tensor of the forward pass."""

    value: Rationals


@dataclass
class Record:
    """The layers that were carried out, in order.

    Attributes:
        layer: name of the module whose calls are being carried out.
        own: the selection of that module itself.
        differentiates: whether gradients are on. What is made while they are off is a constant;
            its sites exist, but no gradient passes.
        dtype: the type of the tensors that numbers meet.
        device: where they are.
        windows: how many windows, or elements of a pointwise operation, each site has.
        ties: how many of them are tied.
        forms: what the convention of a framework depends on at each site.
        selections: the selection of the program itself at each site.
    """

    layer: str = ""
    own: Selection = field(default_factory=Native)
    differentiates: bool = True
    dtype: torch.dtype = torch.float64
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    windows: dict[ExactSite, int] = field(default_factory=dict)
    ties: dict[ExactSite, int] = field(default_factory=dict)
    forms: dict[ExactSite, Form] = field(default_factory=dict)
    selections: dict[ExactSite, Selection] = field(default_factory=dict)
    _steps: list[tuple[Variable, list[tuple[Variable, Callable[..., Rationals]]]]] = field(
        default_factory=list
    )
    _sites: dict[Variable, ExactSite] = field(default_factory=dict)

    def step(
        self, output: Rationals, *pullbacks: tuple[Variable, Adjoint | KinkAdjoint]
    ) -> Variable:
        """Add a smooth layer: its output, and for each input the adjoint.

        Where no gradient passes nothing moves.
        """
        if not self.differentiates or not pullbacks:
            return Variable(output.at_rest())
        variable = Variable(output)
        self._steps.append((variable, list(pullbacks)))
        return variable

    def number(self, number: float, operation: Callable[..., Any]) -> Variable:
        """A Python number as an operation takes it beside the tensors of the model."""
        taken = as_taken(number, operation, self.dtype, self.device)
        exact = from_floats(torch.tensor(taken, dtype=torch.float64), f"model: the number {number}")
        return Variable(exact)

    def kink(
        self,
        form: Form,
        inputs: Sequence[Variable],
        found: Found,
    ) -> Variable:
        """Add a site: its output, its adjoint, and how many of its windows are tied."""
        output, pulls, tied = found
        call = sum(site[:2] == (self.layer, form.operation) for site in self.ties)
        site = ExactSite(self.layer, form.operation, call)
        self.forms[site] = replace(form, dtype=str(self.dtype).removeprefix("torch."))
        self.windows[site], self.ties[site] = output.numerators.size, tied
        self.selections[site] = self.own
        variable = self.step(output, *zip(inputs, pulls, strict=True))
        self._sites[variable] = site
        return variable

    def pull_back(
        self,
        output: Variable,
        cotangent: Rationals,
        chosen: Mapping[ExactSite, Selection],
    ) -> dict[Variable, Rationals]:
        """The gradients of ⟨cotangent, output⟩ by variable, for those that no layer made."""
        gradients = {output: cotangent}
        for variable, pullbacks in reversed(self._steps):
            gradient = gradients.pop(variable, None)
            if gradient is None or not np.any(gradient.numerators != 0):
                continue
            site = self._sites.get(variable)
            selection = () if site is None else (chosen[site],)
            for input, pull in pullbacks:
                pulled = pull(gradient, *selection)
                gradients[input] = gradients[input] + pulled if input in gradients else pulled
        return gradients
