"""One framework a file: how it spells each call, and how it differentiates.

Beside a file's own framework nothing but NumPy is needed.
"""

FRAMEWORKS: tuple[str, ...] = (
    "torch",
    "jax",
    "tensorflow",
    "mlx",
    "tinygrad",
    "autograd",
    "pytensor",
    "paddle",
    "casadi",
    "warp",
    "drjit",
)
"""All that have an adapter: the names of their modules."""
