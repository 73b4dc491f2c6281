"""Autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np

from kinkcheck.atlas.adapters.adapter import Adapter, Array, Call, Way


def _numpy(name: str, *order: str, **fixed: Any) -> Call:
    """A function of ``autograd.numpy``, and the order in which it takes the settings."""
    function = getattr(anp, name)

    def call(*tensors: Any, **settings: Any) -> Any:
        return function(*tensors, *(settings[each] for each in order), **fixed)

    return Call(f"autograd.numpy.{name}", call)


class Autograd(Adapter):
    """Autograd."""

    package = "autograd"
    dtypes = ("float64", "float32", "float16")

    calls = {  # noqa: RUF012
        "clamp": _numpy("clip", "min", "max"),
        "abs": _numpy("abs"),
        **{name: _numpy(name) for name in ("maximum", "minimum", "fmax", "fmin", "sort")},
        "max of two": _numpy("maximum"),
        "min of two": _numpy("minimum"),
        "max of all": _numpy("max"),
        "min of all": _numpy("min"),
        "max along": _numpy("max", axis=0),
        "min along": _numpy("min", axis=0),
        "amax": _numpy("amax"),
        "amin": _numpy("amin"),
        "msort": _numpy("sort", axis=0),
        "median of all": _numpy("median"),
        "median along": _numpy("median", axis=0),
        "kthvalue": Call("autograd.numpy.partition", lambda x, k: anp.partition(x, k - 1)[k - 1]),
        "norm": Call("autograd.numpy.linalg.norm", lambda x, power: anp.linalg.norm(x, power)),
        "abs_complex": Call("autograd.numpy.abs", lambda re, im: anp.abs(re + 1j * im)),
        "std": Call("autograd.numpy.std", partial(anp.std, ddof=1)),
    }

    def differentiate(
        self, function: Callable[..., list[Any]], inputs: Sequence[Array], way: Way
    ) -> tuple[list[float], list[Array]]:
        """By ``autograd.value_and_grad``."""
        tensors = tuple(each.astype(way.dtype) for each in inputs)
        made = autograd.value_and_grad(lambda given: sum(function(*given)))
        _, gradients = made(tensors)
        return (
            [float(each) for each in function(*tensors)],
            [np.asarray(each, np.float64) for each in gradients],
        )

    def entry(self, output: Any, place: int) -> Any:
        """By ``autograd.numpy.ravel``, since NumPy's scalars are no arrays."""
        return anp.ravel(output)[place]
