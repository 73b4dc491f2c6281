"""Nonsmooth ATen operations that a tape cannot record, and why.

Where a tape meets one of them it says so, instead of passing over it.
"""

from __future__ import annotations

from typing import Any

import torch

_UNKNOWN = """
abs abs_ maximum minimum max min amax amin aminmax fmax fmin median nanmedian mode kthvalue
sort topk msort cummax cummin clamp clamp_ clamp_min clamp_min_ clamp_max clamp_max_
threshold threshold_ hardtanh hardtanh_ hardswish hardswish_ hardsigmoid hardsigmoid_
leaky_relu leaky_relu_ _prelu_kernel rrelu_with_noise rrelu_with_noise_ elu elu_
softshrink hardshrink fractional_max_pool2d fractional_max_pool3d
sign sgn floor floor_ ceil ceil_ round round_ trunc trunc_ frac fmod remainder heaviside
norm linalg_vector_norm dist cdist _cdist_forward _pdist_forward renorm
multi_margin_loss multilabel_margin_loss_forward
"""

_KNOWN = """
relu relu_ max_pool2d_with_indices max_pool3d_with_indices mkldnn_max_pool2d mkldnn_max_pool3d
adaptive_max_pool2d adaptive_max_pool3d
"""

WHY_UNSEEN: dict[Any, str] = {
    getattr(torch.ops.aten, name): reason
    for names, reason in (
        (_UNKNOWN, "kinkcheck does not define its branches"),
        (_KNOWN, "called from scripted or C++ code"),
    )
    for name in names.split()
    if hasattr(torch.ops.aten, name)
}
"""Why a call that reaches ATen without passing the tape could not be recorded."""
