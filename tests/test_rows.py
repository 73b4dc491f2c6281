"""Every row under PyTorch's own samples: a new row is tested by being in the table.

The oracle is PyTorch: its values and gradients, and its gradients at points beside ties. Samples
are taken as PyTorch draws them, and filled from few values, so that most of them tie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from kinkcheck import InputError, ops, record
from kinkcheck.ops.compositions import COMPOSITIONS
from kinkcheck.ops.table import ROWS
from kinkcheck.selection import Selection, parse
from kinkcheck.tape.directions import direction
from strategies import DTYPES, filled

with pytest.MonkeyPatch.context() as patch:
    patch.setattr("sys.argv", ["pytest"])  # PyTorch's own tests read the command line
    from torch.testing._internal.common_methods_invocations import op_db

TYING = (-1.0, 0.0, -0.0, 1.0, 3.0, 6.0, 0.5)
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

NOT_BESIDE = {
    "nn.functional.hinge_embedding_loss": "it jumps where the target leaves 1",
    "nn.functional.cosine_embedding_loss": "it jumps where the target leaves 1",
    "nn.functional.cosine_similarity": "it bends within 1e-8, nearer than inputs are moved",
    "nn.functional.normalize": "it bends within 1e-12, nearer than inputs are moved",
    "nn.functional.rrelu": "it draws a number for each input that is not positive",
}
"""Calls that a small move takes elsewhere."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:index_reduce.. is in beta"),
    pytest.mark.filterwarnings("ignore:std.*degrees of freedom is <= 0"),
]


def _short(name: str) -> str:
    return name.replace(".", "_").removeprefix("nn_functional_").removeprefix("linalg_").strip("_")


def _named(info: Any) -> set[str]:
    return {_short(name) for name in (info.name, *(each.name for each in info.aliases))}


_ROWS_OF: dict[str, set[str]] = {}
_INFOS: dict[str, Any] = {}
"""PyTorch's samples of whatever a row or a composition names."""

for _info in op_db:
    _rows = {
        row.name
        for row in ROWS
        if _named(_info) & {_short(each.rpartition(".")[2]) for each in row.spellings.split()}
    }
    if _rows or _named(_info) & {_short(function.__name__) for function in COMPOSITIONS}:
        _name = f"{_info.name} {_info.variant_test_name}".strip()
        _INFOS[_name], _ROWS_OF[_name] = _info, _rows


