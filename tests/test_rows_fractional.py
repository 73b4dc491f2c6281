"""Fractional max pooling: windows are found by probing PyTorch with one entry at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import record

MODULES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "ratio": (nn.FractionalMaxPool2d(2, output_ratio=(0.5, 0.6)), (2, 3, 7, 6)),
    "size": (nn.FractionalMaxPool2d((3, 1), output_size=(2, 4)), (3, 5, 6)),
    "one": (nn.FractionalMaxPool2d(2, output_size=1), (1, 2, 4, 4)),
    "3d": (nn.FractionalMaxPool3d((2, 1, 3), output_size=(2, 3, 2)), (2, 2, 5, 4, 6)),
    "3d ratio": (nn.FractionalMaxPool3d(2, output_ratio=0.5), (2, 4, 5, 6)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", MODULES)
def test_each_window_has_the_choice_among_its_largest(name: str, dtype: torch.dtype) -> None:
    module, shape = MODULES[name]
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(3, shape, generator=generator).to(dtype).requires_grad_()

    def pooled(input: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            output: Tensor = module(input)
        return output

    expected = pooled(x)
    start = torch.randint(-3, 4, expected.shape, generator=generator).to(dtype)
    (native,) = torch.autograd.grad(expected, x, start)
    with record() as tape:
        output = pooled(x)
        loss = (output * start).sum()
    assert torch.equal(output, expected)
    assert torch.equal(tape.gradient(loss, [x])[0], native)
    # PyTorch takes the first in row-major order.
    assert torch.equal(tape.gradient(loss, [x], choose="first")[0], native)
    assert tape.unseen_behind(loss, x) == []

    one = torch.eye(x.numel(), dtype=dtype)
    holds = torch.stack([pooled(each.reshape(shape)).flatten() for each in one], 1) == 1
    ties = holds & (x.detach().flatten() == expected.detach().flatten()[:, None])
    (site,) = tape.sites
    assert site.tied == int((ties.sum(1) > 1).sum())
    shares = ties.double() / ties.sum(1, keepdim=True)
    last = ties & (ties.flip(1).cumsum(1).flip(1) == 1)
    for choice, weights in (("minimal", shares), ("last", last.double())):
        wanted = (start.double().flatten() @ weights).reshape(shape)
        torch.testing.assert_close(
            tape.gradient(loss, [x], choose=choice)[0].double(), wanted, rtol=1e-3, atol=1e-2
        )


def test_every_spelling_is_a_site() -> None:
    x, samples = torch.zeros(1, 1, 4, 4, requires_grad=True), torch.rand(1, 1, 2)
    given: dict[str, Any] = {"output_size": 2, "_random_samples": samples}
    with record() as tape:
        written = [
            F.fractional_max_pool2d(x, 2, **given),
            F.fractional_max_pool2d(x, 2, return_indices=True, **given)[0],
            F.fractional_max_pool2d_with_indices(x, 2, **given)[0],
            torch.ops.aten.fractional_max_pool2d(x, [2, 2], [2, 2], samples)[0],
        ]
    assert len(tape.sites) == len(written)
    with record(), pytest.raises(ValueError, match="requires specifying either an output_size"):
        F.fractional_max_pool2d(x, 2)
