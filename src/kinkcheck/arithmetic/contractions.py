"""float16 on the CPU as on a GPU: stored in 16 bits, accumulated in 32.

PyTorch's float16 convolutions on a CPU are some forty times slower than its float32 ones, and their
accumulation is that of whichever library computes them. Inside :func:`float32_contractions` every
convolution, linear map and matrix product of float16 CPU tensors, and its backward, is computed
as ::

    round16( contraction32( exact cast of the operands to float32 ) )

one rounding for each entry of the result. That is the arithmetic of GPU tensor cores. Additions
that belong to the contraction (a bias, the scaled summand of ``addmm``) are part of what is rounded
once. Everything else, fused attention among it, is left to PyTorch.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

_aten = torch.ops.aten
_CONTRACTIONS = frozenset(
    {
        _aten.convolution.default,
        _aten.convolution_overrideable.default,
        _aten.convolution_backward.default,
        # What inference mode does not take apart.
        _aten.linear.default,
        _aten.matmul.default,
        _aten.conv1d.default,
        _aten.conv2d.default,
        _aten.conv3d.default,
        _aten.conv_transpose1d.default,
        _aten.conv_transpose2d.input,
        _aten.conv_transpose3d.input,
        _aten.mm.default,
        _aten.addmm.default,
        _aten.bmm.default,
        _aten.baddbmm.default,
        _aten.addbmm.default,
        _aten.mv.default,
        _aten.addmv.default,
        _aten.dot.default,
        _aten.vdot.default,
        _aten.addr.default,
    }
)


def float32_contractions() -> AbstractContextManager[object]:
    """A context in which contractions of float16 CPU tensors are accumulated in float32.

    Both the forward and the backward pass have to run inside; no model is changed, and tensors of
    other types or on other devices are not concerned. Code compiled by ``torch.compile`` runs
    uncompiled inside.

    >>> x = torch.full((1, 4096), 1.0, dtype=torch.float16)
    >>> with float32_contractions():
    ...     (x @ x.T).item()
    4096.0
    """
    return _Float32Contractions()


class _Float32Contractions(TorchDispatchMode):
    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _CONTRACTIONS or not _all_float16_on_cpu(args):
            return func(*args, **kwargs)
        result = func(*(a.float() if isinstance(a, Tensor) else a for a in args), **kwargs)
        return tree_map_only(Tensor, Tensor.half, result)


def _all_float16_on_cpu(args: tuple[Any, ...]) -> bool:
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    return all(t.dtype == torch.float16 and t.device.type == "cpu" for t in tensors)
