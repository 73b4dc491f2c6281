"""Max pooling under any selection: value, vjp, jvp and the census of ties."""

from kinkcheck.kernels.reference import (
    Ties,
    max_pool,
    max_pool_jvp,
    max_pool_ties,
    max_pool_vjp,
    random_rank,
)
from kinkcheck.kernels.windows import AdaptiveWindows, SlidingWindows, Windows

__all__ = [
    "AdaptiveWindows",
    "SlidingWindows",
    "Ties",
    "Windows",
    "max_pool",
    "max_pool_jvp",
    "max_pool_ties",
    "max_pool_vjp",
    "random_rank",
]
