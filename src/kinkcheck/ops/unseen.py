"""Operations that may have kinks or jumps and that no tape can switch, and why.

A row stands for an operation of ATen and for the node that autograd makes of it: both have the
same :func:`key`, and the same names of arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

Argument = Callable[[str], Any]
"""The argument of a call by its name; None where it was not kept."""


@dataclass(frozen=True)
class Row:
    """One operation.

    Attributes:
        name: its name in ATen.
        reason: why its derivative cannot be chosen.
        jumps: whether its value jumps, rather than its derivative.
        unless: tells from the arguments that this call has neither kinks nor jumps.
    """

    name: str
    reason: str
    jumps: bool = False
    unless: Callable[[Argument], bool] = lambda argument: False


@cache
def key(name: str) -> str:
    """What an operation of ATen and its node in the graph have in common.

    >>> {key("_foreach_leaky_relu_"), key("leaky_relu"), key("LeakyReluBackward0")}
    {'leakyrelu'}
    """
    short = name.rpartition("Backward")[0] or name
    return short.replace("_", "").lower().removeprefix("foreach").removesuffix("forward")


def unseen_row(operation: str, argument: Argument) -> Row | None:
    """The row of a call that may have kinks or jumps, or None.

    Args:
        operation: the :func:`key` of its name.
        argument: tells an argument of the call.

    >>> unseen_row(key("elu"), {"alpha": 1.0, "input_scale": 1.0}.get) is None
    True
    >>> unseen_row(key("EluBackward0"), {"alpha": 0.5, "input_scale": 1.0}.get).name
    'elu'
    """
    row = _ROWS.get(operation) or _derivative(operation)
    if row is None or row.unless(argument):
        return None
    return _of_power(row, argument(_POWERS[row.name])) if row.name in _POWERS else row


@cache
def _derivative(operation: str) -> Row | None:
    """The derivative of what has kinks jumps there, where it is differentiated once more."""
    row = _ROWS.get(operation.removesuffix("backward"))
    return row and Row(f"{row.name}_backward", _NO_DERIVATIVE, True, row.unless)


def _smooth_elu(argument: Argument) -> bool:
    alpha, scale = argument("alpha"), argument("input_scale")
    return alpha is not None and scale is not None and math.isclose(alpha * scale, 1)


def _smooth_power(argument: Argument) -> bool:
    exponent = argument("exponent")
    if isinstance(exponent, int | float):
        return not 0 < exponent < 1
    return isinstance(argument("self"), int | float)


def _not_extreme(argument: Argument) -> bool:
    reduce = argument("reduce")
    return reduce is not None and reduce not in ("amax", "amin", "max", "min")


_UNLESS: dict[str, Callable[[Argument], bool]] = {
    "elu": _smooth_elu,
    "leaky_relu": lambda argument: argument("negative_slope") == 1,
    "pow": _smooth_power,
    "div": lambda argument: argument("rounding_mode") is None,
    "scatter_reduce": _not_extreme,
    "index_reduce": _not_extreme,
    "segment_reduce": _not_extreme,
    "_sparse_mm_reduce_impl": _not_extreme,
    "logit": lambda argument: argument("eps") is None,  # with it, it is clamped
    "_embedding_bag": lambda argument: argument("mode") in (0, 1),
    "multi_margin_loss": lambda argument: argument("p") == 2,
    "_cudnn_rnn": lambda argument: argument("mode") in (1, 2, 3),  # but for ReLU, which is 0
    "miopen_rnn": lambda argument: argument("mode") in (1, 2, 3),
}

_POWERS = {
    "norm": "p",
    "linalg_vector_norm": "ord",
    "dist": "p",
    "_cdist_forward": "p",
    "_pdist_forward": "p",
}
"""The argument that says which norm is taken."""


def _of_power(row: Row, power: Any) -> Row:
    """A norm below the power 1, which has no branches."""
    if not isinstance(power, int | float) or power >= 1:
        return row
    if power == 0:
        return Row(row.name, _NO_DERIVATIVE, jumps=True)
    return Row(row.name, _INFINITE if power > 0 else NO_BRANCHES)


NO_BRANCHES = "kinkcheck does not define its branches"
NOT_PYTHON = "called from scripted or C++ code"

_INFINITE = "its slope is infinite where an entry is 0"

_REASONS = {
    NO_BRANCHES: """
        special_i0e logit renorm
        multi_margin_loss multilabel_margin_loss_forward
        grid_sampler_2d grid_sampler_3d _grid_sampler_2d_cpu_fallback cudnn_grid_sampler
        _sparse_mm_reduce_impl _cudnn_rnn miopen_rnn huber_loss_backward smooth_l1_loss_backward
    """,
    "PyTorch keeps its slopes to itself": "rrelu_with_noise rrelu_with_noise_functional",
    "PyTorch's derivative at 0 is not a number": "hypot",
    "its slope is infinite where its domain ends": """
        sqrt pow asin acos acosh xlogy special_xlog1py special_entr
    """,
    "it has no derivative where singular values or eigenvalues meet": """
        _linalg_svd _linalg_eigh linalg_eig _linalg_eigvals
    """,
    NOT_PYTHON: """
        max min fmax fmin median nanmedian mode kthvalue sort topk msort cummax cummin
        abs maximum minimum amax amin aminmax clamp clamp_min clamp_max hardtanh hardswish
        hardsigmoid leaky_relu _prelu_kernel elu softshrink
        relu max_pool2d_with_indices max_pool3d_with_indices mkldnn_max_pool2d mkldnn_max_pool3d
        max_pool2d adaptive_max_pool2d adaptive_max_pool3d
        fractional_max_pool2d fractional_max_pool3d
        scatter_reduce index_reduce segment_reduce _embedding_bag
        std std_mean norm linalg_vector_norm dist _cdist_forward _pdist_forward _euclidean_dist
    """,
}

_NO_DERIVATIVE = "it jumps: there is no derivative to choose"
_JUMPS = {
    _NO_DERIVATIVE: """
        sign sgn floor ceil round trunc frac fmod remainder heaviside copysign div floor_divide
        hardshrink threshold bernoulli binomial poisson atan2 angle frexp
        linalg_pinv linalg_lstsq linalg_lu linalg_lu_factor_ex gt ge lt le eq ne
    """,
    "rounds; its derivative is a straight-through estimator": """
        fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask
        _fake_quantize_per_tensor_affine_cachemask_tensor_qparams
        _fake_quantize_learnable_per_tensor_affine _fake_quantize_learnable_per_channel_affine
        _fused_moving_avg_obs_fq_helper
    """,
}

_ROWS: dict[str, Row] = {
    key(name): Row(name, reason, jumps, _UNLESS.get(name, Row.unless))
    for table, jumps in ((_REASONS, False), (_JUMPS, True))
    for reason, names in table.items()
    for name in names.split()
}
