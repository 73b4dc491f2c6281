"""Random numbers that are drawn once and given again to every other run of a point.

A lift draws other numbers than the pass that it lifts, since PyTorch's generators give a float64
another part of their stream; and a mini-batch in another order drops other entries of each sample.
So what a first run draws is kept, and later runs get the same real numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kinkcheck.errors import InputError

_aten = torch.ops.aten

_PURE = frozenset(
    getattr(_aten, name)
    for name in (
        "bernoulli", "bernoulli_", "cauchy", "cauchy_", "exponential", "exponential_", "geometric",
        "geometric_", "log_normal", "log_normal_", "multinomial", "normal", "normal_", "poisson",
        "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm",
        "uniform", "uniform_",
    )
)  # fmt: skip
"""The operations whose result is what was drawn, and nothing else."""

_DROPOUT = _aten.native_dropout
"""Dropout on CUDA, whose second result is the mask that was drawn."""


class Draws:
    """What one forward pass draws at random.

    >>> from kinkcheck.tape import record
    >>> draws, x = Draws(), torch.ones(4, dtype=torch.float16)
    >>> with record(draw=draws.keep):
    ...     first = torch.nn.functional.dropout(x)
    >>> with draws.given().forward():
    ...     torch.equal(torch.nn.functional.dropout(x.double()), first.double())
    True
    """

    def __init__(self) -> None:
        self._drawn: list[tuple[str, Tensor | None]] = []

    def keep(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Carry out an operation of the first run that draws, and keep what it draws."""
        before = _state()
        result = func(*args, **kwargs)
        if func.overloadpacket in _PURE:
            halves = result.is_floating_point() and bool(((result == 0) | (result == 1)).all())
            self._drawn.append((_name(func), result.bool() if halves else result.clone()))
        elif not torch.equal(before, _state()):
            mask = result[1].clone() if func.overloadpacket is _DROPOUT else None
            self._drawn.append((_name(func), mask))
        return result

    def given(self, order: Tensor | None = None, samples: int = 0, dim: int = 0) -> Given:
        """Contexts for another run: give what was kept.

        Args:
            order: the numbers of the samples of that run; of draws for ``samples`` samples it gets
                those of its own.
            samples: how many the first run had.
            dim: the dimension along which a draw has an entry a sample; where one has not as many
                there, it has them one after the other along the first.
        """
        return Given([(name, _own(drawn, order, samples, dim)) for name, drawn in self._drawn])


def _own(drawn: Tensor | None, order: Tensor | None, samples: int, dim: int) -> Tensor | None:
    """Of what was drawn for all samples, the part of those that take part."""
    if order is None or drawn is None or not drawn.dim() or not samples:
        return drawn
    order = order.to(drawn.device)
    if -drawn.dim() <= dim < drawn.dim() and drawn.shape[dim] == samples:
        return drawn.index_select(dim, order)
    each, rest = divmod(len(drawn), samples)
    if rest or not each:
        return drawn
    by_sample = drawn.view(samples, each, *drawn.shape[1:])
    return by_sample.index_select(0, order).flatten(0, 1)


class Given:
    """Contexts in which a run draws what it is given; made by :meth:`Draws.given`."""

    def __init__(self, drawn: list[tuple[str, Tensor | None]]) -> None:
        self._drawn = drawn
        self._by_state: dict[bytes, Tensor] = {}

    @contextmanager
    def forward(self) -> Iterator[None]:
        """For the forward pass, which draws in the order of the first run.

        Raises:
            InputError: it draws more, less, or something else.
        """
        if not self._drawn:  # as most programs: nothing has to look at each call
            before = _state()
            yield
            if not torch.equal(before, _state()):
                raise InputError(_otherwise("draws"))
            return
        left = list(self._drawn)

        def give(name: str, shape: torch.Size, state: bytes) -> Tensor:
            if not left or left[0][0] != name:
                raise InputError(_otherwise(f"draws {name}"))
            drawn = left.pop(0)[1]
            if drawn is None or drawn.shape != shape:
                raise InputError(_otherwise(f"draws {tuple(shape)} with {name}"))
            self._by_state[state] = drawn
            return drawn

        with _Give(give, {name for name, drawn in left if drawn is None}):
            yield
        if left:
            raise InputError(_otherwise(f"does not draw {left[0][0]}"))

    def backward(self) -> AbstractContextManager[object]:
        """For backward passes, in which activation checkpointing draws again.

        It sets the generator back to where it stood, by which the draw is known; what else is drawn
        there stays.
        """
        if not self._by_state:
            return nullcontext()

        def give(name: str, shape: torch.Size, state: bytes) -> Tensor | None:
            drawn = self._by_state.get(state)
            return None if drawn is None or drawn.shape != shape else drawn

        return _Give(give, set())


class _Give(TorchDispatchMode):
    """Lets ``give`` say what is drawn: by operation, shape, and state of the generator."""

    def __init__(
        self, give: Callable[[str, torch.Size, bytes], Tensor | None], inside: set[str]
    ) -> None:
        super().__init__()
        self._give = give
        self._inside = inside

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        name = _name(func)
        if name in self._inside:
            raise InputError(
                f"network: draws random numbers inside {name}, which cannot be repeated in another "
                "precision or order; audit it in evaluation mode, or without the lift"
            )
        before = _state()
        state = before.numpy().tobytes()
        # Drawn all the same, for its type and layout, and so that the generator moves on.
        result = func(*args, **kwargs)
        if func.overloadpacket in _PURE:
            drawn = self._give(name, result.shape, state)
            return result if drawn is None else result.copy_(drawn)
        if func.overloadpacket is _DROPOUT and not torch.equal(before, _state()):
            drawn = self._give(name, result[1].shape, state)
            return result if drawn is None else _dropped(args[0], args[1], drawn)
        return result


def _dropped(input: Tensor, probability: float, mask: Tensor) -> tuple[Tensor, Tensor]:
    scale = 1 / (1 - probability) if probability < 1 else 0.0
    return input * mask * scale, mask.clone()


def _state() -> Tensor:
    """How far all generators are, those of CUDA devices too."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.cat([torch.get_rng_state(), *devices])


def _name(func: Any) -> str:
    return str(func.overloadpacket.__name__)


def _otherwise(how: str) -> str:
    return (
        f"network: draws random numbers otherwise when it runs again ({how}), so that runs of one "
        "point cannot be compared; audit it in evaluation mode, or without the lift"
    )
