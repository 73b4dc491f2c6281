"""The audit against the published procedure: two networks, each run forward and backward."""

from __future__ import annotations

import copy
import gc
import json
import math
import statistics
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kinkcheck
from kinkcheck import audit, data, networks
from kinkcheck.arithmetic.contractions import float32_contractions
from kinkcheck.audit import AuditReport, Point, SiteCount, UnseenCount, Variation, verify
from kinkcheck.errors import InputError
from kinkcheck.measure.variation import gradient_variation
from kinkcheck.measure.zones import Zone

Batch = tuple[Tensor, Tensor]
STORED = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "mixed": torch.float32,
}


@pytest.fixture(scope="module")
def digits() -> list[Batch]:
    """Two batches of eight real digits."""
    batches = data.load("mnist-sample").batches(8, seed=0)
    return [next(batches), next(batches)]


def lenet(batch_norm: bool = False, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return networks.build("lenet5", in_channels=1, classes=10, image_size=28, batch_norm=batch_norm)


class Dropping(nn.Module):
    """A network that draws at random in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Flatten()
        )
        self.last = nn.Linear(4 * 12 * 12, 10)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.last(self.layers(images))
        return scores


def published(network: nn.Module, precision: str, batch: Batch) -> tuple[float, list[np.ndarray]]:
    """Loss and gradient in one precision, without a tape."""
    model = copy.deepcopy(network).to(STORED[precision])
    narrow = precision in ("float16", "mixed")
    with float32_contractions() if narrow else nullcontext():
        with torch.autocast("cpu", torch.float16, enabled=precision == "mixed"):
            loss = F.cross_entropy(model(batch[0].to(STORED[precision])), batch[1])
        gradient = torch.autograd.grad(loss, list(model.parameters()))
    return loss.item(), [tensor.double().numpy() for tensor in gradient]


def l1(gradient: list[np.ndarray], reference: list[np.ndarray]) -> float:
    return math.fsum(
        entry
        for a, b in zip(gradient, reference, strict=True)
        for entry in np.abs(a - b).ravel().tolist()
    )


def norms(gradient: list[np.ndarray], reference: list[np.ndarray]) -> dict[str, float]:
    difference = [np.abs(a - b) for a, b in zip(gradient, reference, strict=True)]
    zero = [np.zeros_like(tensor) for tensor in reference]
    return {
        "l1": l1(gradient, reference),
        "l2": math.sqrt(math.fsum(np.concatenate([d.ravel() ** 2 for d in difference]))),
        "linf": max(d.max() for d in difference),
        "linf_by_tensor": math.fsum(d.max() for d in difference),
        "relative_l1": l1(gradient, reference) / l1(reference, zero),
    }


def assert_variation(
    variation: Variation, gradient: list[np.ndarray], reference: list[np.ndarray]
) -> None:
    expected = norms(gradient, reference)
    assert variation.linf == expected.pop("linf")
    for name, value in expected.items():
        assert getattr(variation, name) == pytest.approx(value, rel=1e-12, abs=0)


def converted(network: nn.Module, **selections: str) -> nn.Module:
    return kinkcheck.nn.convert(copy.deepcopy(network), **selections)


# --- variation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", STORED)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_variation_is_that_of_two_networks(
    precision: str, batch_norm: bool, digits: list[Batch]
) -> None:
    network = lenet(batch_norm)
    report = audit(network, digits, precisions=[precision], selections=["minimal", "hybrid:10"])
    keys = [(p.precision, p.draw, p.batch, p.selection) for p in report.points]
    assert keys == [(precision, 0, b, s) for b in (0, 1) for s in ("minimal", "hybrid:10")]
    for point in report.points:
        batch = digits[point.batch]
        loss, native = published(network, precision, batch)
        same_loss, other = published(converted(network, max_pool=point.selection), precision, batch)
        assert point.loss == loss == same_loss
        zero = [np.zeros_like(tensor) for tensor in native]
        assert point.gradient_l1 == pytest.approx(l1(native, zero), rel=1e-12, abs=0)
        assert_variation(point.variation, other, native)
        assert point.variation.l1 > 0


@pytest.mark.parametrize("precision", ["16", "32"])
def test_variation_is_that_of_two_networks_with_group_norm(
    precision: str, digits: list[Batch]
) -> None:
    """With tangents its backward pass has another formula, which rounds in another way."""
    network = lenet()
    layers = network.get_submodule("features")
    layers[0] = nn.Sequential(layers[0], nn.GroupNorm(3, 6))  # type: ignore[operator, index]
    for point in audit(network, digits, precisions=[precision], selections=["minimal"]).points:
        batch = digits[point.batch]
        _, native = published(network, point.precision, batch)
        _, minimal = published(converted(network, max_pool="minimal"), point.precision, batch)
        assert_variation(point.variation, minimal, native)


def test_evaluation_mode_is_kept(digits: list[Batch]) -> None:
    network = lenet(batch_norm=True).eval()
    (point,) = audit(network, digits[:1]).points
    _, native = published(network, "float32", digits[0])
    _, minimal = published(converted(network, max_pool="minimal"), "float32", digits[0])
    assert_variation(point.variation, minimal, native)


@pytest.mark.parametrize(
    ("operations", "selection", "conversion"),
    [
        (["relu"], "branch:1", {"relu": "branch:1"}),
        (["relu"], "last", {"relu": "last"}),
        (["max_pool"], "last", {"max_pool": "last"}),
        (["max_pool2d"], "last", {"max_pool": "last"}),
        (["max_pool2d", "relu"], "last", {"max_pool": "last", "relu": "last"}),
        (None, "last", {"max_pool": "last", "relu": "last"}),
        (None, "branch:1", {"relu": "branch:1"}),
    ],
)
def test_only_the_operations_asked_for_are_switched(
    operations: list[str] | None,
    selection: str,
    conversion: dict[str, str],
    digits: list[Batch],
) -> None:
    network = lenet()
    with torch.no_grad():  # exact zeros before the ReLUs
        for layer in (network.features[0], network.features[4]):
            layer.weight[0], layer.bias[0] = 0, 0
    report = audit(network, digits[:1], selections=[selection], operations=operations, lifted=False)
    (point,) = report.points
    _, native = published(network, "float32", digits[0])
    _, other = published(converted(network, **conversion), "float32", digits[0])
    assert_variation(point.variation, other, native)
    assert point.variation.l1 > 0


def test_another_reference_is_compared_with(digits: list[Batch]) -> None:
    network = lenet()
    report = audit(network, digits[:1], reference="minimal", selections=["hybrid:10"])
    _, minimal = published(converted(network, max_pool="minimal"), "float32", digits[0])
    _, hybrid = published(converted(network, max_pool="hybrid:10"), "float32", digits[0])
    assert report.reference == "minimal"
    assert_variation(report.points[0].variation, hybrid, minimal)


def test_operations_without_the_selection_stay_at_the_reference(digits: list[Batch]) -> None:
    network = lenet()
    with torch.no_grad():
        network.features[0].weight[0], network.features[0].bias[0] = 0, 0
    report = audit(network, digits[:1], reference="hybrid:1000", selections=["branch:1"])
    reference = converted(network, max_pool="hybrid:1000")
    _, base = published(reference, "float32", digits[0])
    _, other = published(converted(reference, relu="branch:1"), "float32", digits[0])
    assert_variation(report.points[0].variation, other, base)


def test_gradient_at_float64_moves_by_rounding_alone(digits: list[Batch]) -> None:
    report = audit(lenet(), digits, precisions=["64"], selections=["minimal", "hybrid:10"])
    assert all(0 < point.variation.relative_l1 <= 1e-14 for point in report.points)


def test_selection_equal_to_the_reference_moves_nothing_even_with_dropout(
    digits: list[Batch],
) -> None:
    torch.manual_seed(0)
    report = audit(
        Dropping(), digits, precisions=["32", "64"], selections=["native", "first", "minimal"]
    )
    by = {(p.precision, p.batch, p.selection): p.variation for p in report.points}
    for precision in ("float32", "float64"):
        for batch in (0, 1):
            for selection in ("native", "first"):
                assert by[precision, batch, selection] == Variation(0, 0, 0, 0, 0)
    # One forward pass, one mask: over the reals minimal gives the same gradient.
    assert 0 < by["float64", 0, "minimal"].relative_l1 <= 1e-14


def test_loss_may_be_any_function(digits: list[Batch]) -> None:
    network = lenet()
    report = audit(network, digits[:1], loss=lambda outputs, _: outputs.square().sum())
    assert report.points[0].loss == network(digits[0][0]).square().sum().item()


@pytest.mark.parametrize(
    ("gradient", "reference", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], Variation(0, 0, 0, 0, 0)),
        ([1.0, -2.0], [-2.0, 2.0], Variation(7, 5, 4, 4, 7 / 4)),
        ([1.0, 0.0], [0.0, 0.0], Variation(1, 1, 1, 1, math.inf)),
        ([0.0, 0.0], [0.0, 0.0], Variation(0, 0, 0, 0, math.nan)),
        ([math.nan, 3.0], [0.0, 2.0], Variation(*[math.nan] * 5)),
        ([math.inf, 3.0], [0.0, 2.0], Variation(*[math.inf] * 5)),
    ],
)
def test_norms_of_a_difference(
    gradient: list[float], reference: list[float], expected: Variation
) -> None:
    found = gradient_variation({"w": torch.tensor(gradient)}, {"w": torch.tensor(reference)})
    assert str(found) == str(Variation(*map(float, vars(expected).values())))


def test_measuring_a_distance_changes_no_gradient() -> None:
    """Also of a large tensor in float64, which needs no copy to be cast."""
    one, two = ({"w": torch.full((1000, 300), n, dtype=torch.float64)} for n in (1.0, 2.0))
    assert gradient_variation(two, one).l1 == 300_000
    assert torch.equal(two["w"], 2 * one["w"])


def test_nan_in_any_tensor_is_seen() -> None:
    good, bad = torch.zeros(1), torch.tensor([math.nan])
    for order in ([good, bad], [bad, good]):
        gradient = dict(zip("ab", order, strict=True))
        variation = gradient_variation(gradient, {"a": torch.ones(1), "b": torch.ones(1)})
        assert all(math.isnan(value) for value in vars(variation).values())


# --- passes -------------------------------------------------------------------------------------


class _Count(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counter: Counter[str]) -> Tensor:
        ctx.counter = counter
        counter["forward"] += 1
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None]:
        ctx.counter["backward"] += 1
        return gradient[0], None


class Counting(nn.Module):
    counter: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.lenet = lenet()

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = _Count.apply(self.lenet(images), self.counter)
        return scores


@pytest.mark.parametrize("layers", [False, True])
def test_point_costs_one_forward_pass_and_runs_what_no_choice_touches_backward_once(
    layers: bool, digits: list[Batch]
) -> None:
    Counting.counter.clear()
    done: list[tuple[int, int]] = []
    audit(
        Counting,
        digits,
        precisions=["32", "64"],
        selections=["minimal", "last", "hybrid:2"],
        layers=layers,
        lifted=False,
        on_point=lambda *progress: done.append(progress),
    )
    # The first point of each precision is compared with plain autograd, which runs once more.
    # There two more backward passes are whole ones, to compare with what an earlier one left, and
    # with one that ran again in part.
    # The picture of the first image takes one pass in the precision, and one in the lift.
    assert Counting.counter == {"forward": 4 + 2 + 2, "backward": 4 + 2 + 2 * 2 + 2}
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]


# --- sites --------------------------------------------------------------------------------------


def windows(x: Tensor) -> np.ndarray:
    """The 2×2 windows as rows."""
    n, c, h, w = x.shape
    blocks = x.detach().numpy().reshape(n, c, h // 2, 2, w // 2, 2)
    return blocks.transpose(0, 1, 2, 4, 3, 5).reshape(-1, 4)


def counts(rows: np.ndarray) -> tuple[int, int, int]:
    tied = (rows == rows.max(axis=1, keepdims=True)).sum(axis=1) > 1
    return len(rows), int(tied.sum()), int((tied & (rows == 0).all(axis=1)).sum())


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_census_is_that_of_numpy_on_real_digits(precision: str, digits: list[Batch]) -> None:
    network = lenet()
    with torch.no_grad():
        # A channel of zeros before a ReLU.
        network.features[0].weight[0], network.features[0].bias[0] = 0, 0
    report = audit(network, digits, precisions=[precision], lifted=False)

    total: dict[str, np.ndarray] = {}
    model = copy.deepcopy(network).to(STORED[precision])
    for images, _ in digits:
        x = images.to(STORED[precision])
        for part, name in ((model.features, "features"), (model.classifier, "classifier")):
            for index, layer in enumerate(part):
                if isinstance(layer, nn.MaxPool2d):
                    found = counts(windows(x))
                elif isinstance(layer, nn.ReLU):
                    zeros = int((x.detach().numpy() == 0).sum())
                    found = (x.numel(), zeros, zeros)
                if isinstance(layer, nn.MaxPool2d | nn.ReLU):
                    key = f"{name}.{index}"
                    total[key] = total.get(key, np.zeros(3, int)) + np.array(found)
                x = layer(x)
            x = x.flatten(1)

    assert {s.layer: (s.windows, s.tied, s.tied_at_zero) for s in report.sites} == {
        layer: tuple(found) for layer, found in total.items()
    }
    kinds = [(s.precision, s.operation, s.call, s.variation_l1) for s in report.sites]
    assert kinds == [
        (precision, operation, 0, None)
        for operation in ("relu", "max_pool2d", "relu", "max_pool2d", "relu", "relu")
    ]
    assert all(s.tied for s in report.sites[:2])


@pytest.mark.parametrize("reference", ["native", "minimal"])
def test_layers_attribute_the_variation_to_one_converted_layer(
    reference: str, digits: list[Batch]
) -> None:
    network = lenet()
    report = audit(
        network,
        digits,
        precisions=["16"],
        reference=reference,
        selections=["hybrid:10", "last"],
        layers=True,
    )
    base = converted(network, max_pool=reference)
    for site in report.sites:
        part, index = site.layer.split(".")
        one = copy.deepcopy(base)
        if site.operation == "max_pool2d":
            getattr(one, part)[int(index)] = kinkcheck.nn.MaxPool2d(2, selection="hybrid:10")
        alone = [
            l1(published(one, "float16", batch)[1], published(base, "float16", batch)[1])
            for batch in digits
        ]
        assert site.variation_l1 == pytest.approx(statistics.fmean(alone), rel=1e-12, abs=0)
    assert sum(site.variation_l1 > 0 for site in report.sites) == 2


def test_sites_without_the_first_selection_are_not_attributed(digits: list[Batch]) -> None:
    report = audit(lenet(), digits[:1], selections=["branch:1", "minimal"], layers=True)
    assert {s.operation: s.variation_l1 is None for s in report.sites} == {
        "relu": False,
        "max_pool2d": True,
    }


def test_calls_of_one_layer_are_told_apart() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.relu = nn.Linear(2, 2), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.relu(self.linear(self.relu(x)))
            return scores

    report = audit(Twice(), [(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))])
    assert [(s.layer, s.call, s.windows) for s in report.sites] == [("relu", 0, 6), ("relu", 1, 6)]
    assert report.sites[0].tied == 6


def test_operation_out_of_reach_is_counted_over_points(digits: list[Batch]) -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.exp().sqrt()

    class Rooted(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Flatten(), nn.Linear(784, 10), Root())

    report = audit(Rooted, digits, precisions=["32", "64"])
    (unseen,) = report.unseen
    assert (unseen.layer, unseen.operation, unseen.calls) == ("2", "sqrt", 4)
    assert unseen.reason


def test_network_without_kinks_has_no_site_and_no_variation(digits: list[Batch]) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    report = audit(network, digits, selections=["minimal", "branch:1"], operations=["relu"])
    assert report.sites == report.unseen == []
    assert [point.variation for point in report.points] == [Variation(0, 0, 0, 0, 0)] * 4
    assert all(point.gradient_l1 > 0 for point in report.points)


@pytest.mark.parametrize(
    "twice", [{"precisions": ["32", "float32"]}, {"selections": ["minimal", "minimal"]}]
)
def test_what_is_named_twice_is_measured_once(twice: dict[str, Any], digits: list[Batch]) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.ReLU())
    report = audit(network, digits[:1], **twice)
    assert report == audit(network, digits[:1])
    assert len(report.points) == 1
    assert [each.wrong for each in verify(report, network, digits[:1])] == [[], []]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"samples": "a"}, "samples: must be the number of a dimension, None, or a tuple, .* 'a'"),
        ({"samples": (0, 1.5)}, "samples: must be the number of a dimension, .*, not 1.5"),
        ({"draws": 1.0}, "draws: must be a whole number, not 1.0"),
        ({"seed": "0"}, "seed: must be a whole number, not '0'"),
        ({"operations": "relu"}, "operations: must be a list, not 'relu'"),
        ({"operations": []}, "operations: at least one is needed"),
        ({"selections": 3}, "selections: must be a list, not 3"),
    ],
)
def test_what_is_of_another_kind_is_named(
    given: dict[str, Any], complaint: str, digits: list[Batch]
) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.ReLU())
    with pytest.raises(InputError, match=f"^{complaint}$"):
        audit(network, digits[:1], **given)


# --- draws --------------------------------------------------------------------------------------


def test_parameters_of_a_draw_depend_on_its_seed_alone(digits: list[Batch]) -> None:
    def of(**arguments: Any) -> list[Point]:
        return audit(small, digits[:1], **arguments).points

    def small() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.ReLU())

    torch.manual_seed(1)
    two = of(seed=5, draws=2)
    torch.manual_seed(2)
    assert of(seed=5, draws=2) == two
    assert [point.draw for point in two] == [0, 1]
    assert two[0].loss != two[1].loss
    assert of(seed=6)[0].loss == two[1].loss
    assert of(seed=7)[0].loss not in (two[0].loss, two[1].loss)


def test_parameters_are_the_same_at_every_precision(digits: list[Batch]) -> None:
    drawn: list[Tensor] = []

    def small() -> nn.Module:
        network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.ReLU())
        drawn.append(network[1].weight.detach().clone())
        return network

    report = audit(small, digits[:1], precisions=["16", "32", "64"], draws=2)
    first, second = drawn  # each draw once, for all precisions
    assert not torch.equal(first, second)
    for points in (report.points[0::2], report.points[1::2]):
        assert points[0].loss == pytest.approx(points[2].loss, rel=1e-2)
        assert points[1].loss == pytest.approx(points[2].loss, rel=1e-6)


def test_random_state_is_left_alone(digits: list[Batch]) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    audit(Dropping, digits, selections=["random:7"], seed=11, draws=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_module_is_left_alone(digits: list[Batch]) -> None:
    network = lenet(batch_norm=True)
    network.classifier.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    audit(network, digits, precisions=["16", "32"], layers=True)
    after = network.state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert value.dtype == after[key].dtype
        assert torch.equal(value, after[key])
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is None for parameter in network.parameters())


# --- what is refused ----------------------------------------------------------------------------


def fails() -> nn.Module:
    raise ValueError("no\nweights")


class FailsForward(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        raise ValueError("no\nforward")


class Detached(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).detach()


class Overwriting(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).exp().mul_(2).exp().add_(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precisions": ["8"]}, "unknown precision '8'"),
        ({"precisions": []}, "precisions: at least one"),
        ({"selections": ["foo"]}, "unknown selection 'foo'"),
        ({"selections": []}, "selections: at least one"),
        ({"reference": "foo"}, "unknown selection 'foo'"),
        ({"operations": ["foo"]}, "unknown operation 'foo'; accepted: .*max_pool2d.*relu"),
        ({"operations": ["norm_pool"]}, "no site of norm_pool; the network has relu"),
        ({"operations": ["max_pool"], "selections": ["branch:1"]}, "max_pool has no selection"),
        ({"draws": 0}, "draws: must be at least 1, not 0"),
        ({"draws": 2}, "draws: 2 parameter draws need a function"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"batches": []}, "batches: at least one"),
        ({"network": fails}, "network: fails failed: ValueError: no weights"),
        (
            {"network": lambda: 3},
            r"torch.nn.Module, or \(model, batches, step\), not int",
        ),
        ({"network": lambda: FailsForward(2, 2)}, "failed on a batch.*float32, draw 0, batch 0"),
        ({"network": lambda: Detached(2, 2)}, "loss: does not depend on any parameter"),
        ({"network": lambda: Overwriting(2, 2)}, "backward pass failed.*draw 0, batch 0"),
        ({"network": nn.ReLU()}, "loss: does not depend on any parameter"),
        ({"loss": lambda outputs, _: outputs}, "loss: must be a single number"),
        ({"loss": lambda *_: 1.0}, "loss: must be a single number"),
    ],
)
def test_what_cannot_be_audited_is_said_in_one_line(
    arguments: dict[str, Any], message: str
) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    batches = [(torch.ones(3, 2), torch.tensor([0, 1, 0]))]
    with pytest.raises(InputError, match=message) as error:
        audit(**{"network": network, "batches": batches, **arguments})
    assert "\n" not in str(error.value)


# --- report -------------------------------------------------------------------------------------


def typed(value: Any) -> Any:
    """The keys and types of a JSON value; a list stands for its entries, which are all alike."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        kinds = [typed(item) for item in value]
        assert all(kind == kinds[0] for kind in kinds)
        return kinds[:1]
    return type(value).__name__


def test_json_has_the_documented_keys_and_types(digits: list[Batch]) -> None:
    class Rooted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lenet = lenet()

        def forward(self, x: Tensor) -> Tensor:
            return self.lenet(x).exp().sqrt()

    report = audit(Rooted, digits, layers=True, network_name="mine", data_name="digits", seed=4)
    written = json.loads(json.dumps(report.to_json(), allow_nan=False))
    rest = {key: value for key, value in written.items() if key != "digest"}
    digest = sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    (summary,), picture = written.pop("summary"), written.pop("ties_picture")
    assert summary["variation"].keys() == {"min", "median", "max", "left_out"}
    assert (picture["precision"], picture["layer"]) == ("float32", "lenet.features.2")
    standing = {  # undecided: of a square root kinkcheck knows no kinks
        "kind": "str",
        "ties": "int",
        "flat": "int",
        "kinks": "int",
        "rows": "NoneType",
        "seed": "int",
        "along": [],
        "weights": [],
        "distance": "NoneType",
        "excess": "NoneType",
        "why": "str",
        "samples": "NoneType",
        "exact": "NoneType",
        "lifted": "bool",
    }
    assert typed(written) == {
        "schema": "str",
        "digest": "str",
        "kinkcheck": "str",
        "torch": "str",
        "device": "str",
        "network": "str",
        "data": "str",
        "seed": "int",
        "reference": "str",
        "selections": ["str"],
        "points": [
            {
                "precision": "str",
                "draw": "int",
                "batch": "int",
                "selection": "str",
                "loss": "float",
                "gradient_l1": "float",
                "variation": {
                    "l1": "float",
                    "l2": "float",
                    "linf": "float",
                    "linf_by_tensor": "float",
                    "relative_l1": "float",
                },
                "zone": "str",
                "zone_by_threshold": "str",
                "lift": {
                    "precision": "str",
                    "variation_l1": "float",
                    "noise_l1": "float",
                    "ratio": "float",
                    "error_reference_l1": "float",
                    "error_selection_l1": "float",
                },
                "noise": {
                    "l1": "float",
                    "l2": "float",
                    "linf": "float",
                    "linf_by_tensor": "float",
                    "relative_l1": "float",
                },
                "non_finite_layer": "NoneType",
                "non_finite_operation": "NoneType",
                "non_finite_lifted": "NoneType",
                "standing": standing,
                "reference_standing": standing,
            }
        ],
        "sites": [
            {
                "precision": "str",
                "layer": "str",
                "operation": "str",
                "call": "int",
                "windows": "int",
                "tied": "int",
                "tied_at_zero": "int",
                "variation_l1": "float",
                "dead": "int",
                "exact": "int",
                "rounding": "int",
                "lift_variation_l1": "float",
                "cause_unknown": "int",
                "converts": "bool",
                "form": "str",
            }
        ],
        "unseen": [
            {
                "layer": "str",
                "operation": "str",
                "reason": "str",
                "calls": "int",
                "elements": "NoneType",
                "on_jump": "NoneType",
            }
        ],
        "operations": "NoneType",
        "left_out": [],
        "verdict": "str",
        "settings": "NoneType",
        "batches": "int",
        "batch_size": "int",
        "date": "str",
        "command": "NoneType",
    }
    head = {key: value for key, value in written.items() if not isinstance(value, list)}
    assert head.pop("verdict").startswith("Undecided at 2 of 2 points")
    assert head.pop("date") is not None
    assert head == {
        "digest": digest,
        "schema": "kinkcheck.audit/3",
        "kinkcheck": "0.1.0",
        "torch": torch.__version__,
        "device": "cpu",
        "network": "mine",
        "data": "digits",
        "seed": 4,
        "reference": "native",
        "operations": None,
        "settings": None,
        "batches": 2,
        "batch_size": len(digits[0][1]),
        "command": None,
    }
    assert written["selections"] == ["minimal"]


def test_numbers_that_json_lacks_are_strings_and_unknown_ones_null() -> None:
    variation = Variation(math.inf, -math.inf, math.nan, 0.0, math.nan)
    point = Point("float16", 0, 0, "minimal", 1.0, math.nan, variation)
    site = SiteCount("float16", "a", "relu", 0, 1, 1, 1, None)
    unseen = UnseenCount("b", "abs", "why", 1)
    report = AuditReport(*"abcde", 0, "native", ["minimal"], [point], [site], [unseen])
    written = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert written["points"][0]["gradient_l1"] == "nan"
    assert written["points"][0]["variation"] == {
        "l1": "inf", "l2": "-inf", "linf": "nan", "linf_by_tensor": 0.0, "relative_l1": "nan",
    }  # fmt: skip
    assert written["sites"][0]["variation_l1"] is None


def test_names_are_those_of_the_network_unless_given(digits: list[Batch]) -> None:
    named: Callable[[], nn.Module] = lenet
    assert audit(lenet(), digits[:1]).network == "LeNet5"
    assert audit(named, digits[:1]).network == "lenet"


# --- what the issue promises of real data -------------------------------------------------------


def test_variation_and_ties_on_mnist_have_the_known_size(data_dir: Path) -> None:
    images = data.load("mnist", "train", data_dir=data_dir)
    batches = images.batches(128, seed=0)
    report = audit(
        lenet, [next(batches), next(batches)], precisions=["16", "32", "64"], data_name="mnist"
    )
    expected = {"float16": (3e-4, 3e-2), "float32": (3e-8, 3e-6), "float64": (3e-17, 3e-15)}
    for point in report.points:
        low, high = expected[point.precision]
        assert low < point.variation.l1 < high
    first = [site for site in report.sites if site.layer == "features.2"]
    assert len(first) == 3
    for site in first:
        assert site.windows == 2 * 128 * 6 * 12 * 12
        assert site.tied / site.windows == pytest.approx(0.61, abs=0.06)
        assert site.tied_at_zero / site.windows == pytest.approx(0.41, abs=0.05)


class Witness(torch.autograd.Function):
    """The identity, whose node in the graph holds an object that can be watched."""

    alive: ClassVar[list[weakref.ref[Any]]] = []

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.held = type("Held", (), {})()
        Witness.alive.append(weakref.ref(ctx.held))
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class Witnessed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = networks.build("lenet5", in_channels=1, classes=10, image_size=28)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(Witness.apply(x.clone().requires_grad_()))
        return out


@pytest.mark.parametrize("lifted", [False, True])
def test_graphs_are_freed_as_points_end(digits: list[Batch], lifted: bool) -> None:
    """At once, and not when Python next looks for circles: a graph can be gigabytes."""
    Witness.alive.clear()
    left = []

    def count(done: int, total: int) -> None:
        left.append(sum(held() is not None for held in Witness.alive))

    gc.collect()
    gc.disable()
    try:
        audit(
            Witnessed(), 2 * digits, selections=["minimal", "first"], lifted=lifted, on_point=count
        )
    finally:
        gc.enable()
    assert len(left) == 4
    assert max(left) <= 1  # PyTorch may hold the last one


class Highest(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).amax(-1)


def test_what_a_selection_amplifies_is_rounding() -> None:
    """PyTorch's amax has equal shares, so that every hybrid is native over the reals."""
    report = audit(
        Highest(), [(torch.ones(2, 3), torch.zeros(2))], loss=nn.functional.mse_loss,
        precisions=["float16", "float32", "float64"], selections=["hybrid:10000"],
    )  # fmt: skip
    assert {point.zone for point in report.points} == {Zone.COMPENSATION}
