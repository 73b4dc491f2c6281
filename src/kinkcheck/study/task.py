"""What a study trains: data, a network, a step, and what the trials are judged by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence, Sized
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from kinkcheck.arithmetic.precision import Precision
from kinkcheck.errors import one_line
from kinkcheck.measure.batch import moved
from kinkcheck.study.criteria import Criterion, Metric, TaskError
from kinkcheck.study.feed import Feed, SampleFeed, digest_of_samples

Results: TypeAlias = Tensor | tuple[Tensor, ...]


class Task(ABC):
    """What a study trains; a spec names a subclass, or a function that returns an instance.

    Attributes:
        train, test: the samples, each with a length and ``[number]``: a list, say, or a
            :class:`torch.utils.data.Dataset`. What they draw at random they draw with PyTorch.
        metrics: what trials are judged by. The first decides: learning rates are searched for, and
            configurations are compared, by its value on the test samples.
        test_batch: samples of a mini-batch where nothing is trained.

    >>> from kinkcheck.arithmetic import precision
    >>> class Line(Task):
    ...     train = [(torch.tensor([x / 8]), torch.tensor([abs(x / 8)])) for x in range(-8, 9)]
    ...     test = train[::2]
    ...     metrics = (Metric("error", lambda each: each.abs().mean(), larger_is_better=False),)
    ...
    ...     def network(self):
    ...         return nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))
    ...
    ...     def step(self, model, batch):
    ...         x, y = batch
    ...         error = model(x) - y
    ...         return error.square().mean(), error
    >>> line = Line()
    >>> feed = line.feed("test", precision.parse("16"), "cpu")
    >>> for (x, y), samples in feed.in_order(line.test_batch):
    ...     x.shape, x.dtype, samples
    (torch.Size([9, 1]), torch.float16, 9)
    """

    train: Sized
    test: Sized
    metrics: Sequence[Metric]
    test_batch: int = 500

    @abstractmethod
    def network(self) -> nn.Module:
        """A new network, whose parameters PyTorch's global generator draws, in float32."""

    @abstractmethod
    def step(self, model: nn.Module, batch: Any) -> tuple[Tensor, Results]:
        """What is differentiated, and what the metrics are computed from.

        It is called in training and in testing, the latter without gradients.

        Args:
            model: the network, with its selections; more than one device needs it to be called
                with tensors that have a sample in each entry of dimension 0, and to return such.
            batch: what :meth:`collate` made of some samples, in the precision that is studied.

        Returns:
            The loss, a mean over the samples; and a tensor, or several, with a row for each sample
            or for each of whatever is counted.
        """

    def collate(self, samples: list[Any]) -> Any:
        """A mini-batch of some samples; by default as a ``DataLoader`` does it."""
        return default_collate(samples)

    def cast(self, batch: Any, dtype: torch.dtype) -> Any:
        """A mini-batch in a precision; by default every floating-point tensor in it is cast."""
        return moved(batch, lambda each: each.to(dtype) if each.is_floating_point() else each)

    def feed(self, part: str, held: Precision, device: torch.device | str) -> Feed:
        """The mini-batches of a part, ``train`` or ``test``, in a precision, on a device."""
        return SampleFeed(
            getattr(self, part),
            self.collate,
            lambda batch: moved(self.cast(batch, held.storage), lambda each: each.to(device)),
        )

    def digests(self) -> dict[str, str]:
        """A digest of each part, by name: a study goes on with equal ones alone."""
        return {
            part: digest_of_samples(getattr(self, part), self.collate) for part in ("train", "test")
        }

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """What trials are judged by, without the functions."""
        return tuple(metric.criterion for metric in self.metrics)


def forward(task: Task, model: nn.Module, batch: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A step, of which nothing is differentiated yet: the loss, and a tuple of what is judged.

    Raises:
        TaskError: the step returns something else.
    """
    made = task.step(model, batch)
    if not isinstance(made, tuple) or len(made) != 2:
        raise TaskError(f"the step must return the loss and a tensor, not {_kind(made)}")
    loss, results = made
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
        raise TaskError(f"the step must return a loss of one number, not {_kind(loss)}")
    rows = results if isinstance(results, tuple) else (results,)
    for each in rows:
        if not isinstance(each, Tensor) or not each.dim():
            raise TaskError(
                f"the step must return a row a sample beside the loss, not {_kind(each)}"
            )
    return loss, tuple(each.detach() for each in rows)


def joined(results: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What several steps found, as a metric takes it.

    Raises:
        TaskError: they do not go together.

    >>> joined([(torch.zeros(2),), (torch.ones(1),)])
    (tensor([0., 0., 1.]),)
    """
    try:
        return tuple(torch.cat(each) for each in zip(*results, strict=True))
    except (RuntimeError, ValueError) as error:
        raise TaskError(f"what the steps return cannot be joined: {one_line(error)}") from error


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    of = f" of {len(value)}" if isinstance(value, tuple) else ""
    return f"{type(value).__name__}{of}"
