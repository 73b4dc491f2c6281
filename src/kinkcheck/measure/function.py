"""Any function of tensors as a recorded program, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kinkcheck.errors import InputError, one_line
from kinkcheck.measure.batch import tensors
from kinkcheck.measure.forward import Forward
from kinkcheck.tape.as_found import as_found


@dataclass(frozen=True)
class Entry:
    """An entry of a tensor.

    Attributes:
        tensor: the number of the tensor.
        index: where in it.
    """

    tensor: int
    index: tuple[int, ...]


class Function:
    """A function of tensors, recorded at a point and evaluated around it, in float64.

    An evaluation leaves random states and what the function refers to as they were; unless several
    in a row return the same, when that is left to the caller
    (:func:`kinkcheck.tape.as_found.as_found`).

    Args:
        function: takes the inputs and returns a tensor or several.
        inputs: a tensor, or a sequence of tensors and other values. Those that require a gradient
            are differentiated with respect to; in the other values none may.

    Attributes:
        forward: the recorded forward pass.
        outputs: what it returned, in one vector.
        entries: which entry of the outputs each number of that vector is.
        elements: the same of the inputs that require a gradient.
        at: those inputs, in one vector.

    Raises:
        InputError: what is given or returned cannot be differentiated in float64.

    >>> x = torch.ones(2, requires_grad=True)
    >>> function = Function(torch.abs, x)
    >>> function.outputs, function.entries[1], function.value(-2 * function.at)
    (tensor([1., 1.], dtype=torch.float64, grad_fn=<CatBackward0>),
     Entry(tensor=0, index=(1,)), tensor([2., 2.], dtype=torch.float64))
    """

    def __init__(self, function: Callable[..., Any], inputs: Tensor | Sequence[Any]) -> None:
        given = (inputs,) if isinstance(inputs, Tensor) else inputs
        if not isinstance(given, Sequence):
            raise InputError(
                f"inputs: must be a tensor or a sequence of some, not {type(given).__name__}"
            )
        for number, each in enumerate(given):
            if not isinstance(each, Tensor) and any(t.requires_grad for t in tensors(each)):
                raise InputError(
                    f"inputs: number {number}, a {type(each).__name__}, holds a tensor that "
                    "requires a gradient, which would not be checked; give that tensor as an input "
                    "of its own"
                )
        self._function = function
        self._inputs = [_lifted(each, number) for number, each in enumerate(given)]
        self._moving = [
            number
            for number, each in enumerate(given)
            if isinstance(each, Tensor) and each.requires_grad
        ]
        if not self._moving:
            raise InputError(
                "inputs: at least one tensor has to require a gradient; none has requires_grad=True"
            )
        self._was_lifted = any(
            isinstance(each, Tensor) and each.dtype != lifted.dtype
            for each, lifted in zip(given, self._inputs, strict=True)
        )
        self._holder = nn.Module()
        self._holder.moving = nn.ParameterList(
            nn.Parameter(self._inputs[number]) for number in self._moving
        )
        self._tensors = list(self._holder.parameters())
        self._steady = False
        self._returned: list[tuple[int, Tensor]] = []
        self.forward = self.again()
        returned = self._returned
        self.outputs = torch.cat([each.flatten() for _, each in returned])
        self.entries = [e for number, each in returned for e in _entries(number, each)]
        self.elements = [
            e
            for number, each in zip(self._moving, self._tensors, strict=True)
            for e in _entries(number, each)
        ]
        self.at = torch.cat([each.detach().flatten().cpu() for each in self._tensors])
        self._require_sound()

    def again(self) -> Forward:
        """The forward pass recorded once more, with the tensors as they are."""
        return Forward(self._holder, self._run, program=[self._function])

    def require_steady(self) -> None:
        """Refuse a function that has come to return other values than at first.

        Raises:
            InputError: it has.
        """
        if not torch.allclose(self.value(self.at), self._here, rtol=1e-12, atol=1e-12):
            raise InputError(
                "function: returns other values each time that it is called on the same inputs"
            )

    def _kept(self) -> AbstractContextManager[None]:
        """A context of one evaluation; to put all back each time takes longer than most of them."""
        return nullcontext() if self._steady else as_found(None, [self._function])

    def _run(self) -> Tensor:
        self._returned = self._call(self._tensors)
        return torch.cat([each.flatten() for _, each in self._returned]).sum()

    def value(self, at: Tensor) -> Tensor:
        """The outputs at a point, in one vector: from the same random state every time.

        Args:
            at: the inputs that require a gradient, in one vector.
        """
        return self._plainly(at)[1].detach().cpu()

    def _plainly(self, at: Tensor) -> tuple[list[Tensor], Tensor]:
        """Tensors with the numbers of a point, and the outputs there as PyTorch returns them."""
        tensors = [
            torch.empty_like(each.detach()).copy_(part.view(each.shape)).requires_grad_()
            for each, part in zip(self._tensors, self._parts(at), strict=True)
        ]
        with self._kept(), torch.enable_grad():
            found = torch.cat([each.flatten() for _, each in self._call(tensors)])
        if found.shape != self.outputs.shape:
            raise InputError(
                f"function: returns {len(found)} numbers where its inputs are moved, not "
                f"{len(self.outputs)}"
            )
        return tensors, found

    def direction(self, vector: np.ndarray) -> list[Tensor]:
        """A vector as one tensor for each input that requires a gradient."""
        return [
            part.view(each.shape).to(each)
            for each, part in zip(self._tensors, self._parts(torch.from_numpy(vector)), strict=True)
        ]

    def _parts(self, vector: Tensor) -> Sequence[Tensor]:
        return torch.split(vector, [each.numel() for each in self._tensors])

    def _call(self, tensors: Sequence[Tensor]) -> list[tuple[int, Tensor]]:
        """The outputs that are real numbers, each with its number."""
        inputs = [each.clone() if isinstance(each, Tensor) else each for each in self._inputs]
        for number, tensor in zip(self._moving, tensors, strict=True):
            inputs[number] = tensor
        try:
            returned = self._function(*inputs)
        except RuntimeError as error:
            if not self._was_lifted:
                raise
            raise InputError(
                f"function: fails on its inputs in float64, in which they are checked: "
                f"{one_line(error)}"
            ) from error
        outputs = returned if isinstance(returned, tuple | list) else (returned,)
        for number, each in enumerate(outputs):
            _require_output(each, number)
        real = [(n, each) for n, each in enumerate(outputs) if each.is_floating_point()]
        if not real:
            raise InputError("function: returns no real numbers")
        return real

    def _require_sound(self) -> None:
        narrow = self.outputs.requires_grad and self.forward.narrower_than_float64()
        if narrow or self.outputs.dtype != torch.float64:
            raise InputError(
                "function: computes in less than float64, where difference quotients tell too "
                "little; its inputs are float64, so let it keep their type"
            )
        tensors, plain = self._plainly(self.at)
        self._here = here = plain.detach().cpu()
        if not bool(here.isfinite().all()):
            place = int((~here.isfinite()).nonzero()[0])
            entry = self.entries[place]
            raise InputError(
                f"function: output {entry.tensor} is not finite: {float(here[place])} at "
                f"{entry.index}"
            )
        with as_found(None, [self._function]):
            self._steady = True
            self._steady = all(torch.equal(self.value(self.at), here) for _ in range(2))
        self.require_steady()
        self._require_recorded(tensors, plain)

    def _require_recorded(self, tensors: list[Tensor], plain: Tensor) -> None:
        """Refuse where the recorded program is not the one that runs without kinkcheck."""
        if not torch.allclose(self._here, self.outputs.detach().cpu(), rtol=1e-12, atol=1e-12):
            raise InputError(
                "function: returns other values where it is recorded; kinkcheck would check "
                "another program"
            )
        if not self.outputs.requires_grad:
            return
        own = self.forward.gradient({}).values()
        gradients = torch.autograd.grad(plain.sum(), tensors, allow_unused=True)
        for of_own, other in zip(own, gradients, strict=True):
            returned = torch.zeros_like(of_own) if other is None else other
            if not torch.allclose(of_own, returned, rtol=1e-9, atol=1e-9, equal_nan=True):
                raise InputError(
                    "function: its recorded gradient is not the one that plain autograd returns; "
                    "kinkcheck would check another program"
                )


def _entries(number: int, tensor: Tensor) -> list[Entry]:
    return [Entry(number, index) for index in np.ndindex(*tensor.shape)]


def _lifted(value: Any, number: int) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value.requires_grad:
        if value.layout != torch.strided:
            raise InputError(f"inputs: number {number} is of layout {value.layout}; make it dense")
        if value.is_complex():
            raise InputError(
                f"inputs: number {number} is complex; give torch.view_as_real of it instead"
            )
        if not bool(value.isfinite().all()):
            raise InputError(f"inputs: number {number} has entries that are not finite")
    copy = value.detach().clone()
    return copy.double() if copy.is_floating_point() else copy


def _require_output(value: Any, number: int) -> None:
    if not isinstance(value, Tensor):
        raise InputError(
            f"function: must return tensors; output {number} is of type {type(value).__name__}"
        )
    if value.layout != torch.strided or value.is_complex():
        how = "complex" if value.is_complex() else f"of layout {value.layout}"
        raise InputError(f"function: output {number} is {how}; return dense real numbers")
