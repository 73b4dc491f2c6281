"""tinygrad, on the device that needs no compiler unless DEV names another."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

os.environ.setdefault("DEV", "PYTHON")

import numpy as np
from tinygrad import Tensor, dtypes

from kinkcheck.atlas.adapters.adapter import Adapter, Array, Call, Way


def _method(name: str, *order: str, **fixed: Any) -> Call:
    """A method of a tensor, and the order in which it takes the settings."""
    method = getattr(Tensor, name)

    def call(*tensors: Any, **settings: Any) -> Any:
        found = method(*tensors, *(settings[each] for each in order), **fixed)
        return found[0] if isinstance(found, tuple) else found  # values, indices

    return Call(f"tinygrad.Tensor.{name}", call)


def _scatter(own: Any, source: Any, reduce: str) -> Any:
    index = Tensor.zeros(*source.shape, dtype=dtypes.int32)
    return own.scatter_reduce(0, index, source, reduce)


class Tinygrad(Adapter):
    """tinygrad."""

    package = "tinygrad"

    calls = {  # noqa: RUF012
        **{
            f"max_pool{d}d": Call(
                "tinygrad.Tensor.max_pool2d",
                lambda x, kernel, padding=0: x.max_pool2d(tuple(kernel), padding=padding),
            )
            for d in (1, 2, 3)
        },
        **{
            name: _method(name)
            for name in ("relu", "relu6", "hardswish", "hardsigmoid", "selu", "abs", "std")
        },
        "hardtanh": _method("hardtanh", "min", "max"),
        "leaky_relu": _method("leaky_relu", "slope"),
        "elu": _method("elu", "alpha"),
        "clamp": _method("clamp", "min", "max"),
        "clamp_min": Call("tinygrad.Tensor.clamp", lambda x, bound: x.clamp(min_=bound)),
        "clamp_max": Call("tinygrad.Tensor.clamp", lambda x, bound: x.clamp(max_=bound)),
        "clamp_between": _method("clamp"),
        "clamp_min_between": Call("tinygrad.Tensor.clamp", lambda x, low: x.clamp(min_=low)),
        "clamp_max_between": Call("tinygrad.Tensor.clamp", lambda x, high: x.clamp(max_=high)),
        **{
            name: _method(method, **fixed)
            for name, method, fixed in (
                ("maximum", "maximum", {}),
                ("minimum", "minimum", {}),
                ("max of two", "maximum", {}),
                ("min of two", "minimum", {}),
                ("max of all", "max", {}),
                ("min of all", "min", {}),
                ("max along", "max", {"axis": 0}),
                ("min along", "min", {"axis": 0}),
                ("amax", "max", {}),
                ("amin", "min", {}),
                ("sort", "sort", {}),
                ("msort", "sort", {"dim": 0}),
            )
        },
        "topk": _method("topk", "k"),
        "cummax": _method("cummax", axis=0),
        "cummin": _method("cummin", axis=0),
        "scatter_reduce": Call("tinygrad.Tensor.scatter_reduce", _scatter),
    }

    def differentiate(
        self, function: Callable[..., list[Any]], inputs: Sequence[Array], way: Way
    ) -> tuple[list[float], list[Array]]:
        """By ``Tensor.gradient``."""
        dtype = getattr(dtypes, way.dtype)
        cast = partial(Tensor.cast, dtype=dtypes.float64)
        tensors = [Tensor(each.tolist(), dtype=dtypes.float64).cast(dtype) for each in inputs]
        outputs = function(*tensors)
        total = sum(map(cast, outputs[1:]), cast(outputs[0]))
        gradients = total.gradient(*tensors)
        return (
            [float(cast(each).item()) for each in outputs],
            [np.asarray(cast(each).numpy()) for each in gradients],
        )
