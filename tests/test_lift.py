"""The lift against exact arithmetic, and against two networks in float64 without a tape."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kinkcheck
from coarse_networks import coarse_points
from kinkcheck import audit, data, networks
from kinkcheck.arithmetic import precision
from kinkcheck.audit.arguments import Loss
from kinkcheck.errors import InputError
from kinkcheck.measure.batch import candidates
from kinkcheck.measure.forward import Chooser
from kinkcheck.measure.lift import SAMPLES, Lifted, lift
from kinkcheck.measure.runs import Runs, pairs
from kinkcheck.measure.zones import Zone, by_lift
from kinkcheck.selection import parse
from kinkcheck.tape import Tape

Batch = tuple[Tensor, Tensor]


def chooser(name: str) -> Chooser:
    """The selection wherever a site has it."""
    selection = parse(name)

    def chosen(tape: Tape) -> dict:
        return {s: selection for s in tape.sites if isinstance(selection, s.row.accepted)}

    return chosen


def lifted(
    model: nn.Module,
    batch: Batch,
    selections: Sequence[str] = ("minimal",),
    loss: Loss = F.cross_entropy,
) -> Lifted:
    """What the lift finds, and the gradient of the loss at the network's output."""
    at = next(p for p in precision.PRECISIONS.values() if p.storage == batch[0].dtype)
    programs = [chooser(name) for name in selections]
    with lift(
        Runs(model, pairs(loss), batch, at), chooser("native"), programs, candidates(batch)
    ) as found:
        return found


def zones(found: Lifted) -> list[Zone]:
    """The zones of points that moved."""
    return [
        by_lift(1.0, variation, noise)
        for variation, noise in zip(found.variation, found.noise, strict=True)
    ]


@pytest.fixture(scope="module")
def digits() -> list[Batch]:
    batches = data.load("mnist-sample").batches(32, seed=0)
    return [next(batches), next(batches)]


def lenet(seed: int, *, batch_norm: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    return networks.build("lenet5", in_channels=1, classes=10, image_size=28, batch_norm=batch_norm)


# --- against the exact arbiter -------------------------------------------------------------------


def judged(model: nn.Module, batch: Batch, selections: Sequence[str]) -> list[tuple[Zone, bool]]:
    """For each selection the zone by the lift, and whether the programs differ over the reals."""
    from kinkcheck.exact import evaluate

    found = lifted(model, batch, selections)
    point = evaluate(model, batch[0])
    cotangent = found.forward.output_gradient()
    differ = [point.difference(cotangent, name).l1 != 0 for name in selections]
    return list(zip(zones(found), differ, strict=True))


def assert_never_wrong(found: list[tuple[Zone, bool]]) -> Counter[Zone]:
    for zone, differ in found:
        assert zone is Zone.UNDECIDED or (zone is Zone.BIFURCATION) == differ
    return Counter(zone for zone, _ in found)


@pytest.mark.slow
def test_lift_never_disagrees_with_exact_arithmetic_on_coarse_networks() -> None:
    pytest.importorskip("flint")
    counts: Counter[Zone] = Counter()
    for model, inputs, targets in coarse_points(200, seed=11):
        counts += assert_never_wrong(judged(model, (inputs, targets), ["minimal", "last"]))
    assert counts[Zone.COMPENSATION] > 100
    assert counts[Zone.BIFURCATION] > 100
    assert counts[Zone.UNDECIDED] < 4


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
def test_lift_never_disagrees_with_exact_arithmetic_on_real_digits(
    name: str, digits: list[Batch]
) -> None:
    pytest.importorskip("flint")
    at = precision.PRECISIONS[name]
    counts: Counter[Zone] = Counter()
    for seed in range(4):
        images, targets = (tensor[seed : seed + 2] for tensor in digits[0])
        model = at.cast_model(lenet(seed), "cpu")
        batch = at.cast(images, "cpu"), targets
        counts += assert_never_wrong(judged(model, batch, ["minimal"]))
        # Weights of few bits coincide, and with them sums of different pixels.
        model.features[0].weight.data.mul_(16).round_().div_(16)
        counts += assert_never_wrong(judged(model, batch, ["minimal"]))
    assert counts[Zone.UNDECIDED] == 0
    assert min(counts[Zone.COMPENSATION], counts[Zone.BIFURCATION]) >= 3


def test_a_tie_that_matters_is_a_bifurcation_at_every_precision() -> None:
    # max(w₀ x, w₁ x) at w₀ = w₁: native blames w₀ alone, minimal both.
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.MaxPool1d(2))
    nn.init.ones_(model[0].weight)
    report = audit(
        model,
        [(torch.ones(3, 1), torch.zeros(3, 1))],
        loss=F.mse_loss,
        precisions=["16", "bfloat16", "32", "64"],
    )
    assert {point.zone for point in report.points} == {Zone.BIFURCATION}
    for point in report.points:
        assert point.lift is not None
        assert point.lift.variation_l1 == pytest.approx(2.0)


