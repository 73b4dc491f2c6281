"""JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kinkcheck.atlas.adapters.adapter import Adapter, Array, Call, Way

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")


def _pool(x: Any, kernel: Sequence[int], padding: Sequence[int] = ()) -> Any:
    edges = [(0, 0), (0, 0), *((each, each) for each in padding or (0,) * len(kernel))]
    window = (1, 1, *kernel)
    return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, window, window, edges)


def _zeros(source: Any) -> Any:
    return jnp.zeros(len(source), jnp.int32)


def _scatter(own: Any, source: Any, reduce: str) -> Any:
    there = own.at[_zeros(source)]
    return there.max(source) if reduce == "amax" else there.min(source)


def _segment(x: Any, reduce: str) -> Any:
    function = jax.ops.segment_max if reduce == "max" else jax.ops.segment_min
    return function(x, _zeros(x), num_segments=1)


_CLIP = "jax.numpy.clip"


class Jax(Adapter):
    """JAX on the CPU, with 64 bits switched on."""

    package = "jax"
    compiler = "jax.jit"

    calls = {  # noqa: RUF012
        **{f"max_pool{d}d": Call("jax.lax.reduce_window of jax.lax.max", _pool) for d in (1, 2, 3)},
        "relu": Call("jax.nn.relu", jax.nn.relu),
        "relu6": Call("jax.nn.relu6", jax.nn.relu6),
        "hardtanh": Call("jax.nn.hard_tanh", lambda x, min, max: jax.nn.hard_tanh(x)),
        "leaky_relu": Call("jax.nn.leaky_relu", lambda x, slope: jax.nn.leaky_relu(x, slope)),
        "clamp": Call(_CLIP, lambda x, min, max: jnp.clip(x, min, max)),
        "clamp_min": Call(_CLIP, lambda x, bound: jnp.clip(x, min=bound)),
        "clamp_max": Call(_CLIP, lambda x, bound: jnp.clip(x, max=bound)),
        "clamp_between": Call(_CLIP, jnp.clip),
        "clamp_min_between": Call(_CLIP, lambda x, low: jnp.clip(x, min=low)),
        "clamp_max_between": Call(_CLIP, lambda x, high: jnp.clip(x, max=high)),
        "hardswish": Call("jax.nn.hard_swish", jax.nn.hard_swish),
        "hardsigmoid": Call("jax.nn.hard_sigmoid", jax.nn.hard_sigmoid),
        "elu": Call("jax.nn.elu", jax.nn.elu),
        "selu": Call("jax.nn.selu", jax.nn.selu),
        "abs": Call("jax.numpy.abs", jnp.abs),
        **{
            f"{name} {form}": Call(f"jax.numpy.{spelling}", function)
            for name in ("max", "min")
            for form, spelling, function in (
                ("of all", name, getattr(jnp, name)),
                ("along", name, partial(getattr(jnp, name), axis=0)),
                ("of two", f"{name}imum", getattr(jnp, f"{name}imum")),
            )
        },
        **{
            name: Call(f"jax.numpy.{name}", getattr(jnp, name))
            for name in ("maximum", "minimum", "fmax", "fmin", "amax", "amin", "sort")
        },
        "scatter_reduce": Call("jax.numpy.ndarray.at[...].max, min", _scatter),
        "index_reduce": Call("jax.numpy.ndarray.at[...].max, min", _scatter),
        "segment_reduce": Call("jax.ops.segment_max, segment_min", _segment),
        "msort": Call("jax.numpy.sort", lambda x: jnp.sort(x, axis=0)),
        "topk": Call("jax.lax.top_k", lambda x, k: lax.top_k(x, k)[0]),
        **{
            f"{name} {form}": Call(f"jax.numpy.{name}", function)
            for name in ("median", "nanmedian")
            for form, function in (
                ("of all", getattr(jnp, name)),
                ("along", partial(getattr(jnp, name), axis=0)),
            )
        },
        "kthvalue": Call("jax.numpy.partition", lambda x, k: jnp.partition(x, k - 1)[k - 1]),
        "cummax": Call("jax.lax.cummax", lax.cummax),
        "cummin": Call("jax.lax.cummin", lax.cummin),
        "norm": Call("jax.numpy.linalg.norm", lambda x, power: jnp.linalg.norm(x, power)),
        "abs_complex": Call("jax.numpy.abs", lambda re, im: jnp.abs(lax.complex(re, im))),
        "std": Call("jax.numpy.std", lambda x: jnp.std(x, ddof=1)),
    }

    def differentiate(
        self, function: Callable[..., list[Any]], inputs: Sequence[Array], way: Way
    ) -> tuple[list[float], list[Array]]:
        """By ``jax.value_and_grad``."""

        def total(*tensors: Any) -> Any:
            outputs = function(*tensors)
            return sum(each.astype(jnp.float64) for each in outputs), outputs

        made = jax.value_and_grad(total, tuple(range(len(inputs))), has_aux=True)
        if way.compiled:
            made = jax.jit(made)
        (_, outputs), gradients = made(*(jnp.asarray(each, way.dtype) for each in inputs))
        return [float(each) for each in outputs], [np.asarray(g, np.float64) for g in gradients]
