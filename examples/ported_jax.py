"""The network of ``ported.py`` in JAX: writes its gradient, ``ported_jax.npz``.

In an environment of its own, since JAX is needed here alone::

    pip install jax numpy
    python examples/ported_jax.py
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

SHAPES = {
    "first.weight": (4, 1, 3, 3),
    "first.bias": (4,),
    "second.weight": (8, 4, 3, 3),
    "second.bias": (8,),
    "last.weight": (10, 324),
    "last.bias": (10,),
}


def numbers(shape, seed):
    """Multiples of 1/64 between −1/2 and 1/2 that look drawn, as in ``ported.py``; biases are 0."""
    count = np.prod(shape)
    if len(shape) == 1:
        return jnp.zeros(shape)
    return jnp.float32(((np.arange(count) * 7919 + seed) ** 2 % 65 - 32) / 64).reshape(shape)


def filtered(images, weights, layer):
    """A layer of filters; images and filters are laid out as in PyTorch."""
    found = jax.lax.conv_general_dilated(images, weights[f"{layer}.weight"], (1, 1), "VALID")
    return found + weights[f"{layer}.bias"][:, None, None]


def loss(weights, images, labels):
    """The cross entropy of a mini-batch."""
    x = jnp.clip(filtered(images, weights, "first"), 0, 1)
    size = (1, 1, 2, 2)
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, size, size, "VALID")
    one, other = jnp.split(jnp.abs(filtered(x, weights, "second")), 2, axis=1)
    x = jnp.maximum(one, other).reshape(len(images), -1)
    logits = x @ weights["last.weight"].T + weights["last.bias"]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()


def main():
    """Write the gradient."""
    weights = {name: numbers(shape, seed) for seed, (name, shape) in enumerate(SHAPES.items())}
    images = jnp.pad(abs(numbers((8, 1, 8, 8), 9)), ((0, 0), (0, 0), (8, 8), (8, 8)))
    gradient = jax.grad(loss)(weights, images, jnp.arange(8))
    file = Path(__file__).with_name("ported_jax.npz")
    np.savez(file, **{name: np.asarray(each) for name, each in gradient.items()})
    print(f"JAX {jax.__version__}: {file.name}")


if __name__ == "__main__":
    main()
