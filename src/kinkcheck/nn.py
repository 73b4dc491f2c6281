"""Modules with a fixed selection, drop-in for those of :mod:`torch.nn`, and :func:`convert`.

Each takes the arguments of its namesake and a keyword ``selection``: a text form or a
:class:`~kinkcheck.selection.Selection`. The forward value never depends on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import ops
from kinkcheck.errors import InputError, unknown
from kinkcheck.ops.conventions import Form, meaning
from kinkcheck.ops.row import Row
from kinkcheck.ops.table import BY_NAME, ROWS
from kinkcheck.selection import As, Minimal, Native, Selection, parse

__all__ = [
    "ELU",
    "SELU",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AssignedReLU",
    "AssignedReLU6",
    "CompoundMaxPool2d",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "NormPool2d",
    "PReLU",
    "ReLU",
    "ReLU6",
    "Softshrink",
    "convert",
]

Size = int | tuple[int, ...]

_TYPES = {
    "float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32,
    "float64": torch.float64,
}  # fmt: skip
"""The types that a convention may tell apart."""

_WINDOW = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_OUTPUT = ("output_size", "return_indices")


def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward pass, which older compilers of PyTorch do not follow: they call it as it is."""
    return forward if torch.__version__ >= "2.11" else torch.compiler.disable(forward)


class _Selected(nn.Module):
    """A module of PyTorch that computes under a fixed selection.

    Args:
        args: what its namesake takes.
        selection: a text form, or a selection.
        kwargs: what its namesake takes.
    """

    row: Row
    """The operation."""

    function: Callable[..., Any]
    """PyTorch's function that the module calls."""

    arguments: tuple[str, ...] = ()
    """The attributes that it passes on behind the input, in order."""

    selection: Selection

    def __init__(self, *args: Any, selection: str | Selection = "native", **kwargs: Any) -> None:
        # The next class in line is torch.nn's module of the same name.
        super().__init__(*args, **kwargs)
        self.select(selection)

    def select(self, selection: str | Selection) -> None:
        """Change the selection.

        Raises:
            InputError: the operation does not have it; the message names those that it has.
        """
        self.selection = self.row.require_fixed(parse(selection))
        self._choice, self._why = self.selection, ""
        self._of_type: dict[torch.dtype, Selection] = {}
        if isinstance(self.selection, As):
            held = {each: meaning(self.selection, Form(self.row.name, dtype=name))
                    for name, each in _TYPES.items()}  # fmt: skip
            self._choice, why = Native(), held[torch.float32].why
            self._of_type = {each: found.selection for each, found in held.items()}
            self._why = why and f" (native: {why})"

    @_compiled
    def forward(self, input: Tensor) -> Any:
        """What the namesake returns."""
        arguments = (input, *(getattr(self, name) for name in self.arguments))
        operation = ops.operation(self.function, arguments, {})
        if operation is None:
            return self.function(*arguments)
        return ops.call(operation, self._of_type.get(input.dtype, self._choice))

    def extra_repr(self) -> str:
        """The arguments of the namesake and the selection."""
        arguments = super().extra_repr()
        return f"{arguments}, selection='{self.selection}'{self._why}".removeprefix(", ")


class MaxPool1d(_Selected, nn.MaxPool1d):
    """``torch.nn.MaxPool1d`` with a chosen derivative at ties.

    >>> import torch
    >>> MaxPool1d(2, selection="minimal")(torch.tensor([[1.0, 3.0, 2.0, 2.0]]))
    tensor([[3., 2.]])
    """

    row = BY_NAME["max_pool1d"]
    function = staticmethod(F.max_pool1d)
    arguments = _WINDOW


class MaxPool2d(_Selected, nn.MaxPool2d):
    """``torch.nn.MaxPool2d`` with a chosen derivative at ties.

    >>> import torch
    >>> x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    >>> MaxPool2d(2, selection="hybrid:10")(x).sum().backward()
    >>> x.grad
    tensor([[[[-6.5000,  2.5000],
              [ 2.5000,  2.5000]]]])
    """

    row = BY_NAME["max_pool2d"]
    function = staticmethod(F.max_pool2d)
    arguments = _WINDOW


