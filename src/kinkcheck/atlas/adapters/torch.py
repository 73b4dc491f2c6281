"""PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from kinkcheck.atlas.adapters.adapter import Adapter, Array, Call, Way


def _functional(name: str, *order: str) -> Call:
    """A function of ``torch.nn.functional``, and the order in which it takes the settings."""
    return Call(f"torch.nn.functional.{name}", _ordered(getattr(F, name), order))


def _plain(name: str, *order: str, **fixed: Any) -> Call:
    """A function of ``torch``."""
    return Call(f"torch.{name}", _ordered(getattr(torch, name), order, **fixed))


def _ordered(function: Any, order: Sequence[str], **fixed: Any) -> Callable[..., Any]:
    def call(*tensors: Any, **settings: Any) -> Any:
        found = function(*tensors, *(settings[name] for name in order), **fixed)
        return found if isinstance(found, torch.Tensor) else found[0]  # values, indices

    return call


def _quantised(x: Any, scale: float, min: int, max: int) -> Any:
    return torch.fake_quantize_per_tensor_affine(x, scale, 0, min, max)


def _quantised_by_channel(x: Any, scale: float, min: int, max: int) -> Any:
    scales, zeros = torch.tensor([scale]), torch.zeros(1, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(x, scales, zeros, 0, min, max)


def _index(source: Any) -> Any:
    return torch.zeros(len(source), dtype=torch.int64)


def _fractional(dimensions: int) -> Call:
    name = f"fractional_max_pool{dimensions}d"

    def call(x: Any, kernel: Any) -> Any:
        samples = torch.zeros(1, 1, dimensions, dtype=x.dtype)
        output = (1,) * dimensions
        return getattr(F, name)(x, kernel, output_size=output, _random_samples=samples)

    return Call(f"torch.nn.functional.{name}", call)


def _max_pool(dimensions: int) -> Call:
    pool = getattr(F, f"max_pool{dimensions}d")
    return Call(
        f"torch.nn.functional.max_pool{dimensions}d",
        lambda x, kernel, padding=0: pool(x, kernel, padding=padding),
    )


class Torch(Adapter):
    """PyTorch on the CPU."""

    package = "torch"
    compiler = "torch.compile"
    layouts = ("contiguous", "channels_last")

    calls = {  # noqa: RUF012
        **{f"max_pool{d}d": _max_pool(d) for d in (1, 2, 3)},
        **{
            f"adaptive_max_pool{d}d": _functional(f"adaptive_max_pool{d}d", "output")
            for d in (1, 2, 3)
        },
        **{f"fractional_max_pool{d}d": _fractional(d) for d in (2, 3)},
        "norm_pool1d": Call("torch.nn.functional.lp_pool1d", lambda x, power, kernel:
            F.lp_pool1d(x, power, kernel[0])),
        **{f"norm_pool{d}d": _functional(f"lp_pool{d}d", "power", "kernel") for d in (2, 3)},
        **{name: _functional(name) for name in (
            "relu", "relu6", "prelu", "hardswish", "hardsigmoid", "selu")},
        "hardtanh": _functional("hardtanh", "min", "max"),
        "leaky_relu": _functional("leaky_relu", "slope"),
        "rrelu": _functional("rrelu", "lower", "upper"),
        "clamp": _plain("clamp", "min", "max"),
        "clamp_min": _plain("clamp_min", "bound"),
        "clamp_max": _plain("clamp_max", "bound"),
        "clamp_between": _plain("clamp"),
        "clamp_min_between": _plain("clamp_min"),
        "clamp_max_between": _plain("clamp_max"),
        "elu": _functional("elu", "alpha"),
        "softshrink": _functional("softshrink", "lambd"),
        "threshold": _functional("threshold", "threshold", "threshold"),
        "abs": _plain("abs"),
        "fake_quantize": Call("torch.fake_quantize_per_tensor_affine", _quantised),
        "fake_quantize_channel": Call(
            "torch.fake_quantize_per_channel_affine", _quantised_by_channel),
        **{
            name: _plain(name)
            for name in ("maximum", "minimum", "fmax", "fmin", "amax", "amin", "sort", "msort")
        },
        **{
            f"{name} {form}": _plain(name, **fixed)
            for name in ("max", "min") for form, fixed in (
                ("of all", {}), ("along", {"dim": 0}), ("of two", {}))
        },
        **{
            f"{name} {form}": _plain(name, **fixed)
            for name in ("median", "nanmedian")
            for form, fixed in (("of all", {}), ("along", {"dim": 0}))
        },
        "topk": _plain("topk", "k"),
        "kthvalue": _plain("kthvalue", "k"),
        "mode": _plain("mode"),
        "cummax": _plain("cummax", dim=0),
        "cummin": _plain("cummin", dim=0),
        "scatter_reduce": Call("torch.scatter_reduce", lambda own, source, reduce:
            torch.scatter_reduce(own, 0, _index(source), source, reduce)),
        "index_reduce": Call("torch.index_reduce", lambda own, source, reduce:
            torch.index_reduce(own, 0, _index(source), source, reduce)),
        "segment_reduce": Call("torch.segment_reduce", lambda x, reduce:
            torch.segment_reduce(x, reduce, lengths=torch.tensor([len(x)]))),
        "embedding_bag": Call("torch.nn.functional.embedding_bag", lambda x:
            F.embedding_bag(torch.arange(len(x)).unsqueeze(0), x.unsqueeze(1), mode="max")),
        "norm": Call("torch.linalg.vector_norm", lambda x, power:
            torch.linalg.vector_norm(x, power)),
        "dist": _plain("dist", "power"),
        "cdist": _plain("cdist", "power"),
        "pdist": _functional("pdist", "power"),
        "abs_complex": Call("torch.abs", lambda re, im: torch.abs(torch.complex(re, im))),
        "std": _plain("std"),
    }  # fmt: skip

    def differentiate(
        self, function: Callable[..., list[Any]], inputs: Sequence[Array], way: Way
    ) -> tuple[list[float], list[Array]]:
        """By ``torch.autograd.grad``."""
        dtype = getattr(torch, way.dtype)
        tensors = [torch.from_numpy(np.asarray(each)).to(dtype) for each in inputs]
        if way.layout == "channels_last":
            tensors = [
                each.contiguous(memory_format=torch.channels_last) if each.dim() == 4 else each
                for each in tensors
            ]
        tensors = [each.requires_grad_() for each in tensors]
        if way.compiled:
            torch._dynamo.reset()
            function = torch.compile(function)
        outputs = function(*tensors)
        total = torch.stack([each.double() for each in outputs]).sum()
        gradients = torch.autograd.grad(total, tensors, materialize_grads=True)
        return (
            [float(each.detach()) for each in outputs],
            [each.double().contiguous().numpy() for each in gradients],
        )