# --- against two networks in float64 -------------------------------------------------------------


@pytest.mark.parametrize("name", ["float16", "float32"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_gradients_are_those_of_two_networks_in_float64(
    batch_norm: bool, name: str, digits: list[Batch]
) -> None:
    at = precision.PRECISIONS[name]
    images, targets = digits[0]
    model = at.cast_model(lenet(0, batch_norm=batch_norm), "cpu")
    images = at.cast(images, "cpu")
    found = lifted(model, (images, targets), ["last"])
    for gradient, selection in ((found.reference, "native"), (found.selections[0], "last")):
        other = kinkcheck.nn.convert(copy.deepcopy(model).double(), max_pool=selection)
        for module in other.modules():
            if hasattr(module, "eps"):
                module.eps = torch.tensor(module.eps).item()  # as PyTorch's kernels take it
        loss = F.cross_entropy(other(images.double()), targets)
        expected = torch.autograd.grad(loss, list(other.parameters()))
        for (key, _), wanted in zip(other.named_parameters(), expected, strict=True):
            torch.testing.assert_close(gradient[key], wanted, rtol=1e-9, atol=1e-12)


def test_errors_are_distances_to_the_lift(digits: list[Batch]) -> None:
    images, targets = digits[0]
    model = lenet(0)
    (point,) = audit(model, [(images, targets)], precisions=["16"], selections=["last"]).points
    half = precision.PRECISIONS["float16"].cast_model(model, "cpu")

    def gradient(selection: str, dtype: torch.dtype) -> list[Tensor]:
        other = kinkcheck.nn.convert(copy.deepcopy(half).to(dtype), max_pool=selection)
        with kinkcheck.float32_contractions():
            loss = F.cross_entropy(other(images.half().to(dtype)), targets)
            found = torch.autograd.grad(loss, list(other.parameters()))
        return [tensor.double() for tensor in found]

    def error(selection: str) -> float:
        pairs = zip(gradient(selection, torch.half), gradient(selection, torch.double), strict=True)
        return sum((a - b).abs().sum().item() for a, b in pairs)

    assert point.lift is not None
    assert point.lift.error_reference_l1 == pytest.approx(error("native"), rel=1e-6)
    assert point.lift.error_selection_l1 == pytest.approx(error("last"), rel=1e-6)
    (double,) = audit(model, [(images, targets)], precisions=["64"]).points
    assert double.lift is not None
    assert double.lift.error_reference_l1 is double.lift.error_selection_l1 is None


# --- the noise floor in float64 ------------------------------------------------------------------


def constant_image(seed: int) -> tuple[nn.Module, Batch]:
    """A frozen head above a constant image: contributions that cancel inside a single sample."""
    torch.manual_seed(seed)
    head = nn.Linear(338, 4)
    head.weight.data -= head.weight.data.mean(1, keepdim=True)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), head)
    return model, (torch.full((1, 1, 28, 28), 0.3), torch.tensor([1]))