class MaxPool3d(_Selected, nn.MaxPool3d):
    """``torch.nn.MaxPool3d`` with a chosen derivative at ties.

    >>> MaxPool3d(2, selection="last")
    MaxPool3d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False, selection='last')
    """

    row = BY_NAME["max_pool3d"]
    function = staticmethod(F.max_pool3d)
    arguments = _WINDOW


class AdaptiveMaxPool1d(_Selected, nn.AdaptiveMaxPool1d):
    """``torch.nn.AdaptiveMaxPool1d`` with a chosen derivative at ties.

    >>> import torch
    >>> AdaptiveMaxPool1d(1, selection="minimal")(torch.tensor([[1.0, 3.0]]))
    tensor([[3.]])
    """

    row = BY_NAME["adaptive_max_pool1d"]
    function = staticmethod(F.adaptive_max_pool1d)
    arguments = _OUTPUT


class AdaptiveMaxPool2d(_Selected, nn.AdaptiveMaxPool2d):
    """``torch.nn.AdaptiveMaxPool2d`` with a chosen derivative at ties.

    >>> import torch
    >>> AdaptiveMaxPool2d((1, None), selection="minimal")(torch.ones(1, 2, 3)).shape
    torch.Size([1, 1, 3])
    """

    row = BY_NAME["adaptive_max_pool2d"]
    function = staticmethod(F.adaptive_max_pool2d)
    arguments = _OUTPUT


class AdaptiveMaxPool3d(_Selected, nn.AdaptiveMaxPool3d):
    """``torch.nn.AdaptiveMaxPool3d`` with a chosen derivative at ties.

    >>> import torch
    >>> AdaptiveMaxPool3d(1, selection="minimal")(torch.ones(1, 2, 2, 2)).shape
    torch.Size([1, 1, 1, 1])
    """

    row = BY_NAME["adaptive_max_pool3d"]
    function = staticmethod(F.adaptive_max_pool3d)
    arguments = _OUTPUT


class ReLU(_Selected, nn.ReLU):
    """``torch.nn.ReLU`` with a chosen derivative at 0.

    >>> import torch
    >>> x = torch.zeros(1, requires_grad=True)
    >>> ReLU(selection="branch:0.5")(x).backward()
    >>> x.grad
    tensor([0.5000])
    """

    row = BY_NAME["relu"]
    function = staticmethod(F.relu)
    arguments = ("inplace",)


class Hardtanh(_Selected, nn.Hardtanh):
    """``torch.nn.Hardtanh`` with a chosen derivative at its bounds.

    >>> import torch
    >>> x = torch.tensor([-1.0, 1.0], requires_grad=True)
    >>> Hardtanh(selection="last")(x).sum().backward()
    >>> x.grad
    tensor([1., 0.])
    """

    row = BY_NAME["hardtanh"]
    function = staticmethod(F.hardtanh)
    arguments = ("min_val", "max_val", "inplace")


class ReLU6(_Selected, nn.ReLU6):
    """``torch.nn.ReLU6`` with a chosen derivative at 0 and 6.

    >>> import torch
    >>> x = torch.tensor([0.0, 6.0], requires_grad=True)
    >>> ReLU6(selection="branch:0.5")(x).sum().backward()
    >>> x.grad
    tensor([0.5000, 0.5000])
    """

    row = BY_NAME["relu6"]
    function = staticmethod(F.hardtanh)
    arguments = ("min_val", "max_val", "inplace")


class LeakyReLU(_Selected, nn.LeakyReLU):
    """``torch.nn.LeakyReLU`` with a chosen derivative at 0.

    >>> import torch
    >>> x = torch.zeros(1, requires_grad=True)
    >>> LeakyReLU(0.1, selection="branch:1")(x).backward()
    >>> x.grad
    tensor([1.])
    """

    row = BY_NAME["leaky_relu"]
    function = staticmethod(F.leaky_relu)
    arguments = ("negative_slope", "inplace")


