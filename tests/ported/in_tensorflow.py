"""Six small networks in TensorFlow: writes their gradients to ``tensorflow.npz``.

In an environment of its own: ``pip install tensorflow-cpu``, then
``python tests/ported/in_tensorflow.py``.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from given import SHAPES, counted, given


def _linear(p):
    return p["input"] @ p["weights"] + p["biases"]


def clipped(p):
    return tf.clip_by_value(_linear(p), -0.5, 0.5)


def halves(p):
    one, other = tf.split(tf.abs(_linear(p)), 2, axis=1)
    return tf.maximum(one, other) + tf.minimum(one, 2 * other)


def filtered(p):
    images = tf.transpose(p["input"], (0, 2, 3, 1))
    filters = tf.transpose(p["weights"], (2, 3, 1, 0))
    found = tf.nn.conv2d(images, filters, 1, "VALID")
    found = tf.nn.relu6(found + p["biases"]) + 0.5 * tf.nn.relu(found)
    return tf.transpose(tf.nn.max_pool2d(found, 2, 2, "VALID"), (0, 3, 1, 2))


def bent(p):
    x = _linear(p)
    return tf.nn.leaky_relu(x, 0.25) + tf.clip_by_value(2 * x, -1, 1) + tf.nn.selu(x)


def extreme(p):
    x = _linear(p)
    return tf.reduce_max(x, axis=1) * tf.reduce_min(x * x, axis=1) + tf.reduce_max(x)


def ordered(p):
    x = _linear(p)
    return tf.math.top_k(x, 3)[0] + tf.sort(x, axis=1)[:, :3]


def main():
    """Write all of them."""
    found = {}
    for network in SHAPES:
        p = {name: tf.Variable(each) for name, each in given(network).items()}
        with tf.GradientTape() as tape:
            output = globals()[network](p)
            loss = tf.reduce_sum(output * counted(tuple(output.shape)))
        gradient = tape.gradient(loss, p)
        found |= {
            f"{network}.{name}": tf.convert_to_tensor(each).numpy()
            for name, each in gradient.items()
        }
    np.savez(Path(__file__).with_name("tensorflow.npz"), **found)
    print(f"TensorFlow {tf.__version__}")


if __name__ == "__main__":
    main()