def test_floor_sees_rounding_inside_a_sample() -> None:
    pytest.importorskip("flint")
    found: list[tuple[Zone, bool]] = []
    for seed in (342, *range(40)):
        model, batch = constant_image(seed)
        model[-1].requires_grad_(False)
        found += judged(model, batch, ["minimal", "last"])
    counts = assert_never_wrong(found)
    assert counts[Zone.UNDECIDED] <= 2


@pytest.mark.parametrize("batch_norm", [False, True])
def test_floor_is_that_of_rounding(batch_norm: bool, digits: list[Batch]) -> None:
    model = lenet(0, batch_norm=batch_norm).double()
    images, targets = digits[0]
    found = lifted(model, (images.double(), targets))
    norm = sum(tensor.abs().sum().item() for tensor in found.reference.values())
    u = 2.0**-53
    assert u * norm <= found.noise[0] < 1e4 * u * norm


def test_without_kinks_and_rounding_one_roundoff_of_the_gradient_is_left() -> None:
    # Sums of whole numbers below 2^53 do not round.
    model = nn.Linear(2, 1, bias=False).double()
    nn.init.ones_(model.weight)
    x = torch.arange(2.0 * 4 * SAMPLES, dtype=torch.float64).reshape(-1, 2)
    batch = x, torch.zeros(len(x))
    found = lifted(model, batch, ["native"], lambda outputs, targets: outputs.sum())
    assert found.noise == [2.0**-53 * float(x.sum())]
    assert found.variation == [0.0]
    assert found.bottleneck == 0


def test_a_single_sample_has_a_floor(digits: list[Batch]) -> None:
    images, targets = (tensor[:1] for tensor in digits[0])
    found = lifted(lenet(0).double(), (images.double(), targets))
    norm = sum(tensor.abs().sum().item() for tensor in found.reference.values())
    assert found.noise[0] >= 2.0**-53 * norm > 0


class FirstCounts(nn.Module):
    """Weighs each sample of a mini-batch by its place."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.ReLU())
        self.by = by

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.layer(images)
        return outputs * (1 + self.by * torch.arange(len(outputs))).unsqueeze(1).to(outputs.dtype)


@pytest.mark.parametrize("by", [1.0, 1e-5])
@pytest.mark.parametrize("seed", range(4))
def test_what_needs_samples_is_left_out_where_their_order_counts(
    by: float, seed: int, digits: list[Batch]
) -> None:
    torch.manual_seed(seed)
    report = audit(FirstCounts(by), digits, seed=seed, lifted=True)
    for point in report.points:
        assert point.noise is None
        assert point.lift is not None
        assert point.zone in (Zone.AGREEMENT, Zone.COMPENSATION)
    ((what, points),) = [(each.what, each.points) for each in report.left_out]
    assert what.startswith("the noise floor")
    assert "no samples were found whose order" in what
    assert points == 2


@torch.library.custom_op("kinkcheck_tests::island", mutates_args=())
def island(x: Tensor) -> Tensor:
    return x.float().exp()


island.register_autograd(
    lambda ctx, g: g * ctx.saved_tensors[0],
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(output),
)


class Island(nn.Module):
    """Computes in float32 whatever the network does, where no mode of PyTorch looks."""

    def forward(self, x: Tensor) -> Tensor:
        return island(x).to(x.dtype)


class Cast(nn.Module):
    """Computes in float32 as language models do, and with a table made there."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        y = x.to(self.dtype)
        y = y * torch.rsqrt(y.square().mean(1, keepdim=True) + 1)
        table = torch.linspace(0, 1, x.shape[-1], dtype=torch.float32)
        return (y * table.to(self.dtype)).to(x.dtype) + torch.zeros(x.shape[-1])


