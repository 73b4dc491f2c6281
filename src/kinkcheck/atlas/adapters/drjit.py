"""Dr.Jit, by LLVM: set DRJIT_LIBLLVM_PATH to one that is newer than version 16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import drjit
import numpy as np
from drjit.llvm import ad

from kinkcheck.atlas.adapters.adapter import Adapter, Array, Call, Lacking, Way

_TYPES = {"float64": ad.Float64, "float32": ad.Float32, "float16": ad.Float16}


def _vector(x: Any) -> list[Any]:
    """Its entries, each an array of one number."""
    return [drjit.gather(type(x), x, place) for place in range(drjit.width(x))]


def _norm(x: Any, power: float) -> Any:
    if power != 2:
        raise Lacking
    kind = {8: ad.Array2f64, 4: ad.Array2f, 2: ad.Array2f16}[drjit.itemsize_v(x)]
    return drjit.norm(kind(*_vector(x)))


def _scatter(own: Any, source: Any, reduce: str) -> Any:
    target = type(own)(own)
    how = drjit.ReduceOp.Max if reduce == "amax" else drjit.ReduceOp.Min
    drjit.scatter_reduce(how, target, source, drjit.zeros(ad.UInt32, drjit.width(source)))
    return target


class Drjit(Adapter):
    """Dr.Jit."""

    package = "drjit"
    install = "pip install numpy drjit=={version}; LLVM newer than 16 at DRJIT_LIBLLVM_PATH"
    dtypes = ("float64", "float32", "float16")

    calls = {  # noqa: RUF012
        "clamp": Call("drjit.clip", lambda x, min, max: drjit.clip(x, min, max)),
        "clamp_between": Call("drjit.clip", drjit.clip),
        "abs": Call("drjit.abs", drjit.abs),
        "maximum": Call("drjit.maximum", drjit.maximum),
        "minimum": Call("drjit.minimum", drjit.minimum),
        "max of two": Call("drjit.maximum", drjit.maximum),
        "min of two": Call("drjit.minimum", drjit.minimum),
        "max of all": Call("drjit.max", drjit.max),
        "min of all": Call("drjit.min", drjit.min),
        "amax": Call("drjit.max", drjit.max),
        "amin": Call("drjit.min", drjit.min),
        "scatter_reduce": Call("drjit.scatter_reduce", _scatter),
        "norm": Call("drjit.norm", _norm),
    }

    def differentiate(
        self, function: Callable[..., list[Any]], inputs: Sequence[Array], way: Way
    ) -> tuple[list[float], list[Array]]:
        """By ``drjit.backward``."""
        kind = _TYPES[way.dtype]
        tensors = [kind(each.ravel().tolist()) for each in inputs]
        drjit.make_opaque(tensors)
        drjit.enable_grad(tensors)
        outputs = function(*tensors)
        flags = drjit.ADFlag.Default | drjit.ADFlag.AllowNoGrad
        drjit.backward(sum(outputs[1:], outputs[0]), flags=flags)
        gradients = [np.array(drjit.grad(each), np.float64) for each in tensors]
        return [float(each[0]) for each in outputs], gradients

    def entry(self, output: Any, place: int) -> Any:
        """By ``drjit.gather``."""
        return drjit.gather(type(output), output, place)
