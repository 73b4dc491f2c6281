"""The monitor: measures every n steps, keeps what it finds, writes it, hands it on."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kinkcheck.errors import InputError
from kinkcheck.measure.runs import Step, pairs
from kinkcheck.measure.standing import Kind
from kinkcheck.monitor.lines import appender
from kinkcheck.monitor.measure import Record, measure
from kinkcheck.ranges import is_whole
from kinkcheck.selection import Selection, parse


class Monitor:
    """Measures a model every n steps of its training, and changes nothing about the training.

    A training with a monitor gives the same parameters as one without, bit for bit. A measurement
    takes as long as one to three training steps; with ``standing`` more.

    Args:
        model: the model that is trained. Of a compiled one, or one in DistributedDataParallel, the
            module inside is measured.
        loss: function of outputs and targets, for batches that are pairs of inputs and targets.
        step: function of the model and a batch that returns the loss, in place of ``loss``.
        every: measure once in so many steps, beginning with the first.
        selections: two selections, between whose gradients the variation is measured.
        standing: also tell whether the gradient under the first selection is right.
        probe: a batch to measure on every time, instead of the batch of the step.
        file: adds a line for each record to this file, ``.jsonl`` or ``.csv``.
        on_record: called with each record, to log it elsewhere.

    Attributes:
        model: the module that is measured.
        steps: steps so far. Set it to go on with a run that was interrupted.
        records: what was found, in order.

    Raises:
        InputError: an argument cannot be used.

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    >>> monitor = Monitor(model, nn.functional.cross_entropy, every=2)
    >>> for _ in range(3):
    ...     _ = monitor.step(torch.ones(2, 1, 6, 6), torch.tensor([0, 1]))
    >>> [(record.step, record.ties[1].rate) for record in monitor.records]
    [(0, 1.0), (2, 1.0)]
    >>> monitor
    <Monitor of Sequential: 2 records in 3 steps, one every 2>
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor] | None = None,
        *,
        step: Step | None = None,
        every: int = 100,
        selections: tuple[str | Selection, str | Selection] = ("native", "minimal"),
        standing: bool = False,
        probe: Any = None,
        file: str | Path | None = None,
        on_record: Callable[[Record], object] | None = None,
    ) -> None:
        if not is_whole(every) or every < 1:
            raise InputError(f"every: must be a whole number of at least 1, not {every!r}")
        if loss is not None and step is not None:
            raise InputError("step: takes the place of loss; give one of them")
        if isinstance(selections, str) or len(selections) != 2:
            raise InputError(f"selections: must be two, not {selections!r}")
        self.model = _bare(model)
        self.steps = 0
        self.records: list[Record] = []
        self._takes_pairs = step is None
        self._step = step if loss is None else pairs(loss)
        self._every = every
        self._selections = parse(selections[0]), parse(selections[1])
        self._standing = standing
        self._probe = probe
        self._file = Path(file) if file is not None else None
        self._append = appender(self._file) if self._file is not None else None
        self._on_record = on_record

    def __repr__(self) -> str:
        counted = f"{len(self.records):,} records in {self.steps:,} steps"
        return f"<Monitor of {type(self.model).__name__}: {counted}, one every {self._every:,}>"

    @property
    def standings(self) -> Counter[Kind]:
        """At how many records the gradient is what."""
        return Counter(each.standing.kind for each in self.records if each.standing is not None)

    def step(self, inputs: Any = None, targets: Any = None) -> Record | None:
        """Count a step, and measure if it is one of those to measure.

        To be called once a step, outside ``backward`` and under the autocast of the run. Before
        ``optimizer.step()`` the record is of the gradient that this step takes.

        Args:
            inputs: the batch, as ``step`` takes it; or what the model is called with. Not needed
                with a probe batch.
            targets: what the loss is called with, after the outputs: the batch is then the pair.

        Returns:
            The record; None if this step is not measured.

        Raises:
            InputError: there is no loss, or neither a batch nor a probe batch.
        """
        step = self._step
        if step is None:
            raise InputError("loss: needed by step(); give Monitor a loss or a step=")
        batch = inputs if targets is None else (inputs, targets)
        if self._probe is not None:
            batch = self._probe
        elif inputs is None:
            raise InputError("inputs: needed by step(), as the monitor has no probe batch")
        if self._takes_pairs and not (isinstance(batch, tuple | list) and len(batch) == 2):
            batch = batch, None  # a loss may do without targets
        model = self.model  # all that the loss refers to is a part of the program
        return self.step_closure(lambda: step(model, batch))

    def step_closure(self, closure: Callable[[], Tensor]) -> Record | None:
        """The same for any loss: ``monitor.step_closure(lambda: model(**batch).loss)``.

        Args:
            closure: calls the model and returns the loss. It is called if the step is measured.

        Returns:
            The record; None if this step is not measured.
        """
        step = self.steps
        self.steps += 1
        if step % self._every:
            return None
        record = measure(self.model, closure, self._selections, step, self._standing)
        self.records.append(record)
        self._write(record)
        if self._on_record is not None:
            self._on_record(record)
        return record

    def _write(self, record: Record) -> None:
        if self._append is None:
            return
        try:
            self._append(record)
        except OSError as error:  # no reason to end a training
            warnings.warn(
                f"monitor: {self._file} cannot be written: {error.strerror}", stacklevel=4
            )


def _bare(model: nn.Module) -> nn.Module:
    """The module that a compiled or a distributed one wraps."""
    while True:
        # torch.compile's module is known by what it wraps: its class is slow to import.
        compiled = getattr(model, "_orig_mod", None)
        if isinstance(compiled, nn.Module):
            model = compiled
        elif isinstance(model, DistributedDataParallel):
            model = model.module
        else:
            return model