def test_a_cast_to_a_fixed_type_is_rounding(digits: list[Batch]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 5), Cast(torch.float32), nn.MaxPool2d(2), nn.Flatten())
    found = lifted(model, digits[0], ["last"])
    model[1].dtype = torch.float64  # the table stays in float32
    loss = F.cross_entropy(model.double()(digits[0][0].double()), digits[0][1])
    expected = torch.autograd.grad(loss, list(model.parameters()))
    for (name, _), wanted in zip(model.named_parameters(), expected, strict=True):
        torch.testing.assert_close(found.reference[name], wanted, rtol=1e-9, atol=1e-12)


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn(1, *x.shape[1:], dtype=x.dtype)


def test_a_network_whose_lift_is_another_one_is_refused(digits: list[Batch]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 5), Island(), nn.MaxPool2d(2), nn.Flatten())
    with pytest.raises(InputError, match="computes in fewer bits than float64"):
        audit(model, digits[:1])
    assert audit(model, digits[:1], lifted=False).points


@pytest.mark.parametrize("name", ["16", "bfloat16", "32"])
def test_the_lift_draws_what_the_precision_drew(name: str, digits: list[Batch]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 5), Noisy(), nn.MaxPool2d(2), nn.Flatten())
    (point,) = audit(model, digits[:1], precisions=[name]).points
    assert point.lift is not None
    assert point.lift.error_reference_l1 is not None
    u = precision.parse(name).unit_roundoff
    assert 0 < point.lift.error_reference_l1 < 100 * u * point.gradient_l1


class Viewed(nn.Module):
    """The textbook network, whose view needs one layout in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.last = nn.Conv2d(1, 4, 5), nn.Linear(576, 10)

    def forward(self, images: Tensor) -> Tensor:
        pooled = F.max_pool2d(F.relu(self.convolution(images)), 2)
        outputs: Tensor = self.last(pooled.view(pooled.size(0), -1))
        return outputs


def test_networks_that_take_no_channels_last_are_lifted(digits: list[Batch]) -> None:
    torch.manual_seed(0)
    (point,) = audit(Viewed(), digits[:1]).points
    assert point.zone is Zone.COMPENSATION
    model = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten())
    (point,) = audit(model, [(torch.ones(2, 1, 4, 4, 4), torch.tensor([0, 1]))]).points
    assert point.lift is not None


def test_a_network_for_one_size_of_mini_batch_is_lifted_as_a_whole() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Flatten(0), nn.Unflatten(0, (4, 4)))
    (point,) = audit(model, [(torch.randn(4, 3), torch.tensor([0, 1, 2, 3]))]).points
    assert point.lift is not None
    assert point.noise is not None


# --- dropout -------------------------------------------------------------------------------------


class Dropped(nn.Module):
    """Drops pixels of feature maps, which float64 keeps in another order in memory."""

    def __init__(self, dropout: nn.Module) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 5)
        self.dropout = dropout
        self.rest = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(576, 10))

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.rest(self.dropout(self.convolution(images)))
        return outputs


@pytest.mark.parametrize("dropout", [nn.Dropout(), nn.Dropout2d(), nn.Dropout(0.1, inplace=True)])
@pytest.mark.parametrize("name", ["float16", "float32"])
def test_a_point_and_its_lift_drop_the_same(
    name: str, dropout: nn.Module, digits: list[Batch]
) -> None:
    torch.manual_seed(0)
    model = Dropped(dropout)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model = model.to(memory_format=memory_format)
        (point,) = audit(model, digits[:1], precisions=[name]).points
        assert point.lift is not None
        assert point.lift.error_reference_l1 is not None
        u = precision.PRECISIONS[name].unit_roundoff
        assert point.lift.error_reference_l1 < 100 * u * point.gradient_l1
        assert point.noise is not None
        assert point.noise.relative_l1 < 100 * u
