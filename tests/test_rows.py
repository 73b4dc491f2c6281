"""Every row under PyTorch's own samples: a new row is tested by being in the table.

The oracle is PyTorch: its values and gradients, and its gradients at points beside ties. Samples
are taken as PyTorch draws them, and filled from few values, so that most of them tie; images also
with their channels side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from kinkcheck import record
from kinkcheck.ops.table import ROWS
from kinkcheck.selection import parse
from kinkcheck.tape.directions import direction
from samples import (
    INFOS,
    NOT_BESIDE,
    ROWS_OF,
    TYING,
    Call,
    asked,
    calls,
    differentiable,
    gradients_of,
    loss_of,
    plainly,
    tied,
)
from strategies import DTYPES, filled

NOT_FINITE = (float("nan"), float("inf"), float("-inf"), 0.0, 1.0)
SELECTIONS = ("minimal", "first", "last", "random:1", "hybrid:0.5", "branch:0.25")

WITHOUT_SAMPLES = {
    **dict.fromkeys(("norm_pool1d", "norm_pool2d", "norm_pool3d"), "in tests/test_norm_pool.py"),
    **dict.fromkeys(("fake_quantize", "fake_quantize_channel"), "in tests/test_rows_pointwise.py"),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max"), "PyTorch's bounds are tensors"),
    **dict.fromkeys(("dist_1", "dist_inf"), "PyTorch's powers are others"),
    "elu": "PyTorch's has the slope 1 on both sides",
    "threshold": "PyTorch's has a gap",
}
"""Rows that no sample of PyTorch meets."""

OF_TWO_MODES = ("clamp", "fmax", "scatter_reduce amax", "scatter_reduce amin")
"""Calls of which PyTorch's own forward mode is not the adjoint of its backward pass at a tie."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:std.*degrees of freedom is <= 0"),
]


