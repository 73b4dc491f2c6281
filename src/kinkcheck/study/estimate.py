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
from kinkcheck.arithmetic.precision import require_precisions
from kinkcheck.data.catalogue import lookup
from kinkcheck.errors import blaming
from kinkcheck.ranges import require_threads
from kinkcheck.study import model
from kinkcheck.study.classification import random_classification
from kinkcheck.study.determinism import deterministic
from kinkcheck.study.feed import Feed, image_feed
from kinkcheck.study.learner import Learner
from kinkcheck.study.search import template
from kinkcheck.study.settings import Classification, Settings
from kinkcheck.study.spec import Spec
from kinkcheck.study.task import Task
from kinkcheck.study.tasks import rehearse, task_of

_SHORT = 1.0  # seconds that the measurement of one kind may take for a whole batch
_FEW = 4  # samples in the first, careful, measurement; four times as many in the second
_IMAGES = 2**30  # bytes of random images
_ROW = 400  # bytes that an epoch takes in the tables, with indices


@dataclass(frozen=True)
class Kind:
    """Trials that cost the same for each step.

    Attributes:
        words: what they are called.
        precision, optimizer, forward: what they have in common besides.
        trials: how many there are, candidates of searches included.
        steps: training steps of all of them, times the networks of a weight divergence.
        seconds_a_step: measured: one device's share of a mini-batch, without what the devices say
            to each other; a test sample is taken as a third of a training sample.
        seconds: for all of them.
        state: bytes of a checkpoint.
    """

    words: tuple[str, ...]
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
        random_images: whether steps were measured on random images, and not on the first samples.
        published_sizes: whether the data were not looked at, and their published sizes were taken.
    """

    trials: int
    candidates: int
    kinds: tuple[Kind, ...]
    disk: int
    random_images: bool
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
        InputError: the task, the data or the network cannot be had.

    >>> from kinkcheck.study.spec import shipped
    >>> found = estimate(shipped("smoke"))
    >>> found.trials, found.steps
    (4, 192)
    """
    require_threads(threads)
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
    where = None if data_dir is None else str(data_dir)
    named, folder = trials[0].task, str(spec.folder)
    published = isinstance(named, Classification) and not _looked_at(named, where)
    if isinstance(named, Classification) and published:
        sizes = _published_sizes(named)
    else:
        task = task_of(named, where, folder)
        sizes = len(task.train), len(task.test)
        if not isinstance(named, Classification):
            rehearse(task, spec.batch_size)
    by_kind: dict[tuple[object, ...], list[Settings]] = {}
    for settings in (*trials, *candidates):
        by_kind.setdefault(_kind(settings), []).append(settings)
    kinds = []
    for number, alike in enumerate(by_kind.values(), start=1):
        kinds.append(_measure(alike, sizes, folder, device, threads or torch.get_num_threads()))
        on_kind(number, len(by_kind))
    epochs = sum(settings.epochs for settings in (*trials, *candidates))
    return Estimate(
        trials=len(trials),
        candidates=len(candidates),
        kinds=tuple(kinds),
        disk=2 * max(kind.state for kind in kinds) + _ROW * (4 * epochs + len(trials)),
        random_images=isinstance(named, Classification),
        published_sizes=published,
    )


def _kind(settings: Settings) -> tuple[object, ...]:
    return (*settings.task.words, settings.precision, settings.optimizer, settings.forward)


def _looked_at(named: Classification, data_dir: str | None) -> bool:
    return data_dir is not None or not lookup(named.data).hub


def _published_sizes(named: Classification) -> tuple[int, int]:
    """Images to train on and to test on."""
    published = lookup(named.data).splits
    train, test = published[named.train_split], published[named.test_split]
    return min(train, named.train_images or train), min(test, named.test_images or test)


def _measure(
    alike: list[Settings], sizes: tuple[int, int], folder: str, device: str, threads: int
) -> Kind:
    example = alike[0]
    train, test = sizes
    share = min(math.ceil(example.batch_size / example.devices), train)
    with deterministic(device, threads, 0):
        task: Task
        if isinstance(example.task, Classification):
            # A batch of more is never measured whole: see _seconds_a_step.
            most = _IMAGES // math.prod(lookup(example.task.data).shape)
            task = random_classification(example.task, min(share, most), folder)
        else:
            task = task_of(example.task, None, folder)
        selection = example.networks[0] if example.networks else None
        words = " ".join((*example.task.words, example.precision))
        with blaming(f"{words}: the network cannot be made"):
            network = model.build(example, task, device, selection)
        with blaming(f"{words}: a step cannot be taken"):
            learner = Learner(network, task, example, 1e-6)
            learner.begin_epoch()
            feed = task.feed("train", precision.parse(example.precision), device)
            a_step = _seconds_a_step(learner, feed, share)
        image_feed.cache_clear()  # random images are not worth keeping
        buffer = io.BytesIO()
        torch.save(learner.state(), buffer)
    networks = Counter({settings.id: len(settings.networks) or 1 for settings in alike})
    steps = sum(
        settings.epochs * math.ceil(train / settings.batch_size) * networks[settings.id]
        for settings in alike
    )
    tested = sum(settings.epochs * test * networks[settings.id] for settings in alike)
    return Kind(
        words=tuple(example.task.words),
        precision=example.precision,
        optimizer=example.optimizer,
        forward=example.forward,
        trials=len(alike),
        steps=steps,
        seconds_a_step=a_step,
        seconds=a_step * (steps + tested / example.batch_size / 3),
        state=len(buffer.getvalue()) * max(networks.values()),
    )


def _seconds_a_step(learner: Learner, feed: Feed, batch: int) -> float:
    def seconds(samples: int, times: int) -> float:
        drawn = next(feed.in_order(samples))
        measured = []
        for _ in range(times):
            start = time.perf_counter()
            learner.step(*drawn)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            measured.append(time.perf_counter() - start)
        return min(measured)

    few, more = min(_FEW, batch), min(4 * _FEW, batch)
    at_few, at_more = seconds(few, 2), seconds(more, 2)
    a_sample = max(at_more - at_few, 0.0) / max(more - few, 1)
    whole = at_more + a_sample * (batch - more)
    return seconds(batch, 3) if whole < _SHORT else whole
