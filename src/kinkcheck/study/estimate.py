"""What a study will take, before it is started."""

from __future__ import annotations

import io
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from kinkcheck.arithmetic import precision
from kinkcheck.data.catalogue import lookup
from kinkcheck.data.images import ImageSet
from kinkcheck.study import model
from kinkcheck.study.determinism import deterministic
from kinkcheck.study.executor import require_precisions
from kinkcheck.study.feed import load
from kinkcheck.study.learner import Learner
from kinkcheck.study.search import template
from kinkcheck.study.settings import Settings
from kinkcheck.study.spec import Spec

_SHORT = 1.0  # seconds that the measurement of one kind may take for a whole batch
_FEW = 4  # images in the first, careful, measurement; four times as many in the second
_ROW = 400  # bytes that an epoch takes in the tables, with indices


@dataclass(frozen=True)
class Kind:
    """Trials that cost the same for each step.

    Attributes:
        network, batch_norm, precision, optimizer, forward: what they have in common.
        trials: how many there are, candidates of searches included.
        steps: training steps of all of them, times the networks of a weight divergence.
        seconds_a_step: measured on random images: one device's share of a mini-batch, without what
            the devices say to each other; a test image is taken as a third of a training image.
        seconds: for all of them.
        state: bytes of a checkpoint.
    """

    network: str
    batch_norm: bool
    precision: str
    optimizer: str
    forward: str
    trials: int
    steps: int
    seconds_a_step: float
    seconds: float
    state: int


@dataclass(frozen=True)
class Estimate:
    """What a study will take.

    Attributes:
        trials: that count.
        candidates: learning rates that searches try besides.
        kinds: what they cost, by kind.
        disk: bytes: the tables, and two checkpoints of the trial that is running.
        published_sizes: whether the data were not looked at, and their published sizes were taken.
    """

    trials: int
    candidates: int
    kinds: tuple[Kind, ...]
    disk: int
    published_sizes: bool

    @property
    def steps(self) -> int:
        """Training steps of all trials."""
        return sum(kind.steps for kind in self.kinds)

    @property
    def seconds(self) -> float:
        """For all trials, one after the other."""
        return sum(kind.seconds for kind in self.kinds)


def estimate(
    spec: Spec,
    *,
    data_dir: Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    on_kind: Callable[[int, int], None] = lambda done, total: None,
) -> Estimate:
    """Measure a few steps of each kind of trial, and multiply.

    Args:
        spec: of the study.
        data_dir: where the data are; without it their published sizes are taken, except for
            ``mnist-sample``.
        device: where to train.
        threads: of the CPU; by default PyTorch's number.
        on_kind: called with the number of kinds measured and in all.

    Raises:
        InputError: the data or the network cannot be had.

    >>> from kinkcheck.study.spec import shipped
    >>> found = estimate(shipped("smoke"))
    >>> found.trials, found.steps
    (4, 192)
    """
    trials = spec.trials()
    require_precisions(list(dict.fromkeys(settings.precision for settings in trials)), device)
    searches = {
        template(settings, settings.search).id: template(settings, settings.search)
        for settings in trials
        if settings.search is not None
    }
    candidates = [
        base for base in searches.values() if base.search for _ in range(base.search.trials)
    ]
    train, test = _sizes(trials[0], data_dir)
    by_kind: dict[tuple[object, ...], list[Settings]] = {}
    for settings in (*trials, *candidates):
        by_kind.setdefault(_kind(settings), []).append(settings)
    kinds = []
    for number, alike in enumerate(by_kind.values(), start=1):
        kinds.append(_measure(alike, train, test, device, threads or torch.get_num_threads()))
        on_kind(number, len(by_kind))
    epochs = sum(settings.epochs for settings in (*trials, *candidates))
    return Estimate(
        trials=len(trials),
        candidates=len(candidates),
        kinds=tuple(kinds),
        disk=2 * max(kind.state for kind in kinds) + _ROW * (4 * epochs + len(trials)),
        published_sizes=not _looked_at(trials[0], data_dir),
    )


def _kind(settings: Settings) -> tuple[object, ...]:
    return (
        settings.network,
        settings.batch_norm,
        settings.precision,
        settings.optimizer,
        settings.forward,
    )


def _looked_at(settings: Settings, data_dir: Path | None) -> bool:
    return data_dir is not None or not lookup(settings.data).hub


def _sizes(settings: Settings, data_dir: Path | None) -> tuple[int, int]:
    """Images to train on and to test on."""
    sizes = []
    for split, count in (
        (settings.train_split, settings.train_images),
        (settings.test_split, settings.test_images),
    ):
        if _looked_at(settings, data_dir):
            where = None if data_dir is None else str(data_dir)
            sizes.append(len(load(settings.data, split, count, where)))
        else:
            published = lookup(settings.data).splits[split]
            sizes.append(min(published, count or published))
    return sizes[0], sizes[1]


def _measure(alike: list[Settings], train: int, test: int, device: str, threads: int) -> Kind:
    example = alike[0]
    entry = lookup(example.data)
    images = ImageSet(
        name=entry.name,
        split=example.train_split,
        classes=entry.classes,
        mean=entry.mean,
        std=entry.std,
        images=torch.zeros(1, *entry.shape, dtype=torch.uint8),
        labels=torch.zeros(1, dtype=torch.int64),
    )
    with deterministic(device, threads, 0):
        selection = example.networks[0] if example.networks else None
        network = model.build(example, images, device, selection)
        learner = Learner(network, example, 1e-6)
        learner.begin_epoch()
        a_step = _seconds_a_step(learner, example, entry.shape, entry.classes, device)
        buffer = io.BytesIO()
        torch.save(learner.state(), buffer)
    networks = Counter({settings.id: len(settings.networks) or 1 for settings in alike})
    steps = sum(
        settings.epochs * math.ceil(train / settings.batch_size) * networks[settings.id]
        for settings in alike
    )
    tested = sum(settings.epochs * test * networks[settings.id] for settings in alike)
    return Kind(
        network=example.network,
        batch_norm=example.batch_norm,
        precision=example.precision,
        optimizer=example.optimizer,
        forward=example.forward,
        trials=len(alike),
        steps=steps,
        seconds_a_step=a_step,
        seconds=a_step * (steps + tested / example.batch_size / 3),
        state=len(buffer.getvalue()) * max(networks.values()),
    )


def _seconds_a_step(
    learner: Learner, settings: Settings, shape: tuple[int, int, int], classes: int, device: str
) -> float:
    held = precision.parse(settings.precision)

    def seconds(images: int, times: int) -> float:
        x = held.cast(torch.randn(images, *shape), device)
        y = torch.randint(classes, (images,), device=device)
        measured = []
        for _ in range(times):
            start = time.perf_counter()
            learner.step(x, y)
            if x.is_cuda:
                torch.cuda.synchronize(x.device)
            measured.append(time.perf_counter() - start)
        return min(measured)

    batch = math.ceil(settings.batch_size / settings.devices)
    few, more = min(_FEW, batch), min(4 * _FEW, batch)
    at_few, at_more = seconds(few, 2), seconds(more, 2)
    an_image = max(at_more - at_few, 0.0) / max(more - few, 1)
    whole = at_more + an_image * (batch - more)
    return seconds(batch, 3) if whole < _SHORT else whole
