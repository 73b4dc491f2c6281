"""PyTensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from kinkcheck.atlas.adapters.adapter import Adapter, Array, Call, Way


class Pytensor(Adapter):
    """PyTensor: with few rewrites and in Python, or compiled as by default."""

    package = "pytensor"
    dtypes = ("float64", "float32")
    compiler = "pytensor.function"

    calls = {  # noqa: RUF012
        "clamp": Call("pytensor.tensor.clip", lambda x, min, max: pt.clip(x, min, max)),
        "clamp_between": Call("pytensor.tensor.clip", pt.clip),
        "abs": Call("pytensor.tensor.abs", pt.abs),
        "maximum": Call("pytensor.tensor.maximum", pt.maximum),
        "minimum": Call("pytensor.tensor.minimum", pt.minimum),
        "max of two": Call("pytensor.tensor.maximum", pt.maximum),
        "min of two": Call("pytensor.tensor.minimum", pt.minimum),
        "max of all": Call("pytensor.tensor.max", pt.max),
        "min of all": Call("pytensor.tensor.min", pt.min),
        "max along": Call("pytensor.tensor.max", partial(pt.max, axis=0)),
        "min along": Call("pytensor.tensor.min", partial(pt.min, axis=0)),
        "amax": Call("pytensor.tensor.max", pt.max),
        "amin": Call("pytensor.tensor.min", pt.min),
        "sort": Call("pytensor.tensor.sort", pt.sort),
        "msort": Call("pytensor.tensor.sort", partial(pt.sort, axis=0)),
        "median of all": Call("pytensor.tensor.median", pt.median),
        "median along": Call("pytensor.tensor.median", partial(pt.median, axis=0)),
        "norm": Call("pytensor.tensor.linalg.norm", lambda x, power: pt.linalg.norm(x, power)),
        "std": Call("pytensor.tensor.std", partial(pt.std, ddof=1)),
    }

    def differentiate(
        self, function: Callable[..., list[Any]], inputs: Sequence[Array], way: Way
    ) -> tuple[list[float], list[Array]]:
        """By ``pytensor.grad``."""
        symbols = [pt.tensor(dtype=way.dtype, shape=each.shape) for each in inputs]
        outputs = function(*symbols)
        slopes = pytensor.grad(sum(outputs), symbols, disconnected_inputs="ignore")
        mode = None if way.compiled else "FAST_COMPILE"
        made = pytensor.function(symbols, [*outputs, *slopes], mode=mode, on_unused_input="ignore")
        found = made(*(each.astype(way.dtype) for each in inputs))
        count = len(outputs)
        return [float(each) for each in found[:count]], [
            np.asarray(each, np.float64) for each in found[count:]
        ]

    def entry(self, output: Any, place: int) -> Any:
        """By ``flatten``, whose shape need not be known."""
        return output.flatten()[place]
