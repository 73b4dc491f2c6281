"""Warp, on the CPU: kernels of one call each."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import warp as wp

from kinkcheck.atlas.adapters.adapter import Adapter, Array, Call, Lacking, Way

wp.config.quiet = True
wp.init()

if TYPE_CHECKING:
    Numbers = Any
else:
    Numbers = wp.array(dtype=Any)

_TYPES = {"float64": wp.float64, "float32": wp.float32, "float16": wp.float16}


@wp.kernel(module="unique")
def _max(x: Numbers, y: Numbers, out: Numbers):
    out[0] = wp.max(x[0], y[0])


@wp.kernel(module="unique")
def _min(x: Numbers, y: Numbers, out: Numbers):
    out[0] = wp.min(x[0], y[0])


@wp.kernel(module="unique")
def _clamp(x: Numbers, low: Numbers, high: Numbers, out: Numbers):
    out[0] = wp.clamp(x[0], low[0], high[0])


@wp.kernel(module="unique")
def _abs(x: Numbers, out: Numbers):
    out[0] = wp.abs(x[0])


@wp.kernel(module="unique")
def _length(x: Numbers, out: Numbers):
    out[0] = wp.length(wp.vector(x[0], x[1]))


@wp.kernel(module="unique")
def _max_of_five(x: Numbers, out: Numbers):
    out[0] = wp.max(wp.vector(x[0], x[1], x[2], x[3], x[4]))


@wp.kernel(module="unique")
def _min_of_five(x: Numbers, out: Numbers):
    out[0] = wp.min(wp.vector(x[0], x[1], x[2], x[3], x[4]))


@wp.kernel(module="unique")
def _max_at(own: Numbers, source: Numbers, out: Numbers):
    if wp.tid() == 0:
        wp.atomic_max(out, 0, own[0])
    wp.atomic_max(out, 0, source[wp.tid()])


@wp.kernel(module="unique")
def _min_at(own: Numbers, source: Numbers, out: Numbers):
    if wp.tid() == 0:
        wp.atomic_min(out, 0, own[0])
    wp.atomic_min(out, 0, source[wp.tid()])


def _launched(kernel: Any, *tensors: Any, threads: int = 1, start: float = 0.0) -> Any:
    out = wp.full(1, start, dtype=tensors[0].dtype, requires_grad=True, device="cpu")
    wp.launch(kernel, threads, inputs=[*tensors, out], device="cpu")
    return out


def _kernel(spelling: str, kernel: Any) -> Call:
    return Call(f"warp.{spelling}", lambda *tensors: _launched(kernel, *tensors))


def _number(x: Any, number: float) -> Any:
    return wp.full(1, number, dtype=x.dtype, device="cpu")


def _scatter(own: Any, source: Any, reduce: str) -> Any:
    kernel, start = (_max_at, -1e4) if reduce == "amax" else (_min_at, 1e4)
    return _launched(kernel, own, source, threads=source.size, start=start)


def _length_of(x: Any, power: float) -> Any:
    if power != 2:
        raise Lacking
    return _launched(_length, x)


class Warp(Adapter):
    """Warp."""

    package = "warp-lang"
    dtypes = ("float64", "float32", "float16")

    calls = {  # noqa: RUF012
        "clamp": Call("warp.clamp", lambda x, min, max: _launched(
            _clamp, x, _number(x, min), _number(x, max))),
        "clamp_between": _kernel("clamp", _clamp),
        "abs": _kernel("abs", _abs),
        "maximum": _kernel("max", _max),
        "minimum": _kernel("min", _min),
        "max of two": _kernel("max", _max),
        "min of two": _kernel("min", _min),
        "max of all": _kernel("max", _max_of_five),
        "min of all": _kernel("min", _min_of_five),
        "amax": _kernel("max", _max_of_five),
        "amin": _kernel("min", _min_of_five),
        "scatter_reduce": Call("warp.atomic_max, warp.atomic_min", _scatter),
        "norm": Call("warp.length", _length_of),
    }  # fmt: skip

    def differentiate(
        self, function: Callable[..., list[Any]], inputs: Sequence[Array], way: Way
    ) -> tuple[list[float], list[Array]]:
        """By ``warp.Tape``."""
        dtype = _TYPES[way.dtype]
        tensors = [
            wp.array(each.ravel(), dtype=dtype, requires_grad=True, device="cpu") for each in inputs
        ]
        tape = wp.Tape()
        with tape:
            outputs = function(*tensors)
        for each in outputs:
            each.grad.fill_(1)
        tape.backward()
        return (
            [float(each.numpy()[0]) for each in outputs],
            [each.grad.numpy().astype(np.float64) for each in tensors],
        )

    def entry(self, output: Any, place: int) -> Any:
        """The whole, which is one number."""
        return output
