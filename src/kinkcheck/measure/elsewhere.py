"""A gradient from elsewhere: arrays by the names of the parameters, or a file of them."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from torch import Tensor, nn

from kinkcheck import extras
from kinkcheck.errors import InputError, unknown
from kinkcheck.files import require_readable
from kinkcheck.measure.forward import Gradient

KINDS = ("npz", "safetensors")
"""The files that are read, by the ends of their names."""


def elsewhere(other: Mapping[str, Any] | str | Path, model: nn.Module) -> Gradient:
    """A gradient from elsewhere, by parameter name.

    Args:
        other: an array or a tensor for each parameter that requires a gradient, of its shape; or a
            file of them that NumPy (``.npz``) or safetensors (``.safetensors``) wrote.
        model: whose parameters they belong to.

    Returns:
        Tensors on the CPU, of the types that were given.

    Raises:
        InputError: the file cannot be read, a name is missing or none of a parameter, a shape is
            another one, or an entry is no finite number.

    >>> elsewhere({"weight": np.ones((1, 2)), "bias": [0.0]}, nn.Linear(2, 1))["bias"]
    tensor([0.], dtype=torch.float64)
    >>> elsewhere({"weight": np.ones((1, 2)), "bais": [0.0]}, nn.Linear(2, 1))
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: other: unknown parameter 'bais'; did you mean 'bias'? accepted: ...
    """
    source = "other"
    if isinstance(other, str | Path):
        source = str(other)
        other = _read(Path(other))
    if not isinstance(other, Mapping):
        raise InputError(
            f"other: must be a gradient by parameter name or a file of one, "
            f"not {type(other).__name__}"
        )
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    for name in other:
        if name not in shapes:
            raise InputError(f"{source}: {unknown('parameter', name, shapes)}")
    for name in shapes:
        if name not in other:
            close = get_close_matches(name, shapes.keys() & other.keys(), n=1)
            near = f"; it has {close[0]!r}" if close else ""
            raise InputError(f"{source}: has no gradient of {name!r}{near}")
    return {
        name: _checked(_tensor(other[name], name, source), name, shape, source)
        for name, shape in shapes.items()
    }


def _checked(tensor: Tensor, name: str, shape: tuple[int, ...], source: str) -> Tensor:
    given = tuple(tensor.shape)
    if given != shape:
        turned = "; transpose it" if given == shape[::-1] else ""
        raise InputError(
            f"{source}: the gradient of {name!r} has shape {given}, the parameter {shape}{turned}"
        )
    wrong = int(torch.count_nonzero(~tensor.isfinite()))
    if wrong:
        raise InputError(
            f"{source}: the gradient of {name!r} has {wrong} entries that are not finite, of "
            f"{tensor.numel()}"
        )
    return tensor


def _tensor(given: Any, name: str, source: str) -> Tensor:
    if isinstance(given, Tensor):
        tensor = given.detach().to_dense().cpu()
    else:
        try:
            array = np.asarray(given)
            if array.dtype.name == "bfloat16":  # of ml_dtypes, as JAX has it
                array = array.astype(np.float32)
            tensor = torch.from_numpy(np.array(array))
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{source}: the gradient of {name!r} is no array: {reason}") from None
    if not tensor.is_floating_point():
        raise InputError(f"{source}: the gradient of {name!r} is of {tensor.dtype}, not of floats")
    return tensor


def _read(path: Path) -> dict[str, Any]:
    kind = path.suffix.removeprefix(".")
    if kind not in KINDS:
        raise InputError(f"{path}: must be a file of the kinds .npz or .safetensors")
    require_readable(path)
    loader = extras.require("safetensors.torch", extra="safetensors") if kind != "npz" else None
    try:
        if loader is not None:
            return dict(loader.load_file(path))
        if not is_zipfile(path):  # which NumPy would take for a pickle
            raise ValueError("it is no archive of arrays, as numpy.savez writes it")
        with np.load(path) as held:
            return {name: held[name] for name in held.files}
    except Exception as error:  # each of them has many
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read as .{kind}: {reason}") from None
