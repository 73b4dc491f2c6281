"""One trial: against the plain PyTorch loop, under divergence, with separate random streams."""

from __future__ import annotations

import io
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kinkcheck
from kinkcheck import data, networks
from kinkcheck import nn as knn
from kinkcheck.arithmetic import precision
from kinkcheck.data import ImageSet
from kinkcheck.errors import InputError
from kinkcheck.measure.finite import first_layer
from kinkcheck.study import model, spec, trial
from kinkcheck.study.classification import ImageClassification
from kinkcheck.study.determinism import deterministic
from kinkcheck.study.divergence import distance
from kinkcheck.study.executor import Inline
from kinkcheck.study.feed import Feed, ResidentFeed, digest
from kinkcheck.study.job import EpochEnd, Event, Job, Outcome, Record
from kinkcheck.study.learner import Broken, Learner
from kinkcheck.study.probe import Ties, probe
from kinkcheck.study.settings import Classification, Settings
from kinkcheck.study.streams import stream

BASE = """
data = "mnist-sample"
train_images = 200
test_images = 100
network = "lenet5"
seeds = 1
learning_rate = 0.05
epochs = 3
batch_size = 64
"""


def settings(**changes: Any) -> Settings:
    (found,) = spec.parse(BASE, "trial.toml").trials()
    of_task = {key: changes.pop(key) for key in ("network", "batch_norm") if key in changes}
    return replace(found, **changes, task=replace(found.task, **of_task))


def task_of(found: Settings, digits: ImageSet) -> ImageClassification:
    assert isinstance(found.task, Classification)
    return ImageClassification(found.task, digits, digits, "")


def built(found: Settings, digits: ImageSet) -> nn.Module:
    return model.build(found, task_of(found, digits), "cpu")


def learning(found: Settings, digits: ImageSet, rate: float) -> Learner:
    return Learner(built(found, digits), task_of(found, digits), found, rate)


def job(found: Settings, **changes: Any) -> Job:
    rate = found.learning_rate
    assert rate is not None
    return Job(found.id, found, rate, None, "cpu", 1, **changes)


def train(found: Settings) -> tuple[list[Record], Outcome]:
    return split(list(trial.train(job(found))))


def split(events: list[Event]) -> tuple[list[Record], Outcome]:
    outcome = events[-1]
    assert isinstance(outcome, Outcome)
    return [event.record for event in events if isinstance(event, EpochEnd)], outcome


def state(events: list[Event]) -> dict[str, Any]:
    """The last checkpoint."""
    last = [event for event in events if isinstance(event, EpochEnd)][-1].state
    kept: dict[str, Any] = torch.load(io.BytesIO(last), weights_only=True)
    return kept


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return data.load("mnist-sample").take(200)


# --- against plain PyTorch -----------------------------------------------------------------------


def plain_loop(found: Settings, digits: ImageSet) -> tuple[nn.Module, list[float]]:
    """The trial as a page of ordinary PyTorch: torch.nn's modules, native derivatives."""
    torch.manual_seed(stream(found.init_seed, "init"))
    assert isinstance(found.task, Classification)
    network = networks.build(
        "lenet5", in_channels=1, classes=10, image_size=28, batch_norm=found.task.batch_norm
    )
    held = {"float16": torch.float16, "float64": torch.float64}.get(found.precision, torch.float32)
    network = network.to(held).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer: torch.optim.Optimizer
    if found.optimizer == "adam":
        optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    else:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=found.epochs)
    scaler = torch.amp.GradScaler("cpu", enabled=found.precision == "mixed")
    pixels = ((digits.images.float() / 255 - 0.5) / 0.5).to(held)
    half = found.precision in ("float16", "mixed")
    losses = []
    for epoch in range(1, found.epochs + 1):
        network.train()
        generator = torch.Generator().manual_seed(stream(found.order_seed, "order", epoch))
        total = 0.0
        for chosen in torch.randperm(len(digits), generator=generator).split(found.batch_size):
            x, y = pixels[chosen], digits.labels[chosen]
            optimizer.zero_grad()
            with kinkcheck.float32_contractions() if half else nullcontext():
                with torch.autocast("cpu", torch.float16, enabled=found.precision == "mixed"):
                    loss = F.cross_entropy(network(x), y)
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
            total += loss.item() * len(y)
        schedule.step()
        losses.append(total / len(digits))
    return network, losses


