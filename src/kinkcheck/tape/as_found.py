"""A model left as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kinkcheck.errors import InputError


@contextmanager
def as_found(model: nn.Module | None) -> Iterator[None]:
    """Put modes, buffers and random state back when the block ends."""
    modules = list(model.modules()) if model is not None else []
    modes = [module.training for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    tensors = [*model.buffers(), *model.parameters()] if model is not None else []
    if any(is_lazy(tensor) for tensor in tensors):
        raise InputError("model: has parameters without a shape yet; call it on a batch first")
    devices = {tensor.device.index for tensor in tensors if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices=devices):
        try:
            # The block works on copies, so that neither a value nor an alias of the original is
            # lost, and what autograd saved of the copies stays valid after the block.
            # A buffer that requires a gradient cannot be overwritten and may be asked for.
            copies: dict[Tensor | None, Tensor] = {
                buffer: buffer.clone()
                for found in buffers
                for buffer in found.values()
                if buffer is not None and not buffer.requires_grad
            }
            for module, found in zip(modules, buffers, strict=True):
                for name, buffer in found.items():
                    module._buffers[name] = copies.get(buffer, buffer)
            yield
        finally:
            for module, found in zip(modules, buffers, strict=True):
                for name in set(module._buffers.keys()) - set(found):
                    del module._buffers[name]
                for name, buffer in found.items():
                    module._buffers[name] = buffer
            for module, training in zip(modules, modes, strict=True):
                module.training = training
