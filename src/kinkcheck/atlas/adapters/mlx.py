"""MLX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from kinkcheck.atlas.adapters.adapter import Adapter, Array, Call, Way

mx.set_default_device(mx.cpu)


def _max_pool(dimensions: int) -> Call:
    module = getattr(nn, f"MaxPool{dimensions}d")

    def call(x: Any, kernel: Sequence[int], padding: Sequence[int] = ()) -> Any:
        channels_last = x.transpose(0, *range(2, x.ndim), 1)
        return module(tuple(kernel), tuple(kernel), tuple(padding) or 0)(channels_last)

    return Call(f"mlx.nn.MaxPool{dimensions}d", call)


def _scatter(own: Any, source: Any, reduce: str) -> Any:
    there = own.at[mx.zeros(len(source), mx.int32)]
    return there.maximum(source) if reduce == "amax" else there.minimum(source)


class Mlx(Adapter):
    """MLX on the CPU."""

    package = "mlx"
    install = "pip install numpy 'mlx[cpu]=={version}'"
    compiler = "mlx.core.compile"

    calls = {  # noqa: RUF012
        **{f"max_pool{d}d": _max_pool(d) for d in (1, 2, 3)},
        **{
            name: Call(f"mlx.nn.{spelling}", getattr(nn, spelling))
            for name, spelling in (
                ("relu", "relu"),
                ("relu6", "relu6"),
                ("prelu", "prelu"),
                ("hardswish", "hardswish"),
                ("selu", "selu"),
            )
        },
        "hardtanh": Call("mlx.nn.hard_tanh", lambda x, min, max: nn.hard_tanh(x, min, max)),
        "leaky_relu": Call("mlx.nn.leaky_relu", lambda x, slope: nn.leaky_relu(x, slope)),
        "elu": Call("mlx.nn.elu", lambda x, alpha: nn.elu(x, alpha)),
        "softshrink": Call("mlx.nn.softshrink", lambda x, lambd: nn.softshrink(x, lambd)),
        "clamp": Call("mlx.core.clip", lambda x, min, max: mx.clip(x, min, max)),
        "clamp_min": Call("mlx.core.clip", lambda x, bound: mx.clip(x, bound, None)),
        "clamp_max": Call("mlx.core.clip", lambda x, bound: mx.clip(x, None, bound)),
        "clamp_between": Call("mlx.core.clip", mx.clip),
        "clamp_min_between": Call("mlx.core.clip", lambda x, low: mx.clip(x, low, None)),
        "clamp_max_between": Call("mlx.core.clip", lambda x, high: mx.clip(x, None, high)),
        **{
            name: Call(f"mlx.core.{spelling}", getattr(mx, spelling))
            for name, spelling in (
                ("abs", "abs"),
                ("maximum", "maximum"),
                ("minimum", "minimum"),
                ("max of two", "maximum"),
                ("min of two", "minimum"),
                ("max of all", "max"),
                ("min of all", "min"),
                ("amax", "max"),
                ("amin", "min"),
                ("sort", "sort"),
                ("cummax", "cummax"),
                ("cummin", "cummin"),
                ("median of all", "median"),
            )
        },
        "max along": Call("mlx.core.max", partial(mx.max, axis=0)),
        "min along": Call("mlx.core.min", partial(mx.min, axis=0)),
        "median along": Call("mlx.core.median", partial(mx.median, axis=0)),
        "msort": Call("mlx.core.sort", partial(mx.sort, axis=0)),
        "kthvalue": Call("mlx.core.partition", lambda x, k: mx.partition(x, k - 1)[k - 1]),
        "scatter_reduce": Call("mlx.core.array.at[...].maximum, minimum", _scatter),
        "index_reduce": Call("mlx.core.array.at[...].maximum, minimum", _scatter),
        "norm": Call("mlx.core.linalg.norm", lambda x, power: mx.linalg.norm(x, power)),
        "abs_complex": Call("mlx.core.abs", lambda re, im: mx.abs(re + 1j * im)),
        "std": Call("mlx.core.std", lambda x: mx.std(x, ddof=1)),
    }

    def differentiate(
        self, function: Callable[..., list[Any]], inputs: Sequence[Array], way: Way
    ) -> tuple[list[float], list[Array]]:
        """By ``mlx.core.vjp``."""
        made = mx.compile(function) if way.compiled else function
        dtype = getattr(mx, way.dtype)
        tensors = [mx.array(each, mx.float64).astype(dtype) for each in inputs]
        count = len(function(*tensors))
        ones = [mx.ones((), dtype)] * count
        outputs, gradients = mx.vjp(made, tensors, ones)
        return (
            [float(each.item()) for each in outputs],
            [np.array(each.astype(mx.float64), np.float64) for each in gradients],
        )