@dataclass(frozen=True)
class Call:
    """A call of PyTorch as a function of its tensors of floating point numbers."""

    function: Callable[..., Any]
    spec: Any
    given: tuple[Any, ...]

    @staticmethod
    def of(info: Any, sample: Any) -> Call:
        given, spec = tree_flatten((sample.input, sample.args, sample.kwargs))
        return Call(info.op, spec, tuple(given))

    @property
    def leaves(self) -> list[Tensor]:
        return [each for each in self.given if _differentiable(each)]

    def filled(self, palette: tuple[float, ...]) -> list[Tensor]:
        return [
            filled(tuple(each.shape), palette, each.dtype, seed)
            if each.is_floating_point()
            else each
            for seed, each in enumerate(self.leaves)
        ]

    def __call__(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        rest = iter(leaves)
        given = [next(rest) if _differentiable(each) else each for each in self.given]
        input, args, kwargs = tree_unflatten(given, self.spec)
        torch.manual_seed(0)  # some operations draw
        return tuple(tree_leaves(self.function(input, *args, **kwargs)))

    def outputs(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Those that a gradient passes."""
        return tuple(each for each in self(*leaves) if _differentiable(each))

    def under(self, selection: str) -> Callable[..., tuple[Tensor, ...]]:
        """The same under a selection."""

        def function(*leaves: Tensor) -> tuple[Tensor, ...]:
            with Selected(parse(selection)):
                return self.outputs(*leaves)

        return function


class Selected(TorchFunctionMode):
    """Carries out nonsmooth calls under one selection, others as they are."""

    def __init__(self, selection: Selection) -> None:
        super().__init__()
        self.selection = selection

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in COMPOSITIONS:
            with self:
                return COMPOSITIONS[function](*args, **kwargs)
        found = ops.operation(function, args, kwargs)
        if found is not None and isinstance(self.selection, found.row.accepted):
            return found.apply(self.selection)
        return function(*args, **kwargs)


def _differentiable(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _calls(info: Any, dtype: torch.dtype, more: int = 2) -> Iterator[Call]:
    """The first three samples and some behind them."""
    samples = list(islice(info.sample_inputs("cpu", dtype, requires_grad=False), 60))
    for sample in [*samples[:3], *samples[:2:-1][:: 1 + len(samples) // more][:more]]:
        call = Call.of(info, sample)
        if call.leaves:
            yield call


def _asked(leaves: Sequence[Tensor]) -> list[Tensor]:
    return [each.detach().clone().requires_grad_() for each in leaves]


def _loss(outputs: Sequence[Tensor]) -> Tensor:
    """A number that depends on each entry in a way of its own."""
    total = torch.zeros((), dtype=torch.float64)
    for seed, each in enumerate(outputs):
        weights = filled(tuple(each.shape), (-2.0, -1.0, 0.5, 1.0, 3.0), torch.float64, seed)
        total = total + (each * weights.to(each.dtype)).sum().real.double()
    return total


def _gradients(loss: Tensor, leaves: Sequence[Tensor], **named: Any) -> list[Tensor]:
    found = torch.autograd.grad(loss, leaves, allow_unused=True, **named)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


def _plain(call: Call, at: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], list[Tensor]] | None:
    """What PyTorch makes of a call; None if it refuses it or there is no gradient."""
    leaves = _asked(at)
    try:
        outputs = call(*leaves)
    except (RuntimeError, ValueError):
        return None
    ways = [each for each in outputs if _differentiable(each) and each.requires_grad]
    return (outputs, _gradients(_loss(ways), leaves)) if ways else None


def _assert_same(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert (one.dtype, one.stride()) == (other.dtype, other.stride())
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        if one.is_floating_point():
            assert torch.equal(one.signbit() & ~one.isnan(), other.signbit() & ~other.isnan())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", _INFOS)
def test_values_and_native_gradients_are_pytorch_s(name: str, dtype: torch.dtype) -> None:
    info = _INFOS[name]
    if dtype not in info.supported_backward_dtypes("cpu"):
        pytest.skip("PyTorch does not differentiate it")
    for call in _calls(info, dtype):
        for at in (call.leaves, call.filled(TYING), call.filled(NOT_FINITE)):
            plain = _plain(call, at)
            if plain is None:
                continue
            leaves = _asked(at)
            with record() as tape:
                outputs = call(*leaves)
                ways = [each for each in outputs if _differentiable(each) and each.requires_grad]
                loss = _loss(ways)
            _assert_same(outputs, plain[0])
            _assert_same(tape.gradient(loss, leaves), plain[1])
            _assert_same(_gradients(loss, leaves), plain[1])


@pytest.mark.filterwarnings("ignore:Casting complex values to real")
def test_every_row_is_met() -> None:
    met: set[str] = set()
    for name, info in _INFOS.items():
        wanted = _ROWS_OF[name]
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


def _tied(name: str) -> Iterator[tuple[Call, list[Tensor]]]:
    """Calls in float64 whose inputs tie, or are equal to what an operation is compared with."""
    info = _INFOS[name]
    for call in _calls(info, torch.float64):
        at = call.filled(TYING)
        if _plain(call, at) is not None:
            yield call, at


@pytest.mark.parametrize("name", _INFOS)
def test_hybrid_is_affine_and_without_ties_all_selections_are_native(name: str) -> None:
    for call, at in _tied(name):
        leaves = _asked(at)
        with record() as tape:
            loss = _loss(call.outputs(*leaves))
        native = tape.gradient(loss, leaves)
        for site in tape.sites:
            at_site = partial(_at_site, tape, loss, leaves, site)
            minimal = at_site("minimal")
            for beta in (0.25, -2.0, 10.0):
                for n, m, h in zip(native, minimal, at_site(f"hybrid:{beta}"), strict=True):
                    torch.testing.assert_close(h, n + beta * (m - n), equal_nan=True)
            if not site.tied:
                for text in SELECTIONS:
                    if isinstance(parse(text), site.row.accepted):
                        _assert_same(at_site(text), native)


def _at_site(tape: Any, loss: Tensor, leaves: list[Tensor], site: Any, text: str) -> Any:
    return tape.gradient(loss, leaves, choose={site: text})


@pytest.mark.parametrize("name", _INFOS)
def test_a_limit_is_pytorch_s_gradient_beside_the_tie(name: str) -> None:
    if name in NOT_BESIDE:
        pytest.skip(NOT_BESIDE[name])
    for call, at in _tied(name):
        leaves = _asked(at)
        with record() as tape:
            loss = _loss(call.outputs(*leaves))
        accepted = [isinstance(parse("limit:0"), site.row.accepted) for site in tape.sites]
        if not accepted or not all(accepted):
            continue
        try:
            limit = tape.gradient(loss, leaves, choose="limit:0")
        except InputError:
            assert not _INFOS[name].supports_gradgrad
            continue
        moved = [x + 1e-6 * d for x, d in zip(at, direction(leaves, 0), strict=True)]
        beside = _plain(call, moved)
        if beside is not None:
            for one, other in zip(limit, beside[1], strict=True):
                torch.testing.assert_close(one, other, rtol=5e-3, atol=5e-3, equal_nan=True)


@pytest.mark.parametrize("selection", ["minimal", "last"])
@pytest.mark.parametrize("name", _INFOS)
def test_forward_mode_is_the_adjoint_of_backward_mode(name: str, selection: str) -> None:
    if not _INFOS[name].supports_forward_ad:
        pytest.skip("PyTorch has no forward mode of it")
    for call, at in _tied(name):
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
@pytest.mark.parametrize("name", _INFOS)
def test_vmap_is_a_loop(name: str) -> None:
    for call, at in _tied(name):
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


@pytest.mark.parametrize("name", _INFOS)
def test_away_from_ties_the_second_derivative_is_the_difference_of_the_first(name: str) -> None:
    info = _INFOS[name]
    if not info.supports_gradgrad:
        pytest.skip("PyTorch does not differentiate it twice")
    generator = torch.Generator().manual_seed(0)
    for call in _calls(info, torch.float64):
        distinct = [
            torch.randn(each.shape, dtype=each.dtype, generator=generator) for each in call.leaves
        ]
        if _plain(call, distinct) is not None and 0 < sum(map(torch.numel, distinct)) < 200:
            leaves = tuple(_asked(distinct))
            assert torch.autograd.gradgradcheck(call.under("minimal"), leaves, fast_mode=True)
