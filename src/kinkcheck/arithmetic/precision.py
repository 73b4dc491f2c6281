"""Precisions: how a model and a batch are stored and computed with.

========= ============ ================================================================
short     name         meaning
========= ============ ================================================================
``16``    float16      parameters, inputs and computation in IEEE binary16
..        bfloat16     the same in bfloat16 (8 bits of significand)
``32``    float32      IEEE binary32
``64``    float64      IEEE binary64
``24``    mixed        float32 parameters and inputs under ``torch.autocast`` to float16
========= ============ ================================================================

The short names are those of the papers (Boustany 2024, section 3).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kinkcheck.arithmetic.contractions import float32_contractions
from kinkcheck.arithmetic.precision_names import canonical
from kinkcheck.errors import InputError, nearest


@dataclass(frozen=True)
class Precision:
    """A floating-point type to store in, and possibly another to compute in.

    Attributes:
        name: ``float16``, ``bfloat16``, ``float32``, ``float64`` or ``mixed``.
        storage: the type of parameters, buffers and inputs.
        computing: the type that autocast computes in, where it differs from ``storage``.
    """

    name: str
    storage: torch.dtype
    computing: torch.dtype | None = None

    @property
    def unit_roundoff(self) -> float:
        """u, the largest relative error of one rounding in the computing type.

        >>> parse("32").unit_roundoff == 2.0**-24
        True
        """
        return torch.finfo(self.computing or self.storage).eps / 2

    def cast_model(self, model: nn.Module, device: torch.device | str = "cpu") -> nn.Module:
        """A copy of the model with floating-point parameters and buffers in the storage type.

        Going up in precision is exact, going down rounds to nearest.

        >>> parse("16").cast_model(nn.Linear(1, 1)).weight.dtype
        torch.float16
        """
        return copy.deepcopy(model).to(device=device, dtype=self.storage)

    def cast(self, tensor: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """The tensor on a device, in the storage type if it is a floating-point tensor.

        >>> parse("bfloat16").cast(torch.zeros(2)).dtype, parse("16").cast(torch.tensor([1])).dtype
        (torch.bfloat16, torch.int64)
        """
        dtype = self.storage if tensor.is_floating_point() else tensor.dtype
        return tensor.to(device=device, dtype=dtype)

    def computation(self, device: torch.device | str = "cpu") -> AbstractContextManager[object]:
        """The context to run a forward pass in: autocast for ``mixed``, nothing otherwise.

        >>> with parse("mixed").computation():
        ...     nn.Linear(1, 1)(torch.zeros(1)).dtype
        torch.float16
        """
        if self.computing is None:
            return nullcontext()
        return torch.autocast(torch.device(device).type, self.computing)

    def contractions(self, device: torch.device | str = "cpu") -> AbstractContextManager[object]:
        """The context to run forward and backward passes in.

        See :mod:`kinkcheck.arithmetic.contractions`.

        It makes float16 usable on a CPU, and does nothing in other precisions and elsewhere.

        >>> x = torch.ones(1, 4096, dtype=torch.float16)
        >>> with parse("16").contractions():
        ...     (x @ x.T).item()
        4096.0
        """
        narrow = torch.float16 in (self.storage, self.computing)
        on_cpu = torch.device(device).type == "cpu"
        return float32_contractions() if narrow and on_cpu else nullcontext()

    def __str__(self) -> str:
        return self.name


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("float16", torch.float16),
        Precision("bfloat16", torch.bfloat16),
        Precision("float32", torch.float32),
        Precision("float64", torch.float64),
        Precision("mixed", torch.float32, torch.float16),
    )
}
"""Every precision by its name."""


def parse(given: str | int | torch.dtype | Precision) -> Precision:
    """The precision that a name, a short name or a type stands for.

    Args:
        given: as :func:`kinkcheck.arithmetic.precision_names.canonical` takes it; a precision is
            returned unchanged.

    Raises:
        InputError: there is no such precision.

    >>> parse("24").name, parse(torch.bfloat16).name
    ('mixed', 'bfloat16')
    >>> parse("8")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: unknown precision '8'; accepted: float16, bfloat16, ...
    """
    return given if isinstance(given, Precision) else PRECISIONS[canonical(given)]


_DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "meta")


def require_available(precision: Precision, device: torch.device | str) -> None:
    """Check that a device exists and can hold and multiply numbers of a precision.

    Raises:
        InputError: the device is not there, or does not have the precision.

    >>> require_available(parse("64"), "cpu")
    >>> require_available(parse("64"), "abacus")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: device 'abacus' cannot be used: ...
    """
    try:
        torch.zeros(1, device=device).item()  # on meta there are no numbers
    except Exception as error:  # each kind of device that is not there has its own
        reason = str(error).partition("\n")[0]
        near = nearest(device, _DEVICES) if str(device).partition(":")[0] not in _DEVICES else ""
        raise InputError(
            f"device {str(device)!r} cannot be used{near and ';'}{near or ':'} {reason}"
        ) from None
    try:
        one = torch.ones(1, 1, device=device, dtype=precision.storage)
        with precision.computation(device):
            one @ one
    except (RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"device {str(device)!r} has no {precision}: {reason}") from None


def require_precisions(precisions: Iterable[str | Precision], device: str) -> None:
    """Check that this process has a device with each of some precisions.

    Raises:
        InputError: it has not; see :func:`require_available`.

    >>> require_precisions(["float16", "float64"], "cpu")
    """
    for each in precisions:
        require_available(parse(each), device)
