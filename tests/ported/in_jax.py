"""Six small networks in JAX: writes their gradients to ``jax.npz``.

In an environment of its own: ``pip install jax numpy``, then ``python tests/ported/in_jax.py``.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from given import SHAPES, counted, given


def _linear(p):
    return p["input"] @ p["weights"] + p["biases"]


def clipped(p):
    return jnp.clip(_linear(p), -0.5, 0.5)


def halves(p):
    one, other = jnp.split(jnp.abs(_linear(p)), 2, axis=1)
    return jnp.maximum(one, other) + jnp.minimum(one, 2 * other)


def filtered(p):
    found = jax.lax.conv_general_dilated(p["input"], p["weights"], (1, 1), "VALID")
    found = jax.nn.relu6(found + p["biases"][:, None, None]) + 0.5 * jax.nn.relu(found)
    size = (1, 1, 2, 2)
    return jax.lax.reduce_window(found, -jnp.inf, jax.lax.max, size, size, "VALID")


def bent(p):
    x = _linear(p)
    return jax.nn.leaky_relu(x, 0.25) + jax.nn.hard_tanh(2 * x) + jax.nn.selu(x)


def extreme(p):
    x = _linear(p)
    return jnp.max(x, axis=1) * jnp.min(x * x, axis=1) + jnp.max(x)


def ordered(p):
    x = _linear(p)
    return jax.lax.top_k(x, 3)[0] + jnp.sort(x, axis=1)[:, :3]


def _loss(network, p):
    found = globals()[network](p)
    return (found * counted(found.shape)).sum()


def main():
    """Write all of them."""
    found = {}
    for network in SHAPES:
        gradient = jax.grad(lambda p, name=network: _loss(name, p))(given(network))
        found |= {f"{network}.{name}": np.asarray(each) for name, each in gradient.items()}
    np.savez(Path(__file__).with_name("jax.npz"), **found)
    print(f"JAX {jax.__version__}")


if __name__ == "__main__":
    main()
