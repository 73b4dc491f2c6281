"""The task that a trial's settings name, made again wherever the trial is trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kinkcheck.arithmetic import precision
from kinkcheck.errors import InputError, blaming
from kinkcheck.named import load_named, source_of
from kinkcheck.study.classification import classification
from kinkcheck.study.criteria import Metric, TaskError
from kinkcheck.study.feed import Batches
from kinkcheck.study.settings import Classification, Factory
from kinkcheck.study.task import Task, forward, joined


def task_of(named: Classification | Factory, data_dir: str | None, folder: str) -> Task:
    """The task of a trial.

    Args:
        named: as the trial's settings name it.
        data_dir: see :func:`kinkcheck.data.load`.
        folder: of the spec, from which the paths of the user's files are told.

    Raises:
        InputError: images cannot be loaded; a user's own is not there, cannot be made, is something
            else, or its file has changed since the spec was read.

    >>> from kinkcheck.study.spec import shipped
    >>> len(task_of(shipped("smoke").trials()[0].task, None, "").test)
    256
    """
    if isinstance(named, Classification):
        return classification(named, data_dir, folder)
    return _own_task(named, folder)


@lru_cache(maxsize=4)
def _own_task(named: Factory, folder: str) -> Task:
    """The task that a spec names; it is made once in a process."""
    source = source_of(named.factory, "task", Path(folder))
    if hashlib.sha256(source).hexdigest() != named.digest:
        raise InputError(f"task: the file of {named.factory} is not the one that the study has")
    factory = load_named(named.factory, "task", Path(folder))
    if not callable(factory):
        raise InputError(
            f"task: {named.factory} must be a kinkcheck.study.Task or a function that returns one, "
            f"not {type(factory).__name__}"
        )
    with blaming(f"task: {named.factory} failed"):
        task = factory(**json.loads(json.dumps(named.arguments)))  # a list of its own
    if not isinstance(task, Task):
        raise InputError(
            f"task: {named.factory} must return a kinkcheck.study.Task, not {type(task).__name__}"
        )
    _require_attributes(task)
    return task


def _require_attributes(task: Task) -> None:
    kind = type(task).__name__
    for part in ("train", "test"):
        with blaming(f"task: {kind}.{part} cannot be had"):
            samples: Any = getattr(task, part, None)
        if not hasattr(samples, "__len__") or not hasattr(samples, "__getitem__"):
            raise InputError(
                f"task: {kind}.{part} must be samples with a length and [number], "
                f"not {type(samples).__name__}"
            )
        with blaming(f"task: {kind}.{part} has no length"):
            length = len(samples)
        if not length:
            raise InputError(f"task: {kind}.{part} has no samples")
    with blaming(f"task: {kind}.metrics cannot be had"):
        metrics = getattr(task, "metrics", None)
    if not isinstance(metrics, list | tuple) or not metrics:
        raise InputError(f"task: {kind}.metrics must be a list of kinkcheck.study.Metric")
    for metric in metrics:
        if not isinstance(metric, Metric):
            given = type(metric).__name__
            raise InputError(f"task: {kind}.metrics must hold kinkcheck.study.Metric, not {given}")
    names = [metric.name for metric in metrics]
    if len(set(names)) < len(names):
        raise InputError(f"task: {kind}.metrics must have different names, not {', '.join(names)}")


def rehearse(task: Task, batch_size: int) -> None:
    """Take one step of a user's own task, in float32 on the CPU, so that a slip is found at once.

    Args:
        task: the task.
        batch_size: samples of the mini-batch.

    Raises:
        InputError: the network cannot be made, a mini-batch is not what the step takes, or the step
            or a metric returns something else than it should.
    """
    with torch.random.fork_rng(devices=[]), _refusing():
        with blaming("task: the network cannot be made"):
            model = task.network()
        if not isinstance(model, nn.Module):
            raise InputError(f"task: the network must be an nn.Module, not {type(model).__name__}")
        train, test = (
            task.feed(part, precision.parse("32"), "cpu").in_order(size)
            for part, size in (("train", batch_size), ("test", task.test_batch))
        )
        loss, results = _stepped(task, model.train(), train, "train")
        if not loss.requires_grad:
            raise InputError("task: the loss does not depend on a parameter of the network")
        with torch.no_grad():
            _stepped(task, model.eval(), test, "test")
        for metric in task.metrics:
            try:
                metric.value(results)
            except TaskError:
                # A mini-batch may be too little for it; the whole set is not.
                metric.value(_on_test(task, model))


@contextmanager
def _refusing() -> Iterator[None]:
    """What would be a trial's failure is bad input as long as there is no trial."""
    try:
        yield
    except TaskError as error:
        raise InputError(f"task: {error}") from error


def _stepped(
    task: Task, model: nn.Module, batches: Batches, part: str
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What a step finds on the first mini-batch."""
    with blaming(f"task: a mini-batch of {part} cannot be made"):
        batch, _ = next(batches)
    with blaming(f"task: the step cannot take a mini-batch of {part}"), _refusing():
        return forward(task, model, batch)


def _on_test(task: Task, model: nn.Module) -> tuple[Tensor, ...]:
    """What the steps find on the test samples."""
    batches = task.feed("test", precision.parse("32"), "cpu").in_order(task.test_batch)
    with torch.no_grad():
        found = [forward(task, model, batch)[1] for batch, _ in batches]
    return joined(found)
