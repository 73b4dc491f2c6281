"""TensorFlow, with the Keras that it brings."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf

from kinkcheck.atlas.adapters.adapter import Adapter, Array, Call, Way

tf.get_logger().setLevel("ERROR")


def _last(x: Any) -> Any:
    """Channels behind."""
    return tf.transpose(x, (0, *range(2, x.shape.rank), 1))


def _max_pool(dimensions: int) -> Call:
    pool = getattr(tf.nn, f"max_pool{dimensions}d")

    def call(x: Any, kernel: Sequence[int], padding: Sequence[int] = ()) -> Any:
        edges = [[0, 0], *([each, each] for each in padding), [0, 0]] if padding else "VALID"
        return pool(_last(x), kernel, kernel, edges)

    return Call(f"tf.nn.max_pool{dimensions}d", call)


def _fractional(x: Any, kernel: Sequence[int]) -> Any:
    return tf.nn.fractional_max_pool(_last(x), [1.0, *map(float, kernel), 1.0], seed=1)[0]


def _prelu(x: Any, slope: Any) -> Any:
    return _prelu_layer(x.dtype.name).stateless_call([slope], [], x[None])[0][0]


@cache
def _prelu_layer(dtype: str) -> Any:
    """Made once, since no variables can be made inside a function that is compiled."""
    layer = keras.layers.PReLU(dtype=dtype)
    layer.build((None, 1))
    return layer


def _quantised(x: Any, scale: float, min: int, max: int) -> Any:
    return tf.quantization.fake_quant_with_min_max_args(x, min * scale, max * scale, num_bits=3)


def _quantised_by_channel(x: Any, scale: float, min: int, max: int) -> Any:
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(
        x, [min * scale], [max * scale], num_bits=3
    )


def _scatter(own: Any, source: Any, reduce: str) -> Any:
    function = tf.tensor_scatter_nd_max if reduce == "amax" else tf.tensor_scatter_nd_min
    return function(own, np.zeros((len(source), 1), np.int32), source)


def _segment(x: Any, reduce: str) -> Any:
    function = tf.math.segment_max if reduce == "max" else tf.math.segment_min
    return function(x, np.zeros(len(x), np.int32))


def _keras(name: str, *order: str) -> Call:
    """A function of ``keras.activations``, and the order in which it takes the settings."""
    function = getattr(keras.activations, name)
    return Call(
        f"keras.activations.{name}",
        lambda x, **settings: function(x, *(settings[each] for each in order)),
    )


class TensorFlow(Adapter):
    """TensorFlow on the CPU."""

    package = "tensorflow-cpu"
    compiler = "tf.function"

    calls = {  # noqa: RUF012
        **{f"max_pool{d}d": _max_pool(d) for d in (1, 2, 3)},
        "fractional_max_pool2d": Call("tf.nn.fractional_max_pool", _fractional),
        "relu": Call("tf.nn.relu", tf.nn.relu),
        "relu6": Call("tf.nn.relu6", tf.nn.relu6),
        "hardtanh": Call(
            "keras.activations.hard_tanh", lambda x, min, max: keras.activations.hard_tanh(x)
        ),
        "leaky_relu": Call("tf.nn.leaky_relu", lambda x, slope: tf.nn.leaky_relu(x, slope)),
        "prelu": Call("keras.layers.PReLU", _prelu),
        "clamp": Call("tf.clip_by_value", lambda x, min, max: tf.clip_by_value(x, min, max)),
        "clamp_between": Call("tf.clip_by_value", tf.clip_by_value),
        "hardswish": _keras("hard_silu"),
        "hardsigmoid": _keras("hard_sigmoid"),
        "elu": _keras("elu", "alpha"),
        "selu": Call("tf.nn.selu", tf.nn.selu),
        "softshrink": _keras("soft_shrink", "lambd"),
        "threshold": _keras("threshold", "threshold", "threshold"),
        "abs": Call("tf.abs", tf.abs),
        "fake_quantize": Call("tf.quantization.fake_quant_with_min_max_args", _quantised),
        "fake_quantize_channel": Call(
            "tf.quantization.fake_quant_with_min_max_vars_per_channel", _quantised_by_channel
        ),
        "maximum": Call("tf.maximum", tf.maximum),
        "minimum": Call("tf.minimum", tf.minimum),
        "max of two": Call("tf.maximum", tf.maximum),
        "min of two": Call("tf.minimum", tf.minimum),
        "max of all": Call("tf.reduce_max", tf.reduce_max),
        "min of all": Call("tf.reduce_min", tf.reduce_min),
        "max along": Call("tf.reduce_max", lambda x: tf.reduce_max(x, axis=0)),
        "min along": Call("tf.reduce_min", lambda x: tf.reduce_min(x, axis=0)),
        "amax": Call("tf.reduce_max", tf.reduce_max),
        "amin": Call("tf.reduce_min", tf.reduce_min),
        "scatter_reduce": Call("tf.tensor_scatter_nd_max, tf.tensor_scatter_nd_min", _scatter),
        "index_reduce": Call("tf.tensor_scatter_nd_max, tf.tensor_scatter_nd_min", _scatter),
        "segment_reduce": Call("tf.math.segment_max, tf.math.segment_min", _segment),
        "sort": Call("tf.sort", tf.sort),
        "msort": Call("tf.sort", lambda x: tf.sort(x, axis=0)),
        "topk": Call("tf.math.top_k", lambda x, k: tf.math.top_k(x, k)[0]),
        "norm": Call("tf.norm", lambda x, power: tf.norm(x, power)),
        "abs_complex": Call("tf.abs", lambda re, im: tf.abs(tf.complex(re, im))),
        "std": Call("tf.math.reduce_std", tf.math.reduce_std),
    }

    def differentiate(
        self, function: Callable[..., list[Any]], inputs: Sequence[Array], way: Way
    ) -> tuple[list[float], list[Array]]:
        """By ``tf.GradientTape``."""

        def made(*tensors: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                outputs = function(*tensors)
                total = tf.add_n([tf.cast(each, tf.float64) for each in outputs])
            return outputs, tape.gradient(total, tensors, unconnected_gradients="zero")

        compiled = tf.function(made) if way.compiled else made
        tensors = [tf.cast(tf.constant(each), way.dtype) for each in inputs]
        outputs, gradients = compiled(*tensors)
        return (
            [float(each) for each in outputs],
            [tf.cast(tf.convert_to_tensor(each), tf.float64).numpy() for each in gradients],
        )

    def entry(self, output: Any, place: int) -> Any:
        """By ``tf.reshape``, since its tensors have no such method."""
        return tf.reshape(output, [-1])[place]
