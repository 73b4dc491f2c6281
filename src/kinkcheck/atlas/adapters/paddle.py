"""PaddlePaddle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from kinkcheck.atlas.adapters.adapter import Adapter, Array, Call, Way

paddle.set_device("cpu")


def _functional(name: str, *order: str) -> Call:
    """A function of ``paddle.nn.functional``, and the order in which it takes the settings."""
    return Call(f"paddle.nn.functional.{name}", _ordered(getattr(F, name), order))


def _plain(name: str, *order: str, **fixed: Any) -> Call:
    """A function of ``paddle``."""
    return Call(f"paddle.{name}", _ordered(getattr(paddle, name), order, **fixed))


def _ordered(function: Any, order: Sequence[str], **fixed: Any) -> Callable[..., Any]:
    def call(*tensors: Any, **settings: Any) -> Any:
        found = function(*tensors, *(settings[name] for name in order), **fixed)
        return found if isinstance(found, paddle.Tensor) else found[0]  # values, indices

    return call


def _listed(name: str, *order: str) -> Call:
    """A function of windows, which takes lists, or a number where there is one dimension."""
    function = getattr(F, name)

    def size(each: Any) -> Any:
        return each if isinstance(each, float) else list(each) if len(each) > 1 else each[0]

    return Call(
        f"paddle.nn.functional.{name}",
        lambda x, **settings: function(x, *(size(settings[each]) for each in order)),
    )


def _max_pool(dimensions: int) -> Call:
    name = f"max_pool{dimensions}d"

    def call(x: Any, kernel: Sequence[int], padding: Sequence[int] = ()) -> Any:
        return getattr(F, name)(x, list(kernel), list(kernel), list(padding) or 0)

    return Call(f"paddle.nn.functional.{name}", call)


def _fractional(dimensions: int) -> Call:
    name = f"fractional_max_pool{dimensions}d"

    def call(x: Any, kernel: Sequence[int]) -> Any:
        # Without the size of a kernel the one window has all entries.
        return getattr(F, name)(x, [1] * dimensions, random_u=0.5)

    return Call(f"paddle.nn.functional.{name}", call)


def _scatter(own: Any, source: Any, reduce: str) -> Any:
    index = paddle.zeros(source.shape, "int64")
    return paddle.put_along_axis(own, index, source, 0, reduce=reduce)


def _segment(x: Any, reduce: str) -> Any:
    function = paddle.geometric.segment_max if reduce == "max" else paddle.geometric.segment_min
    return function(x.unsqueeze(1), paddle.zeros([len(x)], "int32"))


class Paddle(Adapter):
    """PaddlePaddle on the CPU."""

    package = "paddlepaddle"
    dtypes = ("float64", "float32")  # on the CPU hardly anything takes 16 bits

    calls = {  # noqa: RUF012
        **{f"max_pool{d}d": _max_pool(d) for d in (1, 2, 3)},
        **{
            f"adaptive_max_pool{d}d": _listed(f"adaptive_max_pool{d}d", "output") for d in (1, 2, 3)
        },
        **{f"fractional_max_pool{d}d": _fractional(d) for d in (2, 3)},
        **{f"norm_pool{d}d": _listed(f"lp_pool{d}d", "power", "kernel") for d in (1, 2)},
        **{
            name: _functional(name)
            for name in ("relu", "relu6", "prelu", "hardswish", "hardsigmoid", "selu")
        },
        "hardtanh": _functional("hardtanh", "min", "max"),
        "leaky_relu": _functional("leaky_relu", "slope"),
        "rrelu": Call(
            "paddle.nn.functional.rrelu",
            lambda x, lower, upper: F.rrelu(x, lower, upper, training=False),
        ),
        "clamp": _plain("clip", "min", "max"),
        "clamp_min": Call("paddle.clip", lambda x, bound: paddle.clip(x, min=bound)),
        "clamp_max": Call("paddle.clip", lambda x, bound: paddle.clip(x, max=bound)),
        "clamp_between": _plain("clip"),
        "elu": _functional("elu", "alpha"),
        "softshrink": _functional("softshrink", "lambd"),
        "threshold": _functional("thresholded_relu", "threshold", "threshold"),
        "abs": _plain("abs"),
        **{
            name: _plain(name)
            for name in ("maximum", "minimum", "fmax", "fmin", "amax", "amin", "sort", "msort")
        },
        "max of all": _plain("max"),
        "min of all": _plain("min"),
        "max along": _plain("max", axis=0),
        "min along": _plain("min", axis=0),
        "max of two": _plain("maximum"),
        "min of two": _plain("minimum"),
        **{
            f"{name} {form}": _plain(name, **fixed)
            for name in ("median", "nanmedian")
            for form, fixed in (("of all", {"mode": "min"}), ("along", {"axis": 0, "mode": "min"}))
        },
        "topk": _plain("topk", "k"),
        "kthvalue": _plain("kthvalue", "k"),
        "mode": _plain("mode"),
        "cummax": _plain("cummax", axis=0),
        "cummin": _plain("cummin", axis=0),
        "scatter_reduce": Call("paddle.put_along_axis", _scatter),
        "segment_reduce": Call(
            "paddle.geometric.segment_max, paddle.geometric.segment_min", _segment
        ),
        "norm": Call("paddle.linalg.vector_norm", lambda x, power:
            paddle.linalg.vector_norm(x, power)),
        "dist": _plain("dist", "power"),
        "cdist": _plain("cdist", "power"),
        "pdist": _plain("pdist", "power"),
        "abs_complex": Call("paddle.abs", lambda re, im: paddle.abs(paddle.complex(re, im))),
        "std": _plain("std"),
    }  # fmt: skip

    def differentiate(
        self, function: Callable[..., list[Any]], inputs: Sequence[Array], way: Way
    ) -> tuple[list[float], list[Array]]:
        """By ``paddle.grad``."""
        tensors = [paddle.to_tensor(each).astype(way.dtype) for each in inputs]
        for each in tensors:
            each.stop_gradient = False
        outputs = function(*tensors)
        total = paddle.add_n([each.astype("float64") for each in outputs])
        gradients = paddle.grad(total, tensors, allow_unused=True)
        return (
            [float(each.astype("float64")) for each in outputs],
            [
                np.zeros(array.shape) if each is None else each.astype("float64").numpy()
                for each, array in zip(gradients, inputs, strict=True)
            ],
        )