class PReLU(_Selected, nn.PReLU):
    """``torch.nn.PReLU`` with a chosen derivative at 0.

    >>> import torch
    >>> x = torch.zeros(1, requires_grad=True)
    >>> PReLU(selection="branch:1")(x).backward()
    >>> x.grad
    tensor([1.])
    """

    row = BY_NAME["prelu"]
    function = staticmethod(F.prelu)
    arguments = ("weight",)


class ELU(_Selected, nn.ELU):
    """``torch.nn.ELU`` with a chosen derivative at 0, where it has a kink unless α is 1.

    >>> import torch
    >>> x = torch.zeros(1, requires_grad=True)
    >>> ELU(0.5, selection="branch:0.5")(x).backward()
    >>> x.grad
    tensor([0.7500])
    """

    row = BY_NAME["elu"]
    function = staticmethod(F.elu)
    arguments = ("alpha", "inplace")


class SELU(_Selected, nn.SELU):
    """``torch.nn.SELU`` with a chosen derivative at 0.

    >>> SELU(selection="minimal")
    SELU(selection='minimal')
    """

    row = BY_NAME["selu"]
    function = staticmethod(F.selu)
    arguments = ("inplace",)


class Hardswish(_Selected, nn.Hardswish):
    """``torch.nn.Hardswish`` with a chosen derivative at −3 and 3.

    >>> import torch
    >>> x = torch.tensor([-3.0, 3.0], requires_grad=True)
    >>> Hardswish(selection="last")(x).sum().backward()
    >>> x.grad
    tensor([-0.5000,  1.0000])
    """

    row = BY_NAME["hardswish"]
    function = staticmethod(F.hardswish)
    arguments = ("inplace",)


class Hardsigmoid(_Selected, nn.Hardsigmoid):
    """``torch.nn.Hardsigmoid`` with a chosen derivative at −3 and 3.

    >>> import torch
    >>> x = torch.tensor([3.0], requires_grad=True)
    >>> Hardsigmoid(selection="first")(x).backward()
    >>> x.grad
    tensor([0.1667])
    """

    row = BY_NAME["hardsigmoid"]
    function = staticmethod(F.hardsigmoid)
    arguments = ("inplace",)


class Softshrink(_Selected, nn.Softshrink):
    """``torch.nn.Softshrink`` with a chosen derivative at −λ and λ.

    >>> import torch
    >>> x = torch.tensor([0.5], requires_grad=True)
    >>> Softshrink(0.5, selection="last")(x).backward()
    >>> x.grad
    tensor([1.])
    """

    row = BY_NAME["softshrink"]
    function = staticmethod(F.softshrink)
    arguments = ("lambd",)


class NormPool2d(_Selected):
    """The 2-norm of each window, with a chosen derivative where it is 0.

    The value is that of ``torch.nn.LPPool2d(2, ...)``, whose other arguments it takes. ``native``
    and ``minimal`` give 0 at 0; ``branch:1`` gives the vector of ones of the published experiment,
    which lies outside the Clarke subdifferential (see :class:`kinkcheck.ops.Ball`).

    >>> import torch
    >>> NormPool2d(2)(torch.tensor([[[[0.0, 3.0], [4.0, 0.0]]]]))
    tensor([[[[5.]]]])
    """

    row = BY_NAME["norm_pool2d"]
    function = staticmethod(F.lp_pool2d)
    arguments = ("norm_type", "kernel_size", "stride", "ceil_mode")
    norm_type = 2.0

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        ceil_mode: bool = False,
        *,
        selection: str | Selection = "native",
    ) -> None:
        super().__init__(selection=selection)
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def extra_repr(self) -> str:
        """The arguments and the selection."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, ceil_mode={self.ceil_mode}, "
            f"selection='{self.selection}'"
        )


class _Assigned(torch.autograd.Function):
    """A value of which the derivative is 1 where it is the input, and constants at some inputs."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, value: Tensor, constants: dict[float, float]) -> Tensor:
        ctx.save_for_backward(input, value)
        ctx.constants = constants
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        input, value = ctx.saved_tensors
        given = torch.where(input == value, gradients[0], 0)
        for at, constant in ctx.constants.items():
            given = torch.where(input == at, constant, given)
        return given, None, None