def _assert_same(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert (one.dtype, one.stride()) == (other.dtype, other.stride())
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        if one.is_floating_point():
            assert torch.equal(one.signbit() & ~one.isnan(), other.signbit() & ~other.isnan())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", INFOS)
def test_values_and_native_gradients_are_pytorch_s(name: str, dtype: torch.dtype) -> None:
    info = INFOS[name]
    if dtype not in info.supported_backward_dtypes("cpu"):
        pytest.skip("PyTorch does not differentiate it")
    for call in calls(info, dtype):
        side_by_side = call.side_by_side(TYING)
        for at in (call.leaves, call.filled(TYING), call.filled(NOT_FINITE), side_by_side):
            plain = None if at is None else plainly(call, at)
            if plain is None:
                continue
            leaves = asked(at)
            with record() as tape:
                outputs = call(*leaves)
                ways = [each for each in outputs if differentiable(each) and each.requires_grad]
                loss = loss_of(ways)
            _assert_same(outputs, plain[0])
            _assert_same(tape.gradient(loss, leaves), plain[1])
            _assert_same(gradients_of(loss, leaves), plain[1])


@pytest.mark.filterwarnings("ignore:Casting complex values to real")
def test_every_row_is_met() -> None:
    met: set[str] = set()
    for name, info in INFOS.items():
        wanted = ROWS_OF[name]
        for dtype in info.supported_backward_dtypes("cpu") & {torch.float64, torch.complex128}:
            for sample in islice(info.sample_inputs("cpu", dtype, requires_grad=False), 200):
                if wanted <= met:
                    break
                call = Call.of(info, sample)
                with record() as tape:
                    call(*call.leaves)
                met |= {site.operation for site in tape.sites}
    unmet = {row.name for row in ROWS} - met
    assert sorted(unmet ^ set(WITHOUT_SAMPLES)) == []


@pytest.mark.parametrize("name", INFOS)
def test_hybrid_and_mix_are_affine_and_without_ties_all_selections_are_native(name: str) -> None:
    for call, at in tied(name):
        leaves = asked(at)
        with record() as tape:
            loss = loss_of(call.outputs(*leaves))
        native = tape.gradient(loss, leaves)
        for site in tape.sites:
            at_site = partial(_at_site, tape, loss, leaves, site)
            minimal = at_site("minimal")
            if site.row.least:
                torch.testing.assert_close(minimal, native, equal_nan=True)
            for beta in (0.25, -2.0, 10.0):
                for n, m, h in zip(native, minimal, at_site(f"hybrid:{beta}"), strict=True):
                    torch.testing.assert_close(h, n + beta * (m - n), equal_nan=True)
            if site.row.has(parse("mix:0.25*first,-2*minimal,2.75*native")):
                mixed = at_site("mix:0.25*first,-2*minimal,2.75*native")
                parts = zip(native, minimal, at_site("first"), mixed, strict=True)
                for n, m, f, found in parts:
                    expected = 0.25 * f - 2 * m + 2.75 * n
                    torch.testing.assert_close(found, expected, equal_nan=True)
            if not site.tied:
                for text in SELECTIONS:
                    if isinstance(parse(text), site.row.accepted):
                        _assert_same(at_site(text), native)


def _at_site(tape: Any, loss: Tensor, leaves: list[Tensor], site: Any, text: str) -> Any:
    return tape.gradient(loss, leaves, choose={site: text})


@pytest.mark.parametrize("name", INFOS)
def test_a_limit_is_pytorch_s_gradient_beside_the_tie(name: str) -> None:
    if name in NOT_BESIDE:
        pytest.skip(NOT_BESIDE[name])
    for call, at in tied(name):
        leaves = asked(at)
        with record() as tape:
            loss = loss_of(call.outputs(*leaves))
        accepted = [isinstance(parse("limit:0"), site.row.accepted) for site in tape.sites]
        if not accepted or not all(accepted):
            continue
        limit = tape.gradient(loss, leaves, choose="limit:0")
        moved = [x + 1e-6 * d for x, d in zip(at, direction(leaves, 0), strict=True)]
        beside = plainly(call, moved)
        if beside is not None:
            for one, other in zip(limit, beside[1], strict=True):
                torch.testing.assert_close(one, other, rtol=5e-3, atol=5e-3, equal_nan=True)


@pytest.mark.parametrize("selection", ["native", "minimal", "last", "hybrid:0.5"])
@pytest.mark.parametrize("name", INFOS)
def test_forward_mode_is_the_adjoint_of_backward_mode(name: str, selection: str) -> None:
    if name in OF_TWO_MODES and selection in ("native", "hybrid:0.5"):
        pytest.skip("PyTorch's own forward mode takes another branch at a tie")
    if not INFOS[name].supports_forward_ad:
        pytest.skip("PyTorch has no forward mode of it")
    for call, at in tied(name):
        if not all(each.numel() for each in at):
            continue  # PyTorch's own tangent of a deviation of nothing is NaN
        function = call.under(selection)
        tangents = [filled(tuple(x.shape), (-2.0, 1.0, 0.5), x.dtype, 5) for x in at]
        outputs, moved = torch.func.jvp(function, tuple(at), tuple(tangents))
        gradients = [filled(tuple(y.shape), (-1.0, 2.0, 0.25), y.dtype, 6) for y in outputs]
        pulled = torch.func.vjp(function, *at)[1](tuple(gradients))
        forwards = sum((m * g).sum() for m, g in zip(moved, gradients, strict=True))
        backwards = sum((t * p).sum() for t, p in zip(tangents, pulled, strict=True))
        torch.testing.assert_close(forwards, backwards, equal_nan=True)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", INFOS)
def test_vmap_is_a_loop(name: str) -> None:
    for call, at in tied(name):
        batch = [torch.stack([x, x.flip(0) if x.dim() else -x]) for x in at]

        def gradients(function: Any, *leaves: Tensor) -> tuple[Tensor, ...]:
            outputs, pull = torch.func.vjp(function, *leaves)
            return (*outputs, *pull(tuple(torch.ones_like(each) for each in outputs)))

        vmap = partial(torch.func.vmap, randomness="same")
        try:
            vmap(partial(gradients, call.outputs))(*batch)
        except (RuntimeError, ValueError):
            continue  # PyTorch has no vmap of it
        function = partial(gradients, call.under("minimal"))
        try:
            looped = [function(*each) for each in zip(*batch, strict=True)]
        except (RuntimeError, ValueError):
            continue  # PyTorch refuses the other values
        for one, other in zip(vmap(function)(*batch), zip(*looped, strict=True), strict=True):
            torch.testing.assert_close(one, torch.stack(other), equal_nan=True)


@pytest.mark.parametrize("name", INFOS)
def test_away_from_ties_the_second_derivative_is_the_difference_of_the_first(name: str) -> None:
    info = INFOS[name]
    if not info.supports_gradgrad:
        pytest.skip("PyTorch does not differentiate it twice")
    generator = torch.Generator().manual_seed(0)
    for call in calls(info, torch.float64):
        distinct = [
            torch.randn(each.shape, dtype=each.dtype, generator=generator) for each in call.leaves
        ]
        precise = all(each.dtype.itemsize >= 8 for each in distinct)
        few = 0 < sum(map(torch.numel, distinct)) < 200
        if precise and few and plainly(call, distinct) is not None:
            leaves = tuple(asked(distinct))
            assert torch.autograd.gradgradcheck(call.under("minimal"), leaves, fast_mode=True)