@pytest.mark.parametrize("held", ["float16", "float32", "float64", "mixed"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_trial_is_the_plain_loop_bit_for_bit(
    digits: ImageSet, held: str, optimizer: str, batch_norm: bool
) -> None:
    if held == "float16" and optimizer == "adam":
        pytest.skip("Adam divides 0 by 0 in float16; see the next test")
    sgd = optimizer == "sgd"
    found = settings(
        precision=held, optimizer=optimizer, batch_norm=batch_norm,
        momentum=0.9 if sgd else 0.0, weight_decay=5e-4 if sgd else 0.0,
    )  # fmt: skip
    events = list(trial.train(job(found)))
    records, outcome = split(events)
    network, losses = plain_loop(found, digits)
    assert outcome == Outcome("finished")
    assert [record.train.loss for record in records] == losses
    trained = state(events)["networks"][0]["model"]
    expected = network.state_dict()
    assert trained.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(trained[name], tensor), name


def test_adam_diverges_at_float16_as_the_warning_says() -> None:
    _, outcome = train(settings(precision="float16", optimizer="adam"))
    assert outcome.state == "diverged"


def test_loss_and_accuracy_are_those_of_the_test_set(digits: ImageSet) -> None:
    found = settings(epochs=1)
    events = list(trial.train(job(found)))
    (record,), _ = split(events)
    network = networks.build("lenet5", in_channels=1, classes=10, image_size=28)
    network.load_state_dict(state(events)["networks"][0]["model"])
    test = data.load("mnist-sample", "test").take(100)
    with torch.no_grad():
        scores = network.eval()(test.normalise(test.images)).double()
    assert record.test.value == (scores.argmax(1) == test.labels).double().mean().item()
    assert record.test.loss == pytest.approx(F.cross_entropy(scores, test.labels).item(), rel=1e-5)


# --- data ----------------------------------------------------------------------------------------


def test_batches_are_those_of_the_data_set(data_dir: Any) -> None:
    images = data.load("cifar10", "test", data_dir=data_dir).take(100)
    feed = ResidentFeed(images, precision.parse("16"), "cpu", True)
    batches = list(feed.epoch(30, 2, order_seed=5, augment_seed=6))
    assert [samples for _, samples in batches] == [30, 30, 30, 10]
    order = torch.randperm(100, generator=torch.Generator().manual_seed(stream(5, "order", 2)))
    draws = torch.Generator().manual_seed(stream(6, "augment", 2))
    for ((x, y), _), chosen in zip(batches, order.split(30), strict=True):
        assert torch.equal(y, images.labels[chosen])
        augmented = data.crop_and_flip(images.images[chosen], draws)
        assert torch.equal(x, images.normalise(augmented).half())


@pytest.mark.parametrize("keeps", [True, False])
def test_what_is_not_augmented_is_the_same_from_bytes_and_kept(
    digits: ImageSet, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not keeps:
        monkeypatch.setattr("kinkcheck.study.feed._KEPT_NORMALISED", 0)
    feed: Feed = ResidentFeed(digits, precision.parse("32"), "cpu", False)
    x = torch.cat([x for (x, _), _ in feed.in_order(64)])
    assert torch.equal(x, digits.normalise(digits.images))


def test_a_digest_sees_pixels_and_labels(digits: ImageSet) -> None:
    images, labels = digits.images.clone(), digits.labels.clone()
    images[7, 0, 3, 3] += 1
    labels[9] = (labels[9] + 1) % 10
    found = {
        digest(changed)
        for changed in (digits, replace(digits, images=images), replace(digits, labels=labels))
    }
    assert len(found) == 3


# --- random streams ------------------------------------------------------------------------------


def test_streams_are_separate() -> None:
    def first_loss_and_weights(**seeds: int) -> tuple[float, Tensor]:
        run = trial._Run(job(settings(**seeds)), lambda beat: None)
        weights = next(run._learners[0].model.parameters()).detach().clone()
        batches = run._train.epoch(64, 1, run.job.settings.order_seed, 0)
        (x, _), _ = next(batches)
        return float(x.sum()), weights

    order, weights = first_loss_and_weights()
    other_order, same_weights = first_loss_and_weights(order_seed=1)
    same_order, other_weights = first_loss_and_weights(init_seed=1)
    assert torch.equal(weights, same_weights)
    assert not torch.equal(weights, other_weights)
    assert order == same_order != other_order


def test_every_selection_and_precision_starts_from_the_same_parameters(digits: ImageSet) -> None:
    parameters = [
        next(built(found, digits).parameters())
        for found in (
            settings(selections={"max_pool": "hybrid:10"}),
            settings(selections={"max_pool": "last", "relu": "branch:1"}),
            settings(forward="compound", selections={"max_pool": "hybrid:10"}),
            settings(precision="float64"),
        )
    ]
    for other in parameters[1:]:
        assert torch.equal(parameters[0].double(), other.double())


def test_the_probe_does_not_move_the_run() -> None:
    def losses(probe: bool) -> list[tuple[float, float]]:
        records, _ = train(settings(batch_norm=True, probe=probe))
        return [(record.train.loss, record.test.loss) for record in records]

    assert losses(True) == losses(False)


@pytest.mark.parametrize("pool", [knn.MaxPool2d(2), knn.CompoundMaxPool2d(10.0, 2)])
def test_ties_are_counted_over_all_calls_of_a_pool(pool: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), pool, pool)
    x = torch.zeros(1, 1, 4, 4)
    x[..., :2, 0] = 1.0  # the first call has a tie of two ones, and three of four zeros
    with torch.no_grad():
        network[0].weight.fill_(1.0)
    found = probe(network, lambda: network(x).sum(), precision.parse("32"))
    assert found.ties == (Ties("1", windows=4 + 1, tied=4 + 0),)


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    train(settings(epochs=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


class Dropping(nn.Module):
    """A network that draws in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(784, 10))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x)
        return output


class Raising(Dropping):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("first\nsecond")


class Squared(Dropping):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * float("inf")


def test_dropout_is_drawn_again_after_a_restart() -> None:
    found = settings(network=f"{__name__}:Dropping")
    whole = list(trial.train(job(found)))
    middle = [event for event in whole if isinstance(event, EpochEnd)][1]
    torch.rand(17)  # whatever the process draws besides
    rest = list(trial.train(job(found, state=middle.state)))
    assert without_seconds(split(whole)[0][2:]) == without_seconds(split(rest)[0])


def test_a_trial_that_was_stopped_early_stays_stopped() -> None:
    # Killed after its last epoch was kept and before its end was.
    found = settings(epochs=5)
    stopping = job(found, stop=lambda values: len(values) == 2)
    whole = list(trial.train(stopping))
    last = [event for event in whole if isinstance(event, EpochEnd)][-1]
    assert last.record.epoch == 2
    again = replace(stopping, state=last.state, values=(0.1, 0.2))
    assert split(list(trial.train(again))) == ([], Outcome("pruned"))


def without_seconds(records: list[Record]) -> list[Record]:
    return [replace(record, seconds=0.0) for record in records]


# --- what can go wrong ---------------------------------------------------------------------------


def test_divergence_is_a_result_with_step_and_layer() -> None:
    found = settings(
        precision="float16", forward="compound", selections={"max_pool": "hybrid:1000000"}
    )
    records, outcome = train(found)
    assert records == []
    assert outcome == Outcome("diverged", 0, "features.2")


def test_a_step_too_long_breaks_a_parameter() -> None:
    _, outcome = train(settings(learning_rate=1e30))
    assert outcome.state == "diverged"
    assert outcome.step is not None
    assert outcome.step >= 1
    assert outcome.layer


def test_a_parameter_that_breaks_in_the_last_step_is_noticed(digits: ImageSet) -> None:
    found = settings()
    learner = learning(found, digits, 0.05)
    learner.begin_epoch()
    learner.step((digits.normalise(digits.images[:64]), digits.labels[:64]), 64)
    with torch.no_grad():
        learner.model.classifier[3].bias[0] = math.inf  # type: ignore[index, union-attr]
    learner.end_epoch()
    assert learner.diverged
    assert learner.broken == Broken(1, "classifier.3")


@pytest.mark.parametrize(("held", "goes_on"), [("mixed", True), ("float32", False)])
def test_loss_scaling_skips_a_step_that_is_not_finite(
    digits: ImageSet, held: str, goes_on: bool
) -> None:
    found = settings(precision=held)
    learner = learning(found, digits, 0.05)
    x, y = digits.normalise(digits.images[:64]), digits.labels[:64]
    learner.begin_epoch()
    learner.step((x, y), 64)
    before = [parameter.clone() for parameter in learner.model.parameters()]
    learner.step((torch.full_like(x, math.inf), y), 64)
    assert all(map(torch.equal, before, learner.model.parameters()))
    learner.step((x, y), 64)
    learner.end_epoch()
    assert learner.broken == Broken(1, "features.0")
    assert learner.diverged is not goes_on
    moved = not all(map(torch.equal, before, learner.model.parameters()))
    assert moved is goes_on


def test_the_layer_is_the_first_whose_output_is_not_finite() -> None:
    class Times(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    network = nn.Sequential(Times(10.0), nn.Sequential(Times(1e4), nn.ReLU()), Times(0.0))
    x = torch.full((1, 2), 10.0, dtype=torch.float16)
    assert first_layer(network, lambda: network(x)) == "1.0"
    assert first_layer(network, lambda: network(x / 100)) == "loss"


def test_an_exception_is_an_outcome_in_one_line() -> None:
    found = settings(network=f"{__name__}:Raising")
    events = [event for _, event in Inline().run([job(found)], lambda job, beat: None)]
    assert events[-1] == Outcome("failed", reason="ValueError: first second")


def test_bad_input_is_raised() -> None:
    found = settings(network="mlp", selections={"max_pool": "minimal"})
    with pytest.raises(InputError, match="max_pool: the model has no max_pool module"):
        list(Inline().run([job(found)], lambda job, beat: None))
    with pytest.raises(InputError, match="forward: compound needs"):
        list(trial.train(job(settings(network="mlp", forward="compound"))))


def test_an_assigned_backward_returns_alpha_itself(digits: ImageSet) -> None:
    chosen = {"relu": "branch:0.5"}
    for backward, expected in (("exact", 0.5e-3), ("assigned", 0.5)):
        network = built(settings(selections=chosen, backward=backward), digits)
        relus = [each for each in network.modules() if "ReLU" in type(each).__name__]
        assert len(relus) == 4
        for relu in relus:
            x = torch.zeros(1, requires_grad=True)
            (1e-3 * relu(x)).sum().backward()
            assert x.grad is not None
            assert x.grad.item() == pytest.approx(expected)
    with pytest.raises(InputError, match="backward: assigned needs"):
        built(settings(network="torch.nn:Identity", backward="assigned"), digits)


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        ({}, knn.ReLU, {"relu", "same_relu"}),
        ({"backward": "assigned"}, knn.AssignedReLU, {"relu", "same_relu"}),
        ({}, knn.MaxPool2d, {"pool", "same_pool"}),
        ({"forward": "compound"}, knn.CompoundMaxPool2d, {"pool", "same_pool"}),
    ],
)
def test_published_programs_are_where_selections_are(
    digits: ImageSet,
    tmp_path: Path,
    changes: dict[str, str],
    kind: type[nn.Module],
    expected: set[str],
) -> None:
    """Under every name of a layer, and not in place of what a user made of one."""
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "class Shifted(nn.ReLU):\n"
        "    def forward(self, x):\n        return super().forward(x) - 1\n"
        "class Scaled(nn.MaxPool2d):\n"
        "    def forward(self, x):\n        return 2 * super().forward(x)\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.relu = self.same_relu = nn.ReLU()\n"
        "        self.pool = self.same_pool = nn.MaxPool2d(2)\n"
        "        self.own_relu, self.own_pool = Shifted(), Scaled(2)\n"
    )
    found = settings(
        network=f"{tmp_path / 'nets.py'}:Net",
        selections={"relu": "branch:0.5", "max_pool": "hybrid:10"},
        **changes,
    )
    layers = built(found, digits)._modules
    assert {name for name, layer in layers.items() if isinstance(layer, kind)} == expected


def test_an_assigned_zero_trains_as_the_derivative_does() -> None:
    found = settings(selections={"relu": "branch:0"})
    exact, _ = train(found)
    assigned, _ = train(replace(found, backward="assigned"))
    assert without_seconds(exact) == without_seconds(assigned)


def test_compound_and_exact_agree_where_the_formula_is_exact() -> None:
    exact, _ = train(settings(selections={"max_pool": "hybrid:0"}))
    compound, _ = train(settings(selections={"max_pool": "hybrid:0"}, forward="compound"))
    assert without_seconds(exact) == without_seconds(compound)


def test_gradients_are_clipped_if_asked(digits: ImageSet) -> None:
    found = settings(clip_norm=1e-3, momentum=0.0, weight_decay=0.0)
    learner = learning(found, digits, 1.0)
    before = [parameter.clone() for parameter in learner.model.parameters()]
    learner.begin_epoch()
    learner.step((digits.normalise(digits.images[:64]), digits.labels[:64]), 64)
    moved = torch.stack(
        [(p - q).norm() for p, q in zip(learner.model.parameters(), before, strict=True)]
    )
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)


# --- weight divergence ---------------------------------------------------------------------------


def test_networks_start_equal_and_the_control_stays_equal(digits: ImageSet) -> None:
    selections = ("hybrid:0", "hybrid:100", "hybrid:0")
    found = settings(
        experiment="weight-divergence", networks=selections, momentum=0.0, weight_decay=0.0
    )
    events = list(trial.train(job(found)))
    records, outcome = split(events)
    assert outcome == Outcome("finished")
    assert [record.epoch for record in records] == [0, 1, 2, 3]
    known = [math.isfinite(number) for number in records[0].train.numbers().values()]
    assert known == [False, False]  # nothing was trained before it
    table = [[d.l1 for d in record.distances] for record in records]
    assert table[0] == [0.0, 0.0, 0.0]
    assert all(row[0] == row[2] == 0.0 < row[1] for row in table[1:])

    # Network 1 is what it would be alone, and the distance is the sum over its parameters.
    alone = list(
        trial.train(job(replace(found, networks=(), selections={"max_pool": "hybrid:100"})))
    )
    single = state(alone)["networks"][0]["model"]
    together = state(events)["networks"]
    assert all(torch.equal(single[name], together[1]["model"][name]) for name in single)
    by_hand = sum(
        float((together[0]["model"][n].double() - single[n].double()).abs().sum()) for n in single
    )
    assert table[-1][1] == pytest.approx(by_hand, rel=1e-12)


def test_a_network_that_diverges_does_not_stop_the_others() -> None:
    found = settings(
        experiment="weight-divergence", networks=("hybrid:0", "hybrid:1000000"),
        forward="compound", precision="float16", learning_rate=0.01,
    )  # fmt: skip
    records, outcome = train(found)
    assert outcome == Outcome("finished")
    first, second = records[-1].distances
    assert first.diverged_step is None
    assert (second.diverged_step, second.diverged_layer) == (0, "features.2")
    assert math.isfinite(second.l1)  # its parameters stayed where they were


def test_distance_is_symmetric_and_zero_on_itself() -> None:
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    assert distance(one, one) == 0.0
    assert distance(one, other) == distance(other, one) > 0.0


def test_determinism_is_put_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), deterministic("cpu", 1, 0):
        1 / 0  # noqa: B018
    assert not torch.are_deterministic_algorithms_enabled()