class AssignedReLU(nn.Module):
    """ReLU whose backward pass returns α itself at 0, whatever gradient arrives there.

    The derivative of nothing: it is what the code published with Bertoin et al. (NeurIPS 2021,
    ``relu.py``) computes in place of α times the gradient, which ``ReLU(selection="branch:α")`` is.

    Args:
        alpha: what is returned at 0.

    >>> import torch
    >>> x = torch.zeros(1, requires_grad=True)
    >>> (1e-3 * AssignedReLU(0.5)(x)).backward()
    >>> x.grad
    tensor([0.5000])
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = float(alpha)

    def forward(self, input: Tensor) -> Tensor:
        """``torch.relu``."""
        made: Tensor = _Assigned.apply(input, F.relu(input.detach()), {0.0: self.alpha})
        return made

    def extra_repr(self) -> str:
        """The constant."""
        return f"alpha={self.alpha:g}"


class AssignedReLU6(nn.Module):
    """ReLU6 whose backward pass returns α itself at 0 and β at 6, as :class:`AssignedReLU`.

    Args:
        alpha: what is returned at 0.
        beta: what is returned at 6.

    >>> import torch
    >>> x = torch.tensor([0.0, 6.0], requires_grad=True)
    >>> (1e-3 * AssignedReLU6(0.5, 2)(x)).sum().backward()
    >>> x.grad
    tensor([0.5000, 2.0000])
    """

    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = float(alpha), float(beta)

    def forward(self, input: Tensor) -> Tensor:
        """``torch.nn.functional.relu6``."""
        constants = {0.0: self.alpha, 6.0: self.beta}
        made: Tensor = _Assigned.apply(input, F.relu6(input.detach()), constants)
        return made

    def extra_repr(self) -> str:
        """The constants."""
        return f"alpha={self.alpha:g}, beta={self.beta:g}"


class CompoundMaxPool2d(nn.Module):
    """The published formula for hybrid(β): β·minimal(x) + (1 − β)·native(x), two poolings.

    Over the reals it is :class:`MaxPool2d` under ``hybrid:β``. In floating point its forward value
    cancels badly for large |β|, and overflows in float16 once β·max exceeds 65504: it is another
    program, kept so that the two effects can be told apart (Boustany 2024, published code). To a
    tape it is two sites.

    Args:
        beta: β.
        kernel_size, stride, padding, dilation, ceil_mode: as in ``torch.nn.MaxPool2d``.

    >>> import torch
    >>> pool = CompoundMaxPool2d(1e4, 2)
    >>> pool(torch.full((1, 1, 2, 2), 10.0, dtype=torch.float16))
    tensor([[[[nan]]]], dtype=torch.float16)
    """

    def __init__(
        self,
        beta: float,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.beta = beta
        window = (kernel_size, stride, padding, dilation)
        self.minimal = MaxPool2d(*window, ceil_mode=ceil_mode, selection=Minimal())
        self.native = MaxPool2d(*window, ceil_mode=ceil_mode, selection=Native())

    def forward(self, input: Tensor) -> Tensor:
        """β times the minimal pooling plus 1 − β times the native one."""
        compound: Tensor = self.beta * self.minimal(input) + (1 - self.beta) * self.native(input)
        return compound

    def extra_repr(self) -> str:
        """β."""
        return f"beta={self.beta:g}"


_NAMESAKES: dict[type[nn.Module], type[_Selected]] = {
    kind.__mro__[2]: kind
    for kind in (
        MaxPool1d,
        MaxPool2d,
        MaxPool3d,
        AdaptiveMaxPool1d,
        AdaptiveMaxPool2d,
        AdaptiveMaxPool3d,
        ReLU,
        Hardtanh,
        ReLU6,
        LeakyReLU,
        PReLU,
        ELU,
        SELU,
        Hardswish,
        Hardsigmoid,
        Softshrink,
    )
}
"""By the module of PyTorch whose name they have."""

_FAMILIES = tuple(dict.fromkeys(kind.row.family for kind in _NAMESAKES.values()))
"""The families that have modules, which :func:`convert` takes."""


def converts(model: nn.Module, layer: str, operation: str) -> bool:
    """Whether :func:`convert` gives a call a selection: whether such a module makes it.

    Args:
        model: the model.
        layer: the name of the module that makes the call.
        operation: the name of the operation.

    >>> model = nn.Sequential(nn.ReLU())
    >>> converts(model, "0", "relu"), converts(model, "", "relu")
    (True, False)
    """
    layers = dict(model.named_modules(remove_duplicate=False))
    return layer in layers and layers[layer] in _namesakes(model, BY_NAME[operation].family)


def convert(model: nn.Module, **selections: str | Selection | None) -> nn.Module:
    """Give the nonsmooth modules of a model a fixed selection, in place.

    Modules of ``torch.nn`` are replaced by their namesakes here, those that are already from here
    change their selection; parameters, hooks and names stay. Functional calls such as
    ``torch.relu(x)`` are not modules and stay native, and so do subclasses that users made.
    :class:`CompoundMaxPool2d` is left alone.

    Args:
        model: the model to change.
        selections: a selection for each family that is to change: ``max_pool`` (adaptive pooling
            too), ``relu``, ``hardtanh`` (ReLU6 too), ``leaky_relu``, ... None leaves it alone.

    Returns:
        The model, or its replacement if it is itself such a module.

    Raises:
        InputError: no family has this name, an operation does not have the selection, or the model
            has no module for it.

    >>> convert(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), relu="branch:1")
    Sequential(
      (0): Linear(in_features=2, out_features=2, bias=True)
      (1): ReLU(selection='branch:1')
    )
    """
    converted: dict[nn.Module, nn.Module] = {}
    for family, text in selections.items():
        row = next((row for row in ROWS if row.family == family), None)
        if row is None:
            raise unknown("argument", family, _FAMILIES)
        if text is not None:
            converted |= _converted(model, row, row.require_fixed(parse(text)))
    # Only here, where nothing can be refused any more, does the model change.
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in converted:
                setattr(parent, name, converted[child])
    return converted.get(model, model)


def _converted(model: nn.Module, row: Row, selection: Selection) -> dict[nn.Module, nn.Module]:
    namesakes = _namesakes(model, row.family)
    if not namesakes:
        raise InputError(
            f"{row.family}: the model has no {row.family} module to give {selection} to; "
            "functional calls cannot be converted"
        )
    return {
        module: _as_namesake(module, namesake, selection) for module, namesake in namesakes.items()
    }


def _namesakes(model: nn.Module, family: str) -> dict[nn.Module, type[_Selected]]:
    """The modules of a family, and what each is replaced by."""
    found: dict[nn.Module, type[_Selected]] = {}
    compound = [m for m in model.modules() if isinstance(m, CompoundMaxPool2d)]
    inside_compound = {inner for module in compound for inner in module.children()}
    for module in model.modules():
        if module in inside_compound:
            continue
        namesake = _NAMESAKES.get(type(module), type(module))
        if issubclass(namesake, _Selected) and namesake.row.family == family:
            found[module] = namesake
    return found


def _as_namesake(module: nn.Module, namesake: type[_Selected], selection: Selection) -> _Selected:
    new = namesake.__new__(namesake)
    new.__dict__.update(module.__dict__)
    new.select(selection)
    return new
